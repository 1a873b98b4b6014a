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

	// Removed says that the server that asked is not a member any more.
	Removed bool
}

func (m RequestVote) step(r *Raft, from ID)      { r.handleRequestVote(from, m) }
func (m RequestVoteReply) step(r *Raft, from ID) { r.handleRequestVoteReply(from, m) }

// startPreVote asks the others whether they would vote for this server, before
// it moves to a new term: one that cannot win must not depose a leader that does
// its work. A server that is not a voter asks too, and may hear that it was
// removed.
func (r *Raft) startPreVote() {
	r.becomeFollower(r.currentTerm)
	r.resetTimeout()
	r.preVotes = []ID{r.options.ID}
	r.explain(Reason{Rule: Asks, Term: r.currentTerm + 1, Mine: r.last()})
	for id := range r.others() {
		r.send(id, RequestVote{LastLogIndex: r.log.lastIndex(), LastLogTerm: r.log.lastTerm(), PreVote: true})
	}
	r.countPreVotes()
}

// startElection makes this server a candidate in a new term (§5.2). It votes
// for itself; its requests leave once that vote is on disk.
func (r *Raft) startElection(transfer bool) {
	r.role, r.leader, r.preVotes = Candidate, 0, nil
	r.reads.stepDown()
	r.setTerm(r.currentTerm+1, r.options.ID)
	r.votes = []ID{r.options.ID}
	r.resetTimeout()
	r.explain(Reason{Rule: TimedOut, Term: r.currentTerm, Mine: r.last()})
	for id := range r.others() {
		r.send(id, RequestVote{LastLogIndex: r.log.lastIndex(), LastLogTerm: r.log.lastTerm(), Transfer: transfer})
	}
	r.countVotes()
}

// handleRequestVote grants a vote if this server has not given it to another
// and the candidate's log is at least as up to date as its own (§5.2, §5.4).
func (r *Raft) handleRequestVote(from ID, m RequestVote) {
	theirs := Position{m.LastLogTerm, m.LastLogIndex}
	switch {
	case r.votedFor != 0 && r.votedFor != from && !m.PreVote:
		r.explain(Reason{Rule: AlreadyVoted, Peer: from, Other: r.votedFor, Term: r.currentTerm})
		r.send(from, RequestVoteReply{})
	case theirs.before(r.last()):
		r.explain(Reason{Rule: OldLog, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
		r.send(from, RequestVoteReply{PreVote: m.PreVote})
	case m.PreVote:
		r.explain(Reason{Rule: WouldVote, Peer: from, Term: r.currentTerm + 1, Theirs: theirs, Mine: r.last()})
		r.send(from, RequestVoteReply{Granted: true, PreVote: true})
	default:
		r.explain(Reason{Rule: Voted, Peer: from, Term: r.currentTerm, Theirs: theirs, Mine: r.last()})
		r.setTerm(r.currentTerm, from)
		r.elapsed = 0
		r.send(from, RequestVoteReply{Granted: true})
	}
}

func (r *Raft) handleRequestVoteReply(from ID, m RequestVoteReply) {
	switch {
	case !m.Granted:
		r.removed = m.Removed
	case m.PreVote && r.preVotes != nil && !slices.Contains(r.preVotes, from):
		r.preVotes = append(r.preVotes, from)
		r.countPreVotes()
	case !m.PreVote && r.role == Candidate && !slices.Contains(r.votes, from):
		r.votes = append(r.votes, from)
		r.countVotes()
	}
}

// countPreVotes starts the election if a majority would vote for this voter.
func (r *Raft) countPreVotes() {
	if r.config().votes(r.options.ID) && r.config().Majority(func(id ID) bool { return slices.Contains(r.preVotes, id) }) {
		r.startElection(false)
	}
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
		r.send(m.From, RequestVoteReply{Removed: true})
	}
	return true
}

// checkQuorum ends the reign of a leader that has not heard from a majority for
// an election timeout: it cannot commit, and its clients should look for
// another (thesis §6.2).
func (r *Raft) checkQuorum() {
	for id := range r.others() {
		r.progress[id].silent++
	}
	if p := r.progress[r.successor]; p == nil || p.silent > r.options.HeartbeatTicks*2 {
		r.successor = 0
	}
	if !r.config().Majority(func(id ID) bool { return id == r.options.ID || r.progress[id].silent <= r.options.ElectionTicks[1] }) {
		r.explain(Reason{Rule: LostMajority, Term: r.currentTerm})
		r.becomeFollower(r.currentTerm)
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
	r.elapsed, r.timeout = 0, low+int(r.options.Random(uint64(high-low+1)))
}
