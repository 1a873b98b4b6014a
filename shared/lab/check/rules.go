package check

import (
	"bytes"
	"cmp"
	"slices"

	"example.com/raftsteps/shared/core/node"
)

// checkMonotone: terms and snapshot indexes never decrease, not even in a
// restart; commit and applied indexes never decrease between restarts.
func (c *Invariants) checkMonotone(w *watched, _ node.Inspector) error {
	name := node.Name(w.id)
	switch {
	case w.restarted && w.now.Term < w.savedTerm:
		return violated("I3", "Monotone", "%s had saved term %d and came back in term %d", name, w.savedTerm, w.now.Term)
	case w.restarted && w.now.SnapIndex < w.savedSnap:
		return violated("I3", "Monotone", "%s had saved a snapshot up to entry %d and came back with one up to %d", name, w.savedSnap, w.now.SnapIndex)
	case w.restarted:
		return nil
	}
	for _, f := range [...]struct {
		name        string
		before, now uint64
	}{
		{"term", w.before.Term, w.now.Term},
		{"snapshot index", w.before.SnapIndex, w.now.SnapIndex},
		{"commit index", w.before.Commit, w.now.Commit},
		{"applied index", w.before.Applied, w.now.Applied},
	} {
		if f.now < f.before {
			return violated("I3", "Monotone", "the %s of %s went back from %d to %d", f.name, name, f.before, f.now)
		}
	}
	return nil
}

// checkRecovered: a server that restarts has the vote and the log that it had
// saved.
func (c *Invariants) checkRecovered(w *watched, _ node.Inspector) error {
	if !w.restarted || w.torn {
		return nil
	}
	name := node.Name(w.id)
	if w.now.Term == w.savedTerm && w.savedVote != 0 && w.now.Vote != w.savedVote {
		return violated("I2", "One vote per term", "%s had saved its vote for n%d in term %d and came back with a vote for n%d",
			name, w.savedVote, w.savedTerm, w.now.Vote)
	}
	end := w.saved.last()
	if end <= w.now.SnapIndex {
		return nil
	}
	want, known := w.saved.chainAt(end)
	got, there := w.log.chainAt(end)
	if known && (!there || got != want) {
		return violated("I12", "Saved state survives a restart", "%s had saved its log up to entry %d and came back with another, which ends at %d", name, end, w.now.Last)
	}
	return nil
}

// checkChanged: a leader never changes its log, and no server removes a
// committed entry. changed is the first index whose entry is missing or
// different. A server that is still in an older term than the one in which the
// entry was committed may remove it, if the leader of that older term says so:
// the quorum does not include its copy.
func (c *Invariants) checkChanged(w *watched, changed uint64) error {
	name := node.Name(w.id)
	w.dirty = min(w.dirty, changed)
	if w.before.Role == node.Leader && w.now.Role == node.Leader && w.before.Term == w.now.Term {
		return violated("I6", "Leader Append-Only", "%s leads term %d and has changed entry %d of its own log", name, w.now.Term, changed)
	}
	if changed <= w.before.Commit {
		return violated("I15", "What is committed stays", "%s has removed entry %d, which it had committed (up to %d)", name, changed, w.before.Commit)
	}
	if changed <= uint64(len(c.committed)) && w.log.at(changed).chain == c.committed[changed-1].chain && c.committed[changed-1].in <= w.now.Term {
		return violated("I15", "What is committed stays", "%s has removed entry %d, which n%d had committed", name, changed, c.committed[changed-1].by)
	}
	return nil
}

