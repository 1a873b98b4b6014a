package wire

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/loglimit"
	"example.com/raftsteps/shared/core/trust"
)

// Handler carries out one request, which was decoded and checked. It is called on
// the goroutine that reads the connection, so nothing more is read from the
// connection until Handler returns. It must call reply exactly once, now or
// later, from any goroutine. It may keep r; the server sets the ID of the
// response.
type Handler func(r api.Request, reply func(api.Response))

// Server answers clients, and receives messages from peers if it has any. Set its
// fields before Serve is called, and do not change them afterwards.
type Server struct {
	// Ops are the operations that the server understands.
	Ops api.Ops

	// Handler carries out requests.
	Handler Handler

	// Limits bound the resources that clients can use; zero fields have their
	// defaults.
	Limits Limits

	// Access says what clients may do; nil means that they may do everything.
	Access *guard.Guard

	// Budget counts the bytes of answers that are not sent yet. A Handler that
	// keeps requests counts their bytes in it as well. nil means a budget of
	// Limits.ServerBytes.
	Budget *Budget

	// Log receives what an operator should know; nil means that nothing is
	// logged.
	Log *slog.Logger

	// TLS, if it is set, makes the server speak only TLS, with these keys.
	TLS *trust.Keys

	// Peers identifies the peers and receives their messages. nil means that the
	// server has no peers and refuses every hello.
	Peers *Peers

	// HTTP answers connections that do not begin with a line of JSON; nil if
	// the server speaks no HTTP.
	HTTP http.Handler

	// Shared takes over the connections of the peers that begin with its preface;
	// nil if there are none.
	Shared Shared

	accepts *tls.Config
	http    *http.Server
	web     *httpListener
	limits  Limits
	long    *Budget
	log     *slog.Logger
	clients errgroup.Group
	peers   errgroup.Group

	// stopping is true once the server refuses further requests. stoppedAt is the
	// time of that; it is written before stopping.
	stopping  atomic.Bool
	stoppedAt time.Time

	mu       sync.Mutex
	listener net.Listener
	closed   bool

	// conns are the open connections with their kinds; count has how many there
	// are of each kind.
	conns map[*conn]kind
	count [kinds]int

	// from counts the clients by address; newcomers are the connections of that
	// kind, oldest first.
	from      map[string]int
	newcomers []*conn

	// fullNews, helloNews and handshakeNews keep the log short.
	fullNews, helloNews, handshakeNews loglimit.Limit

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

	// newcomer is a connection beyond Limits.Conns, or beyond Limits.PerAddress.
	// It may stay if its first line is a hello. A newer newcomer may take its
	// place, so that no number of clients can keep peers out.
	newcomer

	// peer is a connection whose handshake has succeeded. Each server that knows
	// the secret has at most one, because a second connection ends the first.
	peer

	// refused is a connection that gets the answer that there are too many, on a
	// server without peers, which needs no newcomers.
	refused

	kinds
)

// The shortest time that a newcomer has to say hello; with TLS, its handshake comes
// first. The server accepts no further connection until the newcomer that must make
// room has had this time.
const (
	newcomerTime    = 20 * time.Millisecond
	newcomerTimeTLS = 100 * time.Millisecond
)

// Listen opens a TCP address. The error says what to do about it.
func Listen(address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is in use: stop the program that listens there, or choose another port (%w)", address, withoutAddress(err))
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", address, withoutAddress(err))
	}
	return ln, nil
}

// Serve accepts connections on ln, which it closes, until ctx is done. Then it
// refuses further requests, waits at most Limits.Drain for the answers to those
// in flight, answers the rest with code unknown, closes all connections and
// returns nil. If it ends for another reason, it returns an error. Serve can be
// called once.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.log = s.Log
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.limits = s.Limits.filled()
	s.limits.fitFiles(openFiles(), s.log)
	s.long = NewBudget(s.limits.ServerBytes)
	if s.Budget == nil {
		s.Budget = NewBudget(s.limits.ServerBytes)
	}
	s.mu.Lock()
	s.listener, s.conns, s.from = ln, make(map[*conn]kind), make(map[string]int)
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errors.Join(net.ErrClosed, ln.Close())
	}
	if s.TLS != nil {
		s.accepts = s.TLS.Accept(s.protocols()...)
	}
	s.startHTTP(ln.Addr())
	quit := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer quit()
	err := s.accept(ctx, ln)
	s.stop()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("the server on %s accepts no more connections: %w", ln.Addr(), err)
}

// stop ends the connections: clients first, because their requests may need the
// peers.
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

// Close ends the server at once, without answering the requests in flight. It is
// for a server that must send nothing more. It may be called at any time.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.mu.Unlock()
	s.each(func(c *conn) { c.kill() })
}

