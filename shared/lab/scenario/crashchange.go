package scenario

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/node"
)

// crashSpares is how many machines can join in crash-in-change: a step each.
const crashSpares = 260

// compactSometimes draws whether new servers get the log or a snapshot.
func compactSometimes(c *node.Config, rng *rand.Rand) {
	c.CompactBytes, c.ChunkBytes = []int64{0, -1, soonBytes}[rng.IntN(3)], 1000
}

// crashInChange replaces one server after another. In each change a power cut
// hits the leader, a follower or the new server, at each operation of its disk;
// or one of them crashes at each message; or each message is lost. Whatever it
// is, the change is done, and nothing acknowledged is lost. Before that come
// three moments that need more than one blow.
func crashInChange(r *run) {
	r.lastWord()
	r.halfCut()
	r.oldNews()
	const most = 40
	for _, c := range []struct {
		what string
		step func(r *run, t *turnover, nth int)
	}{
		{"the power of the leader is cut at operation %d of its disk", func(r *run, t *turnover, nth int) { t.cutPower(r, t.leader, nth) }},
		{"the power of a follower is cut at operation %d of its disk", func(r *run, t *turnover, nth int) { t.cutPower(r, t.stays, nth) }},
		{"the power of the new server is cut at operation %d of its disk", func(r *run, t *turnover, nth int) { t.cutPower(r, t.comes, nth) }},
		{"the leader is killed at message %d", func(r *run, t *turnover, nth int) { t.atMessage(r, nth, t.leader) }},
		{"the new server is killed at message %d", func(r *run, t *turnover, nth int) { t.atMessage(r, nth, t.comes) }},
		{"message %d is lost", func(r *run, t *turnover, nth int) { t.atMessage(r, nth, 0) }},
	} {
		nth, reached := 1, true
		for ; reached && nth < most && !r.over(); nth++ {
			reached = r.turnOver(nth, c.what, c.step)
		}
		if nth < 6 && !r.over() {
			r.breaks(Missed, "there were only %d steps for: "+c.what, nth, nth)
		}
	}
	if n := r.invariants.Counters(); !r.over() && (n.Joint == 0 || n.Changed == 0) {
		r.breaks(Missed, "%d servers were in a joint configuration, and %d changes were done", n.Joint, n.Changed)
	}
}

// turnover is one change: one server comes, one goes, the leader or another.
type turnover struct {
	leader, stays, goes, comes uint64

	// struck is set when the step was reached, victim is who goes down in it.
	struck bool
	victim uint64
}

// turnOver replaces a server while something happens at the nth step. It reports
// whether there was such a step.
func (r *run) turnOver(nth int, what string, step func(*run, *turnover, int)) bool {
	t := r.draw(nth)
	r.mustWrite("k0", fmt.Sprint(nth))
	if r.over() {
		return false
	}
	r.say("%s replaces %s, %s leads; "+what, node.Name(t.comes), node.Name(t.goes), node.Name(t.leader), nth)
	r.start(t.comes)
	step(r, t, nth)
	asked := r.tryPut(t.leader, "k1", fmt.Sprint(nth))
	recovered := false
	r.change([]uint64{t.comes}, []uint64{t.goes}, func() {
		if t.victim != 0 && !r.w.Up(t.victim) && !recovered {
			recovered, t.struck = true, true
			r.wait(200 * time.Millisecond)
			r.recoverTwice(t.victim, nth)
		}
	})
	r.w.Drop(nil)
	if t.victim != 0 {
		r.w.PowerCutAt(t.victim, 0)
		t.struck = t.struck || !r.w.Up(t.victim)
		r.restart(t.victim)
	}
	r.wait(100 * time.Millisecond)
	r.retire(t.goes)
	r.mustWrite("k2", fmt.Sprint(nth))
	r.wait(100 * time.Millisecond)
	r.agree("k0", fmt.Sprint(nth))
	if asked.Done && asked.Response.Error == nil {
		r.agree("k1", fmt.Sprint(nth))
	}
	return t.struck
}

// draw says who comes and who goes: the leader goes in every other step.
func (r *run) draw(nth int) *turnover {
	leader := r.leader()
	if r.over() {
		return &turnover{}
	}
	rest := r.membersBut(leader)
	t := &turnover{leader: leader, stays: rest[0], goes: rest[len(rest)-1]}
	if nth%2 == 0 {
		t.stays, t.goes = rest[len(rest)-1], leader
	}
	for _, id := range r.w.IDs() {
		if !slices.Contains(r.voted, id) && id > 3 {
			t.comes, r.voted = id, append(r.voted, id)
			break
		}
	}
	if t.comes == 0 {
		r.breaks(Missed, "there are too few machines")
	}
	return t
}

// cutPower cuts the power of a server at the nth operation of its disk.
func (t *turnover) cutPower(r *run, id uint64, nth int) {
	t.victim = id
	r.w.PowerCutAt(id, nth)
}

