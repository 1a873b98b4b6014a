package raft

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The change that most tests look at: n4 replaces n3.
var (
	learning = Config{Voters: []ID{1, 2, 3}, Next: []ID{1, 2, 4}}
	jointly  = Config{Voters: []ID{1, 2, 3}, Next: []ID{1, 2, 4}, Joint: true}
	final    = Config{Voters: []ID{1, 2, 4}}
)

// conf returns the entry that holds a configuration.
func conf(index Index, term Term, c Config) Entry {
	c.Index = index
	return Entry{Index: index, Term: term, Kind: ConfigEntry, Config: &c}
}

// bootOf returns a server that finds a term and a log on its disk, and goes by a
// configuration that stands in no entry.
func bootOf(id ID, first Config, term Term, log ...Entry) *Raft {
	o := startOptions(id, nil, State{CurrentTerm: term}, log)
	o.Config = first
	return New(o)
}

// hears gives a server a message of another in its own term.
func hears(r *Raft, from ID, body Body) {
	r.Step(Message{From: from, To: r.options.ID, Term: r.currentTerm, Body: body})
}

// leadOf makes a server the leader by the votes of all others, and takes all that
// it has said so far.
func leadOf(t *testing.T, r *Raft) {
	forceElection(r)
	takeAll(r)
	for id := range ID(6) {
		if r.role == Candidate && id+1 != r.options.ID {
			hears(r, id+1, RequestVoteReply{Granted: true})
		}
	}
	require.Equal(t, Leader, r.role)
	takeAll(r)
}

// leaderOf returns n1 of three as the leader of term 3, whose log has these
// entries and the NoOp of its term.
func leaderOf(t *testing.T, log ...Entry) *Raft {
	r := bootOf(1, three, 2, log...)
	leadOf(t, r)
	return r
}

// has lets servers say that they have all of the leader's log.
func has(r *Raft, ids ...ID) Output {
	for _, id := range ids {
		hears(r, id, AppendEntriesReply{Success: true, MatchIndex: r.log.lastIndex()})
	}
	return takeAll(r)
}

// inForce requires a configuration, but for the entry that holds it.
func inForce(t *testing.T, r *Raft, want Config, what ...any) {
	t.Helper()
	got := r.config()
	got.Index, got.Addresses = 0, nil
	require.Equal(t, want, got, what...)
}

// appends returns the configurations that an output appends.
func (o Output) appends() (all []Config) {
	for _, e := range o.Append {
		if e.Config != nil {
			c := *e.Config
			c.Index, c.Addresses = 0, nil
			all = append(all, c)
		}
	}
	return all
}

// tells reports whether an output tells of a decision.
func (o Output) tells(rule *Rule) bool {
	return slices.ContainsFunc(o.Reasons, func(why Reason) bool { return why.Rule == rule })
}

// "Once a given server adds the new configuration entry to its log, it uses that
// configuration for all future decisions (a server always uses the latest
// configuration in its log, regardless of whether the entry is committed)" (§6).
func TestTheLatestConfigurationInTheLogCounts(t *testing.T) {
	r := boot(3)
	log := []Entry{{Index: 1, Term: 3}, conf(2, 3, learning), conf(3, 3, jointly), {Index: 4, Term: 3}, conf(5, 3, final)}
	for i, want := range []Config{three, learning, jointly, jointly, final} {
		r.Step(from(r, 2, AppendEntries{Entries: log[:i+1]}))
		inForce(t, r, want, "after entry %d", i+1)
		require.Zero(t, r.Status().Commit)
	}
	for at, want := range []Config{three, three, learning, jointly, jointly, final} {
		got := r.Config(Index(at))
		got.Index = 0
		require.Equal(t, want, got, "at %d", at)
	}
	require.Equal(t, Index(5), r.config().Index)
}

// A leader too goes by a configuration from the moment it has appended it: the new
// servers are sent the log at once (§6).
func TestTheLeaderGoesByWhatItAppends(t *testing.T) {
	r := leaderOf(t)
	has(r, 2)
	index, term, err := r.Change([]ID{1, 2, 4}, map[ID]string{4: "there"})
	require.NoError(t, err)
	require.Equal(t, Index(2), index)
	require.Equal(t, Term(3), term)
	inForce(t, r, learning)
	require.Equal(t, Config{Voters: []ID{1, 2, 3}, Next: []ID{1, 2, 4}, Addresses: map[ID]string{4: "there"}, Index: 2}, r.config())
	out := takeAll(r)
	require.Empty(t, out.Committed)
	require.Equal(t, []Config{learning}, out.appends())
	require.Empty(t, out.to(4), "it is probed with the next heartbeat")
	require.Len(t, beat(r).to(4), 1)
}

// "A server must be prepared to fall back to the previous configuration in its
// log" if the newest is removed from there (thesis §4.1).
func TestTheConfigurationIsRolledBack(t *testing.T) {
	log := []Entry{{Index: 1, Term: 1}, conf(2, 1, learning), conf(3, 1, jointly), {Index: 4, Term: 1}, conf(5, 1, final)}
	for prev, want := range []Config{three, three, learning, jointly, jointly, final} {
		r := bootOf(1, three, 3, log...)
		inForce(t, r, final)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: Index(prev), PrevLogTerm: min(1, Term(prev)), Entries: []Entry{{Index: Index(prev + 1), Term: 3}}}))
		inForce(t, r, want, "from entry %d on", prev+1)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: Index(prev + 1), PrevLogTerm: 3, Entries: []Entry{conf(Index(prev+2), 3, Config{Voters: []ID{7}})}}))
		inForce(t, r, Config{Voters: []ID{7}}, "and a newer one comes")
	}
}

// The configuration outlives the entry that holds it: in memory when a snapshot
// covers that, and on the disk over a restart (§7: "the snapshot also includes the
// latest configuration in the log as of last included index").
func TestTheConfigurationOutlivesItsEntry(t *testing.T) {
	log := []Entry{{Index: 1, Term: 1}, conf(2, 1, learning), conf(3, 1, jointly), {Index: 4, Term: 1}, conf(5, 1, final), {Index: 6, Term: 1}}
	for base, want := range []Config{three, three, learning, jointly, jointly, final, final} {
		r := bootOf(1, three, 1, log...)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 6, PrevLogTerm: 1, LeaderCommit: 6}))
		takeAll(r)
		r.Compact(6, Index(base))
		inForce(t, r, final)
		got := r.Config(Index(base))
		got.Index = 0
		require.Equal(t, want, got, "at %d", base)

		position, rest := r.Saved()
		o := startOptions(1, nil, State{}, rest)
		o.Base = position
		o.Config, o.Snapshot, o.SnapshotConfig = r.Config(Index(base)), Position{1, 6}, r.Config(6)
		again := New(o)
		inForce(t, again, final, "after a restart from %d", base)
		require.Equal(t, r.config().Index, again.config().Index)
		require.Equal(t, r.Config(Index(base)), again.Config(Index(base)))
	}
}

