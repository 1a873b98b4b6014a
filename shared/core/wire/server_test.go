package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// Requests that arrive together are answered together, with one write.
func TestAnswersOfABatchLeaveWithOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, ln)
		c := r.dial()
		var batch strings.Builder
		for i := range 50 {
			fmt.Fprintf(&batch, `{"id":%d,"op":"append","key":"x","value":"."}`+"\n", i+1)
		}
		c.send(batch.String())
		for i := range 50 {
			require.Equal(t, fmt.Sprintf(`{"id":%d,"ok":true,"length":%d}`, i+1, i+1), c.line())
		}
		require.EqualValues(t, 1, ln.writes.Load())
		require.NoError(t, r.end())
	})
}

// Answers given inside Batch leave at its end, with one write per connection.
func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		s := &Server{Ops: api.Commands(), Handler: p.handle}
		r := serve(t, s, ln)
		a, b := r.dial(), r.dial()
		var replies []func(api.Response)
		for range 10 {
			for _, c := range []*peerEnd{a, b} {
				c.send(`{"op":"get","key":"x"}` + "\n")
				_, reply := p.next()
				replies = append(replies, reply)
			}
		}
		synctest.Wait() // a reader that is still processing requests would write the answers itself
		s.Batch(func() {
			for _, reply := range replies {
				reply(api.Response{})
			}
			synctest.Wait()
			require.Zero(t, ln.writes.Load())
		})
		for range 10 {
			require.Equal(t, `{"ok":true}`, a.line())
			require.Equal(t, `{"ok":true}`, b.line())
		}
		require.EqualValues(t, 2, ln.writes.Load())
		require.NoError(t, r.end())
	})
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		c := r.dial()
		c.send(put1 + get2)
		_, first := p.next()
		_, second := p.next()
		second(api.Response{Value: "1", HasValue: true})
		require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, c.line())
		first(api.Response{Index: 9})
		require.Equal(t, `{"id":1,"ok":true,"index":9}`, c.line())
		require.NoError(t, r.end())
	})
}

// A client may use an id again only after the answer has arrived.
func TestSameIDTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		c := r.dial()
		c.send(put1 + put1)
		require.Equal(t, `{"id":1,"ok":false,"error":{"code":"bad_request","message":"a request with id 1 is still in flight on this connection; `+
			`this second one was not begun","definite":true}}`, c.line())
		_, reply := p.next()
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		c.send(put1)
		_, reply = p.next()
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		require.NoError(t, r.end())
	})
}

func TestSeveralRequestsMayHaveNoID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		c := r.dial()
		c.send(strings.Repeat(`{"op":"get","key":"x"}`+"\n", 2))
		for range 2 {
			_, reply := p.next()
			reply(api.Response{})
			require.Equal(t, `{"ok":true}`, c.line())
		}
		require.NoError(t, r.end())
	})
}

// A Handler that calls reply twice has a bug, and the second answer must not
// reach another request.
func TestSecondReplyPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		c := r.dial()
		c.send(put1)
		_, reply := p.next()
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		require.PanicsWithValue(t, "wire: request 1 was answered twice", func() { reply(api.Response{}) })
		c.send(put1) // the same id is in flight again, but as another request
		_, again := p.next()
		require.Panics(t, func() { reply(api.Response{}) })
		again(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		require.NoError(t, r.end())
	})
}

// The server reads no further from a connection with InFlight requests in flight;
// each answer makes room for one more request. Other connections are still
// served.
func TestInFlightIsBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{InFlight: 3}}, ln)
		c, other := r.dial(), r.dial()
		for i := range 4 {
			c.send(fmt.Sprintf(`{"id":%d,"op":"get","key":"x"}`+"\n", i+1))
		}
		synctest.Wait()
		require.Len(t, p.requests, 3)
		require.NoError(t, c.c.SetWriteDeadline(time.Now().Add(time.Second)))
		_, err := c.c.Write([]byte("\n"))
		require.Error(t, err, "the server reads no further, so the client must be unable to send")

		other.send(put1)
		synctest.Wait()
		require.Len(t, p.requests, 4)

		_, reply := p.next()
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		synctest.Wait()
		require.Len(t, p.requests, 4, "the answer must make room for the fourth request")
		for range 4 {
			_, reply := p.next()
			go reply(api.Response{})
		}
		for range 3 {
			c.line()
		}
		require.Equal(t, `{"id":1,"ok":true}`, other.line())
		require.NoError(t, r.end())
	})
}

