package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/07-membership/client/route"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
)

// TestMain lets many tests run at once: most of them wait for a server that does not
// answer.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// patient is longer than any test needs: a wait this long is a failure.
const patient = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	return ctx
}

// startServer starts the only server of a cluster and returns its address.
func startServer(t *testing.T) string { return startCluster(t, 1).endpoints[0] }

// open returns a client that is closed at the end of the test.
func open(t *testing.T, endpoints ...string) *Client {
	c := New(endpoints)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// fake is a server that a test controls. It records its requests.
type fake struct {
	address string

	// accepted counts the connections.
	accepted atomic.Int64

	mu    sync.Mutex
	asked []api.Request
}

// handler handles one request on a connection. False ends the connection.
type handler func(conn *fakeConn, r api.Request) bool

func startFake(t *testing.T, handle handler) *fake {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return startFakeOn(t, ln, handle)
}

func startFakeOn(t *testing.T, ln net.Listener, handle handler) *fake {
	f := &fake{address: ln.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return nil
			}
			f.accepted.Add(1)
			g.Go(func() error {
				defer context.AfterFunc(ctx, func() { nc.Close() })()
				defer nc.Close()
				f.serve(t, &fakeConn{nc: nc}, handle)
				return nil
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		require.NoError(t, ln.Close())
		require.NoError(t, g.Wait())
	})
	return f
}

func (f *fake) serve(t *testing.T, conn *fakeConn, handle handler) {
	in := bufio.NewReader(conn.nc)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		r, err := server.Ops.Decode(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Errorf("the client sent %q: %v", line, err)
			return
		}
		f.mu.Lock()
		f.asked = append(f.asked, r)
		f.mu.Unlock()
		if !handle(conn, r) {
			return
		}
	}
}

// requests returns the server's requests of one operation; "" means all except
// members, which a client sends at any time.
func (f *fake) requests(op string) []api.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []api.Request
	for _, r := range f.asked {
		if r.Op == op || op == "" && r.Op != api.Members {
			all = append(all, r)
		}
	}
	return all
}

type fakeConn struct{ nc net.Conn }

// answer writes a response. An error means that the client has left.
func (c *fakeConn) answer(r api.Request, a api.Response) bool {
	a.ID = r.ID
	_, err := c.nc.Write(append(a.AppendJSON(nil), '\n'))
	return err == nil
}

// leads handles requests as a leader, and opens sessions since index 7.
func leads(conn *fakeConn, r api.Request) bool {
	if r.Op == api.Open {
		return conn.answer(r, api.Response{Index: 7})
	}
	return conn.answer(r, api.Response{Value: "the value of " + r.Key, HasValue: r.Op == kv.Get})
}

// names is a follower that names a leader, or none.
func names(leader *string) handler {
	return func(conn *fakeConn, r api.Request) bool {
		return conn.answer(r, api.Failed(0, &api.Error{Code: api.NotLeader, Message: "a follower", Leader: *leader, Definite: true}))
	}
}

// nobody is the leader that a follower names if it knows none.
var nobody = new(string)

