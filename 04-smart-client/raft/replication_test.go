package raft

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// accept lets a follower say that it has the leader's entries up to an index.
func accept(r *Raft, id ID, match Index) {
	r.Step(from(r, id, AppendEntriesReply{Success: true, MatchIndex: match}))
}

// propose proposes a command and returns its index.
func propose(t *testing.T, r *Raft, command string) Index {
	index, term, err := r.Propose([]byte(command))
	require.NoError(t, err)
	require.Equal(t, r.currentTerm, term)
	return index
}

// to returns the AppendEntries of an output that go to a server.
func (o Output) to(id ID) (all []AppendEntries) {
	for _, m := range o.sent() {
		if body, is := m.Body.(AppendEntries); is && m.To == id {
			all = append(all, body)
		}
	}
	return all
}

// reply returns the one AppendEntriesReply of an output.
func (o Output) reply(t *testing.T) AppendEntriesReply {
	require.Len(t, o.Messages, 1)
	require.IsType(t, AppendEntriesReply{}, o.Messages[0].Body)
	return o.Messages[0].Body.(AppendEntriesReply)
}

// "Reply false if log doesn't contain an entry at prevLogIndex whose term matches
// prevLogTerm" (Figure 2, AppendEntries, 2; §5.3). The log stays as it is. The
// reply names the conflicting term and the first index of it, or the end of the
// log (§5.3, end).
func TestReplyFalseIfPrevLogEntryIsMissing(t *testing.T) {
	for _, c := range []struct {
		log          []Term
		prev         Position
		conflict     Position
		conflictWhat string
	}{
		{nil, Position{1, 1}, Position{0, 1}, "an empty log ends before 1"},
		{[]Term{1, 1}, Position{1, 3}, Position{0, 3}, "the log is too short"},
		{[]Term{1, 1}, Position{4, 9}, Position{0, 3}, "the log is far too short"},
		{[]Term{1, 1}, Position{2, 2}, Position{1, 1}, "the term is another, from the first entry on"},
		{[]Term{1, 2, 2, 2, 3}, Position{3, 4}, Position{2, 2}, "the term begins at 2"},
		{[]Term{1, 2, 2, 2, 3}, Position{4, 5}, Position{3, 5}, "the term begins there"},
	} {
		r := boot(5, c.log...)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: c.prev.Index, PrevLogTerm: c.prev.Term, Entries: []Entry{{Index: c.prev.Index + 1, Term: 5}}, LeaderCommit: 9}))
		out := takeAll(r)
		require.Equal(t, AppendEntriesReply{Refused: c.prev.Index, ConflictIndex: c.conflict.Index, ConflictTerm: c.conflict.Term}, out.reply(t), c.conflictWhat)
		require.Equal(t, c.log, terms(r))
		require.Zero(t, r.Status().Commit)
	}
}

// The hint never points at entries that are committed: they cannot conflict.
func TestConflictHintStopsAtCommitIndex(t *testing.T) {
	r := boot(5, 1, 1, 1, 1)
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 2, PrevLogTerm: 1, LeaderCommit: 2}))
	takeAll(r)
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 4, PrevLogTerm: 3}))
	require.Equal(t, Index(3), takeAll(r).reply(t).ConflictIndex)
}

