package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Network says how messages travel. The probabilities, from 0 to 1, apply to
// each message between servers. Clients have connections, which deliver each
// line once and in order, or break.
type Network struct {
	// Delay is the range of a message's travel time. Messages on one link keep
	// their order.
	Delay [2]time.Duration

	// Loss is the probability that a message vanishes.
	Loss float64

	// Duplicate is the probability that a message arrives twice, the second
	// time later and out of order.
	Duplicate float64

	// Reorder is the probability that a message takes up to ReorderBy longer
	// and lets others overtake it.
	Reorder   float64
	ReorderBy time.Duration

	// Break is the probability that a client's connection breaks during a
	// request: before the request arrives or after it was carried out.
	Break float64
}

// DefaultNetwork is a network without faults.
var DefaultNetwork = Network{Delay: [2]time.Duration{500 * time.Microsecond, 2 * time.Millisecond}}

// Sent returns how many messages a server has sent.
func (w *World) Sent(from uint64) (n uint64) {
	for to := range w.rows {
		n += w.link(from, to).sent
	}
	return n
}

// SetNetwork changes how messages travel from now on.
func (w *World) SetNetwork(n Network) { w.network = n }

// Network returns how messages travel now.
func (w *World) Network() Network { return w.network }

// link is one direction between two servers.
type link struct {
	// cut is true if every message is lost.
	cut bool

	// extra is added to every delay.
	extra time.Duration

	// loss and again are the probabilities that a message vanishes, or arrives
	// twice, if they are higher than those of the network.
	loss, again float64

	// taken are the next messages that somebody takes away.
	taken []taken

	// latest is the arrival time of the last message that kept its order.
	latest time.Duration

	// random decides what happens to each message.
	random messages

	// sent is the number of the last message sent, delivered the highest number
	// that arrived.
	sent      uint64
	delivered uint64
}

// taken says which message somebody takes away when it is sent.
type taken struct {
	match func(line []byte) bool
	done  func()
}

// takes reports whether somebody takes a message away that is sent now.
func (l *link) takes(line []byte) bool {
	i := slices.IndexFunc(l.taken, func(t taken) bool { return t.match(line) })
	if i < 0 {
		return false
	}
	done := l.taken[i].done
	l.taken = slices.Delete(l.taken, i, i+1)
	done()
	return true
}

func (w *World) link(from, to uint64) *link {
	return &w.links[from*w.rows+to]
}

// send is node.World.Send.
func (w *World) send(m *machine, life, to uint64, line []byte) {
	if m.life != life || w.err != nil {
		return
	}
	if to == m.id || to < 1 || to > uint64(len(w.machines)) {
		w.fail(fmt.Errorf("%s sends a message to n%d, which is not another server", node.Name(m.id), to))
		return
	}
	w.counters.Sent++
	for _, l := range w.listen {
		if err := l.Sent(m.id, to, line); err != nil {
			w.fail(err)
			return
		}
	}
	l := w.link(m.id, to)
	l.sent++
	if w.options.Sink != nil {
		w.emit(trace.Event{Node: m.id, Kind: trace.Send, From: m.id, To: to, Number: l.sent, Message: string(line)})
	}
	rng := l.random.of(l.sent)
	lost := chance(rng, max(w.network.Loss, l.loss))
	switch {
	case w.carrier == nil && !m.linked[to] && !m.met[to]:
		w.lose(m.id, to, l.sent, line, "there is no link")
	case w.carrier == nil && l.cut:
		w.lose(m.id, to, l.sent, line, "the link is cut")
	case l.takes(line):
		w.lose(m.id, to, l.sent, line, "it is taken away")
	case w.filter != nil && w.filter(m.id, to, line):
		w.lose(m.id, to, l.sent, line, "the scenario drops it")
	case w.carrier != nil:
		w.carrier.Send(m.id, to, l.sent, line)
	case lost:
		w.lose(m.id, to, l.sent, line, "random loss")
	default:
		w.transmit(m.id, to, line, l, rng)
	}
}

// transmit schedules the arrival of a message, perhaps late, perhaps twice.
func (w *World) transmit(from, to uint64, line []byte, l *link, rng *rand.Rand) {
	at := w.now + between(rng, w.network.Delay) + l.extra
	switch {
	case chance(rng, w.network.Reorder):
		at += between(rng, [2]time.Duration{0, w.network.ReorderBy})
	case l.extra > 0:
		// A slow link delays only the messages that are sent now.
	default:
		at = max(at, l.latest+1)
		l.latest = at
	}
	w.arriveAt(at, from, to, line, l.sent, false)
	if chance(rng, max(w.network.Duplicate, l.again)) {
		w.counters.Duplicated++
		late := between(rng, [2]time.Duration{0, max(w.network.ReorderBy, 10*w.network.Delay[1])})
		w.arriveAt(at+late, from, to, line, l.sent, true)
	}
}

