package recording

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/film"
)

// server is what is known about a server before the first step that is kept.
type server struct {
	up, paused bool
	state      state
	entries    []entry
}

// apply is what a frame does; film.js does the same.
func (s *server) apply(c change) {
	if c.up != nil {
		if *c.up {
			*s = server{up: true}
		} else {
			s.up, s.paused = false, false
			s.state.Role, s.state.Votes, s.state.Progress = nil, nil, nil
		}
	}
	if c.paused != nil {
		s.paused = *c.paused
	}
	to, from := &s.state, c.state
	start := s.start()
	set(&to.Role, from.Role)
	set(&to.Term, from.Term)
	set(&to.Vote, from.Vote)
	set(&to.Snapshot, from.Snapshot)
	set(&to.Commit, from.Commit)
	set(&to.Applied, from.Applied)
	for _, f := range []struct{ to, from *json.RawMessage }{{&to.Config, &from.Config}, {&to.Votes, &from.Votes}, {&to.Progress, &from.Progress}} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	if from.Snapshot != nil {
		if start > from.Snapshot[0] {
			s.entries = nil
		} else {
			s.entries = s.entries[min(from.Snapshot[0]-start, uint64(len(s.entries))):]
		}
	}
	if l := from.Log; l != nil {
		keep := max(l.From, s.start()+1) - s.start() - 1
		s.entries = append(slices.Clip(s.entries[:min(keep, uint64(len(s.entries)))]), l.Entries...)
	}
}

