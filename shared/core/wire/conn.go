package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/trust"
)

// A connection is closed in two steps: this side sends no more, and then reads
// until the other side has closed too. If it closed at once while bytes arrive,
// TCP would answer them with a reset, and the other side might then lose the last
// answer. A client whose input was bad may still be sending, so it gets more time
// than the others.
const (
	lingerShort = 100 * time.Millisecond
	lingerLong  = time.Second
)

// grace is how long a stopping server still reads requests, so that it can answer
// those that have arrived with "not begun".
const grace = 20 * time.Millisecond

// writeChunk is how many bytes are written under one deadline.
const writeChunk = 64 << 10

// conn is the server's side of one connection.
type conn struct {
	s *Server

	// nc is the connection as it was accepted. stream is what this side reads from and
	// writes to: the same, or secured, which is TLS on it; nil without TLS. who is then
	// at the other end.
	nc      net.Conn
	stream  net.Conn
	secured *tls.Conn
	who     trust.Identity

	// address is the address to which the connection counts; "" if it has none.
	// since is when the connection was accepted.
	address string
	since   time.Time

	// in, readBy, writeBy, text and halfSince belong to the goroutine that reads
	// or writes. text is the buffer for answers. halfSince is when the reader
	// first had to wait for the end of a line.
	in        lines
	readBy    deadline
	writeBy   deadline
	text      []byte
	halfSince time.Time

	// client says what the client may do; only the reader uses it.
	client guard.Client

	// idle is how long the connection may be silent; a peer's connection
	// continues while the server stops.
	idle   time.Duration
	isPeer bool

	// isWeb is true once the HTTP server or Server.Shared serves the connection.
	isWeb atomic.Bool

	// spoken is true once the first bytes have arrived and are lines; greeted
	// is true once a hello has arrived.
	spoken, greeted bool

	// handle processes the next line; only the reader uses it.
	handle func(line []byte) error

	// flushTask is flush, for errgroup.
	flushTask func() error

	mu sync.Mutex

	// changed is signaled when something has changed for which a goroutine may
	// wait.
	changed sync.Cond

	// out holds answers that no goroutine is writing yet; spare is an empty slice
	// to replace it. The goroutine that writes the answers also encodes them, so
	// the goroutine that answers does not spend time on it.
	out, spare []api.Response

	// writing is true while some goroutine has the task of writing the answers in
	// out. The goroutine that sets writing must make sure that they are written.
	writing bool

	// reading is true while the reader processes requests. The reader writes the
	// answers in out before it waits, so no other goroutine has to.
	reading bool

	// waiting holds the requests in flight that have an id, each with its own
	// number; anonymous counts those without an id.
	waiting   map[uint64]uint64
	anonymous int
	serial    uint64

	// owed counts the bytes of the requests in flight, with room for their
	// answers; unsent counts the bytes of the answers that are not sent yet.
	owed, unsent int

	// said counts the answers; heard is the value of said when the reader last
	// found that nothing had arrived.
	said, heard uint64

	// settled is true if nothing in flight will be answered any longer, dead if
	// nothing will be written any longer.
	settled bool
	dead    bool
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, stream: nc, reading: true}
	c.address, c.since = addressOf(nc.RemoteAddr()), time.Now()
	c.client = s.Access.Client(access.None)
	c.in = lines{r: nc, limit: s.limits.Line, budget: s.long}
	c.idle = s.limits.Idle
	c.readBy.set = nc.SetReadDeadline
	c.writeBy.set = nc.SetWriteDeadline
	c.changed.L = &c.mu
	c.flushTask = func() error { c.flush(); return nil }
	return c
}

// errPeer says that servePeer now serves the connection.
var errPeer = errors.New("the connection is a peer's")

// run serves the connection until it ends.
func (c *conn) run(k kind) {
	var err error
	if c.s.TLS != nil {
		err = c.secure(k)
	}
	switch {
	case err != nil:
	case k == client:
		c.handle = c.firstLine
		err = c.serve()
	case k == newcomer:
		c.handle, c.in.limit, c.idle = c.helloOnly, maxHello, c.s.limits.Dial
		switch err = c.serve(); {
		case errors.Is(err, errHTTP):
			err = c.refuseHTTP(http.StatusServiceUnavailable, c.tooMany())
		case errors.Is(err, errShared):
		case !c.greeted:
			err = c.tooMany()
		}
	default:
		err = c.tooMany()
	}
	switch {
	case errors.Is(err, errPeer):
		return
	case errors.Is(err, errShared):
		c.share(k)
		return
	case errors.Is(err, errHTTP):
		c.serveHTTP()
		c.s.forget(c)
		return
	}
	c.finish(err)
	c.s.forget(c)
}