// A snapshot that is installed brings its configuration; but an entry that follows
// it in the log, and stays, is newer (§6, §7).
func TestAnInstalledSnapshotBringsItsConfiguration(t *testing.T) {
	for what, c := range map[string]struct {
		log  []Entry
		want Config
	}{
		"nothing was there":           {nil, jointly},
		"the log disagrees":           {[]Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1}, {Index: 3, Term: 1}, conf(4, 1, final)}, jointly},
		"the log is shorter":          {[]Entry{{Index: 1, Term: 1}, conf(2, 1, learning)}, jointly},
		"it agrees":                   {[]Entry{{Index: 1, Term: 1}, conf(2, 1, learning), conf(3, 2, jointly)}, jointly},
		"it agrees, and has a newer":  {[]Entry{{Index: 1, Term: 1}, conf(2, 1, learning), conf(3, 2, jointly), conf(4, 2, final)}, final},
		"it agrees, and has more":     {[]Entry{{Index: 1, Term: 1}, conf(2, 1, learning), conf(3, 2, jointly), {Index: 4, Term: 2}}, jointly},
		"a newer one that is no more": {[]Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1}, conf(3, 1, learning), conf(4, 2, final)}, jointly},
	} {
		r := bootOf(1, three, 5, c.log...)
		r.Step(from(r, 2, AppendEntries{}))
		takeAll(r)
		snapshot := jointly
		snapshot.Index = 3
		r.Restore(Position{2, 3}, snapshot)
		inForce(t, r, c.want, what)
		require.Equal(t, snapshot, r.Config(3), what)
	}
}

// A crash may leave a leader's snapshot and the log from before it. If that log
// goes, the configuration is the snapshot's; if it stays, those in it count, and
// the one at its beginning is older than the snapshot's.
func TestConfigurationsAfterARestart(t *testing.T) {
	first, second := learning, jointly
	first.Index, second.Index = 2, 4
	for what, c := range map[string]struct {
		log     []Entry
		want    Config
		rewrite bool
	}{
		"the log is shorter":   {[]Entry{{Index: 3, Term: 1}}, jointly, true},
		"the log disagrees":    {[]Entry{{Index: 3, Term: 1}, {Index: 4, Term: 1}, conf(5, 1, Config{Voters: []ID{9}})}, jointly, true},
		"the log agrees":       {[]Entry{{Index: 3, Term: 1}, conf(4, 2, jointly)}, jointly, false},
		"it agrees, and more":  {[]Entry{{Index: 3, Term: 1}, conf(4, 2, jointly), conf(5, 2, final)}, final, false},
		"no configuration yet": {[]Entry{{Index: 3, Term: 1}, {Index: 4, Term: 2}}, learning, false},
	} {
		o := startOptions(1, nil, State{}, c.log)
		o.Base = Position{1, 2}
		o.Config, o.Snapshot, o.SnapshotConfig = first, Position{2, 4}, second
		r := New(o)
		inForce(t, r, c.want, what)
		require.Equal(t, c.rewrite, r.Take().Rewrite, what)
	}
}

// decisions are what takes a majority. Each tells whether n3 reaches it with some
// other servers, in a configuration.
var decisions = map[string]func(t *testing.T, c Config, with []ID) bool{
	"an election": func(t *testing.T, c Config, with []ID) bool {
		r := bootOf(3, c, 2)
		forceElection(r)
		for _, id := range with {
			hears(r, id, RequestVoteReply{Granted: true})
		}
		return r.role == Leader
	},
	"a pre-vote": func(t *testing.T, c Config, with []ID) bool {
		r := bootOf(3, c, 2)
		for range 10 {
			r.Tick()
		}
		for _, id := range with {
			hears(r, id, RequestVoteReply{Granted: true, PreVote: true})
		}
		return r.currentTerm == 3
	},
	"a commit": func(t *testing.T, c Config, with []ID) bool {
		r := bootOf(3, c, 2)
		leadOf(t, r)
		for _, id := range with {
			hears(r, id, AppendEntriesReply{Success: true, MatchIndex: 1})
		}
		takeAll(r)
		return r.Status().Commit >= 1
	},
	"a read": func(t *testing.T, c Config, with []ID) bool {
		r := bootOf(3, Config{Voters: c.Voters}, 2)
		leadOf(t, r)
		for _, id := range c.Voters {
			hears(r, id, AppendEntriesReply{Success: true, MatchIndex: 1})
		}
		takeAll(r)
		_, _, err := r.addConfig(Jointly, c) // which nobody has yet
		require.NoError(t, err)
		takeAll(r)
		r.Read()
		takeAll(r)
		for _, id := range with {
			hears(r, id, AppendEntriesReply{Success: true, MatchIndex: 1, Round: 1})
		}
		answers, _ := drain(r)
		return len(answers) == 1
	},
	"to go on leading": func(t *testing.T, c Config, with []ID) bool {
		r := bootOf(3, c, 2)
		leadOf(t, r)
		for range 40 {
			for _, id := range with {
				hears(r, id, AppendEntriesReply{Success: true})
			}
			r.Tick()
		}
		return r.role == Leader
	},
}

// "Agreement (for elections and entry commitment) requires separate majorities
// from both the old and new configurations" (§6), and so do pre-votes, reads, and
// a leader's belief that it still leads (thesis §4.3, §6.2, §6.4, §9.6).
func TestJointDecisionsNeedBothMajorities(t *testing.T) {
	both := Config{Voters: []ID{1, 2, 3}, Next: []ID{3, 4, 5}, Joint: true}
	wide := Config{Voters: []ID{3}, Next: []ID{3, 4, 5, 6}, Joint: true}
	narrow := Config{Voters: []ID{1, 2, 3, 4}, Next: []ID{3}, Joint: true}
	for what, decide := range decisions {
		for _, c := range []struct {
			config Config
			with   []ID
			want   bool
		}{
			{both, nil, false}, {both, []ID{1}, false}, {both, []ID{4}, false}, {both, []ID{1, 2}, false}, {both, []ID{4, 5}, false},
			{both, []ID{1, 4}, true}, {both, []ID{2, 5}, true}, {both, []ID{1, 2, 5}, true}, {both, []ID{8, 9, 1}, false}, {both, []ID{1, 1, 1}, false},
			{wide, nil, false}, {wide, []ID{4}, false}, {wide, []ID{4, 5}, true}, {wide, []ID{4, 4}, false},
			{narrow, []ID{1}, false}, {narrow, []ID{1, 2}, true},
		} {
			require.Equal(t, c.want, decide(t, c.config, c.with), "%s in %s with %v", what, configWords(c.config), c.with)
		}
	}
}

