package raft

import "slices"

// The invariants: what must be true of any run, whatever the network and the
// disks do. Most are the properties of Figure 3; they are checked after every
// output that a server carries out. Some compare a server with the others, some
// with what was seen before, so there is a memory that no server has.
//
// What a server believes is compared with the others' disks, not with their
// beliefs: a promise is about what would survive a crash at this moment.

// The names of the invariants.
const (
	electionSafety     = "Election Safety"
	leaderAppendOnly   = "Leader Append-Only"
	logMatching        = "Log Matching"
	leaderCompleteness = "Leader Completeness"
	stateMachineSafety = "State Machine Safety"
	logShape           = "Log Shape"
	monotone           = "Monotone"
	order              = "Order"
	allSaved           = "All Saved"
	savedFirst         = "Saved First"
	commitRule         = "Commit Rule"
	quorumLog          = "Quorum Log"
	upToDate           = "More Up-To-Date"
	progressTrue       = "Progress"
	leaderHasLast      = "Leader Has The Last"
	ownCheck           = "Own Check"
)

// ghost is what the checker knows and no server does.
type ghost struct {
	// leaders is who ever led a term.
	leaders map[Term]ID

	// votes is who ever received the vote of a server in a term.
	votes map[vote]ID

	// committed are the entries that a leader ever considered committed, each
	// with the term of the leader that was first.
	committed []committed

	// neighbours are configurations that followed each other, and are known to
	// overlap.
	neighbours map[string]bool
}

type vote struct {
	of   ID
	term Term
}

type committed struct {
	entry Entry
	in    Term
}

func newGhost() ghost {
	return ghost{leaders: map[Term]ID{}, votes: map[vote]ID{}, neighbours: map[string]bool{}}
}

// seen is what was true of a server when it was last looked at.
type seen struct {
	term            Term
	snapshot        Index
	commit, applied Index
	led             Term
	log             []Entry
}

// restart forgets what a server may forget in a crash.
func (s *seen) restart() { s.commit, s.applied, s.led = 0, 0, 0 }

// check looks at a server that has just carried out an output; grown says that
// the output committed something new.
func (c *cluster) check(s *server, grown bool) {
	c.checkMonotone(s)
	c.checkOrder(s)
	c.checkSaved(s)
	if s.raft.role == Leader {
		c.checkLeader(s)
		c.checkProgress(s)
	}
	if grown || s.raft.role == Leader && s.seen.led != s.raft.currentTerm {
		c.checkCompleteness()
	}
	if grown || !sameLog(s.seen.log, s.disk.all()) {
		c.checkDisk(s)
	}
	c.checkStage(s)
	s.seen.term, s.seen.commit, s.seen.applied = s.raft.currentTerm, s.raft.commitIndex, s.raft.lastApplied
	s.seen.snapshot, s.seen.log, s.seen.led = s.raft.snapshot.Index, s.disk.all(), 0
	if s.raft.role == Leader {
		s.seen.led = s.raft.currentTerm
	}
}

// checkMonotone: terms and snapshots never fall, not even over a restart;
// commitIndex and lastApplied never fall while the server lives.
func (c *cluster) checkMonotone(s *server) {
	r := s.raft
	if r.currentTerm < s.seen.term {
		c.broken(monotone, "%v went back from term %d to %d", s.id, s.seen.term, r.currentTerm)
	}
	if r.snapshot.Index < s.seen.snapshot {
		c.broken(monotone, "%v went back from a snapshot up to %d to one up to %d", s.id, s.seen.snapshot, r.snapshot.Index)
	}
	if r.commitIndex < s.seen.commit || r.lastApplied < s.seen.applied {
		c.broken(monotone, "%v went back from commit %d, applied %d to %d and %d", s.id, s.seen.commit, s.seen.applied, r.commitIndex, r.lastApplied)
	}
}

