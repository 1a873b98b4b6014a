package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/tcp"
	"example.com/raftsteps/shared/core/wire"
)

// memory is a Transport without sockets: the servers of one process call each
// other. Messages to a server that is not running are lost.
type memory struct {
	mu      sync.Mutex
	inboxes map[uint64]chan mail
}

type mail struct {
	from uint64
	line []byte
}

// of returns the transport of one server.
func (m *memory) of(id uint64) Transport {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inboxes == nil {
		m.inboxes = make(map[uint64]chan mail)
	}
	m.inboxes[id] = make(chan mail, 1000)
	return &port{memory: m, id: id}
}

// inbox returns the queue of the messages to a server.
func (m *memory) inbox(id uint64) chan mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inboxes[id]
}

type port struct {
	*memory
	id uint64
}

func (p *port) Run(ctx context.Context, receive func(uint64, []byte)) error {
	arrived := p.inbox(p.id)
	for {
		select {
		case m := <-arrived:
			receive(m.from, m.line)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *port) Connect([]node.Member) {}

func (p *port) Send(to uint64, line []byte) bool {
	select {
	case p.inbox(to) <- mail{p.id, line}:
		return true
	default:
		return false
	}
}

// Three servers replicate over another Transport, and neither their messages nor
// the requests use a socket. The bubble of synctest checks that no goroutine is
// left at the end.
func TestAnotherTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := node.Config{Cluster: "north", Leader: 1}
		for id := range uint64(3) {
			config.Members = append(config.Members, node.Member{ID: id + 1, Address: fmt.Sprintf("n%d", id+1)})
		}
		var net memory
		transports := []Transport{net.of(1), net.of(2), net.of(3)}
		ctx, stop := context.WithCancel(t.Context())
		var hosts []*Host
		done := make(chan error, 3)
		for i, m := range config.Members {
			h, err := New(Options{ID: m.ID, Config: config, New: toy.New(toy.Flaws{Stale: true}), Ops: toy.Ops,
				NoClients: true, Transport: transports[i], Disk: disk.NewSim(m.Address)})
			require.NoError(t, err)
			require.Nil(t, h.Addr())
			hosts = append(hosts, h)
			go func() { done <- h.Run(ctx) }()
		}
		for i := range 10 {
			_, err := hosts[0].Do(ctx, api.Request{Op: kv.Append, Key: "x", Value: fmt.Sprint(i)})
			require.NoError(t, err)
		}
		time.Sleep(time.Second) // the followers learn what is committed
		for _, h := range hosts {
			a, err := h.Do(ctx, api.Request{Op: kv.Get, Key: "x"})
			require.NoError(t, err)
			require.Equal(t, "0123456789", a.Value)
		}
		hosts[0].Cut(2)
		hosts[0].Cut(3)
		late, end := context.WithTimeout(ctx, time.Second)
		defer end()
		_, err := hosts[0].Do(late, api.Request{Op: kv.Put, Key: "x", Value: "alone"})
		require.ErrorContains(t, err, "unknown: no answer in time")
		stop()
		for range hosts {
			require.NoError(t, <-done)
		}
	})
}

// broken is a transport that ends.
type broken struct{ Transport }

func (broken) Run(context.Context, func(uint64, []byte)) error { return fmt.Errorf("the bus is gone") }

func TestTransportThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net memory
		h, err := New(Options{ID: 1, Config: node.Config{Members: []node.Member{{ID: 1, Address: "n1"}}}, NoClients: true,
			Transport: broken{net.of(1)}, New: func(node.World) (node.Server, error) { return &recorder{}, nil }})
		require.NoError(t, err)
		require.EqualError(t, h.Run(t.Context()), "the bus is gone")
	})
}

// A server that was started later dials the others, which do not know it, and
// they create links back.
func TestJoinerIsMet(t *testing.T) {
	g := newGroup(t, 2)
	i := g.join(4)
	g.arrives(g.client(i), g.client(0), "from 4 to 1")
	g.arrives(g.client(0), g.client(i), "from 1 to 4")
	g.arrives(g.client(1), g.client(i), "from 2 to 4")
	// The server stops, and starts again at another address.
	g.stops[i]()
	require.NoError(t, <-g.done[i])
	i = g.join(4)
	g.arrives(g.client(i), g.client(0), "from the new 4 to 1")
	g.arrives(g.client(0), g.client(i), "from 1 to the new 4")
}

// within calls f on the goroutine that owns a server, and waits for its end.
func (g *group) within(i int, f func()) {
	done := make(chan struct{})
	g.hosts[i].loop.work(func() error { return nil }, func(error) {
		f()
		close(done)
	})
	<-done
}

