package explore

import (
	"fmt"
	"slices"
	"strings"
)

// replay walks from the start through the states of a path, which are given by
// the lower halves of their fingerprints, and from the last of them to a
// violation. The search knows states only up to the servers' names; here the
// names are chosen at the start and kept.
func replay[S, M, G any](p Protocol[S, M, G], b Bounds, path []uint64) (*Violation[S, M], error) {
	w := newWorker(newSearch(p, b))
	st := w.search.start()
	v := &Violation[S, M]{}
	for i := range path {
		var chosen *taken
		var after state
		w.found = func(t taken, next state) {
			if chosen != nil {
				return
			}
			if i+1 == len(path) {
				v.Err = t.err
				if t.err == nil {
					v.Err = w.check(next, t.server)
				}
			}
			if v.Err != nil || i+1 < len(path) && t.err == nil && w.fingerprint(next).clean().lo == path[i+1] {
				chosen, after = &t, slices.Clone(next)
			}
		}
		w.expand(st)
		if chosen == nil {
			return nil, fmt.Errorf("step %d of a counterexample of %d steps cannot be found again: a method of the protocol returns different values for the same arguments", i+1, len(path))
		}
		v.Path = append(v.Path, w.describe(st, after, *chosen))
		st = after
	}
	v.Story = story(p, v)
	return v, nil
}

// describe returns the step from st to after.
func (w *worker[S, M, G]) describe(st, after state, t taken) Step[S, M] {
	e := w.carryOut(st[t.server], t)[t.effect]
	step := Step[S, M]{Server: t.server + 1, Input: t.input, Kept: t.kept, Effect: e}
	if t.input.Kind == Arrival {
		step.Message = w.search.messages.at(t.message).value
	}
	flight := slices.Clone(w.inFlight(st))
	if t.input.Kind == Arrival && !t.kept {
		i := slices.Index(flight, t.message)
		flight = slices.Delete(flight, i, i+1)
	}
	for _, m := range e.Messages {
		flight = append(flight, w.search.messages.id(m, 0))
	}
	for _, m := range w.inFlight(after) {
		i := slices.Index(flight, m)
		flight = slices.Delete(flight, i, i+1)
	}
	for _, m := range flight {
		step.Lost = append(step.Lost, w.search.messages.at(m).value)
	}
	return step
}

// story tells a violation and the way to it.
func story[S, M, G any](p Protocol[S, M, G], v *Violation[S, M]) string {
	var b strings.Builder
	for i, s := range v.Path {
		fmt.Fprintf(&b, "%3d. %s", i+1, p.Tell(s.Server, s.Input, s.Message))
		if s.Kept {
			b.WriteString(", which the network will repeat")
		}
		if s.Effect.Note != "" {
			fmt.Fprintf(&b, "; %s", s.Effect.Note)
		}
		b.WriteByte('\n')
		if s.Effect.Why != nil {
			for _, why := range s.Effect.Why() {
				fmt.Fprintf(&b, "       %s\n", why)
			}
		}
		for _, m := range s.Lost {
			fmt.Fprintf(&b, "       lost: %s\n", p.TellMessage(m))
		}
	}
	fmt.Fprintf(&b, "     %v\n", v.Err)
	return b.String()
}