// checkOrder: base ≤ snapshot ≤ applied ≤ commit ≤ last, and nobody believes that
// more is committed than some leader has committed.
func (c *cluster) checkOrder(s *server) {
	r := s.raft
	if r.lastApplied > r.commitIndex || r.commitIndex > r.log.lastIndex() {
		c.broken(order, "%v has applied %d, committed %d, and its log ends at %d", s.id, r.lastApplied, r.commitIndex, r.log.lastIndex())
	}
	if r.log.base() > r.snapshot.Index || r.snapshot.Index > r.lastApplied {
		c.broken(order, "the log of %v begins after %d, its snapshot ends in %v, and it has applied %d", s.id, r.log.base(), r.snapshot, r.lastApplied)
	}
	if r.role != Leader && int(r.commitIndex) > len(c.ghost.committed) {
		c.broken(order, "%v believes in a commit up to %d, but leaders have committed up to %d", s.id, r.commitIndex, len(c.ghost.committed))
	}
}

// checkSaved: once an output is carried out, the disk holds what the server
// believes, so a crash loses nothing but what it may lose. A leader's snapshot is
// there before the log that goes with it.
func (c *cluster) checkSaved(s *server) {
	if s.raft.out.Rewrite {
		return
	}
	if state := s.raft.Status().State; s.disk.state != state {
		c.broken(allSaved, "%v believes in %+v, and its disk says %+v", s.id, state, s.disk.state)
	}
	if base, log := s.raft.Saved(); base != s.disk.base || !sameLog(log, s.disk.log) {
		c.broken(allSaved, "%v believes in a log that ends in %v, and its disk holds %v", s.id, s.raft.last(), s.disk.last())
	}
}

// checkLeader: at most one leader in a term, forever (Election Safety). It
// never removes or changes an entry while it leads (Leader Append-Only).
func (c *cluster) checkLeader(s *server) {
	term := s.raft.currentTerm
	if other, known := c.ghost.leaders[term]; known && other != s.id {
		c.broken(electionSafety, "%v and %v both lead term %d", other, s.id, term)
	}
	c.ghost.leaders[term] = s.id
	if s.seen.led == term && !(len(s.disk.all()) >= len(s.seen.log) && sameLog(s.seen.log, s.disk.all()[:len(s.seen.log)])) {
		c.broken(leaderAppendOnly, "%v leads term %d and changed its log", s.id, term)
	}
}

// checkCompleteness: what was committed in an older term is in every leader's
// log (Leader Completeness).
func (c *cluster) checkCompleteness() {
	for _, s := range c.servers {
		if s.raft == nil || s.raft.role != Leader {
			continue
		}
		for _, k := range c.ghost.committed {
			if k.in < s.raft.currentTerm && !s.disk.holds(k.entry) {
				c.broken(leaderCompleteness, "%v leads term %d without %v, which was committed in term %d", s.id, s.raft.currentTerm, place(k.entry), k.in)
				break
			}
		}
	}
}

// checkProgress: 0 ≤ match < next ≤ last+1, and what a leader believes to be on
// a follower's disk is there, as long as that follower is still in its term.
func (c *cluster) checkProgress(s *server) {
	for _, id := range s.raft.config().Members() {
		f := c.server(id)
		match, next := s.raft.Progress(id)
		if match >= next || next > s.raft.log.lastIndex()+1 {
			c.broken(progressTrue, "%v believes in match %d and next %d for %v, and its log ends at %d", s.id, match, next, f.id, s.raft.log.lastIndex())
		}
		if f.disk.state.CurrentTerm == s.raft.currentTerm && !f.replaced && !f.disk.agrees(s.disk.all(), match) {
			c.broken(progressTrue, "%v believes that %v has its entries up to %d, and the disk of %v ends in %v", s.id, f.id, match, f.id, f.disk.last())
		}
	}
}

