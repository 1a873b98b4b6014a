package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"sync"
	"time"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/strict"
)

// protocol is the version of what peers say to each other. A server that
// speaks another one is refused by its number.
const protocol = 2

// maxHello is the longest line of a handshake.
const maxHello = 4 << 10

// Identity is what a server is to its peers.
type Identity struct {
	// Cluster is the cluster's name.
	Cluster string

	// Secret is known to the members of the cluster only. It is never sent.
	Secret string

	// ID is the server's own.
	ID uint64

	// Address is where the server listens, so that a peer which it has dialed
	// can dial back: host:port.
	Address string
}

// Peers takes the connections that other servers open. Such a connection
// begins with a handshake, D being the side that dialed and A the one that
// accepted:
//
//	D  {"hello":{"version":2,"cluster":"c","from":2,"to":1,"address":"h:7","nonce":"…"}}
//	A  {"ok":true,"data":{"nonce":"…","proof":"…"}}
//	D  {"proof":"…"}
//	A  {"ok":true}
//
// A proof is an HMAC-SHA256 under the cluster's secret, over who proves
// (D or A), the cluster, both ids, D's address and both nonces. So neither side
// can be deceived by one that does not know the secret, by what was recorded
// earlier, or by its own proof sent back. It says who is at the other end; it
// does not hide what is sent.
//
// Whoever knows the secret is a peer, whether this server counts it among the
// members or not: the members may have changed without it (thesis §4.1).
//
// Then D sends messages, one a line: the CRC-32C of the message in eight
// hexadecimal digits, a space, the message. Empty lines keep the connection
// alive. TCP's own checksum misses one damaged packet in thousands; what is
// carried here ends up in a log, so damage must be seen.
type Peers struct {
	// Self is this server.
	Self Identity

	// Met is told of each connection of a peer that has proved who it is, with
	// the address where the peer listens, and Left when that connection has
	// ended. Of one peer there may be two connections for a moment, so Left may
	// follow a second Met. They are called from many goroutines; nil means that
	// nobody wants to know.
	Met  func(id uint64, address string)
	Left func(id uint64)

	// Receive takes a message. It may keep line. It is called on the goroutine
	// that reads the peer's connection: while it waits, the peer has to wait.
	Receive func(from uint64, line []byte)

	mu    sync.Mutex
	conns map[uint64]*conn
}

// hello is the first line of a peer.
type hello struct {
	version  uint64
	cluster  string
	from, to uint64
	address  string
	nonce    []byte
}

const helloStart = `{"hello":`

func isHello(line []byte) bool { return bytes.HasPrefix(line, []byte(helloStart)) }

func (h hello) appendJSON(b []byte) []byte {
	b = append(b, helloStart+`{"version":`...)
	b = strconv.AppendUint(b, h.version, 10)
	b = append(b, `,"cluster":`...)
	b = strict.AppendString(b, h.cluster)
	b = append(b, `,"from":`...)
	b = strconv.AppendUint(b, h.from, 10)
	b = append(b, `,"to":`...)
	b = strconv.AppendUint(b, h.to, 10)
	b = append(b, `,"address":`...)
	b = strict.AppendString(b, h.address)
	b = append(b, `,"nonce":"`...)
	b = hex.AppendEncode(b, h.nonce)
	return append(b, `"}}`...)
}

func decodeHello(line []byte) (hello, error) {
	var h hello
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if string(field) != "hello" {
			d.Unknown()
			return
		}
		d.Object(func(field []byte) {
			switch string(field) {
			case "version":
				h.version = d.Uint()
			case "cluster":
				h.cluster = d.String()
			case "from":
				h.from = d.Uint()
			case "to":
				h.to = d.Uint()
			case "address":
				h.address = d.String()
			case "nonce":
				h.nonce = decodeHex(&d)
			default:
				d.Unknown()
			}
		})
	})
	if err := d.End(); err != nil {
		return h, fmt.Errorf("a hello: %w", err)
	}
	if len(h.nonce) == 0 {
		return h, fmt.Errorf("a hello: the nonce is missing")
	}
	return h, nil
}

// decodeHex reads a string that holds 32 bytes in hexadecimal digits, as a
// nonce and a proof do.
func decodeHex(d *strict.Decoder) []byte {
	text := d.Bytes()
	b, err := hex.AppendDecode(nil, text)
	if err != nil || len(b) != sha256.Size {
		d.Fail("want %d hexadecimal digits", 2*sha256.Size)
	}
	return b
}

// decodeParts reads an object that has a proof and, if wanted, a nonce.
func decodeParts(line []byte, wantNonce bool) (nonce, proof []byte, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch {
		case string(field) == "nonce" && wantNonce:
			nonce = decodeHex(&d)
		case string(field) == "proof":
			proof = decodeHex(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return nil, nil, err
	}
	if proof == nil || wantNonce && nonce == nil {
		return nil, nil, errors.New("the nonce or the proof is missing")
	}
	return nonce, proof, nil
}

func newNonce() []byte {
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b) // never fails
	return b
}

// proof is what the side called by ("dialer" or "acceptor") has to show.
func (h hello) proof(by, secret string, answer []byte) []byte {
	var text []byte
	part := func(b []byte) {
		text = binary.BigEndian.AppendUint32(text, uint32(len(b)))
		text = append(text, b...)
	}
	part([]byte("raftsteps peer"))
	part([]byte(by))
	part([]byte(h.cluster))
	text = binary.BigEndian.AppendUint64(text, h.version)
	text = binary.BigEndian.AppendUint64(text, h.from)
	text = binary.BigEndian.AppendUint64(text, h.to)
	part([]byte(h.address))
	part(h.nonce)
	part(answer)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(text)
	return mac.Sum(nil)
}

