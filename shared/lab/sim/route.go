package sim

import (
	"math"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// A client of the stage's own makes its decisions with a node.Route. In the stage,
// connections drive it; here, events do.

// routed is the part of a call that its client's route has decided.
type routed struct {
	// number is the call's number at the route, 0 if the client has none.
	number uint64

	// step is what the route wants next.
	step node.Step

	// asking says that a request is on its way.
	asking bool
}

// forever is the deadline of a call that a route began by itself.
const forever = time.Duration(math.MaxInt64)

// beginRouted gives a call to the client's route.
func (c *Client) beginRouted(call *Call) {
	w := c.world
	if c.route == nil {
		var endpoints []string
		for _, id := range c.knows() {
			endpoints = append(endpoints, Address(id))
		}
		c.route, c.calls = w.options.Route(endpoints, c.rng.Uint64N), make(map[uint64]*Call)
	}
	c.begun++
	call.number = c.begun
	c.calls[call.number] = call
	w.carry(c, c.route.Begin(call.number, call.Request))
	w.after(call.deadline-w.now, func() {
		if !call.Done && !call.asking {
			w.carry(c, c.route.GaveUp(call.number, nil, "in time"))
		}
	})
}

// carry carries out what a route has decided.
func (w *World) carry(c *Client, steps []node.Step) {
	for _, s := range steps {
		call := c.calls[s.Call]
		switch {
		case s.Ended:
			delete(c.calls, s.Call)
			if s.Err != nil {
				s.Response = api.Failed(0, s.Err)
			}
			w.finish(call, s.Response)
			continue
		case s.Call >= node.Own:
			call = &Call{Request: s.Request, client: c, place: -1, deadline: forever, routed: routed{number: s.Call}}
		}
		if s.Request.Op != call.step.Request.Op {
			call.attempts = 0
		}
		call.step, call.server = s, w.addressed(s.To)
		w.after(s.After, func() {
			if !call.Done {
				call.asking = true
				w.try(call)
			}
		})
	}
}

// judge tells a client's route the result of an attempt, and returns what it wants
// next.
func (c *Client) judge(call *Call, r api.Response) []node.Step {
	call.asking = false
	if r.Error != nil && c.world.now >= call.deadline {
		return c.route.GaveUp(call.number, r.Error, "in time")
	}
	return c.route.Answered(call.number, r, r.Error)
}

// timeout is how long a client waits for the answer to one attempt.
func (call *Call) timeout() time.Duration {
	if call.number == 0 {
		return call.client.Timeout
	}
	left := max(0, call.deadline-call.client.world.now)
	if call.step.Timeout == 0 {
		return left
	}
	return min(left, call.step.Timeout)
}
