package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// pipes is a listener without sockets: its connections are made with net.Pipe. A
// test can thus run in a bubble of synctest, where hours pass at once and a
// goroutine that does not end fails the test.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   atomic.Bool

	// writes counts the calls of Write on the server's ends.
	writes atomic.Int64
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	if p.once.CompareAndSwap(false, true) {
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// dial returns the client's end of a new connection.
func (p *pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- countingConn{server, &p.writes}:
		return client, nil
	case <-p.closed:
		return nil, syscall.ECONNREFUSED
	}
}

// running is a Server whose Serve is running.
type running struct {
	t    *testing.T
	ln   net.Listener
	stop context.CancelFunc
	done chan error
}

func serve(t *testing.T, s *Server, ln net.Listener) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{t: t, ln: ln, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		s.Close()
	})
	return r
}

// end stops the server and waits for it.
func (r *running) end() error {
	r.stop()
	return <-r.done
}

func (r *running) dial() *peerEnd {
	r.t.Helper()
	var c net.Conn
	var err error
	if p, ok := r.ln.(*pipes); ok {
		c, err = p.dial()
	} else {
		c, err = net.Dial("tcp", r.ln.Addr().String())
	}
	require.NoError(r.t, err)
	return &peerEnd{t: r.t, c: c, in: bufReader(c)}
}

// peerEnd is the other end of a connection. It sends and reads text, as nc does.
type peerEnd struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader

	// seal is for the messages of a peer.
	seal *seal
}

func (e *peerEnd) send(text string) {
	e.t.Helper()
	_, err := io.WriteString(e.c, text)
	require.NoError(e.t, err)
}

// line reads one line.
func (e *peerEnd) line() string {
	e.t.Helper()
	line, err := e.in.ReadString('\n')
	require.NoError(e.t, err)
	return strings.TrimSuffix(line, "\n")
}

// over asserts that nothing more arrives and that the connection ends.
func (e *peerEnd) over() {
	e.t.Helper()
	rest, err := io.ReadAll(e.in)
	if err != nil {
		require.NotErrorIs(e.t, err, errStillOpen)
	}
	require.Empty(e.t, string(rest))
	require.NoError(e.t, e.c.Close())
}

var errStillOpen = errors.New("the connection is still open")

// store returns a Handler that applies requests to a kv.Store.
func store() Handler {
	s := kv.NewStore()
	return func(r api.Request, reply func(api.Response)) {
		reply(api.Result(r.ID, r.Op, s.Apply(r.Command())))
	}
}

// pending is a Handler that leaves the answers to the test.
type pending struct {
	requests chan api.Request
	replies  chan func(api.Response)
}

func newPending() *pending {
	return &pending{requests: make(chan api.Request, 4096), replies: make(chan func(api.Response), 4096)}
}

func (p *pending) handle(r api.Request, reply func(api.Response)) {
	p.replies <- reply
	p.requests <- r
}

// next returns the oldest request that the test has not seen, and its reply.
func (p *pending) next() (api.Request, func(api.Response)) {
	return <-p.requests, <-p.replies
}

const (
	put1   = `{"id":1,"op":"put","key":"x","value":"1"}` + "\n"
	get2   = `{"id":2,"op":"get","key":"x"}` + "\n"
	stopNo = `{"ok":false,"error":{"code":"unavailable","message":"the server is stopping; the request was not begun","definite":true}}`
)

func bufReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, 64<<10) }

// later waits for d in the bubble's time.
func later(d time.Duration) { time.Sleep(d) }