// check says why a hello is not welcome, or nil.
func (p *Peers) check(h hello) error {
	switch {
	case p.Self.Secret == "":
		return fmt.Errorf("this server has no secret for its cluster, so it can trust no peer; set one in the cluster's configuration")
	case h.version != protocol:
		return fmt.Errorf("n%d speaks version %d of the peers' protocol, this server version %d", h.from, h.version, protocol)
	case h.cluster != p.Self.Cluster:
		return fmt.Errorf("n%d belongs to cluster %.64q, this server to cluster %q", h.from, h.cluster, p.Self.Cluster)
	case h.to != p.Self.ID:
		return fmt.Errorf("n%d looks for n%d, but this is n%d: the address it has is wrong", h.from, h.to, p.Self.ID)
	case h.from == p.Self.ID:
		return fmt.Errorf("n%d is this server's own id: two servers run under one id", h.from)
	case h.from == 0 || h.from > api.MaxID:
		return fmt.Errorf("n%d is no server: IDs go from 1 to 2^53", h.from)
	}
	if err := api.CheckMemberAddress(h.address); err != nil {
		return fmt.Errorf("n%d does not say where it listens: %w", h.from, err)
	}
	return nil
}

// hello answers the handshake that begins with line and, if it succeeds, hands
// the connection over to servePeer.
func (c *conn) hello(line []byte) error {
	c.in.limit, c.greeted = maxHello, true
	h, err := c.handshake(line)
	if err != nil {
		c.s.helloNews.say(func(before int) {
			c.s.log.Warn("a peer was refused", "address", c.nc.RemoteAddr(), "error", err, "refused_before", before)
		})
		return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
	}
	c.isPeer, c.idle, c.in.limit = true, c.s.limits.Idle, c.s.limits.PeerLine
	c.in.release()
	c.s.becomePeer(c)
	c.s.peers.Go(func() error {
		c.servePeer(h.from, h.address)
		return nil
	})
	return errPeer
}

func (c *conn) handshake(line []byte) (h hello, err error) {
	p := c.s.Peers
	if p == nil {
		return h, errors.New("this server has no peers, so it answers no hello")
	}
	if h, err = decodeHello(line); err != nil {
		return h, err
	}
	if err := p.check(h); err != nil {
		return h, err
	}
	nonce := newNonce()
	answer := fmt.Appendf(nil, `{"ok":true,"data":{"nonce":"%x","proof":"%x"}}`+"\n", nonce, h.proof("acceptor", p.Self.Secret, nonce))
	if err := c.write(answer); err != nil {
		return h, fmt.Errorf("n%d does not read: %w", h.from, err)
	}
	reply, err := c.oneLine()
	if err != nil {
		return h, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	_, proof, err := decodeParts(reply, false)
	if err != nil {
		return h, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	if !hmac.Equal(proof, h.proof("dialer", p.Self.Secret, nonce)) {
		return h, fmt.Errorf("n%d does not know the secret of cluster %q", h.from, h.cluster)
	}
	return h, c.write([]byte(`{"ok":true}` + "\n"))
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

// servePeer takes the messages of a peer until the connection ends.
func (c *conn) servePeer(from uint64, address string) {
	p := c.s.Peers
	p.replace(from, c)
	c.s.log.Debug("a peer has connected", "peer", from, "address", c.nc.RemoteAddr())
	if p.Met != nil {
		p.Met(from, address)
	}
	c.handle = func(line []byte) error { return c.message(from, line) }
	err := c.serve()
	c.s.log.Debug("a peer's connection has ended", "peer", from, "error", err)
	p.drop(from, c)
	if p.Left != nil {
		p.Left(from)
	}
	c.finish(err)
	c.s.forget(c)
}

// message takes one message of a peer.
func (c *conn) message(from uint64, line []byte) error {
	message, err := openEnvelope(line)
	if err != nil {
		c.s.log.Warn("a peer's message was damaged on its way; the connection is closed", "peer", from, "error", err)
		return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
	}
	c.s.Peers.Receive(from, bytes.Clone(message))
	return nil
}

// replace makes c the one connection of a peer. An older one is closed: a peer
// that dials again knows that the old one is of no use, this side may not.
func (p *Peers) replace(id uint64, c *conn) {
	p.mu.Lock()
	old := p.conns[id]
	if p.conns == nil {
		p.conns = make(map[uint64]*conn)
	}
	p.conns[id] = c
	p.mu.Unlock()
	if old != nil {
		old.kill()
	}
}

func (p *Peers) drop(id uint64, c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[id] == c {
		delete(p.conns, id)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcDigits is the length of the checksum in front of a message.
const crcDigits = 8

// appendEnvelope appends a message behind its checksum, and a newline.
func appendEnvelope(b, message []byte) []byte {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(message, castagnoli))
	b = hex.AppendEncode(b, sum[:])
	b = append(b, ' ')
	b = append(b, message...)
	return append(b, '\n')
}

// openEnvelope returns the message behind its checksum.
func openEnvelope(line []byte) ([]byte, error) {
	var sum [4]byte
	if len(line) <= crcDigits || line[crcDigits] != ' ' {
		return nil, errors.New("a message without its checksum")
	}
	if _, err := hex.Decode(sum[:], line[:crcDigits]); err != nil {
		return nil, errors.New("a message without its checksum")
	}
	message := line[crcDigits+1:]
	want, have := binary.BigEndian.Uint32(sum[:]), crc32.Checksum(message, castagnoli)
	if want != have {
		return nil, fmt.Errorf("a message of %d bytes has the checksum %08x, but says %08x", len(message), have, want)
	}
	return message, nil
}
