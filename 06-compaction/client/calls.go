package client

import (
	"context"
	"errors"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// carry carries out a request: it asks the servers that the route names, and tells
// the route what they answer, until the route says that the call has ended.
func (c *Client) carry(ctx context.Context, r api.Request) (api.Response, error) {
	id, steps := c.begin(r)
	for {
		s := c.await(ctx, id, steps)
		switch {
		case s.Ended && s.Err != nil:
			return s.Response, s.Err
		case s.Ended:
			return s.Response, nil
		case c.rest(ctx, s.After):
			c.ask(ctx, s)
		default:
			c.giveUp(ctx, id, steps, nil)
		}
	}
}

// begin gives a request to the route. The steps of the call come through the
// channel.
func (c *Client) begin(r api.Request) (id uint64, steps chan node.Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	steps = make(chan node.Step, 1) // a call has no more than one step at a time
	c.calls[c.begun] = steps
	c.dispatch(c.route.Begin(c.begun, r))
	return c.begun, steps
}

// dispatch hands each step to the goroutine that carries out its call. The caller
// holds the lock.
func (c *Client) dispatch(steps []node.Step) {
	for _, s := range steps {
		c.calls[s.Call] <- s
		if s.Ended {
			delete(c.calls, s.Call)
		}
	}
}

// await returns the next step of a call. While a call waits for others, it can time
// out.
func (c *Client) await(ctx context.Context, id uint64, steps chan node.Step) node.Step {
	select {
	case s := <-steps:
		return s
	case <-ctx.Done():
	case <-c.life.Done():
	}
	c.giveUp(ctx, id, steps, nil)
	return <-steps
}

// rest waits before the next try. It reports false if the call times out first.
func (c *Client) rest(ctx context.Context, wait time.Duration) bool {
	if wait == 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.life.Done():
	}
	return false
}

// ask asks one server, and tells the route the result.
func (c *Client) ask(ctx context.Context, s node.Step) {
	short, cancel := ctx, context.CancelFunc(func() {})
	if s.Timeout > 0 {
		short, cancel = context.WithTimeout(ctx, s.Timeout)
	}
	response, err := c.connectionTo(s.To).do(short, s.Request)
	cancel()
	var e *api.Error
	if errors.As(err, &e) && ctx.Err() != nil {
		c.giveUp(ctx, s.Call, nil, e)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dispatch(c.route.Answered(s.Call, response, e))
}

// giveUp tells the route that a call has timed out, with the error of the request
// that was on its way. A step that came first is carried out instead.
func (c *Client) giveUp(ctx context.Context, id uint64, steps chan node.Step, e *api.Error) {
	how := "before it was given up"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		how = "in time"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(steps) == 0 {
		c.dispatch(c.route.GaveUp(id, e, how))
	}
}

// connectionTo returns the connection to an address, which may be new: servers
// name the leader, and it need not be among the endpoints.
func (c *Client) connectionTo(address string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, found := c.servers[address]
	if !found {
		s = newConnection(c.life, address, c.how)
		c.servers[address] = s
	}
	return s
}
