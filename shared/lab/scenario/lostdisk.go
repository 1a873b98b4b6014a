package scenario

import (
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

// wipedFollower empties the disk of a follower that is down. When it starts, it
// must stop. In stages with elections, its vote must not decide one.
func wipedFollower(r *run) {
	leader := r.leader()
	r.put(leader, "x", "1")
	r.settle()
	if r.over() {
		return
	}
	wiped := r.pick(r.others(leader), 1)[0]
	r.say("%s, which has acknowledged x=1, goes down, and its disk is emptied", node.Name(wiped))
	r.crash(wiped)
	r.replaceDisk(wiped, disk.NewSim(node.Name(wiped)))
	r.put(leader, "y", "1")
	r.restart(wiped)
	r.leftOut(wiped)
	r.goOnWithout(leader, wiped)
	if _, appointed := r.stage.Ops[api.Lead]; !appointed {
		r.electWithout(leader, wiped)
	}
	r.restAgrees()
}

// restoredBackup gives an older copy of its disk to a follower that was away
// for a moment. In stages with compaction it does the same to a follower that
// was away so long that it needs a snapshot.
func restoredBackup(r *run) {
	leader := r.leader()
	r.put(leader, "x", "1")
	r.settle()
	if r.over() {
		return
	}
	restored := r.pick(r.others(leader), 2)
	backups := make(map[uint64]*disk.Sim)
	r.say("%s go down, their disks are copied, and they come back", nodeNames(restored))
	for _, id := range restored {
		r.crash(id)
		backups[id] = r.w.Disk(id).Clone()
		r.restart(id)
	}
	r.put(leader, "x", "2")
	r.put(leader, "y", "1")
	r.settle()
	first, second := restored[0], restored[1]
	r.say("%s, which has acknowledged x=2 and y=1, goes down, and the copy replaces its disk", node.Name(first))
	r.crash(first)
	r.replaceDisk(first, backups[first])
	r.restart(first)
	r.leftOut(first)
	r.goOnWithout(leader, first)
	if !r.stage.Compacts || r.over() {
		r.restAgrees()
		return
	}
	r.say("%s does the same, and the leader compacts the entries that it had acknowledged", node.Name(second))
	r.crash(second)
	r.replaceDisk(second, backups[second])
	r.overwrite(leader, 0, overwrites/2)
	r.restart(second)
	r.leftOut(second)
	r.put(leader, "z", "2")
	r.restAgrees()
}

// replaceDisk puts another disk into a machine that is down.
func (r *run) replaceDisk(id uint64, d *disk.Sim) {
	if !r.over() {
		r.w.ReplaceDisk(id, d)
	}
}

// leftOut checks that a server whose disk has lost acknowledged data stops and
// says so.
func (r *run) leftOut(id uint64) {
	r.w.RunUntil(func() bool { return !r.w.Up(id) }, leaderTime)
	if r.over() {
		return
	}
	switch err := r.w.Ended(id); {
	case err == nil:
		r.breaks(Unsafe, "%s keeps running, though its disk has lost acknowledged data", node.Name(id))
	case !strings.Contains(err.Error(), "has lost"):
		r.breaks(Unsafe, "%s says %q when it stops, which does not say that its disk has lost data", node.Name(id), err)
	}
}

// goOnWithout checks that the others continue, also with one more follower
// down.
func (r *run) goOnWithout(leader, out uint64) {
	if r.over() {
		return
	}
	down := r.pick(r.others(leader, out), 1)[0]
	r.say("the others continue, also while %s is down", node.Name(down))
	r.crash(down)
	r.put(leader, "z", "1")
	r.restart(down)
	r.settle()
}

// electWithout checks that a server whose disk was emptied does not help to elect a
// leader: with it, there would be three of five.
func (r *run) electWithout(leader, out uint64) {
	if r.over() {
		return
	}
	down := r.pick(r.others(leader, out), 1)[0]
	rest := r.others(leader, down, out)
	r.say("%s and %s go down, and %s starts again: its vote must not elect one of %s", node.Name(leader), node.Name(down), node.Name(out), nodeNames(rest))
	r.crash(leader)
	r.crash(down)
	r.restart(out)
	r.leftOut(out)
	if id := r.findLeader(rest, time.Second); id != 0 {
		r.breaks(Unsafe, "%s leads by the vote of %s, whose disk was emptied", node.Name(id), node.Name(out))
	}
	r.restart(down)
	r.mustWrite("z", "2")
	r.restart(leader)
}

// restAgrees checks that the remaining servers agree and have lost nothing.
func (r *run) restAgrees() {
	r.settle()
	for _, key := range []string{"x", "y", "z"} {
		r.agree(key, r.acknowledged[key])
	}
}
