// Package explore searches a protocol exhaustively at small bounds: every order
// in which messages arrive, arrive twice or are lost, servers time out, crash
// and restart, and clients ask. What a million random schedules miss, it finds,
// and what it finds is the shortest way there.
//
// # What is searched
//
// A Protocol is a number of servers that exchange datagrams. A state of the
// search is the state of each server, the messages in flight, the history (what
// the checks must remember of the past), and how much of each budget is spent.
// From a state, one step leads to others: a message arrives, or something else
// happens to a server. The search goes breadth first, so the first violation it
// meets is at the end of a shortest path.
//
// The bounds make the space finite. The protocol keeps its own (terms, the
// length of logs); the search bounds the messages in flight, the restarts, the
// reads and the messages that arrive twice.
//
// # What makes it fast
//
//   - A server's next state depends on its own state and on what happens to it,
//     and on nothing else. So each such pair is carried out once and remembered;
//     a state of the search is a handful of numbers that name the states of
//     servers and the messages.
//   - Servers are alike. States that differ only in who bears which name are one
//     state: of all ways to name the servers, the search keeps the one with the
//     least fingerprint.
//   - A message that never arrives needs no step that loses it. A message is
//     lost only where it must make room for another, and then every choice of
//     which to lose is tried. That is enough: whatever can happen with some
//     messages in flight can happen with more of them.
//   - States are remembered as fingerprints of 120 bits, cut from sums of
//     SHA-256. The odds that two of n states share one, so that the search
//     overlooks what only the second leads to, are n²/2¹²¹: for a hundred
//     million states about 4 in 10²¹.
//
// # What a test must see to
//
// A search that never reaches the case proves nothing. The protocol counts what
// happens (leaders elected, entries committed), and Result.Err fails when a
// counter that should have moved stayed at zero.
package explore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of Input. A protocol numbers its own from 1 on.
type Kind uint8

// Arrival is the kind of Input for a message that arrives.
const Arrival Kind = 0

// Input is something that happens to one server.
type Input struct {
	// Kind says what happens.
	Kind Kind

	// Arg is for the protocol's use; 0 with an Arrival.
	Arg uint16
}

// Budget names what a step may spend of a limited supply.
type Budget uint8

// The budgets.
const (
	// Nothing: the step is free.
	Nothing Budget = iota

	// Restart: a server loses what it had not saved and starts again.
	Restart

	// Read: a client asks for a read.
	Read

	// Duplicate: a message arrives and stays in flight. The search spends it.
	Duplicate

	budgets
)

// Effect is what may become of a server.
type Effect[S, M any] struct {
	// Server is its state afterwards.
	Server S

	// Messages are those it sent.
	Messages []M

	// Spends is what the step costs.
	Spends Budget

	// Beyond is true if the state lies beyond the protocol's bounds. It is
	// checked like any other, but not followed.
	Beyond bool

	// Counts has bit i set if the step moves the i-th of Protocol.Counters.
	Counts uint64

	// Note adds to the story how this effect differs from the others of the same
	// input, such as where the server crashed. It may be empty.
	Note string

	// Variant says the same to a program: it is the protocol's, and 0 for the
	// ordinary effect.
	Variant int

	// Why returns the server's reasons, a sentence each. It is called for the
	// story only, and may be nil.
	Why func() []string

	// Err says which invariant the step itself breaks, or is nil.
	Err error
}

// Panic is the error of a step in which the protocol panicked.
type Panic struct{ Value any }

