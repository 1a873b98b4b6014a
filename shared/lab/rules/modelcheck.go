package rules

import (
	"fmt"
	"slices"

	"example.com/raftsteps/shared/lab/explore"
)

// Broken is the error of an invariant that does not hold.
type Broken struct{ Name, Text string }

func (b Broken) Error() string { return b.Name + ": " + b.Text }

// broken notes the first invariant that does not hold.
func (p *Model[R, E, M, X, B]) broken(err *error, name, format string, args ...any) {
	wanted := len(p.Only) == 0 && p.Goal == "" || slices.Contains(p.Only, name) || p.Goal == name
	if *err == nil && wanted {
		*err = Broken{name, fmt.Sprintf(format, args...)}
	}
}

// Ensure notes an invariant that does not hold, if it is the first.
func (p *Model[R, E, M, X, B]) Ensure(err *error, holds bool, name, format string, args ...any) {
	if !holds {
		p.broken(err, name, format, args...)
	}
}

// checkChange compares a server with what it was.
func (p *Model[R, E, M, X, B]) checkChange(err *error, a, b *Machine[R, X, E], restarted bool) {
	was, is := a.Raft.View(), b.Raft.View()
	id := is.ID
	p.Ensure(err, a.Disk.State.CurrentTerm <= b.Disk.State.CurrentTerm, Monotone, "the term on the disk of %v falls", id)
	p.Ensure(err, len(a.Disk.Snapshot) <= len(b.Disk.Snapshot), Monotone, "the snapshot of %v goes back to %v", id, b.Disk.Covered())
	p.Ensure(err, is.Applied <= is.Commit && is.Commit <= is.Last.Index, Order,
		"%v has applied %d, committed %d, and its log ends at %d", id, is.Applied, is.Commit, is.Last.Index)
	p.Ensure(err, is.Base.Index <= is.Snapshot.Index && is.Snapshot.Index <= is.Applied, Order,
		"the log of %v begins after %d, its snapshot ends in %v, and it has applied %d", id, is.Base.Index, is.Snapshot, is.Applied)
	before, commitTerm := is.Base, is.Base.Term
	for _, e := range b.Raft.LogEntries() {
		at := e.Place()
		p.Ensure(err, at.Index == before.Index+1 && at.Term >= max(before.Term, 1) && at.Term <= is.State.CurrentTerm, LogShape,
			"%v has %v behind %v in term %d", id, at, before, is.State.CurrentTerm)
		if before = at; at.Index == is.Commit {
			commitTerm = at.Term
		}
	}
	x, y := a.Disk.State, b.Disk.State
	p.Ensure(err, x.CurrentTerm != y.CurrentTerm || x.VotedFor == 0 || x.VotedFor == y.VotedFor, OneVote,
		"%v gave its vote in term %d to %v, and now it is %v's", id, y.CurrentTerm, x.VotedFor, y.VotedFor)
	if p.CheckChange != nil {
		p.CheckChange(p, err, a, b)
	}
	if restarted {
		return
	}
	p.Ensure(err, was.State.CurrentTerm <= is.State.CurrentTerm && was.Commit <= is.Commit && was.Applied <= is.Applied, Monotone,
		"the term, the commit or what is applied falls on %v", id)
	old, now := Whole(&a.Disk, a.Raft), Whole(&b.Disk, b.Raft)
	kept := is.Last.Index >= was.Commit && SameLog(old[:was.Commit], now[:was.Commit])
	p.Ensure(err, kept, StateMachineSafety, "%v removes or changes entries up to %d, which are committed", id, was.Commit)
	if !is.Leads {
		return
	}
	if was.Leads && was.State.CurrentTerm == is.State.CurrentTerm {
		kept := len(now) >= len(old) && SameLog(old, now[:len(old)])
		p.Ensure(err, kept, LeaderAppendOnly, "%v leads term %d and changes its log", id, is.State.CurrentTerm)
	}
	p.Ensure(err, is.Commit == was.Commit || commitTerm == is.State.CurrentTerm, CommitRule,
		"%v leads term %d and commits an entry of term %d by counting", id, is.State.CurrentTerm, commitTerm)
}

