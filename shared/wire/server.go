package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/api"
)

// Handler carries out one request, which was decoded and checked. It is called
// on the goroutine that reads the connection, so nothing more is read from it
// until Handler returns. It must call reply exactly once, at once or later, from
// any goroutine. It may keep r; the response gets the request's ID by itself.
type Handler func(r api.Request, reply func(api.Response))

// Server answers clients, and takes messages from peers if it has any. Its
// fields are set before Serve is called and not changed afterwards.
type Server struct {
	// Ops are the operations that the server understands.
	Ops api.Ops

	// Handler carries out requests.
	Handler Handler

	// Limits bound what clients can cost; zero fields have their defaults.
	Limits Limits

	// Log takes what an operator should know; nil means nobody reads it.
	Log *slog.Logger

	// Peers says who the peers are and takes their messages. nil means that
	// there are none: a hello is refused.
	Peers *Peers

	// HTTP answers connections that do not begin with a line of JSON; nil if
	// the server speaks no HTTP.
	HTTP http.Handler

	http    *http.Server
	web     *httpListener
	limits  Limits
	log     *slog.Logger
	clients errgroup.Group
	peers   errgroup.Group

	// stopping is set once the server takes no more requests. stoppedAt is when
	// that was; it is written before.
	stopping  atomic.Bool
	stoppedAt time.Time

	mu       sync.Mutex
	listener net.Listener
	closed   bool

	// conns are the open connections; the value is what each counts as.
	conns map[*conn]kind
	count [kinds]int

	// lastFull is when the log last said that there are too many clients.
	lastFull time.Time

	batch struct {
		mu   sync.Mutex
		open bool

		// ready are the connections with answers that wait for the batch's end.
		ready []*conn
	}
}

// kind is what a connection counts as.
type kind int

const (
	// client is a connection within Limits.Conns.
	client kind = iota

	// newcomer is one beyond: it may stay if its first line is a hello. So
	// clients, however many, cannot keep peers out.
	newcomer

	// peer is a connection that said hello.
	peer

	// refused is one that is being told that there are too many.
	refused

	kinds
)

// most is how many connections of a kind there may be at once. Peers are
// bounded by who knows the secret: a second connection of one ends the first.
func (s *Server) most(k kind) int {
	switch {
	case k == client:
		return s.limits.Conns
	case k == newcomer && s.Peers == nil:
		return 0
	default:
		return 64
	}
}

// Listen opens a TCP address. The error says what to do about it.
func Listen(address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is in use: stop the program that listens there, or choose another port (%w)", address, err)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return ln, nil
}

// Serve accepts connections on ln, which it closes, until ctx is done. Then it
// takes no more requests, lets those in flight be answered for at most
// Limits.Drain (what is open after that is answered with code unknown), closes
// all connections and returns nil. Any other end is an error. Serve can be
// called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.limits = s.Limits.filled()
	s.log = s.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.mu.Lock()
	s.listener, s.conns = ln, make(map[*conn]kind)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errors.Join(net.ErrClosed, ln.Close())
	}
	s.startHTTP(ln.Addr())
	quit := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer quit()
	err := s.accept(ctx, ln)
	s.stop()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("the server on %s takes no more connections: %w", ln.Addr(), err)
}

// stop ends the connections: clients first, for what they wait for may need
// the peers.
func (s *Server) stop() {
	s.stoppedAt = time.Now()
	s.stopping.Store(true)
	s.each(func(c *conn) { c.wakeReader() })
	late := time.AfterFunc(s.limits.Drain, func() {
		s.each(func(c *conn) { c.giveUp("the server stopped before the outcome was known") })
	})
	end := time.AfterFunc(s.limits.Drain+lingerLong, s.Close)
	s.stopHTTP()
	_ = s.clients.Wait()
	late.Stop()
	end.Stop()
	s.Close()
	_ = s.peers.Wait()
}

// Close ends the server at once: nothing more is answered. It is for a server
// that must not say another word, and may be called at any time.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.mu.Unlock()
	s.each(func(c *conn) { c.kill() })
}

// each calls f for every connection there is.
func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}

func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = shortest
			s.admit(nc)
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return err
		}
		// Too many open files, or a client that left while it waited: both pass.
		s.log.Warn("a connection could not be accepted; trying again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// admit starts a connection, as what there is room for.
func (s *Server) admit(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	k := client
	for k < kinds && (k == peer || s.count[k] >= s.most(k)) {
		k++
	}
	if s.closed || k == kinds {
		s.mu.Unlock()
		c.turnAway()
		return
	}
	s.conns[c] = k
	s.count[k]++
	tell := k != client && time.Since(s.lastFull) > time.Second
	if tell {
		s.lastFull = time.Now()
	}
	s.mu.Unlock()
	if tell {
		s.log.Warn("too many clients are connected; further ones are refused", "limit", s.limits.Conns)
	}
	s.clients.Go(func() error {
		c.run(k)
		return nil
	})
}

// becomePeer counts a connection as that of a peer.
func (s *Server) becomePeer(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[s.conns[c]]--
	s.conns[c] = peer
	s.count[peer]++
}

// forget drops a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[s.conns[c]]--
	delete(s.conns, c)
}

// Batch calls f. Answers given meanwhile leave when it returns, with one write
// for each connection. Only one goroutine may call Batch at a time.
func (s *Server) Batch(f func()) {
	s.batch.mu.Lock()
	s.batch.open = true
	s.batch.mu.Unlock()

	f()

	s.batch.mu.Lock()
	s.batch.open = false
	ready := s.batch.ready
	for i, c := range ready {
		s.clients.Go(c.flushTask)
		ready[i] = nil
	}
	s.batch.ready = ready[:0]
	s.batch.mu.Unlock()
}

// flush lets the answers of c be written by another goroutine. c.writing was
// set by the caller, so c waits for it before it ends.
func (s *Server) flush(c *conn) {
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	if s.batch.open {
		s.batch.ready = append(s.batch.ready, c)
		return
	}
	s.clients.Go(c.flushTask)
}