// atMessage kills a server when the nth message of the change that is no mere
// repetition is sent, or, if it is server 0, loses the message.
func (t *turnover) atMessage(r *run, nth int, victim uint64) {
	last := make(map[[2]uint64]string)
	seen := 0
	t.victim = victim
	r.w.Drop(func(from, to uint64, line []byte) bool {
		link := [2]uint64{from, to}
		if last[link] == string(line) {
			return false
		}
		last[link] = string(line)
		if seen++; seen != nth {
			return false
		}
		t.struck = true
		if victim != 0 {
			r.w.After(0, func() { r.w.Crash(victim) })
		}
		return victim == 0
	})
}

// lastWord takes a change to the point where only the leader that is to go has
// its last entry. Then one more server is lost. The one that is to go is needed
// once more: nobody else has a log that it would vote for (§6).
func (r *run) lastWord() {
	leader := r.leader()
	if r.over() {
		return
	}
	// Before it has committed something, a leader changes nothing.
	r.put(leader, "k0", "first")
	r.noteVoters()
	rest := r.membersBut(leader)
	comes := uint64(4)
	r.voted = append(r.voted, comes)
	r.say("%s replaces %s, which leads; nobody gets the end of the change, and it goes down", node.Name(comes), node.Name(leader))
	r.start(comes)
	r.w.Drop(func(from, _ uint64, _ []byte) bool { return from == leader && r.alone(leader) })
	r.doAs(r.operator(), leader, request([]uint64{comes}, []uint64{leader}))
	if !r.w.RunUntil(func() bool { return r.alone(leader) }, leaderTime) {
		r.breaks(Missed, "%s never came to the end of the change", node.Name(leader))
	}
	r.wait(50 * time.Millisecond)
	r.crash(leader)
	r.crash(rest[0])
	r.w.Drop(nil)
	r.restart(leader)
	r.say("%s is back, and %s is down: a majority of those before and of those after", node.Name(leader), node.Name(rest[0]))
	r.mustWrite("k0", "last")
	r.restart(rest[0])
	r.change([]uint64{comes}, []uint64{leader})
	r.mustLeave(leader)
	r.retire(leader)
	r.agree("k0", "last")
}

// halfCut lets three new servers replace all members, and cuts the
// leader off from the three while both halves decide. It can no longer commit,
// but hears a majority of the old members. It must let another lead, who hears
// all.
func (r *run) halfCut() {
	leader := r.leader()
	if r.over() {
		return
	}
	old := r.members()
	var comes []uint64
	for _, id := range r.joiners() {
		if len(comes) < len(old) {
			comes = append(comes, id)
		}
	}
	r.voted = append(r.voted, comes...)
	r.say("%s replace %s; while both decide, %s, which leads, does not reach the new ones", nodeNames(comes), nodeNames(old), node.Name(leader))
	r.start(comes...)
	cut := false
	r.w.Drop(func(from, to uint64, _ []byte) bool {
		s, ok := r.inspect(leader)
		cut = cut || ok && len(s.Config.Next) > 0
		return cut && (from == leader && slices.Contains(comes, to) || to == leader && slices.Contains(comes, from))
	})
	r.change(comes, old)
	r.mustWrite("k0", "half")
	if !cut && !r.over() {
		r.breaks(Missed, "%s was never in a joint configuration", node.Name(leader))
	}
	r.w.Drop(nil)
	r.wait(time.Second)
	r.retire(old...)
	r.agree("k0", "half")
}

// oldNews pauses the leader, cut off, while two new servers take the
// places of the other two. When it goes on it still leads, as it sees it, and one
// of the new ones asks for its vote, whom it does not know: it must not take that
// one for removed, and keep it from leading. The two are a majority.
func (r *run) oldNews() {
	old := r.leader()
	if r.over() {
		return
	}
	goes := r.membersBut(old)
	comes := r.joiners()[:2]
	r.voted = append(r.voted, comes...)
	r.say("%s, which leads, is paused and is cut off, while %s take the places of %s", node.Name(old), nodeNames(comes), nodeNames(goes))
	r.w.Isolate(old)
	r.w.Pause(old)
	r.start(comes...)
	r.newLeader(goes)
	r.change(comes, goes)
	r.wait(time.Second)
	r.retire(goes...)
	leader := r.newLeader(comes)
	if r.over() {
		return
	}
	asks := comes[0]
	if asks == leader {
		asks = comes[1]
	}
	r.say("%s goes down; %s asks %s for its vote, which then goes on", node.Name(leader), node.Name(asks), node.Name(old))
	r.crash(leader)
	r.w.Heal(old, asks)
	r.w.Heal(asks, old)
	r.wait(500 * time.Millisecond)
	r.w.Resume(old)
	r.mustWrite("k0", "news")
	r.w.HealAll()
	r.restart(leader)
	r.wait(time.Second)
	r.agree("k0", "news")
}
