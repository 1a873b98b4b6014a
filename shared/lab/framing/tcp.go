package framing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport/tcp"
	"example.com/raftsteps/shared/core/wire"
	"example.com/raftsteps/shared/lab/sim"
)

func (c *carrier) startTCP(s *server, log *slog.Logger) {
	s.disks = &disks{s: s, known: make(map[uint64]disk.Incarnation)}
	s.listener = &listener{s: s, conns: make(chan *end, 1024), closed: make(chan struct{})}
	self := wire.Identity{Cluster: "sim", Secret: secret, ID: s.id, Address: sim.Address(s.id), Disks: s.disks, Start: rand.Uint64()}
	t := tcp.New(self, wire.Limits{}, log, func(from uint64, line []byte) { c.receive(s, from, line) })
	t.Dial = func(ctx context.Context, address string) (net.Conn, error) { return c.dial(ctx, s, address) }
	door := &wire.Server{Ops: api.Commands(), Log: log, Peers: t.Peers()}
	s.transport = t
	s.kill = func() {
		door.Close()
		_ = s.listener.Close()
		for _, m := range s.streams {
			m.killed(s)
		}
	}
	s.run = func(ctx context.Context) {
		var both sync.WaitGroup
		both.Go(func() {
			if err := t.Run(ctx, nil); ctx.Err() == nil {
				c.failed(s, err)
			}
		})
		both.Go(func() {
			if err := door.Serve(ctx, s.listener); ctx.Err() == nil {
				c.failed(s, err)
			}
		})
		both.Wait()
	}
}

// disks is the wire.Disks of a server. In a chaos, no server loses its disk.
type disks struct {
	s   *server
	own disk.Incarnation

	mu    sync.Mutex
	known map[uint64]disk.Incarnation
}

func (d *disks) Own() disk.Incarnation { return d.own }

func (d *disks) Known(id uint64) disk.Incarnation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[id]
}

func (d *disks) Admit(id uint64, now disk.Incarnation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known, ok := d.known[id]; ok && known != now {
		return fmt.Errorf("%s has disk %v, and before %v", node.Name(id), now, known)
	}
	d.known[id] = now
	return nil
}

func (d *disks) Disowned(by uint64, known disk.Incarnation) {
	d.s.c.failed(d.s, fmt.Errorf("%s knows it with disk %v", node.Name(by), known))
}

// listener is the port of a server.
type listener struct {
	s      *server
	conns  chan *end
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return addressOf(l.s.id) }

// The times of a simulated TCP. A piece that is lost is sent again after resend, a request
// to connect after redial. A connection breaks if a piece does not get through for a
// time between shortest and longest, in half of the connections for shortest. In real
// systems it is a quarter of an hour.
const (
	resend   = 200 * time.Millisecond
	redial   = time.Second
	shortest = 100 * time.Millisecond
	longest  = 2 * time.Second

	// window is how many bytes may be on their way before a writer waits.
	window = 128 << 10

	// breaks is the share of losses that break the connection.
	breaks = 0.3

	// mostForged is the highest probability that somebody on the way changes a line. It
	// is the mean of the probabilities that the network repeats and reorders, if that is
	// less: each change ends the connection.
	mostForged = 0.01
)

// dialing is a connection that is being opened.
type dialing struct {
	done chan struct{}
	conn *end
	err  error

	// gone is true once nobody waits for it.
	gone bool
}

// dial opens a connection. It is called by a transport.
func (c *carrier) dial(ctx context.Context, s *server, address string) (net.Conn, error) {
	d := &dialing{done: make(chan struct{})}
	if !c.post(s, func() { c.syn(s, c.idAt(address), d) }) {
		return nil, net.ErrClosed
	}
	select {
	case <-d.done:
		if d.err != nil {
			return nil, d.err
		}
		return d.conn, nil
	case <-ctx.Done():
		c.post(s, func() {
			if d.gone = true; d.conn != nil {
				d.conn.reset(net.ErrClosed)
				d.conn.other().tellReset()
			}
		})
		return nil, ctx.Err()
	}
}

