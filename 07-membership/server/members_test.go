package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// asks reports whether the server asks for votes when it hears no leader for
// long. It must say that it does if it does, and only then.
func (w *world) asks() bool {
	w.t.Helper()
	w.forget()
	for range 4 * node.Ticks(300*time.Millisecond) {
		w.server.Tick()
		w.flush()
	}
	asked := slices.Contains(w.order, "RequestVote")
	require.Equal(w.t, asked, slices.ContainsFunc(w.events, func(e trace.Event) bool {
		return e.Reason != nil && e.Reason.Code == raft.Asks.Code
	}))
	return asked
}

func TestANewServerStartsNoElection(t *testing.T) {
	require.False(t, joiner(t).asks())
	require.True(t, start(t, 3, disk.NewSim("d")).asks())
}

// A server asks until a leader says that its removal is committed; what a leader
// says that may know less than it does changes nothing (thesis §4.2.2). Entries
// make it a member again.
func TestARemovedServerStartsNoElection(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	require.True(t, w.asks())
	w.receive(2, 1, raft.AppendEntries{Entries: entries(1, 1, 3)})
	w.flush()
	require.True(t, w.asks(), "its log may end in C_new, which is not committed")

	removed := raft.RequestVoteReply{Removed: true, Committed: raft.Position{Term: 1, Index: 4}}
	w.receive(2, 1, removed)
	w.flush()
	require.True(t, w.status().Removed)
	require.False(t, w.asks())

	again := start(t, 3, w.disk)
	require.True(t, again.asks(), "it has to hear of it once in each life")
	again.receive(2, 1, removed)
	again.flush()
	require.False(t, again.asks())

	w.receive(2, 1, raft.AppendEntries{PrevLogIndex: 3, PrevLogTerm: 1, Entries: entries(4, 1, 2), LeaderCommit: 4})
	w.flush()
	require.Equal(t, raft.Index(5), w.status().Last, "it was added again, and takes what the leader sends")
	require.Equal(t, raft.Index(4), w.status().Commit)
	require.True(t, w.asks())
}

// A member that is added at another address has moved: one entry says where it is
// now. That is no way to call a change off.
func TestAMemberMoves(t *testing.T) {
	w := lead(t, 3)
	const elsewhere = `{"op":"change","add":[{"id":2,"address":"127.0.0.1:9002"}]}`
	a := w.ask(elsewhere)
	w.flush()
	w.commit()
	w.done(a)
	require.Equal(t, "127.0.0.1:9002", w.server.config().Addresses[2])
	require.Equal(t, []raft.ID{1, 2, 3}, w.server.config().Voters)
	require.Empty(t, w.server.config().Next)
	w.refused(w.ask(elsewhere), api.Refused, "n2 is a member already, at 127.0.0.1:9002")
	w.refused(w.ask(`{"op":"change","add":[{"id":3,"address":"127.0.0.1:9002"}]}`), api.Refused, "127.0.0.1:9002 is the address of n2")

	w.ask(`{"op":"change","add":[{"id":4,"address":"127.0.0.1:9004"}]}`)
	w.flush()
	w.commit()
	require.NotEmpty(t, w.server.config().Next)
	w.refused(w.ask(`{"op":"change","add":[{"id":3,"address":"127.0.0.1:9003"}]}`), api.Refused, "a change of the members is under way")
}

// A server that was moved says where the cluster looks for it, and what to do.
func TestAServerThatWasMovedSaysSo(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	require.Empty(t, w.server.moved())
	w.server.world.Config.Members = slices.Clone(w.server.world.Config.Members)
	w.server.world.Config.Members[0].Address = "127.0.0.1:9001"
	require.Contains(t, w.server.moved(), "its configuration says 127.0.0.1:9001; when it runs, tell the cluster with: add 1=127.0.0.1:9001")
}