// checkCommit notes what a leader has committed, before it tells anyone. It
// commits only by an entry of its own term that a majority has on disk (§5.4.2).
func (c *cluster) checkCommit(s *server) (grown bool) {
	r := s.raft
	news := int(r.commitIndex) > len(c.ghost.committed)
	led := r.role == Leader || s.seen.led == r.currentTerm // it may have handed over by now
	if !led || !news && (r.commitIndex == s.seen.commit || s.seen.led != r.currentTerm) {
		return false
	}
	if int(r.commitIndex) > len(s.disk.all()) {
		c.broken(commitRule, "%v commits up to %d before its own disk, which ends in %v, can count", s.id, r.commitIndex, s.disk.last())
		return false
	}
	last := s.disk.all()[r.commitIndex-1]
	if last.Term != r.currentTerm {
		c.broken(commitRule, "%v leads term %d and commits %v by counting", s.id, r.currentTerm, place(last))
	}
	if !quorum(s.raft.log.config(s.disk.last().Index), func(id ID) bool { return c.server(id).disk.holds(last) }) {
		c.broken(commitRule, "%v commits %v, which is on too few disks", s.id, place(last))
	}
	for i := len(c.ghost.committed); i < int(r.commitIndex); i++ {
		c.ghost.committed = append(c.ghost.committed, committed{s.disk.all()[i], r.currentTerm})
	}
	return news
}

// checkDisk looks at a disk that has changed, or at all it must hold once more
// is committed.
func (c *cluster) checkDisk(s *server) {
	c.checkShape(s)
	c.checkUpToDate(s)
	for _, other := range c.servers {
		if other != s {
			c.checkMatching(s, other)
			c.checkLast(s, other)
			c.checkLast(other, s)
		}
	}
	c.checkQuorumLog()
}

// checkShape: indexes follow each other, and terms never fall.
func (c *cluster) checkShape(s *server) {
	term := Term(1)
	for i, e := range s.disk.all() {
		if e.Index != Index(i+1) || e.Term < term || e.Term > s.disk.state.CurrentTerm {
			c.broken(logShape, "%v is in term %d and has %v at place %d after term %d", s.id, s.disk.state.CurrentTerm, place(e), i+1, term)
		}
		term = e.Term
	}
}

// checkMatching: if two logs hold an entry of the same index and term, they are
// identical up to it (Log Matching).
func (c *cluster) checkMatching(a, b *server) {
	x, y := a.disk.all(), b.disk.all()
	k := min(len(x), len(y))
	for k > 0 && x[k-1].Term != y[k-1].Term {
		k--
	}
	if !sameLog(x[:k], y[:k]) {
		c.broken(logMatching, "%v and %v both have %v, and differ up to it", a.id, b.id, place(x[k-1]))
	}
}

// checkUpToDate: a log that ends in a newer term than the one in which an entry
// was committed holds that entry; this is why the election restriction is enough
// (§5.4.1).
func (c *cluster) checkUpToDate(s *server) {
	for _, k := range c.ghost.committed {
		if s.disk.last().Term > k.in && !s.disk.holds(k.entry) {
			c.broken(upToDate, "the log of %v ends in %v and lacks %v, which was committed in term %d", s.id, s.disk.last(), place(k.entry), k.in)
			return
		}
	}
}

// checkLast: nobody has an entry of a leader's term that the leader lacks.
func (c *cluster) checkLast(a, b *server) {
	r := a.raft
	if r == nil || r.role != Leader {
		return
	}
	for _, e := range b.disk.all() {
		if e.Term == r.currentTerm && e.Index > r.log.lastIndex() {
			c.broken(leaderHasLast, "%v has %v, and the log of its leader %v ends in %v", b.id, place(e), a.id, r.last())
		}
	}
}

// checkQuorumLog: of any majority, one server has each committed entry on its
// disk, so no crash and no election can lose it.
func (c *cluster) checkQuorumLog() {
	config := c.config()
	for _, k := range c.ghost.committed {
		if quorum(config, func(id ID) bool { return !c.server(id).disk.holds(k.entry) }) {
			c.broken(quorumLog, "%v is committed, and a majority of the disks lack it", place(k.entry))
			return
		}
	}
}

