package scenario

import (
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// catalog has all scenarios, in the order of the lessons.
var catalog = []Scenario{
	{
		Name:   "restart",
		Claim:  "an acknowledged write survives a power cut of all servers at once",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite},
		moves:  []string{"power_cuts", "restarts"},
		script: restart,
	}, {
		Name:   "missed-message",
		Claim:  "a follower that missed a write agrees again once it is back",
		Breaks: []Kind{ReplicasDiffer},
		moves:  []string{"cuts", "lost", "heals"},
		script: missedMessage,
	}, {
		Name:   "reordered-messages",
		Claim:  "two writes of one key arrive in different orders, and the replicas agree",
		Breaks: []Kind{ReplicasDiffer},
		moves:  []string{"reordered"},
		script: reorderedMessages,
	}, {
		Name:   "refused-write",
		Claim:  "a write that no majority has accepted is never read",
		Breaks: []Kind{Phantom},
		moves:  []string{"cuts", "lost", "heals"},
		script: refusedWrite,
	}, {
		Name:   "minority-down",
		Claim:  "while a minority of the followers is down, writes continue and the others agree",
		Breaks: []Kind{Unavailable, ReplicasDiffer, LostWrite},
		moves:  []string{"crashes"},
		script: minorityDown,
	}, {
		Name:   "conflicting-logs",
		Claim:  "the uncommitted entries of a deposed leader are replaced",
		Needs:  "terms, and a way to get a second leader",
		Breaks: []Kind{ReplicasDiffer, LostWrite, Unsafe},
		moves:  []string{"cuts", "lost", "heals"},
		script: conflictingLogs,
	}, {
		Name:   "figure-8",
		Claim:  "Figure 8: an entry of an older term is not committed by counting its copies",
		Needs:  "terms, and a way to get a second leader",
		Breaks: []Kind{ReplicasDiffer, LostWrite, Unsafe, Phantom},
		moves:  []string{"cuts", "crashes", "restarts"},
		script: figure8,
	}, {
		Name:   "full-disk",
		Claim:  "a server whose disk is full stops and says why, and no acknowledged write is lost",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:  []string{"stops", "restarts"},
		script: fullDisk,
	}, {
		Name:   "failed-fsync",
		Claim:  "a server whose fsync fails stops and says why, and no acknowledged write is lost",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:  []string{"stops", "restarts", "power_cuts"},
		script: failedFsync,
	}, {
		Name:   "crash-in-write",
		Claim:  "a power cut at any write or sync of a server's disk, even during recovery, loses no acknowledged write",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:  []string{"power_cuts_in_flush", "restarts"},
		script: crashInWrite,
	}, {
		Name:   "wiped-follower",
		Claim:  "a follower whose disk was emptied stops and says so, and the others continue and lose nothing",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:  []string{"replaced", "crashes", "restarts", "stops"},
		script: wipedFollower,
	}, {
		Name:   "restored-backup",
		Claim:  "a follower with an older copy of its disk stops and says so, and the others continue and lose nothing",
		Needs:  "a disk",
		Breaks: []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:  []string{"replaced", "crashes", "restarts", "stops"},
		config: compactSoon,
		script: restoredBackup,
	}, {
		Name:   "lost-reply",
		Claim:  "the answer to an append is lost, the client retries, and the append is applied once",
		Needs:  "a client that retries",
		Breaks: []Kind{AppliedTwice},
		moves:  []string{"breaks"},
		script: lostReply,
	}, {
		Name:   "leader-crash",
		Claim:  "the leader crashes, writes continue without an operator, and no acknowledged write is lost",
		Needs:  "a leader",
		Breaks: []Kind{Unavailable},
		moves:  []string{"power_cuts"},
		script: leaderCrash,
	}, {
		Name:   "partitioned-leader",
		Claim:  "a leader that is cut off acknowledges no write and returns no stale read",
		Needs:  "a leader",
		Breaks: []Kind{Unavailable, StaleRead},
		moves:  []string{"cuts", "lost"},
		reads:  true,
		script: partitionedLeader,
	}, {
		Name:   "split-vote",
		Claim:  "after a tied election, a later one elects a leader",
		Needs:  "elections",
		Breaks: []Kind{Unavailable},
		moves:  []string{"cuts", "lost", "crashes", "heals"},
		script: splitVote,
	}, {
		Name:   "stale-read",
		Claim:  "a read that starts after a write was acknowledged sees the write, on any server",
		Breaks: []Kind{StaleRead},
		moves:  []string{"cuts", "lost"},
		reads:  true,
		script: staleRead,
	}, {
		Name:   "bounded-log",
		Claim:  "however often ten keys are overwritten, the data that a server keeps and reads at its start is bounded",
		Needs:  "a disk",
		Breaks: []Kind{Unbounded},
		moves:  []string{"power_cuts", "restarts"},
		config: compactSoon,
		script: boundedLog,
	}, {
		Name:   "lagging-follower",
		Claim:  "followers that missed more than the log still holds catch up by snapshot, while writes continue",
		Needs:  "a disk",
		Breaks: []Kind{Replayed},
		moves:  []string{"crashes", "restarts", "lost", "duplicated", "reordered"},
		config: compactSoon,
		script: laggingFollower,
	}, {
		Name:       "crash-in-snapshot",
		exhaustive: true,
		Claim:      "a crash at any step of taking, sending or installing a snapshot loses no acknowledged write",
		Needs:      "snapshots",
		Breaks:     []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:      []string{"power_cuts_in_flush", "restarts"},
		config:     compactAlways,
		script:     crashInSnapshot,
	}, {
		Name:    "grow",
		Claim:   "a cluster grows from three servers to five and replaces two, under load and through crashes, and two of the first three may be lost",
		Needs:   "elections",
		Breaks:  []Kind{Unavailable},
		moves:   []string{"crashes", "retired"},
		reads:   true,
		servers: 3,
		spare:   4,
		config:  compactSoon,
		script:  grow,
	}, {
		Name:   "shrink",
		Claim:  "a cluster shrinks from five servers to three and removes its leader, under load and through a crash, and one of the three may be lost",
		Needs:  "elections",
		Breaks: []Kind{Unavailable},
		moves:  []string{"retired"},
		reads:  true,
		config: compactSoon,
		script: shrink,
	}, {
		Name:    "replace",
		Claim:   "a server that is lost forever is replaced, then all others one by one, then three at once, under load and through crashes",
		Needs:   "elections",
		Breaks:  []Kind{Unavailable},
		moves:   []string{"retired"},
		reads:   true,
		servers: 3,
		spare:   6,
		config:  compactSoon,
		script:  replace,
	}, {
		Name:   "removed-server",
		Claim:  "a server that was cut off, was removed, or has not joined yet does not disturb the members",
		Needs:  "elections",
		Breaks: []Kind{Disturbed},
		moves:  []string{"cuts", "heals"},
		spare:  1,
		script: removedServer,
	}, {
		Name:   "partial-partition",
		Claim:  "two servers that do not hear the leader, but are heard by others, do not depose it",
		Needs:  "elections",
		Breaks: []Kind{Disturbed},
		moves:  []string{"cuts", "lost", "heals"},
		script: partialPartition,
	}, {
		Name:   "hand-over",
		Claim:  "leadership is transferred at once to the server that the operator names, also if that server is behind; if it is down, nothing changes",
		Needs:  "transfer of leadership",
		Breaks: []Kind{Unavailable},
		moves:  []string{"crashes", "cuts", "heals"},
		reads:  true,
		script: handOver,
	}, {
		Name:       "crash-in-change",
		exhaustive: true,
		Claim:      "a power cut at any operation of any disk, a crash at any message, or the loss of any message in a membership change loses no acknowledged write, and the change is completed",
		Needs:      "membership changes",
		Breaks:     []Kind{LostWrite, ReplicasDiffer, Unsafe, Unavailable},
		moves:      []string{"power_cuts_in_flush", "restarts", "retired"},
		servers:    3,
		spare:      crashSpares,
		config:     compactSometimes,
		script:     crashInChange,
	}, {
		Name:   "chaos",
		Claim:  "under all faults at random, every history is linearizable and every invariant holds",
		Needs:  "elections, and linearizable reads on every server",
		Breaks: []Kind{NotLinearizable, Unavailable, ReplicasDiffer, Unsafe},
		reads:  true,
		config: chaoticConfig,
		script: chaos,
	},
}

