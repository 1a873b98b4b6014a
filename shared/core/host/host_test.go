package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// gossip is a server for the tests: it answers a put at once, and sends it to all
// servers that it knows or has heard from. A server that receives this message
// applies the put.
type gossip struct {
	w     node.World
	store *kv.Store
	batch []func()
	heard []uint64

	// fails makes Flush fail; closed says that Close was called.
	fails, closed *atomic.Bool
}

func (g *gossip) Tick() {}

func (g *gossip) Receive(from uint64, line []byte) {
	if g.w.Config.Address(from) == "" && !slices.Contains(g.heard, from) {
		g.heard = append(g.heard, from)
	}
	if c, err := kv.Decode(line); err == nil {
		g.store.Apply(c)
	}
}

func (g *gossip) Request(r api.Request, reply func(api.Response)) {
	result := g.store.Apply(r.Command())
	if kv.Writes(r.Op) {
		for _, members := range [][]node.Member{g.w.Config.Members, g.w.Config.Joiners} {
			for _, m := range members {
				if m.ID != g.w.ID {
					g.w.Send(m.ID, r.Command().AppendJSON(nil))
				}
			}
		}
		for _, id := range g.heard {
			g.w.Send(id, r.Command().AppendJSON(nil))
		}
	}
	g.batch = append(g.batch, func() { reply(api.Result(r.ID, r.Op, result)) })
}

func (g *gossip) Flush() error {
	if g.fails.Load() {
		return errors.New("input/output error")
	}
	for _, f := range g.batch {
		f()
	}
	g.batch = nil
	return nil
}

func (g *gossip) Close() error {
	g.closed.Store(true)
	return nil
}

// group is a cluster of gossips in this process.
type group struct {
	t      *testing.T
	config node.Config
	lns    []net.Listener
	hosts  []*Host
	stops  []context.CancelFunc
	done   []chan error
	fails  []*atomic.Bool
	closed []*atomic.Bool
}

func newGroup(t *testing.T, n int) *group {
	g := &group{t: t, config: node.Config{Cluster: "north", Secret: "s"}}
	for id := range n {
		ln, err := wire.Listen("127.0.0.1:0")
		require.NoError(t, err)
		g.lns = append(g.lns, ln)
		g.config.Members = append(g.config.Members, node.Member{ID: uint64(id + 1), Address: ln.Addr().String()})
	}
	g.hosts, g.stops, g.done = make([]*Host, n), make([]context.CancelFunc, n), make([]chan error, n)
	g.fails, g.closed = make([]*atomic.Bool, n), make([]*atomic.Bool, n)
	for i := range n {
		g.start(i, g.lns[i], g.config)
	}
	t.Cleanup(func() {
		for i := range g.hosts {
			g.stops[i]()
			<-g.done[i]
		}
	})
	return g
}

func (g *group) start(i int, ln net.Listener, config node.Config) {
	g.startAs(i, config.Members[i].ID, ln, config)
}

// join starts one more server. It knows the others, but they do not know it.
func (g *group) join(id uint64) (i int) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(g.t, err)
	config := g.config
	config.Joiners = []node.Member{{ID: id, Address: ln.Addr().String()}}
	i = len(g.hosts)
	g.lns, g.hosts, g.stops, g.done = append(g.lns, ln), append(g.hosts, nil), append(g.stops, nil), append(g.done, nil)
	g.fails, g.closed = append(g.fails, nil), append(g.closed, nil)
	g.startAs(i, id, ln, config)
	return i
}

func (g *group) startAs(i int, id uint64, ln net.Listener, config node.Config) {
	fails, closed := &atomic.Bool{}, &atomic.Bool{}
	h, err := New(Options{
		ID: id, Config: config, Ops: api.Commands(), Listener: ln,
		New: func(w node.World) (node.Server, error) {
			return &gossip{w: w, store: kv.NewStore(), fails: fails, closed: closed}, nil
		},
	})
	require.NoError(g.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- h.Run(ctx)
		close(done)
	}()
	g.hosts[i], g.stops[i], g.done[i], g.fails[i], g.closed[i] = h, cancel, done, fails, closed
}

func (g *group) client(i int) *wire.Conn {
	c, err := wire.Dial(g.t.Context(), g.lns[i].Addr().String(), wire.Limits{})
	require.NoError(g.t, err)
	g.t.Cleanup(func() { c.Close() })
	return c
}

func put(t *testing.T, c *wire.Conn, key, value string) {
	t.Helper()
	_, err := c.Do(t.Context(), api.Request{Op: kv.Put, Key: key, Value: value})
	require.NoError(t, err)
}