// "If an existing entry conflicts with a new one (same index but different
// terms), delete the existing entry and all that follow it" (Figure 2,
// AppendEntries, 3; §5.3). "Append any new entries not already in the log" (4).
// Entries that are there already stay, and so does what follows them: messages may
// arrive twice and late (§5.5).
func TestConflictingEntriesGiveWay(t *testing.T) {
	for _, c := range []struct {
		log  []Term
		prev Index
		new  []Term
		want []Term
		from Index
		save int
	}{
		{nil, 0, []Term{5}, []Term{5}, 0, 1},
		{[]Term{1}, 1, []Term{1, 5}, []Term{1, 1, 5}, 0, 2},
		{[]Term{1, 2, 2}, 1, []Term{5}, []Term{1, 5}, 2, 1},
		{[]Term{1, 2, 2}, 0, []Term{1, 5}, []Term{1, 5}, 2, 1},
		{[]Term{1, 2, 2}, 1, []Term{2, 5}, []Term{1, 2, 5}, 3, 1},
		{[]Term{1, 2, 2}, 0, []Term{5, 5, 5}, []Term{5, 5, 5}, 1, 3},
		{[]Term{1, 2, 2}, 0, []Term{1, 2, 2}, []Term{1, 2, 2}, 0, 0},
		{[]Term{1, 2, 2}, 0, []Term{1}, []Term{1, 2, 2}, 0, 0},
		{[]Term{1, 2, 2}, 1, []Term{2}, []Term{1, 2, 2}, 0, 0},
		{[]Term{1, 2, 2}, 0, nil, []Term{1, 2, 2}, 0, 0},
	} {
		r := boot(5, c.log...)
		prevTerm := Term(0)
		if c.prev > 0 {
			prevTerm = c.log[c.prev-1]
		}
		m := AppendEntries{PrevLogIndex: c.prev, PrevLogTerm: prevTerm}
		for i, term := range c.new {
			m.Entries = append(m.Entries, Entry{Index: c.prev + Index(i+1), Term: term})
		}
		r.Step(from(r, 2, m))
		out := r.Take()
		name := fmt.Sprintf("%v, after %d comes %v", c.log, c.prev, c.new)
		require.Equal(t, c.want, terms(r), name)
		require.Equal(t, c.from, out.Truncate, name)
		require.Len(t, out.Append, c.save, name)
		require.Equal(t, AppendEntriesReply{Success: true, MatchIndex: c.prev + Index(len(c.new))}, out.reply(t), name)
	}
}

// "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of
// last new entry)" (Figure 2, AppendEntries, 5). It never falls.
func TestFollowerCommitsUpToTheLastNewEntry(t *testing.T) {
	for _, c := range []struct {
		prev         Index
		new          int
		leaderCommit Index
		want         Index
	}{
		{2, 0, 0, 1}, {2, 0, 1, 1}, {2, 0, 2, 2}, {2, 0, 5, 2},
		{2, 1, 5, 3}, {2, 2, 3, 3}, {2, 2, 9, 4}, {0, 0, 9, 1}, {0, 1, 9, 1}, {4, 0, 9, 4},
	} {
		r := boot(2, 1, 1, 1, 1)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1, LeaderCommit: 1}))
		m := AppendEntries{PrevLogIndex: c.prev, PrevLogTerm: min(1, Term(c.prev)), LeaderCommit: c.leaderCommit}
		for i := range c.new {
			m.Entries = append(m.Entries, Entry{Index: c.prev + Index(i+1), Term: 1})
		}
		r.Step(from(r, 2, m))
		require.Equal(t, c.want, r.Status().Commit, "%+v", c)
	}
}

// A follower promises what the leader sent, and no more: what follows that
// in its log may be a tail that the leader does not have.
func TestReplyPromisesOnlyWhatTheLeaderSent(t *testing.T) {
	r := boot(5, 1, 2, 2, 2)
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1}))
	require.Equal(t, Index(1), takeAll(r).reply(t).MatchIndex)
}

// "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to
// state machine" (Figure 2, all servers; §5.3): in log order, each entry once, and
// in an output only behind what it saves.
func TestCommittedEntriesAreAppliedInOrder(t *testing.T) {
	r := boot(2, 1)
	var applied []Index
	for _, commit := range []Index{0, 1, 1, 3, 2, 4} {
		r.Step(from(r, 2, AppendEntries{Entries: entries(1, 2, 2, 2), LeaderCommit: commit}))
		for _, e := range takeAll(r).Committed {
			applied = append(applied, e.Index)
		}
	}
	require.Equal(t, []Index{1, 2, 3, 4}, applied)
	require.Equal(t, Index(4), r.Status().Applied)
}