// syn is called when a server wants to connect to a machine.
func (c *carrier) syn(s *server, to uint64, d *dialing) {
	if d.gone || c.servers[s.id] != s {
		return
	}
	n, passes := c.path(s.id, to)
	rng := c.rand(s.id, to)
	again := func() { c.syn(s, to, d) }
	if !passes || chance(rng, n.Loss) {
		c.w.After(redial, again)
		return
	}
	c.w.After(between(rng, n.Delay[0], n.Delay[1]), func() {
		other := c.servers[to]
		switch {
		case d.gone || c.servers[s.id] != s:
			return
		case !c.w.Passes(s.id, to) || !c.w.Passes(to, s.id) || other == nil && rng.IntN(2) == 0:
			c.w.After(redial, again)
			return
		case other == nil:
			d.err = syscall.ECONNREFUSED
		default:
			d.conn = c.connect(s, other, rng)
		}
		c.w.After(between(rng, n.Delay[0], n.Delay[1]), func() {
			close(d.done)
			c.stirred = true
		})
	})
}

// stream is a connection. The side that dialed is the first of its ends.
type stream struct {
	c      *carrier
	number uint64
	ends   [2]*end
	rng    *rand.Rand

	// silent is true if a server that goes down does not tell the other side.
	// patience is how long a piece may be on its way.
	silent   bool
	patience time.Duration

	// frames are the messages that the first side has written and that were not
	// delivered. framed is how many it has written, got how many were delivered.
	frames      [][]byte
	framed, got int

	// forged is true once somebody has changed something; from the message with the
	// number limit on, nothing may be delivered then. old is an earlier line and
	// held one that comes later than it should.
	forged, over bool
	limit        int
	old, held    []byte

	// half is true if the last piece that has arrived does not end with a line, and
	// joined if the one before it did not.
	half, joined bool
}

// connect opens a connection.
func (c *carrier) connect(from, to *server, rng *rand.Rand) *end {
	c.connections++
	m := &stream{c: c, number: c.connections, rng: rng, silent: rng.IntN(2) == 0, patience: shortest}
	if rng.IntN(2) == 0 {
		m.patience = between(rng, shortest, longest)
	}
	for i, s := range []*server{from, to} {
		e := &end{m: m, s: s, i: i}
		e.changed.L = &e.mu
		m.ends[i] = e
		s.streams = append(s.streams, m)
	}
	select {
	case to.listener.conns <- m.ends[1]:
		c.stirred = true
	default:
		panic("nobody accepts connections")
	}
	return m.ends[0]
}

// killed is called when one of the two servers goes down.
func (m *stream) killed(s *server) {
	for i, e := range m.ends {
		if e.s == s {
			e.reset(net.ErrClosed)
			if o := m.ends[1-i]; !m.silent {
				o.tellReset()
			} else if o.ok() {
				m.c.counts[halfOpen]++
			}
		}
	}
}

// ended counts a connection that somebody on the way has changed, when one side has
// ended it.
func (m *stream) ended() {
	if m.forged && !m.over {
		m.over = true
		m.c.counts[refused]++
	}
}

// accepted checks a message that was delivered: it must be the next one.
func (m *stream) accepted(b []byte) error {
	to, from := m.ends[1].s, m.ends[0].s
	switch {
	case m.forged && m.got >= m.limit:
		return fmt.Errorf("%s accepts message %d of a connection from %s, although somebody has changed something before it: %.200q", node.Name(to.id), m.got+1, node.Name(from.id), b)
	case len(m.frames) == 0 || !bytes.Equal(m.frames[0], b):
		return fmt.Errorf("%s accepts %.200q as message %d of a connection from %s, which is another one", node.Name(to.id), b, m.got+1, node.Name(from.id))
	}
	m.frames = m.frames[1:]
	m.got++
	return nil
}

// inPieces reports whether the line that was delivered last came in several pieces.
func (m *stream) inPieces() bool {
	several := m.joined
	m.joined = false // the other lines of the piece are whole
	return several
}

// macLen is the length of what a message has before it: its MAC and a space.
const macLen = 33

// isMessage reports whether a line is a message, and not a part of the handshake or an
// empty line.
func isMessage(line []byte) bool { return len(line) > macLen && line[0] != '{' }

