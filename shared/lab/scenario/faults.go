package scenario

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/check"
	"example.com/raftsteps/shared/lab/sim"
)

// figure8 follows the paper's Figure 8 as far as the stage allows.
//
//	(a) S1 leads and has an entry on itself and S2 only.
//	(b) S1 crashes; S5 leads a newer term and has another entry there, alone.
//	(c) S5 crashes; S1 leads again and copies its old entry to S3: now a
//	    majority has it.
//	(d) S1 crashes; S5 leads and overwrites the old entry everywhere.
//	(e) But had S1 committed an entry of its new term at (c), S5 could not lead.
//
// Where the operator appoints leaders, S1 writes nothing new at (c), and (d)
// follows: no read may have returned the old entry. Where servers elect them, a
// leader begins its term with an entry of its own, which travels with the old
// one, so that (e) follows: S5 must not win. A script of the rules tests the
// commit rule itself.
func figure8(r *run) {
	const s1, s2, s3, s4, s5 = 1, 2, 3, 4, 5
	_, appointed := r.stage.Ops[api.Lead]
	r.crown(s1, s2, s3, s4, s5)
	r.say("(a) n1 leads and reaches only n2 with x=old")
	r.w.Partition([]uint64{s1, s2}, []uint64{s3, s4, s5})
	r.tryPut(s1, "x", "old")
	r.wait(100 * time.Millisecond)

	r.say("(b) n1 crashes; n5 leads, with x=new only on its own disk")
	r.crash(s1)
	r.w.Partition([]uint64{s2}, []uint64{s3, s4, s5})
	r.w.Drop(func(from, _ uint64, _ []byte) bool { return from == s5 && r.leads(s5) })
	r.crown(s5, s3, s4)
	r.tryPut(s5, "x", "new")
	r.wait(100 * time.Millisecond)
	r.crash(s5)
	r.w.Drop(nil)

	r.say("(c) n5 crashes; n1 leads again, and n3 gets x=old: a majority has it")
	r.w.Partition([]uint64{s1, s2, s3}, []uint64{s4}, []uint64{s5})
	r.restart(s1)
	r.crown(s1, s2, s3)
	r.wait(500 * time.Millisecond)
	if appointed {
		r.noneReturnsOld(s1, s2, s3)
		r.say("(d) n1 crashes; n5 leads, and x=new overwrites x=old")
		r.crash(s1)
		r.w.Partition([]uint64{s2, s3, s4, s5}, []uint64{s1})
		r.restart(s5)
		r.crown(s5, s2, s3, s4)
		r.put(s5, "y", "1")
		r.finish("new", s1)
		return
	}
	r.say("(e), not (d): n1 has committed x=old with an entry of its own term; n5 must not lead")
	r.put(s1, "y", "1")
	r.crash(s1)
	r.w.HealAll()
	r.restart(s5)
	r.mustWrite("y", "1")
	r.finish("old", s1)
}

// noneReturnsOld checks that no server returns x=old, which is not committed.
func (r *run) noneReturnsOld(ids ...uint64) {
	for _, id := range ids {
		if response, err := r.do(id, api.Request{Op: kv.Get, Key: "x"}); err == nil && !r.over() {
			r.breaks(Phantom, "%s shows x=%s: it committed an entry of an older term by counting its copies", node.Name(id), response.Value)
		}
	}
}

// finish ends the scenario: all servers run, are connected and must agree.
func (r *run) finish(x string, down uint64) {
	r.w.HealAll()
	r.restart(down)
	r.settle()
	r.agree("x", x)
	r.agree("y", "1")
}

func (r *run) crash(id uint64) {
	if !r.over() {
		r.w.Crash(id)
	}
}

// leads reports whether a server believes that it is the leader.
func (r *run) leads(id uint64) bool {
	in, ok := r.w.Server(id).(node.Inspector)
	if !ok {
		return false
	}
	var s node.State
	in.Inspect(&s)
	return s.Role == node.Leader
}