// "nextIndex[]: initialized to leader last log index + 1", "matchIndex[]:
// initialized to 0" (Figure 2, State), and both again in each term.
func TestProgressBeginsAnewWithEachTerm(t *testing.T) {
	r := leader(t, 3, 1, 2)
	for _, id := range []ID{2, 3} {
		match, next := r.Progress(id)
		require.Zero(t, match)
		require.Equal(t, Index(3), next)
	}
	accept(r, 2, 2)
	r.Step(Message{From: 2, To: 1, Term: 4, Body: AppendEntriesReply{}})
	takeAll(r)
	makeLeader(t, r)
	match, next := r.Progress(2)
	require.Zero(t, match)
	require.Equal(t, Index(3+ownEntries), next)
}

// "Upon election: send initial AppendEntries RPCs to each server; repeat during
// idle periods to prevent election timeouts" (Figure 2, leaders; §5.2).
func TestHeartbeats(t *testing.T) {
	r := boot(2, 1)
	makeLeader(t, r)
	out := takeAll(r)
	require.Len(t, out.to(2), 1)
	require.Len(t, out.to(3), 1)

	accept(r, 2, 1+ownEntries)
	accept(r, 3, 1+ownEntries)
	takeAll(r)
	for range 3 {
		for range r.options.HeartbeatTicks - 1 {
			r.Tick()
			require.Empty(t, takeAll(r).sent())
		}
		r.Tick()
		out := takeAll(r)
		require.Len(t, out.to(2), 1)
		require.Empty(t, out.to(2)[0].Entries)
		require.Len(t, out.to(3), 1)
	}
}

// "If command received from client: append entry to local log" (Figure 2,
// leaders; §5.3), with the leader's term, and send it "in parallel to each of the
// other servers" (§5.3).
func TestLeaderAppendsAndSends(t *testing.T) {
	r := leader(t, 3, 1)
	accept(r, 2, 1+ownEntries)
	accept(r, 3, 1+ownEntries)
	takeAll(r)

	index := propose(t, r, "x")
	out := r.Take()
	want := Entry{Index: index, Term: 3, Command: []byte("x")}
	require.Equal(t, Index(2+ownEntries), index)
	require.Equal(t, []Entry{want}, out.Append)
	for _, id := range []ID{2, 3} {
		require.Len(t, out.to(id), 1)
		require.Equal(t, []Entry{want}, out.to(id)[0].Entries)
		require.Equal(t, index-1, out.to(id)[0].PrevLogIndex)
	}
	require.Empty(t, out.Committed, "nothing is applied before a majority has it")
}

// A server that does not lead takes no command: "the follower redirects it to the
// leader" (§5.1).
func TestFollowerTakesNoCommand(t *testing.T) {
	r := boot(3, 1)
	_, _, err := r.Propose([]byte("x"))
	require.ErrorIs(t, err, ErrNotLeader)
	require.True(t, r.Take().Empty())

	r.Step(from(r, 2, AppendEntries{}))
	require.Equal(t, ID(2), r.Status().Leader, "it knows whom to name")
}

// "A leader never overwrites or deletes entries in its own log; it only appends
// new entries" (§5.3, Leader Append-Only), and so "creates at most one entry with
// a given log index in a given term".
func TestLeaderOnlyAppends(t *testing.T) {
	r := leader(t, 3, 1, 2)
	n := Index(2 + ownEntries)
	for i := range Index(5) {
		require.Equal(t, n+i+1, propose(t, r, "x"))
		r.Step(from(r, 2, AppendEntriesReply{Refused: 2, ConflictIndex: 1, ConflictTerm: 9}))
		out := takeAll(r)
		require.Zero(t, out.Truncate)
		require.Len(t, out.Append, 1)
	}
	require.Equal(t, []Term{1, 2, 3, 3, 3, 3}, terms(r)[:6])
}

// "If last log index ≥ nextIndex for a follower: send AppendEntries RPC with log
// entries starting at nextIndex" (Figure 2, leaders; §5.3), without waiting for
// the answer to what was sent before, and none twice.
func TestEntriesAreSentFromNextIndex(t *testing.T) {
	r := leader(t, 3, 1)
	last := Index(1 + ownEntries)
	accept(r, 2, last)
	takeAll(r)
	for i := range Index(3) {
		propose(t, r, "x")
		sent := takeAll(r).to(2)
		require.Len(t, sent, 1)
		require.Equal(t, last+i, sent[0].PrevLogIndex)
		require.Len(t, sent[0].Entries, 1)
		_, next := r.Progress(2)
		require.Equal(t, last+i+2, next)
	}
	require.Empty(t, takeAll(r).sent())
}

