// Package udp is the transport "udp": it carries the messages between servers in
// UDP datagrams, one for each message, on the port number that the server has for
// TCP. This is the network that the simulator pretends to be: it loses, repeats and
// reorders. Import it for its side effect.
//
// # Sessions
//
// Messages to a peer are sent in a session, which begins with two datagrams:
//
//	hello    who says it, which versions it can use, to whom, for which cluster, when it has started, how many hellos before, nonce, MAC
//	answer   the version to use, the number of the session, when the peer has started, how much it can take at once, nonce, MAC
//
// The MACs are HMAC-SHA256 with keys from the cluster's secret; that of the answer
// covers the hello. The side that says hello proves itself first. A stranger who
// does not know the secret gets no answer at all, and no answer is longer than the
// hello, so nobody can use a server to multiply traffic.
//
// Everything after that is encrypted and authenticated with AES-256-GCM. The keys
// come from the secret and both nonces (HKDF), so each session has its own. The
// nonce of a datagram is its number; a number that has arrived already is refused,
// so nothing can be repeated. Somebody may repeat a whole hello: the session that
// this opens cannot be used without the keys, and replaces no newer one. A new session,
// with new keys, begins after an hour or four million datagrams, and when a peer has
// started again.
//
// Without TLS, anyone who records the datagrams and learns the secret later can read
// them: the keys come from it and from the nonces, which are in the hello and the answer
// (no forward secrecy). In a cluster that uses TLS, the keys do not come from the secret
// alone, and the secret does not help to read such a recording: see agree.go.
//
// A session has one direction. The other one carries only acks, for which the sender
// asks now and then. An ack says how many datagrams have arrived and how much room
// the receiver's socket has. From this the sender knows how much it may send at
// once, that the peer is there, and how many datagrams are lost.
//
// # Long messages
//
// A datagram has at most 1,200 bytes, until a longer one has proved to arrive. A
// message that does not fit is sent in parts. If a part is missing after two
// seconds, the message is dropped: nothing is ever sent again because it was lost.
// But if the acks say that many datagrams are lost, each part is sent more than
// once, since otherwise a long message would never arrive.
//
// # Limits
//
// For each peer: a queue of Limits.QueueBytes, and Limits.Message for the parts of
// incomplete messages. For a stranger: nothing but the time to check one MAC or one
// AES-GCM tag.
package udp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/loglimit"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/version"
)

// Name is the name of the transport.
const Name = "udp"

func init() {
	transport.Register(Name, func(o transport.Options) (transport.Transport, error) { return New(o) })
}

const (
	// socketBuffer is how much memory is asked for, for the datagrams that wait to
	// be read, and for those that wait to be sent. The system may give less.
	socketBuffer = 4 << 20

	// unknownBuffer is what a system is assumed to give that does not say it.
	unknownBuffer = 128 << 10

	// maxMessage is the longest message for which the numbers of parts suffice.
	maxMessage = 64 << 20

	// quiet is how long a peer that is connected may be silent before it counts as
	// gone.
	quiet = 4 * keepAlive

	// maxPeers is how many servers of the cluster are remembered.
	maxPeers = 10_000

	// lateness is how much later a datagram may arrive than the first one of a peer
	// that has started again. If one is even later, the older process is still running.
	lateness = 2 * time.Second

	// writeTime is how long a write to the socket may wait for room.
	writeTime = 500 * time.Millisecond
)

// Socket is the part of a net.UDPConn that a Transport uses.
type Socket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	SetWriteDeadline(time.Time) error
	LocalAddr() net.Addr
	Close() error
}

// Network is what carries the datagrams of a Transport: a UDP port, or what a test
// puts in its place.
type Network struct {
	Socket Socket

	// In and Out are the sizes of the socket's buffers in bytes; 0 if they are
	// unknown. Whole is true if the system does not split datagrams.
	In, Out int
	Whole   bool

	// Rekey is after how many datagrams a session ends; 0 means the default.
	Rekey uint64
}

