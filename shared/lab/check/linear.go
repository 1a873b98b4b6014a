package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/anishathalye/porcupine"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// LinearLimit is how long Linearizable searches in ordinary tests. A history
// with few clients per key needs a thousandth of it.
const LinearLimit = 20 * time.Second

// mostShown is how many operations a table shows.
const mostShown = 16

// NotLinearizable is the error for a key whose operations no order explains, or
// whose search ran out of time.
type NotLinearizable struct {
	// Key is the key.
	Key string

	// Undecided is set if the search ran out of time.
	Undecided bool

	// Operations are the operations around the culprit, in the order of their
	// calls. Those that returned after Culprit are not Done.
	Operations []Operation

	// Culprit is the index in Operations of the answer that no order explains,
	// or -1.
	Culprit int
}

// Error names the key and the reason, and shows the operations as a table.
func (e *NotLinearizable) Error() string {
	why := "no order of its operations explains the answer marked →"
	if e.Undecided {
		why = "the search for an order of its operations ran out of time, so nothing is proved"
	}
	return fmt.Sprintf("key %q is not linearizable: %s\n%s", e.Key, why, Table(e.Operations, e.Culprit))
}

// Linearizable checks that every key behaved as if its operations had happened
// one at a time, each between its call and its return. Linearizability is
// local, so each key is checked by itself.
//
// limit bounds the real time of the whole search; running out of it is an
// error. The error is a *NotLinearizable.
func Linearizable(h History, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for _, group := range byKey(h) {
		switch judge(group, deadline) {
		case porcupine.Ok:
		case porcupine.Illegal:
			return explain(group, deadline)
		default:
			return &NotLinearizable{Key: group[0].Request.Key, Undecided: true, Operations: tail(group), Culprit: -1}
		}
	}
	return nil
}

// byKey groups the operations by key, in the order of the keys. It leaves out
// operations that did not happen and reads without an answer.
func byKey(h History) []History {
	groups := make(map[string]History)
	for _, o := range h {
		if !o.command() || o.Outcome() == Refused {
			continue
		}
		if o.Request.Op == kv.Get && o.Outcome() == Unknown {
			continue
		}
		groups[o.Request.Key] = append(groups[o.Request.Key], o)
	}
	sorted := make([]History, 0, len(groups))
	for _, g := range groups {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b History) int { return cmp.Compare(a[0].Request.Key, b[0].Request.Key) })
	return sorted
}

// register is the state of one key.
type register struct {
	found bool
	value string
}

// seen is what a client knows about an operation.
type seen struct {
	known    bool
	response api.Response
}

// model is the specification of one key. An operation with an unknown outcome
// has no return, so it can be ordered last, where nothing observes it, as if it
// had never happened.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		return step(state.(register), input.(*api.Request), output.(*seen))
	},
}

func step(r register, q *api.Request, s *seen) (bool, any) {
	next, result := apply(r, q)
	if !s.known {
		return true, next
	}
	return explains(result, q.Op, s.response), next
}

// apply is the specification of kv.Store.
func apply(r register, q *api.Request) (register, kv.Result) {
	switch q.Op {
	case kv.Get:
		if !r.found {
			return r, kv.Result{Outcome: kv.NotFound}
		}
		return r, kv.Result{Value: r.value}
	case kv.Put:
		return register{true, q.Value}, kv.Result{}
	case kv.Create:
		if r.found {
			return r, kv.Result{Outcome: kv.Exists}
		}
		return register{true, q.Value}, kv.Result{}
	case kv.Append:
		if len(r.value)+len(q.Value) > kv.MaxValue {
			return r, kv.Result{Outcome: kv.TooLarge}
		}
		return register{true, r.value + q.Value}, kv.Result{Length: len(r.value) + len(q.Value)}
	case kv.Cas:
		switch {
		case !r.found:
			return r, kv.Result{Outcome: kv.NotFound}
		case r.value != q.Old:
			return r, kv.Result{Outcome: kv.Mismatch}
		}
		return register{true, q.Value}, kv.Result{}
	}
	if !r.found {
		return r, kv.Result{Outcome: kv.NotFound}
	}
	return register{}, kv.Result{}
}

