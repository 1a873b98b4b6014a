package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
)

// Client sends requests to servers. Requests and answers are lines of JSON that
// take time to travel, as in production.
type Client struct {
	// ID names the client in the history.
	ID uint64

	// Timeout is how long the client waits for one answer.
	Timeout time.Duration

	// Patience is how long the client works on one operation, including all
	// retries. No retry begins after that.
	Patience time.Duration

	// Follow lets the client try another server if one refuses: the leader that
	// the answer names, or the next server.
	Follow bool

	// Retry lets the client repeat a request whose outcome is unknown. Without
	// a session, a write may then be applied twice.
	Retry bool

	// Routed lets the client of the stage decide (Options.Route), if the stage has
	// one. It does not use Timeout, Follow and Retry, and Knows only for the
	// endpoints.
	Routed bool

	// Knows, if not nil, returns the servers that a client with Follow tries,
	// in order. If it is nil, the client tries all machines in use.
	Knows func() []uint64

	// Quiet keeps the client's requests out of the trace and the history. It is
	// for observers.
	Quiet bool

	world    *World
	rng      *rand.Rand
	random   messages
	requests uint64

	// route makes the decisions of a client with Routed; nil before its first
	// request. calls are those in progress, and begun is the number of the last.
	route node.Route
	calls map[uint64]*Call
	begun uint64

	// leader is the server that a client with Follow tries first; 0 if it knows
	// none.
	leader uint64
}

// Call is one operation in progress.
type Call struct {
	// Request is the client's request.
	Request api.Request

	// Response is the answer once Done is set.
	Response api.Response
	Done     bool

	client   *Client
	server   uint64
	deadline time.Duration
	attempts int

	// place is the call's index in the history; -1 if it is not an operation.
	place int
	// maybe is true if an attempt was lost, and so may have been applied.
	maybe bool

	routed

	then func()
}

// attempt is one request on the wire.
type attempt struct {
	call   *Call
	id     uint64
	server uint64

	// timeout is how long the client waits for the answer.
	timeout time.Duration

	// replied is true once the server has answered, over once the client has
	// stopped waiting.
	replied bool
	over    bool

	// breaks is true if the connection will break before the answer arrives.
	breaks bool
}

// Client returns the client with this ID. A new client waits 2 s for an answer
// and does not retry.
func (w *World) Client(id uint64) *Client {
	for _, c := range w.clients {
		if c.ID == id {
			return c
		}
	}
	c := &Client{ID: id, Timeout: 2 * time.Second, Patience: 10 * time.Second, world: w, rng: w.stream("client", id)}
	c.random.init(streamSeed(w.options.Seed, "connection", id))
	w.clients = append(w.clients, c)
	return c
}

// Put sets a key. See Do.
func (c *Client) Put(server uint64, key, value string) (api.Response, error) {
	return c.Do(server, api.Request{Op: kv.Put, Key: key, Value: value})
}

// Append adds to the end of a key's value. See Do.
func (c *Client) Append(server uint64, key, value string) (api.Response, error) {
	return c.Do(server, api.Request{Op: kv.Append, Key: key, Value: value})
}

// Get reads a key. See Do.
func (c *Client) Get(server uint64, key string) (api.Response, error) {
	return c.Do(server, api.Request{Op: kv.Get, Key: key})
}

// Do sends a request to a server and runs the world until the answer arrives or
// the client gives up. The error is an *api.Error, or the error that ended the
// run.
func (c *Client) Do(server uint64, q api.Request) (api.Response, error) {
	call := c.Begin(server, q)
	c.world.RunUntil(func() bool { return call.Done }, c.Patience+2*c.Timeout)
	switch {
	case c.world.err != nil:
		return api.Response{}, c.world.err
	case !call.Done:
		return api.Response{}, fmt.Errorf("the run ended before client %d was answered", c.ID)
	case call.Response.Error != nil:
		return call.Response, call.Response.Error
	}
	return call.Response, nil
}

// Begin sends a request to a server and returns at once. A client may have
// several calls in progress. With Follow, server 0 means the server that the
// client believes to be the leader.
func (c *Client) Begin(server uint64, q api.Request) *Call {
	w := c.world
	// No call begins at the moment at which another returned, so that their
	// order is visible in the history.
	w.now++
	if server == 0 {
		server = max(c.leader, 1)
	}
	call := &Call{Request: q, client: c, server: server, place: -1, deadline: w.now + c.Patience}
	if !c.Quiet {
		call.place = len(w.history)
		w.history = append(w.history, check.Operation{Client: c.ID, Server: server, Request: q, Invoke: w.now})
	}
	if c.Routed && w.options.Route != nil {
		c.beginRouted(call)
	} else {
		w.try(call)
	}
	return call
}