// If a client sends and never reads, the server stops reading from it at
// ConnBytes and ends the connection after Limits.Write.
func TestClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		var handled atomic.Int64
		do := store()
		handle := func(r api.Request, reply func(api.Response)) {
			handled.Add(1)
			do(r, reply)
		}
		r := serve(t, &Server{Ops: api.Commands(), Handler: handle, Limits: Limits{ConnBytes: 1000, Write: 7 * time.Second}}, ln)
		greedy, other := r.dial(), r.dial()
		start := time.Now()
		var err error
		for err == nil {
			_, err = greedy.c.Write([]byte(put1))
		}
		require.Equal(t, 7*time.Second, time.Since(start))
		require.Less(t, handled.Load(), int64(100))
		other.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, other.line())
		require.NoError(t, r.end())
	})
}

// When the answers of many requests reach ConnBytes, the server writes them
// before it begins further requests.
func TestConnBytesAreBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		var handled atomic.Int64
		handle := func(_ api.Request, reply func(api.Response)) {
			handled.Add(1)
			reply(api.Response{})
		}
		r := serve(t, &Server{Ops: api.Commands(), Handler: handle, Limits: Limits{ConnBytes: 1000}}, ln)
		c := r.dial()
		c.send(strings.Repeat(put1, 90)) // the server receives all of them with one read
		synctest.Wait()
		request := api.Request{Op: kv.Put, Key: "x", Value: "1"}.Size()
		require.EqualValues(t, (1000-request)/api.Response{}.Size()+1, handled.Load())
		for range 90 {
			require.Equal(t, `{"id":1,"ok":true}`, c.line())
		}
		require.NoError(t, r.end())
	})
}

// The time limit for a line runs from its first bytes, also if more bytes keep
// arriving.
func TestHalfALineAndSilence(t *testing.T) {
	for _, drip := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, newPipes())
			c, other := r.dial(), r.dial()
			c.send(put1)
			require.Equal(t, `{"id":1,"ok":true}`, c.line())
			later(time.Minute)
			start := time.Now()
			c.send(`{"id":2,"op":"put"`)
			for range 9 {
				later(time.Second)
				if drip {
					c.send(" ")
				}
			}
			require.Equal(t, `{"ok":false,"error":{"code":"bad_request","message":"a line was not finished within 10s; `+
				`it was not carried out and the connection is closed","definite":true}}`, c.line())
			require.Equal(t, 10*time.Second, time.Since(start))
			c.over()
			other.send(get2)
			require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, other.line())
			require.NoError(t, r.end())
		})
	}
}

// The time limit applies to each line: a client may send each line in pieces for
// as long as it likes, if no line takes too long.
func TestTheTimeLimitIsPerLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, newPipes())
		c := r.dial()
		for range 10 {
			c.send(put1[:9])
			later(6 * time.Second)
			c.send(put1[9:] + put1[:9]) // the end of one line and the start of the next
			require.Equal(t, `{"id":1,"ok":true}`, c.line())
			later(6 * time.Second)
			c.send(put1[9:])
			require.Equal(t, `{"id":1,"ok":true}`, c.line())
		}
		require.NoError(t, r.end())
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{Idle: time.Minute}}, ln)
		c := r.dial()
		for range 5 { // not idle
			later(40 * time.Second)
			c.send("\n")
		}
		c.send(put1)
		_, reply := p.next()
		later(time.Hour) // a connection with a request in flight is not idle
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		start := time.Now()
		require.Equal(t, `{"ok":false,"error":{"code":"unavailable","message":"the connection was idle for 1m0s and is closed","definite":true}}`, c.line())
		require.GreaterOrEqual(t, time.Since(start), time.Minute*7/8)
		require.LessOrEqual(t, time.Since(start), 2*time.Minute)
		c.over()
		require.NoError(t, r.end())
	})
}