// "If successful: update nextIndex and matchIndex for follower" (Figure 2,
// leaders; §5.3): from what the reply says, since the leader's log may have grown
// meanwhile. Late and repeated replies change nothing.
func TestSuccessUpdatesProgress(t *testing.T) {
	r := leader(t, 3, 1, 1, 1)
	accept(r, 2, 3)
	for range 5 {
		propose(t, r, "x")
	}
	takeAll(r)
	last := Index(8 + ownEntries)
	for _, c := range []struct{ says, match Index }{{5, 5}, {4, 5}, {5, 5}, {0, 5}, {6, 6}, {last, last}, {last + 1, last}, {3, last}} {
		accept(r, 2, c.says)
		match, next := r.Progress(2)
		require.Equal(t, c.match, match, "after it says %d", c.says)
		require.Equal(t, last+1, next)
	}
}

// "If AppendEntries fails because of log inconsistency: decrement nextIndex and
// retry" (Figure 2, leaders; §5.3), and more than by one: the leader goes past its
// last entry of the conflicting term, or to the first of the follower's (§5.3,
// end).
func TestRefusalMovesNextIndexBack(t *testing.T) {
	for _, c := range []struct {
		log      []Term
		refused  Index
		conflict Position
		next     Index
		what     string
	}{
		{[]Term{1, 1, 1}, 3, Position{0, 1}, 1, "the follower has nothing"},
		{[]Term{1, 1, 1}, 3, Position{0, 3}, 3, "the follower lacks one"},
		{[]Term{1, 1, 4, 4, 4}, 5, Position{2, 3}, 3, "the leader has nothing of that term"},
		{[]Term{1, 1, 4, 4, 4}, 5, Position{1, 1}, 3, "the leader's entries of that term end at 2"},
		{[]Term{1, 4, 4, 4, 5}, 5, Position{4, 2}, 5, "the follower has more of that term"},
		{[]Term{1, 2, 2, 5, 5}, 5, Position{3, 1}, 1, "the follower's term begins at 1"},
		{[]Term{1, 1, 1}, 3, Position{9, 3}, 3, "a hint beyond the refusal is ignored"},
		{[]Term{1, 1, 1}, 3, Position{0, 0}, 1, "never below 1"},
	} {
		r := leader(t, 6, c.log...)
		r.Step(from(r, 2, AppendEntriesReply{Refused: c.refused, ConflictIndex: c.conflict.Index, ConflictTerm: c.conflict.Term}))
		_, next := r.Progress(2)
		require.Equal(t, c.next, next, c.what)
		sent := takeAll(r).to(2)
		require.Len(t, sent, 1, "it retries at once")
		require.Equal(t, c.next-1, sent[0].PrevLogIndex, c.what)
	}
}

// A refusal that is not about the latest probe, or about what is known to match,
// is old news.
func TestOldRefusalsAreIgnored(t *testing.T) {
	r := leader(t, 6, 1, 1, 1, 1, 1)
	refuse := func(index Index) { r.Step(from(r, 2, AppendEntriesReply{Refused: index, ConflictIndex: index})) }
	refuse(5)
	takeAll(r)
	for _, old := range []Index{5, 3, 2, 1, 0} {
		refuse(old)
		_, next := r.Progress(2)
		require.Equal(t, Index(5), next, "after a refusal of %d", old)
		require.Empty(t, takeAll(r).sent())
	}
	accept(r, 2, 4)
	takeAll(r)
	refuse(4)
	match, next := r.Progress(2)
	require.Equal(t, Index(4), match)
	require.Equal(t, Index(6+ownEntries), next)
}

