package scenario

import (
	"fmt"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// grow grows a cluster from three servers to five, while one of the three is
// down and the leader crashes during the change. Then two of the first three
// are lost.
func grow(r *run) {
	r.underLoad(func() {
		leader := r.leader()
		if r.over() {
			return
		}
		down := r.pick(r.membersBut(leader), 1)[0]
		r.say("%s is down; the operator adds n4 and n5", node.Name(down))
		r.crash(down)
		r.start(4, 5)
		if r.change([]uint64{4, 5}, nil) {
			r.restart(down)
			leader = r.leader()
			r.mustRefuse(leader, request([]uint64{4}, nil), "n4 is a member already")
			r.mustRefuse(leader, request(nil, []uint64{noServer}), "there is no such member")
			r.mustRefuse(leader, request(nil, r.members()), "no server would be left")
			r.mustRefuse(leader, api.Request{Op: api.Cancel}, "no change is under way")
			r.say("n6 and n7 replace n4 and n5, and the leader crashes during the change")
			r.start(6, 7)
			r.strike(momentsOfAdding)
			r.change([]uint64{6, 7}, []uint64{4, 5})
			r.retire(4, 5)
		}
		r.restart(down)
		r.wait(time.Second)
		leader = r.leader()
		r.say("two of the first three are lost forever; if the leader is one of the three, it is lost too")
		r.lose(2, leader)
		r.mustWrite("end", "1")
	})
}

// lose removes n of the first three servers forever, the leader first.
func (r *run) lose(n int, leader uint64) {
	if r.over() {
		return
	}
	for _, id := range []uint64{leader, 1, 2, 3} {
		if n > 0 && id <= 3 && r.w.Up(id) {
			r.retire(id)
			n--
		}
	}
}

// shrink shrinks a cluster from five servers to three and removes the leader.
// The two removed servers are switched off, and one more is lost.
func shrink(r *run) {
	r.underLoad(func() {
		leader := r.leader()
		if r.over() {
			return
		}
		r.tooFewLeft(leader)
		if r.over() {
			return
		}
		leaving := []uint64{leader, r.pick(r.membersBut(leader), 1)[0]}
		r.say("the operator removes %s; %s leads", nodeNames(leaving), node.Name(leader))
		r.strike(momentsOfRemoving)
		if r.change(nil, leaving) {
			r.wait(time.Second)
			for _, id := range leaving {
				r.mustLeave(id)
			}
		}
		r.say("%s are switched off", nodeNames(leaving))
		r.retire(leaving...)
		r.wait(time.Second)
		leader = r.leader()
		r.say("%s is lost too", node.Name(leader))
		r.retire(leader)
		r.mustWrite("end", "1")
	})
}

// tooFewLeft requests a change after which the cluster would have no majority,
// because most of the remaining servers are down. The change must wait, so that
// it can be canceled.
func (r *run) tooFewLeft(leader uint64) {
	if r.over() || !r.stage.changes() {
		return
	}
	down := r.pick(r.membersBut(leader), 2)
	up := r.membersBut(leader, down[0], down[1])
	r.say("%s are down; the operator removes %s, which are running, then cancels the change", nodeNames(down), nodeNames(up))
	r.crash(down[0])
	r.crash(down[1])
	r.wait(100 * time.Millisecond)
	if _, err := r.doAs(r.operator(), leader, request(nil, up)); err != nil {
		r.breaks(Unavailable, "%s does not begin a change: %v", node.Name(leader), err)
	}
	r.wait(time.Second)
	r.put(leader, "x", "on")
	if _, err := r.doAs(r.operator(), leader, api.Request{Op: api.Cancel}); err != nil {
		r.breaks(Unavailable, "a change that waits cannot be canceled: %v", err)
	}
	r.restart(down...)
}

// replace replaces a lost server in one change, then the other original servers
// one by one, then three servers at once.
func replace(r *run) {
	r.underLoad(func() {
		leader := r.leader()
		if r.over() {
			return
		}
		lost := r.pick(r.membersBut(leader), 1)[0]
		r.say("%s is lost forever; n4 replaces it", node.Name(lost))
		r.retire(lost)
		r.start(4)
		r.strike(momentsOfAdding)
		r.change([]uint64{4}, []uint64{lost})
		for next := uint64(5); next <= 6; next++ {
			leader = r.leader()
			first := r.pickFirst(leader)
			if r.over() || first == 0 {
				return
			}
			r.say("%s replaces %s, one of the first three", node.Name(next), node.Name(first))
			r.start(next)
			if first != leader {
				r.strike(momentsOfAdding)
			}
			if r.change([]uint64{next}, []uint64{first}) {
				r.wait(time.Second)
				r.mustLeave(first)
			}
			r.retire(first)
		}
		r.say("n7, n8 and n9 replace all three at once")
		r.start(7, 8, 9)
		r.strike(momentsOfAdding)
		r.change([]uint64{7, 8, 9}, []uint64{4, 5, 6})
		r.wait(time.Second)
		r.retire(4, 5, 6)
		r.mustWrite("end", "1")
	})
}

// pickFirst returns one of the first three servers that is still a member, the
// leader last.
func (r *run) pickFirst(leader uint64) (first uint64) {
	for _, id := range r.membersBut(leader) {
		if id <= 3 && r.w.Up(id) {
			return id
		}
	}
	if leader <= 3 {
		return leader
	}
	return 0
}

// removedServer brings servers back that might disturb the cluster: one that
// was cut off, one that was removed, one that was removed and does not know it,
// one that has not joined yet. The leader must stay leader in its term.
func removedServer(r *run) {
	leader := r.leader()
	r.put(leader, "x", "0")
	if r.over() {
		return
	}
	some := r.pick(r.membersBut(leader), 3)
	away, deaf, gone := some[0], some[1], some[2]
	r.steady("a server that was cut off comes back", func() {
		r.say("%s is cut off from all others, then comes back", node.Name(away))
		r.w.Isolate(away)
		r.wait(2 * time.Second)
		r.w.HealAll()
	})
	r.steady("a server hears no other server, but is heard", func() {
		r.say("%s hears no other server, but all hear it", node.Name(deaf))
		for _, id := range r.others(deaf) {
			r.w.Cut(id, deaf)
		}
		r.wait(2 * time.Second)
		r.w.HealAll()
	})
	r.steady("a server is removed and keeps running", func() {
		r.say("the operator removes %s, which keeps running, then restarts", node.Name(gone))
		r.change(nil, []uint64{gone})
		r.mustLeave(gone)
		r.wait(2 * time.Second)
		r.crash(gone)
		r.restart(gone)
	})
	r.steady("a server is removed and does not know it", func() {
		r.say("%s is cut off, is removed meanwhile, and comes back", node.Name(away))
		r.w.Isolate(away)
		r.wait(time.Second)
		r.change(nil, []uint64{away})
		r.w.HealAll()
		r.wait(2 * time.Second)
		r.crash(away)
		r.restart(away)
	})
	r.steady("a server that starts to join is cut off, and the change is canceled", func() {
		r.learnAndLeave(6)
	})
	r.settle()
	r.mustWrite("end", "1")
	r.settle()
	r.agree("end", "1")
}

// learnAndLeave adds a learner and cuts it off. When it comes back, the change
// is canceled.
func (r *run) learnAndLeave(id uint64) {
	r.say("%s starts to join and is cut off; it comes back, and the change is canceled", node.Name(id))
	leader := r.leader()
	if r.over() {
		return
	}
	r.start(id)
	for _, other := range r.others(id) {
		r.w.Cut(id, other)
	}
	r.doAs(r.operator(), leader, request([]uint64{id}, nil))
	r.wait(2 * time.Second)
	if v, changing := r.invariants.Members(); !changing && !r.over() {
		r.breaks(Missed, "the change did not wait for %s: %+v", node.Name(id), v)
	}
	r.mustRefuse(leader, request(nil, []uint64{leader}), "a change is under way")
	if _, err := r.doAs(r.operator(), leader, api.Request{Op: api.Cancel}); err != nil {
		r.breaks(Unavailable, "the change cannot be canceled: %v", err)
	}
	r.w.HealAll()
	r.wait(time.Second)
}

// steady checks that the leader stays leader in the same term during happens
// and for a while after it, and that it accepts writes.
func (r *run) steady(what string, happens func()) {
	leader := r.leader()
	s, _ := r.status(leader)
	happens()
	r.wait(2 * time.Second)
	if r.over() {
		return
	}
	now := r.leader()
	if t, _ := r.status(now); !r.over() && (now != leader || t.Term != s.Term) {
		r.breaks(Disturbed, "%s: %s led term %d, and now %s leads term %d", what, node.Name(leader), s.Term, node.Name(now), t.Term)
	}
	r.put(leader, "x", what)
}

// partialPartition cuts the network so that three servers hear each other, and
// each of the other two hears only one of the three. The leader, one of the
// three, has a majority, and the servers that do not hear it must not depose
// it.
func partialPartition(r *run) {
	leader := r.leader()
	r.put(leader, "x", "0")
	if r.over() {
		return
	}
	outer := r.pick(r.others(leader), 2)
	rest := r.others(leader, outer[0], outer[1])
	r.say("%s, %s and %s hear each other; %s hears only %s, and %s only %s", node.Name(leader), node.Name(rest[0]), node.Name(rest[1]),
		node.Name(outer[0]), node.Name(rest[0]), node.Name(outer[1]), node.Name(rest[1]))
	for i, id := range outer {
		for _, other := range r.others(id, rest[i]) {
			r.w.Cut(id, other)
			r.w.Cut(other, id)
		}
	}
	r.steady("two servers do not hear the leader", func() { r.wait(3 * time.Second) })
	r.w.HealAll()
	r.mustWrite("end", "1")
	r.settle()
	r.agree("end", "1")
}

// handOver transfers the leadership under load: to each server, to one that is behind,
// and to one that is down.
func handOver(r *run) {
	const atOnce = 100 * time.Millisecond
	r.underLoad(func() {
		r.mustWrite("x", "0")
		for _, id := range r.pick(r.members(), 5) {
			r.handTo(id, atOnce)
		}
		leader := r.leader()
		if r.over() {
			return
		}
		behind := r.pick(r.membersBut(leader), 1)[0]
		r.say("%s misses what %s sends for a moment, and should become leader: it must first have the whole log", node.Name(behind), node.Name(leader))
		r.w.Cut(leader, behind)
		for i := range 5 {
			r.put(leader, "x", fmt.Sprint(i))
		}
		r.w.HealAll()
		r.handTo(behind, 2*atOnce)

		r.handToNobody(behind)
		r.mustWrite("end", "1")
	})
	r.say("the same, without writes")
	r.handToNobody(r.leader())
}

// handToNobody asks a leader to transfer its leadership to a server that is
// down. It must not succeed.
func (r *run) handToNobody(leader uint64) {
	if r.over() {
		return
	}
	down := r.pick(r.membersBut(leader), 1)[0]
	r.say("%s is down, and should become leader; %s must stay leader", node.Name(down), node.Name(leader))
	r.crash(down)
	r.wait(500 * time.Millisecond)
	asked := r.begin(leader, api.Request{Op: api.Transfer, To: down})
	r.wait(time.Second)
	r.put(leader, "x", "on")
	if asked.Done && asked.Response.Error == nil {
		r.breaks(Unsafe, "%s is down, and %s says that it has transferred its leadership to it", node.Name(down), node.Name(leader))
	}
	r.restart(down)
}

// handTo transfers the leadership to a server, which must accept a write within
// bound.
func (r *run) handTo(id uint64, bound time.Duration) {
	leader := r.leader()
	if r.over() || leader == id {
		return
	}
	before := r.w.Now()
	if _, err := r.doAs(r.operator(), leader, api.Request{Op: api.Transfer, To: id}); err != nil {
		r.breaks(Unavailable, "%s does not transfer its leadership to %s: %v", node.Name(leader), node.Name(id), err)
	}
	r.put(id, "x", node.Name(id))
	if took := r.w.Now() - before; !r.over() && took > bound {
		r.breaks(Unavailable, "%s took %v to transfer its leadership to %s, which has then taken a write", node.Name(leader), took, node.Name(id))
	}
	if !r.over() {
		r.transfers++
	}
}
