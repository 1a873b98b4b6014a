package tour

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/film"
)

// Check returns what is not true at the stops of a tour that Find has found.
func (t Tour) Check(f *film.Film) (wrong []string) {
	since := 0
	for i, s := range t.Stops {
		for _, p := range s.None {
			for _, e := range f.Events[since:s.event] {
				if p.matches(e) {
					wrong = append(wrong, fmt.Sprintf("tour %s, stop %d: before it, in step %d, %s", t.Name, i+1, e.Step, e.AppendJSON(nil)))
					break
				}
			}
		}
		since = s.event + 1
		for _, name := range slices.Sorted(maps.Keys(s.Servers)) {
			state := stateAt(f, name, s.event)
			for field, want := range s.Servers[name] {
				if got := state[field]; !reflect.DeepEqual(got, want) {
					wrong = append(wrong, fmt.Sprintf("tour %s, stop %d, event %d in step %d: %s of %s is %v, not %v", t.Name, i+1, s.event, f.Events[s.event].Step, field, name, got, want))
				}
			}
		}
	}
	return wrong
}

// stateAt is the state of a server at an event, as JSON reads it. What a deed does
// before a step is a moment of its own: the servers that it is not about are then
// as they were before the step.
func stateAt(f *film.Film, server string, event int) map[string]any {
	at := f.Events[event]
	before := early(f, event) && !slices.ContainsFunc(f.Script.Deeds, func(d film.Deed) bool {
		return d.At == at.Step && d.Do != film.Ask && node.Name(d.Server) == server
	})
	memory, synced := node.Name(at.Node) == server && inMemory(f, event), false
	v := map[string]any{"up": false, "paused": false, "role": "", "term": 0.0, "vote": 0.0, "commit": 0.0, "applied": 0.0, "snapshot": 0.0}
	var terms []any
	for _, frame := range f.Frames {
		if node.Name(frame.Server) != server || frame.Step > at.Step || before && frame.Step == at.Step {
			continue
		}
		var d map[string]any
		if json.Unmarshal(frame.JSON, &d) != nil || synced {
			continue
		}
		synced = memory && frame.Step == at.Step && unsynced(d)
		start := int(v["snapshot"].(float64))
		if d["up"] == true {
			terms, start = nil, 0
			maps.DeleteFunc(v, func(field string, _ any) bool { return field != "up" })
			maps.Copy(v, map[string]any{"paused": false, "role": "", "term": 0.0, "vote": 0.0, "commit": 0.0, "applied": 0.0, "snapshot": 0.0})
		}
		if s, ok := d["snapshot"].([]any); ok {
			gone := int(s[0].(float64)) - start
			terms = terms[max(0, min(gone, len(terms))):]
			start += gone
			d["snapshot"] = s[0]
			v["snapshotTerm"] = s[1]
		}
		if l, ok := d["log"].(map[string]any); ok {
			terms = slices.Clone(terms[:int(l["from"].(float64))-start-1])
			for _, e := range l["entries"].([]any) {
				terms = append(terms, e.([]any)[0])
			}
		}
		delete(d, "log")
		maps.Copy(v, d)
	}
	v["terms"], v["last"], v["lastTerm"] = terms, v["snapshot"].(float64)+float64(len(terms)), v["snapshotTerm"]
	if len(terms) > 0 {
		v["lastTerm"] = terms[len(terms)-1]
	}
	return v
}

// inMemory reports whether an event comes before its server has synced in that step
// what it had decided: that is a moment of its own too.
func inMemory(f *film.Film, event int) bool {
	at := f.Events[event]
	for _, e := range f.Events[event+1:] {
		if e.Step != at.Step {
			break
		}
		if e.Node == at.Node && (e.Kind == trace.Save || e.Kind == trace.Crash || e.Kind == trace.Stop) {
			return slices.ContainsFunc(f.Frames, func(frame film.Frame) bool {
				var d map[string]any
				return frame.Step == at.Step && frame.Server == at.Node && json.Unmarshal(frame.JSON, &d) == nil && unsynced(d)
			})
		}
	}
	return false
}

// unsynced reports whether a frame has something that is not on disk.
func unsynced(frame map[string]any) bool {
	u, _ := frame["unsynced"].([]any)
	return slices.ContainsFunc(u, func(v any) bool { return v != 0.0 })
}

// early reports whether a deed before a step has caused an event: it has the time at
// which the step begins, while what happens in the step has another.
func early(f *film.Film, event int) bool {
	at := f.Events[event]
	if !slices.ContainsFunc(f.Outcomes, func(o film.Outcome) bool { return o.Applied && o.Step == at.Step }) {
		return false
	}
	first, last := event, event
	for first > 0 && f.Events[first-1].Step == at.Step {
		first--
	}
	for last+1 < len(f.Events) && f.Events[last+1].Step == at.Step {
		last++
	}
	return f.Events[first].At == at.At && (f.Events[last].At != at.At || first == 0 || f.Events[first-1].At == at.At)
}
