package raft

import (
	"slices"

	"example.com/raftsteps/shared/lab/rules"
)

// What the explorer knows of disks and logs.

// disk is what a server has saved: what a crash leaves.
type disk struct {
	state State
	log   []Entry
}

// save writes an output, record by record: the state, the truncation, each
// entry. After limit records the power fails; a limit below 0 is none.
func (d *disk) save(out Output, limit int) {
	if out.State != nil && limit != 0 {
		d.state = *out.State
		limit--
	}
	if out.Truncate != 0 && limit != 0 {
		// Others may hold the old log, so the next entry moves to fresh memory.
		i := int(out.Truncate) - 1
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
	if len(d.log) == 0 {
		return Position{}
	}
	e := d.log[len(d.log)-1]
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
	return int(e.Index) <= len(d.log) && sameEntry(d.log[e.Index-1], e)
}

// agrees reports whether the disk has the same entries as a log, up to n.
func (d *disk) agrees(log []Entry, n Index) bool {
	return int(n) <= len(d.log) && int(n) <= len(log) && sameLog(d.log[:n], log[:n])
}

func sameLog(a, b []Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, sameEntry))
}

func place(e Entry) Position { return Position{e.Term, e.Index} }

func sameEntry(a, b Entry) bool { return a.Same(b) }
func entryWords(e Entry) string { return rules.EntryWords(e) }
func describe(m Message) string { return rules.Describe[Entry](m) }
func kindOf(m Message) string   { return m.Head().Kind() }
