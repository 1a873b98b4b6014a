package wire

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/version"
)

// Identity is a server's identity towards its peers.
type Identity struct {
	// Cluster is the cluster's name.
	Cluster string

	// Secret is known only to the members of the cluster. It is never sent.
	Secret string

	// Keys are the keys with which the server speaks TLS to its peers; nil if it
	// does not.
	Keys *trust.Keys

	// ID is the server's ID.
	ID uint64

	// Address is where the server listens, so that a peer that it has dialed can
	// dial back: host:port.
	Address string

	// Disks knows which server has which disk; nil if the server does not check
	// disks.
	Disks Disks

	// Start is a random number that a server draws each time it starts: two
	// servers that run with copies of one disk have different ones.
	Start uint64

	// can are the versions of the protocol that this server can use, in a test;
	// none for those of this program.
	can version.Range

	// nonce, in a test, is the nonce of every handshake; nil for a new one each.
	nonce []byte
}

func (i Identity) newNonce() []byte {
	if i.nonce != nil {
		return i.nonce
	}
	return newNonce()
}

func (i Identity) versions() version.Range {
	if i.can == (version.Range{}) {
		return version.Between(oldestProtocol, protocol)
	}
	return i.can
}

// Disks knows which server has which disk. It is safe for concurrent use.
type Disks interface {
	// Own returns the incarnation of this server's disk, and Known that of a
	// peer's; 0 if this server has not met the peer.
	Own() disk.Incarnation
	Known(id uint64) disk.Incarnation

	// Admit is called when a peer has proved its identity and has a disk. It
	// refuses the peer by returning an error, and then it logs the reason itself.
	Admit(id uint64, now disk.Incarnation) error

	// Disowned is called when a peer that has proved its identity remembers
	// another disk for this server. This server must then stop.
	Disowned(by uint64, known disk.Incarnation)
}

// refusal is an error that Disks has returned or caused, and has already logged.
type refusal struct{ error }

// disks returns this server's disk and the disk of a peer, 0 for one that is not
// known.
func (i Identity) disks(peer uint64) (own, known disk.Incarnation) {
	if i.Disks == nil {
		return 0, 0
	}
	return i.Disks.Own(), i.Disks.Known(peer)
}

// admit returns why this server refuses the disk of a peer that has proved who it
// is, or nil. The error is a refusal.
func (i Identity) admit(peer uint64, now disk.Incarnation) error {
	if i.Disks == nil {
		return nil
	}
	if err := i.Disks.Admit(peer, now); err != nil {
		return refusal{err}
	}
	return nil
}

// own checks that a peer that has proved who it is knows this server with the disk
// that it has. The error is a refusal, and this server must stop.
func (i Identity) own(peer uint64, known disk.Incarnation) error {
	if i.Disks == nil {
		return nil
	}
	if own := i.Disks.Own(); known != 0 && known != own {
		i.Disks.Disowned(peer, known)
		return refusal{fmt.Errorf("n%d has another disk (incarnation %v) than n%d remembers (%v)", i.ID, own, peer, known)}
	}
	return nil
}