// Transport is a transport.Transport over UDP.
type Transport struct {
	id      uint64
	name    string
	cluster uint64
	secret  string
	limits  transport.Limits
	log     *slog.Logger

	// keys are those of the cluster's secret. If tls is not nil, they are not used:
	// the servers agree on others over TLS.
	keys keys
	tls  *trust.Keys

	// start is drawn when the server starts, and greater than those before if the
	// clock does not go back; hellos counts its hellos.
	start  uint64
	hellos atomic.Uint64

	// can are the versions of the protocol that this server can use, and random fills
	// nonces and numbers. Tests have others.
	can    version.Range
	random func([]byte)

	socket Socket

	// rekey is after how many datagrams a session ends.
	rekey uint64

	// inRoom and outRoom are the sizes of the socket's buffers; whole is true if
	// the system does not split datagrams.
	inRoom, outRoom int
	whole           bool

	tasks errgroup.Group

	// lost learns which messages are lost.
	lost func(peer uint64, why peers.Loss, count int)

	// strangers and refusals keep the log short.
	strangers, refusals loglimit.Limit

	writeMu sync.Mutex
	writeBy time.Time

	// mu guards what follows. While it is held, the mutex of a link may be taken.
	mu sync.Mutex

	// ctx is the context of Run while it runs; nil before and after.
	ctx   context.Context
	peers map[uint64]*peer

	// inbound has the peers' sessions by the numbers that this server has given to
	// them. connected is how many peers are connected, and linked how many have a
	// link.
	inbound           map[uint32]*inbound
	connected, linked int

	// outMu guards outbound, which has the links by the numbers of their sessions
	// and handshakes. It may be taken while any other mutex is held.
	outMu    sync.Mutex
	outbound map[uint32]*link
}

// New opens the UDP port of a server.
func New(o transport.Options) (*Transport, error) {
	at, err := net.ResolveUDPAddr("udp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on UDP port %s: %w", o.Listen, err)
	}
	c, err := net.ListenUDP("udp", at)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the UDP port %s is in use, although the TCP port was free: stop the program that uses it, or choose another port", o.Listen)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on UDP port %s: %w", o.Listen, err)
	}
	_ = c.SetReadBuffer(socketBuffer)  // a smaller one is good enough
	_ = c.SetWriteBuffer(socketBuffer) // likewise
	n := Network{Socket: c}
	n.In, n.Out, n.Whole = tune(c)
	t, err := NewOver(o, n)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// NewOver returns a transport over a network, whose socket it closes at the end of
// Run.
func NewOver(o transport.Options, n Network) (*Transport, error) {
	limits := o.Limits.Filled()
	switch {
	case limits.Message > maxMessage:
		return nil, fmt.Errorf("messages of up to %d bytes are asked for; over UDP at most %d are possible", limits.Message, maxMessage)
	case o.Secret == "":
		return nil, fmt.Errorf("cluster %q has no secret, so its servers cannot trust each other; set one in the configuration", o.Cluster)
	}
	k, err := newKeys(o.Secret)
	if err != nil {
		return nil, fmt.Errorf("no keys from the cluster's secret: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Transport{id: o.ID, name: o.Cluster, cluster: clusterHash(o.Cluster), secret: o.Secret, keys: k, tls: o.Keys, limits: limits, log: log,
		lost:  func(uint64, peers.Loss, int) {},
		rekey: cmp.Or(n.Rekey, rekeyCount), start: newStart(), can: version.Between(oldestProtocol, protocol), random: random, socket: n.Socket,
		inRoom: cmp.Or(n.In, unknownBuffer), outRoom: cmp.Or(n.Out, unknownBuffer), whole: n.Whole,
		peers: make(map[uint64]*peer), inbound: make(map[uint32]*inbound), outbound: make(map[uint32]*link)}, nil
}

// newStart returns the time, in about milliseconds, with a random number behind it: two
// servers that run with copies of one disk have different ones.
func newStart() uint64 {
	const random = 20
	return uint64(time.Now().UnixNano())>>random<<random | rand.Uint64N(1<<random)
}

// OnLoss is transport.Counted.OnLoss.
func (t *Transport) OnLoss(lost func(peer uint64, why peers.Loss, count int)) { t.lost = lost }

// Close closes the socket of a server that is never run.
func (t *Transport) Close() error { return t.socket.Close() }

// Run is transport.Transport.Run.
func (t *Transport) Run(ctx context.Context, receive func(from uint64, line []byte)) error {
	var g errgroup.Group
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t.mu.Lock()
	t.ctx = ctx
	for _, p := range t.peers {
		if p.link != nil {
			t.begin(p.link)
		}
	}
	t.mu.Unlock()
	g.Go(func() error {
		defer stop()
		return t.read(ctx, receive)
	})
	g.Go(func() error {
		t.clean(ctx)
		return nil
	})
	<-ctx.Done()
	t.mu.Lock()
	t.ctx = nil // no link is started from here on
	t.mu.Unlock()
	closed := t.socket.Close()
	_ = t.tasks.Wait() // they return nil
	return errors.Join(g.Wait(), closed)
}

// begin runs a link. t.mu must be held, and t.ctx set.
func (t *Transport) begin(l *link) {
	ctx, end := context.WithCancel(t.ctx)
	l.end = end
	t.tasks.Go(func() error {
		defer end()
		l.run(ctx)
		return nil
	})
}

// Connect is transport.Transport.Connect.
func (t *Transport) Connect(members []node.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		p.named = ""
	}
	for _, m := range members {
		if p := t.peer(m.ID); p != nil && m.ID != t.id {
			p.named = m.Address
		}
	}
	for _, p := range t.peers {
		t.settle(p)
	}
}

