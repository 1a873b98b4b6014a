package scenario

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
)

// senate is what the servers of a test share: they agree by magic.
type senate struct {
	// members are in, leader leads term.
	members []uint64
	leader  uint64
	term    uint64

	// phase is what they say of a change.
	phase string

	// deaf refuses so many changes before it takes one, silent lets who was
	// removed not say so.
	deaf   int
	silent bool

	// mute answers no write.
	mute bool

	asked []string
}

// senator is one of them.
type senator struct {
	explosive
	id uint64
	*senate
}

func (s senator) Tick()        {}
func (s senator) Flush() error { return nil }

func (s senator) Request(q api.Request, reply func(api.Response)) {
	role := map[bool]string{true: "leader", false: "follower"}[s.id == s.leader]
	switch q.Op {
	case api.Status:
		reply(api.Response{ID: q.ID, Data: fmt.Appendf(nil, `{"id":%d,"role":%q,"term":%d}`, s.id, role, s.term)})
	case api.Members:
		reply(api.Response{ID: q.ID, Data: s.tell()})
	case api.Change:
		s.asked = append(s.asked, string(q.AppendJSON(nil)))
		if s.deaf--; s.deaf >= 0 {
			reply(api.Failed(q.ID, &api.Error{Code: api.Refused, Message: "not now", Definite: true}))
			return
		}
		for _, m := range q.Add {
			s.members = append(s.members, m.ID)
		}
		s.members = slices.DeleteFunc(s.members, func(id uint64) bool { return slices.Contains(q.Remove, id) })
		reply(api.Response{ID: q.ID, Index: 1})
	default:
		if !s.mute {
			reply(api.Response{ID: q.ID})
		}
	}
}

func (s senator) tell() []byte {
	var members []string
	for _, id := range s.members {
		members = append(members, fmt.Sprintf(`{"id":%d,"address":"a:1","voter":true,"match":5}`, id))
	}
	removed := ""
	if !s.silent && !slices.Contains(s.members, s.id) {
		removed = `,"removed":true`
	}
	return fmt.Appendf(nil, `{"id":%d,"role":"x","term":%d,"phase":%q,"committed":true%s,"members":[%s]}`,
		s.id, s.term, s.phase, removed, strings.Join(members, ","))
}

// convene is a run with a senate of three and two spares.
func convene(t *testing.T, s *senate) *run {
	s.members, s.leader, s.term = []uint64{1, 2, 3}, 1, 1
	if s.phase == "" {
		s.phase = "stable"
	}
	ops := api.Ops{api.Status: {}, api.Members: {}, api.Change: {May: api.Add | api.Remove}, "put": {Needs: api.Key | api.Value}}
	stage := Stage{Name: "senate", Ops: ops, New: func(w node.World) (node.Server, error) { return senator{id: w.ID, senate: s}, nil }}
	r, err := newRun(stage, Scenario{Name: "test", servers: 3, spare: 2}, 1, Direction{})
	require.NoError(t, err)
	return r
}

func TestAChangeIsAskedForUntilItIsDone(t *testing.T) {
	s := &senate{deaf: 2}
	r := convene(t, s)
	waits := 0
	require.True(t, r.change([]uint64{4}, []uint64{2}, func() { waits++ }))
	require.Equal(t, []uint64{1, 3, 4}, s.members)
	require.Len(t, s.asked, 3)
	require.Contains(t, s.asked[0], `"add":[{"id":4,"address":"10.0.0.4:7000"}],"remove":[2]`)
	require.Equal(t, 4, waits)
	require.Empty(t, r.kind)
}

func TestAChangeThatIsNeverDone(t *testing.T) {
	s := &senate{phase: "joint"}
	r := convene(t, s)
	require.False(t, r.change([]uint64{4}, nil))
	require.Equal(t, Unavailable, r.kind)
	require.Contains(t, r.why, "which adds n4 and removes no servers, is not done within 20s")
	require.Empty(t, s.asked, "while another is under way nobody asks")
}