func (w *World) arriveAt(at time.Duration, from, to uint64, line []byte, number uint64, again bool) *event {
	e := w.queue.add(at, evDeliver)
	e.id, e.from, e.line, e.number, e.again = to, from, line, number, again
	e.disk = w.machine(from).peers.Own()
	return e
}

func (w *World) lose(from, to, number uint64, line []byte, why string) {
	w.counters.Lost++
	if w.options.Sink != nil {
		w.emit(trace.Event{Kind: trace.Drop, From: from, To: to, Number: number, Message: string(line), Text: why})
	}
}

// deliver puts a message into its receiver's inbox. A link that was cut in the
// meantime loses the messages in transit.
func (w *World) deliver(e *event) {
	m := w.machine(e.id)
	l := w.link(e.from, e.id)
	why := ""
	switch {
	case e.silent:
		w.queue.free(e)
		return
	case e.lost:
		why = "it is taken away"
	case m.server == nil:
		why = trace.IsDown(e.id)
	case e.carried:
		why = w.miss(m, e)
	case l.cut:
		why = "the link is cut"
	default:
		why = w.meet(m, w.machine(e.from), e.disk)
	}
	if why != "" {
		w.lose(e.from, e.id, e.number, e.line, why)
		w.queue.free(e)
		return
	}
	w.counters.Delivered++
	m.met[e.from] = true
	if e.late = e.number < l.delivered && !e.again; e.late {
		w.counters.Reordered++
	}
	l.delivered = max(l.delivered, e.number)
	w.enqueue(m, e)
}

// meet models the handshake of package wire, for a message that arrives at m
// from a machine with a disk: each server compares the other's disk with the
// one it remembers. It returns why the message is lost, or "". A server whose
// disk is not the one that the other remembers is ended.
func (w *World) meet(m, from *machine, now disk.Incarnation) string {
	if from.server != nil {
		if known := from.peers.Known(m.id); known != 0 && known != m.peers.Own() {
			w.disown(m, from.id, known)
			return node.Name(m.id) + " has lost its disk"
		}
	}
	err := m.peers.Admit(from.id, now)
	var other *node.DiskError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &other):
		if from.server != nil && from.peers.Own() == now {
			w.disown(from, m.id, other.Known)
		}
	case errors.Is(err, disk.ErrPowerCut):
		w.end(m, err)
	}
	return err.Error()
}

// greet lets a starting server meet all servers that it can reach. The links of
// package wire do the same: the handshake comes before the first message.
func (w *World) greet(m *machine) {
	for _, other := range w.machines {
		if other == m || other.server == nil || other.paused || !m.linked[other.id] || w.link(m.id, other.id).cut || w.link(other.id, m.id).cut {
			continue
		}
		w.meet(m, other, other.peers.Own())
		if m.server == nil {
			return
		}
		if other.server != nil {
			w.meet(other, m, m.peers.Own())
		}
	}
}

// disown ends a server that another server knows with a different disk.
func (w *World) disown(m *machine, by uint64, known disk.Incarnation) {
	_, changes := w.options.Ops[api.Change]
	w.end(m, node.Disowned(m.id, by, known, m.peers.Own(), changes))
}

// traceDelivery emits the event that a message is handled.
func (w *World) traceDelivery(e *event) {
	if w.options.Sink == nil {
		return
	}
	text := ""
	switch {
	case e.again:
		text = "a duplicate"
	case e.late:
		text = "overtaken by a later one"
	}
	w.emit(trace.Event{Node: e.id, Kind: trace.Deliver, From: e.from, To: e.id, Number: e.number, Message: string(e.line), Text: text})
}

// Cut loses every message from one server to another from now on, including
// messages in transit. The other direction does not change.
func (w *World) Cut(from, to uint64) {
	if l := w.link(from, to); !l.cut {
		l.cut = true
		w.counters.Cuts++
		w.emit(trace.Event{Kind: trace.Cut, From: from, To: to})
	}
}

// Heal ends the cut from one server to another.
func (w *World) Heal(from, to uint64) {
	if l := w.link(from, to); l.cut {
		l.cut = false
		w.counters.Heals++
		w.emit(trace.Event{Kind: trace.Heal, From: from, To: to})
	}
}