func value(t *testing.T, c *wire.Conn, key string) string {
	t.Helper()
	a, err := c.Do(t.Context(), api.Request{Op: kv.Get, Key: key})
	if err != nil {
		require.ErrorContains(t, err, "not_found")
	}
	return a.Value
}

// arrives writes on one server until another has it: a message may be lost.
func (g *group) arrives(from, to *wire.Conn, v string) {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		put(g.t, from, "x", v)
		return value(g.t, to, "x") == v
	}, 10*time.Second, 2*time.Millisecond)
}

func TestServersTalk(t *testing.T) {
	g := newGroup(t, 3)
	for i := range 3 {
		for j := range 3 {
			g.arrives(g.client(i), g.client(j), fmt.Sprint(i, j))
		}
	}
}

// A cut is one server's view of a broken cable: nothing passes in either
// direction, until it is healed.
func TestCutBetweenServers(t *testing.T) {
	g := newGroup(t, 3)
	c1, c2, c3 := g.client(0), g.client(1), g.client(2)
	g.arrives(c1, c2, "before")
	g.arrives(c2, c1, "before too")
	g.hosts[0].Cut(2)
	require.Eventually(t, func() bool { // the loop processes the cut like other inputs, so it may take a moment
		put(t, c1, "probe", "p")
		put(t, c2, "probe", "q")
		return value(t, c1, "probe") == "p"
	}, 10*time.Second, time.Millisecond)
	put(t, c1, "cut", "from 1")
	put(t, c2, "cut2", "from 2")
	g.arrives(c1, c3, "around")
	g.arrives(c2, c3, "around too")
	require.Empty(t, value(t, c2, "cut"))
	require.Empty(t, value(t, c1, "cut2"))
	g.hosts[0].Heal(2)
	g.arrives(c1, c2, "after")
	g.arrives(c2, c1, "after too")
}

// The other servers connect again to a server that was restarted.
func TestServerComesBack(t *testing.T) {
	g := newGroup(t, 2)
	g.arrives(g.client(0), g.client(1), "1")
	g.stops[1]()
	require.NoError(t, <-g.done[1])
	require.True(t, g.closed[1].Load())
	c := g.client(0)
	for i := range 10 {
		put(t, c, "x", fmt.Sprint(i))
	}
	ln, err := wire.Listen(g.config.Members[1].Address)
	require.NoError(t, err)
	g.start(1, ln, g.config)
	g.arrives(c, g.client(1), "2")
	g.arrives(g.client(1), c, "3")
}

// A server of another cluster, or with another secret, gets no message through;
// its clients are served all the same.
func TestConnectionsWithoutAProofAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *node.Config)
		why    string
	}{
		"another cluster": {func(c *node.Config) { c.Cluster = "south" }, `n2 belongs to cluster`},
		"another secret":  {func(c *node.Config) { c.Secret = "guess" }, `does not know the secret of cluster`},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, 2)
			g.arrives(g.client(0), g.client(1), "1")
			g.stops[1]()
			require.NoError(t, <-g.done[1])
			ln, err := wire.Listen(g.config.Members[1].Address)
			require.NoError(t, err)
			strange := g.config
			strange.Members = slices.Clone(g.config.Members)
			c.change(&strange)
			id := strange.Members[1].ID
			g.start(1, ln, strange)
			stranger, mine := g.client(1), g.client(0)
			// The refusal itself cannot be seen in the stores, so the test asks
			// the server directly.
			require.Eventually(t, func() bool {
				put(t, stranger, "x", "evil")
				put(t, mine, "y", "private")
				return strings.Contains(g.refusal(id, strange), c.why)
			}, 10*time.Second, 5*time.Millisecond)
			require.Equal(t, "1", value(t, mine, "x"))
			require.Empty(t, value(t, stranger, "y"))
		})
	}
}

// refusal sends n1 the hello of the stranger and returns the answer of n1.
func (g *group) refusal(id uint64, config node.Config) string {
	var log strings.Builder
	k := wire.NewLink(wire.LinkOptions{
		Self: wire.Identity{Cluster: config.Cluster, Secret: config.Secret, ID: id, Address: config.Address(id)},
		To:   1, Address: config.Members[0].Address, Log: textLog(&log),
	})
	ctx, cancel := context.WithTimeout(g.t.Context(), 200*time.Millisecond)
	defer cancel()
	require.NoError(g.t, k.Run(ctx))
	require.NotContains(g.t, log.String(), "connected to a peer")
	return log.String()
}