// crown makes a server the leader: by appointment, in a new term, or by
// stopping the clocks of the others.
func (r *run) crown(id uint64, voters ...uint64) {
	if r.over() {
		return
	}
	if _, appointed := r.stage.Ops[api.Lead]; appointed {
		term := r.given
		for _, voter := range append(voters, id) {
			if s, ok := r.status(voter); ok {
				term = max(term, s.Term)
			}
		}
		r.appoint(id, term+1)
		return
	}
	r.clocks(0, r.others(id))
	won := func() bool { return r.leads(id) }
	if !r.w.RunUntil(won, 500*time.Millisecond) {
		r.forgetLeader(id)
		if !r.w.RunUntil(won, leaderTime) && !r.over() {
			r.breaks(Unavailable, "%s does not win an election in which it is the only candidate", node.Name(id))
		}
	}
	r.clocks(1, r.others(id))
}

// clocks sets the speed of the servers' clocks.
func (r *run) clocks(speed float64, ids []uint64) {
	for _, id := range ids {
		r.w.SetClock(id, speed)
	}
}

// forgetLeader cuts all links and lets the clocks of the others run until they no
// longer know a leader: in some stages servers vote only then.
func (r *run) forgetLeader(id uint64) {
	before := r.w.Drop(func(uint64, uint64, []byte) bool { return true })
	r.clocks(1, r.others(id))
	r.wait(r.w.Config().ElectionTimeout[1] + 20*time.Millisecond)
	r.clocks(0, r.others(id))
	r.w.Drop(before)
}

func fullDisk(r *run) {
	r.brokenDisk("no space left on device", func(id uint64) {
		r.say("the disk of %s is full", node.Name(id))
		r.w.Disk(id).Fill(int64(r.w.Rand().IntN(60)))
	}, func(id uint64) {
		r.say("there is space again on the disk of %s", node.Name(id))
		r.w.Disk(id).Fill(-1)
	})
}

func failedFsync(r *run) {
	r.brokenDisk("input/output error", func(id uint64) {
		r.say("the next fsync of %s fails, and the unsaved data is lost", node.Name(id))
		r.w.Disk(id).FailSync(1)
	}, func(id uint64) {
		// Data in the machine's memory that is not on its disk is lost with its
		// power.
		r.w.PowerCut(id)
	})
}

// brokenDisk breaks the disk of a follower, then that of the leader, while
// clients write.
func (r *run) brokenDisk(why string, spoil, mend func(id uint64)) {
	leader := r.leader()
	r.put(leader, "x", "1")
	if r.over() {
		return
	}
	for _, id := range []uint64{r.pick(r.others(leader), 1)[0], leader} {
		spoil(id)
		written := r.writeUntilDown(leader, id)
		err := r.w.Ended(id)
		switch {
		case r.over():
		case err == nil:
			r.breaks(Unsafe, "%s keeps running with a disk that it cannot trust", node.Name(id))
		case !strings.Contains(err.Error(), why):
			r.breaks(Unsafe, "%s says %q when it stops, which does not say why: %s", node.Name(id), err, why)
		}
		if r.over() {
			return
		}
		mend(id)
		r.restart(id)
		r.goOn()
		r.settle()
		r.agree("x", "1")
		replicas, ok := r.same("y")
		if ok && written > 0 && replicas[0].Value != page(written) && replicas[0].Value != page(written+1) {
			r.breaks(LostWrite, "write %d of y was acknowledged, and every server holds %.10q", written, replicas[0].Value)
		}
	}
}

// writeUntilDown writes y again and again until a server has ended, and returns
// the number of the last write that was acknowledged.
func (r *run) writeUntilDown(leader, id uint64) (written int) {
	// A journal may have allocated space in advance.
	const enough = 300
	for i := 1; i <= enough && r.w.Up(id) && !r.over(); i++ {
		_, err := r.do(leader, api.Request{Op: kv.Put, Key: "y", Value: page(i)})
		switch {
		case err == nil:
			written = i
		case id != leader:
			r.breaks(Unavailable, "%s does not accept a write while the disk of %s fails: %v", node.Name(leader), node.Name(id), err)
		}
	}
	// The last message may still be on its way.
	r.wait(100 * time.Millisecond)
	return written
}

// page returns a large value.
func page(number int) string { return fmt.Sprintf("%d%s", number, strings.Repeat(".", 2000)) }

