package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// patient is longer than any test needs: a wait this long is a failure.
const patient = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	return ctx
}

// serve runs a server that does what it is asked, until ctx is done.
func serve(ctx context.Context, ln net.Listener) error {
	store := kv.NewStore()
	s := wire.Server{Ops: api.Commands(), Handler: func(r api.Request, reply func(api.Response)) {
		reply(api.Result(r.ID, r.Op, store.Apply(r.Command())))
	}}
	return s.Serve(ctx, ln)
}

// startServer starts such a server and returns its address.
func startServer(t *testing.T) string {
	ln := listen(t)
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return serve(ctx, ln) })
	t.Cleanup(func() {
		stop()
		require.NoError(t, g.Wait())
	})
	return ln.Addr().String()
}

func listen(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return ln
}

// open returns a client that is closed at the end of the test.
func open(t *testing.T, address string) *Client {
	c := New([]string{address})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// fake is a server that misbehaves: each connection, counted from 1, is handled
// by the function given.
type fake struct {
	address  string
	accepted atomic.Int64
}

func startFake(t *testing.T, handle func(n int64, conn *fakeConn)) *fake {
	ln := listen(t)
	f := &fake{address: ln.Addr().String()}
	var g errgroup.Group
	g.Go(func() error {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return nil
			}
			n := f.accepted.Add(1)
			g.Go(func() error {
				defer nc.Close()
				handle(n, &fakeConn{t: t, nc: nc, in: bufio.NewReader(nc)})
				return nil
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		require.NoError(t, g.Wait())
	})
	return f
}

type fakeConn struct {
	t  *testing.T
	nc net.Conn
	in *bufio.Reader
}

// request reads one request. It reports false at the end of the connection.
func (c *fakeConn) request() (api.Request, bool) {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return api.Request{}, false
	}
	r, err := api.Commands().Decode(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		c.t.Errorf("the client sent %q: %v", line, err)
	}
	return r, err == nil
}

// say writes text as it is. An error means that the client has left.
func (c *fakeConn) say(text string) { _, _ = c.nc.Write([]byte(text)) }

// answer answers a get with the key, so that one can tell whose answer it is.
func (c *fakeConn) answer(r api.Request) {
	c.say(string(api.Response{ID: r.ID, Value: "the value of " + r.Key, HasValue: true}.AppendJSON(nil)) + "\n")
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
	f := startFake(t, func(int64, *fakeConn) {})
	c := open(t, f.address)
	requireError(t, c.Put(ctx, "", "1"), api.BadRequest, "the key is empty")
	requireError(t, c.Put(ctx, "k", strings.Repeat("x", kv.MaxValue+1)), api.TooLarge, "131073 bytes")
	require.Zero(t, f.accepted.Load(), "not even a connection was made")

	none := New(nil)
	requireError(t, none.Put(ctx, "x", "1"), api.BadRequest, "no server was named")
	require.NoError(t, none.Close())
}

func TestAnOperationThatTheServerDoesNotKnowIsRefusedByTheServer(t *testing.T) {
	c := open(t, startServer(t))
	_, err := c.Do(testContext(t), api.Request{Op: "sort"})
	requireError(t, err, api.BadRequest, `unknown op "sort"`)
}

func TestNoServerIsListening(t *testing.T) {
	ln := listen(t)
	require.NoError(t, ln.Close())
	c := open(t, ln.Addr().String())
	for range 2 {
		requireError(t, c.Put(testContext(t), "x", "1"), api.Unavailable, ln.Addr().String(), "refused")
	}
}

func TestAServerThatStartsLaterIsFound(t *testing.T) {
	ln := listen(t)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	c := open(t, address)
	requireError(t, c.Put(testContext(t), "x", "1"), api.Unavailable)

	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return serve(ctx, ln) })
	require.NoError(t, c.Put(testContext(t), "x", "1"))
	stop()
	require.NoError(t, g.Wait())
}