func TestWhoIsRemovedSaysSo(t *testing.T) {
	s := &senate{}
	r := convene(t, s)
	require.True(t, r.change(nil, []uint64{3}))
	r.mustLeave(3)
	require.Empty(t, r.kind)
	s.silent = true
	r.mustLeave(3)
	require.Equal(t, Disturbed, r.kind)
	require.Contains(t, r.why, "n3 was removed, and 5s later it leads or does not say so")
}

func TestAnAnswerAboutTheMembersIsRead(t *testing.T) {
	s := &senate{}
	r := convene(t, s)
	m, ok := r.membership(2)
	require.True(t, ok)
	require.True(t, settled(m))
	require.True(t, changed(m, []uint64{1, 2, 3}, []uint64{4}))
	require.False(t, changed(m, []uint64{4}, nil))
	require.False(t, changed(m, nil, []uint64{3}))
	s.phase = "learning"
	m, _ = r.membership(2)
	require.False(t, settled(m))
	s.phase = ""
	_, ok = r.membership(2)
	require.False(t, ok)
	require.Equal(t, Unsafe, r.kind)
}

func TestAChangeUnderWayMustEnd(t *testing.T) {
	s := &senate{}
	r := convene(t, s)
	r.finishChange()
	require.Empty(t, r.kind)
	s.phase = "learning"
	r.finishChange()
	require.Equal(t, Unavailable, r.kind)
	require.Contains(t, r.why, "10s after all faults have ended, a change of the members is not done")
}

// A sentence about the servers that run has its verb in their number.
func TestWhoRunsAgreesWithItsVerb(t *testing.T) {
	for _, c := range []struct {
		crashed []uint64
		want    string
	}{
		{[]uint64{1}, ", though n2 and n3 run"},
		{[]uint64{1, 2}, ", though n3 runs"},
		{[]uint64{1, 2, 3}, ", though no servers run"},
	} {
		for name, demand := range map[string]func(*run){
			"a leader": func(r *run) { r.leaderAmong(r.members()) },
			"a write":  func(r *run) { r.mustWrite("x", "1") },
			"a change": func(r *run) { r.finishChange() },
		} {
			s := &senate{phase: "learning", mute: true}
			r := convene(t, s)
			s.leader = noServer
			for _, id := range c.crashed {
				r.w.Crash(id)
			}
			demand(r)
			require.Equal(t, Unavailable, r.kind, name)
			require.Contains(t, r.why, c.want, name)
		}
	}
}

func TestTheLeaderMustLeadOn(t *testing.T) {
	s := &senate{}
	r := convene(t, s)
	r.steady("nothing happens", func() {})
	require.Empty(t, r.kind)
	r.steady("a server comes", func() { s.term++ })
	require.Equal(t, Disturbed, r.kind)
	require.Equal(t, "a server comes: n1 led term 1, and now n1 leads term 2", r.why)

	s = &senate{}
	r = convene(t, s)
	r.steady("a server comes", func() { s.leader = 2 })
	require.Equal(t, Disturbed, r.kind)
}

// A senate that takes anything is told that a stranger is removed, and agrees.
func TestNonsenseMustBeRefused(t *testing.T) {
	r := convene(t, &senate{deaf: 1})
	r.askNonsense()
	r.mustRefuse(1, api.Request{Op: "fly"}, "nobody can")
	require.Equal(t, Unsafe, r.kind)
	require.Contains(t, r.why, "n1 is asked for {\"op\":\"fly\"}, though nobody can, and says: bad_request")
	r = convene(t, &senate{deaf: 1})
	r.mustRefuse(1, request(nil, []uint64{noServer}), "there is no such server")
	require.Empty(t, r.kind)
	r.mustRefuse(1, request(nil, []uint64{noServer}), "there is no such server")
	require.Equal(t, Unsafe, r.kind)
	require.Contains(t, r.why, "n1 does {")
	r = convene(t, &senate{})
	for range 100 {
		// It draws what it asks for.
		if r.askNonsense(); r.kind != "" {
			break
		}
	}
	require.Equal(t, Unsafe, r.kind)
	require.Contains(t, r.why, "succeeded, but there is no such server")
}

