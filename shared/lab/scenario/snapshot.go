package scenario

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// compactSoon makes servers compact logs after soonBytes, and send snapshots in
// several chunks.
func compactSoon(c *node.Config, _ *rand.Rand) { c.CompactBytes, c.ChunkBytes = soonBytes, 300 }

// compactAlways makes every server take a snapshot whenever it can.
func compactAlways(c *node.Config, _ *rand.Rand) { c.CompactBytes, c.ChunkBytes = -1, 100 }

// chaoticConfig draws how often logs are compacted, from always to rarely, and
// in how many chunks a snapshot is sent.
func chaoticConfig(c *node.Config, rng *rand.Rand) {
	c.CompactBytes = []int64{-1, 1, 1 << 10, 4 << 10, 16 << 10}[rng.IntN(5)]
	c.ChunkBytes = []int{1, 300, 2000, 0}[rng.IntN(4)]
}

const (
	// soonBytes is a bound for the log that a story reaches quickly.
	soonBytes = 4 << 10

	// overwrites is the number of writes to ten keys. Each key has at most one
	// write in progress.
	overwrites = 1500
	together   = 10
)

// overwrite writes ten keys repeatedly and checks that every write is
// acknowledged. Afterwards key k<i> holds the last number that ends in i.
func (r *run) overwrite(leader uint64, from, to int) {
	for n := from; n < to && !r.over(); n += together {
		var calls []*sim.Call
		for i := n; i < min(n+together, to); i++ {
			calls = append(calls, r.tryPut(leader, fmt.Sprintf("k%d", i%10), fmt.Sprint(i)))
		}
		r.w.RunUntil(func() bool { return allDone(calls) }, 5*time.Second)
		for _, call := range calls {
			if !call.Done || call.Response.Error != nil {
				r.breaks(Unavailable, "%s does not take put %s=%s: %v", node.Name(leader), call.Request.Key, call.Request.Value, call.Response.Error)
			}
		}
	}
}

func allDone(calls []*sim.Call) bool {
	for _, call := range calls {
		if !call.Done {
			return false
		}
	}
	return true
}

// kept returns the number of bytes on a server's disk, which the server reads
// when it starts.
func (r *run) kept(id uint64) (total int64) {
	d := r.w.Disk(id).Clone()
	names, err := d.List()
	for _, name := range names {
		var f disk.File
		var size int64
		if f, err = d.Open(name); err == nil {
			size, err = f.Size()
		}
		total += size
	}
	if err != nil {
		r.breaks(Unsafe, "the disk of %s cannot be read: %v", node.Name(id), err)
	}
	return total
}

// boundedLog overwrites ten keys. Halfway through and at the end, the data on
// every disk must be within a bound: a snapshot and its successor, a journal
// and its successor, and the writes made in the meantime.
func boundedLog(r *run) {
	const bound = 16 * soonBytes
	leader := r.leader()
	for _, half := range []int{0, 1} {
		r.say("ten keys are overwritten %d times", overwrites/2)
		r.overwrite(leader, half*overwrites/2, (half+1)*overwrites/2)
		r.settle()
		for _, id := range r.w.IDs() {
			if r.over() {
				return
			}
			if kept := r.kept(id); kept > bound {
				r.breaks(Unbounded, "after %d writes of ten keys, %s has %d KiB on its disk, and reads them when it starts; the bound is %d KiB",
					(half+1)*overwrites/2, node.Name(id), kept>>10, bound>>10)
			}
		}
	}
	if r.over() {
		return
	}
	r.say("the power fails, and all servers restart")
	r.w.PowerCut(r.w.IDs()...)
	r.restart(r.w.IDs()...)
	r.goOn()
	r.settle()
	for i := range 10 {
		r.agree(fmt.Sprintf("k%d", i), fmt.Sprint(overwrites-10+i))
	}
	if !r.over() && r.invariants.Counters().Snapshots == 0 {
		r.breaks(Missed, "no log was compacted")
	}
}

// laggingFollower keeps two followers away while ten keys are overwritten: one
// is cut off, one is down. They come back to a network that loses and repeats
// messages, while writes continue. They must receive less than half of the
// entries.
func laggingFollower(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	away := r.pick(r.others(leader), 2)
	received := make(map[uint64]int)
	r.w.Drop(func(_, to uint64, line []byte) bool {
		if bytes.Contains(line, []byte(`"appendEntries"`)) {
			received[to] += bytes.Count(line, []byte(`{"index":`))
		}
		return false
	})
	r.overwrite(leader, 0, 100)
	r.say("%s is cut off and %s goes down, while clients write a lot", node.Name(away[0]), node.Name(away[1]))
	r.w.Isolate(away[0])
	r.crash(away[1])
	r.overwrite(leader, 100, overwrites)
	if r.over() {
		return
	}
	before := r.invariants.Counters().Installed
	clear(received)
	r.say("both are back; messages are lost and duplicated, and writes continue")
	calm := r.w.Network()
	rough := calm
	rough.Loss, rough.Duplicate, rough.Reorder, rough.ReorderBy = 0.1, 0.2, 0.1, 20*time.Millisecond
	r.w.SetNetwork(rough)
	r.w.HealAll()
	r.restart(away[1])
	for i := range 60 {
		r.mustWrite(fmt.Sprintf("on%d", i%10), fmt.Sprint(i))
		r.wait(10 * time.Millisecond)
	}
	r.w.SetNetwork(calm)
	r.settle()
	for i := range 10 {
		r.agree(fmt.Sprintf("k%d", i), fmt.Sprint(overwrites-10+i))
		r.agree(fmt.Sprintf("on%d", i), fmt.Sprint(50+i))
	}
	for _, id := range away {
		if received[id] > overwrites/2 {
			r.breaks(Replayed, "%s was away while ten keys were written %d times, and received %d entries", node.Name(id), overwrites-100, received[id])
		}
	}
	if n := r.invariants.Counters().Installed - before; r.stage.Compacts && n < len(away) && !r.over() {
		r.breaks(Missed, "%d snapshots were installed", n)
	}
}

