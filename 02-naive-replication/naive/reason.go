package naive

import "fmt"

// Code names the rule behind a decision. The set is closed.
type Code string

// The rules.
const (
	// AppliedOnArrival: a follower applies whatever reaches it.
	AppliedOnArrival Code = "applied-on-arrival"

	// MajorityAnswered: a majority has the command, so it counts as done.
	MajorityAnswered Code = "majority-answered"

	// NoMajority: too few answered in time, so the client is told that it
	// failed.
	NoMajority Code = "no-majority"
)

// Reason is a decision and the facts it was made on.
type Reason struct {
	// Code says which rule decided.
	Code Code

	// Node is the server that decided.
	Node ID

	// Seq is the proposal it is about.
	Seq Seq

	// Answers is the number of followers that have it.
	Answers int

	// Members is the number of servers.
	Members int
}

// String describes the reason in words.
func (r Reason) String() string {
	switch r.Code {
	case AppliedOnArrival:
		return fmt.Sprintf("n%d applies command %d on arrival: nothing tells it what should have come before", r.Node, r.Seq)
	case MajorityAnswered:
		return fmt.Sprintf("n%d applies command %d: with %d answers, %d of %d servers have it", r.Node, r.Seq, r.Answers, 1+r.Answers, r.Members)
	default:
		return fmt.Sprintf("n%d gives up command %d: only %d of %d servers have it, and those keep it", r.Node, r.Seq, r.Answers, r.Members)
	}
}

// explain keeps a reason if somebody asked for them.
func (n *Naive) explain(r Reason) {
	if n.options.Explain {
		n.out.Reasons = append(n.out.Reasons, r)
	}
}
