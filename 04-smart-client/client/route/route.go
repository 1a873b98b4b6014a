// Package route makes the decisions of a client: which server to ask next, when to
// ask again, under which number of which session, and what is certain at the end.
//
// A Route has no clock, no goroutine and no randomness of its own. In package
// client, connections drive it. In the simulator, events drive it.
package route

import (
	"fmt"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// How the client moves from server to server.
const (
	// attemptTimeout is how long the client waits for one server before it
	// tries another.
	attemptTimeout = time.Second

	// minPause and maxPause bound the wait after a server that could not help,
	// so that retries do not overload a cluster that already has a problem.
	minPause = 5 * time.Millisecond
	maxPause = 80 * time.Millisecond

	// maxHops is how many redirects are followed in a row. Servers with old
	// information may redirect a client in a circle without the leader.
	maxHops = 2
)

// Route is the node.Route of one client.
type Route struct {
	// servers are the endpoints, and the leaders that they have named.
	servers []string

	// reader and leader are the servers that reads and commands go to next.
	reader, leader string

	// session is the one in use, nil before the first command. opener is the call
	// that opens one, nil if none does.
	session *session
	opener  *call

	// calls are those under way. waiting are those that wait for a session, or for
	// room in it, in the order in which they began.
	calls   map[uint64]*call
	waiting []*call

	draw func(n uint64) uint64
}

// way is how a request goes to the servers.
type way int

const (
	// once is one try at the first of the endpoints.
	once way = iota

	// anyServer is for reads: if one server does not answer, another may.
	anyServer

	// inSession is for commands: the leader carries them out once, however often
	// they are sent.
	inSession
)

// call is one request on its way from server to server.
type call struct {
	id  uint64
	way way

	// request is what the caller wants. asked is what the servers are asked: this
	// request, or to open a session.
	request, asked api.Request

	// session is the one in which the request has a number, nil if it has none.
	session *session

	// at is the server that is asked.
	at string

	// turn is the last server that was chosen by rotation; hops counts the
	// redirects since then.
	turn string
	hops int

	// pause grows with every try. wait is drawn from it: how long to wait before
	// the next try.
	pause, wait time.Duration

	// sent is set once the outcome of a try was unknown: the command may have
	// been done.
	sent bool

	// last is the error of the last try. handshake is the last error that said that a
	// server and this client cannot talk, nil if there was none, and unusable are the
	// servers whose last error was such a one.
	last, handshake *api.Error
	unusable        []string
}

// New returns the route of a client that was given the servers at these endpoints,
// at least one.
func New(endpoints []string, draw func(n uint64) uint64) node.Route {
	r := &Route{calls: make(map[uint64]*call), draw: draw}
	for _, address := range endpoints {
		r.know(address)
	}
	// Start at a random server, so that the clients spread their reads.
	r.reader, r.leader = r.servers[draw(uint64(len(r.servers)))], r.servers[0]
	return r
}

// Begin implements node.Route.
func (r *Route) Begin(id uint64, q api.Request) []node.Step {
	c := &call{id: id, request: q, asked: q}
	r.calls[id] = c
	switch {
	case q.Op == kv.Get || q.Op == api.List:
		c.way = anyServer
		c.start(r.reader)
	case kv.Writes(q.Op):
		c.way = inSession
		r.waiting = append(r.waiting, c)
		return r.admit(nil)
	default:
		c.start(r.servers[0])
	}
	return []node.Step{c.ask()}
}

// Answered implements node.Route.
func (r *Route) Answered(id uint64, response api.Response, e *api.Error) []node.Step {
	c := r.calls[id]
	if e == nil {
		return r.succeed(c, response)
	}
	e = c.note(e)
	if !r.another(c, e) {
		return r.fail(c, e)
	}
	r.move(c, e)
	return []node.Step{c.ask()}
}

// GaveUp implements node.Route.
func (r *Route) GaveUp(id uint64, e *api.Error, how string) []node.Step {
	c := r.calls[id]
	if e != nil {
		if e = c.note(e); !r.another(c, e) {
			return r.fail(c, e)
		}
		// The next call starts where this one would have continued. Otherwise calls
		// with short timeouts would never leave a server that does not answer.
		r.move(c, e)
		if c.toLeader() {
			r.leader = c.at
		}
	}
	switch {
	case c.last != nil:
		return r.fail(c, c.late(how))
	case r.session == nil:
		return r.end(c, api.Response{}, notSent("timed out before there was a session"))
	}
	return r.end(c, api.Response{}, notSent("%d commands of this client wait for an answer", Window))
}

// succeed takes an answer, and remembers which server gave it.
func (r *Route) succeed(c *call, response api.Response) []node.Step {
	if c.toLeader() {
		r.leader = c.at
	}
	if c == r.opener {
		return r.opened(response.Index)
	}
	return r.end(c, response, nil)
}

// toLeader reports whether the call is for the leader.
func (c *call) toLeader() bool { return c.way == inSession }

// note remembers the error of a try, and returns what it says about the request. A
// read changes nothing, even if its answer was lost.
func (c *call) note(e *api.Error) *api.Error {
	if c.way == anyServer {
		e = e.OfRead(c.asked.Op)
	}
	c.sent, c.last = c.sent || !e.Definite, e
	c.unusable = slices.DeleteFunc(c.unusable, func(s string) bool { return s == c.at })
	if e.Code == api.Handshake {
		c.handshake, c.unusable = e, append(c.unusable, c.at)
	}
	return e
}

// another reports whether a server may still do what this error refused. Servers that
// cannot talk to the client will not, if there are no others.
func (r *Route) another(c *call, e *api.Error) bool {
	switch {
	case c.way == once:
		return false
	case e.Code == api.Handshake:
		return slices.ContainsFunc(r.servers, func(s string) bool { return !slices.Contains(c.unusable, s) })
	}
	return slices.Contains([]api.Code{api.NotLeader, api.Busy, api.Unavailable, api.Unknown}, e.Code)
}

// fail ends a call with an error. But if the servers have forgotten its session, and
// it was certainly not done, it goes into a new session.
func (r *Route) fail(c *call, e *api.Error) []node.Step {
	unsure := c.sent && (e.Code == api.Full || e.Code == api.Denied || e.Code == api.Handshake)
	if e.Code == api.Handshake {
		e = c.refused()
	}
	switch {
	case c == r.opener && e.Code != api.Denied && e.Code != api.Handshake:
		return r.end(c, api.Response{}, notSent("no leader answered: %s", e.Message))
	case c.session == nil || e.Code != api.NoSession && !unsure:
		return r.end(c, api.Response{}, e)
	case c.sent:
		return r.end(c, api.Response{}, api.Lost("an earlier try had no answer, and now: "+e.Message))
	}
	r.leave(c)
	r.waiting = append(r.waiting, c)
	return r.admit(nil)
}

// end ends a call. Others may have waited for that.
func (r *Route) end(c *call, response api.Response, e *api.Error) []node.Step {
	delete(r.calls, c.id)
	r.waiting = slices.DeleteFunc(r.waiting, func(w *call) bool { return w == c })
	if c == r.opener {
		r.opener = nil
	}
	if c.session != nil {
		c.session.end(c.request.Seq)
	}
	return r.admit([]node.Step{{Call: c.id, Ended: true, Response: response, Err: e}})
}

// start sets the first server to try.
func (c *call) start(at string) { c.at, c.turn, c.hops = at, at, 0 }

// ask is the step that asks the next server.
func (c *call) ask() node.Step {
	s := node.Step{Call: c.id, To: c.at, After: c.wait, Request: c.asked}
	if c.way != once {
		s.Timeout = attemptTimeout
	}
	return s
}

// move chooses the server to ask next: the leader that was named, or the server
// whose turn it is. To follow the first such word costs no wait; later ones do,
// for followers may name a leader that is dead until they have another.
func (r *Route) move(c *call, e *api.Error) {
	named := e.Leader != "" && e.Leader != c.at && c.hops < maxHops
	switch {
	case named:
		r.know(e.Leader)
		c.at = e.Leader
		c.hops++
	case e.Code != api.Busy:
		c.start(r.after(c.turn))
	}
	first := c.pause == 0
	c.pause = min(max(2*c.pause, minPause), maxPause)
	c.wait = c.pause/2 + time.Duration(r.draw(uint64(c.pause)))
	if named && first {
		c.wait = 0
	}
	if c.way == anyServer {
		r.reader = c.at
	}
}

// refused returns the error of a request that no server can be asked for.
func (c *call) refused() *api.Error {
	e := *c.handshake
	if n := len(c.unusable); n > 1 {
		e.Message = fmt.Sprintf("this client can use none of %d servers; the last error was: %s", n, e.Message)
	}
	if !c.sent && c.way != once {
		e.Message = "nothing was done: " + e.Message
	}
	return &e
}

// late returns the error of a request that has timed out. If any try may have
// reached a server, the outcome is unknown, whatever the last server said.
func (c *call) late(how string) *api.Error {
	message := fmt.Sprintf("no server carried it out %s; the last error was: %s", how, c.last.Message)
	if c.handshake != nil && c.handshake != c.last {
		message += "; an earlier one was: " + c.handshake.Message
	}
	if c.sent {
		return api.Lost(message)
	}
	return &api.Error{Code: api.Unavailable, Message: message, Definite: true, Cause: c.last}
}

// notSent is the error of a request that no server was asked for.
func notSent(format string, args ...any) *api.Error {
	return &api.Error{Code: api.Unavailable, Message: "the request was not sent: " + fmt.Sprintf(format, args...), Definite: true}
}

// know adds a server: servers name the leader, and it need not be an endpoint.
func (r *Route) know(address string) {
	if !slices.Contains(r.servers, address) {
		r.servers = append(r.servers, address)
	}
}

// after returns the server that follows another, round and round.
func (r *Route) after(address string) string {
	return r.servers[(slices.Index(r.servers, address)+1)%len(r.servers)]
}