// "The new servers join the cluster as non-voting members (the leader replicates log
// entries to them, but they are not considered for majorities)" (§6).
func TestLearnersCountNowhere(t *testing.T) {
	c := Config{Voters: []ID{1, 2, 3}, Next: []ID{3, 4, 5}}
	for what, decide := range decisions {
		require.False(t, decide(t, c, []ID{4, 5}), what)
		require.True(t, decide(t, c, []ID{1}), what)
	}
}

// A learner starts no election: neither when it hears of no leader, whatever
// the others would do, nor when it is told to (thesis §4.2.1). Nor does a server
// that knows of no members.
func TestLearnersDoNotStand(t *testing.T) {
	for what, r := range map[string]*Raft{
		"a learner":           bootOf(4, three, 3, conf(1, 2, learning)),
		"one that knows none": bootOf(4, Config{}, 3),
		"one that was removed, and knows it": func() *Raft {
			r := bootOf(3, three, 3, conf(1, 2, final))
			hears(r, 1, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 2, LeaderCommit: 1})
			return r
		}(),
	} {
		for range 40 {
			r.Tick()
			for id := range ID(4) {
				hears(r, id+1, RequestVoteReply{Granted: true, PreVote: true})
				hears(r, id+1, RequestVoteReply{Granted: true})
			}
		}
		hears(r, 1, TimeoutNow{})
		require.Equal(t, Follower, r.role, what)
		require.Equal(t, Term(3), r.currentTerm, what)
	}
}

// "A server accepts AppendEntries requests from a leader that is not part of the
// server's latest configuration", and "grants its vote to a candidate that is not"
// (thesis §4.1): the receiver of a request does not ask its own configuration. Or
// a new server could never be added, and a cluster could get stuck.
func TestReceiversDoNotAskTheirConfiguration(t *testing.T) {
	for what, r := range map[string]*Raft{
		"a member": bootOf(2, three, 3), "a learner": bootOf(4, three, 3, conf(1, 2, learning)),
		"one that was removed": bootOf(3, three, 3, conf(1, 2, final)),
	} {
		r.Step(Message{From: 9, To: r.options.ID, Term: 4, Body: RequestVote{LastLogIndex: 7, LastLogTerm: 3}})
		out := takeAll(r)
		require.True(t, out.granted(t), what)
		require.Equal(t, &State{CurrentTerm: 4, VotedFor: 9}, out.State, what)

		hears(r, 9, AppendEntries{Entries: []Entry{{Index: 1, Term: 3}}, LeaderCommit: 1})
		out = takeAll(r)
		require.True(t, out.reply(t).Success, what)
		require.Len(t, out.Committed, 1, what)
		require.Equal(t, ID(9), r.Status().Leader, what)
	}
}

// A server that knows no voters accepts entries, since that is how it learns of
// them, and gives no vote until then. Its vote counts in no configuration: a
// leader waits until a newcomer has the configuration entry. So a voter that knows
// no voters has lost its disk, and what it may have acknowledged.
func TestAServerThatKnowsNoVotersDoesNotVote(t *testing.T) {
	for _, vote := range []RequestVote{
		{LastLogIndex: 7, LastLogTerm: 3}, {LastLogIndex: 7, LastLogTerm: 3, PreVote: true}, {LastLogIndex: 7, LastLogTerm: 3, Transfer: true},
	} {
		r := bootOf(4, Config{}, 3)
		r.Step(Message{From: 9, To: 4, Term: 4, Body: vote})
		out := takeAll(r)
		require.False(t, out.granted(t))
		require.Equal(t, &State{CurrentTerm: 4}, out.State, "it knows the term")
		require.Contains(t, out.Reasons, Reason{Rule: KnowsNoVoters, Self: 4, Peer: 9, Term: 4})

		hears(r, 9, AppendEntries{Entries: []Entry{{Index: 1, Term: 3}, conf(2, 3, learning)}, LeaderCommit: 2})
		require.True(t, takeAll(r).reply(t).Success)
		r.elapsed = r.options.ElectionTicks[1]
		hears(r, 9, vote)
		require.True(t, takeAll(r).granted(t), "now it knows them")
	}
}

// "Once the new servers have caught up with the rest of the cluster, the
// reconfiguration can proceed" (§6): each has what was in the log when the change
// began, and is no further behind than others may be. Voters who are down are not
// waited for, as long as a majority of those to come is there: without it the change
// could not be ended.
func TestNewServersCatchUpFirst(t *testing.T) {
	five := Config{Voters: []ID{1, 2, 3, 4, 5}}
	for what, c := range map[string]struct {
		next  []ID
		match map[ID]Index
		want  bool
	}{
		"nobody new":                                {[]ID{1, 2, 3}, map[ID]Index{}, true},
		"one, which has nothing":                    {[]ID{1, 2, 3, 6}, nil, false},
		"one, which lacks the change":               {[]ID{1, 2, 3, 6}, map[ID]Index{6: 1}, false},
		"one, which has it":                         {[]ID{1, 2, 3, 6}, map[ID]Index{6: 2}, true},
		"two, of which one lacks it":                {[]ID{1, 2, 6, 7}, map[ID]Index{6: 2, 7: 1}, false},
		"two, which have it":                        {[]ID{1, 2, 6, 7}, map[ID]Index{6: 2, 7: 2}, true},
		"one, and voters who are down":              {[]ID{1, 2, 3, 4, 6}, map[ID]Index{6: 2}, true},
		"one, and more voters down than up":         {[]ID{1, 4, 5, 6}, map[ID]Index{6: 2}, false},
		"all, and nobody that was there":            {[]ID{6, 7}, map[ID]Index{6: 2, 7: 2}, true},
		"all, with one that is down and was before": {[]ID{1, 6, 4}, map[ID]Index{6: 2}, true},
	} {
		r := bootOf(1, five, 2)
		leadOf(t, r)
		has(r, 2, 3)
		_, _, err := r.Change(c.next, nil)
		require.NoError(t, err)
		takeAll(r)
		for id, match := range c.match {
			hears(r, id, AppendEntriesReply{Success: true, MatchIndex: match})
		}
		hears(r, 2, AppendEntriesReply{Success: true, MatchIndex: 2})
		hears(r, 3, AppendEntriesReply{Success: true, MatchIndex: 2})
		takeAll(r)
		require.Equal(t, c.want, r.config().Joint, what)
	}
}

// A new server that has the change, but is far behind what came since, does not
// count yet (thesis §4.2.1).
func TestNewServersKeepUp(t *testing.T) {
	for _, c := range []struct {
		more int
		want bool
	}{{1, true}, {maxInFlight, true}, {maxInFlight + 1, false}} {
		r := leaderOf(t)
		has(r, 2)
		_, _, err := r.Change([]ID{1, 2, 4}, nil)
		require.NoError(t, err)
		for range c.more {
			propose(t, r, "x")
		}
		has(r, 2)
		hears(r, 4, AppendEntriesReply{Success: true, MatchIndex: 2})
		require.Equal(t, c.want, len(takeAll(r).appends()) == 1, "%d entries later", c.more)
	}
}

