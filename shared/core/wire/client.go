package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/trust"
)

// Conn is a client's connection to one server. Many requests may be in flight on
// it at once. It is safe for concurrent use. When it breaks it stays broken, and
// the caller must dial again.
type Conn struct {
	nc      net.Conn
	limits  Limits
	tasks   errgroup.Group
	address string

	// calls holds values of type *call that may be used again.
	calls sync.Pool

	// atOnce writes as much as is possible without waiting; nil if this system or
	// connection does not support that. Only the goroutine that writes uses it.
	atOnce *atOnce

	// writeBy belongs to the goroutine that writes.
	writeBy deadline

	mu sync.Mutex

	// out holds requests that no goroutine is writing yet; spare is an empty
	// buffer to replace it.
	out, spare []byte

	// writing is true while a goroutine writes the requests in out.
	writing bool

	// queued counts the bytes that were ever put into out; handed counts how many
	// of them may have been sent. A request whose last byte is after handed was
	// not sent as a whole.
	queued, handed uint64

	// lastID is the ID of the latest request.
	lastID uint64

	// waiting has the requests without an answer, by ID.
	waiting map[uint64]*call

	// broken says why the connection can no longer be used, or is nil.
	broken *api.Error
}

// call is a request that waits for its answer.
type call struct {
	answer chan api.Response

	// end is the position of the request's last byte among all bytes that were
	// queued.
	end uint64
}

// DialOption is an option of Dial.
type DialOption func(*dialing)

// dialing is how a client connects.
type dialing struct {
	tls   func() *tls.Config
	token string
}

// WithTLS makes the client speak TLS to the server, whose certificate must name the
// host of the address, unless c has another ServerName. With nil it speaks TCP.
func WithTLS(c *tls.Config) DialOption {
	return WithTLSFrom(func() *tls.Config { return c })
}

// WithTLSFrom is WithTLS with a configuration for each connection, such as
// trust.ClientKeys.Config, which follows files that change.
func WithTLSFrom(config func() *tls.Config) DialOption { return func(d *dialing) { d.tls = config } }

// WithToken makes the client show a token to the server, which gives it its role.
// With "" it shows none.
func WithToken(token string) DialOption { return func(d *dialing) { d.token = token } }

// Dial connects to a server. The error is an *api.Error with code Unavailable, or with
// Handshake if there is a server that speaks no TLS or has a certificate that the client
// does not accept.
func Dial(ctx context.Context, address string, l Limits, how ...DialOption) (*Conn, error) {
	nc, d, err := open(ctx, address, how)
	if err != nil {
		return nil, err
	}
	c := connect(nc, address, l)
	c.show(d.token)
	return c, nil
}

// Open opens a connection to a server for a client that writes and reads the lines
// itself. The error is that of Dial.
func Open(ctx context.Context, address string, how ...DialOption) (net.Conn, error) {
	nc, d, err := open(ctx, address, how)
	if err != nil || d.token == "" {
		return nc, err
	}
	if _, err := nc.Write(appendToken(nil, d.token)); err != nil {
		_ = nc.Close() // the error of the write says more
		return nil, unreachable(address, err)
	}
	return nc, nil
}

func open(ctx context.Context, address string, how []DialOption) (net.Conn, dialing, error) {
	var d dialing
	for _, option := range how {
		option(&d)
	}
	nc, err := d.dial(ctx, address)
	if err != nil {
		var failed handshakeError
		if errors.As(err, &failed) {
			return nil, d, &api.Error{Code: api.Handshake, Definite: true, Message: fmt.Sprintf("no TLS connection to the server at %s: %v", address, failed.error), Cause: err}
		}
		return nil, d, unreachable(address, err)
	}
	return nc, d, nil
}

func unreachable(address string, err error) error {
	return &api.Error{Code: api.Unavailable, Definite: true, Message: fmt.Sprintf("cannot reach a server at %s: %v", address, withoutAddress(err)), Cause: err}
}

// dial opens the connection.
func (d dialing) dial(ctx context.Context, address string) (net.Conn, error) {
	var plain net.Dialer
	nc, err := plain.DialContext(ctx, "tcp", address)
	if err != nil || d.tls == nil {
		return nc, err
	}
	config := d.tls().Clone()
	if config == nil {
		return nc, nil
	}
	if host, _, err := net.SplitHostPort(address); err == nil && config.ServerName == "" {
		config.ServerName, _, _ = strings.Cut(host, "%") // without the zone of an IPv6 address
	}
	c, err := speakTLS(ctx, nc, config)
	switch {
	case plainAnswer(err):
		return nil, handshakeError{errors.New("it speaks no TLS; leave --cacert (KV_CACERT) out, and write http:// instead of https://")}
	case errors.Is(err, io.EOF):
		return nil, errors.New("the server closed the connection during the TLS handshake; it may have too many clients")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return nil, handshakeError{trust.Explain(err)}
	}
	return c, err
}

