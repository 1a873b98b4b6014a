package raft

import (
	"fmt"
	"slices"
)

// AppendEntries replicates entries; without any it is a heartbeat (§5.3).
type AppendEntries struct {
	// PrevLogIndex and PrevLogTerm are the entry that the new ones follow.
	PrevLogIndex Index
	PrevLogTerm  Term

	// Matched is true if the leader counts on the receiver's copy of that entry:
	// PrevLogIndex is the receiver's matchIndex.
	Matched bool

	// Entries are to be stored, in order.
	Entries []Entry

	// LeaderCommit is the leader's commitIndex.
	LeaderCommit Index
}

// AppendEntriesReply answers AppendEntries.
type AppendEntriesReply struct {
	// Success is true if the follower has the entry at PrevLogIndex.
	Success bool

	// MatchIndex is the last entry that is known to agree with the leader's
	// and is on the follower's disk, if Success.
	MatchIndex Index

	// Refused is the PrevLogIndex that did not match, if not Success, and the
	// rest a hint: ConflictIndex is the first index the follower has of
	// ConflictTerm, or one past its log's end with ConflictTerm 0 (§5.3, end).
	Refused       Index
	ConflictIndex Index
	ConflictTerm  Term
}

func (m AppendEntries) step(r *Raft, from ID)      { r.handleAppendEntries(from, m) }
func (m AppendEntriesReply) step(r *Raft, from ID) { r.handleAppendEntriesReply(from, m) }

// progress is what a leader knows of one server. Always
// 0 ≤ matchIndex < nextIndex ≤ lastIndex+1: entries up to matchIndex are
// replicated, those in (matchIndex, nextIndex) are on their way, and those
// from nextIndex on have not been sent.
type progress struct {
	// nextIndex is the next entry to send to that server.
	nextIndex Index

	// matchIndex is the highest entry known to be replicated on it.
	matchIndex Index

	// probing is true until the server has agreed to a PrevLogIndex: then one
	// message at a time looks for the place where the logs meet.
	probing bool

	// probed is true once that message was sent, with its entries. Until the
	// server answers, heartbeats go to it without: it may be down.
	probed bool
}

// maxInFlight is how many entries may be on their way to one follower. One
// that does not answer costs no more than that.
const maxInFlight = 4096

// replicate sends each follower what it lacks, without waiting for answers.
func (r *Raft) replicate() {
	for _, id := range r.others() {
		p := r.progress[id]
		for !p.probing && p.nextIndex <= r.log.lastIndex() && p.nextIndex-p.matchIndex <= maxInFlight {
			r.sendAppendEntries(id)
		}
	}
}

// broadcast sends an AppendEntries to everyone, even if it is empty.
func (r *Raft) broadcast() {
	r.elapsed = 0
	for _, id := range r.others() {
		r.sendAppendEntries(id)
	}
}

func (r *Raft) sendAppendEntries(to ID) {
	p := r.progress[to]
	prev := p.nextIndex - 1
	m := AppendEntries{PrevLogIndex: prev, PrevLogTerm: r.log.term(prev), Matched: prev > 0 && prev == p.matchIndex, LeaderCommit: r.commitIndex}
	if !p.probed && p.nextIndex-p.matchIndex <= maxInFlight {
		m.Entries = r.log.batch(p.nextIndex, r.options.MaxBatch)
	}
	if p.probed = p.probing; !p.probing {
		p.nextIndex += Index(len(m.Entries))
	}
	r.sendEarly(to, m)
}

// handleAppendEntries is the receiver's side of Figure 2; its rule 1 is in
// Step.
func (r *Raft) handleAppendEntries(from ID, m AppendEntries) {
	if r.role == Leader {
		r.explain(Reason{Rule: TwoLeaders, Alarm: true, Peer: from, Term: r.currentTerm})
		return
	}
	if r.denied {
		return
	}
	r.leader = from
	// 2. Reply false if log doesn't contain an entry at prevLogIndex whose
	// term matches prevLogTerm.
	if !r.log.has(m.PrevLogIndex, m.PrevLogTerm) {
		r.refuseEntries(from, m)
		return
	}
	// 3. If an existing entry conflicts with a new one, delete it and all that
	// follow it, unless it is committed (§5.4.3). 4. Append any new entries not
	// already in the log.
	for i, e := range m.Entries {
		if r.log.has(e.Index, e.Term) {
			continue
		}
		if e.Index <= r.commitIndex {
			r.deny(from, e.Index, Position{e.Term, e.Index})
			return
		}
		if e.Index <= r.log.lastIndex() {
			r.explain(Reason{Rule: Truncated, Peer: from, Mine: Position{r.log.term(e.Index), e.Index}, Theirs: Position{e.Term, e.Index}})
			r.truncate(e.Index)
		}
		r.append(m.Entries[i:]...)
		break
	}
	// 5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit,
	// index of last new entry). What follows that entry may be a tail
	// that the leader does not have.
	match := m.PrevLogIndex + Index(len(m.Entries))
	r.commitTo(min(m.LeaderCommit, match), LearnedCommit)
	r.send(from, AppendEntriesReply{Success: true, MatchIndex: match})
}