// A change is three entries, and each stands in the log only when the one before it
// is committed (§6: "once C_old,new has been committed … it is now safe for the
// leader to create a log entry describing C_new").
func TestEachStepWaitsForTheOneBefore(t *testing.T) {
	r := leaderOf(t)
	has(r, 2)
	_, _, err := r.Change([]ID{1, 2, 4}, nil)
	require.NoError(t, err)
	require.Equal(t, []Config{learning}, takeAll(r).appends())

	require.Empty(t, has(r, 4).appends(), "the new one has it, but it is not committed")
	out := has(r, 3)
	require.Equal(t, []Config{jointly}, out.appends())
	require.Equal(t, Index(2), r.Status().Commit)
	require.True(t, out.tells(Jointly))

	require.Empty(t, has(r, 3).appends(), "a majority of the old ones has it, and none of the new")
	require.Equal(t, Index(2), r.Status().Commit)
	out = has(r, 4)
	require.Equal(t, []Config{final}, out.appends())
	require.True(t, out.tells(Final))
	require.Equal(t, Index(3), r.Status().Commit)
	inForce(t, r, final)

	require.Empty(t, has(r, 3).Committed, "it is no longer a member")
	require.Len(t, has(r, 4).Committed, 1)
	require.Empty(t, beat(r).to(3))
	require.Equal(t, Leader, r.role)
}

// What the old ones and what the new ones alone have is not committed while the
// change is joint, in whatever order it comes.
func TestJointStepsNeedBothMajorities(t *testing.T) {
	r := leaderOf(t, conf(1, 1, Config{Voters: []ID{1, 2, 3}, Next: []ID{4, 5, 6}, Joint: true}))
	require.Empty(t, has(r, 4, 5, 6).appends())
	require.Zero(t, r.Status().Commit)
	require.Len(t, has(r, 2).appends(), 1)
}

// A change is begun by a leader that knows what is committed: it has committed an
// entry of its term, and the configuration that is in force (raft-dev, 2015: the
// configurations of two leaders might not overlap). There is one at a time.
func TestWhenAChangeIsRefused(t *testing.T) {
	next := []ID{1, 2, 4}
	for what, c := range map[string]struct {
		r    func(t *testing.T) *Raft
		want error
	}{
		"a follower":           {func(t *testing.T) *Raft { return boot(3) }, ErrNotLeader},
		"a candidate":          {func(t *testing.T) *Raft { return candidate(t, 3) }, ErrNotLeader},
		"nothing is committed": {func(t *testing.T) *Raft { return leaderOf(t) }, ErrTooEarly},
		"only what is older is committed": {func(t *testing.T) *Raft {
			r := bootOf(1, three, 2, entries(1, 2)...)
			hears(r, 2, AppendEntries{PrevLogIndex: 2, PrevLogTerm: 2, LeaderCommit: 2})
			leadOf(t, r)
			return r
		}, ErrTooEarly},
		"all is committed": {func(t *testing.T) *Raft { r := leaderOf(t); has(r, 2); return r }, nil},
		"a change has begun": {func(t *testing.T) *Raft {
			r := leaderOf(t)
			has(r, 2)
			_, _, _ = r.Change([]ID{1, 2, 3, 4, 5}, nil)
			return r
		}, ErrChanging},
		"a change has begun, and that is committed": {func(t *testing.T) *Raft {
			r := leaderOf(t)
			has(r, 2)
			_, _, _ = r.Change([]ID{1, 2, 3, 4, 5}, nil)
			has(r, 2)
			return r
		}, ErrChanging},
		"a change is joint":  {func(t *testing.T) *Raft { return leaderOf(t, conf(1, 1, jointly)) }, ErrTooEarly},
		"C_new is not known": {func(t *testing.T) *Raft { r := leaderOf(t, conf(1, 1, jointly)); has(r, 2); return r }, ErrChanging},
		"a transfer of leadership is under way": {func(t *testing.T) *Raft {
			r := leaderOf(t)
			has(r, 2)
			propose(t, r, "x")
			_ = r.Transfer(3)
			return r
		}, ErrNotLeader},
	} {
		r := c.r(t)
		takeAll(r)
		before := r.log.lastIndex()
		_, _, err := r.Change(next, nil)
		require.Equal(t, c.want, err, what)
		require.Equal(t, c.want == nil, r.log.lastIndex() > before, what)
	}
}

// A leader that is new goes on with a change that another began, in each phase, once
// it has committed an entry of its own term: for that commits what came before
// (§6, §5.4.2).
func TestANewLeaderGoesOnWithTheChange(t *testing.T) {
	for what, c := range map[string]struct {
		under Config
		want  []Config
	}{
		"it had begun": {learning, []Config{jointly}},
		"it was joint": {jointly, []Config{final}},
		"it was over":  {final, nil},
	} {
		r := leaderOf(t, conf(1, 2, c.under))
		hears(r, 2, AppendEntriesReply{Success: true, MatchIndex: 1})
		hears(r, 4, AppendEntriesReply{Success: true, MatchIndex: 1})
		require.Empty(t, takeAll(r).appends(), "%s: a majority has it, but nothing of the new term", what)
		require.Equal(t, c.want, has(r, 2, 4).appends(), what)
	}
}

// A change can be called off until it is joint: the voters stay, and the others are
// no longer sent anything.
func TestAChangeIsCalledOff(t *testing.T) {
	r := leaderOf(t)
	has(r, 2)
	_, _, err := r.Change([]ID{1, 2, 4}, nil)
	require.NoError(t, err)
	_, _, err = r.Change([]ID{1, 2, 3}, nil)
	require.ErrorIs(t, err, ErrChanging, "the entry that begins it is not committed")
	has(r, 2)
	require.NotEmpty(t, beat(r).to(4))

	index, _, err := r.Change([]ID{1, 2, 3}, map[ID]string{1: "here"})
	require.NoError(t, err)
	require.Equal(t, Index(3), index)
	inForce(t, r, three)
	require.Equal(t, map[ID]string{1: "here"}, r.config().Addresses)
	require.True(t, takeAll(r).tells(CalledOff))
	hears(r, 4, AppendEntriesReply{Success: true, MatchIndex: 3})
	require.Empty(t, has(r, 2).appends())
	require.Empty(t, beat(r).to(4))
	_, _, err = r.Change([]ID{1, 2, 5}, nil)
	require.NoError(t, err, "now there may be another")
}

