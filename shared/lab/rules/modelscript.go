package rules

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/explore"
)

// scriptOf writes a counterexample as a script for testdata/scripts. What it
// causes, -update adds.
func (x *Explorer[R, E, M, X, B]) scriptOf(b Bounds[B], v *explore.Violation[*Machine[R, X, E], M]) string {
	w := &ScriptWriter[R, E, M, X, B]{Bounds: b, explorer: x}
	batch := 1000
	if b.Single {
		batch = -1
	}
	w.Line("# %v", v.Err)
	w.Line("> cluster %d batch=%d", b.Servers, batch)
	if x.Begin != nil {
		x.Begin(w)
	}
	if b.Grouped > 0 {
		for i := range b.Servers {
			w.Line("- hold %v", ID(i+1))
		}
	}
	for _, s := range v.Path {
		w.step(s)
	}
	w.Line("> status")
	w.Line("> log")
	if name := brokenBy(v.Err); name != "" && name != b.Goal {
		w.Line("> breaks %s", name)
	}
	return w.out.String()
}

// brokenBy returns the name of the invariant that an error is about; empty if it
// is about none.
func brokenBy(err error) string {
	var broken Broken
	var panicked explore.Panic
	switch {
	case errors.As(err, &broken):
		return broken.Name
	case errors.As(err, &panicked):
		return OwnCheck
	}
	return ""
}

// ScriptWriter writes a script.
type ScriptWriter[R Explorable[R, E, M], E Entry[E], M Message[E], X any, B comparable] struct {
	Bounds[B]
	explorer *Explorer[R, E, M, X, B]
	out      strings.Builder

	// network are the messages in flight as the script's runner has them, the
	// oldest first; late are those it keeps back.
	network, late []M
}

// Line writes a line.
func (w *ScriptWriter[R, E, M, X, B]) Line(format string, args ...any) {
	fmt.Fprintf(&w.out, format+"\n", args...)
}

func (w *ScriptWriter[R, E, M, X, B]) step(s explore.Step[*Machine[R, X, E], M]) {
	id, cut := ID(s.Server), s.Effect.Variant >= torn
	if s.Effect.Variant == doubts {
		w.Line("> silence %v", id)
	}
	if cut {
		w.Line("> powercut %v %d", id, s.Effect.Variant-torn)
	}
	switch s.Input.Kind {
	case explore.Arrival:
		if s.Kept {
			w.choose("duplicate", s.Message)
			w.network = append(w.network, s.Message)
		}
		w.choose("deliver", s.Message)
	case inputRestart:
		w.restart(id, s.Effect.Server.life)
	case inputHeartbeat:
		w.Line("> tick %v 3", id)
	case inputPropose:
		w.Line("> propose %v x", id)
	case inputFlush:
		w.Line("> release %v", id)
	default:
		w.explorer.Step(w, id, s.Input)
	}
	if cut {
		w.restart(id, s.Effect.Server.life)
	} else if s.Input.Kind == inputFlush {
		w.Line("- hold %v", id)
	}
	w.network = append(w.network, s.Effect.Messages...)
	for _, m := range s.Lost {
		w.choose("drop", m)
	}
}

func (w *ScriptWriter[R, E, M, X, B]) restart(id ID, life uint64) {
	if w.explorer.Restart != nil {
		w.explorer.Restart(w, id, life)
	}
	w.Line("> restart %v", id)
	if w.Grouped > 0 {
		w.Line("- hold %v", id)
	}
}

// choose writes a command about one message. Where several fit the words, those
// before it are kept back.
func (w *ScriptWriter[R, E, M, X, B]) choose(command string, m M) {
	h := m.Head()
	words := fmt.Sprintf("%v->%v %s first", h.From, h.To, h.Kind())
	fits := func(x M) bool { o := x.Head(); return o.From == h.From && o.To == h.To && o.Kind() == h.Kind() }
	same := func(x M) bool { return reflect.DeepEqual(x, m) }
	if i := slices.IndexFunc(w.late, same); i >= 0 && command == "deliver" {
		for j, x := range w.late {
			if fits(x) && j < i {
				w.Line("# the next line means the message: %s", Describe[E](m))
				break
			}
		}
		w.Line("> late %s", words)
		w.late = slices.Delete(w.late, i, i+1)
		return
	}
	for {
		i := slices.IndexFunc(w.network, fits)
		if i < 0 {
			return // it is kept back, and stays there
		}
		if x := w.network[i]; !same(x) {
			w.Line("- delay %s", words)
			w.network, w.late = slices.Delete(w.network, i, i+1), append(w.late, x)
			continue
		}
		w.Line("> %s %s", command, words)
		if command != "duplicate" {
			w.network = slices.Delete(w.network, i, i+1)
		}
		return
	}
}
