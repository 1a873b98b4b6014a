package sim

import (
	"fmt"
	"slices"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// session is the client's side of a session. The servers recognize a duplicate
// command by its number in the session.
type session struct {
	// id is 0 while there is no session. No command of the session is in the
	// log before index since.
	id, since uint64

	// drawn is the number of sessions so far. Sequential ids are as unique as
	// random ones and easier to read in a trace.
	drawn uint64

	// opening is true while a session is being opened; waiting has the calls
	// that wait for it.
	opening bool
	waiting []*Call

	// seq is the last number used; open has the numbers without an answer, in
	// order.
	seq  uint64
	open []uint64
}

// begin starts a call, in a session if the client uses sessions.
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

// opened starts the calls that waited for a session.
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

// stamp gives a call its number in the session and sends it.
func (c *Client) stamp(call *Call) {
	s := &c.session
	s.seq++
	s.open = append(s.open, s.seq)
	call.Request.Session, call.Request.Since, call.Request.Seq, call.Request.Ack = s.id, s.since, s.seq, s.open[0]-1
	c.world.try(call)
}

// settled records that a call has its answer, or that it will never have one.
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
