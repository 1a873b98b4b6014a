package raft

import "errors"

// Lead makes this server the leader of a term, on the word of the operator.
// Nothing asks the other servers: whether its log holds all that was
// acknowledged, and whether the term is free, is the operator's concern.
func (r *Raft) Lead(term Term) error {
	if term <= r.currentTerm {
		return ErrTermIsOver
	}
	r.becomeFollower(term)
	r.explain(Reason{Rule: Appointed, Term: term, Mine: r.last()})
	r.becomeLeader()
	return nil
}

// ErrTermIsOver is returned by Lead for a term that has a leader already.
var ErrTermIsOver = errors.New("the term of an appointment must be newer than the server's own")