// Once it is joint, nobody can take a change back (§6): a majority of the new ones may
// have gone over to C_new.
func TestAJointChangeIsNotCalledOff(t *testing.T) {
	r := leaderOf(t, conf(1, 2, jointly))
	_, _, err := r.Change([]ID{1, 2, 3}, nil)
	require.ErrorIs(t, err, ErrTooEarly)
	r.commitIndex = 2 // it is about to append C_new
	_, _, err = r.Change([]ID{1, 2, 3}, nil)
	require.ErrorIs(t, err, ErrChanging)
}

// "The cluster leader may not be part of the new configuration. … There will be a
// period of time (while it is committing C_new) when the leader is managing a
// cluster that does not include itself; it replicates log entries but does not
// count itself in majorities" (§6).
func TestALeaderOutsideCountsItselfNowhere(t *testing.T) {
	r := bootOf(3, three, 2, conf(1, 2, jointly))
	leadOf(t, r)
	require.Equal(t, []Config{final}, has(r, 1, 4).appends())
	inForce(t, r, final)
	propose(t, r, "x")
	require.Empty(t, has(r, 4).Committed, "n4 and itself are no majority of n1, n2 and n4")
	require.Equal(t, Leader, r.role)

	id := r.Read()
	takeAll(r)
	hears(r, 1, AppendEntriesReply{Success: true, Round: 1})
	answers, _ := drain(r)
	require.Empty(t, answers, "nor does it confirm its own reads")
	hears(r, 4, AppendEntriesReply{Success: true, Round: 1})
	answers, _ = drain(r)
	require.Equal(t, []ReadIndexReply{{ID: id, Index: 2}}, answers)

	for range 40 {
		r.Tick()
		hears(r, 4, AppendEntriesReply{Success: true})
	}
	require.Equal(t, Follower, r.role, "with one of three it has no majority")

	even := bootOf(3, three, 2, conf(1, 2, Config{Voters: []ID{1, 2, 3}, Next: []ID{1, 4}, Joint: true}))
	leadOf(t, even)
	has(even, 1, 4)
	inForce(t, even, Config{Voters: []ID{1, 4}})
	require.Empty(t, has(even, 1).Committed, "n1 and itself are no majority of n1 and n4")
	require.NotEmpty(t, has(even, 4).Committed)
}

// "In this case, the leader steps down (returns to follower state) once it has
// committed the C_new log entry" (§6), and not before. It tells the best of the
// others to take over, so that there is no time without a leader (thesis §4.2.2,
// §3.10).
func TestALeaderOutsideLeavesWhenAllIsDone(t *testing.T) {
	r := bootOf(3, three, 2, conf(1, 2, jointly))
	leadOf(t, r)
	has(r, 1, 4)
	for range 3 {
		beat(r)
		hears(r, 1, AppendEntriesReply{Success: true, MatchIndex: 2})
		require.Equal(t, Leader, r.role)
		require.False(t, takeAll(r).tells(HandsOver))
		hears(r, 4, AppendEntriesReply{Success: true, MatchIndex: 2})
	}
	out := has(r, 1, 4)
	require.Equal(t, Follower, r.role)
	require.Equal(t, Index(3), r.Status().Commit, "C_new is committed")
	require.Equal(t, []Message{{From: 3, To: 1, Term: 3, Body: TimeoutNow{}}}, out.Messages)
	for range 50 {
		r.Tick()
	}
	hears(r, 1, TimeoutNow{})
	require.Equal(t, Follower, r.role, "it stands no more")
}

// Whom a leader that leaves chooses: who was heard from last, and of those who has
// most of its log.
func TestWhoTakesOverFromALeaderThatLeaves(t *testing.T) {
	for what, c := range map[string]struct {
		silent map[ID]int
		match  map[ID]Index
		want   ID
	}{
		"they are alike":               {nil, map[ID]Index{1: 3, 2: 3, 4: 3}, 1},
		"one has more":                 {nil, map[ID]Index{1: 3, 2: 3, 4: 4}, 4},
		"one has more, and is gone":    {map[ID]int{4: 3}, map[ID]Index{1: 3, 2: 3, 4: 4}, 1},
		"two are gone":                 {map[ID]int{1: 3, 4: 3}, map[ID]Index{1: 3, 2: 3, 4: 4}, 2},
		"one lags, and was heard last": {map[ID]int{1: 1, 4: 1}, map[ID]Index{1: 3, 2: 1, 4: 3}, 1},
	} {
		r := bootOf(3, three, 2, conf(1, 2, jointly))
		leadOf(t, r)
		has(r, 1, 4)
		propose(t, r, "x")
		for id, match := range c.match {
			hears(r, id, AppendEntriesReply{Success: true, MatchIndex: match})
		}
		for id, p := range r.progress {
			p.silent = c.silent[id]
		}
		got := r.successor
		for _, m := range takeAll(r).Messages {
			got = m.To
		}
		require.Equal(t, c.want, max(got, r.successor), what)
	}
}

// "A server that is not part of its own latest configuration should still start new
// elections, as it might still be needed until the C_new entry is committed"
// (thesis §4.2.2). It counts those who vote for it, but not itself.
func TestAServerThatIsToGoMayBeNeeded(t *testing.T) {
	r := bootOf(3, three, 2, conf(1, 2, final))
	for range 10 {
		r.Tick()
	}
	hears(r, 1, RequestVoteReply{Granted: true, PreVote: true})
	require.Equal(t, Term(2), r.currentTerm, "it and n1 are no majority of n1, n2 and n4")
	hears(r, 4, RequestVoteReply{Granted: true, PreVote: true})
	require.Equal(t, Candidate, r.role)
	takeAll(r)
	hears(r, 1, RequestVoteReply{Granted: true})
	require.Equal(t, Candidate, r.role)
	hears(r, 2, RequestVoteReply{Granted: true})
	require.Equal(t, Leader, r.role)
	takeAll(r)
	require.Equal(t, Index(2), r.progress[3].matchIndex, "it tracks its own disk")

	has(r, 1)
	require.Equal(t, Leader, r.role)
	require.Zero(t, r.Status().Commit)
	has(r, 4)
	require.Equal(t, Index(2), r.Status().Commit)
	require.Equal(t, Follower, r.role, "C_new is committed, so it leaves at once")

	known := bootOf(3, three, 2, conf(1, 2, final))
	hears(known, 1, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 2, LeaderCommit: 1})
	require.False(t, known.mayCampaign())
	going := bootOf(3, three, 2, conf(1, 2, jointly))
	require.True(t, going.mayCampaign(), "a joint configuration has it still")
}

