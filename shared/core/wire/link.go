package wire

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/peers"
)

// LinkOptions are the options of a Link.
type LinkOptions struct {
	// Self is this server.
	Self Identity

	// To is the peer's ID, and Address is the address where it listens. Also is
	// another address where it may listen, "" if there is none; the link tries
	// the two in turn.
	To      uint64
	Address string
	Also    string

	// Dial opens a connection to an address; nil means a TCP connection.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// TLS, if it is set, is used to speak TLS, in place of the keys of Self: by a
	// program that is no server and only probes.
	TLS *tls.Config

	// Lost is called for messages that are lost, except for those that were on
	// their way when a connection broke, whose number is unknown. It must not
	// wait, and must be safe for concurrent use; nil does nothing.
	Lost func(why peers.Loss, count int)

	// Limits bound the queue and the time to connect; zero fields have their
	// defaults.
	Limits Limits

	// Log receives what an operator should know; nil means that nothing is
	// logged.
	Log *slog.Logger
}

// Link carries messages to one peer, in one direction, over a connection that it
// opens again whenever the connection breaks. It does not guarantee delivery:
// messages are lost when the connection breaks, while there is none, and when the
// queue is full.
//
// A full queue drops its oldest messages. The newest are the most useful to the
// peer: they carry the latest term and the latest commit index, and the sender
// learns from the peer's answer which entries are missing before them. For the
// same reason the link empties the queue when an attempt to connect fails: a peer
// that starts again should not have to read old messages first.
type Link struct {
	o      LinkOptions
	limits Limits
	log    *slog.Logger

	// elsewhere is true while the link tries the address Also.
	elsewhere bool

	// agreed is the version of the protocol on the latest connection; before the first
	// one, the newest that this server can use.
	agreed uint64

	// dial opens a connection to the peer.
	dial func(ctx context.Context) (net.Conn, error)

	// wake signals that the queue is not empty.
	wake chan struct{}

	mu    sync.Mutex
	queue [][]byte
	bytes int
}

// NewLink returns a link. It connects once Run is called.
func NewLink(o LinkOptions) *Link {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lost == nil {
		o.Lost = func(peers.Loss, int) {}
	}
	l := &Link{o: o, limits: o.Limits.filled(), log: o.Log.With("peer", o.To), wake: make(chan struct{}, 1)}
	l.dial = func(ctx context.Context) (net.Conn, error) {
		if o.Dial != nil {
			return o.Dial(ctx, l.address())
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.address())
	}
	return l
}

// secure speaks TLS on a connection, if it should be spoken.
func (l *Link) secure(ctx context.Context, nc net.Conn) (net.Conn, error) {
	config := l.o.TLS
	switch {
	case config != nil:
	case l.o.Self.Keys != nil:
		config = l.o.Self.Keys.Dial(l.o.To)
	default:
		return nc, nil
	}
	c, err := speakTLS(ctx, nc, config)
	switch {
	case plainAnswer(err):
		return nil, errors.New(`the peer speaks no TLS: write the same "tls" into the cluster.json of every server`)
	case errors.Is(err, io.EOF):
		return nil, errHungUp
	}
	return c, err
}

// address returns the address that the link tries now.
func (l *Link) address() string {
	if l.elsewhere {
		return l.o.Also
	}
	return l.o.Address
}

