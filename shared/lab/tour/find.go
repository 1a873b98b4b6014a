package tour

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/scenario"
)

// Find returns a tour with the steps of its deeds and the steps of its stops, and the
// film.
func (t Tour) Find(stage scenario.Stage) (Tour, *film.Film, error) {
	t.Stops = slices.Clone(t.Stops)
	f, err := t.script(stage)
	if err != nil {
		return t, nil, fmt.Errorf("tour %s: %w", t.Name, err)
	}
	t.Script = f.Script.AppendJSON(nil)
	next := 0
	for i, s := range t.Stops {
		at, err := s.When.find(f, next)
		if err != nil {
			return t, nil, fmt.Errorf("tour %s, stop %d: %w", t.Name, i+1, err)
		}
		t.Stops[i].event, next = at, at+1
		t.Stops[i].At = place(f, at)
	}
	return t, f, nil
}

func place(f *film.Film, event int) Place {
	e := f.Events[event]
	p := Place{Step: e.Step, Kind: string(e.Kind)}
	for i := event; i >= 0 && f.Events[i].Step == e.Step; i-- {
		if f.Events[i].Kind == e.Kind {
			p.Nth++
		}
	}
	return p
}

// script makes the script, deed by deed: each is found in the film of those before
// it. It returns the film of all.
func (t Tour) script(stage scenario.Stage) (*film.Film, error) {
	if len(t.Edits) > 0 {
		s, err := film.Decode(t.Script)
		if err != nil {
			return nil, err
		}
		return film.Play(stage, s)
	}
	s := map[string]any{"stage": t.Stage, "seed": t.Seed}
	if t.Servers != 0 {
		s["servers"] = t.Servers
	}
	if t.Spare != 0 {
		s["spare"] = t.Spare
	}
	if t.Story != "" {
		s["story"] = t.Story
	}
	if t.Steps != 0 {
		s["steps"] = t.Steps
	}
	var deeds []map[string]any
	f, err := play(stage, s)
	for i, next := 0, 0; err == nil && i < len(t.Deeds); i++ {
		var at int
		at, err = t.Deeds[i].When.find(f, next)
		if err != nil {
			return nil, fmt.Errorf("deed %d: %w", i+1, err)
		}
		next = at
		deeds = append(deeds, t.Deeds[i].after(f.Events[at]))
		s["deeds"] = deeds
		f, err = play(stage, s)
		if err == nil && !f.Outcomes[i].Applied {
			return nil, fmt.Errorf("deed %d did not apply: %s", i+1, f.Outcomes[i].Why)
		}
	}
	return f, err
}

func play(stage scenario.Stage, script map[string]any) (*film.Film, error) {
	b, err := json.Marshal(script)
	if err != nil {
		return nil, fmt.Errorf("the script: %w", err)
	}
	s, err := film.Decode(b)
	if err != nil {
		return nil, err
	}
	return film.Play(stage, s)
}

// after is the deed that comes right after an event.
func (d Deed) after(e trace.Event) map[string]any {
	out := maps.Clone(d.Do)
	out["at"], out["time"] = e.Step+1, int64(e.At)
	switch out["do"] {
	case film.Lose, film.Delay, film.Repeat:
		out["from"], out["to"], out["number"] = e.From, e.To, e.Number
	}
	return out
}

// find returns the number of the event that matches, from a number on.
func (p Pattern) find(f *film.Film, from int) (int, error) {
	if p.Kind == "end" && len(f.Events) > from {
		return len(f.Events) - 1, nil
	}
	nth := max(1, p.Nth)
	for i := from; i < len(f.Events); i++ {
		if !p.matches(f.Events[i]) {
			continue
		}
		if nth--; nth > 0 {
			continue
		}
		// The last event that is not later.
		until := f.Events[i].At + time.Duration(p.Later*float64(time.Millisecond))
		for i+1 < len(f.Events) && p.Later > 0 && f.Events[i+1].At <= until {
			i++
		}
		return i, nil
	}
	b, _ := json.Marshal(p)
	return 0, fmt.Errorf("no event after event %d matches %s", from-1, b)
}

func (p Pattern) matches(e trace.Event) bool {
	is := func(want, got uint64) bool { return want == 0 || want == got }
	for _, part := range p.Has {
		if !strings.Contains(e.Message, part) {
			return false
		}
	}
	return (p.Kind == "" || p.Kind == string(e.Kind)) && (p.Code == "" || p.Code == code(e)) && (p.Role == "" || p.Role == e.Role) &&
		is(p.Node, e.Node) && is(p.Term, e.Term) && is(p.From, e.From) && is(p.To, e.To) && is(p.Client, e.Client) && is(p.Index, e.Index)
}

func code(e trace.Event) string {
	if e.Reason == nil {
		return "-"
	}
	return e.Reason.Code
}