func (p Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// World is a state as the protocol's checks see it. It is valid until the check
// returns, and must not be changed.
type World[S, G any] struct {
	// Servers are the servers; that of name id is at place id-1.
	Servers []S

	// History is what is remembered of the past.
	History G
}

// Protocol is what is searched: S is the state of one server, its disk
// included; M is a message; G is the history. None of their values is ever
// changed: a step makes new ones. All methods are called from several goroutines
// at once, and must return the same for the same arguments.
type Protocol[S, M, G any] interface {
	// Encoder tells values of S, M and G apart.
	Encoder() *Encoder

	// Counters names what Effect.Counts counts, at most 64.
	Counters() []string

	// Start returns the server of that name (1, 2, …) before it has done
	// anything, and History what is remembered then.
	Start(id int) S
	History() G

	// Inputs appends to inputs what may happen at server id, apart from the arrival
	// of a message.
	Inputs(inputs []Input, w World[S, G], id int) []Input

	// Do returns what may become of s when in happens; with an Arrival, m has
	// arrived. The first effect is the ordinary one.
	Do(s S, in Input, m M) []Effect[S, M]

	// To returns the name of the server to which m is sent.
	To(m M) int

	// Observe returns the history after server s came to be as it is. It fails
	// if that contradicts the history.
	Observe(g G, s S) (G, error)

	// Check fails if w breaks an invariant.
	Check(w World[S, G]) error

	// Tell says in a few words what in, with m, is at server id.
	Tell(id int, in Input, m M) string

	// TellMessage says what m is.
	TellMessage(m M) string
}

// Bounds limit a search.
type Bounds struct {
	// Servers is the number of servers, 1 to 5.
	Servers int

	// InFlight is how many messages may be in flight at once.
	InFlight int

	// Restarts, Reads and Duplicates are how often those may be spent on one
	// path.
	Restarts, Reads, Duplicates int

	// States ends the search, unfinished, when that many states are known; 0 is
	// no limit.
	States int

	// Workers is the number of goroutines that search; 0 is one for each
	// processor.
	Workers int

	// Named keeps apart states that differ only in the servers' names. It is
	// there to test that folding them changes nothing.
	Named bool

	// Progress, if not nil, is told after every level how far the search is.
	Progress func(depth, states, frontier int)
}

func (b Bounds) check() error {
	switch {
	case b.Servers < 1 || b.Servers > maxServers:
		return fmt.Errorf("the number of servers is %d; it must be 1 to %d", b.Servers, maxServers)
	case b.InFlight < 1 || b.InFlight > maxInFlight:
		return fmt.Errorf("the number of messages in flight is %d; it must be 1 to %d", b.InFlight, maxInFlight)
	}
	for _, n := range []int{b.Restarts, b.Reads, b.Duplicates} {
		if n < 0 || n > maxBudget {
			return fmt.Errorf("a budget of restarts, reads or duplicates is %d; it must be 0 to %d", n, maxBudget)
		}
	}
	return nil
}

// Step is one step of a counterexample.
type Step[S, M any] struct {
	// Server is the name of the server to which it happened.
	Server int

	// Input is what happened, Message what arrived, if it is an Arrival.
	Input   Input
	Message M

	// Kept is true if the message stays in flight, to arrive once more.
	Kept bool

	// Effect is what came of it.
	Effect Effect[S, M]

	// Lost are messages that have made room for others.
	Lost []M
}

// Violation is a broken invariant and a shortest way to break it.
type Violation[S, M any] struct {
	// Err says which invariant, and how.
	Err error

	// Path is the way there from the start.
	Path []Step[S, M]

	// Story tells the path, a line a step, each followed by the reasons.
	Story string
}

// Result is what a search found.
type Result[S, M any] struct {
	// States is the number of states, Steps the number of steps between them
	// that were tried, Beyond those that led out of the protocol's bounds, Depth
	// the length of the longest of the shortest paths to a state.
	States, Steps, Beyond uint64
	Depth                 int

	// Locals, Messages and Histories are how many different states of single
	// servers, messages and histories there were.
	Locals, Messages, Histories int

	// Finished is true if there was nothing left to search.
	Finished bool

	// Elapsed is how long it took.
	Elapsed time.Duration

	// Counters say how often what happened.
	Counters []Counter

	// Violation is the first that was found, or nil.
	Violation *Violation[S, M]
}

// Counter is the number of steps in which something happened.
type Counter struct {
	Name  string
	Count uint64
}

// The search's own counters.
const (
	// Delivered counts messages that arrived, Lost those that made room.
	Delivered = "messages delivered"
	Lost      = "messages lost"

	// Duplicated counts messages that arrived and stayed in flight.
	Duplicated = "duplicates delivered"
)

// ErrUnfinished is in the error of a search that ended at Bounds.States.
var ErrUnfinished = errors.New("the search has not seen all states within its bounds")

// Err returns an error if the search found a violation, did not finish, or if a
// counter among those that must move stayed at zero.
func (r Result[S, M]) Err(mustMove ...string) error {
	if r.Violation != nil {
		return fmt.Errorf("%w\n%s", r.Violation.Err, r.Violation.Story)
	}
	if !r.Finished {
		return fmt.Errorf("%w; it knows %d, of paths up to %d steps", ErrUnfinished, r.States, r.Depth)
	}
	for _, name := range mustMove {
		i := slices.IndexFunc(r.Counters, func(c Counter) bool { return c.Name == name })
		switch {
		case i < 0:
			return fmt.Errorf("there is no counter %q", name)
		case r.Counters[i].Count == 0:
			return fmt.Errorf("the counter %q stayed at zero in %d states: the search proves nothing about it", name, r.States)
		}
	}
	return nil
}

// PerSecond returns how many states were found each second.
func (r Result[S, M]) PerSecond() float64 {
	return float64(r.States) / max(r.Elapsed.Seconds(), 1e-9)
}

// String sums the search up in a line of figures and a line of counters.
func (r Result[S, M]) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d states, %d steps, %d beyond the bounds, depth %d, %.2f s, %.0f states/s; %d local states, %d messages, %d histories",
		r.States, r.Steps, r.Beyond, r.Depth, r.Elapsed.Seconds(), r.PerSecond(), r.Locals, r.Messages, r.Histories)
	if !r.Finished && r.Violation == nil {
		b.WriteString("; unfinished")
	}
	b.WriteByte('\n')
	for i, c := range r.Counters {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", c.Name, c.Count)
	}
	return b.String()
}