// try sends a call's request to its server.
func (w *World) try(call *Call) {
	c := call.client
	c.requests++
	call.attempts++
	q := call.Request
	if call.number != 0 {
		q = call.step.Request
	}
	if call.place >= 0 && q.Op == call.Request.Op {
		w.history[call.place].Attempts, w.history[call.place].Server = call.attempts, call.server
	}
	q.ID = c.requests
	line := q.AppendJSON(nil)
	if w.options.Sink != nil && !c.Quiet {
		text := ""
		if call.attempts > 1 {
			text = "again"
		}
		w.emit(trace.Event{Kind: trace.Invoke, Client: c.ID, To: call.server, Message: string(line), Text: text})
	}
	a := &attempt{call: call, id: q.ID, server: call.server, timeout: call.timeout()}
	w.queue.add(w.now+a.timeout, evTimeout).attempt = a
	rng := c.random.of(2 * q.ID)
	if chance(rng, w.network.Break) {
		if rng.IntN(2) == 0 {
			w.breakConnection(a, "before the request arrived")
			return
		}
		a.breaks = true
	}
	e := w.queue.add(w.now+between(rng, w.network.Delay), evRequest)
	e.id, e.line, e.attempt = call.server, line, a
}

// requestArrives hands a request to a server, or refuses the connection.
func (w *World) requestArrives(e *event) {
	m := w.machine(e.id)
	if m.server != nil {
		m.open = append(m.open, e.attempt)
		w.enqueue(m, e)
		return
	}
	w.counters.Refusals++
	w.respond(e.attempt, api.Failed(e.attempt.id, &api.Error{
		Code: api.Unavailable, Message: "no server is listening at " + Address(e.id), Definite: true}))
	w.queue.free(e)
}

// handleRequest decodes a request as the real server does and gives it to the
// simulated one.
func (w *World) handleRequest(m *machine, e *event) {
	a := e.attempt
	w.counters.Requests++
	if w.options.Sink != nil && !a.call.client.Quiet {
		w.emit(trace.Event{Node: m.id, Kind: trace.Request, Client: a.call.client.ID, Message: string(e.line)})
	}
	life := m.life
	reply := func(r api.Response) {
		switch {
		case m.life != life:
			return
		case a.replied:
			w.fail(fmt.Errorf("%s answers request %d of client %d twice", node.Name(m.id), a.id, a.call.client.ID))
		}
		a.replied = true
		m.answers = append(m.answers, answer{a, r.WithData()})
	}
	q, err := w.options.Ops.Decode(e.line)
	if err != nil {
		var refused *api.Error
		if !errors.As(err, &refused) {
			refused = &api.Error{Code: api.BadRequest, Message: err.Error(), Definite: true}
		}
		reply(api.Failed(q.ID, refused))
		return
	}
	m.server.Request(q, reply)
}

// answer sends a server's answer from its machine to the client.
func (w *World) answer(m *machine, a answer) {
	if i := slices.Index(m.open, a.attempt); i >= 0 {
		m.open = slices.Delete(m.open, i, i+1)
	}
	if w.options.Sink != nil && !a.attempt.call.client.Quiet {
		w.emit(trace.Event{Node: m.id, Kind: trace.Reply, Client: a.attempt.call.client.ID, Message: string(a.response.AppendJSON(nil))})
	}
	if m.mute > 0 || a.attempt.breaks {
		m.mute = max(0, m.mute-1)
		w.breakConnection(a.attempt, "before the answer arrived")
		return
	}
	w.respond(a.attempt, a.response)
}

// respond puts an answer on its way to the client.
func (w *World) respond(a *attempt, r api.Response) {
	e := w.queue.add(w.now+between(a.call.client.random.of(2*a.id+1), w.network.Delay), evReply)
	e.attempt, e.line = a, r.AppendJSON(nil)
}

// LoseAnswers loses the next n answers of a server to its clients: the
// connection breaks after the server has handled the request.
func (w *World) LoseAnswers(server uint64, n int) { w.machine(server).mute = n }

// breakConnection schedules the moment at which a client learns that its
// connection broke.
func (w *World) breakConnection(a *attempt, why string) {
	if a.over {
		return
	}
	w.counters.Breaks++
	e := w.queue.add(w.now+between(a.call.client.random.of(2*a.id+1), w.network.Delay), evBroken)
	e.attempt, e.line = a, []byte(why)
}