// "If followers crash or run slowly, or if network packets are lost, the leader
// retries AppendEntries RPCs indefinitely" (§5.3).
func TestLeaderRetriesForever(t *testing.T) {
	r := leader(t, 3, 1)
	propose(t, r, "x")
	takeAll(r)
	for range 50 {
		for range r.options.HeartbeatTicks {
			r.Tick()
		}
		require.Len(t, takeAll(r).to(2), 1)
	}
	accept(r, 2, 1)
	require.NotEmpty(t, takeAll(r).to(2)[0].Entries, "an answer brings what is missing")
}

// A server that does not answer a probe is sent its entries once. Heartbeats go on
// without them, however much the log has that it lacks.
func TestSilentServerIsSentNoEntriesAgain(t *testing.T) {
	r := leader(t, 3, 1)
	for range 100 {
		propose(t, r, "x")
	}
	entries := 0
	for range 50 {
		accept(r, 3, r.Status().Last)
		for range r.options.HeartbeatTicks {
			r.Tick()
		}
		sent := takeAll(r).to(2)
		require.Len(t, sent, 1)
		entries += len(sent[0].Entries)
	}
	require.Zero(t, entries)
	accept(r, 2, 1)
	require.NotEmpty(t, takeAll(r).to(2)[0].Entries, "an answer brings what is missing")
}

// AppendEntries says whether the leader counts on the entry that the new ones
// follow: whether that is where the logs are known to agree. A server whose log
// lacks that entry has lost what it acknowledged, and stops (§5.4: it would help to
// elect a leader that lacks committed entries).
func TestServerThatLostEntriesStops(t *testing.T) {
	r := leader(t, 3, 1, 1)
	matched := func() bool {
		for range r.options.HeartbeatTicks {
			r.Tick()
		}
		accept(r, 3, 0)
		return takeAll(r).to(2)[0].Matched
	}
	require.False(t, matched(), "nothing is known yet")
	accept(r, 2, 2)
	takeAll(r)
	accept(r, 2, r.Status().Last)
	require.True(t, matched())

	for _, c := range []struct {
		log     []Term
		matched bool
		stops   string
	}{
		{[]Term{1, 1, 2}, true, ""},
		{[]Term{1, 1, 2, 2}, true, ""},
		{[]Term{1, 1}, false, ""},
		{nil, true, "n2 counts on entries up to 3, but n1's log, which ends at 0, lacks some of them"},
		{[]Term{1, 1}, true, "n2 counts on entries up to 3, but n1's log, which ends at 2, lacks some of them"},
		{[]Term{1, 1, 1, 1}, true, "n2 counts on entries up to 3, but n1's log, which ends at 4, lacks some of them"},
	} {
		f := boot(5, c.log...)
		stop := func() (why Contradiction) {
			defer func() { why, _ = recover().(Contradiction) }()
			f.Step(from(f, 2, AppendEntries{PrevLogIndex: 3, PrevLogTerm: 2, Matched: c.matched}))
			return why
		}()
		require.Equal(t, c.stops != "", stop.Forgot, "%v", c.log)
		require.Contains(t, stop.Text, c.stops)
	}
}

// A refusal of what is known to match is older than that knowledge: the network has
// reordered the two. It moves nothing.
func TestOldRefusalTakesNothingBack(t *testing.T) {
	r := leader(t, 3, 1, 1, 1)
	accept(r, 2, 3)
	takeAll(r)
	match, next := r.Progress(2)
	r.Step(from(r, 2, AppendEntriesReply{Refused: 2, ConflictIndex: 1}))
	m, n := r.Progress(2)
	require.Equal(t, []Index{match, next}, []Index{m, n})
	require.Empty(t, takeAll(r).to(2))
}