// A server that is stopping answers the requests in flight, and tells the clients
// that it begins no others.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		busy, idle, half := r.dial(), r.dial(), r.dial()
		busy.send(put1)
		half.send(put1[:10])
		_, reply := p.next()
		synctest.Wait()
		start := time.Now()
		r.stop()
		require.Equal(t, stopNo, idle.line())
		idle.over()
		require.Equal(t, stopNo, half.line())
		half.over()
		_, err := ln.dial()
		require.Error(t, err, "a server that is stopping must accept no more connections")
		busy.send(get2)
		require.Equal(t, `{"id":2,`+stopNo[1:], busy.line())
		later(2 * time.Second)
		reply(api.Response{Index: 5})
		require.Equal(t, `{"id":1,"ok":true,"index":5}`, busy.line())
		require.Equal(t, stopNo, busy.line())
		busy.over()
		require.NoError(t, <-r.done)
		require.Less(t, time.Since(start), 4*time.Second)
		require.Empty(t, p.requests, "no request may begin after the stop")
	})
}

// A request in flight that has no answer within Drain is answered with unknown,
// and its later answer is dropped.
func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{Drain: 2 * time.Second}}, ln)
		c, dumb := r.dial(), r.dial()
		c.send(`{"op":"get","key":"x"}` + "\n" + get2 + put1)
		dumb.send(put1)
		var replies []func(api.Response)
		for range 4 {
			_, reply := p.next()
			replies = append(replies, reply)
		}
		start := time.Now()
		r.stop()
		const unknown = `"ok":false,"error":{"code":"unknown","message":"the server stopped before the outcome was known","definite":false}}`
		require.Equal(t, `{"id":1,`+unknown, c.line())
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Equal(t, `{"id":2,`+unknown, c.line())
		require.Equal(t, `{`+unknown, c.line())
		require.Equal(t, stopNo, c.line())
		c.over()
		require.NoError(t, <-r.done)
		require.LessOrEqual(t, time.Since(start), 3*time.Second+lingerLong, "a client that does not read must not delay the stop")
		for _, reply := range replies {
			reply(api.Response{})
		}
		require.NoError(t, dumb.c.Close())
	})
}

// A stop also ends a reader that waits for room.
func TestStopUnderBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{InFlight: 1, Drain: time.Second}}, ln)
		c := r.dial()
		c.send(put1 + get2)
		synctest.Wait()
		r.stop()
		require.Contains(t, c.line(), `{"id":1,"ok":false,"error":{"code":"unknown"`)
		require.Contains(t, c.line(), `{"id":2,"ok":false,"error":{"code":"unavailable"`)
		require.Equal(t, stopNo, c.line())
		c.over()
		require.NoError(t, <-r.done)
	})
}

// After Close the server sends nothing more.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		s := &Server{Ops: api.Commands(), Handler: p.handle}
		r := serve(t, s, ln)
		c := r.dial()
		c.send(put1)
		_, reply := p.next()
		s.Close()
		c.over()
		reply(api.Response{})
		require.ErrorIs(t, <-r.done, net.ErrClosed)
		require.ErrorIs(t, s.Serve(t.Context(), newPipes()), net.ErrClosed)
	})
}

// A request that has arrived when the client closes the connection is still
// carried out; a line without its newline is not.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle}, ln)
		c := r.dial()
		c.send(put1 + strings.TrimSuffix(get2, "\n"))
		require.NoError(t, c.c.Close())
		request, reply := p.next()
		require.EqualValues(t, 1, request.ID)
		reply(api.Response{})
		synctest.Wait()
		require.Empty(t, p.requests)
		require.NoError(t, r.end())
	})
}

// A client that has left counts against Conns only for Drain, even if its request
// is never answered.
func TestClientLeavesAndIsNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, p := newPipes(), newPending()
		r := serve(t, &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{Conns: 1}}, ln)
		c := r.dial()
		c.send(put1)
		_, reply := p.next()
		require.NoError(t, c.c.Close())
		later(2900 * time.Millisecond)
		early := r.dial()
		require.Contains(t, early.line(), `"code":"busy"`)
		early.over()
		later(200 * time.Millisecond)
		c = r.dial()
		c.send(put1)
		p.next()
		reply(api.Response{}) // too late, and dropped
		require.NoError(t, c.c.Close())
		require.NoError(t, r.end())
	})
}

// halfPipe is a net.Pipe that pretends that one side of it can be closed, as one
// side of a TCP connection can.
type halfPipe struct{ net.Conn }

