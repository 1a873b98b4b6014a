// Package check checks runs: histories of client operations, the values that
// replicas hold, and the invariants of Raft after every step.
//
// If a check cannot decide, it says so, and that is a failure: what was not
// checked has not passed.
package check

import (
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// Operation is one operation of a client, from its call to its return. A retry
// is part of the operation that it repeats.
type Operation struct {
	// Client is the ID of the client.
	Client uint64

	// Server is the last server that the client tried.
	Server uint64

	// Request is the client's request.
	Request api.Request

	// Invoke and Return are the times at which the operation began and ended,
	// on one clock, which advances between a return and the next call. Return
	// is valid only if Done is set.
	Invoke time.Duration
	Return time.Duration

	// Done is set when the client has its final result.
	Done bool

	// Response is the answer to the client, including Error.
	Response api.Response

	// Attempts is how often the request was sent.
	Attempts int
}

// History is all operations of the clients in a run, in the order of the calls.
type History []Operation

// Outcome is what a client knows about an operation.
type Outcome int

// The outcomes.
const (
	// Unknown: it may have happened, or may yet happen.
	Unknown Outcome = iota

	// Happened: it took effect, or the answer describes the content of the
	// store.
	Happened

	// Refused: it did not happen and never will.
	Refused
)

// Outcome returns what the client knows about the operation.
func (o Operation) Outcome() Outcome {
	if !o.Done {
		return Unknown
	}
	e := o.Response.Error
	if e == nil {
		return Happened
	}
	switch {
	case e.Code.FromStore():
		return Happened
	case e.Definite:
		return Refused
	}
	return Unknown
}

// command reports whether the operation is one of the store's.
func (o Operation) command() bool {
	return o.Request.Op == kv.Get || kv.Writes(o.Request.Op)
}

// Counts is the number of operations for each outcome.
type Counts struct {
	Happened int `json:"happened"`
	Refused  int `json:"refused"`
	Unknown  int `json:"unknown"`
}

// Add adds the counts of another history.
func (c *Counts) Add(o Counts) {
	c.Happened += o.Happened
	c.Refused += o.Refused
	c.Unknown += o.Unknown
}

// Counts counts the operations by outcome.
func (h History) Counts() Counts {
	var c Counts
	for _, o := range h {
		switch o.Outcome() {
		case Happened:
			c.Happened++
		case Refused:
			c.Refused++
		default:
			c.Unknown++
		}
	}
	return c
}
