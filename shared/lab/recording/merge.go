package recording

import (
	"slices"

	"example.com/raftsteps/shared/core/trace"
)

// merger puts the rounds of several servers in one order: that of causality, and
// that of the wall time where causality leaves it open.
//
// A message carries no number on a real link, so that a send and its delivery are
// paired by their content: a delivery belongs to the oldest send of the same
// content on its link that has no delivery yet. The true send is that one or a
// later one, so a delivery is never put too early or in a circle.
type merger struct {
	sources []*source
	links   map[link]*wire
}

type link struct{ from, to uint64 }

// wire is what is on its way on a link.
type wire struct {
	// sent counts the messages.
	sent uint64

	// open are those without a delivery, the oldest first.
	open []flight
}

// flight is a message on its way. The link carries its messages in order, so what
// was sent before a message that arrives is lost.
type flight struct {
	number, hash uint64
	at           int64
}

// mostOpen is how many messages of a link may be on their way.
const mostOpen = 16 << 10

// patience is how long a message may be on its way before a film shows it as lost.
// One that a paused server takes later arrives all the same.
const patience = int64(1e9)

// between is how much later than a delivery the next process of its sender may
// begin, if the delivery can belong to that process. A process that is killed loses
// the end of its trace, and the next one often sends the same again.
const between = int64(10e6)

// ahead is how many rounds of each source are read before one is taken, so that the
// send of a message is found even if the sender's clock is late.
const ahead = 64

func (m *merger) wire(l link) *wire {
	w := m.links[l]
	if w == nil {
		w = &wire{}
		m.links[l] = w
	}
	return w
}

// next takes the round that comes next, or returns nil if it is not known yet:
// a source without rounds may still get an earlier one. Rounds that begin before
// until are known to come next even so.
func (m *merger) next(until int64) *round {
	var first *source
	for _, s := range m.sources {
		if h := s.head(); h != nil && (first == nil || h.at() < first.head().at()) {
			first = s
		}
	}
	if first == nil {
		return nil
	}
	if first.head().at() >= until && slices.ContainsFunc(m.sources, func(s *source) bool { return len(s.queue) < ahead && !s.ended }) {
		return nil
	}
	take, seen := first, []*source{first}
	for {
		sender := m.waitsFor(take.head())
		if sender == nil {
			break
		}
		if slices.Contains(seen, sender) {
			take = first // a trace has lost lines, and what looks like a pair is none
			break
		}
		take = sender
		seen = append(seen, sender)
	}
	r := take.queue[0]
	take.queue[0] = nil
	take.queue = take.queue[1:]
	take.merged = true
	return r
}

// waitsFor returns the source that has a message to send before a round can begin,
// or nil. If its clock says that it sends later, its clock is wrong and is put
// right.
func (m *merger) waitsFor(r *round) *source {
	passed := make(map[link]int) // how many of the messages on their way
	for i := range r.events {
		e := &r.events[i]
		if !arrives(e) {
			continue
		}
		l := link{e.From, e.To}
		if w := m.links[l]; w != nil {
			rest := w.open[passed[l]:]
			if k := slices.IndexFunc(rest, func(f flight) bool { return f.hash == e.hash }); k >= 0 {
				passed[l] += k + 1
				continue
			}
		}
		for _, s := range m.sources {
			if s.server != e.From || !s.begun {
				continue
			}
			send, ok := s.sends(e, e.wall+r.source.shift)
			if !ok {
				continue
			}
			if late := send + s.shift - (e.wall + r.source.shift); late > 0 {
				s.shift -= late
			}
			return s
		}
	}
	return nil
}

// arrives reports whether an event is the end of a message at its receiver.
func arrives(e *timed) bool {
	return e.Node == e.To && (e.Kind == trace.Deliver || e.Kind == trace.Drop && e.Message != "")
}

// sends finds when a message was sent, in the rounds that wait. at is when it
// arrived.
func (s *source) sends(e *timed, at int64) (wall int64, ok bool) {
	for i, r := range s.queue {
		if r.begins && (i > 0 || s.merged && r.at() > at+between) {
			return 0, false // a process that has ended cannot send any longer
		}
		for k := range r.events {
			if x := &r.events[k]; x.Kind == trace.Send && x.To == e.To && x.hash == e.hash {
				return x.wall, true
			}
		}
	}
	return 0, false
}

// send gives a message its number.
func (m *merger) send(l link, hash uint64, at int64) uint64 {
	w := m.wire(l)
	w.sent++
	w.open = append(w.open, flight{w.sent, hash, at})
	if len(w.open) > mostOpen {
		w.open = w.open[1:]
	}
	return w.sent
}

// arrive returns the number of a message that has arrived, or 0, and those that were
// lost before it.
func (m *merger) arrive(l link, hash uint64) (number uint64, lost []uint64) {
	w := m.wire(l)
	i := slices.IndexFunc(w.open, func(f flight) bool { return f.hash == hash })
	if i < 0 {
		return 0, nil
	}
	for _, f := range w.open[:i] {
		if f.at >= 0 {
			lost = append(lost, f.number)
		}
	}
	number = w.open[i].number
	w.open = w.open[i+1:]
	return number, lost
}

// expire returns the messages that have been on their way for too long. They stay
// on their link, for they may arrive.
func (m *merger) expire(now int64, say func(l link, number uint64)) {
	for l, w := range m.links {
		for i := range w.open {
			f := &w.open[i]
			if f.at > now-patience {
				break
			}
			if f.at >= 0 {
				f.at = -1
				say(l, f.number)
			}
		}
	}
}

// dropLast ends the last message of a link, which the sender itself has dropped.
func (m *merger) dropLast(l link) uint64 {
	w := m.wire(l)
	if n := len(w.open); n > 0 && w.open[n-1].number == w.sent {
		w.open = w.open[:n-1]
	}
	return w.sent
}
