// Package sim simulates a world for servers from a seed: a network, a clock,
// disks, clients and faults in virtual time.
//
// It drives the same node.Server that runs in production. There is one
// goroutine, one source of randomness and one queue of events, ordered by time,
// then by creation. Nothing here looks at a real clock or at the order of a
// map, so the same seed always gives the same run, byte for byte.
//
//	w, err := sim.New(sim.Options{Seed: 7, Servers: 5, New: server.New, Ops: server.Ops})
//	c := w.Client(1)
//	_, err = c.Put(1, "x", "1")     // runs the world until the answer is there
//	w.Partition([]uint64{1, 2}, []uint64{3, 4, 5})
//	w.RunFor(time.Second)
//
// A World and everything in it may be used by one goroutine only.
package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
)

// Options describes a world.
type Options struct {
	// Seed determines all random choices.
	Seed uint64

	// Servers is how many servers the cluster has at first: n1 to nN.
	Servers int

	// Spare is the number of further machines, for servers that join later:
	// nN+1 and so on. They are down until Restart starts them. Their
	// configuration is the common one, with the machine itself in Joiners.
	Spare int

	// New creates a server, Ops lists the operations that it supports.
	New node.Factory
	Ops api.Ops

	// Route makes the decisions of clients that are Routed; nil if there are none.
	Route node.RouteOf

	// Config is the configuration. Members and Joiners are filled in; so are the
	// timeouts if they are zero, and the cluster's name.
	Config node.Config

	// Disk returns the initial disk of a machine; nil means empty disks.
	Disk func(id uint64) *disk.Sim

	// Network is the initial behavior of the network; DefaultNetwork if zero.
	Network Network

	// Carrier creates what carries the lines between the servers; nil means that
	// the world does.
	Carrier func(w *World) Carrier

	// Sink receives the events of the world and of its servers; nil discards
	// them.
	Sink trace.Sink

	// Watchers are told about every step of every server.
	Watchers []Watcher

	// Before is called before each step with its number, the first being 1. It
	// may do to the world what a scenario does. nil means nothing.
	Before func(w *World, step uint64)
}

// Watcher is told what happens to servers. check.Invariants is one.
type Watcher interface {
	// Started is called when a server has started, Stopped when it has gone
	// down. torn is true if it went down during a Flush.
	Started(id uint64)
	Stopped(id uint64, torn bool)

	// Stepped follows each input of a server, and each Flush that succeeded.
	// An error ends the run.
	Stepped(id uint64, s node.Server, flushed bool) error
}

// ClockWatcher is a Watcher that is also told when the clock of a server gets
// another speed, in percent of the right one.
type ClockWatcher interface {
	Clocked(id, percent uint64)
}

// Listener is a Watcher that also receives every message when a server sends
// it. An error ends the run.
type Listener interface {
	Sent(from, to uint64, line []byte) error
}

// Hearer is a Watcher that also hears of every operation when its client has the
// final result: the one at place i of the history. An error ends the run.
type Hearer interface {
	Answered(h check.History, i int) error
}

// World is a simulated world.
type World struct {
	options  Options
	config   node.Config
	story    *rand.Rand
	now      time.Duration
	step     uint64
	queue    queue
	machines []*machine
	links    []link
	rows     uint64
	network  Network
	filter   func(from, to uint64, line []byte) bool
	carrier  Carrier
	listen   []Listener
	hear     []Hearer
	clients  []*Client
	history  check.History
	counters Counters
	nemesis  nemesis
	standing standing
	stops    []error
	err      error
}