// While the server is running, it creates and ends links: to the peers that it
// names, and to the peers that are connected to it.
func TestLinksFollowTheMembers(t *testing.T) {
	g := newGroup(t, 3)
	at := func(i int) string { return g.lns[i].Addr().String() }
	require.Eventually(t, func() bool { return len(g.met(0)) == 2 }, 10*time.Second, time.Millisecond)
	require.Equal(t, map[uint64]string{2: at(1), 3: at(2)}, g.linked(0))

	// n3 is connected to n1, so n1 keeps its link although it is named no more.
	g.within(0, func() { g.hosts[0].connect(g.config.Members[:2]) })
	require.Equal(t, map[uint64]string{2: at(1), 3: at(2)}, g.linked(0))
	// Once n3 has left, there is none.
	g.stops[2]()
	require.NoError(t, <-g.done[2])
	require.Eventually(t, func() bool { return len(g.linked(0)) == 1 }, 10*time.Second, time.Millisecond)

	// A server that is named at another address gets a new link.
	elsewhere := []node.Member{{ID: 1, Address: at(0)}, {ID: 2, Address: at(1)}, {ID: 3, Address: "127.0.0.1:1"}, {ID: 4, Address: "127.0.0.1:2"}}
	g.within(0, func() { g.hosts[0].connect(elsewhere) })
	require.Equal(t, map[uint64]string{2: at(1), 3: "127.0.0.1:1", 4: "127.0.0.1:2"}, g.linked(0))
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	g.lns[2] = ln
	moved := g.config
	moved.Members = slices.Clone(g.config.Members)
	moved.Members[2].Address = at(2)
	g.start(2, ln, moved)
	g.within(0, func() { g.hosts[0].connect([]node.Member{{ID: 3, Address: at(2)}}) })
	require.Equal(t, at(2), g.linked(0)[3])
	g.arrives(g.client(0), g.client(2), "to the new n3")

	// A server that knows no members uses those of its configuration. It still
	// dials n3 at the address that n3 has proved.
	require.Eventually(t, func() bool { return slices.Contains(g.met(0), 3) }, 10*time.Second, time.Millisecond)
	g.within(0, func() { g.hosts[0].connect(nil) })
	require.Equal(t, map[uint64]string{2: at(1), 3: at(2)}, g.linked(0))
}

// A link that can no longer be used ends at once, its connection included.
func TestLinkEndsWithItsName(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	g := newGroup(t, 1)
	g.within(0, func() { g.hosts[0].connect([]node.Member{{ID: 4, Address: ln.Addr().String()}}) })
	c, err := ln.Accept()
	require.NoError(t, err)
	defer c.Close()
	g.within(0, func() { g.hosts[0].connect(g.config.Members) })
	// It waits for an answer to its hello, and would do so for three seconds.
	require.NoError(t, c.SetReadDeadline(time.Now().Add(wire.DefaultLimits().Dial/2)))
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err, "the connection must end")
}

// The other servers answer a server that starts again at another address.
func TestServerComesBackElsewhere(t *testing.T) {
	g := newGroup(t, 2)
	old := g.config
	g.stops[1]()
	<-g.done[1]
	moved := old
	moved.Members = slices.Clone(old.Members)
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	moved.Members[1].Address = ln.Addr().String()
	g.lns[1] = ln
	g.start(1, ln, moved)
	g.arrives(g.client(1), g.client(0), "from where it is now")
	g.arrives(g.client(0), g.client(1), "to where it is now")
}

