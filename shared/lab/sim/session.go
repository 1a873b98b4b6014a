package sim

import (
	"fmt"
	"slices"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// session is a client's side of a session: the servers recognize a command
// that they get twice by its number in it.
type session struct {
	// id is 0 while there is none; since is an index before which no command of
	// the session stands in the log.
	id, since uint64

	// drawn is how many sessions there have been. Numbers that count are easier to
	// read in a story than random ones, and as unique.
	drawn uint64

	// opening says that one was asked for; waiting are the calls that wait for
	// it.
	opening bool
	waiting []*Call

	// seq is the last number that was given, open are those whose answers the
	// client does not have, in order.
	seq  uint64
	open []uint64
}

// begin sends a call on its way, through a session if the client uses them.
func (c *Client) begin(call *Call) {
	if !c.Sessions || !kv.Writes(call.Request.Op) {
		c.world.try(call)
		return
	}
	if c.session.id != 0 {
		c.stamp(call)
		return
	}
	c.session.waiting = append(c.session.waiting, call)
	if c.session.opening {
		return
	}
	c.session.opening = true
	open := &Call{Request: api.Request{Op: api.Open}, client: c, server: call.server, place: -1, deadline: call.deadline}
	open.then = func() { c.opened(open) }
	c.world.try(open)
}

// opened lets the calls go that have waited for a session.
func (c *Client) opened(open *Call) {
	waiting := c.session.waiting
	c.session = session{drawn: c.session.drawn}
	if e := open.Response.Error; e != nil {
		for _, call := range waiting {
			c.world.finish(call, api.Failed(0, &api.Error{Code: api.Unavailable, Definite: true,
				Message: fmt.Sprintf("no session could be opened, so the command was not sent: %s", e.Message)}))
		}
		return
	}
	c.session.drawn++
	c.session.id, c.session.since = c.ID*1000+c.session.drawn, open.Response.Index
	for _, call := range waiting {
		call.server = open.server
		c.stamp(call)
	}
}

// stamp gives a call its place in the session, and sends it.
func (c *Client) stamp(call *Call) {
	s := &c.session
	s.seq++
	s.open = append(s.open, s.seq)
	call.Request.Session, call.Request.Since, call.Request.Seq, call.Request.Ack = s.id, s.since, s.seq, s.open[0]-1
	c.world.try(call)
}

// settled notes that a call has its answer, or will have none.
func (c *Client) settled(call *Call) {
	s, q := &c.session, call.Request
	if q.Session == 0 || q.Session != s.id {
		return
	}
	if i, found := slices.BinarySearch(s.open, q.Seq); found {
		s.open = slices.Delete(s.open, i, i+1)
	}
	if e := call.Response.Error; e != nil && e.Code == api.NoSession {
		*s = session{drawn: s.drawn}
	}
}
