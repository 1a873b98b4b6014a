package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"
)

// Shared serves connections of peers that use another protocol on the server's
// port.
type Shared interface {
	// Preface returns the bytes with which these connections begin.
	Preface() []byte

	// ALPN returns the names of the protocol in a TLS handshake; none if it has no
	// name.
	ALPN() []string

	// Serve serves a connection, from the preface on, until it ends. Until it
	// calls proved, the connection counts as a client's.
	Serve(c net.Conn, proved func())
}

// errShared says that a connection begins with the preface of Server.Shared.
var errShared = errors.New("the connection is for the server's other protocol")

// protocols returns the names of what the server speaks after a TLS handshake, the
// preferred ones first: a client that speaks HTTP/1.1, too, is not meant for Shared.
func (s *Server) protocols() []string {
	names := []string{ALPN}
	if s.Shared != nil {
		names = append(names, s.Shared.ALPN()...)
	}
	return names
}

// speaks decides by the first bytes of a connection what it speaks: it returns
// errShared, errHTTP, or nil for lines of JSON.
func (c *conn) speaks() error {
	if c.s.TLS == nil && c.in.buf[c.in.start] == handshakeByte {
		return refuseTLS()
	}
	for c.s.Shared != nil {
		preface := c.s.Shared.Preface()
		read := c.in.buf[c.in.start:c.in.end]
		n := min(len(read), len(preface))
		if !bytes.Equal(read[:n], preface[:n]) {
			break
		}
		if n == len(preface) {
			return errShared
		}
		if err := c.more(); err != nil {
			return err
		}
	}
	if c.isHTTP() {
		return errHTTP
	}
	c.spoken = true
	return nil
}

// sharedConn is a connection whose first bytes were read already.
type sharedConn struct {
	net.Conn
	in io.Reader
}

func (c sharedConn) Read(b []byte) (int, error) { return c.in.Read(b) }

// NetConn returns the connection without the first bytes.
func (c sharedConn) NetConn() net.Conn { return c.Conn }

// share hands the connection to Server.Shared. It returns at once. A newcomer has
// Limits.Dial to prove that it is a peer.
func (c *conn) share(k kind) {
	c.isWeb.Store(true)
	_ = c.nc.SetReadDeadline(time.Time{})
	nc := sharedConn{Conn: c.stream, in: io.MultiReader(bytes.NewReader(bytes.Clone(c.in.buf[c.in.start:c.in.end])), c.stream)}
	c.in.release()
	c.in.buf = nil
	c.s.peers.Go(func() error {
		if k == newcomer {
			defer time.AfterFunc(c.s.limits.Dial, c.killStranger).Stop()
		}
		c.s.Shared.Serve(nc, func() { c.s.becomePeer(c) })
		c.kill()
		c.s.forget(c)
		return nil
	})
}

// killStranger ends the connection if it has not become a peer's.
func (c *conn) killStranger() {
	c.s.mu.Lock()
	stranger := c.s.conns[c] == newcomer
	c.s.mu.Unlock()
	if stranger {
		c.kill()
	}
}