// A server may call Connect while it is created, before Run.
func TestConnectInTheFactory(t *testing.T) {
	g := newGroup(t, 1)
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	config := node.Config{Cluster: "north", Secret: "s", Members: []node.Member{{ID: 2, Address: ln.Addr().String()}}}
	h, err := New(Options{ID: 2, Config: config, Ops: api.Commands(), Listener: ln, New: func(w node.World) (node.Server, error) {
		w.Connect([]node.Member{{ID: 1, Address: g.lns[0].Addr().String()}, {ID: 2, Address: ln.Addr().String()}})
		return &recorder{}, nil
	}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	require.Eventually(t, func() bool { return slices.Equal(g.met(0), []uint64{2}) }, 10*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return len(g.met(0)) == 0 && len(g.linked(0)) == 0 }, 10*time.Second, time.Millisecond)
}

// A server without clients refuses their requests with a reason, and accepts its
// peers.
func TestNoClients(t *testing.T) {
	g := newGroup(t, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	config := g.config
	config.Joiners = []node.Member{{ID: 2, Address: ln.Addr().String()}}
	var peer recorder
	h, err := New(Options{ID: 2, Config: config, Ops: api.Commands(), Listener: ln, NoClients: true,
		HTTP: func(HTTP) http.Handler { panic("a server without clients speaks no HTTP") },
		New:  func(node.World) (node.Server, error) { return &peer, nil }})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	c, err := wire.Dial(ctx, ln.Addr().String(), wire.Limits{})
	require.NoError(t, err)
	_, err = c.Do(ctx, api.Request{Op: kv.Get, Key: "x"})
	require.EqualError(t, err, "unavailable: this server accepts no requests over the network")
	require.NoError(t, c.Close())
	a, err := h.Do(ctx, api.Request{Op: kv.Get, Key: "x"})
	require.NoError(t, err)
	require.Equal(t, "x", a.Value)
	require.Eventually(t, func() bool { return slices.Equal(g.met(0), []uint64{2}) }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		g.within(0, func() { g.hosts[0].loop.send(2, []byte(`{"a":1}`)) })
		return peer.count(`n1 {"a":1}`) > 0
	}, 10*time.Second, time.Millisecond)
	stop()
	require.NoError(t, <-done)
}

// registered is the network of the transport "memory".
var registered memory

// closing counts the calls of Close.
type closing struct {
	Transport
	closed *int
}

func (c closing) Close() error { *c.closed++; return nil }

var closed int

func init() {
	transport.Register("memory", func(o transport.Options) (transport.Transport, error) {
		if o.Cluster != "north" || o.Secret != "s" || o.Address == "" || o.Listen != o.Address || o.Limits.Message != 1<<20 {
			return nil, fmt.Errorf("wrong options: %+v", o)
		}
		return closing{registered.of(o.ID), &closed}, nil
	})
}

// The configuration names the transport. A server that uses TCP is told so when
// it dials one that does not, but a probe is answered.
func TestNamedTransport(t *testing.T) {
	before := closed
	config := node.Config{Cluster: "north", Secret: "s", Transport: "memory"}
	var lns []net.Listener
	for id := range uint64(2) {
		ln, err := wire.Listen("127.0.0.1:0")
		require.NoError(t, err)
		lns = append(lns, ln)
		config.Members = append(config.Members, node.Member{ID: id + 1, Address: ln.Addr().String()})
	}
	var all [2]recorder
	var hosts []*Host
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for i, m := range config.Members {
		h, err := New(Options{ID: m.ID, Config: config, Ops: api.Commands(), Listener: lns[i], Limits: wire.Limits{PeerLine: 1 << 20},
			New: func(node.World) (node.Server, error) { return &all[i], nil }})
		require.NoError(t, err)
		hosts = append(hosts, h)
		go func() { done <- h.Run(ctx) }()
	}
	hosts[0].loop.do(func() { hosts[0].loop.send(2, []byte(`{"a":1}`)) })
	require.Eventually(t, func() bool { return all[1].count(`n1 {"a":1}`) == 1 }, 10*time.Second, time.Millisecond)

	o := wire.LinkOptions{To: 2, Address: config.Members[1].Address, Self: wire.Identity{Cluster: "north", Secret: "s", ID: 3, Address: "h:3"}}
	require.NoError(t, wire.Probe(ctx, o))
	var log lines
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	linkCtx, end := context.WithCancel(ctx)
	go func() { done <- wire.NewLink(o).Run(linkCtx) }()
	require.Eventually(t, func() bool {
		return log.count("n3 wants to send messages over TCP, but this server receives messages over memory: write") > 0
	}, 10*time.Second, time.Millisecond)
	end()
	require.NoError(t, <-done)
	stop()
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.Equal(t, before, closed)

	// A server that cannot start closes its transport.
	_, err := New(Options{ID: 1, Config: config, Limits: wire.Limits{PeerLine: 1 << 20},
		New: func(node.World) (node.Server, error) { return nil, errors.New("no disk") }})
	require.EqualError(t, err, "n1 cannot start: no disk")
	require.Equal(t, before+1, closed)
	config.Transport = "pigeons"
	_, err = New(Options{ID: 1, Config: config})
	require.EqualError(t, err, `n1 cannot start: this program has no transport "pigeons"; it has tcp, memory`)
}

// linked returns the peers to which a server has a link, with their addresses.
func (g *group) linked(i int) map[uint64]string { return g.hosts[i].transport.(*tcp.Transport).Links() }

// met returns the peers that are connected to a server.
func (g *group) met(i int) []uint64 { return g.hosts[i].transport.(*tcp.Transport).Met() }
