package journal

import "fmt"

// shape is what the journal knows about its log: where the log begins and ends,
// and where the term changes. Writing and reading use it to check the same rule:
// indexes follow each other, and terms never decrease.
type shape struct {
	base Base

	// last is the index of the last entry, or base.Index.
	last uint64

	// runs are the sequences of entries with the same term, in the order of the
	// log.
	runs []run
}

// run is the entries of one term: from the index first to the next run, or to the
// end of the log.
type run struct {
	first uint64
	term  uint64
}

// lastTerm is the term of the last entry, or of the base if there are no entries.
func (s *shape) lastTerm() uint64 {
	if len(s.runs) == 0 {
		return s.base.Term
	}
	return s.runs[len(s.runs)-1].term
}

// append checks that e can be the next entry of a server in this state, and
// records it.
func (s *shape) append(e Entry, state State) error {
	switch {
	case e.Index != s.last+1:
		return fmt.Errorf("entry %d follows entry %d", e.Index, s.last)
	case e.Term == 0:
		return fmt.Errorf("entry %d has no term", e.Index)
	case e.Term < s.lastTerm():
		return fmt.Errorf("entry %d of term %d follows an entry of term %d", e.Index, e.Term, s.lastTerm())
	case e.Term > state.Term:
		return fmt.Errorf("entry %d has term %d, but the server is still in term %d", e.Index, e.Term, state.Term)
	}
	if len(s.runs) == 0 || s.runs[len(s.runs)-1].term != e.Term {
		s.runs = append(s.runs, run{e.Index, e.Term})
	}
	s.last = e.Index
	return nil
}

// truncate checks that the entries from an index on can be removed, and records
// it.
func (s *shape) truncate(from uint64) error {
	if from <= s.base.Index || from > s.last {
		return fmt.Errorf("the entries from %d on cannot be removed: the log has entries %d to %d", from, s.base.Index+1, s.last)
	}
	s.last = from - 1
	for len(s.runs) > 0 && s.runs[len(s.runs)-1].first >= from {
		s.runs = s.runs[:len(s.runs)-1]
	}
	return nil
}

// before checks that next can follow s.
func (s State) before(next State) error {
	switch {
	case next.Term < s.Term:
		return fmt.Errorf("the term falls from %d to %d", s.Term, next.Term)
	case next.Term == s.Term && s.Vote != 0 && next.Vote != s.Vote:
		return fmt.Errorf("the vote in term %d changes from %d to %d", s.Term, s.Vote, next.Vote)
	}
	return nil
}

// before checks that the log of a server in this state, which begins after b,
// can be compacted to one that begins after next.
func (b Base) before(next Base, state State) error {
	switch {
	case next.Index < b.Index || next.Term < b.Term:
		return fmt.Errorf("the log begins after entry %d of term %d and should begin after entry %d of term %d, which is earlier", b.Index, b.Term, next.Index, next.Term)
	case next.Term > state.Term:
		return fmt.Errorf("the log should begin after an entry of term %d, but the server is still in term %d", next.Term, state.Term)
	}
	return nil
}
