package sim

import (
	"fmt"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/lab/check"
)

// Load describes the random requests of many clients. Every value is written
// only once, and few clients share a key, so that the history can be checked.
type Load struct {
	// Clients is the number of clients; each has one operation in progress.
	Clients int

	// Think is the range of a client's pause between two operations.
	Think [2]time.Duration

	// Reads, Puts, Appends, Swaps and Deletes are the weights of the
	// operations; DefaultLoad's if all are zero.
	Reads, Puts, Appends, Swaps, Deletes int

	// ReadAnywhere sends reads to any server that the client knows, not only to
	// the leader.
	ReadAnywhere bool

	// Client, if not nil, sets the options of each client, such as Retry.
	Client func(*Client)
}

// DefaultLoad is ten busy clients.
var DefaultLoad = Load{Clients: 10, Think: [2]time.Duration{0, 20 * time.Millisecond}, Reads: 40, Puts: 25, Appends: 15, Swaps: 15, Deletes: 5}

// Limits on the use of one key, so that the checker can search its history.
const (
	// sharers is how many clients use a key at once.
	sharers = 4

	// keyLife is the number of operations, and keyDoubts the number of
	// operations with unknown outcome, after which clients switch to a new key.
	keyLife   = 200
	keyDoubts = 3

	// createEvery is how often a put becomes a create: the first write of a
	// key, and later every createEvery-th, which fails unless the key was
	// deleted.
	createEvery = 4
)

// Loading is a running load.
type Loading struct {
	world   *World
	load    Load
	stopped bool
	busy    int
	slots   []slot

	// written numbers the values.
	written uint64
}

// slot is a key and the keys that replace it.
type slot struct {
	generation int
	uses       int
	doubts     int

	// value is the last value seen under the key, so that a cas can succeed.
	value string
}

// firstLoader is the ID of the first client of a load.
const firstLoader = 100

// StartLoad starts clients that send random requests.
func (w *World) StartLoad(l Load) *Loading {
	if l.Reads+l.Puts+l.Appends+l.Swaps+l.Deletes == 0 {
		d := DefaultLoad
		l.Reads, l.Puts, l.Appends, l.Swaps, l.Deletes = d.Reads, d.Puts, d.Appends, d.Swaps, d.Deletes
	}
	// Each client uses two neighboring keys.
	g := &Loading{world: w, load: l, slots: make([]slot, max(2, (2*l.Clients+sharers-1)/sharers))}
	w.standing.loads = append(w.standing.loads, g)
	for i := range l.Clients {
		c := w.Client(uint64(firstLoader + i))
		c.Follow = true
		if l.Client != nil {
			l.Client(c)
		}
		w.after(between(c.rng, l.Think), func() { g.ask(c, i) })
	}
	return g
}

// Stop prevents new operations.
func (g *Loading) Stop() { g.stopped = true }

// Idle reports whether no operation is in progress.
func (g *Loading) Idle() bool { return g.busy == 0 }

// ask begins one operation. When it returns, ask schedules the next one.
func (g *Loading) ask(c *Client, i int) {
	if g.stopped {
		return
	}
	w := g.world
	at := (i + c.rng.IntN(2)) % len(g.slots)
	s := &g.slots[at]
	if s.uses >= keyLife || s.doubts >= keyDoubts {
		*s = slot{generation: s.generation + 1}
	}
	s.uses++
	generation := s.generation
	q := g.request(c, fmt.Sprintf("k%d.%d", at, generation), s)
	server := uint64(0)
	if q.Op == kv.Get && g.load.ReadAnywhere {
		known := c.knows()
		server = known[c.rng.IntN(len(known))]
	}
	call := c.Begin(server, q)
	g.busy++
	call.then = func() {
		g.busy--
		g.learn(call, s, generation)
		w.after(between(c.rng, g.load.Think), func() { g.ask(c, i) })
	}
}

// request draws an operation on a key.
func (g *Loading) request(c *Client, key string, s *slot) api.Request {
	l := g.load
	draw := c.rng.IntN(l.Reads + l.Puts + l.Appends + l.Swaps + l.Deletes)
	for _, o := range []struct {
		op     string
		weight int
	}{{kv.Get, l.Reads}, {kv.Put, l.Puts}, {kv.Append, l.Appends}, {kv.Cas, l.Swaps}} {
		if draw < o.weight {
			return g.command(o.op, key, s)
		}
		draw -= o.weight
	}
	return api.Request{Op: kv.Delete, Key: key}
}

func (g *Loading) command(op, key string, s *slot) api.Request {
	q := api.Request{Op: op, Key: key}
	if op != kv.Get {
		g.written++
		q.Value = fmt.Sprintf("v%d", g.written)
	}
	switch op {
	case kv.Put:
		if s.uses%createEvery == 1 {
			q.Op = kv.Create
		}
	case kv.Append:
		q.Value = "," + q.Value
	case kv.Cas:
		q.Old = s.value
	}
	return q
}

// learn records what an operation has shown about its key.
func (g *Loading) learn(call *Call, s *slot, generation int) {
	if s.generation != generation {
		return
	}
	switch o := g.world.history[call.place]; o.Outcome() {
	case check.Unknown:
		if call.Request.Op != kv.Get {
			s.doubts++
		}
	case check.Happened:
		switch {
		case call.Response.Error != nil:
		case call.Response.HasValue:
			s.value = call.Response.Value
		case call.Response.HasLength:
			if whole := s.value + call.Request.Value; uint64(len(whole)) == call.Response.Length {
				s.value = whole
			}
		case call.Request.Op == kv.Put || call.Request.Op == kv.Create || call.Request.Op == kv.Cas:
			s.value = call.Request.Value
		}
	}
}