// New makes a world and starts its servers.
func New(o Options) (*World, error) {
	if o.Servers < 1 || o.New == nil || o.Ops == nil {
		return nil, fmt.Errorf("a world needs servers, a factory of them and their operations")
	}
	if o.Network == (Network{}) {
		o.Network = DefaultNetwork
	}
	w := &World{options: o, network: o.Network}
	w.story = w.stream("story")
	w.config = configure(o)
	for _, watcher := range o.Watchers {
		if l, ok := watcher.(Listener); ok {
			w.listen = append(w.listen, l)
		}
		if h, ok := watcher.(Hearer); ok {
			w.hear = append(w.hear, h)
		}
	}
	total := o.Servers + o.Spare
	w.rows = uint64(total + 1)
	w.links = make([]link, w.rows*w.rows)
	for from := range total + 1 {
		for to := range total + 1 {
			w.link(uint64(from), uint64(to)).random.init(streamSeed(o.Seed, "link", uint64(from), uint64(to)))
		}
	}
	for i := range total {
		w.machines = append(w.machines, w.newMachine(uint64(i+1)))
	}
	if o.Carrier != nil {
		w.carrier = o.Carrier(w)
	}
	for _, m := range w.machines[:o.Servers] {
		if err := w.start(m); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// configure fills in the missing fields of a configuration.
func configure(o Options) node.Config {
	c := o.Config
	if c.Cluster == "" {
		c.Cluster = "sim"
	}
	if c.ElectionTimeout == [2]time.Duration{} {
		c.ElectionTimeout = [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond}
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 50 * time.Millisecond
	}
	c.Fsync = true
	c.Members, c.Joiners = nil, nil
	for i := range o.Servers {
		id := uint64(i + 1)
		c.Members = append(c.Members, node.Member{ID: id, Address: Address(id)})
	}
	return c
}

// Address returns the address of a simulated server.
func Address(id uint64) string { return fmt.Sprintf("10.0.0.%d:7000", id) }

// Now is the virtual time since the world began.
func (w *World) Now() time.Duration { return w.now }

// Rand returns the random stream of the scenario that runs in the world.
func (w *World) Rand() *rand.Rand { return w.story }

// Config returns the configuration of the servers that existed from the start.
func (w *World) Config() node.Config { return w.config }

// ConfigOf returns the configuration of one server. That of a server that joins
// later also names the server itself.
func (w *World) ConfigOf(id uint64) node.Config {
	c := w.config
	if id > uint64(w.options.Servers) {
		c.Joiners = []node.Member{{ID: id, Address: Address(id)}}
	}
	return c
}

// Err returns the error that ended the run: a violated invariant, or a server
// that violated its contract. Nothing happens after it.
func (w *World) Err() error { return w.err }

// History returns all operations of the clients.
func (w *World) History() check.History { return w.history }

// IDs returns all machines, in order, running or not.
func (w *World) IDs() []uint64 {
	ids := make([]uint64, len(w.machines))
	for i, m := range w.machines {
		ids[i] = m.id
	}
	return ids
}

// fail ends the run.
func (w *World) fail(err error) {
	if w.err == nil {
		w.err = fmt.Errorf("at %v: %w", w.now, err)
	}
}

// Fail ends the run with an error, if it has not ended yet.
func (w *World) Fail(err error) { w.fail(err) }

// Steps is how many events have been executed.
func (w *World) Steps() uint64 { return uint64(w.counters.Events) }

// Next returns when the next event will happen, or false if there is none.
func (w *World) Next() (time.Duration, bool) {
	if w.err != nil || w.queue.empty() {
		return 0, false
	}
	return max(w.now, w.queue.first().at), true
}

// Step executes the next event. It returns false if the run has ended.
func (w *World) Step() bool {
	if w.err != nil || w.queue.empty() {
		return false
	}
	if w.await(w.queue.first().at); w.err != nil {
		return false
	}
	w.step = w.Steps() + 1
	if w.options.Before != nil {
		if w.options.Before(w, w.step); w.err != nil {
			return false
		}
	}
	e := w.queue.pop()
	w.now = max(w.now, e.at)
	w.counters.Events++
	w.happen(e)
	return w.err == nil
}

func (w *World) happen(e *event) {
	switch e.kind {
	case evTick:
		w.tick(e)
	case evDeliver:
		w.deliver(e)
		return // the machine's inbox may keep the event
	case evRound:
		w.round(w.machine(e.id), e.life)
	case evRequest:
		w.requestArrives(e)
		return
	case evReply:
		w.replyArrives(e)
	case evBroken:
		w.connectionBreaks(e)
	case evTimeout:
		w.attemptTimesOut(e)
	case evCall:
		e.f()
	}
	w.queue.free(e)
}

// RunFor executes events for a duration d.
func (w *World) RunFor(d time.Duration) {
	w.RunUntil(func() bool { return false }, d)
}

// RunUntil executes events until cond is true, for at most bound. It reports
// whether cond became true.
func (w *World) RunUntil(cond func() bool, bound time.Duration) bool {
	end := w.now + bound
	for w.err == nil && !cond() {
		w.await(end)
		if w.queue.empty() || w.queue.first().at > end {
			w.now = max(w.now, end)
			return cond()
		}
		w.Step()
	}
	return w.err == nil
}

// After schedules f to be called d from now, unless a call of EndPlans comes first.
func (w *World) After(d time.Duration, f func()) {
	made := w.standing.made
	w.standing.plans++
	w.after(d, func() {
		if made == w.standing.made {
			w.standing.plans--
			f()
		}
	})
}

func (w *World) after(d time.Duration, f func()) {
	e := w.queue.add(w.now+d, evCall)
	e.f = f
}

// Say adds a sentence of the narrator to the trace.
func (w *World) Say(format string, args ...any) {
	if w.options.Sink != nil {
		w.emit(trace.Event{Kind: trace.Note, Text: fmt.Sprintf(format, args...)})
	}
}

// Emit adds an event to the trace, at the current time.
func (w *World) Emit(e trace.Event) { w.emit(e) }

func (w *World) emit(e trace.Event) {
	if w.options.Sink != nil {
		e.At, e.Step = w.now, w.step
		w.options.Sink(e)
	}
}
