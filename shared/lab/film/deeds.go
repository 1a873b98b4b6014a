package film

import (
	"bytes"
	"fmt"
	"slices"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// do carries out one deed. It returns why it did not apply, or "".
func (p *projector) do(w *sim.World, e Deed) string {
	ids := w.IDs()
	for _, id := range slices.Concat([]uint64{e.Server, e.From, e.To}, slices.Concat(e.Groups...)) {
		if id != 0 && !slices.Contains(ids, id) {
			return unknownServer(id)
		}
	}
	switch e.Do {
	case Ask:
		return p.ask(w, e)
	case Heal, Cut, Partition, HealAll:
		return network(w, e)
	case EndLoads, EndFilter, EndFaults, EndPlans:
		return endStanding(w, e.Do)
	case LinkLoss, LinkRepeat, LinkDelay:
		link(w, e)
		return ""
	case LoseNext:
		p.loseNext(w, e)
		return ""
	case Lose, Delay, Repeat:
		return message(w, e)
	case Restart:
		return restart(w, e.Server)
	case PowerCut:
		w.PowerCut(e.Server)
		return ""
	}
	if !w.Up(e.Server) {
		return node.Name(e.Server) + " is down"
	}
	switch e.Do {
	case Kill:
		w.Crash(e.Server)
	case Pause:
		if w.Paused(e.Server) {
			return node.Name(e.Server) + " is paused already"
		}
		w.Pause(e.Server)
	case Resume:
		if !w.Paused(e.Server) {
			return node.Name(e.Server) + " is not paused"
		}
		w.Resume(e.Server)
	case FillDisk:
		w.Disk(e.Server).Fill(0)
	case CutWrite:
		w.PowerCutAt(e.Server, 1)
	case FailSync:
		w.Disk(e.Server).FailSync(1)
	case Clock:
		w.SetClock(e.Server, float64(e.Percent)/100)
	case Expire:
		return p.expire(w, e.Server)
	}
	return ""
}

// network changes links.
func network(w *sim.World, e Deed) string {
	switch e.Do {
	case Cut:
		if !w.Passes(e.From, e.To) {
			return "that link is cut already"
		}
		w.Cut(e.From, e.To)
	case Heal:
		if w.Passes(e.From, e.To) {
			return "that link is not cut"
		}
		w.Heal(e.From, e.To)
	case Partition:
		w.Partition(e.Groups...)
	case HealAll:
		w.HealAll()
	}
	return ""
}

// standing returns the deeds that would end something that goes on by itself.
func standing(w *sim.World) (all []string) {
	for _, s := range []struct {
		deed string
		is   bool
	}{{EndLoads, w.Loads() > 0}, {EndFilter, w.Filtered()}, {EndFaults, w.Unleashed()}, {EndPlans, w.Plans() > 0}} {
		if s.is {
			all = append(all, s.deed)
		}
	}
	return all
}

// endStanding ends something that goes on by itself.
func endStanding(w *sim.World, what string) string {
	if !slices.Contains(standing(w), what) {
		return "there is nothing of that kind to end"
	}
	switch what {
	case EndLoads:
		w.EndLoads()
	case EndFilter:
		w.Drop(nil)
	case EndFaults:
		w.EndFaults()
	case EndPlans:
		w.EndPlans()
	}
	return ""
}

// link changes how the messages of a link travel.
func link(w *sim.World, e Deed) {
	switch e.Do {
	case LinkLoss:
		w.SetLoss(e.From, e.To, float64(e.Percent)/100)
	case LinkRepeat:
		w.SetRepeat(e.From, e.To, float64(e.Percent)/100)
	case LinkDelay:
		w.Slow(e.From, e.To, e.For)
	}
}

// loseNext waits for a message to lose. Until it comes, the deed has not applied.
func (p *projector) loseNext(w *sim.World, e Deed) {
	// In a text of JSON no quote stands before a name but at its beginning.
	name := []byte(`"` + e.Kind + `":`)
	i := p.next
	p.awaited = append(p.awaited, i)
	w.LoseNext(e.From, e.To, func(line []byte) bool { return bytes.Contains(line, name) }, func() {
		p.awaited = slices.DeleteFunc(p.awaited, func(k int) bool { return k == i })
	})
}

// message does something to one message that is in transit.
func message(w *sim.World, e Deed) string {
	found := false
	switch e.Do {
	case Lose:
		found = w.Lose(e.From, e.To, e.Number)
	case Delay:
		found = w.Delay(e.From, e.To, e.Number, e.For)
	case Repeat:
		found = w.Repeat(e.From, e.To, e.Number, e.For)
	}
	if !found {
		return "that message is not in transit"
	}
	return ""
}

// restart starts a server. What was done to its disk is undone first, as a person
// would replace the disk or make room.
func restart(w *sim.World, id uint64) string {
	if w.Up(id) {
		return node.Name(id) + " is running"
	}
	d := w.Disk(id)
	d.CutPower(0)
	d.FailSync(0)
	d.Fill(-1)
	if err := w.Restart(id); err != nil {
		return err.Error()
	}
	return ""
}

// ask sends a request. With a server it goes there and nowhere else; without one
// the client finds the server, as the client of the stage does.
func (p *projector) ask(w *sim.World, e Deed) string {
	q, err := p.stage.Ops.Decode([]byte(e.Request))
	if err != nil {
		return err.Error()
	}
	q.ID = 0
	// A person's clients are others than a story's.
	c := w.Client(firstClient + e.Client)
	c.Routed, c.Follow = e.Server == 0, e.Server == 0
	c.Begin(e.Server, q)
	return ""
}

// firstClient is added to the number of a client.
const firstClient = 1_000_000

// expire makes a server's election timeout run out now: its clock jumps until it
// has asked for votes.
func (p *projector) expire(w *sim.World, id uint64) string {
	ticks := node.Ticks(w.Config().ElectionTimeout[1]) + 1
	for range ticks {
		before := w.Sent(id)
		w.JumpClock(id, 1)
		if w.Sent(id) != before || w.Err() != nil {
			return ""
		}
	}
	return node.Name(id) + " starts no election"
}

// stillAwaited says of the deeds that wait for a message that it was not sent.
func (p *projector) stillAwaited() {
	for _, i := range p.awaited {
		e := p.film.Script.Deeds[i]
		p.film.Outcomes[i].Applied = false
		p.film.Outcomes[i].Why = fmt.Sprintf("%s sends %s no %s after it", node.Name(e.From), node.Name(e.To), e.Kind)
	}
}