// crashInWrite cuts the power of the leader, or of a follower, at the first
// operation of its disk, at the second, and so on; and then once more while it
// recovers.
func crashInWrite(r *run) {
	const operations = 6
	acknowledged := ""
	for n := 1; n <= 2*operations && !r.over(); n++ {
		leader := r.leader()
		victim := leader
		if n > operations {
			victim = r.pick(r.others(leader), 1)[0]
		}
		if r.over() {
			return
		}
		r.say("the power of %s is cut at operation %d of its disk from now", node.Name(victim), (n-1)%operations+1)
		r.w.PowerCutAt(victim, (n-1)%operations+1)
		for i := 0; i < 2*operations && r.w.Up(victim) && !r.over(); i++ {
			value := fmt.Sprintf("%d.%d", n, i)
			if _, err := r.do(leader, api.Request{Op: kv.Put, Key: "x", Value: value}); err == nil {
				acknowledged = value
			}
			r.wait(5 * time.Millisecond)
		}
		r.recoverTwice(victim, (n-1)%operations+1)
		r.goOn()
		r.wait(200 * time.Millisecond)
		r.holds("x", acknowledged, fmt.Sprintf("%d.", n))
	}
	r.settle()
	r.same("x")
}

// recoverTwice starts a server whose power is cut again while it recovers.
func (r *run) recoverTwice(id uint64, nth int) {
	if r.over() {
		return
	}
	if r.w.Up(id) {
		r.w.PowerCut(id)
	}
	r.w.PowerCutAt(id, nth)
	if err := r.w.Restart(id); err != nil && !errors.Is(err, disk.ErrPowerCut) {
		r.breaks(Unsafe, "%v", err)
	}
	r.w.PowerCutAt(id, 0)
	r.restart(id)
}

// holds checks that all servers agree on a key: on the last acknowledged value,
// or on a later one that begins with later.
func (r *run) holds(key, acknowledged, later string) {
	if replicas, ok := r.same(key); ok {
		if got := replicas[0].Value; got != acknowledged && !strings.HasPrefix(got, later) {
			r.breaks(LostWrite, "every server holds %s=%s, and %s=%s was acknowledged", key, got, key, acknowledged)
		}
	}
}

// Chaos, in virtual time.
const (
	chaosTime = 6 * time.Second
	calmTime  = 10 * time.Second

	// shortPatience is how long some clients work on one operation. Many of their
	// operations time out, and what they are told then must be true.
	shortPatience = 200 * time.Millisecond
)

func chaos(r *run) {
	// A cluster of one server has faults too.
	f := sim.Swarm(r.w.Rand(), max(3, len(r.w.InUse())))
	load := sim.DefaultLoad
	load.ReadAnywhere = true
	load.Clients = 3 + r.w.Rand().IntN(8)
	load.Think[1] = time.Duration(10+r.w.Rand().IntN(60)) * time.Millisecond
	r.say("%d clients write and read, with these faults: %+v", load.Clients, f)
	r.w.Unleash(f)
	load.Client = func(c *sim.Client) {
		c.Routed, c.Knows = c.ID%2 == 0, r.known
		if c.ID%4 == 0 {
			c.Patience = shortPatience
		}
	}
	clients := r.w.StartLoad(load)
	if r.stage.changes() {
		r.membershipChaos(r.w.Now() + chaosTime)
	} else {
		r.wait(chaosTime)
	}
	if r.over() {
		return
	}
	r.say("the faults end; now every request must be answered")
	if err := r.w.Calm(); err != nil {
		r.breaks(Unsafe, "%v", err)
	}
	r.finishChange()
	r.calm = true
	r.mustWrite("calm", "1")
	r.wait(time.Second)
	r.replaceSome()
	clients.Stop()
	if !r.over() && !r.w.RunUntil(clients.Idle, calmTime) && !r.over() {
		r.breaks(Unavailable, "a client has no answer %v after all faults have ended", calmTime)
	}
	r.settle()
	r.agree("calm", "1")
	r.judge()
}

// judge checks the whole history.
func (r *run) judge() {
	if r.over() {
		return
	}
	if err := check.Linearizable(r.w.History(), check.LinearLimit); err != nil {
		r.breaks(NotLinearizable, "%v", err)
	}
}
