package udp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport"
)

// internet is a network without sockets, in the time of a bubble of synctest.
type internet struct {
	mu      sync.Mutex
	sockets map[netip.AddrPort]*fakeSocket

	// longest is the longest datagram that the network carries. Longer ones are
	// lost, or refused with an error if tells is true.
	longest int
	tells   bool

	// delay is how long a datagram takes.
	delay time.Duration

	// room is how much weight the buffer of a socket holds, and overflows how many
	// datagrams found it full.
	room, overflows int

	// flying are the datagrams that are on their way, the oldest first.
	flying []parcel

	// on is called for each datagram; see whenever. all has them all.
	on  func(b []byte, from, to netip.AddrPort) bool
	all []parcel
}

type parcel struct {
	b        []byte
	from, to netip.AddrPort
}

type fakeSocket struct {
	net    *internet
	at     netip.AddrPort
	closed chan struct{}
	once   sync.Once
	in     chan parcel

	mu    sync.Mutex
	holds int
}

func newInternet() *internet {
	return &internet{sockets: make(map[netip.AddrPort]*fakeSocket), longest: maxDatagram, delay: time.Millisecond, room: 1 << 20}
}

func place(n uint64) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 7000)
}

func (n *internet) socket(at netip.AddrPort) *fakeSocket {
	s := &fakeSocket{net: n, at: at, closed: make(chan struct{}), in: make(chan parcel, 10_000)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[at] = s
	return s
}

func (s *fakeSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.in:
		s.mu.Lock()
		s.holds -= weight(len(p.b))
		s.mu.Unlock()
		return copy(b, p.b), p.from, nil
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *fakeSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(b) > n.longest && n.tells {
		return 0, syscall.EMSGSIZE
	}
	p := parcel{bytes.Clone(b), s.at, to}
	n.all = append(n.all, p)
	if len(b) <= n.longest && (n.on == nil || n.on(p.b, s.at, to)) {
		n.flying = append(n.flying, p)
		time.AfterFunc(n.delay, n.deliverNext)
	}
	return len(b), nil
}

// whenever calls f for each datagram that is sent from now on: f may change it, or
// return false to lose it.
func (n *internet) whenever(f func(b []byte, from, to netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.on = f
}

func (n *internet) deliverNext() {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.flying[0]
	n.flying = n.flying[1:]
	n.arrive(p)
}

// deliver makes a datagram arrive now.
func (n *internet) deliver(p parcel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.arrive(p)
}

// arrive puts a datagram into the buffer of a socket. n.mu must be held.
func (n *internet) arrive(p parcel) {
	s := n.sockets[p.to]
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds+weight(len(p.b)) > n.room {
		n.overflows++
		return
	}
	s.holds += weight(len(p.b))
	s.in <- parcel{bytes.Clone(p.b), p.from, p.to}
}

func (s *fakeSocket) SetWriteDeadline(time.Time) error { return nil }
func (s *fakeSocket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(s.at) }

func (s *fakeSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.net.sockets[s.at] == s {
		delete(s.net.sockets, s.at)
	}
	return nil
}

// record returns what was sent so far, and begins again.
func (n *internet) record() []parcel {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}

// count returns how many datagrams of a kind were sent.
func count(all []parcel, kind byte) (n int) {
	for _, p := range all {
		if p.b[0] == kind {
			n++
		}
	}
	return n
}

// station is a Transport that is running, and what it has received.
type station struct {
	*Transport
	t    *testing.T
	stop context.CancelFunc
	done chan error
	log  *locked

	mu  sync.Mutex
	got []string

	// slow is how long the server takes for a message.
	slow time.Duration
}

// start starts a server with a number, at its place.
func (n *internet) start(t *testing.T, id uint64, change func(*transport.Options)) *station {
	return n.startAt(t, id, place(id), change)
}

func (n *internet) startAt(t *testing.T, id uint64, at netip.AddrPort, change func(*transport.Options)) *station {
	s := &station{t: t, done: make(chan error, 1), log: new(locked)}
	o := transport.Options{ID: id, Cluster: "north", Secret: "s", Address: at.String(), Listen: at.String(), Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&o)
	}
	var err error
	s.Transport, err = NewOver(o, Network{Socket: n.socket(at), In: n.room, Out: 1 << 20, Whole: true})
	require.NoError(t, err)
	return s
}

// run begins to run it, with peers that it knows.
func (s *station) run(peers ...uint64) *station {
	ctx, stop := context.WithCancel(s.t.Context())
	s.stop = stop
	s.connect(peers...)
	go func() {
		s.done <- s.Run(ctx, func(from uint64, line []byte) {
			time.Sleep(s.slow)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.got = append(s.got, fmt.Sprintf("n%d %s", from, line))
		})
	}()
	return s
}

func (s *station) connect(peers ...uint64) {
	var members []node.Member
	for _, id := range peers {
		members = append(members, node.Member{ID: id, Address: place(id).String()})
	}
	s.Connect(members)
}

func (s *station) end() {
	s.t.Helper()
	s.stop()
	require.NoError(s.t, <-s.done)
}

// took returns what has arrived since the last call.
func (s *station) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// out returns a copy of the present session to a peer; nil if there is none.
func (s *station) out(id uint64) *outbound {
	var o *outbound
	s.look(func() {
		if p := s.peers[id]; p != nil && p.link != nil {
			p.link.mu.Lock()
			defer p.link.mu.Unlock()
			if p.link.out != nil {
				now := *p.link.out
				o = &now
			}
		}
	})
	return o
}

// in returns the incomplete messages in the present session of a peer, and their
// bytes; false if there is no session.
func (s *station) in(id uint64) (messages, bytes int, ok bool) {
	s.look(func() {
		if p := s.peers[id]; p != nil && p.current != nil {
			p.current.mu.Lock()
			defer p.current.mu.Unlock()
			messages, bytes, ok = len(p.current.parts), p.current.partBytes, true
		}
	})
	return messages, bytes, ok
}

// look calls f while nothing changes, except within links and sessions.
func (s *station) look(f func()) {
	s.Transport.mu.Lock()
	defer s.Transport.mu.Unlock()
	f()
}

// sessions returns how many sessions there are in each direction.
func (s *station) sessions() (in, out int) {
	s.look(func() {
		s.outMu.Lock()
		defer s.outMu.Unlock()
		in, out = len(s.inbound), len(s.outbound)
	})
	return in, out
}

// linkTo returns the link to a peer.
func (s *station) linkTo(id uint64) (l *link) {
	s.look(func() { l = s.peers[id].link })
	return l
}

// locked is a buffer for several goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// pair are two servers that have found each other.
func pair(t *testing.T, n *internet) (a, b *station) {
	a, b = n.start(t, 1, nil).run(2), n.start(t, 2, nil).run(1)
	pass(time.Second)
	require.True(t, a.out(2) != nil)
	require.True(t, b.out(1) != nil)
	return a, b
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func members(id uint64, address string) []node.Member {
	return []node.Member{{ID: id, Address: address}}
}