// checkNewEntry: a new entry in a log has a term that fits its neighbors, is
// the only entry with its index and term, follows the same log on every server,
// and is not beyond the log of the leader of its term.
func (c *Invariants) checkNewEntry(w *watched, k uint64, e node.Entry) error {
	name := node.Name(w.id)
	below := w.now.SnapTerm
	if n := len(w.log.links); n > 0 {
		below = w.log.links[n-1].term
	}
	if e.Term < 1 || e.Term < below || e.Term > w.now.Term {
		return violated("I4", "Log shape", "entry %d of %s is of term %d, the one before it of term %d, and the server is in term %d",
			k, name, e.Term, below, w.now.Term)
	}
	l := c.extend(w, e)
	at := position{k, e.Term}
	if first, seen := c.created[at]; !seen {
		c.created[at] = origin{l.chain, w.id}
		c.noteConfig(w, k, e, true)
	} else if first.chain != l.chain {
		return violated("I5", "Log Matching", "%s and n%d have an entry %d of term %d, but not the same log up to it", name, first.server, k, e.Term)
	} else {
		c.noteConfig(w, k, e, false)
	}
	if leader := c.leaders[e.Term]; leader != 0 && leader != w.id {
		l := c.server(leader)
		if l.up && !l.restarted && l.now.Role == node.Leader && l.now.Term == e.Term && k > l.now.Last {
			return violated("I14", "The leader has the last entry of its term", "%s has an entry %d of term %d; n%d, which leads that term, ends at %d",
				name, k, e.Term, leader, l.now.Last)
		}
	}
	w.dirty = min(w.dirty, k)
	return nil
}

// checkLeader: a term has one leader, and it has every entry that was committed
// in an earlier term.
func (c *Invariants) checkLeader(w *watched, _ node.Inspector) error {
	if w.now.Role != node.Leader {
		return nil
	}
	other, seen := c.leaders[w.now.Term]
	if seen && other != w.id {
		return violated("I1", "Election Safety", "%s and n%d both lead term %d", node.Name(w.id), other, w.now.Term)
	}
	if seen {
		return nil
	}
	c.leaders[w.now.Term] = w.id
	if err := c.checkElected(w); err != nil {
		return err
	}
	for k := uint64(len(c.committed)); k > w.now.SnapIndex; k-- {
		entry := c.committed[k-1]
		if entry.in >= w.now.Term {
			continue
		}
		if chain, there := w.log.chainAt(k); !there || chain != entry.chain {
			return violated("I7", "Leader Completeness", "%s leads term %d without entry %d, which n%d committed in term %d",
				node.Name(w.id), w.now.Term, k, entry.by, entry.in)
		}
		return nil
	}
	return nil
}

// checkElected: a new leader has the votes of a quorum, of both halves if its
// configuration is joint. An appointed leader was not a candidate and needs no
// votes.
func (c *Invariants) checkElected(w *watched) error {
	if !c.first.known() && (w.restarted || w.before.Role != node.Candidate) {
		return nil
	}
	gave := func(s *watched) bool { return s == w || s.torn || c.keepsVote(s, w) }
	if !slices.ContainsFunc(w.inForce(), func(v node.Voters) bool { return c.quorumOf(v, gave) }) {
		return violated("I1", "Election Safety", "%s leads term %d without the votes of a quorum of (%s)", node.Name(w.id), w.now.Term, wordsOf(w.now.Config))
	}
	return nil
}

// checkCandidate: a candidate has voted for itself, and counts only votes that
// other servers have saved.
func (c *Invariants) checkCandidate(w *watched, _ node.Inspector) error {
	if w.now.Role != node.Candidate {
		return nil
	}
	name := node.Name(w.id)
	if w.now.Vote != w.id || !slices.Contains(w.now.Votes, w.id) {
		return violated("I17", "Candidate", "%s is a candidate in term %d, but it voted for n%d and counts the votes of %v", name, w.now.Term, w.now.Vote, w.now.Votes)
	}
	for _, voter := range w.now.Votes {
		if voter != w.id && !c.keepsVote(c.server(voter), w) {
			return violated("I17", "Candidate", "%s counts a vote of n%d in term %d that n%d has not saved", name, voter, w.now.Term, voter)
		}
	}
	return c.checkMayBeCandidate(w)
}

// keepsVote reports whether a voter can never vote for another server in a
// candidate's term: the vote is on its disk, or a later term is. Of two terms
// in one round only the later is saved, and that is enough for both.
func (c *Invariants) keepsVote(voter, candidate *watched) bool {
	switch c.votes[ballot{voter.id, candidate.now.Term}] {
	case candidate.id:
		return true
	case 0:
		return voter.savedTerm > candidate.now.Term
	default:
		return false
	}
}

