package scenario

import (
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// Limits on the members in a chaos.
const (
	// chaosSpares is the number of spare machines, maxMembers the largest
	// number of members at once.
	chaosSpares = 9
	maxMembers  = 7
)

// membershipChaos changes the members at random until a moment: it adds and
// removes servers, several at once, cancels changes, transfers leadership, and
// sends invalid requests. Spare machines join with empty disks, and removed
// servers are switched off forever after a while.
func (r *run) membershipChaos(until time.Duration) {
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

// tell sends a request about the members with the client of the stage, which finds
// the leader. It gives up early.
func (r *run) tell(q api.Request) *api.Error {
	if r.teller == nil {
		r.teller = r.asker()
		r.teller.Routed, r.teller.Patience = true, 500*time.Millisecond
	}
	_, err := r.doAs(r.teller, 0, q)
	return err
}

// changeAtRandom adds some servers and removes some.
func (r *run) changeAtRandom() {
	rng, members := r.w.Rand(), r.members()
	add := r.joiners()
	add = r.pick(add, rng.IntN(min(len(add), 3, max(0, maxMembers-len(members)))+1))
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

// joiners returns the machines that can join: those that have never been
// voters.
func (r *run) joiners() []uint64 {
	r.noteVoters()
	return slices.DeleteFunc(r.w.IDs(), func(id uint64) bool { return slices.Contains(r.voted, id) })
}

// noteVoters records all servers that are voters.
func (r *run) noteVoters() {
	for _, id := range r.members() {
		if !slices.Contains(r.voted, id) {
			r.voted = append(r.voted, id)
		}
	}
}

// noServer is the ID of a server that does not exist.
const noServer = 999

// askNonsense sends a request that must be refused: to remove a server that is
// not a member, or to transfer leadership to it.
func (r *run) askNonsense() {
	q := request(nil, []uint64{noServer})
	if r.w.Rand().IntN(2) == 0 {
		q = api.Request{Op: api.Transfer, To: noServer}
	}
	if err := r.tell(q); err == nil && !r.over() {
		r.breaks(Unsafe, "%s succeeded, but there is no such server", q.AppendJSON(nil))
	}
}

// switchOff removes machines that are no longer members, each some time after
// its last change.
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

// finishChange checks that a change in progress is completed after all faults
// have ended.
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

// replaceSome removes a minority of the members forever, possibly none, and
// replaces them by spare machines, as far as there are any.
func (r *run) replaceSome() {
	members, changing := r.invariants.Members()
	maxLost := min(2, (len(members.Now)-1)/2)
	if r.over() || changing || maxLost < 1 {
		return
	}
	lost := r.pick(members.Now, r.w.Rand().IntN(maxLost+1))
	if len(lost) == 0 {
		return
	}
	r.say("lost forever: %s", nodeNames(lost))
	r.retire(lost...)
	r.mustWrite("lost", "1")
	if spares := r.pick(r.joiners(), len(lost)); len(spares) > 0 {
		r.restart(spares...)
		r.change(spares, lost)
	}
}

// known returns the servers that the clients of a chaos try: during the faults
// all machines in use, members or not; afterwards only the members.
func (r *run) known() []uint64 {
	if r.calm {
		return r.members()
	}
	return r.w.InUse()
}

// alone reports whether a server leads with the last configuration of a change
// that removes it.
func (r *run) alone(id uint64) bool {
	s, ok := r.inspect(id)
	return ok && s.Role == node.Leader && len(s.Config.Next) == 0 && !slices.Contains(s.Config.Now, id)
}
