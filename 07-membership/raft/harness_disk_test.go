package raft

import (
	"slices"

	"example.com/raftsteps/shared/lab/rules"
)

// What the explorer knows of disks and logs.

// disk is what a server has saved: what a crash leaves.
type disk struct {
	state State

	// base is the place before the first entry of log.
	base Position
	log  []Entry

	// snapshot are the entries that the snapshot stands for.
	snapshot []Entry

	// config is the configuration in force at base, covers the one at the end of
	// the snapshot.
	config, covers Config

	// whole is what all returns; nil until something was saved.
	whole []Entry
}

// all returns all entries that the server has after a crash: those of its
// snapshot, and those that follow in its log if it goes on from there.
func (d *disk) all() []Entry {
	if d.whole == nil {
		return d.join()
	}
	return d.whole
}

func (d *disk) join() []Entry {
	k := len(d.snapshot)
	if k == 0 && d.base.Index == 0 {
		return d.log
	}
	all := make([]Entry, max(k, int(d.base.Index)), int(d.base.Index)+len(d.log)+k)
	copy(all, d.snapshot)
	at := k - int(d.base.Index) // entries of the log that the snapshot covers
	if at <= 0 {
		return append(all, d.log...)
	}
	if at <= len(d.log) && d.log[at-1].Term == d.snapshot[k-1].Term {
		all = append(all, d.log[at:]...)
	}
	return all
}

// save writes an output, record by record: the state, the truncation, each
// entry. After limit records the power fails; a limit below 0 is none. A log that
// replaces the old one is one record.
func (d *disk) save(r *Raft, out Output, limit int) {
	if out.Rewrite {
		if limit != 0 {
			d.state = r.Status().State
			d.base, d.log = r.Saved()
			d.config = r.Config(d.base.Index)
			d.log = slices.Clone(d.log)
			d.whole = d.join()
		}
		return
	}
	defer func() { d.whole = d.join() }()
	if out.State != nil && limit != 0 {
		d.state = *out.State
		limit--
	}
	if out.Truncate != 0 && limit != 0 {
		// Others may hold the old log, so the next entry moves to fresh memory.
		i := int(out.Truncate-d.base.Index) - 1
		d.log = d.log[:i:i]
		limit--
	}
	for _, e := range out.Append {
		if limit == 0 {
			return
		}
		d.log = append(d.log, e)
		limit--
	}
}

func (d *disk) last() Position {
	all := d.all()
	if len(all) == 0 {
		return Position{}
	}
	e := all[len(all)-1]
	return Position{e.Term, e.Index}
}

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

type committed struct {
	entry Entry
	in    Term
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

// covered is the last entry that the snapshot on the disk covers.
func (d *disk) covered() Position {
	if len(d.snapshot) == 0 {
		return Position{}
	}
	return place(d.snapshot[len(d.snapshot)-1])
}

func sameEntry(a, b Entry) bool { return a.Same(b) }
func entryWords(e Entry) string { return rules.EntryWords(e) }
func describe(m Message) string { return rules.Describe[Entry](m) }
func kindOf(m Message) string   { return m.Head().Kind() }

const (
	oneVote          = rules.OneVote
	candidateVotes   = rules.CandidateVotes
	linearizableRead = rules.LinearizableRead
)