// start is the index before the first of the log.
func (s *server) start() uint64 {
	if s.state.Snapshot == nil {
		return 0
	}
	return s.state.Snapshot[0]
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// appendFrame appends a frame that has all of it.
func (s *server) appendFrame(b []byte, id, number uint64) []byte {
	b = fmt.Appendf(b, `{"step":%d,"server":%d,"up":true`, number, id)
	st := &s.state
	if st.Role != nil {
		b = strict.AppendText(b, "role", *st.Role)
	}
	for _, f := range []struct {
		name string
		v    *uint64
	}{{"term", st.Term}, {"vote", st.Vote}, {"commit", st.Commit}, {"applied", st.Applied}} {
		if f.v != nil {
			b = strict.AppendNumber(b, f.name, *f.v)
		}
	}
	if st.Snapshot != nil {
		b = fmt.Appendf(strict.AppendName(b, "snapshot"), "[%d,%d]", st.Snapshot[0], st.Snapshot[1])
	}
	for _, f := range []struct {
		name string
		v    json.RawMessage
	}{{"config", st.Config}, {"votes", st.Votes}, {"progress", st.Progress}} {
		if f.v != nil {
			b = append(strict.AppendName(b, f.name), f.v...)
		}
	}
	if len(s.entries) > 0 {
		b = fmt.Appendf(strict.AppendName(b, "log"), `{"from":%d,"entries":[`, s.start()+1)
		for _, e := range s.entries {
			b = append(strconv.AppendUint(append(strict.AppendComma(b), '['), e.term, 10), ',')
			b = append(strict.AppendString(b, e.data), ']')
		}
		b = append(b, "]}"...)
	}
	if s.paused {
		b = append(b, `,"paused":true`...)
	}
	return append(b, '}')
}

// JSON is the frame as a film has it.
func (f frame) JSON(number uint64) []byte {
	b := fmt.Appendf(nil, `{"step":%d,"server":%d`, number, f.server)
	if f.change.up != nil {
		b = strconv.AppendBool(strict.AppendName(b, "up"), *f.change.up)
	}
	if f.change.paused != nil {
		b = strconv.AppendBool(strict.AppendName(b, "paused"), *f.change.paused)
	}
	if f.change.text == "" {
		return append(b, '}')
	}
	return append(append(b, ','), f.change.text[1:]...)
}

// Film returns what was recorded after a step, and the number of the last step. A
// film after step 0, and one whose steps are not all kept, begins with the servers
// as they were; then whole is true.
func (r *Recording) Film(after uint64) (f *film.Film, last uint64, whole bool) {
	f = &film.Film{Script: film.Script{Stage: r.origin.Stage}, Steps: r.number, Length: r.now}
	first := r.number + 1
	if len(r.steps) > 0 {
		first = r.steps[0].number
	}
	whole = after == 0 || after+1 < first
	if whole {
		after = 0
		r.opening(f)
	}
	for _, s := range r.steps {
		if s.number <= after {
			continue
		}
		f.Events = append(f.Events, s.events...)
		for _, x := range s.frames {
			f.Frames = append(f.Frames, film.Frame{Step: s.number, Server: x.server, JSON: x.JSON(s.number)})
		}
	}
	return f, r.number, whole
}

// opening adds what was true before the first step that is kept.
func (r *Recording) opening(f *film.Film) {
	if r.dropped == 0 {
		return
	}
	number, at := r.steps[0].number-1, r.steps[0].at
	for _, id := range slices.Sorted(maps.Keys(r.servers)) {
		s := r.servers[id]
		f.Frames = append(f.Frames, film.Frame{Step: number, Server: id, JSON: s.appendFrame(nil, id, number)})
		if !s.up {
			f.Frames = append(f.Frames, film.Frame{Step: number, Server: id, JSON: fmt.Appendf(nil, `{"step":%d,"server":%d,"up":false}`, number, id)})
		}
	}
	f.Events = append(f.Events, trace.Event{At: at, Step: number, Kind: trace.Note, Text: r.LeftOut()})
	for _, id := range slices.Sorted(maps.Keys(r.servers)) {
		if s := r.servers[id]; s.up && s.state.Role != nil && *s.state.Role == string(node.Leader) && s.state.Term != nil {
			f.Events = append(f.Events, trace.Event{At: at, Step: number, Node: id, Kind: trace.Role, Role: *s.state.Role, Term: *s.state.Term, Text: "leads"})
		}
	}
	for l, cut := range r.cuts {
		if cut {
			f.Events = append(f.Events, trace.Event{At: at, Step: number, Kind: trace.Cut, From: l.from, To: l.to})
		}
	}
}

// LeftOut says in words which part of the recording is not kept; "" if there is
// none.
func (r *Recording) LeftOut() string {
	var parts []string
	if r.dropped > 0 && len(r.steps) > 0 {
		parts = append(parts, fmt.Sprintf("the first %v (%d steps)", r.steps[0].at.Round(time.Millisecond), r.dropped))
	}
	if r.quiet > 0 {
		parts = append(parts, fmt.Sprintf("%d steps with heartbeats that changed nothing", r.quiet))
	}
	if len(parts) == 0 {
		return ""
	}
	return "The recording is long, so these are left out: " + strings.Join(parts, ", and ") + "."
}

// trim leaves out steps while there are too many: quiet ones first, and then the
// oldest.
func (r *Recording) trim() {
	most := r.Most
	if most == 0 {
		most = DefaultBytes
	}
	if r.bytes <= most {
		return
	}
	r.thin()
	// A quarter of the room is left for steps that follow, so that this is rare.
	n := 0
	for ; n < len(r.steps)-1 && r.bytes > most-most/4; n++ {
		r.drop(&r.steps[n])
	}
	r.steps = slices.Clone(r.steps[n:])
	r.dropped += n
	r.thinned = max(0, r.thinned-n)
}

// drop keeps of a step only what follows from it.
func (r *Recording) drop(s *step) {
	for _, f := range s.frames {
		if r.servers[f.server] == nil {
			r.servers[f.server] = &server{}
		}
		r.servers[f.server].apply(f.change)
	}
	for _, e := range s.events {
		switch e.Kind {
		case trace.Cut, trace.Heal:
			r.cuts[link{e.From, e.To}] = e.Kind == trace.Cut
		}
	}
	r.bytes -= s.bytes
}

// thin leaves out quiet steps, but for the newest quarter.
func (r *Recording) thin() {
	end := len(r.steps) - len(r.steps)/4
	if end <= r.thinned {
		return
	}
	type message struct {
		link
		number uint64
	}
	sent := make(map[message]bool) // in a step that stays
	kept := r.steps[:0:0]
	for i := range r.steps {
		s := &r.steps[i]
		if i >= r.thinned && i < end && quiet(s, func(e *trace.Event) bool { return sent[message{link{e.From, e.To}, e.Number}] }) {
			r.bytes -= s.bytes
			r.quiet++
			continue
		}
		for k := range s.events {
			if e := &s.events[k]; e.Kind == trace.Send {
				sent[message{link{e.From, e.To}, e.Number}] = true
			}
		}
		kept = append(kept, *s)
	}
	r.thinned = end - (len(r.steps) - len(kept))
	r.steps = kept
}

// quiet reports whether nothing changed in a step, and no message arrived in it that
// is shown.
func quiet(s *step, shown func(*trace.Event) bool) bool {
	if len(s.frames) > 0 {
		return false
	}
	for i := range s.events {
		switch e := &s.events[i]; e.Kind {
		case trace.Send, trace.Save:
		case trace.Deliver, trace.Drop:
			if shown(e) {
				return false
			}
		default:
			return false
		}
	}
	return true
}
