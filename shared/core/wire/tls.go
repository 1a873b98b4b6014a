package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/trust"
)

// handshakeByte is the first byte of a connection that begins with TLS.
const handshakeByte = 0x16

// maxHandshake is how many bytes the other side may send in a TLS handshake: enough for
// a certificate, a few between it and the CA, and their keys.
const maxHandshake = 16 << 10

// ALPN is the name of HTTP/1.1 in a TLS handshake. Lines of JSON have none.
const ALPN = "http/1.1"

// bounded is a connection of which TLS reads what has arrived already, and then at most
// left bytes until open is true.
type bounded struct {
	net.Conn
	arrived []byte
	left    int
	open    bool
}

var errLongHandshake = fmt.Errorf("the TLS handshake is longer than %d bytes", maxHandshake)

func (b *bounded) Read(p []byte) (n int, err error) {
	switch {
	case b.open && len(b.arrived) == 0:
		return b.Conn.Read(p)
	case !b.open && b.left == 0:
		return 0, errLongHandshake
	case !b.open && len(p) > b.left:
		p = p[:b.left]
	}
	if len(b.arrived) > 0 {
		n = copy(p, b.arrived)
		b.arrived = b.arrived[n:]
	} else {
		n, err = b.Conn.Read(p)
	}
	b.left -= n
	return n, err
}

// secure makes the TLS handshake of a connection, and finds out who is at the other
// end. An *api.Error is for the other side. The handshake runs on the connection's own
// goroutine, and its time and its length are limited.
func (c *conn) secure(k kind) error {
	limit := c.s.limits.HalfLine
	if k != client {
		limit = c.s.limits.Dial
	}
	c.readBy.to(time.Now().Add(limit))
	c.writeBy.to(c.readBy.at)
	if c.stopping() {
		return net.ErrClosed // wakeReader may have been called before the deadline was set
	}
	if err := c.in.fill(); err != nil {
		return err
	}
	arrived := c.in.buf[c.in.start:c.in.end]
	if arrived[0] != handshakeByte {
		return c.refusePlain(arrived)
	}
	raw := &bounded{Conn: c.nc, arrived: bytes.Clone(arrived), left: maxHandshake}
	secured := tls.Server(raw, c.s.accepts)
	if err := secured.Handshake(); err != nil {
		if !c.stopping() {
			c.s.handshakeNews.Say(c.fault(err), func(before int) {
				c.s.log.Warn("a TLS handshake failed", "address", c.nc.RemoteAddr(), "error", err, "failed_before", before)
			})
		}
		return err
	}
	raw.open = true
	c.readBy.at, c.writeBy.at = time.Time{}, time.Time{}
	c.stream, c.secured = secured, secured
	c.in = lines{r: secured, limit: c.in.limit, budget: c.in.budget}
	who, err := c.s.TLS.Verify(secured.ConnectionState())
	if err != nil {
		return c.refuseCertificate(limit, err)
	}
	c.who = who
	role, _ := access.ParseRole(who.Role) // a server has no role
	c.client = c.s.Access.Client(role)
	return nil
}

// refuseCertificate tells the other side, in the language that it speaks, why its
// certificate is refused. Nothing else of what it sends is read.
func (c *conn) refuseCertificate(limit time.Duration, why error) error {
	c.s.handshakeNews.Say(c.fault(why), func(before int) {
		c.s.log.Warn("a certificate was refused", "address", c.nc.RemoteAddr(), "error", why, "refused_before", before)
	})
	e := &api.Error{Code: api.Handshake, Definite: true, Message: why.Error()}
	c.readBy.to(time.Now().Add(limit))
	if err := c.in.fill(); err != nil {
		return err
	}
	if c.isHTTP() {
		return c.refuseHTTP(http.StatusForbidden, e)
	}
	return e
}

// refusePlain tells the other side, in the language of its first bytes, that this
// server speaks TLS.
func (c *conn) refusePlain(first []byte) error {
	e := &api.Error{Code: api.Handshake, Definite: true,
		Message: "this server speaks only TLS; name the CA of the cluster with --cacert (KV_CACERT), or write https://"}
	switch {
	case isHello(first):
		e.Code, e.Message = api.BadRequest, `this server speaks only TLS: write the same "tls" into the cluster.json of every server`
		c.s.helloNews.Say(c.fault(e), func(before int) {
			c.s.log.Warn("a peer was refused", "address", c.nc.RemoteAddr(), "error", "it speaks no TLS", "refused_before", before)
		})
	case c.isHTTP():
		return c.refuseHTTP(http.StatusBadRequest, e)
	}
	return e
}

// refuseTLS is the answer of a server without TLS to a TLS handshake. The other side
// takes it for a malformed handshake; see plainAnswer.
func refuseTLS() error {
	return &api.Error{Code: api.BadRequest, Definite: true, Message: "this server speaks no TLS"}
}

// vouched returns an error if the certificate of a connection does not belong to the
// server that has sent a hello on it. A probe needs none: it makes nobody a peer.
func (c *conn) vouched(h hello) error {
	switch {
	case c.s.TLS == nil || h.probe || c.who.Server == h.from:
		return nil
	case c.who == (trust.Identity{}):
		return fmt.Errorf("n%d has shown no certificate that says who it is; a server needs one", h.from)
	}
	return fmt.Errorf("n%d has shown the certificate of %s; give each server its own", h.from, c.who.URI())
}

// speakTLS makes the TLS handshake of the side that has dialed. It closes nc if that
// fails.
func speakTLS(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	c := tls.Client(nc, config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the error of the handshake says more
		return nil, err
	}
	return c, nil
}

// plainAnswer reports whether a TLS handshake has failed because the other side speaks
// no TLS.
func plainAnswer(err error) bool { return errors.As(err, new(tls.RecordHeaderError)) }