// peer returns a peer, a new one if there is room; else nil. t.mu must be held.
func (t *Transport) peer(id uint64) *peer {
	p := t.peers[id]
	if p == nil && len(t.peers) < maxPeers {
		p = &peer{id: id}
		t.peers[id] = p
	}
	return p
}

// settle creates, ends or moves the link to a peer. There is one to each peer that
// was named or is connected. t.mu must be held.
func (t *Transport) settle(p *peer) {
	proved := p.proved
	if p.heard.IsZero() {
		proved = netip.AddrPort{}
	}
	switch wanted := p.named != "" || proved.IsValid(); {
	case wanted && p.link == nil:
		p.link = newLink(t, p.id)
		t.linked++
		p.link.place(p.named, proved)
		if t.ctx != nil {
			t.begin(p.link)
		}
	case wanted:
		p.link.place(p.named, proved)
	case p.link != nil:
		p.link.end()
		p.link = nil
		t.linked--
	}
	share := t.outRoom / max(1, t.linked)
	for _, q := range t.peers {
		if q.link != nil {
			q.link.mu.Lock()
			q.link.limit = share
			q.link.mu.Unlock()
		}
	}
}

// Send is transport.Transport.Send.
func (t *Transport) Send(to uint64, line []byte) bool {
	t.mu.Lock()
	var l *link
	if p := t.peers[to]; p != nil {
		l = p.link
	}
	t.mu.Unlock()
	if l == nil {
		t.lost(to, peers.LostUnreachable, 1)
		return false
	}
	return l.send(line)
}

// newOut gives a number to a handshake of a link.
func (t *Transport) newOut(l *link) uint32 {
	t.outMu.Lock()
	defer t.outMu.Unlock()
	for {
		if n := t.random32(); t.outbound[n] == nil {
			t.outbound[n] = l
			return n
		}
	}
}

func (t *Transport) forgetOut(index uint32) {
	t.outMu.Lock()
	defer t.outMu.Unlock()
	delete(t.outbound, index)
}

// reaches reports whether datagrams can be sent to an address from this server's
// own.
func (t *Transport) reaches(a netip.Addr) bool {
	local, ok := t.socket.LocalAddr().(*net.UDPAddr)
	if !ok {
		return true
	}
	own := local.AddrPort().Addr()
	return own.Unmap().Is4() == a.Is4() || own.IsUnspecified() && own.Is6()
}

// write sends a datagram. It waits at most writeTime for room in the socket, as on
// the loopback interface, where datagrams take room until they are read.
func (t *Transport) write(b []byte, to netip.AddrPort) error {
	now := time.Now()
	t.writeMu.Lock()
	if now.Add(writeTime / 2).After(t.writeBy) {
		t.writeBy = now.Add(writeTime)
		_ = t.socket.SetWriteDeadline(t.writeBy) // it fails only if the socket is closed
	}
	t.writeMu.Unlock()
	_, err := t.socket.WriteToUDPAddrPort(b, to)
	return err
}