// checkApply: no two servers ever apply different entries at an index (State
// Machine Safety), and each applies them in order, each once.
func (c *cluster) checkApply(s *server, e Entry) {
	if e.Index != Index(len(s.applied)+1) {
		c.broken(stateMachineSafety, "%v applies %v after %d others", s.id, place(e), len(s.applied))
	}
	if i := int(e.Index) - 1; i < len(c.ghost.committed) && !sameEntry(c.ghost.committed[i].entry, e) {
		c.broken(stateMachineSafety, "%v applies %s where %s was committed", s.id, entryWords(e), entryWords(c.ghost.committed[i].entry))
	}
}

// checkMessage looks at a message that leaves. It speaks of no term that is not
// on disk. Entries come from the one leader of their term, and are its own. A
// success promises that the entries are on this disk now (Saved First).
func (c *cluster) checkMessage(s *server, m Message) {
	if m.From != s.id || m.Term > s.disk.state.CurrentTerm {
		c.broken(savedFirst, "%v says %s, and its disk is in term %d", s.id, describe(m), s.disk.state.CurrentTerm)
	}
	switch b := m.Body.(type) {
	case AppendEntries:
		c.checkEntries(s, m.Term, b)
	case AppendEntriesReply:
		c.checkSuccess(s, m.Term, b)
	default:
		c.checkStageMessage(s, m)
	}
}

func (c *cluster) checkEntries(s *server, term Term, m AppendEntries) {
	if leader, known := c.ghost.leaders[term]; known && leader != s.id {
		c.broken(electionSafety, "%v leads term %d, but %v sends entries in it", leader, term, s.id)
	}
	c.ghost.leaders[term] = s.id
	for i, e := range m.Entries {
		if e.Index != m.PrevLogIndex+Index(i+1) || e.Term > term {
			c.broken(logShape, "%v sends %v at place %d after %d", s.id, place(e), i+1, m.PrevLogIndex)
		}
	}
	if r := s.raft; r.role == Leader && r.currentTerm == term {
		to := m.PrevLogIndex + Index(len(m.Entries))
		if m.PrevLogIndex < r.log.base() || !r.log.has(m.PrevLogIndex, m.PrevLogTerm) || to > r.log.lastIndex() || !sameLog(m.Entries, r.log.slice(m.PrevLogIndex+1, to)) {
			c.broken(logMatching, "%v sends entries after %d@%d that are not those of its log", s.id, m.PrevLogTerm, m.PrevLogIndex)
		}
	}
}

// checkSuccess: a follower that says that it has entries has them on its disk.
// If it has moved to a newer term meanwhile, the promise of the older one is
// void: the server that leads the newer term has all that was committed in the older.
func (c *cluster) checkSuccess(s *server, term Term, m AppendEntriesReply) {
	leader := c.ghost.leaders[term]
	if !m.Success || leader == 0 || term < s.disk.state.CurrentTerm {
		return
	}
	l := c.server(leader)
	if l.raft != nil && l.raft.role == Leader && l.raft.currentTerm == term && !s.disk.agrees(whole(&l.disk, l.raft), m.MatchIndex) {
		c.broken(savedFirst, "%v says that it has the entries of %v up to %d, and its disk ends in %v", s.id, leader, m.MatchIndex, s.disk.last())
	}
}

// holds reports whether an entry is on the disk.
func (d *disk) holds(e Entry) bool {
	return int(e.Index) <= len(d.all()) && sameEntry(d.all()[e.Index-1], e)
}

// agrees reports whether the disk has the same entries as a log, up to n.
func (d *disk) agrees(log []Entry, n Index) bool {
	return int(n) <= len(d.all()) && int(n) <= len(log) && sameLog(d.all()[:n], log[:n])
}

// whole returns all entries that a server believes in: those before its log are
// in its snapshot.
func whole(d *disk, r *Raft) []Entry {
	base := r.log.base()
	if base == 0 {
		return r.log.entries[1:]
	}
	all := make([]Entry, base, int(base)+len(r.log.entries))
	copy(all, d.snapshot)
	return append(all, r.log.entries[1:]...)
}

func sameLog(a, b []Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, sameEntry))
}

func place(e Entry) Position { return Position{e.Term, e.Index} }