// "If there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥
// N, and log[N].term == currentTerm: set commitIndex = N" (Figure 2, leaders;
// §5.3, §5.4). "This also commits all preceding entries in the leader's log"
// (§5.3), but entries of earlier terms are never committed by counting (§5.4.2).
func TestLeaderCommitsWhatAMajorityHas(t *testing.T) {
	for _, c := range []struct {
		log    []Term
		match  []Index
		commit Index
	}{
		{[]Term{1, 1}, []Index{0, 0, 0, 0}, 0},
		{[]Term{1, 1}, []Index{2, 2, 2, 2}, 0},
		{[]Term{1, 1}, []Index{4, 0, 0, 0}, 0},
		{[]Term{1, 1}, []Index{4, 3, 0, 0}, 3},
		{[]Term{1, 1}, []Index{4, 4, 0, 0}, 4},
		{[]Term{1, 1}, []Index{5, 4, 3, 0}, 4},
		{[]Term{1, 1}, []Index{5, 5, 2, 2}, 5},
		{[]Term{1, 1}, []Index{5, 2, 2, 2}, 0},
		{[]Term{1, 3}, []Index{2, 2, 2, 2}, 0},
		{nil, []Index{1, 1, 0, 0}, 1},
	} {
		r := leaderOfFive(t, 5, c.log...)
		for r.Status().Last < 5 {
			propose(t, r, "x")
		}
		takeAll(r)
		for i, match := range c.match {
			accept(r, ID(i+2), match)
		}
		out := takeAll(r)
		require.Equal(t, c.commit, r.Status().Commit, "%v with %v", c.log, c.match)
		require.Len(t, out.Committed, int(c.commit))
	}
}

// leaderOfFive returns n1 as the leader of five servers.
func leaderOfFive(t *testing.T, term Term, terms ...Term) *Raft {
	r := New(startOptions(1, []ID{1, 2, 3, 4, 5}, State{CurrentTerm: term - 1}, entries(terms...)))
	makeLeader(t, r)
	takeAll(r)
	return r
}

// The leader's own entry counts once it is on its own disk: in the output after
// the one that saves it, since carrying out an output includes its save.
func TestLeaderCountsItselfAfterTheSave(t *testing.T) {
	r := New(startOptions(1, []ID{1}, State{CurrentTerm: 1}, nil))
	makeOnlyLeader(t, r)
	takeAll(r)

	index := propose(t, r, "x")
	out := r.Take()
	require.Len(t, out.Append, 1)
	require.Empty(t, out.Committed)
	out = r.Take()
	require.Empty(t, out.Append)
	require.Equal(t, index, out.Committed[len(out.Committed)-1].Index)
}

// "The leader keeps track of the highest index it knows to be committed, and it
// includes that index in future AppendEntries RPCs (including heartbeats)" (§5.3).
func TestCommitIndexTravelsWithEachMessage(t *testing.T) {
	r := leader(t, 3)
	index := propose(t, r, "x")
	takeAll(r)
	accept(r, 2, index)
	takeAll(r)
	require.Equal(t, index, r.Status().Commit)
	r.broadcast()
	require.Equal(t, index, takeAll(r).to(3)[0].LeaderCommit)
}

// Until a follower has agreed to a PrevLogIndex, one message at a time is on its
// way to it, however much is proposed; from then on all that it lacks follows at
// once.
func TestOneProbeAtATime(t *testing.T) {
	r := leader(t, 3, 1, 1)
	for range 3 {
		propose(t, r, "x")
		require.Empty(t, takeAll(r).to(2))
	}
	accept(r, 2, 2)
	sent := takeAll(r).to(2)
	require.Len(t, sent, 1)
	require.Len(t, sent[0].Entries, 3+ownEntries)
}

// What is on its way to a follower is bounded; one that does not answer gets
// empty heartbeats, and the rest once it answers.
func TestEntriesInFlightAreBounded(t *testing.T) {
	r := leader(t, 3)
	accept(r, 2, ownEntries)
	takeAll(r)
	r.options.MaxBatch = 100
	for range 2 * maxInFlight {
		propose(t, r, "0123456789")
	}
	count := func(all []AppendEntries) (n int) {
		for _, m := range all {
			n += len(m.Entries)
		}
		return n
	}
	sent := takeAll(r).to(2)
	require.InDelta(t, maxInFlight, count(sent), 10)
	r.broadcast()
	beat := takeAll(r).to(2)
	require.Len(t, beat, 1)
	require.Empty(t, beat[0].Entries)

	accept(r, 2, Index(maxInFlight/2))
	require.InDelta(t, maxInFlight/2, count(takeAll(r).to(2)), 20)

	// A probe of a follower that is further behind than that has no entries.
	probe := leader(t, 3, slices.Repeat([]Term{1}, 2*maxInFlight)...)
	probe.broadcast()
	require.Empty(t, takeAll(probe).to(2)[0].Entries)
}