// Who asks for a transfer hears when the other leads, or what is known of it when
// it does not.
func TestTransfer(t *testing.T) {
	const toN2 = `{"op":"transfer","to":2}`
	w := lead(t, 3)
	w.refused(w.ask(`{"op":"transfer","to":9}`), api.Refused, "n9 does not vote, so it cannot lead; the voters are n1, n2, n3")
	term := w.status().CurrentTerm

	// n2 is alive and never has the last entry.
	w.put("x", "1")
	w.flush()
	a := w.ask(toN2)
	for len(a.responses) == 0 {
		w.server.Tick()
		w.flush()
		w.receive(2, term, raft.AppendEntriesReply{Success: true, MatchIndex: 1})
		require.Less(t, w.server.ticks, uint64(10*node.Ticks(transferPatience)))
	}
	w.refused(a, api.Unavailable, "n2 did not have the whole log in time, so n1 stays leader")
	x := w.put("x", "2")
	w.flush()
	require.Empty(t, x.responses, "it takes writes again")
	w.commit()
	w.done(x)

	// n2 is told to stand, and is not heard of again.
	a = w.ask(toN2)
	w.flush()
	require.Equal(t, raft.Follower, w.status().Role)
	require.Equal(t, "TimeoutNow", w.order[len(w.order)-1])
	for len(a.responses) == 0 {
		w.server.Tick()
		w.flush()
	}
	w.refused(a, api.Unknown, "has not become the leader within 2s")

	// n2 is told to stand, and n1 leads again before the client is answered.
	w = lead(t, 3)
	a = w.ask(toN2)
	w.flush()
	w.stand()
	later := w.status().CurrentTerm
	w.receive(2, later, raft.RequestVoteReply{Granted: true})
	w.flush()
	for len(a.responses) == 0 {
		w.server.Tick()
		w.flush()
		w.receive(2, later, raft.AppendEntriesReply{Success: true, MatchIndex: 1})
	}
	require.Equal(t, raft.Leader, w.status().Role)
	w.refused(a, api.Unknown, "has not become the leader within 2s")

	// n2 leads.
	w = lead(t, 3)
	a = w.ask(toN2)
	w.flush()
	require.Empty(t, a.responses)
	w.receive(2, term+1, raft.AppendEntries{PrevLogIndex: w.status().Last, PrevLogTerm: term})
	w.flush()
	w.done(a)
}

// A leader may have joined by an entry that a follower has not yet.
func TestALeaderWhoseAddressIsNotKnownYet(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(9, 1, raft.AppendEntries{})
	w.flush()
	a := w.put("x", "1")
	w.refused(a, api.NotLeader, "n1 is a follower; n9 leads term 1, and this server has not heard yet at which address")
	require.Empty(t, a.responses[0].Error.Leader)
}

// A voter whose folder was emptied gives no vote, or a server that lacks what it
// had acknowledged would be elected and remove it from the others.
func TestAVoterWithAnEmptyFolderDoesNotVote(t *testing.T) {
	c := newCluster(t, 3)
	c.start(1, 2, 3, 4)
	c.run()
	c.ask(`{"op":"change","add":[{"id":4,"address":"a:4"}],"remove":[1]}`)
	c.run()
	require.Equal(t, []raft.ID{2, 3, 4}, c.servers[3].config().Voters)
	c.stop(1, 3)
	c.run()
	c.ask(`{"op":"put","key":"x","value":"acknowledged"}`)
	c.stop(2, 4)

	delete(c.disks, 4)
	c.start(3, 4)
	for range 10 {
		c.run()
	}
	require.Nil(t, c.leader(), "n3 lacks what n2 and n4 had acknowledged")
	c.start(2)
	c.run()
	require.Equal(t, "acknowledged", c.ask(`{"op":"get","key":"x"}`).Value)
	require.Equal(t, []raft.ID{2, 3, 4}, c.servers[4].config().Voters, "the leader has sent it the log again")
}