// checkSaved: when outputs are carried out, the disk holds what the server
// believes.
func (do *Doing[R, E, M, X, B]) checkSaved() {
	v, d := do.Now.Raft.View(), &do.Now.Disk
	do.Ensure(d.State == v.State, AllSaved, "%v believes in %+v, and its disk says %+v", v.ID, v.State, d.State)
	base, log := do.Now.Raft.Believed()
	do.Ensure(base == d.Base && SameLog(log, d.Log), AllSaved, "%v believes in a log that ends in %v, and its disk holds %v", v.ID, v.Last, d.Last())
}

// checkMessage: what leaves speaks of no term that is not on disk, and promises
// no entry that is not. If the server has moved to a newer term in the same
// round, the promise of the older one is void.
func (do *Doing[R, E, M, X, B]) checkMessage(m M) {
	d, head := &do.Now.Disk, m.Head()
	if head.Term > d.State.CurrentTerm {
		do.Ensure(false, SavedFirst, "%v says %s, and its disk is in term %d", head.From, Describe[E](m), d.State.CurrentTerm)
	}
	if b, is := m.AppendReply(); is && b.Success && head.Term == d.State.CurrentTerm && int(b.MatchIndex) > len(d.All()) {
		do.Ensure(false, SavedFirst, "%v says %s, and its disk ends in %v", head.From, Describe[E](m), d.Last())
	}
	if do.CheckMessage != nil {
		do.CheckMessage(do, m)
	}
}

// CheckGiven: a server that asks for a vote or gives one has it on disk, unless
// its disk is in a newer term and cannot give it again.
func (do *Doing[R, E, M, X, B]) CheckGiven(from ID, term uint64, to ID) {
	d := do.Now.Disk.State
	do.Ensure(d.CurrentTerm != term || d.VotedFor == to, SavedFirst, "%v gives its vote in term %d to %v, and its disk says %v", from, term, to, d.VotedFor)
}

// CheckVotes: a candidate counts no vote that it did not get.
func (p *Model[R, E, M, X, B]) CheckVotes(err *error, w explore.World[*Machine[R, X, E], Past[E]], a *Machine[R, X, E], votes []ID) {
	v := a.Raft.View()
	if v.Role != "candidate" {
		return
	}
	id, term := v.ID, v.State.CurrentTerm
	p.Ensure(err, v.State.VotedFor == id && slices.Contains(votes, id), CandidateVotes, "%v starts an election in term %d without its own vote", id, term)
	for _, of := range votes {
		d := w.Servers[of-1].Disk.State
		// Its own vote may still be on the way to its disk.
		got := of == id || d.CurrentTerm > term || d.CurrentTerm == term && d.VotedFor == id
		p.Ensure(err, got, CandidateVotes, "%v counts a vote of %v in term %d that it did not get", id, of, term)
	}
}

// Observe notes who leads and what is committed. A leader whose term is not on
// its disk has not sent it to any server.
func (p *Model[R, E, M, X, B]) Observe(g Past[E], s *Machine[R, X, E]) (Past[E], error) {
	var err error
	v := s.Raft.View()
	if v.Leads && s.Disk.State.CurrentTerm == v.State.CurrentTerm {
		leader := &g.leaders[v.State.CurrentTerm]
		p.Ensure(&err, *leader == 0 || *leader == v.ID, ElectionSafety, "%v and %v both lead term %d", *leader, v.ID, v.State.CurrentTerm)
		*leader = v.ID
	}
	known, log := len(g.Committed), Whole(&s.Disk, s.Raft)
	for i := range min(known, int(v.Commit)) {
		if e, c := log[i], g.Committed[i]; !e.Same(c.Entry) {
			p.broken(&err, StateMachineSafety, "%v commits %s where %s was committed in term %d", v.ID, EntryWords(e), EntryWords(c.Entry), c.Term)
		}
	}
	if known < int(v.Commit) {
		g.Committed = slices.Clip(g.Committed)
		for _, e := range log[known:v.Commit] {
			g.Committed = append(g.Committed, Committed[E]{e, v.State.CurrentTerm})
		}
	}
	return g, err
}