// Figure 7: whatever log a follower has, the leader makes it its own, and needs no
// more refusals than there are terms with conflicting entries (§5.3, end).
func TestFigure7(t *testing.T) {
	leaderLog := []Term{1, 1, 1, 4, 4, 5, 5, 6, 6, 6}
	for name, c := range map[string]struct {
		log      []Term
		refusals int
	}{
		"a": {[]Term{1, 1, 1, 4, 4, 5, 5, 6, 6}, 1},
		"b": {[]Term{1, 1, 1, 4}, 1},
		"c": {[]Term{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, 0},
		"d": {[]Term{1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, 0},
		"e": {[]Term{1, 1, 1, 4, 4, 4, 4}, 2},
		"f": {[]Term{1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := leader(t, 8, leaderLog...), boot(7, c.log...)
			propose(t, r, "x")
			r.broadcast()
			refusals := meet(r, f)
			require.Equal(t, terms(r), terms(f))
			require.Equal(t, c.refusals, refusals)
		})
	}
}

// meet lets n1 bring its log to a follower, and counts the refusals.
func meet(r, f *Raft) (refusals int) {
	for range 1000 {
		sent := takeAll(r).to(2)
		if len(sent) == 0 {
			return refusals
		}
		for _, m := range sent {
			f.Step(Message{From: 1, To: 2, Term: r.currentTerm, Body: m})
			for _, reply := range takeAll(f).Messages {
				if !reply.Body.(AppendEntriesReply).Success {
					refusals++
				}
				reply.From = 2
				r.Step(reply)
			}
		}
	}
	panic("they do not meet")
}

// From any two logs that the rules can produce, leader and follower meet after no
// more refusals than there are terms: here are all logs of up to six entries, of
// terms up to three.
func TestAllLogsMeet(t *testing.T) {
	var logs [][]Term
	var extend func(log []Term)
	extend = func(log []Term) {
		logs = append(logs, slices.Clone(log))
		for term := max(1, last(log)); term <= 3 && len(log) < 6; term++ {
			extend(append(log, term))
		}
	}
	extend(nil)
	mostRounds := 0
	for _, a := range logs {
		for _, b := range logs {
			if !match(a, b) {
				continue
			}
			r, f := leader(t, 5, a...), boot(4, b...)
			propose(t, r, "x")
			r.broadcast()
			mostRounds = max(mostRounds, meet(r, f))
			require.Equal(t, terms(r), terms(f), "%v meets %v", a, b)
			match, next := r.Progress(2)
			require.Equal(t, r.Status().Last, match)
			require.Equal(t, match+1, next)
		}
	}
	require.Equal(t, 3, mostRounds)
}

// match reports whether two logs have the Log Matching property: up to an index at
// which their terms are the same, they are the same.
func match(a, b []Term) bool {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] && !slices.Equal(a[:i], b[:i]) {
			return false
		}
	}
	return true
}

func last(log []Term) Term {
	if len(log) == 0 {
		return 0
	}
	return log[len(log)-1]
}

// A reply about entries that the leader does not have, or of a server that is no
// member, is not an answer to anything it sent.
func TestRepliesThatCannotBe(t *testing.T) {
	r := leader(t, 3, 1)
	accept(r, 3, 1)
	takeAll(r)
	for _, id := range []ID{2, 3} {
		match, next := r.Progress(id)
		accept(r, id, 99)
		r.Step(from(r, id, AppendEntriesReply{Refused: 99, ConflictIndex: 99}))
		r.Step(from(r, id, AppendEntriesReply{Refused: 99, ConflictIndex: 98, ConflictTerm: 3}))
		m, n := r.Progress(id)
		require.Equal(t, match, m)
		require.Equal(t, next, n)
	}
	accept(r, 7, 1)
	require.Empty(t, takeAll(r).sent())
}