// Servers that were removed "will not receive heartbeats, so they will time out"
// (§6), and may not have heard of it. They ask, and the leader says so, if that is
// certain. They continue to ask, but start no election, until a leader sends them
// its log again.
func TestARemovedServerIsTold(t *testing.T) {
	l := leaderOf(t, conf(1, 2, jointly))
	ask := Message{From: 3, To: 1, Term: 2, Body: RequestVote{PreVote: true, LastLogIndex: 1, LastLogTerm: 2}}
	for _, said := range []func(){func() {}, func() { has(l, 2, 4) }} {
		said()
		l.Step(ask)
		require.Empty(t, takeAll(l).Messages, "C_new is not committed")
	}
	has(l, 2, 4)
	l.Step(ask)
	out := takeAll(l)
	require.Equal(t, []Message{{From: 1, To: 3, Term: 3, Body: RequestVoteReply{Removed: true, Committed: Position{3, 3}}}}, out.Messages)
	require.True(t, out.tells(LeaderLives))
	l.Step(Message{From: 2, To: 1, Term: 9, Body: RequestVote{LastLogIndex: 9, LastLogTerm: 8}})
	require.Empty(t, takeAll(l).Messages, "a member is told nothing")

	r := bootOf(3, three, 2, conf(1, 2, jointly))
	require.False(t, r.Status().Removed)
	r.Step(out.Messages[0])
	require.True(t, r.Status().Removed)
	require.Equal(t, Term(3), r.currentTerm)
	hears(r, 2, RequestVoteReply{})
	require.True(t, r.Status().Removed, "no refusal takes that back")

	newer := bootOf(3, three, 8, conf(1, 2, jointly))
	newer.Step(Message{From: 2, To: 3, Term: 7, Body: RequestVoteReply{}})
	require.False(t, newer.Status().Removed)
	newer.Step(out.Messages[0])
	require.True(t, newer.Status().Removed, "though it is in a newer term than the leader, which does not follow it there")
	joined := bootOf(3, three, 8, append(entries(2, 3, 3, 8), conf(5, 8, three))...)
	joined.Step(out.Messages[0])
	require.False(t, joined.Status().Removed, "it joined after that, and the leader has stood still")
	stale := bootOf(3, three, 8, append(entries(1, 2, 2, 2), conf(5, 2, learning))...)
	stale.Step(out.Messages[0])
	require.True(t, stale.Status().Removed, "its log is longer, but what it has there was never committed")
	o := startOptions(3, nil, State{}, nil)
	o.Base = Position{3, 7}
	o.Config, o.Snapshot, o.SnapshotConfig = three, Position{3, 7}, three
	later := New(o)
	later.Step(out.Messages[0])
	require.False(t, later.Status().Removed, "its snapshot is newer than that")
	for range 100 {
		r.Tick()
		for _, id := range []ID{1, 2, 4} {
			hears(r, id, RequestVoteReply{Granted: true, PreVote: true})
		}
	}
	hears(r, 1, TimeoutNow{})
	require.Equal(t, Term(3), r.currentTerm)
	hears(r, 1, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 2})
	require.False(t, r.Status().Removed, "it is a member again")
	hears(r, 1, TimeoutNow{})
	require.Equal(t, Candidate, r.role)
}

// "A candidate only increments its term if it first learns from a majority of the
// cluster that they would be willing to grant the candidate their votes" (thesis
// §9.6). To ask changes nothing, on neither side, whatever the answer.
func TestPreVoteChangesNeitherTermNorVote(t *testing.T) {
	for _, c := range []struct {
		votedFor ID
		last     Position
		want     bool
	}{{0, Position{2, 2}, true}, {2, Position{2, 2}, true}, {3, Position{2, 2}, true}, {0, Position{2, 1}, false}, {3, Position{1, 9}, false}} {
		r := New(startOptions(1, []ID{1, 2, 3}, State{CurrentTerm: 4, VotedFor: c.votedFor}, entries(1, 2)))
		r.Tick()
		before, elapsed := r.Status(), r.elapsed
		r.Step(from(r, 2, RequestVote{PreVote: true, LastLogIndex: c.last.Index, LastLogTerm: c.last.Term}))
		out := takeAll(r)
		require.Nil(t, out.State)
		require.Equal(t, before, r.Status())
		require.Equal(t, elapsed, r.elapsed, "it does not wait longer for that")
		require.Equal(t, c.want, out.granted(t), "%+v", c)
		require.Equal(t, c.want, out.Messages[0].Body.(RequestVoteReply).PreVote)
	}
	r := boot(4, 1, 2)
	for range 10 {
		r.Tick()
	}
	out := takeAll(r)
	require.Nil(t, out.State)
	require.Equal(t, []ID{2, 3}, out.requests())
	require.Equal(t, Message{From: 1, To: 2, Term: 4, Body: RequestVote{LastLogIndex: 2, LastLogTerm: 2, PreVote: true}}, out.Messages[0])
	require.Zero(t, r.elapsed)
	hears(r, 2, RequestVoteReply{})
	require.Nil(t, takeAll(r).State)
	require.Equal(t, Term(4), r.currentTerm)
}

// Answers to the question are no votes, and votes no answers; an answer that comes
// when the server hears from a leader is too late.
func TestPreVotesAndVotesAreNotMixed(t *testing.T) {
	r := candidate(t, 4)
	hears(r, 2, RequestVoteReply{Granted: true, PreVote: true})
	require.Equal(t, Candidate, r.role)
	hears(r, 2, RequestVoteReply{Granted: true})
	require.Equal(t, Leader, r.role)

	r = boot(4)
	for range 10 {
		r.Tick()
	}
	hears(r, 2, AppendEntries{})
	hears(r, 3, RequestVoteReply{Granted: true, PreVote: true})
	require.Equal(t, Term(4), r.currentTerm)
	require.Equal(t, ID(2), r.leader)
}

// A server whose term is older than those of the others learns that from their
// answers, and asks again (etcd#8243).
func TestAPreVoteOfAnOlderTermIsAnswered(t *testing.T) {
	v := boot(7, 1)
	v.Step(Message{From: 2, To: 1, Term: 4, Body: RequestVote{PreVote: true, LastLogIndex: 3, LastLogTerm: 3}})
	require.Equal(t, []Message{{From: 1, To: 2, Term: 7, Body: RequestVoteReply{}}}, takeAll(v).Messages)
	v.Step(Message{From: 2, To: 1, Term: 7, Body: RequestVote{PreVote: true, LastLogIndex: 3, LastLogTerm: 3}})
	require.True(t, takeAll(v).granted(t))

	// A candidate answers like anyone else (rabbitmq/ra#439).
	c := candidate(t, 4, 1)
	c.Step(from(c, 2, RequestVote{PreVote: true, LastLogIndex: 1, LastLogTerm: 1}))
	require.True(t, takeAll(c).granted(t))
	require.Equal(t, Candidate, c.role)
}

