package rules

import "slices"

// Disk is what a server has saved: what a crash leaves.
type Disk[E Entry[E]] struct {
	State State

	// Base is the place before the first entry of Log.
	Base Position
	Log  []E

	// Snapshot are the entries that the snapshot stands for.
	Snapshot []E

	// Config is the configuration in force at Base, Covers the one at the end of
	// the snapshot; of the stage's type, or nil.
	Config, Covers any

	// whole is what All returns; nil until something was saved.
	whole []E
}

// All returns all entries that the server has after a crash: those of its
// snapshot, and those that follow in its log if it goes on from there.
func (d *Disk[E]) All() []E {
	if d.whole == nil {
		return d.join()
	}
	return d.whole
}

// Changed must be called after a change of Log or Snapshot.
func (d *Disk[E]) Changed() { d.whole = d.join() }

func (d *Disk[E]) join() []E {
	k := len(d.Snapshot)
	if k == 0 && d.Base.Index == 0 {
		return d.Log
	}
	all := make([]E, max(k, int(d.Base.Index)), int(d.Base.Index)+len(d.Log)+k)
	copy(all, d.Snapshot)
	at := k - int(d.Base.Index) // entries of the log that the snapshot covers
	if at <= 0 {
		return append(all, d.Log...)
	}
	if at <= len(d.Log) && d.Log[at-1].Place().Term == d.Snapshot[k-1].Place().Term {
		all = append(all, d.Log[at:]...)
	}
	return all
}

// Last is the last entry that the server has after a crash.
func (d *Disk[E]) Last() Position { return lastOf(d.All()) }

// Covered is the last entry that the snapshot covers.
func (d *Disk[E]) Covered() Position { return lastOf(d.Snapshot) }

func lastOf[E Entry[E]](entries []E) Position {
	if len(entries) == 0 {
		return Position{}
	}
	return entries[len(entries)-1].Place()
}

// Holds reports whether an entry is on the disk.
func (d *Disk[E]) Holds(e E) bool {
	at := int(e.Place().Index)
	return at <= len(d.All()) && d.All()[at-1].Same(e)
}

// Agrees reports whether the disk has the same entries as a log, up to n.
func (d *Disk[E]) Agrees(log []E, n uint64) bool {
	return int(n) <= len(d.All()) && int(n) <= len(log) && SameLog(d.All()[:n], log[:n])
}

// SameLog reports whether two logs have the same entries.
func SameLog[E Entry[E]](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, E.Same))
}

// Whole returns all entries that a server believes in: those before its log are
// in its snapshot.
func Whole[R Raft[E, M], E Entry[E], M any](d *Disk[E], r R) []E {
	base, log := r.View().Base.Index, r.LogEntries()
	if base == 0 {
		return log
	}
	all := make([]E, base, int(base)+len(log))
	copy(all, d.Snapshot)
	return append(all, log...)
}

// Save writes an output, record by record: the state, the truncation, each
// entry. After limit records the power fails; a limit below 0 is none. A log that
// replaces the old one is one record.
func Save[R Raft[E, M], E Entry[E], M any](d *Disk[E], r R, out Output[E, M], limit int) {
	if out.Rewrite {
		if limit != 0 {
			d.State = r.View().State
			d.Base, d.Log = r.Believed()
			d.Config = r.ConfigAt(d.Base.Index)
			d.Log = slices.Clone(d.Log)
			d.Changed()
		}
		return
	}
	defer d.Changed()
	if out.State != nil && limit != 0 {
		d.State = *out.State
		limit--
	}
	if out.Truncate != 0 && limit != 0 {
		// Others may hold the old log, so the next entry moves to new memory.
		i := int(out.Truncate-d.Base.Index) - 1
		d.Log = d.Log[:i:i]
		limit--
	}
	for _, e := range out.Append {
		if limit == 0 {
			return
		}
		d.Log = append(d.Log, e)
		limit--
	}
}