func (w *World) replyArrives(e *event) {
	a := e.attempt
	if a.over {
		return
	}
	w.counters.Replies++
	r, err := api.DecodeResponse(e.line)
	if err != nil {
		w.fail(fmt.Errorf("%s answers client %d with %s: %w", node.Name(a.server), a.call.client.ID, e.line, err))
		return
	}
	if r.ID != a.id {
		w.fail(fmt.Errorf("%s answers request %d of client %d under the id %d", node.Name(a.server), a.id, a.call.client.ID, r.ID))
		return
	}
	w.conclude(a, r)
}

func (w *World) connectionBreaks(e *event) {
	w.lost(e.attempt, fmt.Sprintf("the connection to %s broke %s", node.Name(e.attempt.server), e.line))
}

func (w *World) attemptTimesOut(e *event) {
	if !e.attempt.over {
		w.counters.Timeouts++
		w.lost(e.attempt, fmt.Sprintf("no answer of %s within %v", node.Name(e.attempt.server), e.attempt.timeout))
	}
}

func (w *World) lost(a *attempt, why string) {
	if !a.over {
		w.conclude(a, api.Failed(a.id, &api.Error{Code: api.Unknown, Message: why}))
	}
}

// conclude ends an attempt. It also ends the call, unless the client retries.
func (w *World) conclude(a *attempt, r api.Response) {
	a.over = true
	call, c := a.call, a.call.client
	var steps []node.Step
	again := false
	if call.number == 0 {
		again = w.again(call, r)
	} else {
		steps = c.judge(call, r)
		again = slices.ContainsFunc(steps, func(s node.Step) bool {
			return s.Call == call.number && !s.Ended && s.Request.Op == call.step.Request.Op
		})
	}
	if w.options.Sink != nil && !c.Quiet {
		text := ""
		if again {
			text = "it retries"
		}
		w.emit(trace.Event{Kind: trace.Return, Client: c.ID, Message: string(r.AppendJSON(nil)), Text: text})
	}
	switch {
	case call.number != 0:
		w.carry(c, steps)
	case !again:
		w.finish(call, r)
	}
}

// again decides whether a client retries, and starts the retry.
func (w *World) again(call *Call, r api.Response) bool {
	c, e := call.client, r.Error
	if e == nil {
		if kv.Writes(call.Request.Op) {
			c.leader = call.server
		}
		return false
	}
	unknown := !e.Definite
	call.maybe = call.maybe || unknown && call.Request.Op != kv.Get
	willing := c.Follow
	if e.Code.FromStore() || e.Code == api.BadRequest || e.Code == api.Refused {
		return false
	}
	if unknown {
		willing = c.Retry || c.Follow && call.Request.Op == kv.Get
	}
	if !willing || w.now >= call.deadline {
		return false
	}
	pause := 20*time.Millisecond + between(c.rng, [2]time.Duration{0, 30 * time.Millisecond})
	if c.Follow {
		call.server = c.next(call.server)
		if leader := w.addressed(e.Leader); leader != 0 {
			call.server, pause = leader, 0
		}
	}
	w.after(pause, func() { w.try(call) })
	return true
}

// knows returns the servers that a client can try.
func (c *Client) knows() []uint64 {
	if c.Knows != nil {
		return c.Knows()
	}
	return c.world.InUse()
}

// next returns the server that a client tries after another, round robin.
func (c *Client) next(id uint64) uint64 {
	ids := c.knows()
	for _, other := range ids {
		if other > id {
			return other
		}
	}
	if len(ids) == 0 {
		return id
	}
	return ids[0]
}

// addressed returns the server at an address; 0 if there is none.
func (w *World) addressed(address string) uint64 {
	if address == "" {
		return 0
	}
	for _, m := range w.machines {
		if Address(m.id) == address {
			return m.id
		}
	}
	return 0
}

// finish ends a call. If an earlier attempt was lost, a refusal of the last one
// does not settle the outcome.
func (w *World) finish(call *Call, r api.Response) {
	if e := r.Error; e != nil && call.maybe && e.Definite && !e.Code.FromStore() {
		r.Error = &api.Error{Code: api.Unknown, Message: "an attempt was lost; the last one said: " + e.Message, Leader: e.Leader}
	}
	call.Response, call.Done = r, true
	if call.place >= 0 {
		o := &w.history[call.place]
		o.Return, o.Done, o.Response = w.now, true, r
		for _, l := range w.hear {
			if err := l.Answered(w.history, call.place); err != nil {
				w.fail(err)
			}
		}
	}
	if call.then != nil {
		call.then()
	}
}