// Send puts one message, without a newline, into the queue. It never waits. It
// returns false if it had to drop messages: this one, if it is longer than
// Limits.PeerLine allows, or else older ones. The caller must not change line
// afterwards. Send is safe for concurrent use.
func (l *Link) Send(line []byte) bool {
	if len(line)+sealed > l.limits.PeerLine {
		l.o.Lost(peers.LostTooLong, 1)
		l.log.Error("a message is too long for a peer and was dropped", "bytes", len(line), "limit", l.limits.PeerLine)
		return false
	}
	l.mu.Lock()
	l.queue = append(l.queue, line)
	l.bytes += len(line)
	drop := 0
	for len(l.queue)-drop > l.limits.QueueLines || l.bytes > l.limits.QueueBytes && len(l.queue)-drop > 1 {
		l.bytes -= len(l.queue[drop])
		l.queue[drop] = nil
		drop++
	}
	l.queue = l.queue[drop:]
	l.mu.Unlock()
	if drop > 0 {
		l.o.Lost(peers.LostFull, drop)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return drop == 0
}

// clear empties the queue, because there is no connection.
func (l *Link) clear() {
	l.mu.Lock()
	n := len(l.queue)
	l.queue, l.bytes = nil, 0
	l.mu.Unlock()
	if n > 0 {
		l.o.Lost(peers.LostUnreachable, n)
	}
}

// take moves messages from the queue into b, each after its MAC, until b has size
// bytes or the queue is empty.
func (l *Link) take(b []byte, size int, messages *seal) []byte {
	l.mu.Lock()
	n, sum := 0, len(b)
	for n < len(l.queue) && sum < size {
		sum += len(l.queue[n])
		l.bytes -= len(l.queue[n])
		n++
	}
	lines := l.queue[:n:n]
	l.queue = l.queue[n:]
	l.mu.Unlock()
	for i, line := range lines { // outside the lock: MACs take time
		b = messages.append(b, line)
		lines[i] = nil
	}
	return b
}

// patience is how long a peer may be away before the link logs it: servers that
// start together do not find each other at once, and servers that stop together
// do not end at the same moment.
const patience = time.Second

// errHungUp says that the peer has closed the connection.
var errHungUp = errors.New("the peer has closed the connection")

// away reports whether an error only means that the peer is not running.
func away(err error) bool {
	for _, sign := range []error{errHungUp, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}

// Run keeps the link connected until ctx is done, and returns nil then.
func (l *Link) Run(ctx context.Context) error {
	defer l.clear()
	var told string // the last error that was logged, so that it is not repeated
	began := time.Now()
	l.agreed = l.o.Self.versions().Newest
	pause := l.limits.Backoff[0]
	for ctx.Err() == nil {
		before := l.agreed
		c, messages, err := l.connect(ctx, l.shakeHands)
		if err == nil {
			level := slog.LevelDebug
			if l.agreed != before { // one of the two was upgraded, or is still to be
				level = slog.LevelInfo
			}
			l.log.Log(ctx, level, "connected to a peer", "address", l.address(), "version", l.agreed)
			pause, told = l.limits.Backoff[0], ""
			err = l.carry(ctx, c, messages)
			began = time.Now()
		} else {
			l.clear()
		}
		if ctx.Err() != nil {
			break
		}
		var no *api.Error
		refused := errors.As(err, new(refusal))
		if errors.As(err, &no) || refused { // the next attempt will probably fail in the same way
			pause = l.limits.Backoff[1]
		}
		level := slog.LevelWarn
		if away(err) {
			level = slog.LevelInfo
		}
		if err.Error() != told && !refused && !(away(err) && time.Since(began) < patience) {
			told = err.Error()
			l.log.Log(ctx, level, "no connection to a peer; trying again", "address", l.address(), "error", err)
		}
		l.elsewhere = l.o.Also != "" && !l.elsewhere
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)): // jitter: servers that start together do not dial in step
		}
		pause = min(2*pause, l.limits.Backoff[1])
	}
	return nil
}