// isTooLong reports whether a datagram was too long for the path to its receiver.
func isTooLong(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

// read processes the datagrams that arrive.
func (t *Transport) read(ctx context.Context, receive func(from uint64, line []byte)) error {
	b := make([]byte, maxDatagram+1)
	for {
		n, from, err := t.socket.ReadFromUDPAddrPort(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("the UDP socket of %s is closed", node.Name(t.id))
		case err != nil || n > maxDatagram || n < sealLen:
			continue // a report about an earlier datagram, or nothing of this protocol
		}
		t.arrived(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), receive)
	}
}

// arrived processes one datagram.
func (t *Transport) arrived(b []byte, from netip.AddrPort, receive func(from uint64, line []byte)) {
	now := time.Now()
	switch b[0] {
	case kindMessage:
		t.mu.Lock()
		s := t.inbound[sealIndex(b)]
		t.mu.Unlock()
		if s == nil {
			return
		}
		message, asked, first, ok := s.open(b, now, t.limits.Message)
		if !ok {
			return
		}
		window := t.heard(s, from, now, first)
		if asked {
			_ = t.write(s.ack(window), from) // acks may be lost
		}
		if message != nil {
			receive(s.peer.id, message)
		}
	case kindAck:
		if l := t.link(sealIndex(b)); l != nil {
			l.acknowledged(b, now)
		}
	case kindHello:
		t.greeted(b, from, now)
	case kindAnswer, kindRefusal:
		l := t.link(binary.BigEndian.Uint32(b[2:]))
		switch {
		case l == nil:
		case b[0] == kindRefusal:
			l.refused(b, now)
		case len(b) == answerLen:
			l.answered(b, from, now)
		}
	}
}

func (t *Transport) link(index uint32) *link {
	t.outMu.Lock()
	defer t.outMu.Unlock()
	return t.outbound[index]
}

// greeted answers a hello, if it is genuine.
func (t *Transport) greeted(b []byte, from netip.AddrPort, now time.Time) {
	if !isHello(b) {
		return
	}
	candidates := t.helloKeys(b)
	i := slices.IndexFunc(candidates, func(k keys) bool { return genuine(k.hello, nil, b) })
	if i < 0 {
		if t.tls == nil {
			t.strangers.Say("", func(before int) {
				t.log.Warn("a datagram with a wrong secret was ignored: its sender does not know the secret of this cluster", "address", from, "ignored_before", before)
			})
		}
		return
	}
	k, h := candidates[i], decodeHello(b)
	r := refusal{can: t.can, index: h.index, id: t.id}
	agreed, no := t.can.Agree(h.can, node.Name(h.from), protocolName)
	if no != nil {
		r.reason = otherVersion
	} else if h.cluster != t.cluster {
		r.reason, r.name = otherCluster, t.name
	} else if h.to != t.id {
		r.reason = otherServer
	} else if h.from == t.id {
		r.reason = sameServer
	} else if h.from == 0 || h.from > api.MaxID {
		return
	}
	if r.reason != 0 {
		why := cmp.Or(no, errors.New(r.text(h, t.id)))
		t.refusals.Say(why.Error(), func(before int) {
			t.log.Warn("a peer was refused", "address", from, "error", why, "refused_before", before)
		})
		if d := r.encode(k, b); len(d) <= len(b) {
			_ = t.write(d, from)
		}
		return
	}
	if d := t.open(slices.Clone(b), h, agreed, k, now); d != nil {
		_ = t.write(d, from)
	}
}

// text says why this server refuses a hello whose version it can use.
func (r refusal) text(h hello, self uint64) string {
	switch r.reason {
	case otherCluster:
		return fmt.Sprintf("%s belongs to another cluster, this server to cluster %q", node.Name(h.from), r.name)
	case otherServer:
		return fmt.Sprintf("%s wants to reach %s, but this is %s: correct the address that %[1]s has for %[2]s", node.Name(h.from), node.Name(h.to), node.Name(self))
	}
	return fmt.Sprintf("%s is this server's own ID: two servers run under one ID, so stop one of them", node.Name(h.from))
}

