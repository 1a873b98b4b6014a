package sim

import (
	"fmt"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Carrier carries the lines between servers in place of the world: for example, the
// transports of the real servers, over connections that the carrier simulates. Its
// goroutines and timers run in the world's time, which the carrier keeps while the
// world waits. The world calls all methods on its own goroutine.
//
// A carrier asks the world how the network is (World.Path), and schedules with
// World.After. So partitions, losses and delays hit what the carrier sends, and the
// world decides only whether a line is taken away before it is sent (World.Drop,
// World.LoseNext).
type Carrier interface {
	// Started says that a server has started, and Stopped that it went down. Between
	// the two, Linked says to which servers it may send from then on.
	Started(id uint64)
	Linked(id uint64, members []node.Member)
	Stopped(id uint64)

	// Send carries a line of a server: the one with this number on its link.
	Send(from, to, number uint64, line []byte)

	// Rest lets time pass until then, or until the carrier has something to do, and
	// returns what time it is.
	Rest(until time.Duration) time.Duration

	// Collect does what there is to do at this time, and reports whether there was
	// anything. It gives lines that have arrived to World.Arrived.
	Collect() bool
}

// await gives the carrier time until the next event, but not beyond end.
func (w *World) await(end time.Duration) {
	c := w.carrier
	for c != nil && w.err == nil {
		until := end
		if !w.queue.empty() {
			until = min(until, w.queue.first().at)
		}
		w.now = max(w.now, c.Rest(max(w.now, until)))
		if !c.Collect() {
			return
		}
	}
}

// Path returns how the network treats what a server sends to another now, and
// whether the link passes anything.
func (w *World) Path(from, to uint64) (n Network, passes bool) {
	l := w.link(from, to)
	n = w.network
	n.Delay[0] += l.extra
	n.Delay[1] += l.extra
	n.Loss, n.Duplicate = max(n.Loss, l.loss), max(n.Duplicate, l.again)
	return n, !l.cut
}

// Arrived delivers a line that the carrier has carried.
func (w *World) Arrived(from, to, number uint64, line []byte) {
	if from < 1 || from > uint64(len(w.machines)) || to < 1 || to > uint64(len(w.machines)) {
		w.fail(fmt.Errorf("a line from %s arrives at %s; there are %d machines", node.Name(from), node.Name(to), len(w.machines)))
		return
	}
	e := w.arriveAt(w.now, from, to, line, number, false)
	e.carried, e.life = true, w.machine(to).life
}

// miss returns why a line that was carried does not reach the server, or "".
func (w *World) miss(m *machine, e *event) string {
	if e.life != m.life {
		return trace.IsDown(m.id)
	}
	return w.meet(m, w.machine(e.from), e.disk)
}