func (c *Invariants) checkOrder(w *watched, _ node.Inspector) error {
	s := &w.now
	if s.SnapIndex > s.Applied || s.Applied > s.Commit || s.Commit > s.Last {
		return violated("I9", "Order", "%s has snapshot %d, applied %d, commit %d, last %d; each must be at most the next",
			node.Name(w.id), s.SnapIndex, s.Applied, s.Commit, s.Last)
	}
	return nil
}

// checkCommitRule: a leader commits by counting only entries of its own term,
// and only entries that a quorum holds, of both halves if the configuration is
// joint. The other servers must have the entry on their disks. For the leader
// its log is enough, because its answers wait for its own disk.
func (c *Invariants) checkCommitRule(w *watched, _ node.Inspector) error {
	k := w.now.Commit
	if !w.led() || k <= uint64(len(c.committed)) || k <= w.log.start {
		return nil
	}
	if term := w.log.at(k).term; term != w.now.Term {
		return violated("I10", "Commit rule", "%s leads term %d and commits entry %d of term %d by counting (§5.4.2)", node.Name(w.id), w.now.Term, k, term)
	}
	chain := w.log.at(k).chain
	holds := func(s *watched) bool {
		if s == w {
			return true
		}
		return s.holds(&s.saved, k, chain)
	}
	if !slices.ContainsFunc(w.inForce(), func(v node.Voters) bool { return c.quorumOf(v, holds) }) {
		return violated("I10", "Commit rule", "%s commits entry %d, but no quorum of (%s) holds it", node.Name(w.id), k, wordsOf(w.now.Config))
	}
	c.quorum = cloneVoters(w.now.Config)
	return nil
}

// led reports whether a server led its term in its last step. It may have
// committed an entry and transferred its leadership.
func (w *watched) led() bool {
	return w.now.Role == node.Leader || !w.restarted && w.before.Role == node.Leader && w.before.Term == w.now.Term
}

// holds reports whether a log has entry k with this hash.
func (w *watched) holds(log *cachedLog, k, chain uint64) bool {
	if k < log.start {
		// The snapshot covers it. What the snapshot contains was checked when
		// it was taken.
		return true
	}
	got, there := log.chainAt(k)
	return there && got == chain
}

// quorumOf reports whether the servers that satisfy f are a quorum of every
// half of a configuration. Without a configuration, all servers seen so far
// count.
func (c *Invariants) quorumOf(v node.Voters, f func(*watched) bool) bool {
	half := func(ids []uint64) bool {
		n := 0
		for _, id := range ids {
			if f(c.server(id)) {
				n++
			}
		}
		return 2*n > len(ids)
	}
	if len(v.Now) == 0 {
		ids := make([]uint64, len(c.servers))
		for i, w := range c.servers {
			ids[i] = w.id
		}
		return half(ids)
	}
	return half(v.Now) && (len(v.Next) == 0 || half(v.Next))
}

// checkCommitted: all servers commit the same entries. Only a leader can be
// the first to commit one.
func (c *Invariants) checkCommitted(w *watched, _ node.Inspector) error {
	from := w.before.Commit
	if w.restarted {
		from = w.log.start
	}
	for k := max(from, w.log.start) + 1; k <= w.now.Commit; k++ {
		l := w.log.at(k)
		if k <= uint64(len(c.committed)) {
			if first := c.committed[k-1]; first.chain != l.chain {
				return violated("I8", "State Machine Safety", "%s commits another entry %d (term %d) than n%d did (term %d)",
					node.Name(w.id), k, l.term, first.by, first.term)
			}
			continue
		}
		in := w.now.Term
		if !w.led() {
			if in = c.diedCommitting(w, k, l.chain); in == 0 {
				return violated("I9", "Order", "%s is a %s and commits entry %d, which no leader has committed", node.Name(w.id), w.now.Role, k)
			}
		}
		// An entry is not committed in an older term than the entry before it.
		// The term of a leader that died is a guess, and must not be lower
		// either.
		if n := len(c.committed); n > 0 {
			in = max(in, c.committed[n-1].in)
		}
		c.committed = append(c.committed, commitment{term: l.term, chain: l.chain, data: l.data, in: in, by: w.id})
		c.commitConfig(w, k)
	}
	return nil
}