// A disk that fails ends the server at once: it sends clients no more answers,
// and Run returns the error.
func TestDiskFailure(t *testing.T) {
	g := newGroup(t, 2)
	c := g.client(0)
	put(t, c, "x", "1")
	g.fails[0].Store(true)
	_, err := c.Do(t.Context(), api.Request{Op: kv.Put, Key: "x", Value: "2"})
	var e *api.Error
	require.ErrorAs(t, err, &e)
	if e.Definite { // a tick made the disk fail before the request was sent
		require.Equal(t, api.Unavailable, e.Code)
	} else {
		require.Equal(t, api.Unknown, e.Code)
	}
	require.EqualError(t, <-g.done[0], "n1 stops, because its saved data cannot be trusted: input/output error")
	_, err = wire.Dial(t.Context(), g.config.Members[0].Address, wire.Limits{})
	require.Error(t, err)
}

func TestNewRefuses(t *testing.T) {
	ok := func(w node.World) (node.Server, error) { return &recorder{}, nil }
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	used := ln.Addr().String()
	config := node.Config{Cluster: "north", Secret: "s", Members: []node.Member{{ID: 1, Address: used}, {ID: 2, Address: "127.0.0.1:0"}}}
	noSecret := config
	noSecret.Secret = ""
	joins := node.Config{Cluster: "north", Members: config.Members[:1], Joiners: []node.Member{{ID: 4, Address: "127.0.0.1:0"}}}
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{ID: 3, Config: config, New: ok}, `n3 is not a member of cluster "north"; its members are n1, n2`},
		{Options{ID: 1, Config: config, New: ok}, "the address " + used + " is in use: stop the program that listens there"},
		{Options{ID: 2, Config: noSecret, New: ok}, `cluster "north" has no secret, so its servers cannot trust each other`},
		{Options{ID: 4, Config: joins, New: ok}, `cluster "north" has no secret, so its servers cannot trust each other`},
		{Options{ID: 2, Config: config, New: func(node.World) (node.Server, error) { return nil, errors.New("the journal is damaged") }},
			"n2 cannot start: the journal is damaged"},
	} {
		_, err := New(c.options)
		require.ErrorContains(t, err, c.want)
	}
}

// If the server cannot be created, New closes its address.
func TestNewClosesTheAddressAfterAnError(t *testing.T) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	config := node.Config{Cluster: "c", Members: []node.Member{{ID: 1, Address: ln.Addr().String()}}}
	_, err = New(Options{ID: 1, Config: config, Listener: ln, New: func(node.World) (node.Server, error) { return nil, errors.New("no") }})
	require.Error(t, err)
	ln, err = wire.Listen(config.Members[0].Address)
	require.NoError(t, err)
	require.NoError(t, ln.Close())
}

// The same seed gives a server the same random numbers; without a seed they
// differ.
func TestSeed(t *testing.T) {
	draw := func(seed uint64) (n uint64) {
		config := node.Config{Members: []node.Member{{ID: 1, Address: "127.0.0.1:0"}}}
		h, err := New(Options{ID: 1, Config: config, Seed: seed, New: func(w node.World) (node.Server, error) {
			n = w.Rand.Uint64()
			return &recorder{}, nil
		}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, h.Run(ctx))
		return n
	}
	require.Equal(t, draw(7), draw(7))
	require.NotEqual(t, draw(7), draw(8))
	require.NotEqual(t, draw(0), draw(0))
}

// A server stops under load: each request is answered or definitely not begun,
// Run returns nil, and no goroutine is left.
func TestStopUnderLoad(t *testing.T) {
	g := newGroup(t, 3)
	g.arrives(g.client(0), g.client(2), "ready")
	conns := []*wire.Conn{g.client(0), g.client(0), g.client(1)}
	var answered atomic.Int64
	results := make(chan error, 30)
	for w := range cap(results) {
		go func() {
			for {
				_, err := conns[w%len(conns)].Do(context.Background(), api.Request{Op: kv.Append, Key: fmt.Sprint(w), Value: "."})
				if err != nil {
					results <- err
					return
				}
				answered.Add(1)
			}
		}()
	}
	require.Eventually(t, func() bool { return answered.Load() > 1000 }, 10*time.Second, time.Millisecond)
	for i := range 3 {
		g.stops[i]()
	}
	for i := range 3 {
		require.NoError(t, <-g.done[i])
	}
	for range cap(results) {
		var e *api.Error
		require.ErrorAs(t, <-results, &e)
		require.Equal(t, api.Unavailable, e.Code, "%v", e)
		require.True(t, e.Definite, "%v", e)
	}
	stacks := make([]byte, 1<<20)
	left := string(stacks[:runtime.Stack(stacks, true)])
	for _, f := range []string{"host.(*loop)", "tcp.(*Transport)", "wire.(*conn)", "wire.(*Link)", "wire.(*Server)"} {
		require.NotContains(t, left, f)
	}
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