// open opens a session for a genuine hello, in a version that both servers can use, and
// returns the answer; nil if there is none. Until a datagram has arrived in the session, it replaces nothing: the hello
// may be an old one, which somebody has recorded.
func (t *Transport) open(b []byte, h hello, agreed uint64, k keys, now time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peer(h.from)
	if p == nil {
		return nil
	}
	for _, s := range append([]*inbound{p.current}, p.pending...) {
		if s != nil && bytes.Equal(s.hello, b) {
			return s.answer // the first answer was lost
		}
	}
	if h.start == p.start && h.number <= p.number {
		return nil // an old one
	}
	if len(p.pending) == maxPending {
		oldest := slices.MinFunc(p.pending, func(a, b *inbound) int {
			return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.number, b.number))
		})
		if cmp.Or(cmp.Compare(h.start, oldest.start), cmp.Compare(h.number, oldest.number)) < 0 {
			return nil // otherwise recorded hellos could keep the peer out
		}
		t.giveUp(p, func(s *inbound) bool { return s == oldest })
	}
	a := answer{version: agreed, index: h.index, start: t.start, window: t.window()}
	for a.session = t.random32(); t.inbound[a.session] != nil; {
		a.session = t.random32()
	}
	t.random(a.nonce[:])
	s := &inbound{peer: p, index: a.session, theirs: h.index, start: h.start, number: h.number, opened: now, hello: b}
	var err error
	if s.messages, s.acks, err = k.seals(b, h, a); err != nil {
		t.log.Error("no keys for a session with a peer", "peer", h.from, "error", err)
		return nil
	}
	s.answer = a.encode(k, b)
	t.inbound[s.index] = s
	p.pending = append(p.pending, s)
	return s.answer
}

// giveUp forgets sessions of a peer of which nothing has arrived. t.mu must be held.
func (t *Transport) giveUp(p *peer, which func(*inbound) bool) {
	p.pending = slices.DeleteFunc(p.pending, func(s *inbound) bool {
		gone := which(s)
		if gone {
			delete(t.inbound, s.index)
		}
		return gone
	})
}

// window returns how much a peer may send at once. t.mu must be held.
func (t *Transport) window() uint32 {
	return uint32(max(t.inRoom/max(2, t.connected+1), weight(baseSize)))
}

// heard records that a genuine datagram of a peer has arrived, and returns how much
// the peer may send at once.
func (t *Transport) heard(s *inbound, from netip.AddrPort, now time.Time, first bool) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := s.peer
	changed := p.proved != from || p.heard.IsZero()
	if p.heard.IsZero() {
		t.connected++
	}
	if first {
		t.replace(p, s, from, now)
	}
	if s == p.before && s.start != p.start && now.Sub(p.since) > lateness {
		t.saw(s, from)
	}
	p.proved, p.heard = from, now
	if changed || first {
		t.settle(p)
	}
	if first {
		p.link.renew(s.start)
	}
	return t.window()
}

// replace makes a session in which the first datagram has arrived the present one of
// its peer. t.mu must be held.
func (t *Transport) replace(p *peer, s *inbound, from netip.AddrPort, now time.Time) {
	i := slices.Index(p.pending, s)
	if i < 0 {
		return // it was dropped meanwhile
	}
	p.pending = slices.Delete(p.pending, i, i+1)
	if p.before != nil {
		delete(t.inbound, p.before.index)
	}
	p.current, p.before = s, p.current
	p.number = s.number
	if s.start == p.start {
		return
	}
	p.start, p.since = s.start, now
	t.saw(s, from)
}

// saw records that a start of a peer is still alive. t.mu must be held.
func (t *Transport) saw(s *inbound, from netip.AddrPort) {
	if other := s.peer.lives.See(s.start, from.String()); other != "" {
		peers.LogTwice(t.log, s.peer.id, other, from.String())
	}
}

// clean forgets, once a second, peers that are silent and messages that are not
// complete.
func (t *Transport) clean(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.cleanOnce(now)
		}
	}
}

func (t *Transport) cleanOnce(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if !p.heard.IsZero() && now.Sub(p.heard) > quiet {
			p.heard = time.Time{}
			t.connected--
			t.settle(p)
		}
		t.giveUp(p, func(s *inbound) bool { return now.Sub(s.opened) > pendingTime })
	}
	for _, s := range t.inbound {
		s.clean(now.Add(-maxAge))
	}
}
