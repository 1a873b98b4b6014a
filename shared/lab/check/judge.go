package check

import (
	"cmp"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// Judge compares each answer with the committed log at the moment at which the
// client has it. It finds what AgainstLog finds at the end of a run, and it knows
// which answer was the first wrong one. It is a watcher of the simulator, after the
// Invariants that know what is committed.
//
// A read is judged by the entries that are committed when its answer arrives: an
// entry that is committed later was not there to be read.
type Judge struct {
	invariants *Invariants
	reads      bool

	// ledger has the committed entries and the operations that were judged so far,
	// asked the number of operations that have begun.
	ledger *ledger
	asked  int

	// first is the entry of a command that was requested once, refused the operation
	// of one that was refused.
	first   map[kv.Command]int
	refused map[kv.Command]Operation

	// seen are the highest indexes that were seen up to a moment, ordered by time.
	seen []sight
}

// NewJudge returns a judge of a run. reads is true if reads are judged too, as in
// AgainstLog.
func NewJudge(of *Invariants, reads bool) *Judge {
	return &Judge{invariants: of, reads: reads, ledger: emptyLedger(), first: make(map[kv.Command]int), refused: make(map[kv.Command]Operation)}
}

// Started, Stopped and Stepped implement sim.Watcher; the Invariants do the work.
func (j *Judge) Started(uint64)                          {}
func (j *Judge) Stopped(uint64, bool)                    {}
func (j *Judge) Stepped(uint64, node.Server, bool) error { return nil }

// Answered is called when a client has the final result of operation i, and the
// history holds all operations that have begun. The error is a *Violation. Servers
// without a log are not judged.
func (j *Judge) Answered(h History, i int) error {
	if j.invariants.counters.Looks == 0 {
		return nil
	}
	for ; j.asked < len(h); j.asked++ {
		j.ledger.ask(h[j.asked])
	}
	if err := j.commit(); err != nil {
		return err
	}
	o := h[i]
	if c := o.Request.Command(); o.Outcome() == Refused && kv.Writes(o.Request.Op) && j.ledger.asked[c] == 1 {
		if k := j.first[c]; k != 0 {
			return refusedAndDone(o, k)
		}
		j.refused[c] = o
	}
	if err := j.ledger.checkAnswer(o); err != nil {
		return err
	}
	return j.order(o)
}

// commit adds the entries that were committed since the last answer.
func (j *Judge) commit() error {
	for k := len(j.ledger.rows); k <= len(j.invariants.committed); k++ {
		r := j.ledger.add(j.invariants.committed[k-1].data)
		if !r.counts || r.command.Value == "" || j.ledger.asked[r.command] != 1 {
			continue
		}
		if before := j.first[r.command]; before != 0 {
			return appliedTwice(r.command, before, k)
		}
		j.first[r.command] = k
		if o, refused := j.refused[r.command]; refused {
			return refusedAndDone(o, k)
		}
	}
	return nil
}

// order is checkOrder for one answer.
func (j *Judge) order(o Operation) error {
	from := j.before(o.Invoke)
	if k := o.index(); k != 0 {
		if k <= from {
			return tooEarly(o, from)
		}
		j.saw(o.Return, k)
	}
	if !j.reads || o.Request.Op != kv.Get || o.Outcome() != Happened {
		return nil
	}
	at, ok := j.ledger.readAt(o, from, uint64(len(j.ledger.rows)-1))
	if !ok {
		return j.ledger.staleRead(o, from)
	}
	j.saw(o.Return, at)
	return nil
}

// saw notes that an index was seen at a moment, which is not before the last one.
func (j *Judge) saw(at time.Duration, index uint64) {
	if n := len(j.seen); n > 0 {
		index = max(index, j.seen[n-1].index)
	}
	j.seen = append(j.seen, sight{at, index})
}

// before returns the highest index that was seen before a moment.
func (j *Judge) before(at time.Duration) uint64 {
	i, _ := slices.BinarySearchFunc(j.seen, at, func(s sight, at time.Duration) int { return cmp.Compare(s.at, at) })
	if i == 0 {
		return 0
	}
	return j.seen[i-1].index
}