// Partition cuts every link between servers of different groups, in both
// directions, and heals all others. A server in no group is cut off from all
// others.
func (w *World) Partition(groups ...[]uint64) {
	side := func(id uint64) int {
		return slices.IndexFunc(groups, func(g []uint64) bool { return slices.Contains(g, id) })
	}
	changed := false
	for _, a := range w.machines {
		for _, b := range w.machines {
			if a == b {
				continue
			}
			l := w.link(a.id, b.id)
			cut := side(a.id) != side(b.id) || side(a.id) < 0
			changed = changed || l.cut != cut
			l.cut = cut
		}
	}
	if !changed {
		return
	}
	w.counters.Cuts++
	if w.options.Sink != nil {
		w.emit(trace.Event{Kind: trace.Cut, Sides: groups, Text: "the network parts: " + groupNames(groups)})
	}
}

// groupNames writes groups of servers as "n1 n2 | n3 n4 n5".
func groupNames(groups [][]uint64) string {
	var sides []string
	for _, g := range groups {
		var names []string
		for _, id := range g {
			names = append(names, node.Name(id))
		}
		sides = append(sides, strings.Join(names, " "))
	}
	return strings.Join(sides, " | ")
}

// Passes reports whether the link from one server to another is not cut.
func (w *World) Passes(from, to uint64) bool { return !w.link(from, to).cut }

// Isolate cuts a server off from all others.
func (w *World) Isolate(id uint64) {
	var rest []uint64
	for _, m := range w.machines {
		if m.id != id {
			rest = append(rest, m.id)
		}
	}
	w.Partition([]uint64{id}, rest)
}

// HealAll ends all cuts, and all links are as fast and as reliable as the network.
func (w *World) HealAll() {
	healed := false
	for i := range w.links {
		healed = healed || w.links[i].cut
		w.links[i].cut, w.links[i].extra, w.links[i].loss, w.links[i].again = false, 0, 0, 0
	}
	if healed {
		w.counters.Heals++
		w.emit(trace.Event{Kind: trace.Heal, Text: "all links pass messages again"})
	}
}

// Lose loses a message that is in transit: the one with this number on its link.
// It reports whether there was such a message.
func (w *World) Lose(from, to, number uint64) bool {
	found := false
	for _, e := range w.inTransit(from, to, number) {
		e.lost, found = true, true
	}
	return found
}

// Delay lets a message that is in transit arrive later by d. It reports whether
// there was such a message.
func (w *World) Delay(from, to, number uint64, d time.Duration) bool {
	all := w.inTransit(from, to, number)
	for _, e := range all {
		e.lost, e.silent = true, true
		w.arriveAt(e.at+max(d, 0), from, to, e.line, number, e.again).disk = e.disk
	}
	return len(all) > 0
}

// Repeat lets a message that is in transit arrive once more, d after the first
// time. It reports whether there was such a message.
func (w *World) Repeat(from, to, number uint64, d time.Duration) bool {
	all := w.inTransit(from, to, number)
	if len(all) == 0 {
		return false
	}
	w.counters.Duplicated++
	w.arriveAt(all[0].at+max(d, 0), from, to, all[0].line, number, true).disk = all[0].disk
	return true
}

// inTransit returns the arrivals of a message that have not happened.
func (w *World) inTransit(from, to, number uint64) []*event {
	var all []*event
	for _, e := range w.queue.heap {
		if e.kind == evDeliver && e.from == from && e.id == to && e.number == number && !e.lost {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *event) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	return all
}

// Slow delays messages from one server to another by d from now on. Messages
// sent after the link is fast again overtake the delayed ones.
func (w *World) Slow(from, to uint64, d time.Duration) {
	w.link(from, to).extra = d
}

// SetLoss sets the probability that a message from one server to another vanishes,
// and SetRepeat that it arrives twice, for the messages that are sent from now on.
// The network's own probabilities count if they are higher.
func (w *World) SetLoss(from, to uint64, p float64)   { w.link(from, to).loss = p }
func (w *World) SetRepeat(from, to uint64, p float64) { w.link(from, to).again = p }

// LoseNext loses the next message from one server to another for which match is
// true, and calls done then.
func (w *World) LoseNext(from, to uint64, match func(line []byte) bool, done func()) {
	l := w.link(from, to)
	l.taken = append(l.taken, taken{match, done})
}

// Drop loses every message between servers for which f returns true. nil ends
// that. It returns the previous function.
func (w *World) Drop(f func(from, to uint64, line []byte) bool) (before func(from, to uint64, line []byte) bool) {
	before, w.filter = w.filter, f
	return before
}
