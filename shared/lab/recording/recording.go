// Package recording makes films of real clusters, from the traces that their
// servers write (cluster --trace).
//
// The traces of several servers are merged by causality, which the servers' clocks
// cannot contradict. What a film needs and no server can know is added: the number
// of a message on its link, that a message never arrived, and that a process ended
// without a word. A film of a real cluster can be watched like any other, but it has
// no script: nobody can go another way from its moments.
//
// Everything is bounded in bytes. Of a long recording the newest part is kept, and
// of that, if need be, only the moments in which something changed.
package recording

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/trace"
)

// Recording is what the traces of one cluster say. It may grow while it is shown.
// One goroutine at a time uses it.
type Recording struct {
	// Most is how many bytes the recording may take, roughly; 0 is DefaultBytes.
	Most int

	origin trace.Origin
	merger merger

	// steps are those that are kept, servers what was true before the first of
	// them, and the others count what is not kept.
	steps   []step
	bytes   int
	servers map[uint64]*server
	cuts    map[link]bool
	quiet   int
	dropped int

	// thinned is how many of the steps have been looked at for quiet ones.
	thinned int

	// number is that of the last step, began the wall time of the first, and now
	// the time of the last since then.
	number uint64
	began  int64
	now    time.Duration

	// up are the servers that are running, and clients what is asked.
	up      map[uint64]bool
	clients clients
}

// DefaultBytes is the default of Recording.Most.
const DefaultBytes = 12 << 20

// step is one step of the film.
type step struct {
	number uint64
	at     time.Duration
	events []trace.Event
	frames []frame
	bytes  int
}

// frame is how a server changes in a step.
type frame struct {
	server uint64
	change change
}

// change is a state, or whether a server is running.
type change struct {
	up, paused *bool
	text       trace.Raw
	state      state
}

// New returns a recording of a cluster of a stage.
func New(stage string) *Recording {
	return &Recording{
		origin: trace.Origin{Stage: stage}, merger: merger{links: make(map[link]*wire)},
		servers: make(map[uint64]*server), cuts: make(map[link]bool), up: make(map[uint64]bool),
	}
}

// Trace adds a trace, which has a name for errors. Its number is that of Add.
func (r *Recording) Trace(name string) int {
	r.merger.sources = append(r.merger.sources, &source{name: name})
	return len(r.merger.sources) - 1
}

// Add adds bytes of a trace. The error names the line that is wrong.
func (r *Recording) Add(i int, b []byte) error {
	s := r.merger.sources[i]
	was := s.begun
	if err := s.add(b, &r.origin); err != nil {
		return err
	}
	if !was && s.begun {
		for k, other := range r.merger.sources {
			if k != i && other.begun && other.server == s.server {
				return fmt.Errorf("%s and %s are traces of the same server; open one of them", other.name, s.name)
			}
		}
	}
	return nil
}

// End says that no more bytes of a trace come.
func (r *Recording) End(i int) error { return r.merger.sources[i].end() }

// Waiting returns how many rounds of a trace wait to be merged.
func (r *Recording) Waiting(i int) int { return len(r.merger.sources[i].queue) }

// Pause says that all rounds that began before now, which is a wall time, have been
// added, so that they can be merged.
func (r *Recording) Pause(now time.Time) {
	for _, s := range r.merger.sources {
		if s.open != nil && s.open.at() < now.UnixNano() {
			s.close()
		}
	}
	r.merge(now.UnixNano())
}

// Merge merges what can be merged. A trace without rounds holds it up.
func (r *Recording) Merge() { r.merge(0) }

func (r *Recording) merge(until int64) {
	for {
		next := r.merger.next(until)
		if next == nil {
			break
		}
		r.play(next)
	}
	r.trim()
}

// play makes a round a step of the film.
func (r *Recording) play(from *round) {
	id := from.source.server
	if r.number == 0 {
		r.began = from.at()
	}
	if from.begins && id == 0 {
		return // the trace of the processes
	}
	if from.begins && r.up[id] {
		r.now = max(r.now, time.Duration(from.at()-r.began))
		s := r.begin()
		r.event(&s, trace.Event{Node: id, Kind: trace.Crash, Text: "its process ended without a word"})
		r.end(s)
	}
	s := r.begin()
	announced := slices.ContainsFunc(from.events, func(e timed) bool { return e.Kind == trace.Start })
	for i := range from.events {
		e := &from.events[i]
		r.now = max(r.now, time.Duration(e.wall+from.source.shift-r.began))
		if e.Kind == trace.Begin && !announced {
			e = &timed{Event: trace.Event{Node: id, Kind: trace.Start}} // the server says nothing about it
		}
		r.take(&s, e)
	}
	r.merger.expire(int64(r.now), func(l link, n uint64) { r.lost(&s, l, n, "it has not arrived within a second") })
	r.end(s)
}