// diedCommitting returns the term of a leader that may have committed an entry
// unobserved: it went down during a flush, after it had told followers about
// the commit. A quorum must still hold the entry. 0 means that there is no such
// leader.
func (c *Invariants) diedCommitting(w *watched, k, chain uint64) uint64 {
	holds := func(s *watched) bool { return s == w || s.torn || s.holds(&s.saved, k, chain) }
	for i := len(c.died) - 1; i >= 0; i-- {
		d := c.died[i]
		if d.term > w.now.Term || d.term < w.log.at(k).term {
			continue
		}
		if slices.ContainsFunc(c.thenInForce(w, d), func(v node.Voters) bool { return c.quorumOf(v, holds) }) {
			return d.term
		}
	}
	return 0
}

// checkHash: servers that have applied the same entries are in the same state.
func (c *Invariants) checkHash(w *watched, in node.Inspector) error {
	h, ok := in.(node.Hasher)
	k := w.now.Applied
	if !ok || k == 0 || (!w.restarted && k == w.before.Applied) {
		return nil
	}
	hash := h.StateHash()
	entry := &c.committed[k-1]
	if entry.hashBy == 0 {
		entry.hash, entry.hashBy = hash, w.id
		return nil
	}
	if entry.hash != hash {
		return violated("I8", "State Machine Safety", "%s and n%d have applied the same %d entries and are not in the same state", node.Name(w.id), entry.hashBy, k)
	}
	return nil
}

// checkProgress: a leader's matchIndex and nextIndex for the others are ordered
// and true.
func (c *Invariants) checkProgress(w *watched, _ node.Inspector) error {
	if w.now.Role != node.Leader {
		return nil
	}
	for _, p := range w.now.Progress {
		if p.ID == w.id {
			continue
		}
		if p.Match >= p.Next || p.Next > w.now.Last+1 {
			return violated("I13", "Progress", "%s has matchIndex %d and nextIndex %d for n%d, and its log ends at %d",
				node.Name(w.id), p.Match, p.Next, p.ID, w.now.Last)
		}
		other := c.server(p.ID)
		if p.Match == 0 || other.savedTerm != w.now.Term || other.replaced {
			continue
		}
		if chain, known := w.log.chainAt(p.Match); known && !other.holds(&other.saved, p.Match, chain) {
			return violated("I13", "Progress", "%s has matchIndex for n%d at entry %d, but n%d does not have it on its disk", node.Name(w.id), p.ID, p.Match, p.ID)
		}
	}
	return nil
}

// checkUpToDate: if a log ends in a newer term than the one in which an entry
// was committed, it holds that entry. This is why the election restriction is
// enough (§5.4.1). The term of the commit counts, not that of the entry: in
// Figure 8 an entry of term 2 is committed in term 4, and until then an entry
// of term 3 may be in its place.
func (c *Invariants) checkUpToDate(w *watched, _ node.Inspector) error {
	if err := c.upToDate(w); err != nil {
		return err
	}
	if w.restarted || w.now.Commit == w.before.Commit {
		return nil
	}
	for _, other := range c.servers {
		if other != w && other.up && !other.restarted {
			if err := c.upToDate(other); err != nil {
				return err
			}
		}
	}
	return nil
}

// upToDate checks the last entry committed before the last term of a log: a
// server that has this entry has all entries before it.
func (c *Invariants) upToDate(w *watched) error {
	last := w.lastTerm()
	k, _ := slices.BinarySearchFunc(c.committed, last, func(e commitment, term uint64) int { return cmp.Compare(e.in, term) })
	if k == 0 || w.holds(&w.log, uint64(k), c.committed[k-1].chain) {
		return nil
	}
	entry := c.committed[k-1]
	return violated("I18", "An up-to-date log has what is committed", "the log of %s ends in term %d at %d, but lacks entry %d, which n%d committed in term %d",
		node.Name(w.id), last, w.now.Last, k, entry.by, entry.in)
}

