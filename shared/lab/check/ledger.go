package check

import (
	"cmp"
	"math"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
)

// AgainstLog compares a history with the committed log. It needs no search,
// because the log is the order: it is exact, however many operations are
// unknown, and its time is proportional to their number.
//
//	I22  no command happens twice: two entries of one session and number count
//	     once
//	I23  a read saw the store at an index that lies between what was
//	     acknowledged before it and what was asked for after it
//	I24  what was acknowledged stands in the log, in the order in which clients
//	     saw it, with the result that they were told; what was refused does not
//
// reads is true if the stage's reads are linearizable; if not, I23 is left out.
// log holds the committed entries from index 1 on. The error is a *Violation.
func AgainstLog(h History, log []node.Entry, reads bool) error {
	l := newLedger(h, log)
	for _, check := range []func() error{l.checkOnce, l.checkAnswers, func() error { return l.checkOrder(reads) }} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// Committed returns the committed entries from index 1 on. It is for
// AgainstLog.
func (c *Invariants) Committed() []node.Entry {
	log := make([]node.Entry, len(c.committed))
	for i, e := range c.committed {
		log[i] = node.Entry{Term: e.term, Data: e.data}
	}
	return log
}

// DecodeCommand returns the store's command in a log entry, with its session
// and number. It ignores the other fields of an entry, and returns false for an
// entry without a command.
func DecodeCommand(data []byte) (c kv.Command, session, seq uint64, ok bool) {
	d := strict.NewDecoder(data)
	d.Object(func(field []byte) {
		switch string(field) {
		case "session":
			session = d.Uint()
		case "seq":
			seq = d.Uint()
		default:
			if !c.DecodeField(&d, field) {
				d.Raw()
			}
		}
	})
	return c, session, seq, d.End() == nil && c.Check() == nil
}

// ledger is the committed log, applied entry by entry.
type ledger struct {
	history History

	// rows has the entries; versions has the values of each key and the index
	// from which each is valid.
	rows     []row
	versions map[string][]version

	// asked is how many operations of the history have this command.
	asked map[kv.Command]int

	// state is the store after the last row, done the commands of sessions that it
	// has carried out.
	state map[string]register
	done  map[place]bool
}

// place is a command's place in its session.
type place struct{ session, seq uint64 }

// row is one entry.
type row struct {
	command kv.Command
	result  kv.Result

	// counts is false for an entry without a command, and for a duplicate that
	// a session recognized.
	counts bool
}

type version struct {
	index uint64
	value register
}

func emptyLedger() *ledger {
	return &ledger{rows: make([]row, 1), versions: make(map[string][]version), asked: make(map[kv.Command]int), state: make(map[string]register), done: make(map[place]bool)}
}

func newLedger(h History, log []node.Entry) *ledger {
	l := emptyLedger()
	l.history = h
	for _, e := range log {
		l.add(e.Data)
	}
	for _, o := range h {
		l.ask(o)
	}
	return l
}

// add applies the next entry.
func (l *ledger) add(data []byte) row {
	l.rows = append(l.rows, row{})
	c, session, seq, ok := DecodeCommand(data)
	at := place{session, seq}
	if !ok || session != 0 && l.done[at] {
		return row{}
	}
	l.done[at] = true
	last := len(l.rows) - 1
	next, result := apply(l.state[c.Key], &api.Request{Op: c.Op, Key: c.Key, Value: c.Value, Old: c.Old})
	if next != l.state[c.Key] {
		l.versions[c.Key] = append(l.versions[c.Key], version{uint64(last), next})
	}
	l.state[c.Key] = next
	l.rows[last] = row{c, result, true}
	return l.rows[last]
}

// ask counts an operation.
func (l *ledger) ask(o Operation) {
	if kv.Writes(o.Request.Op) {
		l.asked[o.Request.Command()]++
	}
}

// checkOnce: a command that was requested once is in the log at most once, and
// not at all if it was refused. A command without a unique value cannot be
// distinguished from others.
func (l *ledger) checkOnce() error {
	first := make(map[kv.Command]int)
	for k, r := range l.rows {
		if !r.counts || r.command.Value == "" || l.asked[r.command] != 1 {
			continue
		}
		if before, twice := first[r.command]; twice {
			return appliedTwice(r.command, before, k)
		}
		first[r.command] = k
	}
	for _, o := range l.history {
		if c := o.Request.Command(); o.Outcome() == Refused && first[c] != 0 {
			return refusedAndDone(o, first[c])
		}
	}
	return nil
}

func appliedTwice(c kv.Command, first, second int) error {
	return violated("I22", "Exactly once", "%s was requested once and applied twice, as entries %d and %d", words(request(c)), first, second)
}

func refusedAndDone(o Operation, entry int) error {
	return violated("I24", "Answers are true", "client %d was told that %s did not and would not happen (%s), and it is entry %d",
		o.Client, words(o.Request), o.Response.Error.Code, entry)
}

func request(c kv.Command) api.Request {
	return api.Request{Op: c.Op, Key: c.Key, Value: c.Value, Old: c.Old}
}

// index returns the log index of a write, if the client knows it.
func (o Operation) index() uint64 {
	if o.Outcome() != Happened || !kv.Writes(o.Request.Op) {
		return 0
	}
	return o.Response.Index
}

// checkAnswers: an acknowledged write is in the log at the index in the answer,
// and its result is the one in the answer.
func (l *ledger) checkAnswers() error {
	for _, o := range l.history {
		if err := l.checkAnswer(o); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) checkAnswer(o Operation) error {
	k := o.index()
	if k == 0 {
		return nil
	}
	if k >= uint64(len(l.rows)) {
		return violated("I24", "Answers are true", "client %d was told that %s is entry %d, and %d entries are committed", o.Client, words(o.Request), k, len(l.rows)-1)
	}
	r := l.rows[k]
	switch {
	case !r.counts || r.command != o.Request.Command():
		return violated("I24", "Answers are true", "client %d was told that %s is entry %d, which is %s", o.Client, words(o.Request), k, words(request(r.command)))
	case !explains(r.result, o.Request.Op, o.Response):
		return violated("I24", "Answers are true", "client %d was told %s for %s, and entry %d gives %+v", o.Client, answer(o), words(o.Request), k, r.result)
	}
	return nil
}

// checkOrder: an operation that began after another had returned comes later in
// the log, and every read saw a state between its call and its return.
func (l *ledger) checkOrder(reads bool) error {
	order := slices.Clone(l.history)
	slices.SortStableFunc(order, func(a, b Operation) int { return cmp.Compare(a.Invoke, b.Invoke) })
	ends := newFrontier(order)
	low := lowest(order)
	for i, o := range order {
		from := ends.before(o.Invoke)
		if k := o.index(); k != 0 {
			if k <= from {
				return tooEarly(o, from)
			}
			ends.seen(o.Return, k)
		}
		if !reads || o.Request.Op != kv.Get || o.Outcome() != Happened {
			continue
		}
		to := low.after(i, o.Return)
		at, ok := l.readAt(o, from, to)
		if !ok {
			return l.staleRead(o, from)
		}
		ends.seen(o.Return, at)
	}
	return nil
}

func tooEarly(o Operation, seen uint64) error {
	return violated("I24", "Answers are true", "client %d was told that %s is entry %d, and entry %d was seen before that request began", o.Client, words(o.Request), o.index(), seen)
}

func (l *ledger) staleRead(o Operation, from uint64) error {
	key := o.Request.Key
	v := l.valueAt(key, from)
	then := "has no value"
	if v.found {
		then = "is " + cut(v.value)
	}
	return violated("I23", "Reads", "client %d read %s and was told %s by %s; no index from %d on has that, and entry %d, after which %s %s, was seen before that read began",
		o.Client, key, answer(o), node.Name(o.Server), from, from, key, then)
}

// valueAt returns the value of a key after an entry.
func (l *ledger) valueAt(key string, index uint64) register {
	versions := l.versions[key]
	i, exact := slices.BinarySearchFunc(versions, index, func(v version, k uint64) int { return cmp.Compare(v.index, k) })
	if exact {
		return versions[i].value
	}
	if i == 0 {
		return register{}
	}
	return versions[i-1].value
}

// readAt returns the least index in [from, to] at which the read has the result
// that the client got.
func (l *ledger) readAt(o Operation, from, to uint64) (uint64, bool) {
	versions := l.versions[o.Request.Key]
	i, exact := slices.BinarySearchFunc(versions, from, func(v version, k uint64) int { return cmp.Compare(v.index, k) })
	if !exact {
		i--
	}
	for ; i < len(versions); i++ {
		v, at := register{}, from
		if i >= 0 {
			v, at = versions[i].value, max(from, versions[i].index)
		}
		if at > to {
			break
		}
		_, result := apply(v, &o.Request)
		if explains(result, kv.Get, o.Response) {
			return at, true
		}
	}
	return 0, false
}

// frontier finds the highest index that was seen before a moment.
type frontier struct {
	// returned has the ends of the operations and the indexes that they saw,
	// ordered by time.
	returned []sight
	next     int
	highest  uint64
}

type sight struct {
	at    time.Duration
	index uint64
}

func newFrontier(order History) *frontier {
	return &frontier{returned: make([]sight, 0, len(order))}
}

// seen notes that an index was known at a moment.
func (f *frontier) seen(at time.Duration, index uint64) {
	i, _ := slices.BinarySearchFunc(f.returned[f.next:], at, func(s sight, at time.Duration) int { return cmp.Compare(s.at, at) })
	f.returned = slices.Insert(f.returned, f.next+i, sight{at, index})
}

// before returns the highest index known before a moment. The moments never
// decrease.
func (f *frontier) before(at time.Duration) uint64 {
	for f.next < len(f.returned) && f.returned[f.next].at < at {
		f.highest = max(f.highest, f.returned[f.next].index)
		f.next++
	}
	return f.highest
}

// lowestLater finds the lowest index written by operations that began after a
// moment.
type lowestLater struct {
	order  History
	lowest []uint64
}

func lowest(order History) lowestLater {
	f := lowestLater{order, make([]uint64, len(order)+1)}
	f.lowest[len(order)] = math.MaxUint64
	for i := len(order) - 1; i >= 0; i-- {
		f.lowest[i] = f.lowest[i+1]
		if k := order[i].index(); k != 0 {
			f.lowest[i] = min(f.lowest[i], k)
		}
	}
	return f
}

// after returns the highest index that an operation can have seen if it
// returned at a moment. The search starts at i, a place in the order not after
// that moment.
func (f lowestLater) after(i int, at time.Duration) uint64 {
	rest := f.order[i:]
	j, _ := slices.BinarySearchFunc(rest, at, func(o Operation, at time.Duration) int {
		if o.Invoke <= at {
			return -1
		}
		return 1
	})
	return f.lowest[i+j] - 1
}