// connect dials and shakes hands. An *api.Error is the peer's refusal.
func (l *Link) connect(ctx context.Context, shakeHands func(net.Conn) (*seal, error)) (net.Conn, *seal, error) {
	if l.o.Self.Secret == "" {
		return nil, nil, errors.New("this server has no secret for its cluster, so no peer can trust it; set one in the cluster's configuration")
	}
	ctx, cancel := context.WithTimeout(ctx, l.limits.Dial)
	defer cancel()
	c, err := l.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	if c, err = l.secure(ctx, c); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	messages, err := shakeHands(c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	if !stop() {
		return nil, nil, errors.Join(context.Cause(ctx), c.Close())
	}
	return c, messages, nil
}

// shakeHands is the dialer's side of the handshake. The seal is for the messages
// that follow.
func (l *Link) shakeHands(c net.Conn) (*seal, error) {
	h := l.hello()
	h.start = l.o.Self.Start
	w, nonce, err := l.greet(c, &h)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(l.o.Self.own(l.o.To, w.known), l.o.Self.admit(l.o.To, w.disk)); err != nil {
		return nil, err
	}
	if w.refused != "" {
		return nil, fmt.Errorf("the peer refuses: %w", &api.Error{Code: api.BadRequest, Definite: true, Message: w.refused})
	}
	l.agreed = h.agreed
	return h.seal(l.o.Self.Secret, nonce)
}

// hello returns what this server says first.
func (l *Link) hello() hello {
	self := l.o.Self
	can := self.versions()
	h := hello{version: can.Newest, cluster: self.Cluster, from: self.ID, to: l.o.To, address: self.Address, nonce: newNonce()}
	if can.Oldest != can.Newest {
		h.oldest = can.Oldest
	}
	h.disk, h.known = self.disks(l.o.To)
	return h
}

// greet is the handshake up to the peer's proof: if it returns no error, both sides
// have proved who they are. It sets h.agreed.
func (l *Link) greet(c net.Conn, h *hello) (w welcome, nonce []byte, err error) {
	in := lines{r: c, limit: maxHello}
	response, err := ask(c, &in, h.appendJSON(nil))
	if err != nil {
		return w, nil, err
	}
	answer, err := decodeChallenge(response.Data)
	if err != nil {
		return w, nil, fmt.Errorf("n%d did not answer the hello: %w", l.o.To, err)
	}
	can := l.o.Self.versions()
	if h.agreed = answer.version; !can.Has(h.agreed) {
		return w, nil, fmt.Errorf("n%d wants to use version %d of the peers' protocol, and this server can use %v", l.o.To, h.agreed, can)
	}
	response, err = ask(c, &in, fmt.Appendf(nil, `{"proof":"%x"}`, h.proof(dialer, l.o.Self.Secret, answer.nonce, w)))
	if err != nil {
		return w, nil, err
	}
	w, proof, err := decodeWelcome(response.Data)
	if err != nil {
		return w, nil, fmt.Errorf("n%d did not prove who it is: %w", l.o.To, err)
	}
	if !hmac.Equal(proof, h.proof(acceptor, l.o.Self.Secret, answer.nonce, w)) {
		return w, nil, fmt.Errorf("the server at %s does not know the secret of cluster %q", l.address(), l.o.Self.Cluster)
	}
	return w, answer.nonce, nil
}

// Probe checks whether the server at o.Address is the one that o describes: the
// server o.To of the cluster of o.Self. It returns nil if the server has proved
// this, and otherwise an error that says what is wrong, within o.Limits.Dial. It
// changes nothing on that server.
func Probe(ctx context.Context, o LinkOptions) error {
	l := NewLink(o)
	c, _, err := l.connect(ctx, func(c net.Conn) (*seal, error) {
		h := l.hello()
		h.probe = true
		_, _, err := l.greet(c, &h)
		return nil, err
	})
	if err != nil {
		return err
	}
	return c.Close()
}

// ask sends one line of the handshake and reads the answer.
func ask(c net.Conn, in *lines, line []byte) (api.Response, error) {
	if _, err := c.Write(append(line, '\n')); err != nil {
		return api.Response{}, err
	}
	for {
		line, ok, err := in.next()
		if ok {
			answer, err := api.DecodeResponse(line)
			if err == nil && answer.Error != nil {
				return api.Response{}, fmt.Errorf("the peer refuses: %w", answer.Error)
			}
			return answer, err
		}
		if err == nil {
			err = in.fill()
		}
		if errors.Is(err, io.EOF) {
			err = errHungUp
		}
		if err != nil {
			return api.Response{}, err
		}
	}
}

// carry sends the messages in the queue until the connection ends.
func (l *Link) carry(ctx context.Context, c net.Conn, messages *seal) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.listen(c) })
	g.Go(func() error { return l.send(ctx, c, messages) })
	g.Go(func() error {
		<-ctx.Done()
		return c.Close()
	})
	return g.Wait()
}

// listen returns when the connection ends. The peer sends nothing on it, except
// for the reason why it closes the connection.
func (l *Link) listen(c net.Conn) error {
	_, err := ask(nothing{c}, &lines{r: c, limit: maxHello}, nil)
	if err == nil {
		err = errors.New("the peer sent a message on a connection that carries messages only to the peer")
	}
	return err
}

// nothing is a connection on which writing does nothing.
type nothing struct{ net.Conn }

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

// send writes batches of messages, and from time to time an empty line if there
// are none, so that the peer does not close the connection as idle.
func (l *Link) send(ctx context.Context, c net.Conn, messages *seal) error {
	const batch = 256 << 10
	quiet := time.NewTicker(max(l.limits.Idle/3, time.Millisecond))
	defer quiet.Stop()
	by := deadline{set: c.SetWriteDeadline}
	var b []byte
	for {
		b = l.take(b[:0], batch, messages)
		if len(b) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.wake:
				continue
			case <-quiet.C:
				b = append(b, '\n')
			}
		}
		by.within(time.Now(), l.limits.Write)
		if _, err := c.Write(b); err != nil {
			return err
		}
		if cap(b) > 2*batch {
			b = nil
		}
	}
}