// Many requests share one connection to a server, and the answers come in any
// order.
func TestRequestsShareAConnection(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	const requests = 5
	var mu sync.Mutex
	var all []api.Request
	f := startFake(t, func(conn *fakeConn, r api.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r)
		if len(all) < requests {
			return true
		}
		for _, r := range slices.Backward(all) {
			if !leads(conn, r) {
				return false
			}
		}
		return true
	})
	c := open(t, f.address)
	var g errgroup.Group
	for i := range requests {
		g.Go(func() error {
			key := fmt.Sprintf("key-%d", i)
			value, err := c.Get(ctx, key)
			if err == nil && value != "the value of "+key {
				err = fmt.Errorf("%s got %q", key, value)
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	require.EqualValues(t, 1, f.accepted.Load(), "all over one connection")
}

// silent accepts requests and answers none.
func silent(*fakeConn, api.Request) bool { return true }

// deadAddress returns an address at which no server listens.
func deadAddress(t *testing.T) string {
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	return ports.Address(0)
}

// requireError checks the error of an operation, and that its message has all
// of the words.
func requireError(t *testing.T, err error, code api.Code, words ...string) {
	t.Helper()
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code, "%v", err)
	require.Equal(t, code != api.Unknown, e.Definite, "%v", err)
	for _, word := range words {
		require.Contains(t, e.Text(), word)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := open(t, startServer(t))

	_, err := c.Get(ctx, "x")
	requireError(t, err, api.NotFound)
	require.NoError(t, c.Put(ctx, "x", "1"))
	value, err := c.Get(ctx, "x")
	require.NoError(t, err)
	require.Equal(t, "1", value)

	length, err := c.Append(ctx, "x", "2")
	require.NoError(t, err)
	require.Equal(t, 2, length)

	requireError(t, c.Cas(ctx, "x", "1", "3"), api.Mismatch, `"12"`)
	require.NoError(t, c.Cas(ctx, "x", "12", ""))
	value, err = c.Get(ctx, "x")
	require.NoError(t, err)
	require.Empty(t, value, "an empty value is a value")

	require.NoError(t, c.Delete(ctx, "x"))
	requireError(t, c.Delete(ctx, "x"), api.NotFound)
	requireError(t, c.Cas(ctx, "x", "", "1"), api.NotFound)

	require.NoError(t, c.Create(ctx, "x", "1"))
	requireError(t, c.Create(ctx, "x", "2"), api.Exists)
	value, err = c.Get(ctx, "x")
	require.NoError(t, err)
	require.Equal(t, "1", value)
}

func TestTextIsReturnedUnchanged(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := open(t, startServer(t))
	for _, value := range []string{"", `"\`, "a\nb\tc\x00\x7f", "größe 數 😀 \uFFFD \u2028", strings.Repeat("\x01", kv.MaxValue)} {
		require.NoError(t, c.Put(ctx, "k", value))
		got, err := c.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, value, got)
	}
}

// The client does not send requests that a server would refuse.
func TestABadRequestIsNotSent(t *testing.T) {
	ctx := testContext(t)
	f := startFake(t, leads)
	c := open(t, f.address)
	requireError(t, c.Put(ctx, "", "1"), api.BadRequest, "the key is empty")
	requireError(t, c.Put(ctx, "k", strings.Repeat("x", kv.MaxValue+1)), api.TooLarge, "131073 bytes")
	_, err := c.Get(ctx, "")
	requireError(t, err, api.BadRequest, "the key is empty")
	require.Empty(t, f.requests(""))

	none := New(nil)
	requireError(t, none.Put(ctx, "x", "1"), api.BadRequest, "no server was named")
	require.NoError(t, none.Close())
}

// The leader need not be among the endpoints. Once the client has found it, it
// sends writes directly to it.
func TestARedirectIsFollowed(t *testing.T) {
	ctx := testContext(t)
	leader := startFake(t, leads)
	follower := startFake(t, names(&leader.address))
	c := open(t, follower.address)
	for range 3 {
		require.NoError(t, c.Put(ctx, "x", "1"))
	}
	require.Len(t, leader.requests(kv.Put), 3)
	require.Len(t, follower.requests(""), 1, "only the very first request went there")
}

func TestDeadServersArePassedOver(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	live := startFake(t, leads)
	endpoints := []string{deadAddress(t), deadAddress(t), live.address, deadAddress(t)}
	for range 4 {
		c := open(t, endpoints...)
		require.NoError(t, c.Put(ctx, "x", "1"))
		value, err := c.Get(ctx, "x")
		require.NoError(t, err)
		require.Equal(t, "the value of x", value)
	}
}

// authority is a CA, and a certificate of it for servers.
type authority struct{ ca, cert, key string }

func newAuthority(t *testing.T) authority {
	ca, pair, err := trust.NewAuthority("north", time.Hour)
	require.NoError(t, err)
	server, err := ca.Issue(trust.Identity{Cluster: "north", Server: 1}, []string{"127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	dir := t.TempDir()
	a := authority{filepath.Join(dir, "ca.crt"), filepath.Join(dir, "n1.crt"), filepath.Join(dir, "n1.key")}
	for path, text := range map[string][]byte{a.ca: pair.Cert, a.cert: server.Cert, a.key: server.Key} {
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
	return a
}

// startSecure starts a server that speaks TLS and leads.
func (a authority) startSecure(t *testing.T) *fake {
	pair, err := tls.LoadX509KeyPair(a.cert, a.key)
	require.NoError(t, err)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	require.NoError(t, err)
	return startFakeOn(t, ln, leads)
}

// startPlain starts a server that speaks no TLS, and returns its address: it answers
// the first byte with a line.
func startPlain(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var g errgroup.Group
	g.Go(func() error {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return nil
			}
			g.Go(func() error {
				defer nc.Close()
				if _, err := nc.Read(make([]byte, 1)); err == nil {
					_, _ = io.WriteString(nc, "{\"ok\":false}\n")
				}
				_, _ = io.Copy(io.Discard, nc) // until the client closes the connection
				return nil
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		require.NoError(t, g.Wait())
	})
	return ln.Addr().String()
}

// A server with a certificate that the client does not accept, or without TLS, is passed
// over. If there is no other, the client says what is wrong at once.
func TestServersThatTheClientCannotTalkTo(t *testing.T) {
	ours := newAuthority(t)
	good, foreign, plain := ours.startSecure(t), newAuthority(t).startSecure(t), startPlain(t)
	config, err := trust.Client(ours.ca, "", "")
	require.NoError(t, err)
	ctx := testContext(t)
	for _, endpoints := range [][]string{{foreign.address, good.address}, {plain, foreign.address, good.address}} {
		c := New(endpoints, wire.WithTLS(config))
		require.NoError(t, c.Put(ctx, "x", "1"))
		_, err := c.Get(ctx, "x")
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	c := New([]string{foreign.address, plain}, wire.WithTLS(config))
	defer c.Close()
	_, failed := c.Get(ctx, "x")
	for _, err := range []error{failed, c.Put(ctx, "x", "1")} {
		var e *api.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, api.Handshake, e.Code)
		require.True(t, e.Definite)
		require.Contains(t, e.Message, "nothing was done: this client can use none of 2 servers; the last error was: no TLS connection to the server at ")
	}
	require.Empty(t, foreign.requests(""))
}

// While a follower is cut off, it may be wrong about the leader: the server
// that it names is dead, or no leader either. The client must find the real
// leader.
func TestTheLeaderIsFoundAlthoughFollowersAreWrong(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	dead := deadAddress(t)
	mistaken := startFake(t, names(&dead))
	live := startFake(t, leads)
	for _, endpoints := range [][]string{
		{mistaken.address, live.address},
		{dead, mistaken.address, live.address},
		{dead, mistaken.address, mistaken.address, live.address},
	} {
		require.NoError(t, open(t, endpoints...).Put(ctx, "x", "1"))
	}

	pong := new(string)
	ping := startFake(t, names(pong))
	*pong = startFake(t, names(&ping.address)).address
	require.NoError(t, open(t, ping.address, *pong, live.address).Put(ctx, "x", "1"))
	require.NoError(t, open(t, ping.address, live.address, *pong).Put(ctx, "x", "1"))
}

func TestReadsAreSpreadAndStayWhereTheyAreAnswered(t *testing.T) {
	const clients, reads = 64, 4
	ctx := testContext(t)
	servers := []*fake{startFake(t, leads), startFake(t, leads), startFake(t, leads)}
	for range clients {
		c := open(t, servers[0].address, servers[1].address, servers[2].address)
		for range reads {
			_, err := c.Get(ctx, "x")
			require.NoError(t, err)
		}
	}
	total := 0
	for _, s := range servers {
		n := len(s.requests(kv.Get))
		require.NotZero(t, n, "64 clients have not all drawn the same two servers")
		require.Zero(t, n%reads, "a client stays with its server")
		total += n
	}
	require.Equal(t, clients*reads, total)
}

// tries is how many tries of a write the next two tests wait for, and leastTime
// the time that the shortest pauses between them take: 5, 10, 20 and then 40
// milliseconds each, the one after the first try not counted.
const (
	tries     = 10
	leastTime = 235 * time.Millisecond
)

// triesTake ends a write after that many tries and returns how long they took.
func triesTake(ctx context.Context, t *testing.T, c *Client, asked *atomic.Int64) time.Duration {
	start := time.Now()
	requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "no leader answered")
	require.GreaterOrEqual(t, asked.Load(), int64(tries))
	return time.Since(start)
}

// counting counts the requests, and calls enough with the last of the tries.
func counting(asked *atomic.Int64, enough func(), handle handler) handler {
	return func(conn *fakeConn, r api.Request) bool {
		if r.Op != api.Members && asked.Add(1) == tries {
			defer enough()
		}
		return handle(conn, r)
	}
}

func TestRetriesAreRareWithoutALeader(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(testContext(t))
	var asked atomic.Int64
	f := startFake(t, counting(&asked, cancel, names(nobody)))
	g := startFake(t, counting(&asked, cancel, names(nobody)))
	took := triesTake(ctx, t, open(t, f.address, g.address), &asked)
	require.GreaterOrEqual(t, took, leastTime)
	require.NotEmpty(t, f.requests(""))
	require.NotEmpty(t, g.requests(""))
}

// Two servers each name the other as the leader: only the first redirect is
// followed without a wait.
func TestPingPongDoesNotSpin(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(testContext(t))
	var asked atomic.Int64
	other := new(string)
	a := startFake(t, counting(&asked, cancel, names(other)))
	b := startFake(t, counting(&asked, cancel, names(&a.address)))
	*other = b.address
	took := triesTake(ctx, t, open(t, a.address), &asked)
	require.GreaterOrEqual(t, took, leastTime)
	require.NotEmpty(t, b.requests(""))
}

// Nothing was sent, so nothing can have happened.
func TestDeadlineBeforeAnythingWasSent(t *testing.T) {
	t.Parallel()
	c := open(t, deadAddress(t), deadAddress(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "was not sent")
	_, err := c.Get(ctx, "x")
	requireError(t, err, api.Unavailable)
}

// The first try is lost; no later answer can make the outcome certain again.
func TestDeadlineAfterOneTryWasSent(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	var puts atomic.Int64
	f := startFake(t, func(conn *fakeConn, r api.Request) bool {
		if r.Op == api.Open {
			return leads(conn, r)
		}
		switch puts.Add(1) {
		case 1:
			return false
		case 3:
			defer cancel()
		}
		return names(nobody)(conn, r)
	})
	requireError(t, open(t, f.address).Put(ctx, "x", "1"), api.Unknown, "may or may not have happened")
	require.Len(t, f.requests(kv.Put), 3, "it has tried again")
}

// A server that never answers may still apply the write; a read changes nothing
// in any case.
func TestNoAnswerInTime(t *testing.T) {
	for op, code := range map[string]api.Code{kv.Put: api.Unknown, kv.Get: api.Unavailable} {
		ctx, cancel := context.WithCancel(testContext(t))
		f := startFake(t, func(conn *fakeConn, r api.Request) bool {
			if r.Op == api.Open {
				return leads(conn, r)
			}
			cancel()
			return true
		})
		_, err := open(t, f.address).Do(ctx, api.Request{Op: op, Key: "x", Value: "1"})
		requireError(t, err, code, f.address)
	}
}

// The retry is the same command with the same number in the session.
func TestALostWriteIsRetriedWithTheSameNumber(t *testing.T) {
	ctx := testContext(t)
	var lost atomic.Bool
	loses := func(conn *fakeConn, r api.Request) bool {
		if r.Op == kv.Append && r.Seq == 2 && lost.CompareAndSwap(false, true) {
			return false
		}
		return leads(conn, r)
	}
	a, b := startFake(t, loses), startFake(t, loses)
	c := open(t, a.address, b.address)
	for range 3 {
		_, err := c.Append(ctx, "x", "1")
		require.NoError(t, err)
	}
	var seen []uint64
	sessions := make(map[uint64]bool)
	for _, r := range append(a.requests(kv.Append), b.requests(kv.Append)...) {
		require.EqualValues(t, 7, r.Since)
		sessions[r.Session] = true
		require.Equal(t, r.Seq-1, r.Ack, "all before it have ended")
		seen = append(seen, r.Seq)
	}
	require.Equal(t, []uint64{1, 2, 2, 3}, seen)
	require.Len(t, sessions, 1)
	require.NotContains(t, sessions, uint64(0))
}

// A deposed leader does not know the outcome of the command. In a session the
// client can retry it.
func TestAnUnknownOutcomeIsRetried(t *testing.T) {
	ctx := testContext(t)
	var deposed atomic.Bool
	f := startFake(t, func(conn *fakeConn, r api.Request) bool {
		if r.Op == kv.Put && deposed.CompareAndSwap(false, true) {
			return conn.answer(r, api.Failed(0, &api.Error{Code: api.Unknown, Message: "deposed"}))
		}
		return leads(conn, r)
	})
	require.NoError(t, open(t, f.address).Put(ctx, "x", "1"))
	require.Len(t, f.requests(kv.Put), 2)
}

// forgetful opens sessions since index 1, 2, 3 … and knows only the latest one,
// until the test makes it forget that too.
type forgetful struct {
	mu     sync.Mutex
	opened uint64
	known  uint64
	lose   bool
}

func (s *forgetful) handle(conn *fakeConn, r api.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Op == api.Open:
		s.opened++
		s.known = s.opened
		return conn.answer(r, api.Response{Index: s.opened})
	case s.lose:
		s.lose = false
		return false
	case r.Since != s.known:
		return conn.answer(r, api.Failed(0, &api.Error{Code: api.NoSession, Message: "forgotten", Definite: true}))
	}
	return conn.answer(r, api.Response{})
}

func (s *forgetful) forget(lose bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known, s.lose = 0, lose
}

func TestAForgottenSessionIsReplaced(t *testing.T) {
	ctx := testContext(t)
	s := &forgetful{}
	f := startFake(t, s.handle)
	c := open(t, f.address)
	require.NoError(t, c.Put(ctx, "x", "1"))
	s.forget(false)
	require.NoError(t, c.Put(ctx, "x", "2"), "nothing can have happened, so it is done in a new session")
	first, last := f.requests(kv.Put)[0], f.requests(kv.Put)[2]
	require.Equal(t, []uint64{2, 1, 0}, []uint64{last.Since, last.Seq, last.Ack})
	require.NotEqual(t, first.Session, last.Session)
}

// In a new session the servers would not recognize the command. If it may have
// been applied before, it must not be sent there.
func TestAForgottenSessionAfterALostAnswer(t *testing.T) {
	ctx := testContext(t)
	s := &forgetful{}
	f := startFake(t, s.handle)
	c := open(t, f.address)
	require.NoError(t, c.Put(ctx, "x", "1"))
	s.forget(true)
	requireError(t, c.Put(ctx, "x", "2"), api.Unknown, "an earlier try had no answer")
	require.Len(t, f.requests(kv.Put), 3)
	require.NoError(t, c.Put(ctx, "x", "3"), "the next one is a new command")
}

// A server with a full store says nothing about an earlier try.
func TestAFullStore(t *testing.T) {
	ctx := testContext(t)
	var lose atomic.Bool
	f := startFake(t, func(conn *fakeConn, r api.Request) bool {
		if r.Op == kv.Put && lose.CompareAndSwap(true, false) {
			return false
		}
		if r.Op == kv.Put {
			return conn.answer(r, api.Failed(0, &api.Error{Code: api.Full, Message: "no room", Definite: true}))
		}
		return leads(conn, r)
	})
	c := open(t, f.address)
	requireError(t, c.Put(ctx, "x", "1"), api.Full, "no room")
	lose.Store(true)
	requireError(t, c.Put(ctx, "x", "2"), api.Unknown, "an earlier try had no answer")
}

func TestManyGoroutinesShareOneSession(t *testing.T) {
	const goroutines, rounds = 32, 20
	ctx := testContext(t)
	f := startFake(t, leads)
	c := open(t, f.address)
	var g errgroup.Group
	for range goroutines {
		g.Go(func() error {
			for range rounds {
				if err := c.Put(ctx, "x", "1"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.Len(t, f.requests(api.Open), 1)
	seqs := make(map[uint64]bool)
	for _, r := range f.requests(kv.Put) {
		require.LessOrEqual(t, r.Seq-r.Ack, uint64(route.Window))
		seqs[r.Seq] = true
	}
	require.Len(t, seqs, goroutines*rounds, "each command has its own place")
}

// A server that accepts requests and never answers, such as a paused one, costs
// only the time of one attempt: the client then tries the next server, and
// later requests go there at once.
func TestAPausedServer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	still, leader := startFake(t, silent), startFake(t, leads)
	c := open(t, still.address, leader.address)
	for range 5 {
		require.NoError(t, c.Put(ctx, "x", "1"))
	}
	require.Len(t, still.requests(""), 1)
	require.Len(t, leader.requests(kv.Put), 5)
}

func TestAReadPassesOverAPausedServer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	still, other := startFake(t, silent), startFake(t, leads)
	c := open(t, still.address, other.address)
	c.route = route.New([]string{still.address, other.address}, func(uint64) uint64 { return 0 })
	for range 5 {
		_, err := c.Get(ctx, "x")
		require.NoError(t, err)
	}
	require.Len(t, still.requests(""), 1)
}

// A request that is not a command concerns one server, and is sent once.
func TestAStatusIsThatOfTheFirstServer(t *testing.T) {
	ctx := testContext(t)
	first, second := startFake(t, func(conn *fakeConn, r api.Request) bool {
		return conn.answer(r, api.Response{Data: []byte(`{"id":1}`)})
	}), startFake(t, leads)
	c := open(t, first.address, second.address)
	a, err := c.Do(ctx, api.Request{Op: api.Status})
	require.NoError(t, err)
	require.Equal(t, `{"id":1}`, string(a.Data))
	require.Empty(t, second.requests(""))
}

func TestAFinalRefusalIsReturned(t *testing.T) {
	ctx := testContext(t)
	for _, code := range []api.Code{api.NotFound, api.Mismatch, api.Exists, api.TooLarge, api.BadRequest} {
		f := startFake(t, func(conn *fakeConn, r api.Request) bool {
			if r.Op == api.Open {
				return leads(conn, r)
			}
			return conn.answer(r, api.Failed(0, &api.Error{Code: code, Message: "no", Definite: true}))
		})
		requireError(t, open(t, f.address).Cas(ctx, "x", "1", "2"), code)
		require.Len(t, f.requests(kv.Cas), 1)
	}
}

// The client asks a busy server again, because only that server can handle the
// request.
func TestABusyServerIsAskedAgain(t *testing.T) {
	ctx := testContext(t)
	var asked atomic.Int64
	f := startFake(t, func(conn *fakeConn, r api.Request) bool {
		if r.Op == kv.Put && asked.Add(1) < 4 {
			return conn.answer(r, api.Failed(0, &api.Error{Code: api.Busy, Message: "full", Definite: true}))
		}
		return leads(conn, r)
	})
	other := startFake(t, names(nobody))
	require.NoError(t, open(t, f.address, other.address).Put(ctx, "x", "1"))
	require.Len(t, f.requests(kv.Put), 4)
	require.Empty(t, other.requests(""))
}

// Close ends everything in progress: writes in flight, a write that waits for a
// session, reads, and pauses between tries.
func TestCloseEndsEverything(t *testing.T) {
	before := goroutines(t)
	t.Cleanup(func() { require.Equal(t, before, goroutines(t)) })
	for name, handle := range map[string]handler{
		"in the middle of commands":   func(conn *fakeConn, r api.Request) bool { return r.Op != api.Open || leads(conn, r) },
		"while a session is opened":   silent,
		"in the pauses between tries": names(nobody),
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t, handle)
			c := New([]string{f.address, deadAddress(t)})
			var g errgroup.Group
			for i := range 2 * route.Window {
				g.Go(func() error {
					ops := []string{kv.Put, kv.Get, kv.Append}
					_, err := c.Do(context.Background(), api.Request{Op: ops[i%3], Key: "x", Value: "1"})
					var e *api.Error
					if !errors.As(err, &e) || e.Code != api.Unknown && e.Code != api.Unavailable {
						return fmt.Errorf("%s ended with %w", ops[i%3], err)
					}
					return nil
				})
			}
			require.Eventually(t, func() bool { return len(f.requests("")) > 0 }, patient, time.Millisecond)
			require.NoError(t, c.Close())
			require.NoError(t, g.Wait())
			requireError(t, c.Put(testContext(t), "x", "1"), api.Unavailable, "this client is closed")
			require.NoError(t, c.Close(), "a second time does no harm")
		})
	}
}

// goroutines counts the goroutines of clients and their connections.
func goroutines(t *testing.T) int {
	var b strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 2))
	return strings.Count(b.String(), "wire.(*Conn)") + strings.Count(b.String(), "client.(*Client)")
}
