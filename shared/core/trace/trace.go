// Package trace defines the events that all parts share: a server logs them, a
// test reads them, the narrator writes them for people, and a trace file stores
// them.
//
// An event is a fact: at this time, on this server, this happened, for this
// reason. The simulator and the real world emit the same events, in virtual
// and in real time.
package trace

import (
	"fmt"
	"time"
)

// Kind is what happened. The set is closed: a reader of traces can rely on it.
type Kind string

// The kinds.
const (
	// Start: a server came up. Text says what it recovered.
	Start Kind = "start"

	// Stop: a server ended by itself, in order. Text says why.
	Stop Kind = "stop"

	// Crash: a server lost its power: its memory and what it had not synced.
	Crash Kind = "crash"

	// Pause and Resume: a server is suspended, and continues.
	Pause  Kind = "pause"
	Resume Kind = "resume"

	// Cut and Heal: messages From → To are lost from now on, or pass again.
	Cut  Kind = "cut"
	Heal Kind = "heal"

	// Send, Deliver, Drop: a message From → To. Drop says in Text why.
	Send    Kind = "send"
	Deliver Kind = "deliver"
	Drop    Kind = "drop"

	// Request and Reply: a client's operation reaches a server, and the server's
	// answer.
	Request Kind = "request"
	Reply   Kind = "reply"

	// Invoke and Return: the same, seen from the client.
	Invoke Kind = "invoke"
	Return Kind = "return"

	// Role: a server changed its role, its term, or both.
	Role Kind = "role"

	// Decide: a server took a decision; Reason says which rule made it.
	Decide Kind = "decide"

	// State: a server's state after a round differs from the one before; State says
	// in what. Only traces of real servers have it: a simulator can look itself.
	State Kind = "state"

	// Begin: the trace of one process of a server begins. Origin says where it
	// comes from. Every trace of a real server begins with it, and so does the rest
	// of the trace after each restart.
	Begin Kind = "begin"

	// Save: a server synced its disk.
	Save Kind = "save"

	// Trouble: something failed that the server does not need at once. Text says
	// what, and what follows from it.
	Trouble Kind = "trouble"

	// Apply: a server applied a command to its state machine.
	Apply Kind = "apply"

	// Logs: the logs of all servers side by side, as a table in Text, with the
	// entries by index, and the committed ones before a bar.
	Logs Kind = "logs"

	// Note: a comment of a scenario: what it does and why.
	Note Kind = "note"

	// Verdict: the result of a checker. A Reason says which rule was broken;
	// without one there was no error.
	Verdict Kind = "verdict"
)

// Event is one thing that happened. Fields that do not apply are zero and are
// left out of the JSON.
type Event struct {
	// At is the time since the run began: virtual in the simulator.
	At time.Duration `json:"at"`

	// Step numbers the steps of the simulator, or the rounds of a real server:
	// several events may belong to one step. 0 is before the first.
	Step uint64 `json:"step,omitempty"`

	// Node is the server on which it happened; 0 for the world outside.
	Node uint64 `json:"node,omitempty"`

	// Kind says what happened.
	Kind Kind `json:"kind"`

	// Role and Term are those of Node afterwards.
	Role string `json:"role,omitempty"`
	Term uint64 `json:"term,omitempty"`

	// From and To are the ends of a message or of a link.
	From uint64 `json:"from,omitempty"`
	To   uint64 `json:"to,omitempty"`

	// Number is the place of a message among all that were sent on its link, from
	// 1 on: it pairs a Send with its Deliver or Drop. 0 where nobody counts.
	Number uint64 `json:"number,omitempty"`

	// Sides are the groups of servers that a partition has left: every link between
	// two groups, and to a server in no group, is cut. The others are whole.
	Sides [][]uint64 `json:"sides,omitempty"`

	// Client is the client that sent the request.
	Client uint64 `json:"client,omitempty"`

	// Message is the line of a message or a request, as it was sent over the
	// wire.
	Message string `json:"message,omitempty"`

	// Index is the log index it is about.
	Index uint64 `json:"index,omitempty"`

	// Reason says which rule decided.
	Reason *Reason `json:"reason,omitempty"`

	// Text is a sentence for people.
	Text string `json:"text,omitempty"`

	// State has the fields of node.Changes.
	State Raw `json:"state,omitempty"`

	// Origin says where a trace comes from.
	Origin *Origin `json:"origin,omitempty"`
}

// Origin is where a trace comes from.
type Origin struct {
	// Stage is the name of the stage, Cluster that of the cluster.
	Stage   string `json:"stage"`
	Cluster string `json:"cluster"`

	// Began is the wall time at which the times of the trace begin, in nanoseconds
	// since 1970.
	Began int64 `json:"began"`
}

// Raw is a JSON value as it is written.
type Raw string

// UnmarshalJSON implements json.Unmarshaler.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = Raw(b)
	return nil
}

// Reason is why a server decided as it did.
type Reason struct {
	// Code names the rule, for tests: one of a closed set per stage.
	Code string `json:"code"`

	// Section is where the paper states the rule, such as "§5.4.1".
	Section string `json:"section,omitempty"`

	// Text gives the facts of this case: "n3 refuses its vote to n1: …".
	Text string `json:"text"`
}

// Sink receives events. A nil Sink means that nothing is traced; code that emits
// an event checks this first, so that a silent run costs nothing. A Sink is
// called by one goroutine at a time.
type Sink func(Event)

// IsDown is the Text of a Drop whose receiver is not running.
func IsDown(server uint64) string { return fmt.Sprintf("n%d is down", server) }