// "If a server receives a RequestVote RPC within the minimum election timeout of
// hearing from a current leader, it does not update its term or grant its vote"
// (§6). A leader has always just heard from itself.
func TestWhoHearsFromALeaderDoesNotVote(t *testing.T) {
	for _, pre := range []bool{false, true} {
		ask := Message{From: 3, To: 1, Term: 9, Body: RequestVote{LastLogIndex: 9, LastLogTerm: 8, PreVote: pre}}
		r := boot(4, 1)
		hears(r, 2, AppendEntries{})
		for range r.options.ElectionTicks[0] - 1 {
			takeAll(r)
			before := r.Status()
			r.Step(ask)
			out := takeAll(r)
			require.Empty(t, out.Messages)
			require.True(t, out.tells(LeaderLives))
			require.Equal(t, before, r.Status())
			r.Tick()
		}
		r.timeout = 19
		r.Tick()
		r.Step(ask)
		require.True(t, takeAll(r).granted(t), "long ago")
		require.Equal(t, Term(9), r.currentTerm)

		fresh := boot(4, 1)
		fresh.Step(ask)
		require.True(t, takeAll(fresh).granted(t), "never")

		l := leader(t, 4, 1)
		for range 20 {
			accept(l, 2, 1)
			l.Tick()
			takeAll(l)
			l.Step(ask)
			require.Equal(t, Term(4), l.currentTerm)
			require.Empty(t, takeAll(l).Messages)
		}
	}
}

// But an election that the leader wants takes place at once: its requests say so
// (thesis §4.2.3).
func TestATransferIsNoDisturbance(t *testing.T) {
	for _, r := range []*Raft{leader(t, 4, 1), func() *Raft { r := boot(4, 1); hears(r, 2, AppendEntries{}); takeAll(r); return r }()} {
		r.Step(Message{From: 3, To: 1, Term: 5, Body: RequestVote{LastLogIndex: 9, LastLogTerm: 4, Transfer: true}})
		require.True(t, takeAll(r).granted(t))
		require.Equal(t, Follower, r.role)
	}
}

// "A leader steps down if an election timeout elapses without a successful round of
// heartbeats to a majority of its cluster" (thesis §6.2).
func TestALeaderWithoutAMajorityStepsDown(t *testing.T) {
	r := leader(t, 4, 1)
	ticks := 0
	for r.role == Leader && ticks < 100 {
		r.Tick()
		ticks++
	}
	require.GreaterOrEqual(t, ticks, r.options.ElectionTicks[0])
	require.LessOrEqual(t, ticks, r.options.ElectionTicks[1])
	out := takeAll(r)
	require.True(t, out.tells(LostMajority))
	require.Nil(t, out.State, "its term and its vote stay")
	require.Equal(t, Term(4), r.currentTerm)
	require.Zero(t, r.leader)

	// What it hears may be old, refused, or a piece of a snapshot that arrived.
	for what, body := range map[string]Body{
		"a refusal": AppendEntriesReply{Refused: 1, ConflictIndex: 1}, "a success": AppendEntriesReply{Success: true},
	} {
		r := leader(t, 4, 1)
		for range 100 {
			r.Tick()
			hears(r, 3, body)
		}
		require.Equal(t, Leader, r.role, what)
	}
	s := leaderAt(t)
	refuse(s, 2)
	for range 100 {
		s.Tick()
		takeAll(s)
		hears(s, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}})
	}
	require.Equal(t, Leader, s.role, "a piece of a snapshot")

	alone := bootOf(1, Config{Voters: []ID{1}}, 2)
	forceElection(alone)
	for range 100 {
		alone.Tick()
	}
	require.Equal(t, Leader, alone.role, "it is its own majority")
}

// "The prior leader stops accepting new client requests. [It] fully updates the
// target server's log to match its own …, then sends a TimeoutNow request to the
// target server" (thesis §3.10).
func TestTransfer(t *testing.T) {
	r := leader(t, 4, 1)
	has(r, 2, 3)
	last := propose(t, r, "x")
	require.NoError(t, r.Transfer(3))
	_, _, err := r.Propose([]byte("y"))
	require.ErrorIs(t, err, ErrNotLeader)
	require.Equal(t, last, r.Status().Last)
	require.False(t, takeAll(r).tells(HandsOver), "n3 lacks the last entry")
	require.False(t, has(r, 2).tells(HandsOver), "others do not count")
	require.Equal(t, last, r.Status().Commit, "what was proposed is committed meanwhile")
	require.Equal(t, Leader, r.role)

	out := has(r, 3)
	require.True(t, out.tells(HandsOver))
	require.Equal(t, []Message{{From: 1, To: 3, Term: 4, Body: TimeoutNow{}}}, out.Messages)
	require.Equal(t, Follower, r.role)
	require.Equal(t, Term(4), r.currentTerm)
	require.Zero(t, r.leader)
	require.False(t, takeAll(r).tells(HandsOver))
}

// Only a leader hands over, and only to a voter; to itself that is nothing.
func TestWhoTakesOver(t *testing.T) {
	require.ErrorIs(t, boot(3).Transfer(2), ErrNotLeader)
	r := leaderOf(t, conf(1, 1, learning))
	require.ErrorIs(t, r.Transfer(4), ErrNotVoter, "a learner")
	require.ErrorIs(t, r.Transfer(9), ErrNotVoter)
	require.NoError(t, r.Transfer(1))
	require.Zero(t, r.successor)
	require.NoError(t, r.Transfer(3))
	require.NoError(t, r.Transfer(2), "it has changed its mind")
	require.Equal(t, ID(2), r.successor)
	require.NoError(t, leaderOf(t, conf(1, 1, jointly)).Transfer(4))
}

// "If leadership transfer does not complete after about an election timeout, the
// prior leader aborts the transfer and resumes accepting client requests" (thesis
// §3.10), be it that the other does not answer, or that it has much to catch up
// with.
func TestATransferIsGivenUp(t *testing.T) {
	for _, answers := range []bool{false, true} {
		r := leader(t, 4, 1)
		has(r, 2, 3)
		propose(t, r, "x")
		require.NoError(t, r.Transfer(3))
		ticks := 0
		for r.successor != 0 {
			r.Tick()
			has(r, 2)
			if answers {
				hears(r, 3, AppendEntriesReply{Success: true, MatchIndex: 1})
			}
			takeAll(r)
			ticks++
			require.LessOrEqual(t, ticks, r.options.ElectionTicks[1]+r.options.HeartbeatTicks)
		}
		require.GreaterOrEqual(t, ticks, r.options.ElectionTicks[1], "it has time to catch up")
		propose(t, r, "y")
		require.False(t, has(r, 3).tells(HandsOver), "now it is too late")
		require.Equal(t, Leader, r.role)

		// The next one has as much time.
		require.NoError(t, r.Transfer(3))
		for range r.options.ElectionTicks[1] - r.options.HeartbeatTicks {
			r.Tick()
		}
		require.Equal(t, ID(3), r.successor)
		require.True(t, has(r, 3).tells(HandsOver))
	}
}