// Peers accepts the connections that other servers open. Such a connection begins
// with a handshake, D being the side that dialed and A the one that accepted:
//
//	D  {"hello":{"version":5,"cluster":"c","from":2,"to":1,"address":"h:7","disk":"…","known":"…","start":5,"nonce":"…"}}
//	A  {"ok":true,"data":{"version":5,"nonce":"…"}}
//	D  {"proof":"…"}
//	A  {"ok":true,"data":{"disk":"…","known":"…","proof":"…"}}
//
// A proof is an HMAC-SHA256 under the cluster's secret, over the side that proves
// (D or A) and everything that was said before it. It cannot be made without the
// secret, and neither a recorded proof of an earlier handshake nor the other
// side's own proof is accepted. The side that dialed proves itself first: a
// stranger who connects learns nothing from which the secret could be guessed.
//
// D says which versions of the protocol it can use ("oldest" is missing if there is only
// one), and A chooses the newest that both can.
//
// Each side says which disk it has and which disk of the other side it knows; the
// fields are missing if there is none. If a disk is not the one that the other
// side knows, the handshake fails, but only after both sides have proved who they
// are: A then says with its proof why it refuses D. A server thus learns that it
// has lost what it had stored.
//
// Every server that knows the secret is a peer, even if this server's
// configuration does not contain it: the configuration may have changed without
// this server (thesis §4.1).
//
// Then D sends messages, one per line: a MAC in 32 hexadecimal digits, a space, the
// message. The key comes from the secret and both nonces (HKDF), and the MAC covers
// the number of the message too. Somebody who relays the whole handshake therefore
// gains nothing: from the messages after it, none can be changed, added, repeated
// or left out. They can be read; encryption needs TLS. Empty lines keep the
// connection alive.
//
// With TLS, all of this happens inside of it. D has then checked that the certificate
// of A belongs to the server that it wants, and A checks that the certificate of D
// belongs to the server that sends the hello. So the secret alone makes nobody a peer.
//
// A hello with "probe":true only asks who is at the other end. A proves itself, and
// the connection ends.
type Peers struct {
	// Self is this server.
	Self Identity

	// Met is called for each connection of a peer that has proved who it is, with
	// the address where the peer listens, and Left when that connection has
	// ended. A peer may have two connections for a moment, so Left may be called
	// for the older one after Met for the newer one. Met and Left are called from
	// many goroutines; either may be nil.
	Met  func(id uint64, address string)
	Left func(id uint64)

	// Receive processes a message. It may keep line. It is called on the
	// goroutine that reads the peer's connection, so the peer must wait while
	// Receive waits.
	Receive func(from uint64, line []byte)

	// Elsewhere says where this server receives messages, if it does not receive
	// them here: then only the hello of a probe is answered, and others are refused
	// with this text.
	Elsewhere string

	mu    sync.Mutex
	conns map[uint64]*conn
	lives map[uint64]*peers.Lives
}

// check returns why a hello is refused, or nil.
func (p *Peers) check(h hello) error {
	switch {
	case p.Self.Secret == "":
		return fmt.Errorf("this server has no secret for its cluster, so it can trust no peer; set one in the cluster's configuration")
	case h.cluster != p.Self.Cluster:
		return fmt.Errorf("n%d belongs to cluster %.64q, this server to cluster %q", h.from, h.cluster, p.Self.Cluster)
	case h.to != p.Self.ID:
		return fmt.Errorf("n%d wants to reach n%d, but this is n%[3]d: correct the address that n%[1]d has for n%[2]d", h.from, h.to, p.Self.ID)
	case h.from == p.Self.ID:
		return fmt.Errorf("n%d is this server's own id: two servers run under one id, so stop one of them", h.from)
	case h.from == 0 || h.from > api.MaxID:
		return fmt.Errorf("n%d is not a server's ID: IDs go from 1 to 2^53", h.from)
	case p.Elsewhere != "" && !h.probe:
		return fmt.Errorf("n%d wants to send messages over TCP, but %s", h.from, p.Elsewhere)
	}
	if err := api.CheckMemberAddress(h.address); err != nil {
		return fmt.Errorf("n%d sent no usable address in its hello: %w", h.from, err)
	}
	return nil
}

// hello answers the handshake that begins with line and, if it succeeds, hands
// the connection over to servePeer.
func (c *conn) hello(line []byte) error {
	c.in.limit, c.greeted = maxHello, true
	h, nonce, err := c.handshake(line)
	if err != nil {
		c.s.helloNews.Say(c.fault(err), func(before int) {
			c.s.log.Warn("a peer was refused", "address", c.nc.RemoteAddr(), "error", err, "refused_before", before)
		})
		return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
	}
	if h.probe {
		return cmp.Or(c.welcome(h, nonce, nil), io.EOF)
	}
	messages, err := h.seal(c.s.Peers.Self.Secret, nonce)
	if err != nil {
		return err
	}
	switch err := c.meet(h, nonce); {
	case errors.As(err, new(refusal)):
		return io.EOF // the peer knows why
	case err != nil:
		return err
	}
	c.isPeer, c.idle, c.in.limit = true, c.s.limits.Idle, c.s.limits.PeerLine
	c.in.release()
	c.s.becomePeer(c)
	c.s.peers.Go(func() error {
		c.servePeer(h, messages)
		return nil
	})
	return errPeer
}

// meet ends a handshake in which the peer has proved who it is. An error means that
// the connection must end.
func (c *conn) meet(h hello, nonce []byte) error {
	p := c.s.Peers
	refused := p.Self.admit(h.from, h.disk)
	if refused == nil {
		// This happens before the peer is told that it is accepted: a connection
		// that it opens after that is newer than this one.
		if other := p.replace(h, c); other != "" {
			peers.LogTwice(c.s.log, h.from, other, h.place(c))
		}
	}
	// The welcome comes before own, which may end this server: the peer must learn
	// which server it was and which disk it has.
	err := cmp.Or(c.welcome(h, nonce, refused), p.Self.own(h.from, h.known), refused)
	if err != nil && refused == nil {
		p.drop(h.from, c)
	}
	return err
}

