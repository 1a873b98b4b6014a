package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/raftsteps/shared/core/api"
)

// How the client goes from server to server.
const (
	// attemptTimeout is how long one server may take before another is asked.
	attemptTimeout = time.Second

	// minPause and maxPause bound the wait after a server that could not help,
	// so that a cluster in trouble is not flooded as well.
	minPause = 5 * time.Millisecond
	maxPause = 80 * time.Millisecond

	// maxHops is how many redirects are followed in a row. Servers that are out
	// of date may send a client round in a circle that the leader is not in.
	maxHops = 2
)

// attempt is one request on its way from server to server.
type attempt struct {
	c *Client

	// at is the server to ask next.
	at *connection

	// turn is the last server that was asked because it was its turn, and hops
	// counts the redirects that were followed since.
	turn *connection
	hops int

	// pause grows with every try, and wait is drawn from it: how long to wait
	// before the next.
	pause time.Duration
	wait  time.Duration

	// sent is set once a try had no known end: the command may have been done.
	sent bool
}

// start sets the server to be asked first.
func (a *attempt) start(at *connection) { a.at, a.turn, a.hops = at, at, 0 }

// try asks one server, and says whether the request has ended. If it has not,
// another try may follow.
func (a *attempt) try(ctx context.Context, r api.Request) (response api.Response, ended bool, err error) {
	short, cancel := context.WithTimeout(ctx, attemptTimeout)
	response, err = a.at.do(short, r)
	cancel()
	var e *api.Error
	if !errors.As(err, &e) {
		return response, true, nil
	}
	a.sent = a.sent || !e.Definite
	switch e.Code {
	case api.NotLeader, api.Busy, api.Unavailable, api.Unknown:
	default:
		return response, true, e
	}
	if ctx.Err() != nil {
		return response, true, a.late(ctx, e)
	}
	a.move(e)
	return response, false, e
}

// move chooses the server to ask next: the leader that was named, else the one
// whose turn it is. To follow the first such word costs no wait; later ones do,
// for followers may name a leader that is dead until they have another.
func (a *attempt) move(e *api.Error) {
	named := e.Leader != "" && e.Leader != a.at.address && a.hops < maxHops
	switch {
	case named:
		a.at = a.c.connectionTo(e.Leader)
		a.hops++
	case e.Code != api.Busy:
		a.start(a.c.after(a.turn))
	}
	first := a.pause == 0
	a.pause = min(max(2*a.pause, minPause), maxPause)
	a.wait = a.pause/2 + rand.N(a.pause)
	if named && first {
		a.wait = 0
	}
}

// rest waits before the next try.
func (a *attempt) rest(ctx context.Context, last error) error {
	t := time.NewTimer(a.wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return a.late(ctx, last)
	case <-a.c.life.Done():
		return a.late(a.c.life, last)
	}
}

// late is the error of a request that has timed out. If any try may have
// reached a server, its outcome is unknown, whatever the last server said.
func (a *attempt) late(ctx context.Context, last error) error {
	message := fmt.Sprintf("no server carried it out %s; the last error was: %s", whenOver(ctx), cause(last))
	if a.sent {
		return api.Lost(message)
	}
	return &api.Error{Code: api.Unavailable, Message: message, Definite: true, Cause: last}
}

// whenOver says how the time of a request ended.
func whenOver(ctx context.Context) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return "in time"
	}
	return "before it was given up"
}

// cause is what went wrong in one of several tries.
func cause(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return fmt.Sprint(err)
}

// read asks any server, and the next when one does not answer.
func (c *Client) read(ctx context.Context, r api.Request) (api.Response, error) {
	a := attempt{c: c}
	a.start(c.reader.Load())
	for {
		response, ended, err := a.try(ctx, r)
		if ended {
			return response, err
		}
		c.reader.Store(a.at)
		if err := a.rest(ctx, err); err != nil {
			return api.Response{}, explain(r, err)
		}
	}
}

// write asks the leader, and looks for it when it has moved. The command is
// part of a session, so it is done once however often it is sent.
func (c *Client) write(ctx context.Context, r api.Request) (api.Response, error) {
	a := attempt{c: c}
	for {
		s, err := c.open(ctx)
		if err != nil {
			return api.Response{}, err
		}
		a.start(c.leader.Load()) // anyone who opened the session may have found it
		if err := s.begin(ctx, &r); err != nil {
			return api.Response{}, err
		}
		response, err := a.persist(ctx, r)
		s.end(r.Seq)
		var e *api.Error
		switch {
		case !errors.As(err, &e):
			return response, nil
		case e.Code != api.NoSession && (e.Code != api.Full || !a.sent):
			return response, e
		case a.sent:
			return response, api.Lost("an earlier try had no answer, and now: " + e.Message)
		}
		c.forget(s)
	}
}

// persist sends a request until it has ended.
func (a *attempt) persist(ctx context.Context, r api.Request) (api.Response, error) {
	for {
		response, ended, err := a.try(ctx, r)
		if ended {
			if err == nil {
				a.c.leader.Store(a.at)
			}
			return response, err
		}
		if err := a.rest(ctx, err); err != nil {
			return api.Response{}, err
		}
	}
}

// open returns the session. If there is none, it asks the leader since which
// index a new one can be used, and draws a number for it.
func (c *Client) open(ctx context.Context) (*session, error) {
	if s := c.session.Load(); s != nil {
		return s, nil
	}
	select {
	case c.opening <- struct{}{}:
		defer func() { <-c.opening }()
	case <-ctx.Done():
		return nil, notSent("timed out before there was a session (%v)", ctx.Err())
	}
	if s := c.session.Load(); s != nil {
		return s, nil
	}
	a := attempt{c: c}
	a.start(c.leader.Load())
	response, err := a.persist(ctx, api.Request{Op: api.Open})
	if err != nil {
		return nil, notSent("no leader answered: %s", cause(err))
	}
	s := newSession(1+rand.Uint64N(maxID-1), response.Index)
	c.session.Store(s)
	return s, nil
}

// forget drops a session that the servers no longer know.
func (c *Client) forget(s *session) { c.session.CompareAndSwap(s, nil) }

// first returns the connection to the first of the endpoints.
func (c *Client) first() *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers[0]
}

// connectionTo returns the connection to an address, which may be new: servers
// name the leader, and it need not be among the endpoints.
func (c *Client) connectionTo(address string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		if s.address == address {
			return s
		}
	}
	s := newConnection(c.life, address)
	c.servers = append(c.servers, s)
	return s
}

// after returns the connection that follows another, round and round.
func (c *Client) after(s *connection) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.servers {
		if c.servers[i] == s {
			return c.servers[(i+1)%len(c.servers)]
		}
	}
	return c.servers[0]
}
