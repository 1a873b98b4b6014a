package route

import (
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// maxID bounds the numbers of sessions: JavaScript holds numbers below it
// exactly. With ten thousand sessions, a new one gets the number of another
// with a probability of one in a trillion.
const maxID = 1 << 53

// Window is how far the commands of a session may run ahead of the oldest one
// without an answer. Servers keep the results in between.
const Window = 512

// session numbers the commands of this client, so that the servers recognize
// duplicates.
type session struct {
	// id is a random number; no command of the session is in the log before
	// index since.
	id, since uint64

	// next is the number of the next command.
	next uint64

	// all commands up to ack have ended; ended has the later ones that have
	// ended too.
	ack   uint64
	ended map[uint64]bool
}

func newSession(id, since uint64) *session {
	return &session{id: id, since: since, next: 1, ended: make(map[uint64]bool)}
}

// begin gives q the next place in the session. It reports false while the oldest
// command is too far behind.
func (s *session) begin(q *api.Request) bool {
	if s.next-s.ack > Window {
		return false
	}
	q.Session, q.Since, q.Seq, q.Ack = s.id, s.since, s.next, s.ack
	s.next++
	return true
}

// end records that the client will not retry that command.
func (s *session) end(seq uint64) {
	s.ended[seq] = true
	for s.ended[s.ack+1] {
		s.ack++
		delete(s.ended, s.ack)
	}
}

// admit sends the waiting calls for which the session has room. If there is no
// session, the first of them opens one, and the others wait.
func (r *Route) admit(steps []node.Step) []node.Step {
	for len(r.waiting) > 0 && r.opener == nil {
		c := r.waiting[0]
		switch {
		case r.session == nil:
			r.opener, c.asked = c, api.Request{Op: api.Open}
		case !r.session.begin(&c.request):
			return steps
		default:
			r.waiting = r.waiting[1:]
			c.session, c.asked = r.session, c.request
		}
		c.wait, c.sent, c.last = 0, false, nil
		c.handshake, c.unusable = nil, nil
		c.start(r.leader) // the call that opened the session may have found it
		steps = append(steps, c.ask())
	}
	return steps
}

// opened begins a session: the leader has said since which index it can be used.
func (r *Route) opened(since uint64) []node.Step {
	r.session, r.opener = newSession(1+r.draw(maxID-1), since), nil
	return r.admit(nil)
}

// leave takes a call out of a session that the servers no longer know.
func (r *Route) leave(c *call) {
	c.session.end(c.request.Seq)
	if r.session == c.session {
		r.session = nil
	}
	c.session = nil
}