func restart(r *run) {
	leader := r.leader()
	r.put(leader, "x", "1")
	r.put(leader, "y", "2")
	r.say("all writes were acknowledged; the power fails while %s writes once more", node.Name(leader))
	if r.over() {
		return
	}
	r.w.PowerCutAt(leader, 1+r.w.Rand().IntN(2))
	r.tryPut(leader, "z", "3")
	r.w.RunUntil(func() bool { return !r.w.Up(leader) }, 200*time.Millisecond)
	r.w.PowerCut(r.w.IDs()...)
	r.wait(100 * time.Millisecond)
	r.say("the power is back")
	r.restart(r.w.IDs()...)
	r.goOn()
	r.settle()
	r.agree("x", "1")
	r.agree("y", "2")
	r.same("z")
}

// restart starts servers again. It is a failure if one does not start from its
// disk.
func (r *run) restart(ids ...uint64) {
	for _, id := range ids {
		if r.over() {
			return
		}
		if err := r.w.Restart(id); err != nil {
			r.breaks(Unsafe, "%v", err)
		}
	}
}

// goOn finds a leader and writes through it. A new leader may not know which
// entries are committed until it has committed an entry of its own term
// (§5.4.2), so reads may be stale until then.
func (r *run) goOn() {
	r.put(r.leader(), "on", "1")
}

