package rules

// The invariants: what must be true of any run, whatever the network and the
// disks do. Most are the properties of Figure 3; they are checked after every
// output that a server carries out. Some compare a server with the others, some
// with what was seen before, so there is a memory that no server has.
//
// What a server believes is compared with the others' disks, not with their
// beliefs: a promise is about what would survive a crash at this moment.

// The names of the invariants.
const (
	ElectionSafety     = "Election Safety"
	LeaderAppendOnly   = "Leader Append-Only"
	LogMatching        = "Log Matching"
	LeaderCompleteness = "Leader Completeness"
	StateMachineSafety = "State Machine Safety"
	LogShape           = "Log Shape"
	Monotone           = "Monotone"
	Order              = "Order"
	AllSaved           = "All Saved"
	SavedFirst         = "Saved First"
	CommitRule         = "Commit Rule"
	QuorumLog          = "Quorum Log"
	UpToDate           = "More Up-To-Date"
	ProgressTrue       = "Progress"
	LeaderHasLast      = "Leader Has The Last"
	OwnCheck           = "Own Check"
)

// Ghost is what the checker knows and no server does.
type Ghost[E any] struct {
	// Leaders is who ever led a term.
	Leaders map[uint64]ID

	// Votes is who ever received the vote of a server in a term.
	Votes map[Vote]ID

	// Committed are the entries that a leader ever considered committed, each
	// with the term of the leader that was first.
	Committed []Committed[E]

	// Neighbours are configurations that followed each other, and are known to
	// overlap.
	Neighbours map[string]bool
}

// Vote is the vote of a server in a term.
type Vote struct {
	Of   ID
	Term uint64
}

// Committed is a committed entry, and the term of the leader that was the first
// to consider it committed.
type Committed[E any] struct {
	Entry E
	Term  uint64
}

func newGhost[E any]() Ghost[E] {
	return Ghost[E]{Leaders: map[uint64]ID{}, Votes: map[Vote]ID{}, Neighbours: map[string]bool{}}
}

// seen is what was true of a server when it was last looked at.
type seen[E any] struct {
	term, snapshot, commit, applied, led uint64
	log                                  []E
}

// restart forgets what a server may forget in a crash.
func (s *seen[E]) restart() { s.commit, s.applied, s.led = 0, 0, 0 }

// check looks at a server that has just carried out an output; grown says that
// the output committed something new.
func (c *Cluster[R, E, M, S]) check(s *Server[R, E, M, S], grown bool) {
	v := s.Raft.View()
	c.checkMonotone(s, v)
	c.checkOrder(s, v)
	c.checkSaved(s, v)
	if v.Leads {
		c.checkLeader(s, v)
		c.checkProgress(s, v)
	}
	if grown || v.Leads && s.seen.led != v.State.CurrentTerm {
		c.checkCompleteness()
	}
	if grown || !SameLog(s.seen.log, s.Disk.All()) {
		c.CheckDisk(s)
	}
	if c.stage.Check != nil {
		c.stage.Check(c, s)
	}
	s.seen.term, s.seen.commit, s.seen.applied = v.State.CurrentTerm, v.Commit, v.Applied
	s.seen.snapshot, s.seen.log, s.seen.led = v.Snapshot.Index, s.Disk.All(), 0
	if v.Leads {
		s.seen.led = v.State.CurrentTerm
	}
}

// checkMonotone: terms and snapshots never fall, not even over a restart;
// commitIndex and lastApplied never fall while the server lives.
func (c *Cluster[R, E, M, S]) checkMonotone(s *Server[R, E, M, S], v View) {
	if v.State.CurrentTerm < s.seen.term {
		c.Broken(Monotone, "%v went back from term %d to %d", s.ID, s.seen.term, v.State.CurrentTerm)
	}
	if v.Snapshot.Index < s.seen.snapshot {
		c.Broken(Monotone, "%v went back from a snapshot up to %d to one up to %d", s.ID, s.seen.snapshot, v.Snapshot.Index)
	}
	if v.Commit < s.seen.commit || v.Applied < s.seen.applied {
		c.Broken(Monotone, "%v went back from commit %d, applied %d to %d and %d", s.ID, s.seen.commit, s.seen.applied, v.Commit, v.Applied)
	}
}

