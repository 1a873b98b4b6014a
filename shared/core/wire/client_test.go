package wire

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// scripted returns a Conn, and the server's end of it for the test.
func scripted(t *testing.T) (*Conn, *peerEnd) {
	near, far := net.Pipe()
	c := connect(near, "n1", Limits{PeerLine: 1 << 16})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, &peerEnd{t: t, c: far, in: bufReader(far)}
}

// asked is a call of Do in the background.
type asked struct {
	response api.Response
	err      error
	done     chan struct{}
}

func ask1(ctx context.Context, c *Conn, r api.Request) *asked {
	a := &asked{done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.response, a.err = c.Do(ctx, r)
	}()
	return a
}

// fails waits for the call and asserts how it failed.
func (a *asked) fails(t *testing.T, code api.Code, definite bool, message string) {
	t.Helper()
	<-a.done
	var e *api.Error
	require.ErrorAs(t, a.err, &e)
	require.Equal(t, code, e.Code, e.Message)
	require.Equal(t, definite, e.Definite, e.Message)
	require.Contains(t, e.Message, message)
}

var get = api.Request{Op: kv.Get, Key: "x"}

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, ln)
		nc, err := ln.dial()
		require.NoError(t, err)
		c := connect(nc, "n1", Limits{})
		a, err := c.Do(t.Context(), api.Request{ID: 99, Op: kv.Put, Key: "x", Value: "1"})
		require.NoError(t, err)
		require.Equal(t, api.Response{ID: 1}, a)
		a, err = c.Do(t.Context(), get)
		require.NoError(t, err)
		require.Equal(t, api.Response{ID: 2, Value: "1", HasValue: true}, a)
		_, err = c.Do(t.Context(), api.Request{Op: kv.Get, Key: "y"})
		require.Equal(t, &api.Error{Code: api.NotFound, Message: "the key has no value", Definite: true}, err)
		require.NoError(t, c.Close())
		require.NoError(t, r.end())
	})
}

// Many goroutines can share a connection. Each gets the answer to its own
// request, in any order of the answers.
func TestDoMatchesAnswersByID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		c, server := scripted(t)
		var g errgroup.Group
		for i := range n {
			g.Go(func() error {
				key := fmt.Sprintf("k%d", i)
				a, err := c.Do(t.Context(), api.Request{Op: kv.Get, Key: key})
				if err == nil && a.Value != key {
					err = fmt.Errorf("%s was answered with %s", key, a.Value)
				}
				return err
			})
		}
		requests := make([]api.Request, n)
		for i := range requests {
			r, err := api.Commands().Decode([]byte(server.line()))
			require.NoError(t, err)
			requests[n-1-i] = r
		}
		var answers []byte
		for _, r := range requests {
			answers = append(api.Response{ID: r.ID, Value: r.Key, HasValue: true}.AppendJSON(answers), '\n')
		}
		server.send(string(answers))
		require.NoError(t, g.Wait())
	})
}

// Requests that are made at the same time leave with few writes.
func TestRequestsMadeTogetherShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		p := newPipes()
		c := connect(countingConn{near, &p.writes}, "n1", Limits{})
		server := &peerEnd{t: t, c: far, in: bufReader(far)}
		var all []*asked
		for range 50 {
			all = append(all, ask1(t.Context(), c, get))
		}
		synctest.Wait()
		for i := range 50 {
			server.line()
			server.send(fmt.Sprintf(`{"id":%d,"ok":true}`+"\n", i+1))
		}
		for _, a := range all {
			<-a.done
			require.NoError(t, a.err)
		}
		require.Less(t, p.writes.Load(), int64(10))
		require.NoError(t, c.Close())
	})
}