// written is called when a side has written something, which is made of whole lines.
func (m *stream) written(e *end, b []byte) {
	c := m.c
	n, _ := c.path(e.s.id, m.ends[1-e.i].s.id)
	sent, p := b, min(mostForged, (n.Duplicate+n.Reorder)/2)
	if e.i == 0 {
		sent = m.forge(bytes.SplitAfter(b, []byte("\n")), p)
	} else if m.framed == 0 && !m.forged && chance(m.rng, p) {
		// What this side says is a part of the handshake.
		m.forged, m.limit = true, 0
		c.counts[forged]++
		sent = damagedLine(m.rng, b)
	}
	if len(sent) == 0 {
		e.release(len(b))
	}
	for len(sent) > 0 {
		p := piece{b: sent, frees: len(b)}
		if m.rng.IntN(4) == 0 {
			p.b = sent[:1+m.rng.IntN(len(sent))]
		}
		if sent = sent[len(p.b):]; len(sent) > 0 {
			p.frees = 0
		}
		e.push(p, n)
	}
}

// forge returns the lines as they go on, and records the messages among them. With
// probability p, somebody on the way changes something.
func (m *stream) forge(all [][]byte, p float64) (sent []byte) {
	if len(all[len(all)-1]) == 0 {
		all = all[:len(all)-1] // SplitAfter adds an empty rest
	}
	for _, line := range all {
		at := m.framed
		if isMessage(line) {
			m.framed++
			m.frames = append(m.frames, line[macLen:len(line)-1])
		}
		held := m.held
		m.held = nil
		switch {
		case m.forged || len(line) == 1 || !chance(m.rng, p):
			sent = append(sent, line...)
		default:
			m.forged, m.limit = true, at
			m.c.counts[forged]++
			switch m.rng.IntN(5) {
			case 0: // it comes twice
				sent = append(append(sent, line...), line...)
				m.limit = m.framed
			case 1: // it comes after an old one
				sent = append(append(sent, m.old...), line...)
				if len(m.old) == 0 {
					m.forged = false
					m.c.counts[forged]--
				}
			case 2: // it does not come
			case 3: // it comes after the next one
				m.held = line
			case 4:
				sent = append(sent, damagedLine(m.rng, line)...)
			}
		}
		sent = append(sent, held...)
		if isMessage(line) && (m.old == nil || m.rng.IntN(8) == 0) {
			m.old = line
		}
	}
	return sent
}

// damagedLine changes one bit. It is the lowest of a byte, because another one may only
// make a hexadecimal digit a capital.
func damagedLine(rng *rand.Rand, line []byte) []byte {
	b := bytes.Clone(line)
	b[rng.IntN(len(b))] ^= 1
	return b
}

// end is one side of a connection, as its server sees it. It is a net.Conn.
type end struct {
	m *stream
	s *server
	i int

	// What the network knows: the pieces on their way from this side, and since
	// when the first of them cannot get through.
	flow  []piece
	stuck time.Duration
	late  time.Duration

	mu      sync.Mutex
	changed sync.Cond

	// in has arrived and was not read; eof is true if nothing follows. broken is
	// why the connection is of no further use, and closed is true once this side
	// has closed it; shut once this side sends no more.
	in           []byte
	eof          bool
	broken       error
	closed, shut bool

	// flying is how many bytes this side has written that have not arrived.
	flying int

	readBy, writeBy time.Time
}

// piece is a part of what is on its way. last is true if nothing follows, and frees is
// how many bytes may be written once it has arrived.
type piece struct {
	at    time.Duration
	b     []byte
	frees int
	last  bool
}

func (e *end) Read(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case e.broken != nil:
			return 0, e.broken
		case len(e.in) > 0:
			n := copy(b, e.in)
			e.in = e.in[n:]
			return n, nil
		case e.eof:
			return 0, io.EOF
		case past(e.readBy):
			return 0, os.ErrDeadlineExceeded
		}
		e.changed.Wait()
	}
}

func (e *end) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		switch {
		case e.closed || e.shut:
			return 0, net.ErrClosed
		case e.broken != nil:
			return 0, e.broken
		case past(e.writeBy):
			return 0, os.ErrDeadlineExceeded
		case e.flying < window:
			e.flying += len(b)
			sent := bytes.Clone(b)
			if !e.s.c.post(e.s, func() { e.m.written(e, sent) }) {
				return 0, net.ErrClosed
			}
			return len(b), nil
		}
		e.changed.Wait()
	}
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Close ends both directions.
func (e *end) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	e.finish()
	return nil
}

// CloseWrite says that this side sends no more.
func (e *end) CloseWrite() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.broken != nil {
		return net.ErrClosed
	}
	e.finish()
	return nil
}