func (w *watched) lastTerm() uint64 {
	if n := len(w.log.links); n > 0 {
		return w.log.links[n-1].term
	}
	return w.now.SnapTerm
}

// flushed records what a server has saved, and checks its promises.
func (c *Invariants) flushed(w *watched) error {
	if err := c.checkPromises(w); err != nil {
		return err
	}
	changed := w.dirty != noIndex
	w.save()
	if changed || uint64(len(c.committed)) > 0 && c.committed[len(c.committed)-1].by == w.id {
		return c.checkDurable()
	}
	return nil
}

// checkPromises: a vote that is on the disk never changes within its term.
func (c *Invariants) checkPromises(w *watched) error {
	if w.now.Vote == 0 {
		return nil
	}
	at := ballot{w.id, w.now.Term}
	if first, seen := c.votes[at]; seen && first != w.now.Vote {
		return violated("I2", "One vote per term", "%s voted for n%d and for n%d in term %d", node.Name(w.id), first, w.now.Vote, w.now.Term)
	}
	c.votes[at] = w.now.Vote
	return nil
}

// save records the current log as saved.
func (w *watched) save() {
	w.savedTerm, w.savedVote, w.savedSnap = w.now.Term, w.now.Vote, w.now.SnapIndex
	w.torn = false
	if w.dirty == noIndex {
		return
	}
	keep := 0
	if w.saved.start == w.log.start && w.dirty > w.log.start {
		keep = int(min(w.dirty-w.log.start-1, uint64(len(w.saved.links)), uint64(len(w.log.links))))
	}
	w.saved.start, w.saved.chain = w.log.start, w.log.chain
	w.saved.links = append(w.saved.links[:keep], w.log.links[keep:]...)
	w.dirty = noIndex
}

// checkDurable: no quorum of the newest committed configuration could form
// without a server that has the last committed entry on its disk. A server that
// has this entry has all entries before it.
func (c *Invariants) checkDurable() error {
	k := uint64(len(c.committed))
	if k == 0 {
		return nil
	}
	last := c.committed[k-1]
	without := func(w *watched) bool { return !w.holds(&w.saved, k, last.chain) }
	quorum := c.quorum
	if members, _ := c.Members(); len(members.Now) > 0 {
		quorum = members
	}
	if c.quorumOf(quorum, without) {
		return violated("I11", "What is committed is on the disks of a quorum", "entry %d, committed by n%d, is on too few disks: a quorum could form without it", k, last.by)
	}
	return nil
}

// Sent checks a message as it leaves: its sender has reached its term, and only
// the leader of a term sends entries in it (I16). It knows the messages of the
// stages with terms, which begin {"term":3,"appendEntries":…}; it passes all
// others. It makes Invariants a listener of the simulator.
func (c *Invariants) Sent(from, to uint64, line []byte) error {
	digits, found := bytes.CutPrefix(line, []byte(`{"term":`))
	if !found {
		return nil
	}
	var term uint64
	for len(digits) > 0 && digits[0] >= '0' && digits[0] <= '9' {
		term, digits = 10*term+uint64(digits[0]-'0'), digits[1:]
	}
	w := c.server(from)
	if !w.up || w.restarted {
		return nil
	}
	if term > w.now.Term {
		return violated("I16", "Message terms", "%s is in term %d and sends n%d a message of term %d", node.Name(from), w.now.Term, to, term)
	}
	w.spoke = max(w.spoke, term)
	if bytes.HasPrefix(digits, []byte(`,"appendEntries":`)) && c.leaders[term] != from {
		return violated("I16", "Message terms", "%s sends n%d entries of term %d, which n%d leads", node.Name(from), to, term, c.leaders[term])
	}
	return nil
}
