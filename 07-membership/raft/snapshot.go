package raft

import "slices"

// A log cannot grow forever, so each server writes a snapshot of its state
// machine now and then and forgets the entries that it covers (§7). A follower
// that needs one of those gets the snapshot instead, in chunks.
//
// The rules know of a snapshot only its position, the last entry it covers. The
// driver has the file: it fills the chunks in, stores those that come, and says
// by Compact and Restore when a snapshot is on its disk.

// InstallSnapshot brings one chunk of the leader's snapshot (Figure 13).
type InstallSnapshot struct {
	// LastIncluded is the last entry that the snapshot covers.
	LastIncluded Position

	// MatchIndex is the receiver's: the leader counts on its entries up to there.
	MatchIndex Index

	// Offset is where the chunk stands in the file.
	Offset uint64

	// Data is the chunk. The rules leave it empty, and the driver fills it in
	// before it sends the message.
	Data []byte

	// Done is true for the last chunk; the driver's too.
	Done bool
}

// InstallSnapshotReply asks for the next chunk.
type InstallSnapshotReply struct {
	// LastIncluded is that of the request.
	LastIncluded Position

	// Offset is where the chunk stands that the follower lacks.
	Offset uint64
}

func (m InstallSnapshot) step(r *Raft, from ID)      { r.handleInstallSnapshot(from, m) }
func (m InstallSnapshotReply) step(r *Raft, from ID) { r.handleInstallSnapshotReply(from, m) }

// delivery is a snapshot on its way from a leader to a follower.
type delivery struct {
	// snapshot is which one.
	snapshot Position

	// leader and term are whose it is: two servers need not write the same
	// bytes, so the chunks of one delivery come from one leader in one term.
	leader ID
	term   Term

	// offset is where the next chunk begins.
	offset uint64

	// sent is how often that chunk was sent, or another since the server was last
	// heard from; waiting is true from then until the next heartbeat.
	sent    int
	waiting bool
}

// patience is how often a chunk is sent before its receiver counts as gone. From
// then on it is sent heartbeats without entries, until it answers one.
const patience = 10

// sendSnapshot sends the chunk that a follower lacks: once, and again with each
// heartbeat.
func (r *Raft) sendSnapshot(to ID) {
	p := r.progress[to]
	if p.delivery.snapshot != r.snapshot {
		p.delivery = delivery{snapshot: r.snapshot, sent: p.delivery.sent}
		r.explain(Reason{Rule: SentSnapshot, Peer: to, Index: p.nextIndex, Mine: r.snapshot})
	}
	p.probing, p.probed = true, true
	if !p.delivery.waiting {
		p.delivery.waiting, p.delivery.sent = true, p.delivery.sent+1
		r.sendEarly(to, InstallSnapshot{LastIncluded: r.snapshot, MatchIndex: p.matchIndex, Offset: p.delivery.offset})
	}
}

// needsSnapshot reports whether a server needs an entry that is forgotten.
func (r *Raft) needsSnapshot(p *progress) bool { return p.nextIndex <= r.log.base() }

// Sending reports whether a follower is being sent the snapshot. A newer one
// would have to be sent from its beginning, so the driver delays it as long as
// it can; otherwise a cluster with many writes would never bring a follower up
// to date.
func (r *Raft) Sending() bool {
	return slices.ContainsFunc(r.others(), func(id ID) bool {
		p := r.progress[id]
		return p != nil && r.needsSnapshot(p) && p.delivery.sent > 0 && p.delivery.sent < patience
	})
}

// handleInstallSnapshot is the receiver's side of Figure 13, up to the point
// where the snapshot is complete; the rest is in Restore.
func (r *Raft) handleInstallSnapshot(from ID, m InstallSnapshot) {
	r.follow(from)
	if m.MatchIndex > r.log.lastIndex() {
		r.lostEntries(from, m.MatchIndex)
	}
	switch last := m.LastIncluded; {
	case last.Index <= r.commitIndex && r.log.has(last.Index, last.Term):
		// It has all that.
		r.send(from, AppendEntriesReply{Success: true, MatchIndex: r.commitIndex})
		return
	case last.Index <= r.commitIndex || last.Term < r.log.term(r.commitIndex):
		// A leader has all that is committed, and terms in a log never decrease.
		r.deny(from, min(last.Index, r.commitIndex), last)
		return
	}
	if in := r.incoming; in.snapshot != m.LastIncluded || in.leader != from || in.term != r.currentTerm {
		r.incoming = delivery{snapshot: m.LastIncluded, leader: from, term: r.currentTerm}
	}
	if m.Offset == r.incoming.offset {
		r.incoming.offset += uint64(len(m.Data))
		r.out.Chunks = append(r.out.Chunks, m)
	}
	r.send(from, InstallSnapshotReply{LastIncluded: m.LastIncluded, Offset: r.incoming.offset})
}

// handleInstallSnapshotReply sends the chunk that the follower asks for: a later
// one, or the first if it has to begin again. One in between is an old answer,
// unless the chunk was sent more than once: then an old answer had led too far.
func (r *Raft) handleInstallSnapshotReply(from ID, m InstallSnapshotReply) {
	p := r.progress[from]
	if r.role != Leader || p == nil || m.LastIncluded != r.snapshot || !r.needsSnapshot(p) {
		return
	}
	p.silent = 0
	if at := p.delivery.offset; m.Offset > at || m.Offset < at && (m.Offset == 0 || p.delivery.sent > 1) {
		p.delivery = delivery{snapshot: m.LastIncluded, offset: m.Offset}
		r.sendSnapshot(from)
	}
}

// Compact says that a snapshot of the state machine at an applied entry is on
// the disk, and so is a log that begins after base. The entries between base
// and the snapshot stay: a follower that is only a little behind still gets
// entries. The driver calls it when Take has returned nothing, so no chunk of the
// snapshot before waits to be sent. A snapshot brings its configuration, so a server
// that joins takes none before it knows one.
func (r *Raft) Compact(snapshot, base Index) {
	r.snapshot = r.Position(snapshot)
	r.explain(Reason{Rule: Compacted, Mine: r.snapshot, Index: base})
	r.log.compact(r.Position(base))
}

// Restore says that a leader's snapshot is complete, checked and on the disk,
// and that the state machine holds it. If the log has the entry at its end, all
// that follows stays; else nothing of the log is worth keeping (Figure 13, 6 to
// 8).
func (r *Raft) Restore(snapshot Position, config Config) {
	if r.Discard(); snapshot.Index <= r.commitIndex {
		return
	}
	r.snapshot, r.out.Rewrite = snapshot, true
	if !r.log.has(snapshot.Index, snapshot.Term) {
		r.log = newLog(snapshot, config, nil)
	}
	r.log.compact(snapshot)
	r.explain(Reason{Rule: Restored, Mine: snapshot})
	r.commitIndex, r.lastApplied, r.saved = snapshot.Index, snapshot.Index, min(r.saved, snapshot.Index)
	if r.role == Follower && r.leader != 0 {
		r.send(r.leader, AppendEntriesReply{Success: true, MatchIndex: snapshot.Index})
	}
}

// Discard forgets what came of a snapshot, whether it was used or not.
func (r *Raft) Discard() { r.incoming = delivery{} }