// explains reports whether a result of the specification matches the client's
// answer.
func explains(want kv.Result, op string, got api.Response) bool {
	if got.Error != nil {
		return string(want.Outcome) == string(got.Error.Code)
	}
	if want.Outcome != kv.OK {
		return false
	}
	switch op {
	case kv.Get:
		return want.Value == got.Value
	case kv.Append:
		return uint64(want.Length) == got.Length
	}
	return true
}

func judge(group History, deadline time.Time) porcupine.CheckResult {
	left := time.Until(deadline)
	if left <= 0 {
		return porcupine.Unknown
	}
	operations := make([]porcupine.Operation, len(group))
	for i := range group {
		o := &group[i]
		known := o.Outcome() == Happened
		end := int64(math.MaxInt64)
		if known {
			end = int64(o.Return)
		}
		operations[i] = porcupine.Operation{
			Input:  &o.Request,
			Call:   int64(o.Invoke),
			Output: &seen{known, o.Response},
			Return: end,
		}
	}
	return porcupine.CheckOperationsTimeout(model, operations, left)
}

// explain finds the first answer that no order explains. A history that is
// linearizable up to a moment is linearizable up to every earlier moment, so
// bisection finds it.
func explain(group History, deadline time.Time) error {
	var ends []time.Duration
	for _, o := range group {
		if o.Outcome() == Happened {
			ends = append(ends, o.Return)
		}
	}
	slices.Sort(ends)
	at, _ := slices.BinarySearchFunc(ends, porcupine.Illegal, func(end time.Duration, _ porcupine.CheckResult) int {
		if judge(until(group, end), deadline) == porcupine.Ok {
			return -1
		}
		return 1
	})
	end := ends[min(at, len(ends)-1)]
	shown := tail(until(group, end))
	culprit := slices.IndexFunc(shown, func(o Operation) bool { return o.Outcome() == Happened && o.Return == end })
	return &NotLinearizable{Key: group[0].Request.Key, Operations: shown, Culprit: culprit}
}

// until returns the history up to a moment: writes that had not returned are
// unknown, and reads that had not returned are left out.
func until(group History, end time.Duration) History {
	var h History
	for _, o := range group {
		if o.Invoke > end {
			continue
		}
		if o.Return > end || o.Outcome() != Happened {
			if o.Request.Op == kv.Get {
				continue
			}
			o.Done, o.Response = false, api.Response{}
		}
		h = append(h, o)
	}
	return h
}

// tail returns the end of a history, as much as a table shows.
func tail(h History) History {
	return h[max(0, len(h)-mostShown):]
}

// Table formats operations as a table, with an arrow in front of the one with
// index mark. Pass -1 for no mark.
func Table(operations []Operation, mark int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  \tfrom\tto\tclient\tserver\toperation\tanswer")
	for i, o := range operations {
		arrow, end := "  ", "…"
		if i == mark {
			arrow = "→ "
		}
		if o.Done {
			end = seconds(o.Return)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", arrow, seconds(o.Invoke), end, o.Client, node.Name(o.Server), words(o.Request), answer(o))
	}
	w.Flush()
	return strings.TrimRight(b.String(), "\n")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6fs", d.Seconds()) }

// mostValue is how much of a value a table shows.
const mostValue = 40

func words(q api.Request) string {
	q.Value, q.Old = cut(q.Value), cut(q.Old)
	return trace.Brief(string(q.AppendJSON(nil)))
}

func answer(o Operation) string {
	switch {
	case !o.Done:
		return "(unknown yet)"
	case o.Response.Error != nil && o.Outcome() == Unknown:
		return "(unknown)"
	case o.Response.Error != nil:
		return string(o.Response.Error.Code)
	case o.Response.HasValue:
		return cut(o.Response.Value)
	case o.Response.HasLength:
		return fmt.Sprint(o.Response.Length, " bytes")
	}
	return "ok"
}

// cut shortens a value. For an append it keeps the end.
func cut(s string) string {
	if len(s) <= mostValue {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-mostValue:], "")
}
