package scenario

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/node"
)

// crashSpares is the number of spare machines in crash-in-change: one per step.
const crashSpares = 260

// compactSometimes draws whether new servers receive the log or a snapshot.
func compactSometimes(c *node.Config, rng *rand.Rand) {
	c.CompactBytes, c.ChunkBytes = []int64{0, -1, soonBytes}[rng.IntN(3)], 1000
}

// crashInChange replaces one server after another. In each change a power cut
// hits the leader, a follower or the new server, at each operation of its disk;
// or one of them crashes at each message; or each message is lost. In each case
// the change must be done, and no acknowledged write may be lost. Before that
// come three situations that need more than one fault.
func crashInChange(r *run) {
	r.removedLeaderNeeded()
	r.cutFromNewHalf()
	r.pausedLeaderVotes()
	const maxSteps = 40
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
		for ; reached && nth < maxSteps && !r.over(); nth++ {
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

// turnover is one change: one server joins, and one is removed, the leader or a
// follower.
type turnover struct {
	leader, stays, goes, comes uint64

	// struck is true once the step was reached; victim is the server that goes
	// down in it.
	struck bool
	victim uint64
}

// turnOver replaces a server and injects a fault at the nth step. It reports
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

// draw decides which server joins and which is removed: in every other step it
// is the leader.
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

// atMessage kills a server when the nth message of the change is sent, not
// counting repeated messages. If the server is 0, it loses the message instead.
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

// removedLeaderNeeded takes a change to the point where only the leader, which the change
// removes, has the last entry. Then one more server is lost. Only the removed
// server can be elected now, because no other log is up to date (§6).
func (r *run) removedLeaderNeeded() {
	leader := r.leader()
	if r.over() {
		return
	}
	// A leader begins no change before it has committed an entry.
	r.put(leader, "k0", "first")
	r.noteVoters()
	rest := r.membersBut(leader)
	comes := uint64(4)
	r.voted = append(r.voted, comes)
	r.say("%s replaces %s, the leader; no other server receives the last entry of the change, and the leader goes down", node.Name(comes), node.Name(leader))
	r.start(comes)
	r.w.Drop(func(from, _ uint64, _ []byte) bool { return from == leader && r.alone(leader) })
	r.doAs(r.operator(), leader, request([]uint64{comes}, []uint64{leader}))
	if !r.w.RunUntil(func() bool { return r.alone(leader) }, leaderTime) {
		r.breaks(Missed, "%s never reached the end of the change", node.Name(leader))
	}
	r.wait(50 * time.Millisecond)
	r.crash(leader)
	r.crash(rest[0])
	r.w.Drop(nil)
	r.restart(leader)
	r.say("%s is back, and %s is down: a majority of the old and of the new members is running", node.Name(leader), node.Name(rest[0]))
	r.mustWrite("k0", "last")
	r.restart(rest[0])
	r.change([]uint64{comes}, []uint64{leader})
	r.mustLeave(leader)
	r.retire(leader)
	r.agree("k0", "last")
}

// cutFromNewHalf replaces all members by three new servers, and cuts the leader off
// from the three during joint consensus. The leader can no longer commit, but
// it still hears a majority of the old members. It must step down for a leader
// that reaches all.
func (r *run) cutFromNewHalf() {
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
	r.say("%s replace %s; during joint consensus the leader, %s, does not reach the new servers", nodeNames(comes), nodeNames(old), node.Name(leader))
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

// pausedLeaderVotes pauses the leader and cuts it off, while two new servers replace the
// other two. When it continues, it still believes that it leads, and one of the
// new servers, which it does not know, requests its vote. It must not treat
// that server as removed and refuse the vote, because the two are a majority.
func (r *run) pausedLeaderVotes() {
	old := r.leader()
	if r.over() {
		return
	}
	goes := r.membersBut(old)
	comes := r.joiners()[:2]
	r.voted = append(r.voted, comes...)
	r.say("the leader, %s, is paused and cut off, while %s replace %s", node.Name(old), nodeNames(comes), nodeNames(goes))
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
	r.say("%s goes down; %s requests a vote from %s, which then resumes", node.Name(leader), node.Name(asks), node.Name(old))
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
