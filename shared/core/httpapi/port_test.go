package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// port is a server that accepts lines of JSON and HTTP on one port.
type port struct {
	t       *testing.T
	address string
	stop    context.CancelFunc
	ended   chan error
}

func startPort(t *testing.T, ask func(api.Request, func(api.Response)), l wire.Limits) *port {
	return startPortOf(t, ops, ask, l)
}

func startPortOf(t *testing.T, ops api.Ops, ask func(api.Request, func(api.Response)), l wire.Limits) *port {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &wire.Server{Ops: ops, Handler: ask, HTTP: New(Options{Ops: ops, Ask: ask}), Limits: l}
	ctx, cancel := context.WithCancel(context.Background())
	p := &port{t: t, address: ln.Addr().String(), stop: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		s.Close()
	})
	return p
}

func (p *port) dial() net.Conn {
	c, err := net.Dial("tcp", p.address)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { c.Close() })
	require.NoError(p.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// say sends a text and returns the first line of the answer, or "" if the
// connection ends without one.
func say(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		require.ErrorIs(t, err, io.EOF)
	}
	return strings.TrimRight(line, "\r\n")
}

func TestOnePortServesJSONAndHTTP(t *testing.T) {
	b := newBackend()
	p := startPort(t, b.ask, wire.Limits{})
	require.Equal(t, `{"id":1,"ok":true}`, say(t, p.dial(), `{"id":1,"op":"put","key":"x","value":"1"}`+"\n"))
	require.Equal(t, "HTTP/1.1 200 OK", say(t, p.dial(), "GET /v1/kv/x HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	require.Equal(t, "HTTP/1.1 400 Bad Request", say(t, p.dial(), "220 smtp.example.org ESMTP\r\n\r\n"))

	a, err := http.Get("http://" + p.address + "/v1/kv/x")
	require.NoError(t, err)
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.NoError(t, a.Body.Close())
	require.Equal(t, "1", string(body))
	http.DefaultClient.CloseIdleConnections()
	p.stop()
	require.NoError(t, <-p.ended)
}

// A client that sends half a request and then nothing gets an error or loses its
// connection, and nothing of the request is carried out.
func TestHalfRequests(t *testing.T) {
	b := newBackend()
	p := startPort(t, b.ask, wire.Limits{HalfLine: 50 * time.Millisecond, Write: 50 * time.Millisecond})
	require.Equal(t, "HTTP/1.1 400 Bad Request", say(t, p.dial(), "PUT /v1/kv/x HT"))
	half := "PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab"
	require.Equal(t, "HTTP/1.1 400 Bad Request", say(t, p.dial(), half))
	gone := p.dial()
	_, err := io.WriteString(gone, half)
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	require.Equal(t, "HTTP/1.1 404 Not Found", say(t, p.dial(), "GET /v1/kv/x HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	require.Equal(t, kv.NotFound, b.store.Get("x").Outcome)
}

// A request that arrives byte by byte is carried out.
func TestASlowRequest(t *testing.T) {
	b := newBackend()
	p := startPort(t, b.ask, wire.Limits{})
	c := p.dial()
	for _, one := range "PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n" {
		_, err := io.WriteString(c, string(one))
		require.NoError(t, err)
	}
	require.Equal(t, "HTTP/1.1 200 OK", say(t, c, ""))
	require.Equal(t, "abc", b.store.Get("x").Value)
}

// A request that net/http itself refuses changes nothing either.
func TestRequestsThatNetHTTPRefuses(t *testing.T) {
	b := newBackend()
	p := startPort(t, b.ask, wire.Limits{})
	for header, want := range map[string]string{
		"Transfer-Encoding: gzip":                "HTTP/1.1 501 Not Implemented",
		"Content-Length: 1\r\nContent-Length: 2": "HTTP/1.1 400 Bad Request",
		"Content-Length: 1\r\nExpect: more":      "HTTP/1.1 417 Expectation Failed",
		"Host: localhost":                        "HTTP/1.1 400 Bad Request",
	} {
		require.Equal(t, want, say(t, p.dial(), "PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n\r\n1"), header)
	}
	require.Equal(t, kv.NotFound, b.store.Get("x").Outcome)
}

// A client may send many requests on one connection without waiting for the
// answers.
func TestPipelinedRequests(t *testing.T) {
	b := newBackend()
	p := startPort(t, b.ask, wire.Limits{})
	c := p.dial()
	const n = 20
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "PUT /v1/kv/k%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", i)
	}
	_, err := io.WriteString(c, all.String())
	require.NoError(t, err)
	in := bufio.NewReader(c)
	for range n {
		a, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, a.Body)
		require.NoError(t, err)
		require.Equal(t, 200, a.StatusCode)
	}
	require.Equal(t, n, b.store.Len())
}

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn  chan net.Conn
	ended chan struct{}
}

func (l oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func (l oneConn) Close() error {
	close(l.ended)
	return nil
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

// A client that sends a request and never reads the answer loses its connection
// after waitTime and writeTime.
func TestAClientThatNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		l := oneConn{make(chan net.Conn, 1), make(chan struct{})}
		l.conn <- server
		s := &http.Server{Handler: newBackend().handler()}
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		_, err := io.WriteString(client, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(t, err)
		time.Sleep(waitTime + writeTime - time.Second)
		synctest.Wait()
		require.NoError(t, client.SetWriteDeadline(time.Now().Add(time.Hour)))
		start := time.Now()
		_, err = io.WriteString(client, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		for err == nil {
			_, err = io.WriteString(client, strings.Repeat("x", 1000))
		}
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
}

// A server that stops answers the request that is in flight, and only then
// closes the connection.
func TestAStopWaitsForARequestInFlight(t *testing.T) {
	replies := make(chan func(api.Response), 1)
	p := startPort(t, func(_ api.Request, reply func(api.Response)) { replies <- reply }, wire.Limits{})
	c := p.dial()
	_, err := io.WriteString(c, "PUT /v1/kv/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
	require.NoError(t, err)
	reply := <-replies
	p.stop()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			c.Close()
		}
		return err != nil
	}, 20*time.Second, time.Millisecond, "a server that is stopping must accept no more connections")
	reply(api.Response{})
	require.Equal(t, "HTTP/1.1 200 OK", say(t, c, ""))
	require.NoError(t, <-p.ended)
}