// configured is a server that shows a configuration.
type configured struct {
	explosive
	state *node.State
}

func (c configured) Inspect(s *node.State)   { *s = *c.state }
func (c configured) Entry(uint64) node.Entry { panic("no entries") }

func TestTheTripwire(t *testing.T) {
	var sprung []uint64
	wire := &tripwire{nth: 2, was: node.Voters{Now: []uint64{1}}, spring: func(id uint64) { sprung = append(sprung, id) }}
	state := node.State{Role: node.Leader, Config: node.Voters{Now: []uint64{1}}}
	s := configured{state: &state}
	look := func() { require.NoError(t, wire.Stepped(1, s, true)) }
	look()
	state.Config.Learners = []uint64{2}
	look()
	look()
	require.Empty(t, sprung)
	state.Role = node.Follower
	state.Config = node.Voters{Now: []uint64{1}, Next: []uint64{1, 2}}
	look()
	require.Empty(t, sprung, "followers do not count")
	state.Role = node.Leader
	look()
	require.Equal(t, []uint64{1}, sprung)
	state.Config = node.Voters{Now: []uint64{1, 2}}
	look()
	require.Len(t, sprung, 1, "once")
}

// In a stage with fixed members nothing can replace what is lost.
func TestFixedMembers(t *testing.T) {
	s := toyStage(toy.Flaws{})
	s.Fails = append(s.Fails, "grow", "shrink", "replace")
	for _, name := range []string{"grow", "shrink", "replace"} {
		result, err := Play(s, name, 1, nil)
		require.NoError(t, err)
		require.Equal(t, Unavailable, result.Kind, result.Why)
	}
}

func TestUnmovedCountersOfAChangingChaos(t *testing.T) {
	story, err := Find("chaos")
	require.NoError(t, err)
	s := Stage{Ops: api.Ops{api.Change: {}}}
	c := Coverage{}
	c.Looks, c.Leaders, c.Truncated = 1, 1000, 1
	few := unmoved(s, story, true, 20, c)
	for _, name := range []string{"changes_begun", "joint", "changes_done", "transfers", "retired"} {
		require.Contains(t, few, name)
	}
	require.NotContains(t, few, "leaders_removed")
	many := unmoved(s, story, true, manySeeds, c)
	for _, name := range []string{"changes_cancelled", "learners_installed", "leaders_removed", "configurations_rolled_back"} {
		require.Contains(t, many, name)
	}
	c.Changes, c.Joint, c.Changed, c.Transfers, c.Retired = 1, 1, 1, 1, 1
	require.NotContains(t, unmoved(s, story, true, 20, c), "transfers")

	// How many servers there are at first is drawn.
	sizes := make(map[int]bool)
	for seed := range uint64(20) {
		n, spare := story.crowd(s, seed)
		sizes[n] = true
		require.Equal(t, chaosSpares, spare)
	}
	require.Equal(t, map[int]bool{1: true, 3: true, 5: true}, sizes)
	n, spare := story.crowd(Stage{}, 1)
	require.Equal(t, []int{5, 0}, []int{n, spare})
}

func TestTheKnownServers(t *testing.T) {
	r := convene(t, &senate{})
	r.restart(4)
	require.Equal(t, []uint64{1, 2, 3, 4}, r.known())
	r.retire(4)
	r.calm = true
	require.Equal(t, []uint64{1, 2, 3}, r.known())
	require.Equal(t, 100*time.Millisecond, r.between([2]time.Duration{100 * time.Millisecond, 100 * time.Millisecond}))
}