func (c *conn) tooMany() *api.Error {
	return &api.Error{Code: api.Busy, Definite: true,
		Message: fmt.Sprintf("this server accepts %d clients, at most %d from one address, and cannot accept this one now",
			c.s.limits.Conns, c.s.limits.PerAddress)}
}

// turnAway tells a client that there are too many, and closes the connection at
// once, without waiting until the client has read this, because the client must
// cost no more. The write does not block, because hardly anything was written to
// the connection before. With TLS, a handshake would have to come first.
func (c *conn) turnAway() {
	if c.s.TLS == nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.nc.Write(append(api.Failed(0, c.tooMany()).AppendJSON(nil), '\n'))
	}
	_ = c.nc.Close()
}

// serve reads lines and calls c.handle for each, until it returns an error. An
// *api.Error is sent to the other side.
func (c *conn) serve() error {
	for {
		for {
			line, ok, err := c.in.next()
			if err != nil {
				return tooLong(c.in.limit)
			}
			if !ok {
				break
			}
			c.halfSince = time.Time{}
			if len(line) == 0 {
				continue
			}
			if err := c.handle(line); err != nil {
				return err
			}
		}
		c.pause()
		if err := c.more(); err != nil {
			return err
		}
		if !c.spoken {
			if err := c.speaks(); err != nil {
				return err
			}
		}
		c.resume()
	}
}

func tooLong(limit int) *api.Error {
	return &api.Error{Code: api.TooLarge, Definite: true,
		Message: fmt.Sprintf("a line is longer than %d bytes, which is the limit; the connection is closed", limit)}
}

// firstLine distinguishes peers, clients and HTTP. It ends a connection that
// sends an HTTP request here, where lines of JSON are expected: a web page can
// make its reader's browser send a POST to this port, and the lines of the body
// would be requests.
func (c *conn) firstLine(line []byte) error {
	switch {
	case isHello(line):
		return c.hello(line)
	case isToken(line):
		c.handle = c.request
		return c.token(line)
	case line[0] != '{' && bytes.Contains(line, []byte(" HTTP/")):
		return &api.Error{Code: api.BadRequest, Definite: true, Message: "this server speaks lines of JSON, not HTTP; the connection is closed"}
	}
	c.handle = c.request
	return c.request(line)
}

// helloOnly is used in place of firstLine when there is room for peers only.
func (c *conn) helloOnly(line []byte) error {
	if isHello(line) {
		return c.hello(line)
	}
	return c.tooMany()
}

// request answers one line of a client, or lets the Handler do it.
func (c *conn) request(line []byte) error {
	if isToken(line) {
		return &api.Error{Code: api.BadRequest, Definite: true, Message: "a token must be the first line of its connection; the connection is closed"}
	}
	r, err := c.s.Ops.Decode(line)
	if err != nil {
		return c.refuse(r.ID, err)
	}
	if e := c.client.Denied(r.Op); e != nil {
		return c.refuse(r.ID, e)
	}
	f, err := c.begin(r)
	if err != nil {
		return c.refuse(r.ID, err)
	}
	c.s.Handler(r, func(a api.Response) { c.answer(f, a) })
	return nil
}

func stopped() *api.Error {
	return &api.Error{Code: api.Unavailable, Definite: true, Message: "the server is stopping; the request was not begun"}
}

// refuse answers a request that was not begun. It returns err if the connection
// must end.
func (c *conn) refuse(id uint64, err error) error {
	var e *api.Error
	if !errors.As(err, &e) {
		return err
	}
	c.s.log.Debug("a request was refused", "client", c.nc.RemoteAddr(), "code", e.Code, "error", e.Message)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitForRoom(0)
	c.put(api.Failed(id, e))
	if c.dead {
		return net.ErrClosed
	}
	return nil
}

// flight is a request in flight.
type flight struct {
	id, serial uint64

	// bytes is how many bytes the request and its answer count in conn.owed.
	bytes int

	// reads is true if the request changes nothing, so that it can be refused at
	// any time.
	reads bool
}

