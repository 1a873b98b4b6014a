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
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

// protocol is the version of the peers' protocol. A server that uses another
// version is refused, and the error names both versions.
const protocol = 4

// maxHello is the longest line of a handshake.
const maxHello = 4 << 10

// Identity is a server's identity towards its peers.
type Identity struct {
	// Cluster is the cluster's name.
	Cluster string

	// Secret is known only to the members of the cluster. It is never sent.
	Secret string

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

// meet ends a handshake in which a peer has proved who it is: now is its disk,
// and known is this server's disk as the peer knows it. The error is a refusal.
func (i Identity) meet(peer uint64, now, known disk.Incarnation) error {
	if i.Disks == nil {
		return nil
	}
	if own := i.Disks.Own(); known != 0 && known != own {
		i.Disks.Disowned(peer, known)
		return refusal{fmt.Errorf("n%d has another disk (incarnation %v) than n%d remembers (%v)", i.ID, own, peer, known)}
	}
	if err := i.Disks.Admit(peer, now); err != nil {
		return refusal{err}
	}
	return nil
}

// Peers accepts the connections that other servers open. Such a connection begins
// with a handshake, D being the side that dialed and A the one that accepted:
//
//	D  {"hello":{"version":4,"cluster":"c","from":2,"to":1,"address":"h:7","disk":"…","known":"…","start":5,"nonce":"…"}}
//	A  {"ok":true,"data":{"disk":"…","known":"…","nonce":"…","proof":"…"}}
//	D  {"proof":"…"}
//	A  {"ok":true}
//
// Each side says which disk it has and which disk of the other side it knows; the
// fields are missing if there is none. If a disk is not the one that the other
// side knows, the handshake fails, but only after both sides have proved who they
// are. A server thus learns that it has lost what it had stored.
//
// A proof is an HMAC-SHA256 under the cluster's secret, over the side that proves
// (D or A) and the content of the first two lines. It cannot be made without the
// secret, and neither a recorded proof of an earlier handshake nor the other
// side's own proof is accepted. The handshake proves who is at the other end; it
// does not encrypt the messages.
//
// Every server that knows the secret is a peer, even if this server's
// configuration does not contain it: the configuration may have changed without
// this server (thesis §4.1).
//
// Then D sends messages, one per line: the CRC-32C of the message in eight
// hexadecimal digits, a space, the message. Empty lines keep the connection
// alive. TCP's checksum has only 16 bits and misses some damage; these messages
// end up in a log, so damage must be detected.
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

	mu    sync.Mutex
	conns map[uint64]*conn
	lives map[uint64]*lives
}

// lives has the starts of a peer that this server has seen: the present one, with
// its address, and earlier ones.
type lives struct {
	now    uint64
	place  string
	before []uint64

	// told is true once this server has logged that the peer runs twice.
	told bool
}

// keptLives is how many starts before the present one are remembered.
const keptLives = 8

// see records a start. It returns true, once, when an earlier start appears
// again: the process that another one seemed to have replaced is still running.
func (l *lives) see(start uint64) bool {
	if start == l.now || start == 0 {
		return false
	}
	twice := slices.Contains(l.before, start) && !l.told
	l.told = l.told || twice
	if l.before = append(l.before, l.now); len(l.before) > keptLives {
		l.before = l.before[1:]
	}
	l.now = start
	return twice
}

// hello is the first line of a peer.
type hello struct {
	version  uint64
	cluster  string
	from, to uint64
	address  string

	// disk is the peer's disk, and known is this server's disk as the peer knows
	// it.
	disk, known disk.Incarnation
	start       uint64
	nonce       []byte
}

// place describes where a peer is: its address, and the address from which it has
// connected.
func (h hello) place(c *conn) string {
	return fmt.Sprintf("%s, from %s", h.address, c.nc.RemoteAddr())
}

// challenge is the acceptor's answer to a hello, without its proof.
type challenge struct {
	disk, known disk.Incarnation
	nonce       []byte
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
	b = append(b, ',')
	b = appendDisks(b, h.disk, h.known)
	if h.start != 0 {
		b = append(b, `"start":`...)
		b = strconv.AppendUint(b, h.start, 10)
		b = append(b, ',')
	}
	b = append(b, `"nonce":"`...)
	b = hex.AppendEncode(b, h.nonce)
	return append(b, `"}}`...)
}

// appendDisks appends the fields of two disks, each followed by a comma, without
// those that are 0.
func appendDisks(b []byte, own, known disk.Incarnation) []byte {
	for _, f := range []struct {
		name string
		disk disk.Incarnation
	}{{"disk", own}, {"known", known}} {
		if f.disk != 0 {
			b = fmt.Appendf(b, `"%s":"%v",`, f.name, f.disk)
		}
	}
	return b
}

