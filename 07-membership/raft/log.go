package raft

import "slices"

// Kind says what an entry is for.
type Kind string

// The kinds of entries.
const (
	// Command is for the state machine.
	Command Kind = ""

	// NoOp is the first entry of a leader's term; it has no command (§8).
	NoOp Kind = "noop"

	// ConfigEntry has a configuration (§6).
	ConfigEntry Kind = "config"
)

// Entry is one place in the log.
type Entry struct {
	Index Index

	// Term is that of the leader that received it.
	Term Term

	Kind Kind

	// Command is opaque to the rules.
	Command []byte

	// Config is a configuration; others have none.
	Config *Config
}

// log is the replicated log. entries[0] is a sentinel that holds the index and
// the term before the first entry, so that every index in [base, lastIndex] has
// a term and no rule needs a case for the empty log. A snapshot covers what was
// before. Indexes follow each other, and terms never fall.
type log struct {
	entries []Entry

	// configs are the indexes that have a configuration. The sentinel is the first
	// of them: it has the one that was in force where the log begins.
	configs []Index
}

func newLog(base Position, c Config, saved []Entry) (l log) {
	l.append(append([]Entry{{Index: base.Index, Term: base.Term, Config: &c}}, saved...))
	return l
}

// config returns the configuration in force at an index.
func (l *log) config(at Index) Config {
	i := len(l.configs) - 1
	for l.configs[i] > at {
		i--
	}
	return *l.entries[l.place(l.configs[i])].Config
}

// base is the index before the first entry.
func (l *log) base() Index { return l.entries[0].Index }

// compact discards the entries up to base and frees their memory.
func (l *log) compact(base Position) {
	*l = newLog(base, l.config(base.Index), l.entries[l.place(base.Index)+1:])
}

func (l *log) lastIndex() Index { return l.entries[len(l.entries)-1].Index }

// has reports whether there is an entry of that term at that index. What is
// before the base was committed, so every leader has the same there.
func (l *log) has(index Index, term Term) bool {
	return index < l.base() || index <= l.lastIndex() && l.term(index) == term
}

// term returns the term at an index in [base, lastIndex].
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

func (l *log) append(entries []Entry) {
	l.entries = append(l.entries, entries...)
	for _, e := range entries {
		if e.Config != nil {
			l.configs = append(l.configs, e.Index)
		}
	}
}

// truncate removes the entries from index on. The next append moves to fresh
// memory, since messages may still hold a slice of the old one.
func (l *log) truncate(index Index) {
	i := l.place(index)
	l.entries = l.entries[:i:i]
	l.configs = slices.DeleteFunc(l.configs, func(at Index) bool { return at >= index })
}

func (l *log) place(index Index) int { return int(index - l.entries[0].Index) }
