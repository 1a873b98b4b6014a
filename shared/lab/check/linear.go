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
// that keeps to a few clients a key needs a thousandth of it.
const LinearLimit = 20 * time.Second

// mostShown is how many operations a table shows.
const mostShown = 16

// NotLinearizable says that the operations on one key cannot be explained, or
// that nobody could tell in time.
type NotLinearizable struct {
	// Key is the key.
	Key string

	// Undecided is set if the search ran out of time.
	Undecided bool

	// Operations are the ones around the trouble, in the order of their calls.
	// Those that had not returned when Culprit did are not Done.
	Operations []Operation

	// Culprit is the index in Operations of the answer that no order explains,
	// or -1.
	Culprit int
}

// Error says which key, why, and shows the operations as a table.
func (e *NotLinearizable) Error() string {
	why := "no order of its operations explains the answer marked →"
	if e.Undecided {
		why = "the search for an order of its operations ran out of time, so nothing is proved"
	}
	return fmt.Sprintf("key %q is not linearizable: %s\n%s", e.Key, why, Table(e.Operations, e.Culprit))
}

// Linearizable judges whether every key behaved as if its operations had
// happened one at a time, each between its call and its return. Operations on
// different keys cannot contradict each other, so each key is judged alone.
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

// byKey groups the operations that matter by key, keys in order. What never
// happened, and a read whose answer nobody saw, matters to nobody.
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

// seen is what a client saw of an operation.
type seen struct {
	known    bool
	response api.Response
}

// model is the store, seen through one key. An operation whose outcome is
// unknown has no return, so it may take its place last, where nobody sees it:
// as if it had never happened.
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

// explains reports whether a result of the specification is what the client
// was told.
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

// explain finds the first answer after which nothing can be explained any
// more. A history that is linearizable up to a moment is so up to every
// earlier one, so the moment is found by bisection.
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

// until is the history as it stood at a moment: what had not returned is
// unknown, and a read that had not returned is left out.
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

// tail is the end of a history, as much as a table shows.
func tail(h History) History {
	return h[max(0, len(h)-mostShown):]
}

// Table shows operations to people, the one with index mark behind an arrow.
// Pass -1 for no mark.
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

// cut shortens a value; of an append's the end tells more.
func cut(s string) string {
	if len(s) <= mostValue {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-mostValue:], "")
}