// crashInSnapshot crashes the leader, a follower, and a follower that is sent a
// snapshot: at each operation of its disk, and at each message that has to do
// with a snapshot, until there are no more.
func crashInSnapshot(r *run) {
	const fewest, maxSteps = 6, 60
	leads := func(leader, _ uint64) uint64 { return leader }
	follows := func(_, follower uint64) uint64 { return follower }
	for _, c := range []struct {
		what   string
		victim func(leader, follower uint64) uint64
		step   func(victim uint64, nth int) (reached func() bool)
	}{
		{"the leader, at operation %d of its disk,", leads, r.cutAtOperation},
		{"a follower that is sent a snapshot, at operation %d of its disk,", follows, r.cutAtOperation},
		{"the leader, at message %d of a snapshot,", leads, r.crashAtMessage},
		{"a follower, at message %d of a snapshot,", follows, r.crashAtMessage},
	} {
		nth, reached := 1, true
		for ; reached && nth < maxSteps && !r.over(); nth++ {
			reached = r.crashOnce(nth, c.what, c.victim, c.step)
			// Where few messages are needed, because the follower still has most of
			// the log, the next attempt may need more.
			for again := 0; !reached && nth < fewest && again < 3 && !r.over(); again++ {
				reached = r.crashOnce(nth, c.what, c.victim, c.step)
			}
		}
		if nth < fewest && !r.over() {
			r.breaks(Missed, "there were only %d steps for "+c.what, nth, nth)
		}
	}
	if n := r.invariants.Counters(); !r.over() && (n.Installed == 0 || n.Snapshots == 0) {
		r.breaks(Missed, "%d snapshots were taken and %d installed", n.Snapshots, n.Installed)
	}
}

// crashOnce lets one follower fall behind and come back, then crashes the
// victim at the nth step after that. It reports whether there was such a step.
func (r *run) crashOnce(nth int, what string, victim func(leader, follower uint64) uint64, step func(uint64, int) func() bool) bool {
	leader := r.leader()
	if r.over() {
		return false
	}
	follower := r.pick(r.others(leader), 1)[0]
	r.w.Isolate(follower)
	for i := range 5 {
		r.put(leader, fmt.Sprintf("k%d", i), fmt.Sprint(nth))
	}
	r.wait(100 * time.Millisecond)
	if r.over() {
		return false
	}
	id := victim(leader, follower)
	r.say("%s comes back and needs a snapshot; "+what+" crashes: %s", node.Name(follower), nth, node.Name(id))
	reached := step(id, nth)
	r.w.HealAll()
	acknowledged := fmt.Sprint(nth)
	for i := 0; i < 20 && r.w.Up(id) && !r.over(); i++ {
		value := fmt.Sprintf("%d.%d", nth, i)
		if _, err := r.do(leader, api.Request{Op: kv.Put, Key: "k0", Value: value}); err == nil {
			acknowledged = value
		}
		r.wait(10 * time.Millisecond)
	}
	r.w.Drop(nil)
	r.w.PowerCutAt(id, 0)
	happened := reached()
	if happened {
		r.recoverTwice(id, nth)
	}
	r.goOn()
	r.wait(500 * time.Millisecond)
	r.holds("k0", acknowledged, fmt.Sprintf("%d.", nth))
	r.agree("k1", fmt.Sprint(nth))
	return happened
}

// cutAtOperation cuts the power at the nth operation of a server's disk.
func (r *run) cutAtOperation(id uint64, nth int) func() bool {
	r.w.PowerCutAt(id, nth)
	return func() bool { return !r.w.Up(id) }
}

// crashAtMessage kills a server when any server sends the nth message that has
// a chunk of a snapshot or answers one.
func (r *run) crashAtMessage(id uint64, nth int) func() bool {
	seen := 0
	r.w.Drop(func(_, _ uint64, line []byte) bool {
		if strings.Contains(string(line[:min(len(line), 60)]), `"installSnapshot`) {
			if seen++; seen == nth {
				r.w.After(0, func() { r.w.Crash(id) })
			}
		}
		return false
	})
	return func() bool { return seen >= nth }
}