// each calls f for every open connection.
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
			s.admit(ctx, nc)
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return err
		}
		// There are too many open files, or a client left before it was accepted.
		// A later call may succeed.
		s.log.Warn("a connection could not be accepted; trying again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// admit starts a connection, as the kind for which there is room.
func (s *Server) admit(ctx context.Context, nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	k := s.kindFor(c)
	var out *conn
	if k == newcomer && len(s.newcomers) >= s.limits.Newcomers {
		out = s.crowded()
	}
	s.mu.Unlock()
	if k != client {
		s.fullNews.Say("", func(before int) {
			s.log.Warn("further clients are refused: the server has reached its limit of clients, or the limit for one address",
				"limit", s.limits.Conns, "per_address", s.limits.PerAddress, "last", nc.RemoteAddr(), "refused_before", before)
		})
	}
	if out != nil {
		s.replace(ctx, out)
	}
	s.mu.Lock()
	if s.closed || k == kinds {
		s.mu.Unlock()
		c.turnAway()
		return
	}
	s.enter(c, k)
	s.mu.Unlock()
	s.clients.Go(func() error {
		c.run(k)
		return nil
	})
}

// kindFor returns the kind of connection for which there is room; kinds if there
// is none. s.mu must be held.
func (s *Server) kindFor(c *conn) kind {
	switch {
	case s.count[client] < s.limits.Conns && (c.address == "" || s.from[c.address] < s.limits.PerAddress):
		return client
	case s.Peers != nil:
		return newcomer
	case s.count[refused] < s.limits.Newcomers:
		return refused
	}
	return kinds
}

// crowded returns the newcomer that must make room for another one: the oldest of
// the address that has the most. s.mu must be held.
func (s *Server) crowded() *conn {
	count := make(map[string]int)
	for _, c := range s.newcomers {
		count[c.address]++
	}
	return slices.MaxFunc(s.newcomers, func(a, b *conn) int { return cmp.Compare(count[a.address], count[b.address]) })
}

// replace ends a newcomer after newcomerTime, if it still is one.
func (s *Server) replace(ctx context.Context, c *conn) {
	least := newcomerTime
	if s.TLS != nil {
		least = newcomerTimeTLS
	}
	select {
	case <-ctx.Done():
	case <-time.After(least - time.Since(c.since)):
	}
	s.mu.Lock()
	still := s.conns[c] == newcomer
	if still {
		s.leave(c) // now, so that crowded does not choose it again
	}
	s.mu.Unlock()
	if still {
		c.turnAway()
		c.kill()
	}
}

// enter counts a connection as of a kind, until leave. s.mu must be held.
func (s *Server) enter(c *conn, k kind) {
	s.conns[c] = k
	s.count[k]++
	switch {
	case k == newcomer:
		s.newcomers = append(s.newcomers, c)
	case k == client && c.address != "":
		s.from[c.address]++
	}
}

func (s *Server) leave(c *conn) {
	k, known := s.conns[c]
	if !known {
		return
	}
	delete(s.conns, c)
	s.count[k]--
	switch {
	case k == newcomer:
		s.newcomers = slices.DeleteFunc(s.newcomers, func(n *conn) bool { return n == c })
	case k == client && c.address != "":
		if s.from[c.address]--; s.from[c.address] == 0 {
			delete(s.from, c.address)
		}
	}
}

// becomePeer changes the kind of an open connection to peer.
func (s *Server) becomePeer(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; open {
		s.leave(c)
		s.enter(c, peer)
	}
}

// forget drops a connection that has ended.
func (s *Server) forget(c *conn) {
	c.in.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(c)
}

// fault tells one error of the other side from others, for the log: the address and what
// is wrong. The port is left out, because it is another one each time.
func (c *conn) fault(err error) string {
	return addressOf(c.nc.RemoteAddr()) + " " + withoutAddress(err).Error()
}

// addressOf returns the address to which a connection counts: the whole IPv4
// address, or the first 64 bits of an IPv6 address, because one host can choose
// the other bits. "" means that the connection does not use IP.
func addressOf(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is6() {
		prefix, _ := ip.WithZone("").Prefix(64) // cannot fail for an IPv6 address
		return prefix.String()
	}
	return ip.String()
}

// Batch calls f. Answers that are given meanwhile are sent after f returns, with
// one write per connection. Only one goroutine may call Batch at a time.
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

// flush makes another goroutine write the answers of c. The caller has set
// c.writing, so c waits for it before it ends.
func (s *Server) flush(c *conn) {
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	if s.batch.open {
		s.batch.ready = append(s.batch.ready, c)
		return
	}
	s.clients.Go(c.flushTask)
}