func (c challenge) appendJSON(b, proof []byte) []byte {
	b = append(b, '{')
	b = appendDisks(b, c.disk, c.known)
	return fmt.Appendf(b, `"nonce":"%x","proof":"%x"}`, c.nonce, proof)
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
			case "disk":
				h.disk = decodeDisk(&d)
			case "known":
				h.known = decodeDisk(&d)
			case "start":
				h.start = d.Uint()
			case "nonce":
				h.nonce = decodeHex(&d)
			default:
				d.Unknown()
			}
		})
	})
	if err := d.End(); err != nil {
		return h, fmt.Errorf("a malformed hello: %w", err)
	}
	if len(h.nonce) == 0 {
		return h, fmt.Errorf("a malformed hello: the nonce is missing")
	}
	return h, nil
}

// decodeHex reads a nonce or a proof: a string of 32 bytes in hexadecimal digits.
func decodeHex(d *strict.Decoder) []byte {
	text := d.Bytes()
	b, err := hex.AppendDecode(nil, text)
	if err != nil || len(b) != sha256.Size {
		d.Fail("want %d hexadecimal digits", 2*sha256.Size)
	}
	return b
}

func decodeDisk(d *strict.Decoder) disk.Incarnation {
	i, err := disk.ParseIncarnation(d.Bytes())
	if err != nil {
		d.Fail("%v", err)
	}
	return i
}

// decodeChallenge reads the answer to a hello.
func decodeChallenge(line []byte) (c challenge, proof []byte, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch string(field) {
		case "disk":
			c.disk = decodeDisk(&d)
		case "known":
			c.known = decodeDisk(&d)
		case "nonce":
			c.nonce = decodeHex(&d)
		case "proof":
			proof = decodeHex(&d)
		default:
			d.Unknown()
		}
	})
	if err := d.End(); err != nil {
		return c, nil, err
	}
	if proof == nil || c.nonce == nil {
		return c, nil, errors.New("the nonce or the proof is missing")
	}
	return c, proof, nil
}

// decodeProof reads the answer to a challenge.
func decodeProof(line []byte) (proof []byte, err error) {
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		if string(field) != "proof" {
			d.Unknown()
			return
		}
		proof = decodeHex(&d)
	})
	if err := d.End(); err != nil {
		return nil, err
	}
	if proof == nil {
		return nil, errors.New("the proof is missing")
	}
	return proof, nil
}

func newNonce() []byte {
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b) // never fails
	return b
}

// proof returns the proof of one side; by is "dialer" or "acceptor".
func (h hello) proof(by, secret string, c challenge) []byte {
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
	for _, n := range []uint64{uint64(h.disk), uint64(h.known), h.start, uint64(c.disk), uint64(c.known)} {
		text = binary.BigEndian.AppendUint64(text, n)
	}
	part(h.nonce)
	part(c.nonce)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(text)
	return mac.Sum(nil)
}