// begin counts a request as in flight, once there is room for it.
func (c *conn) begin(r api.Request) (flight, error) {
	f := flight{id: r.ID, bytes: r.Size(), reads: api.OnlyReads(r.Op)}
	if f.reads {
		f.bytes += kv.MaxValue
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitForRoom(f.bytes)
	switch {
	case c.dead:
		return f, net.ErrClosed
	case c.stopping():
		return f, stopped()
	}
	c.serial++
	f.serial = c.serial
	if f.id == 0 {
		c.anonymous++
		c.owed += f.bytes
		return f, nil
	}
	if _, found := c.waiting[f.id]; found {
		return f, &api.Error{Code: api.BadRequest, Definite: true,
			Message: fmt.Sprintf("a request with id %d is still in flight on this connection; this second one was not begun", f.id)}
	}
	if c.waiting == nil {
		c.waiting = make(map[uint64]uint64)
	}
	c.waiting[f.id] = f.serial
	c.owed += f.bytes
	return f, nil
}

// answer puts the answer of a request into out.
func (c *conn) answer(f flight, a api.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled || c.dead {
		return
	}
	switch {
	case f.id != 0 && c.waiting[f.id] == f.serial:
		delete(c.waiting, f.id)
	case f.id == 0 && c.anonymous > 0:
		c.anonymous--
	default:
		panic(fmt.Sprintf("wire: request %d was answered twice", f.id))
	}
	c.owed -= f.bytes
	if long := a.Size() > smallBuffer; long && f.reads && c.s.Budget.Used() > c.s.Budget.Limit() {
		a = api.Failed(f.id, &api.Error{Code: api.Busy, Definite: true,
			Message: fmt.Sprintf("requests and unread answers of all clients hold %d bytes, which is the limit; this request changed nothing", c.s.Budget.Limit())})
	}
	a.ID = f.id
	c.put(a)
	c.changed.Broadcast()
}

// put adds an answer to out and makes sure that it is written. c.mu must be held.
func (c *conn) put(a api.Response) {
	if c.dead {
		return
	}
	c.said++
	c.unsent += a.Size()
	c.s.Budget.Add(a.Size())
	c.out = append(c.out, a)
	if !c.reading && !c.writing {
		c.writing = true
		c.s.flush(c)
	}
}

func (c *conn) inFlight() int { return len(c.waiting) + c.anonymous }

// waitForRoom makes the reader wait until the connection may hold this many more
// bytes and have one more request in flight. This is the back pressure: a reader
// that waits reads nothing. c.mu must be held.
func (c *conn) waitForRoom(bytes int) {
	for !c.dead && (c.inFlight() >= c.s.limits.InFlight || c.isFull(bytes)) {
		if len(c.out) > 0 && !c.writing {
			c.writing = true
			c.mu.Unlock()
			c.flush()
			c.mu.Lock()
			continue
		}
		c.reading = false
		c.changed.Wait()
		c.reading = true
	}
}

// pause writes what is ready before the reader waits for more.
func (c *conn) pause() {
	c.mu.Lock()
	c.reading = false
	write := len(c.out) > 0 && !c.writing && !c.dead
	if write {
		c.writing = true
	}
	c.mu.Unlock()
	if write {
		c.flush()
	}
}

func (c *conn) resume() {
	c.mu.Lock()
	c.reading = true
	c.mu.Unlock()
}

// isFull reports whether the connection holds so much that this many more bytes
// would exceed its limit. c.mu must be held.
func (c *conn) isFull(bytes int) bool {
	limit := c.s.limits.ConnBytes
	if c.s.Budget.Used() > c.s.Budget.Limit()/2 {
		limit /= 8
	}
	held := c.owed + c.unsent
	return held > 0 && held+bytes > limit
}

// flush writes until out is empty. The caller has set c.writing.
func (c *conn) flush() {
	c.mu.Lock()
	for len(c.out) > 0 && !c.dead {
		out := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.writeAnswers(out)
		c.mu.Lock()
		if clear(out); cap(out) <= keepAnswers {
			c.spare = out
		}
		if err != nil {
			c.s.log.Debug("answers could not be sent to a client; the connection is closed", "client", c.nc.RemoteAddr(), "error", err)
			c.dead = true
			_ = c.nc.Close()
		}
		c.changed.Broadcast()
	}
	c.writing = false
	c.changed.Broadcast()
	c.mu.Unlock()
}

// keepAnswers is the largest capacity of a slice of answers that is used again.
const keepAnswers = 1 << 10

// writeAnswers encodes answers and writes them, a chunk at a time. The encoded
// text thus needs no more memory than one chunk and one answer.
func (c *conn) writeAnswers(answers []api.Response) error {
	bytes := 0
	for i := range answers {
		bytes += answers[i].Size()
		c.text = append(answers[i].AppendJSON(c.text), '\n')
		answers[i] = api.Response{}
		if len(c.text) < writeChunk && i+1 < len(answers) {
			continue
		}
		if err := c.write(c.text); err != nil {
			return err
		}
		c.sent(bytes)
		bytes = 0
		if c.text = c.text[:0]; cap(c.text) > 2*writeChunk {
			c.text = nil
		}
	}
	return nil
}

// sent records that this many bytes of answers were sent.
func (c *conn) sent(bytes int) {
	c.s.Budget.Give(bytes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsent -= bytes
	c.changed.Broadcast()
}

func (c *conn) write(b []byte) error {
	for chunk := range slices.Chunk(b, writeChunk) {
		c.writeBy.within(time.Now(), c.s.limits.Write)
		if _, err := c.stream.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// more waits for bytes. An error ends the connection.
func (c *conn) more() error {
	for {
		now := time.Now()
		stopping := c.stopping()
		half := c.in.half()
		switch {
		case stopping:
			c.readBy.to(c.lastLook(now))
		case half:
			if c.halfSince.IsZero() {
				c.halfSince = now
			}
			c.readBy.to(c.halfSince.Add(c.s.limits.HalfLine))
		default:
			c.readBy.within(now, c.idle)
		}
		if !stopping && c.stopping() {
			continue // wakeReader was called before the deadline was set
		}
		err := c.in.fill()
		if errors.Is(err, errNoRoom) {
			return &api.Error{Code: api.Busy, Definite: true,
				Message: fmt.Sprintf("long lines that are still arriving hold %d bytes, which is the limit; the connection is closed", c.s.long.Limit())}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		early := time.Now().Before(c.readBy.at) // wakeReader was called
		c.readBy.at = time.Time{}
		if early {
			continue
		}
		if err := c.late(half); err != nil {
			return err
		}
	}
}

// stopping reports whether requests are no longer begun.
func (c *conn) stopping() bool { return !c.isPeer && c.s.stopping.Load() }

// lastLook returns until when a stopping server waits for bytes of a connection:
// for another grace while a request is in flight, and otherwise for one grace
// after the stop began. A client that asks again whenever it is refused must not
// keep the server from stopping.
func (c *conn) lastLook(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inFlight() > 0 {
		return now.Add(grace)
	}
	return c.s.stoppedAt.Add(grace)
}

// late returns the error that ends the connection after nothing has arrived in
// time; nil means that the reader must keep waiting.
func (c *conn) late(half bool) error {
	c.mu.Lock()
	open := c.inFlight() > 0
	quiet := c.said == c.heard
	c.heard = c.said
	c.mu.Unlock()
	switch {
	case c.stopping() && open:
		return nil
	case c.stopping():
		return stopped()
	case half:
		return &api.Error{Code: api.BadRequest, Definite: true,
			Message: fmt.Sprintf("a line was not finished within %v; it was not carried out and the connection is closed", c.s.limits.HalfLine)}
	case open, !quiet:
		return nil
	default:
		return &api.Error{Code: api.Unavailable, Definite: true,
			Message: fmt.Sprintf("the connection was idle for %v and is closed", c.idle)}
	}
}

// wakeReader makes a waiting reader check s.stopping. It does not touch a
// connection that another server serves, which stops in another way and would
// take this for a client that has left.
func (c *conn) wakeReader() {
	if !c.isWeb.Load() {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// kill ends the connection without another message.
func (c *conn) kill() {
	c.mu.Lock()
	c.dead = true
	c.changed.Broadcast()
	c.mu.Unlock()
	_ = c.nc.Close()
}

// giveUp answers the requests in flight with code unknown. Their real answers are
// dropped if they come later.
func (c *conn) giveUp(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return
	}
	c.settled = true
	unknown := api.Lost(why)
	ids := make([]uint64, 0, c.inFlight())
	for id := range c.waiting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for range c.anonymous {
		ids = append(ids, 0)
	}
	c.waiting, c.anonymous, c.owed = nil, 0, 0
	for _, id := range ids {
		c.put(api.Failed(id, unknown))
	}
	c.changed.Broadcast()
}

// finish waits for the answers to the requests in flight, sends the reason why
// the connection ends if that is an *api.Error, and closes the connection.
func (c *conn) finish(why error) {
	var last *api.Error
	gone := !errors.As(why, &last) && !errors.Is(why, io.EOF)
	if gone {
		c.kill()
	}
	c.settle(last)
	if !gone {
		c.linger(last)
	}
	_ = c.stream.Close()
}

// settle waits until the requests in flight are answered, for at most
// Limits.Drain, then sends the last message and waits until everything is
// written.
func (c *conn) settle(last *api.Error) {
	late := time.AfterFunc(c.s.limits.Drain, func() {
		c.giveUp("the connection ended before the outcome was known")
	})
	defer late.Stop()
	c.pause()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.dead && c.inFlight() > 0 {
		c.changed.Wait()
	}
	if last != nil {
		c.put(api.Failed(0, last))
	}
	for c.writing {
		c.changed.Wait()
	}
	c.dead = true
	c.s.Budget.Give(c.unsent)
	c.unsent, c.out, c.spare = 0, nil, nil
}

// linger gives the client time to read the last answers before the connection is
// closed.
func (c *conn) linger(last *api.Error) {
	if c.secured != nil {
		_ = c.secured.CloseWrite() // says that this is the end, and that nothing was cut off
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || last == nil || half.CloseWrite() != nil {
		return
	}
	d := lingerShort
	if last.Code == api.BadRequest || last.Code == api.TooLarge || last.Code == api.Denied || last.Code == api.Handshake {
		d = lingerLong
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	_, _ = io.Copy(io.Discard, c.nc)
}