func (halfPipe) CloseWrite() error { return nil }

// Before the server closes a connection, it reads for a while, and for longer if
// the client may still be sending a line that was refused.
func TestLinger(t *testing.T) {
	for name, c := range map[string]struct {
		send string
		took time.Duration
	}{
		"a line that is too long":   {strings.Repeat("x", 1100), lingerLong},
		"a line that is incomplete": {"x", lingerLong},
		"an idle connection":        {"", lingerShort},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				r := serve(t, &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{Line: 1000}}, ln)
				client, server := net.Pipe()
				ln.conns <- halfPipe{server}
				e := &peerEnd{t: t, c: client, in: bufReader(client)}
				e.send(c.send)
				e.line()
				start := time.Now()
				_, err := e.in.ReadByte()
				require.ErrorIs(t, err, io.EOF)
				require.Equal(t, c.took, time.Since(start))
				require.NoError(t, client.Close())
				require.NoError(t, r.end())
			})
		})
	}
}

// flaky is a listener whose Accept fails a few times.
type flaky struct {
	*pipes
	failures atomic.Int64
}

func newFlaky(failures int64) *flaky {
	f := &flaky{pipes: newPipes()}
	f.failures.Store(failures)
	return f
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.failures.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.pipes.Accept()
}

func TestServeRecoversFromAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newFlaky(10)
		r := serve(t, &Server{Ops: api.Commands(), Handler: store()}, ln)
		client, server := net.Pipe()
		ln.conns <- server
		c := &peerEnd{t: t, c: client, in: bufReader(client)}
		c.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		require.NoError(t, r.end())

		ln = newFlaky(1 << 30)
		r = serve(t, &Server{Ops: api.Commands(), Handler: store()}, ln)
		later(time.Minute)
		require.Less(t, 1<<30-ln.failures.Load(), int64(100), "the pauses between attempts must grow")
		require.NoError(t, r.end())

		ln = newFlaky(0)
		r = serve(t, &Server{Ops: api.Commands(), Handler: store()}, ln)
		require.NoError(t, ln.Close())
		require.ErrorContains(t, <-r.done, "accepts no more connections")
	})
}

// A client beyond Conns is refused and learns why. When a client leaves, there is
// room again.
func TestTooManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy = `{"ok":false,"error":{"code":"busy","message":"this server accepts 2 clients, at most 1 from one address, and cannot accept this one now","definite":true}}`
		r := serve(t, &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{Conns: 2}}, newPipes())
		a, b := r.dial(), r.dial()
		for range 200 {
			c := r.dial()
			require.Equal(t, busy, c.line())
			c.over()
		}
		a.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, a.line())
		require.NoError(t, a.c.Close())
		synctest.Wait()
		c := r.dial()
		c.send(get2)
		require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, c.line())
		b.send(get2)
		require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, b.line())
		require.NoError(t, r.end())
	})
}

func TestListenSaysWhatToDo(t *testing.T) {
	ln, err := Listen("127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	address := ln.Addr().String()
	_, err = Listen(address)
	require.ErrorContains(t, err, "the address "+address+" is in use: stop the program that listens there, or choose another port")
	_, err = Listen("no port")
	require.ErrorContains(t, err, "cannot listen on no port: ")
}

func TestServeNeedsNoLog(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, (&Server{}).Serve(ctx, newPipes()))
}

// The log tells the faults of two hosts apart, but not two connections of one host.
func TestFaultsAreToldApart(t *testing.T) {
	fault := func(host string, port int, err error) string {
		from := &net.TCPAddr{IP: net.ParseIP(host), Port: port}
		return (&conn{nc: addressed{from: from}}).fault(&net.OpError{Op: "read", Net: "tcp", Addr: from, Err: err})
	}
	first := fault("10.0.0.1", 5001, io.EOF)
	require.Equal(t, first, fault("10.0.0.1", 5002, io.EOF))
	require.NotEqual(t, first, fault("10.0.0.2", 5001, io.EOF))
	require.NotEqual(t, first, fault("10.0.0.1", 5001, io.ErrUnexpectedEOF))
}

// addressed is a connection that has only an address.
type addressed struct {
	net.Conn
	from net.Addr
}

func (f addressed) RemoteAddr() net.Addr { return f.from }