// finish tells the other side that nothing follows. e.mu must be held.
func (e *end) finish() {
	if !e.shut && e.broken == nil {
		e.s.c.post(e.s, func() {
			e.m.ended()
			n, _ := e.s.c.path(e.s.id, e.other().s.id)
			e.push(piece{last: true}, n)
		})
	}
	e.shut = true
	e.changed.Broadcast()
}

func (e *end) LocalAddr() net.Addr  { return addressOf(e.s.id) }
func (e *end) RemoteAddr() net.Addr { return addressOf(e.other().s.id) }

// SetDeadline is net.Conn.SetDeadline.
func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t) // it never fails
	return e.SetWriteDeadline(t)
}

// SetReadDeadline is net.Conn.SetReadDeadline.
func (e *end) SetReadDeadline(t time.Time) error { return e.setDeadline(&e.readBy, t) }

// SetWriteDeadline is net.Conn.SetWriteDeadline.
func (e *end) SetWriteDeadline(t time.Time) error { return e.setDeadline(&e.writeBy, t) }

func (e *end) setDeadline(by *time.Time, t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	*by = t
	e.changed.Broadcast()
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), e.awake)
	}
	return nil
}

func (e *end) awake() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed.Broadcast()
}

func (e *end) other() *end { return e.m.ends[1-e.i] }

// reset makes the connection useless for this side.
func (e *end) reset(why error) {
	e.flow = nil
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken == nil {
		e.broken = why
	}
	e.changed.Broadcast()
	e.s.c.stirred = true
}

func (e *end) isBroken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.broken != nil
}

// ok reports whether this side still uses the connection.
func (e *end) ok() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.broken == nil && !e.closed
}

// tellReset lets this side know, if the network does, that the other side has no such
// connection.
func (e *end) tellReset() {
	c := e.s.c
	n, passes := c.path(e.other().s.id, e.s.id)
	if !passes || chance(e.m.rng, n.Loss) {
		return
	}
	c.w.After(between(e.m.rng, n.Delay[0], n.Delay[1]), func() {
		if c.w.Passes(e.other().s.id, e.s.id) {
			e.reset(syscall.ECONNRESET)
		}
	})
}

// release makes room for a writer.
func (e *end) release(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flying -= n
	e.changed.Broadcast()
}

// push sends a piece.
func (e *end) push(p piece, n sim.Network) {
	c, m := e.s.c, e.m
	if e.isBroken() {
		return
	}
	c.counts[frames]++
	p.at = max(c.w.Now()+between(m.rng, n.Delay[0], n.Delay[1]), e.late+1)
	if chance(m.rng, n.Loss) {
		if chance(m.rng, breaks) {
			c.counts[broken]++
			for _, side := range m.ends {
				side.reset(syscall.ECONNRESET)
			}
			return
		}
		c.counts[stalled]++
		p.at += resend
	}
	e.late = p.at
	if e.flow = append(e.flow, p); len(e.flow) == 1 {
		c.w.After(p.at-c.w.Now(), e.pump)
	}
}

// pump is called when the first piece on its way from this side is due.
func (e *end) pump() {
	if len(e.flow) == 0 {
		return // it broke
	}
	c, o, m := e.s.c, e.other(), e.m
	up := c.servers[o.s.id]
	switch {
	case !c.w.Passes(e.s.id, o.s.id) || up == nil && m.silent:
		if now := c.w.Now(); e.stuck == 0 {
			e.stuck = now
			c.counts[stalled]++
		} else if now-e.stuck > m.patience {
			c.counts[broken]++
			if o.ok() {
				c.counts[halfOpen]++
			}
			e.reset(syscall.ETIMEDOUT)
			return
		}
		c.w.After(resend, e.pump)
		return
	case up == o.s && c.w.Paused(o.s.id):
		c.w.After(pausedPoll, e.pump) // it reads nothing
		return
	}
	e.stuck = 0
	if !o.ok() {
		e.flow = nil
		e.tellReset()
		return
	}
	p := e.flow[0]
	e.release(p.frees)
	e.flow = e.flow[1:]
	if len(e.flow) > 0 {
		c.w.After(max(1, e.flow[0].at-c.w.Now()), e.pump)
	}
	if e.i == 0 {
		m.joined, m.half = m.half, !bytes.HasSuffix(p.b, []byte("\n"))
	}
	c.arriving = arriving{session: session{o.s.id, o.s.life, m.number}, stream: m}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.in = append(o.in, p.b...)
	o.eof = o.eof || p.last
	o.changed.Broadcast()
	c.stirred = true
}