// check returns why a hello is refused, or nil.
func (p *Peers) check(h hello) error {
	switch {
	case p.Self.Secret == "":
		return fmt.Errorf("this server has no secret for its cluster, so it can trust no peer; set one in the cluster's configuration")
	case h.version != protocol:
		return fmt.Errorf("n%d uses version %d of the peers' protocol, this server version %d: run the same program on both", h.from, h.version, protocol)
	case h.cluster != p.Self.Cluster:
		return fmt.Errorf("n%d belongs to cluster %.64q, this server to cluster %q", h.from, h.cluster, p.Self.Cluster)
	case h.to != p.Self.ID:
		return fmt.Errorf("n%d wants to reach n%d, but this is n%[3]d: correct the address that n%[1]d has for n%[2]d", h.from, h.to, p.Self.ID)
	case h.from == p.Self.ID:
		return fmt.Errorf("n%d is this server's own id: two servers run under one id, so stop one of them", h.from)
	case h.from == 0 || h.from > api.MaxID:
		return fmt.Errorf("n%d is not a server's ID: IDs go from 1 to 2^53", h.from)
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
	h, err := c.handshake(line)
	if err != nil {
		if !errors.As(err, new(refusal)) {
			c.s.helloNews.say(func(before int) {
				c.s.log.Warn("a peer was refused", "address", c.nc.RemoteAddr(), "error", err, "refused_before", before)
			})
		}
		return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
	}
	// This happens before the peer is told that it is accepted: a connection that
	// it opens after that is newer than this one.
	if other := c.s.Peers.replace(h, c); other != "" {
		c.s.log.Error("a peer runs twice, on copies of one folder; stop one of the two, and delete its folder",
			"peer", h.from, "one", other, "other", h.place(c))
	}
	if err := c.write([]byte(`{"ok":true}` + "\n")); err != nil {
		c.s.Peers.drop(h.from, c)
		return err
	}
	c.isPeer, c.idle, c.in.limit = true, c.s.limits.Idle, c.s.limits.PeerLine
	c.in.release()
	c.s.becomePeer(c)
	c.s.peers.Go(func() error {
		c.servePeer(h)
		return nil
	})
	return errPeer
}

func (c *conn) handshake(line []byte) (h hello, err error) {
	p := c.s.Peers
	if p == nil {
		return h, errors.New("this server has no peers, so it does not accept a hello")
	}
	if h, err = decodeHello(line); err != nil {
		return h, err
	}
	if err := p.check(h); err != nil {
		return h, err
	}
	own, known := p.Self.disks(h.from)
	challenge := challenge{disk: own, known: known, nonce: newNonce()}
	answer := api.Response{Data: challenge.appendJSON(nil, h.proof("acceptor", p.Self.Secret, challenge))}
	if err := c.write(append(answer.AppendJSON(nil), '\n')); err != nil {
		return h, fmt.Errorf("sending a challenge to n%d failed: %w", h.from, err)
	}
	reply, err := c.oneLine()
	if err != nil {
		return h, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	proof, err := decodeProof(reply)
	if err != nil {
		return h, fmt.Errorf("n%d did not prove who it is: %w", h.from, err)
	}
	if !hmac.Equal(proof, h.proof("dialer", p.Self.Secret, challenge)) {
		return h, fmt.Errorf("n%d does not know the secret of cluster %q", h.from, h.cluster)
	}
	return h, p.Self.meet(h.from, h.disk, h.known)
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
func (c *conn) servePeer(h hello) {
	p, from := c.s.Peers, h.from
	c.s.log.Debug("a peer has connected", "peer", from, "address", c.nc.RemoteAddr())
	if p.Met != nil {
		p.Met(from, h.address)
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

// message processes one message of a peer.
func (c *conn) message(from uint64, line []byte) error {
	message, err := openEnvelope(line)
	if err != nil {
		c.s.log.Warn("a peer's message was damaged on its way; the connection is closed", "peer", from, "error", err)
		return &api.Error{Code: api.BadRequest, Definite: true, Message: err.Error()}
	}
	c.s.Peers.Receive(from, bytes.Clone(message))
	return nil
}

// replace makes c the only connection of a peer, and closes an older one: a peer
// dials again when its old connection has failed, which this side may not have
// noticed. If the start in h shows that the peer runs twice, replace returns the
// address of the other process, else "".
func (p *Peers) replace(h hello, c *conn) (twice string) {
	p.mu.Lock()
	old := p.conns[h.from]
	if p.conns == nil {
		p.conns, p.lives = make(map[uint64]*conn), make(map[uint64]*lives)
	}
	p.conns[h.from] = c
	if p.lives[h.from] == nil {
		p.lives[h.from] = &lives{now: h.start}
	}
	l := p.lives[h.from]
	if l.see(h.start) {
		twice = l.place
	}
	l.place = h.place(c)
	p.mu.Unlock()
	if old != nil {
		old.kill()
	}
	return twice
}

func (p *Peers) drop(id uint64, c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[id] == c {
		delete(p.conns, id)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crcDigits is the length of the checksum before a message.
const crcDigits = 8

// appendEnvelope appends a message after its checksum, and a newline.
func appendEnvelope(b, message []byte) []byte {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(message, castagnoli))
	b = hex.AppendEncode(b, sum[:])
	b = append(b, ' ')
	b = append(b, message...)
	return append(b, '\n')
}

// openEnvelope checks the checksum and returns the message after it.
func openEnvelope(line []byte) ([]byte, error) {
	var sum [4]byte
	if len(line) <= crcDigits || line[crcDigits] != ' ' {
		return nil, errors.New("a message has no checksum")
	}
	if _, err := hex.Decode(sum[:], line[:crcDigits]); err != nil {
		return nil, errors.New("a message has no checksum")
	}
	message := line[crcDigits+1:]
	want, have := binary.BigEndian.Uint32(sum[:]), crc32.Checksum(message, castagnoli)
	if want != have {
		return nil, fmt.Errorf("a message of %d bytes has the checksum %08x, but it was sent with %08x", len(message), have, want)
	}
	return message, nil
}
