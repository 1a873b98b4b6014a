package scenario

import (
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// changes reports whether the stage supports membership changes.
func (s Stage) changes() bool {
	_, ok := s.Ops[api.Change]
	return ok
}

// changeTime is how long a change may take, even if the leader crashes during
// it.
const changeTime = 20 * time.Second

// membership asks a server who the members are.
func (r *run) membership(server uint64) (api.Membership, bool) {
	response, err := r.look(server, api.Request{Op: api.Members})
	if err != nil || r.over() {
		return api.Membership{}, false
	}
	m, failed := api.DecodeMembership(response.Data)
	if failed != nil || m.ID != server || m.Phase == "" {
		r.breaks(Unsafe, "%s answers %s when it is asked for the members: it needs its id and a phase", node.Name(server), response.Data)
		return api.Membership{}, false
	}
	return m, true
}

// settled reports whether no change is in progress and the last one is
// committed.
func settled(m api.Membership) bool { return m.Committed && m.Phase == api.Stable }

// changed reports whether a change is done: the added servers vote, the removed
// ones do not.
func changed(m api.Membership, add, remove []uint64) bool {
	votes := func(id uint64) bool {
		return slices.ContainsFunc(m.Members, func(s api.MemberStatus) bool { return s.ID == id && s.Voter })
	}
	return settled(m) && !slices.ContainsFunc(remove, votes) && !slices.ContainsFunc(add, func(id uint64) bool { return !votes(id) })
}

// members returns the voters of the newest committed configuration. In stages
// with fixed members it returns all servers.
func (r *run) members() []uint64 {
	v, _ := r.invariants.Members()
	if len(v.Now) == 0 {
		return r.w.InUse()
	}
	all := slices.Concat(v.Now, v.Next)
	slices.Sort(all)
	return slices.Compact(all)
}

// membersBut returns the members except these.
func (r *run) membersBut(but ...uint64) []uint64 {
	return slices.DeleteFunc(r.members(), func(id uint64) bool { return slices.Contains(but, id) })
}

// operator returns the client that changes the members.
func (r *run) operator() *sim.Client {
	if r.person == nil {
		r.person = r.asker()
		r.person.Follow, r.person.Timeout, r.person.Patience = true, time.Second, time.Second
	}
	return r.person
}

// begin sends a request of the operator to a server and returns at once.
func (r *run) begin(server uint64, q api.Request) *sim.Call {
	if r.over() {
		return &sim.Call{}
	}
	return r.operator().Begin(server, q)
}

// request returns a request for a change.
func request(add, remove []uint64) api.Request {
	q := api.Request{Op: api.Change, Remove: remove}
	for _, id := range add {
		q.Add = append(q.Add, api.Member{ID: id, Address: sim.Address(id)})
	}
	return q
}

// change requests a membership change and waits until it is done. Without an
// answer it checks the progress and repeats the request, as an operator would.
// It calls meanwhile while it waits. It reports whether the change is done. A
// stage without membership changes must refuse the command.
func (r *run) change(add, remove []uint64, meanwhile ...func()) bool {
	q := request(add, remove)
	switch {
	case r.over():
		return false
	case !r.stage.changes():
		if _, err := r.do(r.leader(), q); err == nil {
			r.breaks(Unsafe, "the stage does not declare the command %s, but executes it", q.Op)
		}
		r.say("there is no such command: the members are fixed")
		return false
	}
	for end := r.w.Now() + changeTime; !r.over() && r.w.Now() < end; r.wait(20 * time.Millisecond) {
		for _, f := range meanwhile {
			f()
		}
		leader := r.findLeader(r.w.InUse(), 0)
		if leader == 0 {
			continue
		}
		switch m, ok := r.membership(leader); {
		case ok && changed(m, add, remove):
			return true
		case ok && settled(m):
			r.doAs(r.operator(), leader, q)
		}
	}
	if !r.over() {
		v, _ := r.invariants.Members()
		r.breaks(Unavailable, "a change of the members, which adds %s and removes %s, is not done within %v; committed is %+v", nodeNames(add), nodeNames(remove), changeTime, v)
	}
	return false
}

// mustRefuse checks that a leader refuses a request.
func (r *run) mustRefuse(leader uint64, q api.Request, why string) {
	_, err := r.doAs(r.operator(), leader, q)
	switch {
	case r.over():
	case err == nil:
		r.breaks(Unsafe, "%s does %s, though %s", node.Name(leader), q.AppendJSON(nil), why)
	case err.Code != api.Refused || !err.Definite:
		r.breaks(Unsafe, "%s is asked for %s, though %s, and says: %v", node.Name(leader), q.AppendJSON(nil), why, err)
	}
}

// mustLeave checks that a removed server soon says that it was removed, and
// does not lead.
func (r *run) mustLeave(id uint64) {
	var m api.Membership
	for end := r.w.Now() + leaderTime; !r.over() && r.w.Now() < end; r.wait(50 * time.Millisecond) {
		var ok bool
		if m, ok = r.membership(id); ok && m.Removed && !r.leads(id) {
			return
		}
	}
	r.breaks(Disturbed, "%s was removed, and %v later it leads or does not say so: %+v", node.Name(id), leaderTime, m)
}

// inspect returns the state of a running server.
func (r *run) inspect(id uint64) (node.State, bool) {
	in, ok := r.w.Server(id).(node.Inspector)
	if !ok {
		return node.State{}, false
	}
	var s node.State
	in.Inspect(&s)
	return s, true
}

// tripwire is a watcher that waits for a moment in a change: when a leader
// switches to another configuration for the nth time.
type tripwire struct {
	nth    int
	was    node.Voters
	spring func(leader uint64)
}

// Started and Stopped implement sim.Watcher.
func (t *tripwire) Started(uint64)       {}
func (t *tripwire) Stopped(uint64, bool) {}

// Stepped checks the configuration of a leader while the tripwire is set.
func (t *tripwire) Stepped(id uint64, s node.Server, _ bool) error {
	in, ok := s.(node.Inspector)
	if t.nth == 0 || !ok {
		return nil
	}
	var v node.State
	in.Inspect(&v)
	if v.Role != node.Leader || slices.Equal(v.Config.Now, t.was.Now) && slices.Equal(v.Config.Next, t.was.Next) && slices.Equal(v.Config.Learners, t.was.Learners) {
		return nil
	}
	t.was = v.Config
	if t.nth--; t.nth == 0 {
		t.spring(id)
	}
	return nil
}

// trip calls f shortly after a leader has switched to another configuration for
// the nth time from now.
func (r *run) trip(nth int, f func(leader uint64)) {
	id := r.findLeader(r.w.InUse(), leaderTime)
	if r.over() || id == 0 {
		return
	}
	leader, _ := r.inspect(id)
	soon := [2]time.Duration{0, 4 * time.Millisecond}
	r.wire.nth, r.wire.was = nth, leader.Config
	r.wire.spring = func(id uint64) { r.w.After(r.between(soon), func() { f(id) }) }
}

func (r *run) between(d [2]time.Duration) time.Duration {
	return d[0] + time.Duration(r.w.Rand().Int64N(int64(d[1]-d[0])+1))
}

// strike cuts the power of the leader, or kills it, at some moment of the next
// change, and restarts it later.
func (r *run) strike(moments int) {
	power := r.w.Rand().IntN(2) == 0
	away := r.between([2]time.Duration{200 * time.Millisecond, time.Second})
	r.trip(1+r.w.Rand().IntN(moments), func(id uint64) {
		r.say("during the change, %s goes down", node.Name(id))
		if power {
			r.w.PowerCut(id)
		} else {
			r.w.Crash(id)
		}
		r.w.After(away, func() {
			if err := r.w.Restart(id); err != nil {
				r.breaks(Unsafe, "%v", err)
			}
		})
	})
}

// The number of moments of a change that are visible from outside: three if it
// adds a server, two if it only removes servers.
const (
	momentsOfAdding   = 3
	momentsOfRemoving = 2
)

// underLoad runs a story while a few clients write and read. At the end all
// requests must be answered, and the history must be linearizable.
func (r *run) underLoad(story func()) {
	if r.over() {
		return
	}
	load := sim.DefaultLoad
	load.Clients, load.Think = 4, [2]time.Duration{5 * time.Millisecond, 60 * time.Millisecond}
	load.Client = func(c *sim.Client) { c.Routed = c.ID%2 == 0 }
	clients := r.w.StartLoad(load)
	story()
	clients.Stop()
	if !r.over() && !r.w.RunUntil(clients.Idle, calmTime) && !r.over() {
		r.breaks(Unavailable, "a client has no answer after %v", calmTime)
	}
	r.settle()
	r.agree("end", "1")
	r.judge()
}

// start starts spare machines, which will join.
func (r *run) start(ids ...uint64) {
	if r.stage.changes() {
		r.restart(ids...)
	}
}

// retire removes machines forever.
func (r *run) retire(ids ...uint64) {
	if r.over() {
		return
	}
	for _, id := range ids {
		r.w.Retire(id)
	}
}