// A leader that hands over takes no further step of a change; its successor does.
func TestNoStepOfAChangeWhileHandingOver(t *testing.T) {
	r := leaderOf(t, conf(1, 1, jointly))
	propose(t, r, "x")
	require.NoError(t, r.Transfer(2))
	require.Empty(t, has(r, 3, 4).appends())
	require.Equal(t, Index(3), r.Status().Commit)
	require.Equal(t, Leader, r.role)
	require.True(t, has(r, 2).tells(HandsOver))
}

// "This TimeoutNow request has the same effect as the target server's election
// timer firing: the target server starts a new election" (thesis §3.10), without
// asking first.
func TestTimeoutNow(t *testing.T) {
	r := boot(4, 1)
	hears(r, 2, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1})
	takeAll(r)
	hears(r, 2, TimeoutNow{})
	out := takeAll(r)
	require.Equal(t, &State{CurrentTerm: 5, VotedFor: 1}, out.State)
	require.Equal(t, []ID{2, 3}, out.requests())
	require.Equal(t, RequestVote{LastLogIndex: 1, LastLogTerm: 1, Transfer: true}, out.Messages[0].Body)

	// A candidate or a leader does not begin again.
	hears(r, 2, TimeoutNow{})
	require.Equal(t, Term(5), r.currentTerm)
	hears(r, 2, RequestVoteReply{Granted: true})
	hears(r, 2, TimeoutNow{})
	require.Equal(t, Leader, r.role)

	// One of an older term is over.
	old := boot(4, 1)
	old.Step(Message{From: 2, To: 1, Term: 3, Body: TimeoutNow{}})
	require.Equal(t, Follower, old.role)
	require.Empty(t, takeAll(old).Messages)
}

// A change may bring all servers new, and a single one another: the old ones hand
// over to the new ones when C_new is committed.
func TestAllServersNew(t *testing.T) {
	r := bootOf(1, Config{Voters: []ID{1}}, 2)
	forceElection(r)
	takeAll(r)
	_, _, err := r.Change([]ID{2}, nil)
	require.NoError(t, err)
	takeAll(r)
	require.Equal(t, Index(2), r.Status().Commit)
	require.False(t, r.config().Joint)
	has(r, 2)
	require.True(t, r.config().Joint)
	has(r, 2)
	inForce(t, r, Config{Voters: []ID{2}})
	require.Equal(t, Leader, r.role)
	out := has(r, 2)
	require.True(t, out.tells(HandsOver))
	require.Equal(t, Follower, r.role)
}

// Members are all that are sent the log, each once, in order.
func TestMembers(t *testing.T) {
	require.Equal(t, []ID{1, 2, 3, 4}, learning.Members())
	require.Equal(t, []ID{1, 2, 3, 4}, jointly.Members())
	require.Equal(t, []ID{1, 2, 4}, final.Members())
	require.Empty(t, Config{}.Members())
	require.False(t, Config{}.Majority(func(ID) bool { return true }), "nobody decides for all")
	require.False(t, learning.IsVoter(4))
	require.True(t, jointly.IsVoter(4))
	require.True(t, jointly.IsVoter(3))
	require.False(t, final.IsVoter(3))
}

// A leader answers no reads of a server that was removed, or that it never knew. A
// server whose reads it answered would hear from it again and again, and never ask for
// the votes whose refusal tells it that it was removed.
func TestAServerThatWasRemovedGetsNoReads(t *testing.T) {
	r := leaderOf(t, conf(1, 1, jointly))
	r.Step(from(r, 3, ReadIndex{ID: 6}))
	has(r, 2, 4)
	inForce(t, r, final)
	r.Step(from(r, 3, ReadIndex{ID: 7}))
	r.Step(from(r, 9, ReadIndex{ID: 8}))
	require.Len(t, r.reads.pending, 1, "only the one that was asked by a member")
	takeAll(r)
	hears(r, 2, AppendEntriesReply{Success: true, Round: r.reads.round})
	hears(r, 4, AppendEntriesReply{Success: true, Round: r.reads.round})
	require.Empty(t, r.reads.pending, "it is confirmed")
	_, sent := drain(r)
	for _, m := range sent {
		require.Equal(t, ID(2), m.To, "%+v", m)
	}
}

// A server that was a member before, and comes back, is met again: it may have
// another disk, with nothing on it. What the leader believed of it is forgotten, so
// it has to catch up like any other (§6).
func TestAServerThatComesBackIsMetAnew(t *testing.T) {
	r := leaderOf(t)
	has(r, 2, 3)
	_, _, err := r.Change([]ID{1, 2}, nil)
	require.NoError(t, err)
	for range 4 {
		has(r, 2, 3)
	}
	inForce(t, r, Config{Voters: []ID{1, 2}})
	require.Equal(t, r.log.lastIndex(), r.Status().Commit)

	_, _, err = r.Change([]ID{1, 2, 3}, nil)
	require.NoError(t, err)
	match, next := r.Progress(3)
	require.Zero(t, match)
	require.Equal(t, r.log.lastIndex(), next)
	match, _ = r.Progress(2)
	require.NotZero(t, match, "who stays is known")
	takeAll(r)
	require.Empty(t, has(r, 2).appends(), "n3 has said nothing")
	hears(r, 3, AppendEntriesReply{Refused: 4, ConflictIndex: 1})
	require.Empty(t, has(r, 2).appends(), "n3 has nothing")
	require.Len(t, has(r, 3).appends(), 1)
	for range 10 {
		r.Read()
		beat(r)
		has(r, 2, 3)
	}
	require.Equal(t, Leader, r.role)
}

// A server that has the whole log and is not heard of any longer is told nothing:
// nobody would lead.
func TestASilentServerIsHandedNothing(t *testing.T) {
	r := leader(t, 3, 1)
	has(r, 2, 3)
	for range 4 * r.options.HeartbeatTicks {
		r.Tick()
		has(r, 2)
	}
	require.NoError(t, r.Transfer(3))
	for range 2 * r.options.HeartbeatTicks {
		r.Tick()
		require.False(t, has(r, 2).tells(HandsOver))
	}
	require.Equal(t, Leader, r.role)
	require.True(t, has(r, 3).tells(HandsOver))
}

// A server that joins is no voter yet, and was not removed.
func TestALearnerIsNotToldThatItWasRemoved(t *testing.T) {
	r := leaderOf(t, conf(1, 1, learning))
	has(r, 2, 3)
	require.NoError(t, r.mayChange())
	takeAll(r)
	r.Step(Message{From: 4, To: 1, Term: r.currentTerm, Body: RequestVote{PreVote: true, LastLogIndex: 1, LastLogTerm: 1}})
	require.Empty(t, takeAll(r).Messages)
	r.Step(Message{From: 9, To: 1, Term: r.currentTerm, Body: RequestVote{PreVote: true, LastLogIndex: 1, LastLogTerm: 1}})
	require.Len(t, takeAll(r).Messages, 1)
}