// lostAnswers are the ways in which an answer can be lost, and checks of what Do
// then reports about the request.
var lostAnswers = map[string]func(t *testing.T, c *Conn, server *peerEnd){
	"no time left before it was sent": func(t *testing.T, c *Conn, _ *peerEnd) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ask1(ctx, c, get).fails(t, api.Unavailable, true, "the request was not sent: context canceled")
	},
	"sent, and no answer in time": func(t *testing.T, c *Conn, server *peerEnd) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a := ask1(ctx, c, get)
		server.line()
		a.fails(t, api.Unknown, false, "n1 gave no answer in time")
	},
	"sent, and the connection ended": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, get)
		server.line()
		require.NoError(t, server.c.Close())
		a.fails(t, api.Unknown, false, "the connection to n1 broke: the server closed it")
		ask1(t.Context(), c, get).fails(t, api.Unavailable, true, "the request was not sent: the connection to n1 broke")
	},
	"half of it was sent": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, api.Request{Op: kv.Put, Key: "x", Value: "1"})
		_, err := server.c.Read(make([]byte, 10))
		require.NoError(t, err)
		b := ask1(t.Context(), c, get)
		synctest.Wait()
		require.NoError(t, server.c.Close())
		<-a.done // the error of a depends on how much the system has accepted
		require.Error(t, a.err)
		b.fails(t, api.Unavailable, true, "the request was not sent: ")
	},
	"the server reads nothing": func(t *testing.T, c *Conn, _ *peerEnd) {
		a := ask1(t.Context(), c, get)
		a.fails(t, api.Unavailable, true, "the request was not sent: sending to n1 failed: ")
	},
	"the server stops": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, get)
		server.line()
		server.send(stopNo + "\n")
		require.NoError(t, server.c.Close())
		a.fails(t, api.Unavailable, true, "the server is stopping; the request was not begun")
	},
	"an error without an id, and another answer": func(t *testing.T, c *Conn, server *peerEnd) {
		a, b := ask1(t.Context(), c, get), ask1(t.Context(), c, get)
		server.line()
		server.line()
		server.send(stopNo + "\n" + `{"id":1,"ok":true}` + "\n")
		require.NoError(t, server.c.Close())
		<-a.done
		<-b.done
		last := a
		if a.err == nil {
			last = b
		}
		last.fails(t, api.Unknown, false, "the server closed it")
	},
	"an answer that is not JSON": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, get)
		server.line()
		server.send("HTTP/1.1 400 Bad Request\r\n")
		a.fails(t, api.Unknown, false, "a response: want an object, found 'H'")
	},
	"an answer that is too long": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, get)
		server.line()
		_, _ = server.c.Write([]byte(strings.Repeat("x", 70_000)))
		a.fails(t, api.Unknown, false, "a line is longer than the limit")
	},
	"closed by this side": func(t *testing.T, c *Conn, server *peerEnd) {
		a := ask1(t.Context(), c, get)
		server.line()
		require.NoError(t, c.Close())
		a.fails(t, api.Unknown, false, "this program closed the connection to n1")
	},
	"a request that is too long": func(t *testing.T, c *Conn, server *peerEnd) {
		worst := strings.Repeat("\x01", kv.MaxValue)
		ask1(t.Context(), c, api.Request{Op: kv.Cas, Key: "x", Old: worst, Value: worst}).
			fails(t, api.BadRequest, true, "a line may have 1048576")
		a := ask1(t.Context(), c, get)
		require.Equal(t, `{"id":2,"op":"get","key":"x"}`, server.line())
		server.send(`{"id":2,"ok":true}` + "\n")
		<-a.done
		require.NoError(t, a.err)
	},
}

func TestDoReportsTheOutcome(t *testing.T) {
	for name, f := range lostAnswers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, server := scripted(t)
				f(t, c, server)
			})
		})
	}
}

// A late answer is dropped, and is not taken for the answer to another request.
func TestLateAnswerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, server := scripted(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := ask1(ctx, c, get)
		server.line()
		late.fails(t, api.Unknown, false, "no answer in time")
		a := ask1(t.Context(), c, get)
		server.line()
		server.send(`{"id":1,"ok":true,"value":"late","index":1}` + "\n" + `{"id":2,"ok":true,"value":"mine"}` + "\n")
		<-a.done
		require.NoError(t, a.err)
		require.Equal(t, "mine", a.response.Value)
	})
}

func TestDialSaysWhy(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = Dial(t.Context(), ln.Addr().String(), Limits{})
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unavailable, e.Code)
	require.True(t, e.Definite)
	require.Contains(t, e.Message, "cannot reach a server at "+ln.Addr().String())
}

// An error contains the address only once, although the system's error also
// contains it.
func TestErrorsNameAddressOnce(t *testing.T) {
	ln, err := Listen("127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	_, err = Listen(address)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.Equal(t, 1, strings.Count(err.Error(), address), "%v", err)
	_, err = Listen("192.0.2.1:0") // an address for documentation, which no machine has
	require.Error(t, err)
	require.Equal(t, 1, strings.Count(err.Error(), "192.0.2.1:0"), "%v", err)
	require.NoError(t, ln.Close())
	_, err = Dial(t.Context(), address, Limits{})
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Equal(t, 1, strings.Count(err.Error(), address), "%v", err)
}

// A write at once may end after Close: then nothing begins any more, which Close would
// not wait for.
func TestNoTaskBeginsAfterClose(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	for written, out := range map[int]string{0: "", 4: "more\n"} {
		c := connect(near, "n1", Limits{})
		require.NoError(t, c.Close())
		c.mu.Lock()
		c.writing, c.out = true, []byte(out)
		c.wroteAtOnce([]byte("line"), written, nil)
		require.False(t, c.writing)
		c.mu.Unlock()
	}
}