// handshakeError is the error of a client that has reached a server and cannot talk to
// it: the server speaks no TLS, or has a certificate that the client does not accept.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// withoutAddress returns the cause of a *net.OpError, for a message that already
// contains the address.
func withoutAddress(err error) error {
	var failed *net.OpError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// connect returns a Conn that uses an open connection.
func connect(nc net.Conn, address string, l Limits) *Conn {
	c := &Conn{nc: nc, limits: l.filled(), address: address, waiting: make(map[uint64]*call)}
	c.calls.New = func() any { return &call{answer: make(chan api.Response, 1)} }
	c.writeBy.set = nc.SetWriteDeadline
	c.atOnce = newAtOnce(nc)
	c.tasks.Go(func() error {
		c.read()
		return nil
	})
	return c
}

// show puts the token before the requests. It is sent with the first of them.
func (c *Conn) show(token string) {
	if token == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = appendToken(c.out, token)
	c.queued = uint64(len(c.out))
}

// Close closes the connection. Requests in flight fail in the same way as when
// the connection breaks.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.lost(errors.New("this program closed the connection to " + c.address))
	c.mu.Unlock()
	return c.tasks.Wait()
}

// Broken reports whether the connection can no longer be used.
func (c *Conn) Broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != nil
}

// Do sends a request and waits for its answer until ctx is done. It sets r.ID. If
// the answer is an error, Do returns the Response and the error. The error is
// always an *api.Error: the error of the server; or Unavailable and definite if
// the request was never sent; or Unknown if it was sent and the answer is lost or
// late.
func (c *Conn) Do(ctx context.Context, r api.Request) (api.Response, error) {
	if err := ctx.Err(); err != nil {
		return api.Response{}, &api.Error{Code: api.Unavailable, Definite: true, Message: fmt.Sprintf("the request was not sent: %v", err)}
	}
	w := c.calls.Get().(*call)
	id, err := c.send(r, w)
	if err != nil {
		c.calls.Put(w)
		return api.Response{}, err
	}
	var a api.Response
	select {
	case a = <-w.answer:
	case <-ctx.Done():
		if c.forget(id) {
			why := "gave no answer in time"
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				why = "had not answered when the request was given up"
			}
			return api.Response{}, api.Lost(c.address + " " + why)
		}
		a = <-w.answer // it arrived at the same moment
	}
	c.calls.Put(w)
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}

// send queues a request and makes sure that it is written.
func (c *Conn) send(r api.Request, w *call) (id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.broken != nil && (c.broken.Code == api.Denied || c.broken.Code == api.Handshake):
		return 0, c.broken
	case c.broken != nil:
		return 0, &api.Error{Code: api.Unavailable, Definite: true, Message: "the request was not sent: " + c.broken.Message}
	}
	c.lastID++
	r.ID = c.lastID
	before := len(c.out)
	c.out = append(r.AppendJSON(c.out), '\n')
	if n := len(c.out) - before - 1; n > c.limits.Line {
		c.out = c.out[:before]
		return 0, &api.Error{Code: api.BadRequest, Definite: true, Message: fmt.Sprintf("the request has %d bytes; a line may have %d", n, c.limits.Line)}
	}
	c.queued += uint64(len(c.out) - before)
	w.end = c.queued
	c.waiting[r.ID] = w
	if !c.writing {
		c.writing = true
		c.startWriting()
	}
	return r.ID, nil
}

// startWriting makes sure that the requests in out are written. If a request is
// the only one, the goroutine that made it also writes it, as far as that is
// possible without waiting: this is the fastest way. Otherwise another goroutine
// writes, so that more requests leave together. c.mu must be held and c.writing
// set.
func (c *Conn) startWriting() {
	if len(c.waiting) > 1 || c.atOnce == nil {
		c.tasks.Go(c.write)
		return
	}
	b := c.take()
	c.mu.Unlock()
	n, err := c.atOnce.write(b)
	c.mu.Lock()
	c.wroteAtOnce(b, n, err)
}