// deny refuses a leader that has another entry where this server knows one to be
// committed. It lacks what a leader must have, or it is no leader at all: this server
// neither obeys nor follows it.
func (r *Raft) deny(leader ID, committed Index, theirs Position) {
	r.leader, r.denied = 0, true
	r.explain(Reason{Rule: Contradicts, Alarm: true, Peer: leader, Term: r.currentTerm, Mine: Position{r.log.term(committed), committed}, Theirs: theirs})
}

func (r *Raft) refuseEntries(from ID, m AppendEntries) {
	if m.PrevLogIndex <= r.commitIndex {
		r.deny(from, m.PrevLogIndex, Position{m.PrevLogTerm, m.PrevLogIndex})
		return
	}
	if m.Matched {
		r.lostEntries(from, m.PrevLogIndex)
	}
	reply := AppendEntriesReply{Refused: m.PrevLogIndex, ConflictIndex: r.log.lastIndex() + 1}
	if m.PrevLogIndex <= r.log.lastIndex() {
		reply.ConflictTerm, reply.ConflictIndex = r.log.term(m.PrevLogIndex), m.PrevLogIndex
		for reply.ConflictIndex > r.commitIndex+1 && r.log.term(reply.ConflictIndex-1) == reply.ConflictTerm {
			reply.ConflictIndex--
		}
	}
	r.explain(Reason{Rule: Refused, Peer: from, Theirs: Position{m.PrevLogTerm, m.PrevLogIndex}, Mine: r.last()})
	r.send(from, reply)
}

// lostEntries stops this server: it has acknowledged the entries up to an index,
// the leader counts on them, and this log lacks them. So its disk has lost them,
// and it must not take part. This can be a false alarm only if the operator gave
// one term to two leaders: matchIndex rests on replies of the leader's own term,
// each sent once the entries were on disk, and in that term nobody else may remove
// them.
func (r *Raft) lostEntries(leader ID, index Index) {
	panic(Contradiction{Forgot: true, Text: fmt.Sprintf(
		"%[1]v's disk has lost entries that %[1]v had acknowledged, or term %[5]d has two leaders: the leader %[2]v counts on entries up to %[3]d, but %[1]v's log, which ends at %[4]d, lacks some of them; put the lost files back or leave this server stopped",
		r.options.ID, leader, index, r.log.lastIndex(), r.currentTerm)})
}

// handleAppendEntriesReply learns where a follower's log agrees.
func (r *Raft) handleAppendEntriesReply(from ID, m AppendEntriesReply) {
	p := r.progress[from]
	if r.role != Leader || p == nil || max(m.MatchIndex, m.Refused) > r.log.lastIndex() {
		return
	}
	if m.Success {
		p.matchIndex = max(p.matchIndex, m.MatchIndex)
		p.nextIndex, p.probing, p.probed = max(p.nextIndex, p.matchIndex+1), false, false
		return
	}
	// A refusal is news only if it is about the latest probe, or ends the
	// pipelining; others were sent before nextIndex fell back. One at or below
	// matchIndex is older than matchIndex: the network has reordered them. A
	// follower that had lost those entries would not refuse but stop.
	if m.Refused <= p.matchIndex || p.probing && m.Refused != p.nextIndex-1 {
		return
	}
	p.nextIndex, p.probing, p.probed = max(p.matchIndex+1, min(r.meetingPoint(m), m.Refused)), true, false
	r.explain(Reason{Rule: FellBack, Peer: from, Index: p.nextIndex, Theirs: Position{m.ConflictTerm, m.ConflictIndex}})
	r.sendAppendEntries(from)
}

// meetingPoint is the first index to send after a refusal: past the leader's
// last entry of the conflicting term if it has one, else the follower's first
// of that term. So a whole term is skipped in one round.
func (r *Raft) meetingPoint(m AppendEntriesReply) Index {
	for i := min(m.Refused, r.log.lastIndex()); m.ConflictTerm != 0 && i >= m.ConflictIndex; i-- {
		if r.log.term(i) == m.ConflictTerm {
			return i + 1
		}
	}
	return m.ConflictIndex
}

// advanceCommitIndex commits what a majority has on disk. If there exists an N
// such that N > commitIndex, a majority of matchIndex[i] ≥ N, and log[N].term
// == currentTerm: set commitIndex = N (§5.3, §5.4). An older entry is committed
// only by one that follows it: counting its copies is not enough (Figure 8).
func (r *Raft) advanceCommitIndex() {
	*r.progress[r.options.ID] = progress{matchIndex: r.saved, nextIndex: r.saved + 1}
	for _, id := range r.config().Members() {
		n := r.progress[id].matchIndex
		if n > r.commitIndex && r.log.term(n) == r.currentTerm &&
			r.config().Majority(func(id ID) bool { return r.progress[id].matchIndex >= n }) {
			r.commitTo(n, Committed)
		}
	}
}

// commitTo raises commitIndex; it never falls.
func (r *Raft) commitTo(index Index, why *Rule) {
	if index > r.commitIndex {
		r.commitIndex = index
		r.explain(Reason{Rule: why, Index: index, Mine: r.last()})
	}
}

// others returns all servers but this one.
func (r *Raft) others() []ID {
	return slices.DeleteFunc(r.config().Members(), func(id ID) bool { return id == r.options.ID })
}