// The server takes the request and dies: it may have done it or not.
func TestTheConnectionEndsAfterTheRequestWasSent(t *testing.T) {
	for name, lastWords := range map[string]string{
		"in silence":              "",
		"in the middle of a line": `{"id":1,"ok":tr`,
		"with garbage":            "220 smtp.example.org ESMTP\n",
		"with a wrong answer":     `{"id":1,"ok":true,"error":{"code":"busy","message":"?"}}` + "\n",
		"with invalid UTF-8":      `{"id":1,"ok":true,"value":"` + "\xff" + `"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			f := startFake(t, func(n int64, conn *fakeConn) {
				for r, ok := conn.request(); ok; r, ok = conn.request() {
					if n%2 == 1 {
						conn.say(lastWords)
						return
					}
					conn.answer(r)
				}
			})
			c := open(t, f.address)
			err := c.Put(ctx, "x", "1")
			requireError(t, err, api.Unknown, f.address, "may or may not have happened")
			require.EqualValues(t, 1, f.accepted.Load(), "the request was not sent again")

			// The next request finds a new connection.
			value, err := c.Get(ctx, "y")
			require.NoError(t, err)
			require.Equal(t, "the value of y", value)
			require.EqualValues(t, 2, f.accepted.Load())
		})
	}
}

// A server that stops says so without an id: that is about every request it
// has not answered, and it has begun none of them.
func TestAStoppingServerAnswersUnavailable(t *testing.T) {
	f := startFake(t, func(_ int64, conn *fakeConn) {
		if _, ok := conn.request(); ok {
			conn.say(`{"ok":false,"error":{"code":"unavailable","message":"the server is stopping","definite":true}}` + "\n")
		}
	})
	c := open(t, f.address)
	requireError(t, c.Put(testContext(t), "x", "1"), api.Unavailable, "the server is stopping")
}

func TestALostReadIsDefinite(t *testing.T) {
	f := startFake(t, func(_ int64, conn *fakeConn) { conn.request() })
	c := open(t, f.address)
	_, err := c.Get(testContext(t), "x")
	requireError(t, err, api.Unavailable, f.address, "nothing was changed, since get only reads")
	require.NotContains(t, err.Error(), "may or may not")
}

// A connection that breaks between two requests is nobody's error.
func TestAConnectionThatBreaksWhileIdleIsReplaced(t *testing.T) {
	ctx := testContext(t)
	f := startFake(t, func(_ int64, conn *fakeConn) {
		if r, ok := conn.request(); ok {
			conn.answer(r)
		}
	})
	c := open(t, f.address)
	for n := range 3 {
		_, err := c.Append(ctx, "x", "1")
		require.NoError(t, err)
		require.EqualValues(t, n+1, f.accepted.Load())
		require.Eventually(t, func() bool { return !usable(c.server.conn.Load()) }, patient, time.Millisecond)
	}
}

// The server answers after the client has lost its patience. The late answer
// must not be taken for another request's, and the connection is still good.
func TestALateAnswer(t *testing.T) {
	ctx := testContext(t)
	release := make(chan struct{})
	f := startFake(t, func(_ int64, conn *fakeConn) {
		late, ok := conn.request()
		select {
		case <-release:
		case <-ctx.Done(): // the test has failed
		}
		for r := late; ok; r, ok = conn.request() {
			conn.answer(r)
		}
	})
	c := open(t, f.address)
	for op, code := range map[string]api.Code{kv.Put: api.Unknown, kv.Get: api.Unavailable} {
		short, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
		_, err := c.Do(short, api.Request{Op: op, Key: "late", Value: "1"})
		cancel()
		requireError(t, err, code, f.address, "no answer in time")
	}
	close(release)
	for _, key := range []string{"a", "b"} {
		value, err := c.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, "the value of "+key, value)
	}
	require.EqualValues(t, 1, f.accepted.Load())
}

func TestADoneContextSendsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := startFake(t, func(_ int64, conn *fakeConn) {
		if _, sent := conn.request(); sent {
			t.Error("a request was sent")
		}
	})
	c := open(t, f.address)
	cancel()
	requireError(t, c.Put(ctx, "x", "1"), api.Unavailable)
}

// While one goroutine connects, another waits no longer than its own context
// allows.
func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	c := New([]string{"127.0.0.1:1"})
	c.server.dialing <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "the request was not sent")
	<-c.server.dialing
	require.NoError(t, c.Close())
}

func TestAnswersInAnyOrder(t *testing.T) {
	ctx := testContext(t)
	const requests = 5
	f := startFake(t, func(_ int64, conn *fakeConn) {
		var all []api.Request
		for range requests {
			r, ok := conn.request()
			if !ok {
				return
			}
			all = append(all, r)
		}
		conn.say(`{"id":999,"ok":true}` + "\n") // nobody asked that
		for i := range all {
			conn.answer(all[len(all)-1-i])
		}
		conn.request()
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

// Many goroutines share a client, from the very first request on. Each appends
// to a key of its own and to one of all.
func TestManyGoroutines(t *testing.T) {
	const goroutines, rounds = 32, 50
	ctx := testContext(t)
	c := open(t, startServer(t))
	var g errgroup.Group
	for i := range goroutines {
		g.Go(func() error {
			own, sum := fmt.Sprintf("own-%d", i), 0
			for n := range rounds {
				if _, err := c.Append(ctx, "all", "x"); err != nil {
					return err
				}
				text := fmt.Sprintf("%d,", n)
				sum += len(text)
				got, err := c.Append(ctx, own, text)
				if err != nil || got != sum {
					return fmt.Errorf("%s has %d bytes, want %d (%w)", own, got, sum, err)
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	all, err := c.Get(ctx, "all")
	require.NoError(t, err)
	require.Len(t, all, goroutines*rounds, "each append happened once")
}

// The server's connections break again and again while many goroutines ask.
// Whatever was acknowledged happened once, whatever was definitely refused
// never, and the rest at most once.
func TestUnknownMeansAtMostOnce(t *testing.T) {
	const goroutines, rounds = 8, 40
	ctx := testContext(t)
	store := kv.NewStore()
	f := startFake(t, func(n int64, conn *fakeConn) {
		for i := n % 7; i < 9; i++ {
			r, ok := conn.request()
			if !ok {
				return
			}
			response := api.Result(r.ID, r.Op, store.Apply(r.Command()))
			if i < 8 {
				conn.say(string(response.AppendJSON(nil)) + "\n")
			}
		}
	})
	c := open(t, f.address)
	var done, unknown atomic.Int64
	var g errgroup.Group
	for range goroutines {
		g.Go(func() error {
			for range rounds {
				_, err := c.Append(ctx, "all", "x")
				var e *api.Error
				switch {
				case err == nil:
					done.Add(1)
				case !errors.As(err, &e):
					return err
				case !e.Definite:
					unknown.Add(1)
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	happened := int64(len(store.Get("all").Value))
	require.NotZero(t, unknown.Load(), "the test has seen what it is about")
	require.GreaterOrEqual(t, happened, done.Load())
	require.LessOrEqual(t, happened, done.Load()+unknown.Load())
	require.Greater(t, f.accepted.Load(), int64(10))
}

func TestCloseEndsRequestsInProgress(t *testing.T) {
	ctx := testContext(t)
	arrived := make(chan struct{})
	f := startFake(t, func(_ int64, conn *fakeConn) {
		conn.request()
		close(arrived)
		conn.request()
	})
	c := New([]string{f.address})
	var g errgroup.Group
	g.Go(func() error { return c.Put(ctx, "x", "1") })
	<-arrived
	require.NoError(t, c.Close())
	requireError(t, g.Wait(), api.Unknown, "may or may not have happened")
	requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "this client is closed")
	require.NoError(t, c.Close(), "a second time does no harm")
	require.EqualValues(t, 1, f.accepted.Load())
}

func TestNoGoroutineIsLeftAfterClose(t *testing.T) {
	ctx := testContext(t)
	address := startServer(t)
	c := New([]string{address})
	require.NoError(t, c.Put(ctx, "x", "1"))
	require.Contains(t, goroutines(t), "wire.(*Conn)")
	require.NoError(t, c.Close())
	require.NotContains(t, goroutines(t), "wire.(*Conn)")
}

// goroutines lists the stacks of all goroutines.
func goroutines(t *testing.T) string {
	var b strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 1))
	return b.String()
}