func (r *Recording) begin() step {
	r.number++
	return step{number: r.number}
}

func (r *Recording) end(s step) {
	if len(s.events) == 0 && len(s.frames) == 0 {
		r.number--
		return
	}
	s.at = r.now
	r.steps = append(r.steps, s)
	r.bytes += s.bytes
}

// take adds an event of a server, and what follows from it.
func (r *Recording) take(s *step, t *timed) {
	e, l := t.Event, link{t.From, t.To}
	switch e.Kind {
	case trace.Begin:
		return
	case trace.Start:
		r.frame(s, e.Node, change{up: ptr(true)})
		r.up[e.Node] = true
	case trace.State:
		st, err := decodeState(e.State)
		if text := bytes.TrimSpace([]byte(e.State)); err == nil && len(text) > 2 {
			r.frame(s, e.Node, change{text: trace.Raw(text), state: st})
		}
		return
	case trace.Crash:
		if up, known := r.up[e.Node]; known && !up {
			return // it has said itself that it stops
		}
	case trace.Send:
		e.Number = r.merger.send(l, t.hash, int64(r.now))
	case trace.Drop:
		if e.Node != e.From {
			e = r.arrives(s, e, t.hash)
			break
		}
		if e.Message != "" {
			// The sender itself has dropped it.
			r.event(s, trace.Event{Node: e.Node, Kind: trace.Send, From: e.From, To: e.To, Message: e.Message, Number: r.merger.send(l, t.hash, int64(r.now))})
		}
		e.Number = r.merger.dropLast(l)
	case trace.Deliver:
		e = r.arrives(s, e, t.hash)
	case trace.Request:
		e.Client = r.clients.ask(e.Node, requestID(e.Message))
		invoke := trace.Event{Kind: trace.Invoke, Client: e.Client, To: e.Node, Message: e.Message}
		r.event(s, invoke)
	case trace.Reply:
		if e.Client = r.clients.answer(e.Node, requestID(e.Message)); e.Client != 0 {
			r.event(s, e)
			e = trace.Event{Kind: trace.Return, Client: e.Client, To: e.Node, Message: e.Message}
		}
	}
	r.event(s, e)
}

// arrives gives a message that has arrived its number.
func (r *Recording) arrives(s *step, e trace.Event, hash uint64) trace.Event {
	if e.Message == "" || e.Node != e.To {
		return e // it was refused after it had arrived
	}
	number, lost := r.merger.arrive(link{e.From, e.To}, hash)
	for _, n := range lost {
		r.lost(s, link{e.From, e.To}, n, "it never arrived")
	}
	e.Number = number
	return e
}

func (r *Recording) lost(s *step, l link, number uint64, why string) {
	r.event(s, trace.Event{Kind: trace.Drop, From: l.from, To: l.to, Number: number, Text: why})
}

// event adds an event as it is, and the frames that follow from its kind.
func (r *Recording) event(s *step, e trace.Event) {
	switch e.Kind {
	case trace.Stop, trace.Crash:
		if up, known := r.up[e.Node]; up || !known {
			r.frame(s, e.Node, change{up: ptr(false)})
		}
		r.up[e.Node] = false
		r.clients.gone(e.Node)
	case trace.Pause, trace.Resume:
		r.frame(s, e.Node, change{paused: ptr(e.Kind == trace.Pause)})
	}
	e.At, e.Step = r.now, s.number
	s.events = append(s.events, e)
	s.bytes += perEvent + len(e.Message) + len(e.Text)
}

// perEvent is roughly how many bytes an event takes without its texts.
const perEvent = 330

func (r *Recording) frame(s *step, id uint64, c change) {
	s.frames = append(s.frames, frame{id, c})
	s.bytes += 200 + 2*len(c.text)
}

func ptr[T any](v T) *T { return &v }

// Steps returns how many steps were recorded.
func (r *Recording) Steps() uint64 { return r.number }
