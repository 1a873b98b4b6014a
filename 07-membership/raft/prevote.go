package raft

import "slices"

// Three rules keep a server that cannot win an election, such as one that was
// removed or cut off, from deposing a leader that works: it asks before it moves to
// a new term (Pre-Vote, thesis §9.6), servers that hear a leader ignore its requests
// (§6), and a leader without a majority steps down (thesis §6.2).

// startPreVote asks the others whether they would vote for this server before it
// moves to a new term. A server that is not a voter asks too, and may learn that it
// was removed. One that has learned that, or that knows no voters, asks nobody: it
// cannot become a candidate, and a leader that adds it sends it the log.
func (r *Raft) startPreVote() {
	r.becomeFollower(r.currentTerm)
	r.resetTimeout()
	if r.removed || len(r.config().Voters) == 0 {
		return
	}
	r.explain(Reason{Rule: Asks, Term: r.currentTerm + 1, Mine: r.last()})
	r.askForVotes(RequestVote{PreVote: true})
}

// disturbs reports whether a message is a call for an election that nobody
// needs: this server heard from a leader less than the least election timeout
// ago, or leads (§6). It does not even move to the candidate's term. But a leader
// tells a server that was removed.
func (r *Raft) disturbs(m Message) bool {
	request, ok := m.Body.(RequestVote)
	if !ok || request.Transfer || r.leader == 0 || r.role != Leader && r.elapsed >= r.options.ElectionTicks[0] {
		return false
	}
	r.explain(Reason{Rule: LeaderLives, Peer: m.From, Other: r.leader})
	if r.role == Leader && r.mayChange() == nil && !slices.Contains(r.config().Members(), m.From) {
		r.send(m.From, RequestVoteReply{Removed: true, Committed: r.Position(r.commitIndex)})
	}
	return true
}

// checkQuorum ends the leadership of a server that has not heard from a
// majority for an election timeout: it cannot commit, and its clients should
// look for another (thesis §6.2). Nor can it commit while it waits for a
// successor, so it waits no longer than that (thesis §3.10).
func (r *Raft) checkQuorum() {
	if r.timeout -= r.options.HeartbeatTicks; r.timeout <= 0 {
		r.successor = 0
	}
	if !r.config().Majority(func(id ID) bool { return r.progress[id].silent*r.options.HeartbeatTicks <= r.options.ElectionTicks[1] }) {
		r.explain(Reason{Rule: LostMajority, Term: r.currentTerm})
		r.becomeFollower(r.currentTerm)
	}
}
