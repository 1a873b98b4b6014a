package node

import (
	"time"

	"example.com/raftsteps/shared/core/api"
)

// Route makes the decisions of a client: which server to ask next, when to ask
// again, under which number of which session, and what is certain at the end. Like
// a Server, it has no clock and no goroutine, and one goroutine at a time calls it.
//
// Its driver carries out each Step and reports the result with one call of Answered
// or GaveUp. Each method may return steps for several calls. No call has more than
// one step at a time.
type Route interface {
	// Begin takes a request. call is a number below Own that the driver has not used
	// before.
	Begin(call uint64, r api.Request) []Step

	// Answered reports the result of a step: an answer, or an error if e is not nil.
	// If no answer came, e is not definite.
	Answered(call uint64, response api.Response, e *api.Error) []Step

	// GaveUp reports that a call has timed out, and how ("in time", "before it was
	// given up"). e is the error of the request that was on its way, nil if none
	// was. No request is sent after it, unless a step says so.
	GaveUp(call uint64, e *api.Error, how string) []Step
}

// RouteOf returns the route of a client that was given the servers at these
// endpoints. draw returns a random number below n.
type RouteOf func(endpoints []string, draw func(n uint64) uint64) Route

// Own is the first number of the calls that a Route begins by itself. Nobody waits
// for them, so they time out only step by step, and no step ends them.
const Own = 1 << 63

// Step is what the driver of a Route must do next for a call: ask a server, or end
// the call.
type Step struct {
	// Call is the number of the call.
	Call uint64

	// To is the address of the server to ask. After is how long to wait before that.
	To    string
	After time.Duration

	// Timeout is how long to wait for the answer; 0 means until the call times out.
	Timeout time.Duration

	// Request is what to ask.
	Request api.Request

	// Ended says that the call has ended, with Response, or with Err if it is not nil.
	Ended    bool
	Response api.Response
	Err      *api.Error
}
