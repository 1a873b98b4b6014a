package scenario

import (
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// Members in a chaos.
const (
	// chaosSpares is how many machines may join, mostMembers how many members
	// there may be at once.
	chaosSpares = 9
	mostMembers = 7
)

// unrest changes the members at random until a moment: servers are added and
// removed, several at once, changes are called off, leadership is transferred, and
// things are asked for that make no sense. Spares join with an empty disk, and
// who was removed is switched off, sooner or later, for good.
func (r *run) unrest(until time.Duration) {
	for !r.over() && r.w.Now() < until {
		r.wait(r.between([2]time.Duration{10 * time.Millisecond, 400 * time.Millisecond}))
		if r.over() {
			return
		}
		switch r.w.Rand().IntN(10) {
		case 0, 1, 2, 3, 4:
			r.changeAtRandom()
		case 5:
			r.tell(api.Request{Op: api.Cancel})
		case 6, 7:
			if r.tell(api.Request{Op: api.Transfer, To: r.pick(r.w.InUse(), 1)[0]}) == nil {
				r.transfers++
			}
		case 8:
			r.askNonsense()
		}
		r.switchOff()
	}
}

// tell asks the leader for something, with little patience.
func (r *run) tell(q api.Request) *api.Error {
	c := r.operator()
	c.Timeout, c.Patience = 500*time.Millisecond, 500*time.Millisecond
	_, err := r.doAs(c, 0, q)
	return err
}

// changeAtRandom adds some and removes some.
func (r *run) changeAtRandom() {
	rng, members := r.w.Rand(), r.members()
	add := r.joiners()
	add = r.pick(add, rng.IntN(min(len(add), 3, max(0, mostMembers-len(members)))+1))
	remove := r.pick(members, rng.IntN(min(3, len(members)+len(add)-1)+1))
	if len(add)+len(remove) == 0 || len(remove) >= len(members)+len(add) {
		return
	}
	for _, id := range add {
		r.joining = append(r.joining, id)
		r.w.After(r.between([2]time.Duration{0, 300 * time.Millisecond}), func() {
			if err := r.w.Restart(id); err != nil {
				r.breaks(Unsafe, "%v", err)
			}
		})
	}
	r.tell(request(add, remove))
}

// joiners are the machines that can join: those that have never counted.
func (r *run) joiners() []uint64 {
	r.noteVoters()
	return slices.DeleteFunc(r.w.IDs(), func(id uint64) bool { return slices.Contains(r.voted, id) })
}

// noteVoters notes who counts or has counted.
func (r *run) noteVoters() {
	for _, id := range r.members() {
		if !slices.Contains(r.voted, id) {
			r.voted = append(r.voted, id)
		}
	}
}

// nobody is a server that there is not.
const nobody = 999

// askNonsense asks for what must be refused: a server is removed, or is to lead,
// that is no member.
func (r *run) askNonsense() {
	q := request(nil, []uint64{nobody})
	if r.w.Rand().IntN(2) == 0 {
		q = api.Request{Op: api.Transfer, To: nobody}
	}
	if err := r.tell(q); err == nil && !r.over() {
		r.breaks(Unsafe, "%s is done, and there is no such server", q.AppendJSON(nil))
	}
}

// switchOff takes away machines that were members and are no longer, each
// some time after its last change.
func (r *run) switchOff() {
	r.noteVoters()
	members, changing := r.invariants.Members()
	if changing || r.over() {
		return
	}
	for _, id := range r.voted {
		if !slices.Contains(members.Now, id) && r.w.Rand().IntN(4) == 0 {
			r.w.Retire(id)
		}
	}
}

// finishChange holds that a change that is under way when all faults have ended
// is brought to its end.
func (r *run) finishChange() {
	if !r.stage.changes() || r.over() {
		return
	}
	r.restart(r.joining...)
	for end := r.w.Now() + calmTime; !r.over() && r.w.Now() < end; r.wait(50 * time.Millisecond) {
		if leader := r.findLeader(r.w.InUse(), 0); leader != 0 {
			if m, ok := r.membership(leader); ok && settled(m) {
				return
			}
		}
	}
	var all []api.Membership
	for _, id := range r.w.Running() {
		m, _ := r.membership(id)
		all = append(all, m)
	}
	r.breaks(Unavailable, "%v after all faults have ended, a change of the members is not done, though %s: %+v", calmTime, whoRuns(r.w.Running()), all)
}

// replaceSome takes a minority of the members away for good, or nobody, and puts
// new machines in their place, as far as there are any.
func (r *run) replaceSome() {
	members, changing := r.invariants.Members()
	most := min(2, (len(members.Now)-1)/2)
	if r.over() || changing || most < 1 {
		return
	}
	lost := r.pick(members.Now, r.w.Rand().IntN(most+1))
	if len(lost) == 0 {
		return
	}
	r.say("for good lost: %s", nodeNames(lost))
	r.retire(lost...)
	r.mustWrite("lost", "1")
	if spares := r.pick(r.joiners(), len(lost)); len(spares) > 0 {
		r.restart(spares...)
		r.change(spares, lost)
	}
}

// known are the servers that the clients of a chaos ask: all that run or ran,
// members or not, as long as everything is in a muddle, and the members then.
func (r *run) known() []uint64 {
	if r.calm {
		return r.members()
	}
	return r.w.InUse()
}

// alone reports whether a server leads, and its configuration is the last of a
// change which it is not in.
func (r *run) alone(id uint64) bool {
	s, ok := r.inspect(id)
	return ok && s.Role == node.Leader && len(s.Config.Next) == 0 && !slices.Contains(s.Config.Now, id)
}
