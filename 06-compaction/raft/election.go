package raft

import "slices"

// RequestVote asks for a vote (§5.2).
type RequestVote struct {
	// LastLogIndex and LastLogTerm are the candidate's last entry.
	LastLogIndex Index
	LastLogTerm  Term
}

// RequestVoteReply answers RequestVote.
type RequestVoteReply struct {
	// Granted is true if the candidate received the vote.
	Granted bool
}

func (m RequestVote) step(r *Raft, from ID)      { r.handleRequestVote(from, m) }
func (m RequestVoteReply) step(r *Raft, from ID) { r.handleRequestVoteReply(from, m) }

// startElection makes this server a candidate in a new term (§5.2). It votes
// for itself; its requests leave once that vote is on disk.
func (r *Raft) startElection() {
	r.role, r.leader = Candidate, 0
	r.reads.stepDown()
	r.setTerm(r.currentTerm+1, r.options.ID)
	r.resetTimeout()
	r.explain(Reason{Rule: TimedOut, Term: r.currentTerm, Mine: r.last()})
	for _, id := range r.others() {
		r.send(id, RequestVote{LastLogIndex: r.last().Index, LastLogTerm: r.last().Term})
	}
	r.votes = []ID{r.options.ID}
	r.countVotes()
}

// handleRequestVote grants a vote if this server has not given it to another
// and the candidate's log is at least as up to date as its own (§5.2, §5.4).
func (r *Raft) handleRequestVote(from ID, m RequestVote) {
	theirs, reply := Position{m.LastLogTerm, m.LastLogIndex}, RequestVoteReply{}
	switch {
	case r.votedFor != 0 && r.votedFor != from:
		r.explain(Reason{Rule: AlreadyVoted, Peer: from, Other: r.votedFor, Term: r.currentTerm})
	case theirs.before(r.last()):
		r.explain(Reason{Rule: OldLog, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
	default:
		r.explain(Reason{Rule: Voted, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
		r.setTerm(r.currentTerm, from)
		r.elapsed, reply.Granted = 0, true
	}
	r.send(from, reply)
}

func (r *Raft) handleRequestVoteReply(from ID, m RequestVoteReply) {
	if r.role == Candidate && m.Granted && !slices.Contains(r.votes, from) {
		r.votes = append(r.votes, from)
		r.countVotes()
	}
}

// countVotes makes the candidate leader if a majority voted for it.
func (r *Raft) countVotes() {
	if r.config().Majority(func(id ID) bool { return slices.Contains(r.votes, id) }) {
		r.explain(Reason{Rule: Elected, Term: r.currentTerm, Votes: slices.Clone(r.votes)})
		r.becomeLeader()
	}
}

// resetTimeout draws a new election timeout, so that split votes are rare and
// do not repeat (§5.2).
func (r *Raft) resetTimeout() {
	low, high := r.options.ElectionTicks[0], r.options.ElectionTicks[1]
	r.denied, r.elapsed, r.timeout = false, 0, low+int(r.options.Random(uint64(high-low+1)))
}