// handshake is the acceptor's half of the handshake, up to its own proof.
func (c *conn) handshake(line []byte) (h hello, nonce []byte, err error) {
	p := c.s.Peers
	if p == nil {
		return h, nil, errors.New("this server has no peers, so it does not accept a hello")
	}
	h, err = decodeHello(line)
	if h.version != 0 {
		// Of a hello without a common version, nothing else has to be understood.
		var no error
		if h.agreed, no = h.agree(p.Self.versions()); no != nil {
			return h, nil, no
		}
	}
	if err == nil {
		err = cmp.Or(p.check(h), c.vouched(h))
	}
	if err != nil {
		return h, nil, err
	}
	nonce = p.Self.newNonce()
	answer := api.Response{Data: challenge{h.agreed, nonce}.appendJSON(nil)}
	if err := c.write(append(answer.AppendJSON(nil), '\n')); err != nil {
		return h, nil, fmt.Errorf("sending a nonce to n%d failed: %w", h.from, err)
	}
	reply, err := c.oneLine()
	if err != nil {
		return h, nil, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	proof, err := decodeProof(reply)
	if err != nil {
		return h, nil, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	if !hmac.Equal(proof, h.proof(dialer, p.Self.Secret, nonce, welcome{})) {
		return h, nil, fmt.Errorf("n%d does not know the secret of cluster %q", h.from, h.cluster)
	}
	return h, nonce, nil
}

// welcome sends this server's own proof. refused says why the peer is refused; nil
// if it is not.
func (c *conn) welcome(h hello, nonce []byte, refused error) error {
	self := c.s.Peers.Self
	var w welcome
	w.disk, w.known = self.disks(h.from)
	if refused != nil {
		w.refused = refused.Error()
	}
	answer := api.Response{Data: w.appendJSON(nil, h.proof(acceptor, self.Secret, nonce, w))}
	return c.write(append(answer.AppendJSON(nil), '\n'))
}

// oneLine reads the next line of a handshake, which must come soon.
func (c *conn) oneLine() ([]byte, error) {
	c.readBy.to(time.Now().Add(c.s.limits.Dial))
	for {
		line, ok, err := c.in.next()
		if ok || err != nil {
			return line, err
		}
		if err := c.in.fill(); err != nil {
			return nil, err
		}
	}
}

// servePeer receives the messages of a peer until the connection ends.
func (c *conn) servePeer(h hello, messages *seal) {
	p, from := c.s.Peers, h.from
	c.s.log.Debug("a peer has connected", "peer", from, "address", c.nc.RemoteAddr(), "version", h.agreed)
	if p.Met != nil {
		p.Met(from, h.address)
	}
	c.handle = func(line []byte) error {
		message, err := messages.open(line)
		if err != nil {
			return c.forged(from, err)
		}
		p.Receive(from, bytes.Clone(message))
		return nil
	}
	err := c.serve()
	c.s.log.Debug("a peer's connection has ended", "peer", from, "error", err)
	p.drop(from, c)
	if p.Left != nil {
		p.Left(from)
	}
	c.finish(err)
	c.s.forget(c)
}

// forged refuses a message that is not what the peer has sent.
func (c *conn) forged(from uint64, err error) error {
	c.s.log.Warn("a peer's message was not genuine; the connection is closed", "peer", from, "error", err)
	return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
}

// replace makes c the only connection of a peer, and closes an older one: a peer
// dials again when its old connection has failed, which this side may not have
// noticed. If the start in h shows that the peer runs twice, replace returns the
// address of the other process, else "".
func (p *Peers) replace(h hello, c *conn) (other string) {
	p.mu.Lock()
	old := p.conns[h.from]
	if p.conns == nil {
		p.conns, p.lives = make(map[uint64]*conn), make(map[uint64]*peers.Lives)
	}
	p.conns[h.from] = c
	if p.lives[h.from] == nil {
		p.lives[h.from] = new(peers.Lives)
	}
	other = p.lives[h.from].See(h.start, h.place(c))
	p.mu.Unlock()
	if old != nil {
		old.kill()
	}
	return other
}

func (p *Peers) drop(id uint64, c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[id] == c {
		delete(p.conns, id)
	}
}