// What a change leaves must be a cluster whose servers can tell each other apart.
func TestNextVoters(t *testing.T) {
	c := raft.Config{Addresses: map[raft.ID]string{}}
	for id := raft.ID(1); id <= api.MaxMembers; id++ {
		c.Voters = append(c.Voters, id)
		c.Addresses[id] = fmt.Sprintf("a:%d", id)
	}
	three := raft.Config{Voters: []raft.ID{1, 2, 3}, Addresses: c.Addresses}
	add := func(id uint64, address string) api.Request {
		return api.Request{Op: api.Change, Add: []api.Member{{ID: id, Address: address}}}
	}
	for _, step := range []struct {
		config  raft.Config
		request api.Request
		want    string
	}{
		{three, api.Request{Remove: []uint64{1, 2, 3}}, "a cluster cannot be without members"},
		{three, api.Request{Remove: []uint64{4}}, "n4 is not a member, so it cannot be removed; the members are n1, n2, n3"},
		{three, add(4, "a:3"), "a:3 is the address of n3"},
		{three, add(3, "a:3"), "n3 is a member already, at a:3"},
		{c, add(200, "a:200"), "a cluster has at most 99 members"},
	} {
		_, err := nextVoters(step.config, step.request)
		require.NotNil(t, err, step.want)
		require.Equal(t, api.Error{Code: api.Refused, Message: step.want, Definite: true}, *err)
	}

	replace := add(4, "a:3")
	replace.Remove = []uint64{3}
	next, err := nextVoters(three, replace)
	require.Nil(t, err, "an address of a server that goes is free")
	require.Equal(t, []raft.ID{1, 2, 4}, next)
	full := add(200, "a:200")
	full.Remove = []uint64{1}
	next, err = nextVoters(c, full)
	require.Nil(t, err)
	require.Len(t, next, api.MaxMembers)
	require.Equal(t, []raft.ID{1, 2, 3}, three.Voters, "the configuration in force is not touched")
}

// The world hears of each address that changes, and of no other. A server that is
// to go is in reach until it is gone.
func TestConnectFollowsTheMembers(t *testing.T) {
	var told [][]node.Member
	w := startWith(t, func(world node.World) (node.Server, error) {
		world.Connect = func(members []node.Member) { told = append(told, members) }
		return New(world)
	}, 3, disk.NewSim("d"))
	require.Len(t, told, 1)
	w.stand()
	w.receive(2, w.status().CurrentTerm, raft.RequestVoteReply{Granted: true})
	w.flush()
	w.commit()
	require.Equal(t, raft.Leader, w.status().Role)
	require.Len(t, told, 1)

	w.ask(`{"op":"change","add":[{"id":2,"address":"127.0.0.1:9002"}]}`)
	w.flush()
	w.commit()
	require.Len(t, told, 2)
	require.Equal(t, []node.Member{{ID: 1, Address: "a:1"}, {ID: 2, Address: "127.0.0.1:9002"}, {ID: 3, Address: "a:3"}}, told[1])

	w.ask(`{"op":"change","remove":[3],"add":[{"id":4,"address":"127.0.0.1:9004"}]}`)
	w.flush()
	require.Len(t, told, 3)
	require.Equal(t, []node.Member{{ID: 1, Address: "a:1"}, {ID: 2, Address: "127.0.0.1:9002"}, {ID: 3, Address: "a:3"}, {ID: 4, Address: "127.0.0.1:9004"}}, told[2])
}

// A configuration that no leader proposes is refused where it is read.
func TestAnInvalidConfiguration(t *testing.T) {
	for _, text := range []string{
		`{"voters":[1,1],"addresses":{}}`,
		`{"voters":[2,1],"addresses":{}}`,
		`{"voters":[0],"addresses":{}}`,
		`{"voters":[1],"next":[3,2],"addresses":{}}`,
		`{"voters":[1],"joint":true,"addresses":{}}`,
		`{"voters":[1],"addresses":{"one":"a:1"}}`,
		`{"voters":[1],"addresses":{},"more":1}`,
	} {
		_, err := decodeConfig([]byte(text))
		require.ErrorContains(t, err, "a configuration: ", text)
	}
}