// checkOrder: base ≤ snapshot ≤ applied ≤ commit ≤ last, and nobody believes that
// more is committed than some leader has committed.
func (c *Cluster[R, E, M, S]) checkOrder(s *Server[R, E, M, S], v View) {
	if v.Applied > v.Commit || v.Commit > v.Last.Index {
		c.Broken(Order, "%v has applied %d, committed %d, and its log ends at %d", s.ID, v.Applied, v.Commit, v.Last.Index)
	}
	if v.Base.Index > v.Snapshot.Index || v.Snapshot.Index > v.Applied {
		c.Broken(Order, "the log of %v begins after %d, its snapshot ends in %v, and it has applied %d", s.ID, v.Base.Index, v.Snapshot, v.Applied)
	}
	if !v.Leads && int(v.Commit) > len(c.Ghost.Committed) {
		c.Broken(Order, "%v believes in a commit up to %d, but leaders have committed up to %d", s.ID, v.Commit, len(c.Ghost.Committed))
	}
}

// checkSaved: once an output is carried out, the disk holds what the server
// believes, so a crash loses nothing but what it may lose. A leader's snapshot is
// there before the log that goes with it.
func (c *Cluster[R, E, M, S]) checkSaved(s *Server[R, E, M, S], v View) {
	if v.Rewrites {
		return
	}
	if v.State != s.Disk.State {
		c.Broken(AllSaved, "%v believes in %+v, and its disk says %+v", s.ID, v.State, s.Disk.State)
	}
	if base, log := s.Raft.Believed(); base != s.Disk.Base || !SameLog(log, s.Disk.Log) {
		c.Broken(AllSaved, "%v believes in a log that ends in %v, and its disk holds %v", s.ID, v.Last, s.Disk.Last())
	}
}

// checkLeader: at most one leader in a term, forever (Election Safety). It
// never removes or changes an entry while it leads (Leader Append-Only).
func (c *Cluster[R, E, M, S]) checkLeader(s *Server[R, E, M, S], v View) {
	term := v.State.CurrentTerm
	if other, known := c.Ghost.Leaders[term]; known && other != s.ID {
		c.Broken(ElectionSafety, "%v and %v both lead term %d", other, s.ID, term)
	}
	c.Ghost.Leaders[term] = s.ID
	if s.seen.led == term && !(len(s.Disk.All()) >= len(s.seen.log) && SameLog(s.seen.log, s.Disk.All()[:len(s.seen.log)])) {
		c.Broken(LeaderAppendOnly, "%v leads term %d and changed its log", s.ID, term)
	}
}

// checkCompleteness: what was committed in an older term is in every leader's
// log (Leader Completeness).
func (c *Cluster[R, E, M, S]) checkCompleteness() {
	for _, s := range c.Servers {
		v, up := s.view()
		if !up || !v.Leads {
			continue
		}
		for _, k := range c.Ghost.Committed {
			if k.Term < v.State.CurrentTerm && !s.Disk.Holds(k.Entry) {
				c.Broken(LeaderCompleteness, "%v leads term %d without %v, which was committed in term %d", s.ID, v.State.CurrentTerm, k.Entry.Place(), k.Term)
				break
			}
		}
	}
}

// checkProgress: 0 ≤ match < next ≤ last+1, and what a leader believes to be on
// a follower's disk is there, as long as that follower is still in its term.
func (c *Cluster[R, E, M, S]) checkProgress(s *Server[R, E, M, S], v View) {
	for _, id := range s.Raft.Followers() {
		f := c.Server(id)
		match, next := s.Raft.NextFor(id)
		if match >= next || next > v.Last.Index+1 {
			c.Broken(ProgressTrue, "%v believes in match %d and next %d for %v, and its log ends at %d", s.ID, match, next, f.ID, v.Last.Index)
		}
		if f.Disk.State.CurrentTerm == v.State.CurrentTerm && !f.Replaced && !f.Disk.Agrees(s.Disk.All(), match) {
			c.Broken(ProgressTrue, "%v believes that %v has its entries up to %d, and the disk of %v ends in %v", s.ID, f.ID, match, f.ID, f.Disk.Last())
		}
	}
}

