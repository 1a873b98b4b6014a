package raft

import "slices"

// Entry is one place in the log.
type Entry struct {
	Index Index

	// Term is that of the leader that received it.
	Term Term

	// Command is opaque to the rules.
	Command []byte
}

// log is the replicated log. entries[0] is a sentinel that holds the index and
// the term before the first entry, so that every index in [0, lastIndex] has a
// term and no rule needs a case for the empty log. Indexes follow each other,
// and terms never fall.
type log struct {
	entries []Entry
}

func newLog(saved []Entry) log {
	return log{entries: append([]Entry{{}}, saved...)}
}

func (l *log) lastIndex() Index { return l.entries[len(l.entries)-1].Index }

// has reports whether there is an entry of that term at that index.
func (l *log) has(index Index, term Term) bool {
	return index <= l.lastIndex() && l.term(index) == term
}

// term returns the term at an index in [0, lastIndex].
func (l *log) term(index Index) Term { return l.entries[l.place(index)].Term }

// slice returns the entries in [from, to].
func (l *log) slice(from, to Index) []Entry {
	return slices.Clip(l.entries[l.place(from) : l.place(to)+1])
}

// batch returns entries from an index on, in order and without a gap: no more
// than may be in flight, and until the next would exceed max bytes; at least one
// if there is any.
func (l *log) batch(from Index, max int) []Entry {
	to, size := from-1, 0
	for ; to < min(l.lastIndex(), from+maxInFlight-1); to++ {
		size += len(l.entries[l.place(to+1)].Command)
		if size > max && to >= from {
			break
		}
	}
	return l.slice(from, to)
}

func (l *log) append(entries []Entry) { l.entries = append(l.entries, entries...) }

// truncate removes the entries from index on. The next append moves to fresh
// memory, since messages may still hold a slice of the old one.
func (l *log) truncate(index Index) {
	i := l.place(index)
	l.entries = l.entries[:i:i]
}

func (l *log) place(index Index) int { return int(index - l.entries[0].Index) }