func missedMessage(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	missing := r.pick(r.others(leader), 1)[0]
	r.put(leader, "x", "1")
	r.say("%s is cut off from %s and misses a write", node.Name(missing), node.Name(leader))
	r.w.Cut(leader, missing)
	r.put(leader, "x", "2")
	r.wait(20 * time.Millisecond)
	r.w.Heal(leader, missing)
	r.say("the link is healed")
	r.settle()
	r.agree("x", "2")
}

func reorderedMessages(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	slow := r.pick(r.others(leader), 1)[0]
	r.say("what %s sends to %s is delayed; the next message overtakes it", node.Name(leader), node.Name(slow))
	r.w.Slow(leader, slow, 200*time.Millisecond)
	r.put(leader, "x", "1")
	r.w.Slow(leader, slow, 0)
	r.put(leader, "x", "2")
	r.settle()
	r.agree("x", "2")
}

func refusedWrite(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	ally := r.pick(r.others(leader), 1)[0]
	r.say("%s and %s are cut off from the other three", node.Name(leader), node.Name(ally))
	r.w.Partition([]uint64{leader, ally}, r.others(leader, ally))
	_, refused := r.do(leader, api.Request{Op: kv.Put, Key: "x", Value: "1"})
	if refused == nil {
		r.breaks(Phantom, "%s acknowledges x=1, which %s of five servers have", node.Name(leader), "two")
	}
	for _, id := range r.w.IDs() {
		response, err := r.do(id, api.Request{Op: kv.Get, Key: "x"})
		if err == nil && !r.over() {
			r.breaks(Phantom, "%s reads x=%s, which no majority has accepted; the client was told: %v", node.Name(id), response.Value, refused)
		}
	}
	r.say("the network is healed")
	r.w.HealAll()
	r.leader()
	r.settle()
	replicas, ok := r.same("x")
	if ok && refused != nil && refused.Definite && replicas[0].Found {
		r.breaks(Phantom, "every server holds x=1, and the client was told that it did not and would not happen: %v", refused)
	}
}

func minorityDown(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	down := r.pick(r.others(leader), 2)
	r.put(leader, "x", "1")
	r.say("%s go down", nodeNames(down))
	for _, id := range down {
		r.w.Crash(id)
	}
	r.put(leader, "x", "2")
	r.put(leader, "y", "3")
	r.settle()
	r.agree("x", "2")
	r.agree("y", "3")
}

func conflictingLogs(r *run) {
	old := r.leader()
	if r.over() {
		return
	}
	rest := r.others(old)
	r.put(old, "x", "1")
	r.say("%s is cut off and accepts more writes, which no other server receives", node.Name(old))
	r.w.Isolate(old)
	var tail []*sim.Call
	for _, value := range []string{"a", "b", "c"} {
		tail = append(tail, r.tryPut(old, "x", value))
		r.wait(10 * time.Millisecond)
	}
	leader := r.newLeader(rest)
	r.put(leader, "x", "2")
	r.put(leader, "y", "3")
	r.say("the network is healed; %s meets its successor", node.Name(old))
	r.w.HealAll()
	r.settle()
	r.agree("x", "2")
	r.agree("y", "3")
	for _, call := range tail {
		if call.Done && call.Response.Error == nil {
			r.breaks(LostWrite, "%s acknowledged x=%s, which no server holds", node.Name(old), call.Request.Value)
		}
	}
}

func lostReply(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	c := r.asker()
	c.Retry, c.Routed = true, true
	if _, err := c.Append(leader, "x", "a"); err != nil {
		r.breaks(Unavailable, "%s does not take an append: %v", node.Name(leader), err)
		return
	}
	r.say("the connection breaks after %s has applied an append, before the client has the answer; the client retries", node.Name(leader))
	r.w.LoseAnswers(leader, 1)
	if _, err := c.Append(leader, "x", "b"); err != nil {
		r.breaks(Unavailable, "%s does not take a retry: %v", node.Name(leader), err)
		return
	}
	r.settle()
	replicas, ok := r.same("x")
	if !ok {
		return
	}
	switch replicas[0].Value {
	case "ab":
	case "abb":
		r.breaks(AppliedTwice, "the client appended b once, and every server holds x=abb")
	default:
		r.breaks(LostWrite, "the client appended a and b, and every server holds x=%s", replicas[0].Value)
	}
}

