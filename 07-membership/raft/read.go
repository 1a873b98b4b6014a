package raft

import "slices"

// A linearizable read must see every write that was acknowledged before it
// began, without a log entry of its own (§8, thesis §6.4). The leader notes its
// commitIndex, makes sure by one exchange with a majority that it still leads,
// and lets the read be answered when the state machine has reached that index.
// All reads that wait share one exchange. A follower asks the leader for the
// index and answers the read itself.

// ReadID names a read on the server that received it.
type ReadID uint64

// ReadIndex asks the leader for the index at which a read may be answered.
type ReadIndex struct {
	// ID is the follower's latest read; the answer serves all before it.
	ID ReadID
}

// ReadIndexReply answers ReadIndex: the reads up to ID may be answered once the
// state machine has applied the entry at Index.
type ReadIndexReply struct {
	ID    ReadID
	Index Index
}

func (m ReadIndex) step(r *Raft, from ID)      { r.handleReadIndex(from, m) }
func (m ReadIndexReply) step(r *Raft, from ID) { r.handleReadIndexReply(m) }

// reads is what a server remembers of the reads it has not answered.
type reads struct {
	// next is the latest read that was given out, asked the latest the leader
	// was asked about, done the latest that may be answered. It begins at a
	// random number, so that an answer to an earlier life means nothing.
	next, asked, done ReadID

	// age counts ticks since the leader was last asked.
	age int

	// round numbers the exchanges of this leader; every AppendEntries carries
	// the latest.
	round uint64

	// pending are the reads that a leader answers, its own among them, in the
	// order of their rounds; a round of 0 means that none has begun.
	pending []pendingRead
}

// pendingRead is a read that waits for a majority to confirm the leader.
type pendingRead struct {
	from ID
	ReadIndexReply
	round uint64
}

// stepDown forgets what was promised as a leader. The server's own reads, and
// those it asked an older leader for, go to the next one.
func (s *reads) stepDown() { s.pending, s.asked = nil, s.done }

// Read announces a read. It may be answered when Output.Reads holds its ID or a
// later one; until a leader is known it waits.
func (r *Raft) Read() ReadID {
	r.reads.next++
	return r.reads.next
}

// sendReads asks the leader about the reads that came since the last Take.
func (r *Raft) sendReads() {
	if r.reads.next == r.reads.asked || r.leader == 0 {
		return
	}
	r.reads.asked, r.reads.age = r.reads.next, 0
	if r.role == Leader {
		r.handleReadIndex(r.options.ID, ReadIndex{ID: r.reads.next})
	} else {
		r.sendEarly(r.leader, ReadIndex{ID: r.reads.next})
	}
}

// retryReads asks again when a leader elsewhere has been silent.
func (r *Raft) retryReads() {
	if r.reads.age++; r.role != Leader && r.reads.age >= r.options.HeartbeatTicks {
		r.reads.asked, r.reads.age = r.reads.done, 0
	}
}

// handleReadIndex takes a read of a member. One of a server that was removed waits
// until that server asks for votes, and learns of its removal.
func (r *Raft) handleReadIndex(from ID, m ReadIndex) {
	if r.role == Leader && (from == r.options.ID || slices.Contains(r.others(), from)) {
		r.reads.pending = append(r.reads.pending, pendingRead{from: from, ReadIndexReply: ReadIndexReply{ID: m.ID}})
	}
}

// beginRound gives the reads that wait an index and a round of their own. A
// round that began before a read cannot confirm it. A leader that has not
// committed an entry of its term does not know yet where the committed log
// ends, so its reads wait (§8).
func (r *Raft) beginRound() {
	n := len(r.reads.pending)
	if n == 0 || r.reads.pending[n-1].round != 0 || r.log.term(r.commitIndex) != r.currentTerm {
		return
	}
	r.reads.round++
	for i := range r.reads.pending {
		if p := &r.reads.pending[i]; p.round == 0 {
			p.Index, p.round = r.commitIndex, r.reads.round
		}
	}
	r.confirmReads()
}

// confirmReads answers the reads whose round a majority has answered.
func (r *Raft) confirmReads() {
	for len(r.reads.pending) > 0 {
		p := r.reads.pending[0]
		if p.round == 0 || !r.config().Majority(func(id ID) bool { return id == r.options.ID || r.progress[id].round >= p.round }) {
			return
		}
		r.reads.pending = r.reads.pending[1:]
		r.explain(Reason{Rule: ReadConfirmed, Peer: p.from, Index: p.Index, Term: r.currentTerm})
		if p.from == r.options.ID {
			r.handleReadIndexReply(p.ReadIndexReply)
		} else if slices.Contains(r.others(), p.from) {
			r.sendAppendEntries(p.from) // so that it learns of the commit now
			r.sendEarly(p.from, p.ReadIndexReply)
		}
	}
}

func (r *Raft) handleReadIndexReply(m ReadIndexReply) {
	if m.ID > r.reads.done && m.ID <= r.reads.next {
		r.reads.done = m.ID
		r.out.Reads = append(r.out.Reads, m)
	}
}