// checkCommit notes what a leader has committed, before it tells anyone. It
// commits only by an entry of its own term that a majority has on disk (§5.4.2).
func (c *Cluster[R, E, M, S]) checkCommit(s *Server[R, E, M, S]) (grown bool) {
	v := s.Raft.View()
	news := int(v.Commit) > len(c.Ghost.Committed)
	led := v.Leads || s.seen.led == v.State.CurrentTerm // it may have handed over by now
	if !led || !news && (v.Commit == s.seen.commit || s.seen.led != v.State.CurrentTerm) {
		return false
	}
	if int(v.Commit) > len(s.Disk.All()) {
		c.Broken(CommitRule, "%v commits up to %d before its own disk, which ends in %v, can count", s.ID, v.Commit, s.Disk.Last())
		return false
	}
	last := s.Disk.All()[v.Commit-1]
	if last.Place().Term != v.State.CurrentTerm {
		c.Broken(CommitRule, "%v leads term %d and commits %v by counting", s.ID, v.State.CurrentTerm, last.Place())
	}
	if !c.decides(s, func(id ID) bool { return c.Server(id).Disk.Holds(last) }) {
		c.Broken(CommitRule, "%v commits %v, which is on too few disks", s.ID, last.Place())
	}
	for i := len(c.Ghost.Committed); i < int(v.Commit); i++ {
		c.Ghost.Committed = append(c.Ghost.Committed, Committed[E]{s.Disk.All()[i], v.State.CurrentTerm})
	}
	return news
}

// CheckDisk looks at a disk that has changed, or at all it must hold once more
// is committed.
func (c *Cluster[R, E, M, S]) CheckDisk(s *Server[R, E, M, S]) {
	c.checkShape(s)
	c.checkUpToDate(s)
	for _, other := range c.Servers {
		if other != s {
			c.checkMatching(s, other)
			c.checkLast(s, other)
			c.checkLast(other, s)
		}
	}
	c.checkQuorumLog()
}

// checkShape: indexes follow each other, and terms never fall.
func (c *Cluster[R, E, M, S]) checkShape(s *Server[R, E, M, S]) {
	term := uint64(1)
	for i, e := range s.Disk.All() {
		if p := e.Place(); p.Index != uint64(i+1) || p.Term < term || p.Term > s.Disk.State.CurrentTerm {
			c.Broken(LogShape, "%v is in term %d and has %v at place %d after term %d", s.ID, s.Disk.State.CurrentTerm, e.Place(), i+1, term)
		}
		term = e.Place().Term
	}
}

// checkMatching: if two logs hold an entry of the same index and term, they are
// identical up to it (Log Matching).
func (c *Cluster[R, E, M, S]) checkMatching(a, b *Server[R, E, M, S]) {
	x, y := a.Disk.All(), b.Disk.All()
	k := min(len(x), len(y))
	for k > 0 && x[k-1].Place().Term != y[k-1].Place().Term {
		k--
	}
	if !SameLog(x[:k], y[:k]) {
		c.Broken(LogMatching, "%v and %v both have %v, and differ up to it", a.ID, b.ID, x[k-1].Place())
	}
}

// checkUpToDate: a log that ends in a newer term than the one in which an entry
// was committed holds that entry; this is why the election restriction is enough
// (§5.4.1).
func (c *Cluster[R, E, M, S]) checkUpToDate(s *Server[R, E, M, S]) {
	for _, k := range c.Ghost.Committed {
		if s.Disk.Last().Term > k.Term && !s.Disk.Holds(k.Entry) {
			c.Broken(UpToDate, "the log of %v ends in %v and lacks %v, which was committed in term %d", s.ID, s.Disk.Last(), k.Entry.Place(), k.Term)
			return
		}
	}
}

// checkLast: nobody has an entry of a leader's term that the leader lacks.
func (c *Cluster[R, E, M, S]) checkLast(a, b *Server[R, E, M, S]) {
	v, up := a.view()
	if !up || !v.Leads {
		return
	}
	for _, e := range b.Disk.All() {
		if p := e.Place(); p.Term == v.State.CurrentTerm && p.Index > v.Last.Index {
			c.Broken(LeaderHasLast, "%v has %v, and the log of its leader %v ends in %v", b.ID, e.Place(), a.ID, v.Last)
		}
	}
}

// checkQuorumLog: of any majority, one server has each committed entry on its
// disk, so no crash and no election can lose it.
func (c *Cluster[R, E, M, S]) checkQuorumLog() {
	for _, k := range c.Ghost.Committed {
		if c.decides(nil, func(id ID) bool { return !c.Server(id).Disk.Holds(k.Entry) }) {
			c.Broken(QuorumLog, "%v is committed, and a majority of the disks lack it", k.Entry.Place())
			return
		}
	}
}