func leaderCrash(r *run) {
	leader := r.leader()
	for _, key := range []string{"a", "b", "c"} {
		r.put(leader, key, "1")
	}
	if r.over() {
		return
	}
	r.say("%s loses power during a write, or soon after it", node.Name(leader))
	r.w.PowerCutAt(leader, 1+r.w.Rand().IntN(4))
	r.tryPut(leader, "z", "1")
	r.w.RunUntil(func() bool { return !r.w.Up(leader) }, 50*time.Millisecond)
	r.w.PowerCut(leader)
	r.mustWrite("d", "1")
	r.say("%s is back", node.Name(leader))
	r.restart(leader)
	r.mustWrite("e", "1")
	r.settle()
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		r.agree(key, "1")
	}
	r.same("z")
}

func partitionedLeader(r *run) {
	old := r.leader()
	if r.over() {
		return
	}
	ally := r.pick(r.others(old), 1)[0]
	rest := r.others(old, ally)
	r.put(old, "x", "1")
	r.say("the leader, %s, and %s are cut off from the other three", node.Name(old), node.Name(ally))
	r.w.Partition([]uint64{old, ally}, rest)
	orphan := r.tryPut(old, "x", "2")
	leader := r.findLeader(rest, leaderTime)
	if leader == 0 && !r.over() {
		r.breaks(Unavailable, "%s are a majority and have found no leader within %v", nodeNames(rest), leaderTime)
	}
	r.put(leader, "x", "3")
	for _, id := range []uint64{old, ally} {
		response, err := r.do(id, api.Request{Op: kv.Get, Key: "x"})
		if err == nil && response.Value != "3" {
			r.breaks(StaleRead, "%s is cut off and reads x=%s after x=3 was acknowledged", node.Name(id), response.Value)
		}
	}
	if r.over() {
		return
	}
	r.w.RunUntil(func() bool { return orphan.Done }, 5*time.Second)
	if orphan.Response.Error == nil {
		r.breaks(LostWrite, "%s was cut off and acknowledged x=2", node.Name(old))
	}
	r.say("the network is healed")
	r.w.HealAll()
	r.settle()
	r.agree("x", "3")
}

func splitVote(r *run) {
	leader := r.leader()
	r.put(leader, "x", "1")
	if r.over() {
		return
	}
	r.say("%s crashes, and the other four can reach each other only in pairs: no candidate gets three of five votes", node.Name(leader))
	r.w.Crash(leader)
	rest := r.others(leader)
	r.w.Partition(rest[:2], rest[2:])
	r.wait(2 * time.Second)
	if id := r.findLeader(rest, 0); id != 0 && !r.over() {
		r.breaks(Unsafe, "%s leads with the votes of two of five", node.Name(id))
	}
	r.say("the four can reach each other again")
	r.w.HealAll()
	r.mustWrite("x", "2")
	r.settle()
	r.agree("x", "2")
}

func staleRead(r *run) {
	leader := r.leader()
	if r.over() {
		return
	}
	r.put(leader, "x", "0")
	r.wait(200 * time.Millisecond)
	behind := r.pick(r.others(leader), 1)[0]
	r.say("%s hears nothing of %s for a while", node.Name(behind), node.Name(leader))
	r.w.Cut(leader, behind)
	r.mustWrite("x", "1")
	r.reads("x", "1")
	r.w.Heal(leader, behind)
	r.settle()
	r.agree("x", "1")
	r.say("messages to %s are slow", node.Name(behind))
	for _, id := range r.others(behind) {
		r.w.Slow(id, behind, 40*time.Millisecond)
	}
	r.mustWrite("x", "2")
	r.reads("x", "2")
}

// reads reads a key from all servers: each must return this value or no answer.
func (r *run) reads(key, value string) {
	for _, id := range r.w.Running() {
		response, err := r.do(id, api.Request{Op: kv.Get, Key: key})
		switch {
		case r.over():
			return
		case err == nil && response.Value != value:
			r.breaks(StaleRead, "%s reads %s=%s after %s=%s was acknowledged", node.Name(id), key, response.Value, key, value)
		case err != nil && err.Code == api.NotFound:
			r.breaks(StaleRead, "%s has no %s after %s=%s was acknowledged", node.Name(id), key, key, value)
		}
	}
}
