package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/api"
)

// errHTTP says that a connection speaks HTTP.
var errHTTP = errors.New("the connection speaks HTTP")

// maxHeader is the largest header of an HTTP request, in bytes.
const maxHeader = 64 << 10

// isHTTP reports, from the first byte of a connection, whether the connection
// speaks HTTP. A line of JSON begins with a brace or with white space, and
// someone who uses nc may first send an empty line; HTTP begins with neither.
func (c *conn) isHTTP() bool {
	return c.s.http != nil && !bytes.ContainsRune([]byte("{\r\n\t "), rune(c.in.buf[c.in.start]))
}

// httpListener passes accepted connections to an http.Server.
type httpListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func (l *httpListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *httpListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *httpListener) Addr() net.Addr { return l.addr }

// httpConn is a connection whose first bytes were read already.
type httpConn struct {
	net.Conn
	in     io.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *httpConn) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *httpConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// httpsConn is an httpConn over TLS. With its ConnectionState, the HTTP server fills in
// Request.TLS.
type httpsConn struct {
	*httpConn
	secured *tls.Conn
}

func (c httpsConn) ConnectionState() tls.ConnectionState { return c.secured.ConnectionState() }

// startHTTP starts the HTTP server, if Server.HTTP is set.
func (s *Server) startHTTP(addr net.Addr) {
	if s.HTTP == nil {
		return
	}
	s.http = &http.Server{
		Handler:           s.HTTP,
		ReadHeaderTimeout: s.limits.HalfLine,
		ReadTimeout:       s.limits.HalfLine + s.limits.Write,
		IdleTimeout:       s.limits.Idle,
		MaxHeaderBytes:    maxHeader,
	}
	stopping := make(chan struct{})
	base := context.WithValue(context.Background(), stoppingKey{}, stopping)
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	s.http.RegisterOnShutdown(func() { close(stopping) })
	s.web = &httpListener{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
	s.peers.Go(func() error {
		_ = s.http.Serve(s.web) // it ends with ErrServerClosed
		return nil
	})
}

// stoppingKey is the key of the channel of Stopping in the context of a request.
type stoppingKey struct{}

// Stopping returns a channel that is closed when the server stops to which an HTTP
// request belongs; nil if it belongs to no Server. A request that would go on for long
// must end then.
func Stopping(r *http.Request) <-chan struct{} {
	c, _ := r.Context().Value(stoppingKey{}).(chan struct{})
	return c
}

// stopHTTP answers the requests in flight and closes the connections.
func (s *Server) stopHTTP() {
	if s.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.Drain)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// serveHTTP passes the connection to the HTTP server and waits until that closes
// it.
func (c *conn) serveHTTP() {
	c.isWeb.Store(true)
	_ = c.nc.SetReadDeadline(time.Time{})
	read := bytes.Clone(c.in.buf[c.in.start:c.in.end])
	nc := &httpConn{Conn: c.stream, in: io.MultiReader(bytes.NewReader(read), c.stream), closed: make(chan struct{})}
	var served net.Conn = nc
	if c.secured != nil {
		served = httpsConn{nc, c.secured}
	}
	select {
	case c.s.web.conns <- served:
		<-nc.closed
	case <-c.s.web.done:
		_ = nc.Close()
	}
}

// refuseHTTP answers an HTTP request with an error, without reading it. It
// returns io.EOF, because nothing else must be sent.
func (c *conn) refuseHTTP(status int, e *api.Error) error {
	body := append(api.Failed(0, e).AppendJSON(nil), '\n')
	retry := ""
	if status == http.StatusServiceUnavailable {
		retry = "Retry-After: 1\r\n"
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n", status, http.StatusText(status), len(body), retry)
	if c.write(append([]byte(head), body...)) == nil {
		c.linger(e)
	}
	return io.EOF
}
