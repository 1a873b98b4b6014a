package raft

import "slices"

// RequestVote asks for a vote (§5.2).
type RequestVote struct {
	// LastLogIndex and LastLogTerm are the candidate's last entry.
	LastLogIndex Index
	LastLogTerm  Term

	// PreVote only asks whether the vote would be given, in the next term
	// (thesis §9.6).
	PreVote bool

	// Transfer says that the leader itself wants the election (thesis §3.10).
	Transfer bool
}

// RequestVoteReply answers RequestVote.
type RequestVoteReply struct {
	// Granted is true if the candidate received the vote.
	Granted bool

	// PreVote is that of the request.
	PreVote bool

	// Removed says that the server that asked is no longer a member, by all that
	// is committed up to Committed.
	Removed   bool
	Committed Position
}

func (m RequestVote) step(r *Raft, from ID)      { r.handleRequestVote(from, m) }
func (m RequestVoteReply) step(r *Raft, from ID) { r.handleRequestVoteReply(from, m) }

// startElection makes this server a candidate in a new term (§5.2). It votes
// for itself; its requests leave once that vote is on disk.
func (r *Raft) startElection(transfer bool) {
	r.role, r.leader = Candidate, 0
	r.reads.stepDown()
	r.setTerm(r.currentTerm+1, r.options.ID)
	r.resetTimeout()
	r.explain(Reason{Rule: TimedOut, Term: r.currentTerm, Mine: r.last()})
	r.askForVotes(RequestVote{Transfer: transfer})
}

// askForVotes asks everybody. The first vote is its own.
func (r *Raft) askForVotes(m RequestVote) {
	m.LastLogIndex, m.LastLogTerm = r.last().Index, r.last().Term
	for _, id := range r.others() {
		r.send(id, m)
	}
	r.votes = []ID{r.options.ID}
	r.countVotes()
}

// handleRequestVote grants a vote if this server has not given it to another
// and the candidate's log is at least as up to date as its own (§5.2, §5.4). A
// server that knows no voters does not vote: it has the configuration in its log
// before its vote counts, so it is either not a voter or has lost its disk.
func (r *Raft) handleRequestVote(from ID, m RequestVote) {
	theirs, reply := Position{m.LastLogTerm, m.LastLogIndex}, RequestVoteReply{}
	switch {
	case len(r.config().Voters) == 0:
		r.explain(Reason{Rule: KnowsNoVoters, Peer: from, Term: r.currentTerm})
	case r.votedFor != 0 && r.votedFor != from && !m.PreVote:
		r.explain(Reason{Rule: AlreadyVoted, Peer: from, Other: r.votedFor, Term: r.currentTerm})
	case theirs.before(r.last()):
		r.explain(Reason{Rule: OldLog, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
	case m.PreVote:
		r.explain(Reason{Rule: WouldVote, Peer: from, Term: r.currentTerm + 1, Theirs: theirs, Mine: r.last()})
		reply = RequestVoteReply{Granted: true, PreVote: true}
	default:
		r.explain(Reason{Rule: Voted, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
		r.setTerm(r.currentTerm, from)
		r.elapsed, reply.Granted = 0, true
	}
	r.send(from, reply)
}

func (r *Raft) handleRequestVoteReply(from ID, m RequestVoteReply) {
	r.hearRemoval(m)
	if r.votes != nil && m.PreVote == (r.role == Follower) && m.Granted && !slices.Contains(r.votes, from) {
		r.votes = append(r.votes, from)
		r.countVotes()
	}
}

// countVotes makes the candidate leader if a majority voted for it, and a
// candidate of the follower if a majority would.
func (r *Raft) countVotes() {
	won := r.mayCampaign() && r.config().Majority(func(id ID) bool { return slices.Contains(r.votes, id) })
	switch {
	case !won:
	case r.role == Follower:
		r.startElection(false)
	default:
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