// checkApply: no two servers ever apply different entries at an index (State
// Machine Safety), and each applies them in order, each once.
func (c *Cluster[R, E, M, S]) checkApply(s *Server[R, E, M, S], e E) {
	if e.Place().Index != uint64(len(s.Applied)+1) {
		c.Broken(StateMachineSafety, "%v applies %v after %d others", s.ID, e.Place(), len(s.Applied))
	}
	if i := int(e.Place().Index) - 1; i < len(c.Ghost.Committed) && !c.Ghost.Committed[i].Entry.Same(e) {
		c.Broken(StateMachineSafety, "%v applies %s where %s was committed", s.ID, EntryWords(e), EntryWords(c.Ghost.Committed[i].Entry))
	}
}

// checkMessage looks at a message that leaves. It speaks of no term that is not
// on disk. Entries come from the one leader of their term, and are its own. A
// success promises that the entries are on this disk now (Saved First).
func (c *Cluster[R, E, M, S]) checkMessage(s *Server[R, E, M, S], m M) {
	head := m.Head()
	if head.From != s.ID || head.Term > s.Disk.State.CurrentTerm {
		c.Broken(SavedFirst, "%v says %s, and its disk is in term %d", s.ID, Describe[E](m), s.Disk.State.CurrentTerm)
	}
	if b, is := m.Append(); is {
		c.checkEntries(s, head.Term, b)
	} else if b, is := m.AppendReply(); is {
		c.checkSuccess(s, head.Term, b)
	} else if c.stage.CheckMessage != nil {
		c.stage.CheckMessage(c, s, m)
	}
}

func (c *Cluster[R, E, M, S]) checkEntries(s *Server[R, E, M, S], term uint64, m Append[E]) {
	if leader, known := c.Ghost.Leaders[term]; known && leader != s.ID {
		c.Broken(ElectionSafety, "%v leads term %d, but %v sends entries in it", leader, term, s.ID)
	}
	c.Ghost.Leaders[term] = s.ID
	for i, e := range m.Entries {
		if p := e.Place(); p.Index != m.Prev.Index+uint64(i+1) || p.Term > term {
			c.Broken(LogShape, "%v sends %v at place %d after %d", s.ID, p, i+1, m.Prev.Index)
		}
	}
	if v := s.Raft.View(); v.Leads && v.State.CurrentTerm == term && !within(m, v.Base, s.Raft.LogEntries()) {
		c.Broken(LogMatching, "%v sends entries after %v that are not those of its log", s.ID, m.Prev)
	}
}

// within reports whether an AppendEntries is a part of a log that begins after
// base.
func within[E Entry[E]](m Append[E], base Position, log []E) bool {
	if m.Prev.Index < base.Index {
		return false
	}
	from := int(m.Prev.Index - base.Index)
	if from+len(m.Entries) > len(log) {
		return false
	}
	prev := base
	if from > 0 {
		prev = log[from-1].Place()
	}
	return m.Prev == prev && SameLog(m.Entries, log[from:from+len(m.Entries)])
}

// checkSuccess: a follower that says that it has entries has them on its disk.
// If it has moved to a newer term meanwhile, the promise of the older one is
// void: the server that leads the newer term has all that was committed in the older.
func (c *Cluster[R, E, M, S]) checkSuccess(s *Server[R, E, M, S], term uint64, m AppendReply) {
	leader := c.Ghost.Leaders[term]
	if !m.Success || leader == 0 || term < s.Disk.State.CurrentTerm {
		return
	}
	l := c.Server(leader)
	if v, up := l.view(); up && v.Leads && v.State.CurrentTerm == term && !s.Disk.Agrees(Whole(&l.Disk, l.Raft), m.MatchIndex) {
		c.Broken(SavedFirst, "%v says that it has the entries of %v up to %d, and its disk ends in %v", s.ID, leader, m.MatchIndex, s.Disk.Last())
	}
}

// decides reports whether the servers for which has is true can decide.
func (c *Cluster[R, E, M, S]) decides(by *Server[R, E, M, S], has func(ID) bool) bool {
	if c.stage.Decides != nil {
		return c.stage.Decides(c, by, has)
	}
	var voters []ID
	for _, s := range c.Servers {
		voters = append(voters, s.ID)
	}
	return Majority(voters, has)
}

// Majority reports whether has is true of more than half of the voters.
func Majority(voters []ID, has func(ID) bool) bool {
	n := 0
	for _, id := range voters {
		if has(id) {
			n++
		}
	}
	return n > len(voters)/2
}