// wroteAtOnce records that n bytes of b were written at once, and makes sure that the
// rest is. But if the connection has ended meanwhile, Close may be waiting for the
// tasks, and no other one may begin. c.mu must be held and c.writing set.
func (c *Conn) wroteAtOnce(b []byte, n int, err error) {
	if n < len(b) && err == nil && c.broken == nil {
		c.tasks.Go(func() error { return c.writeRest(b, n) })
		return
	}
	c.wrote(b, n, err)
	if len(c.out) > 0 && c.broken == nil {
		c.tasks.Go(c.write)
		return
	}
	c.writing = false
}

// take removes and returns the content of out. From then on it counts as possibly
// sent. c.mu must be held.
func (c *Conn) take() []byte {
	b := c.out
	c.out, c.spare = c.spare[:0], nil
	c.handed = c.queued
	return b
}

// wrote records that n bytes of b, which take returned, were written. c.mu must
// be held.
func (c *Conn) wrote(b []byte, n int, err error) {
	if cap(b) <= keepBuffer {
		c.spare = b
	}
	if err != nil {
		c.handed -= uint64(len(b) - n)
		c.lost(fmt.Errorf("sending to %s failed: %w", c.address, withoutAddress(err)))
	}
}

// forget stops waiting for an answer. It returns false if the answer has arrived
// already.
func (c *Conn) forget(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, found := c.waiting[id]
	delete(c.waiting, id)
	return found
}

// write writes the requests in out until there are none left.
func (c *Conn) write() error {
	runtime.Gosched() // other goroutines that are about to send can join this write
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > 0 && c.broken == nil {
		b := c.take()
		c.mu.Unlock()
		n, err := c.writeAll(b)
		c.mu.Lock()
		c.wrote(b, n, err)
	}
	c.writing = false
	return nil
}

// writeRest writes b without its first n bytes, and then the requests in out.
func (c *Conn) writeRest(b []byte, n int) error {
	more, err := c.writeAll(b[n:])
	c.mu.Lock()
	c.wrote(b, n+more, err)
	c.mu.Unlock()
	return c.write()
}

// writeAll writes b. If the server accepts nothing for too long, writeAll fails
// and the connection ends, because otherwise requests would pile up here.
func (c *Conn) writeAll(b []byte) (written int, err error) {
	for chunk := range slices.Chunk(b, writeChunk) {
		c.writeBy.within(time.Now(), c.limits.Write)
		n, err := c.nc.Write(chunk)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// read receives answers until the connection ends.
func (c *Conn) read() {
	in := lines{r: c.nc, limit: c.limits.PeerLine}
	var last *api.Error
	for {
		line, ok, err := in.next()
		if err == nil && !ok {
			err = in.fill()
		}
		var a api.Response
		if err == nil && ok {
			a, err = api.DecodeResponse(line)
		}
		switch {
		case err != nil:
			c.ended(last, err)
			return
		case !ok:
		case a.ID == 0:
			last = a.Error
		default:
			last = nil
			c.deliver(a)
		}
	}
}

func (c *Conn) deliver(a api.Response) {
	c.mu.Lock()
	w := c.waiting[a.ID]
	delete(c.waiting, a.ID)
	c.mu.Unlock()
	if w != nil {
		w.answer <- a
	}
}

// ended is called when no more answers can come. last is the error without an id
// that the server sent at the end, or nil: it is about all requests that the
// server did not answer.
func (c *Conn) ended(last *api.Error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last != nil {
		if last.Code == api.Handshake {
			last.Message = "the server at " + c.address + " refused the connection: " + last.Message
		}
		c.breakOff(last, func(*call) *api.Error { return last })
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the server closed it")
	}
	c.lost(fmt.Errorf("the connection to %s broke: %w", c.address, withoutAddress(err)))
}

// lost ends the connection and fails every waiting request, with an error that
// depends on whether that request was sent. c.mu must be held.
func (c *Conn) lost(err error) {
	why := &api.Error{Code: api.Unavailable, Definite: true, Message: err.Error()}
	c.breakOff(why, func(w *call) *api.Error {
		if w.end > c.handed {
			return &api.Error{Code: api.Unavailable, Definite: true, Message: "the request was not sent: " + err.Error()}
		}
		return api.Lost(err.Error())
	})
}

// breakOff ends the connection and fails each waiting request with the error that
// each returns for it. c.mu must be held.
func (c *Conn) breakOff(why *api.Error, each func(*call) *api.Error) {
	if c.broken != nil {
		return
	}
	c.broken = why
	_ = c.nc.Close()
	for id, w := range c.waiting {
		w.answer <- api.Failed(id, each(w))
	}
	clear(c.waiting)
}