// Check looks at all servers at once.
func (p *Model[R, E, M, X, B]) Check(w explore.World[*Machine[R, X, E], Past[E]]) error {
	var err error
	for i, a := range w.Servers {
		for _, b := range w.Servers[:i] {
			p.checkMatching(&err, a, b)
		}
		if a.Raft.View().Leads {
			p.checkLeader(&err, w, a)
		}
		if p.CheckServer != nil {
			p.CheckServer(p, &err, w, a)
		}
	}
	// Of any majority, one disk has each committed entry, and so has each log that
	// ends in a newer term than the one in which it was committed (§5.4.1).
	for _, c := range w.History.Committed {
		lacks := func(id ID) bool { return !w.Servers[id-1].Disk.Holds(c.Entry) }
		for i, s := range w.Servers {
			id := ID(i + 1)
			if lacks(id) && s.Disk.Last().Term > c.Term {
				p.broken(&err, UpToDate, "the log of %v ends in %v and lacks %v, which was committed in term %d", id, s.Disk.Last(), c.Entry.Place(), c.Term)
			}
		}
		lost := p.Decides == nil && Majority(p.Members, lacks) || p.Decides != nil && p.Decides(p, w.History, lacks)
		if lost {
			p.broken(&err, QuorumLog, "%v is committed, and a majority of the disks lack it", c.Entry.Place())
		}
	}
	if p.CheckWorld != nil {
		p.CheckWorld(p, &err, w)
	}
	return err
}

// checkMatching: if two logs hold an entry of the same index and term, they are
// identical up to it.
func (p *Model[R, E, M, X, B]) checkMatching(err *error, a, b *Machine[R, X, E]) {
	x, y := Whole(&a.Disk, a.Raft), Whole(&b.Disk, b.Raft)
	k := min(len(x), len(y))
	for k > 0 && x[k-1].Place().Term != y[k-1].Place().Term {
		k--
	}
	if !SameLog(x[:k], y[:k]) {
		p.broken(err, LogMatching, "%v and %v both have an entry %d of one term, and differ up to it", a.Raft.View().ID, b.Raft.View().ID, k)
	}
}

// checkLeader: a leader has what was committed in older terms, nobody has an
// entry of its term that it lacks, and what it believes of the others' disks is
// true while they are in its term.
func (p *Model[R, E, M, X, B]) checkLeader(err *error, w explore.World[*Machine[R, X, E], Past[E]], a *Machine[R, X, E]) {
	v, log, followers := a.Raft.View(), Whole(&a.Disk, a.Raft), a.Raft.Followers()
	term := v.State.CurrentTerm
	for _, c := range w.History.Committed {
		at := c.Entry.Place().Index
		has := c.Term >= term || at <= v.Last.Index && log[at-1].Same(c.Entry)
		if !has {
			p.broken(err, LeaderCompleteness, "%v leads term %d without %v, which was committed in term %d", v.ID, term, c.Entry.Place(), c.Term)
		}
	}
	for i, f := range w.Servers {
		id := ID(i + 1)
		if last := f.Raft.View().Last; last.Term == term {
			if last.Index > v.Last.Index {
				p.broken(err, LeaderHasLast, "%v has %v, and the log of its leader %v ends in %v", id, last, v.ID, v.Last)
			}
		}
		if !slices.Contains(followers, id) {
			continue
		}
		match, next := a.Raft.NextFor(id)
		if match >= next || next > v.Last.Index+1 {
			p.broken(err, ProgressTrue, "%v believes in match %d and next %d for %v, and its log ends at %d", v.ID, match, next, id, v.Last.Index)
		}
		if f.Disk.State.CurrentTerm == term {
			if !f.Disk.Agrees(log, match) {
				p.broken(err, ProgressTrue, "%v believes that %v has its entries up to %d, and the disk of %v ends in %v", v.ID, id, match, id, f.Disk.Last())
			}
		}
	}
}
