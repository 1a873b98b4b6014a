package raft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/rules"
)

// bootAt returns n1 of three servers, whose disk has a snapshot and a log that
// begins after base.
func bootAt(term Term, base, snapshot Position, terms ...Term) *Raft {
	var log []Entry
	for i, t := range terms {
		log = append(log, Entry{Index: base.Index + Index(i+1), Term: t})
	}
	o := startOptions(1, []ID{1, 2, 3}, State{CurrentTerm: term}, log)
	o.Base, o.Snapshot = base, snapshot
	return New(o)
}

// leaderAt returns n1 as the leader of term 5, whose log begins after 2@3; it
// has a snapshot up to 2@4, and its log ends in 2@5 and the NoOp of its term, 5@6.
func leaderAt(t *testing.T) *Raft {
	r := bootAt(4, Position{2, 3}, Position{2, 4}, 2, 2)
	makeLeader(t, r)
	takeAll(r)
	return r
}

// chunk is a piece of two bytes of n2's snapshot.
func chunk(last Position, offset uint64) InstallSnapshot {
	return InstallSnapshot{LastIncluded: last, Offset: offset, Data: []byte("ab")}
}

// lacks returns which chunk a server says it lacks.
func lacks(t *testing.T, out Output) uint64 {
	require.Len(t, out.Messages, 1)
	require.IsType(t, InstallSnapshotReply{}, out.Messages[0].Body)
	return out.Messages[0].Body.(InstallSnapshotReply).Offset
}

// chunksTo returns the chunks that an output sends to a server.
func (o Output) chunksTo(id ID) (all []InstallSnapshot) {
	for _, m := range o.sent() {
		if body, is := m.Body.(InstallSnapshot); is && m.To == id {
			all = append(all, body)
		}
	}
	return all
}

// beat lets time pass until the leader's next heartbeat.
func beat(r *Raft) Output {
	for range r.options.HeartbeatTicks {
		r.Tick()
	}
	return takeAll(r)
}

// refuse lets a follower say that it has nothing, so the leader needs what is
// forgotten.
func refuse(r *Raft, id ID) {
	_, next := r.Progress(id)
	r.Step(from(r, id, AppendEntriesReply{Refused: next - 1, ConflictIndex: 1}))
}

// "Reply immediately if term < currentTerm" (Figure 13, 1).
func TestReplyImmediatelyIfTermIsOlder(t *testing.T) {
	r := boot(5, 1)
	r.Step(Message{From: 2, To: 1, Term: 4, Body: chunk(Position{4, 9}, 0)})
	out := takeAll(r)
	require.Equal(t, []Message{{From: 1, To: 2, Term: 5, Body: InstallSnapshotReply{}}}, out.Messages)
	require.Empty(t, out.Chunks)
	require.Zero(t, r.Status().Leader)
}

// A snapshot comes from the leader: its receiver follows it, in the newer term if
// there is one, and is patient again (§5.1, §5.2).
func TestSnapshotIsALeadersWord(t *testing.T) {
	for _, r := range []*Raft{boot(3, 1), candidate(t, 3, 1), leader(t, 3, 1)} {
		r.Step(Message{From: 2, To: 1, Term: 7, Body: chunk(Position{4, 9}, 0)})
		require.Equal(t, Follower, r.role)
		require.Equal(t, ID(2), r.leader)
		require.Equal(t, Term(7), takeAll(r).State.CurrentTerm)
	}
	r := candidate(t, 3, 1)
	r.Step(from(r, 2, chunk(Position{2, 9}, 0)))
	require.Equal(t, Follower, r.role)
	require.Zero(t, r.elapsed)
	require.Equal(t, ID(1), r.votedFor, "in the same term the vote stays given")
}

// "Create new snapshot file if first chunk (offset is 0)"; "write data into
// snapshot file at given offset"; "reply and wait for more data chunks if done is
// false" (Figure 13, 2 to 4). The answer says which chunk comes next, so one that
// comes twice, or too early, is not stored.
func TestChunksAreStoredInOrder(t *testing.T) {
	r := boot(5, 1)
	last := Position{4, 9}
	for i, c := range []struct {
		offset uint64
		stored bool
		lacks  uint64
	}{
		{2, false, 0}, {0, true, 2}, {0, false, 2}, {4, false, 2}, {2, true, 4}, {2, false, 4}, {0, false, 4}, {4, true, 6},
	} {
		r.Step(from(r, 2, chunk(last, c.offset)))
		out := takeAll(r)
		require.Equal(t, c.stored, len(out.Chunks) == 1, "step %d", i)
		require.Equal(t, c.lacks, lacks(t, out), "step %d", i)
		require.Empty(t, out.Early, "step %d: an answer waits for the disk", i)
	}
	require.Zero(t, r.Status().Commit, "nothing is believed before the whole is checked")
}

// Chunks of one snapshot are never mixed with those of another: not of another
// place in the log, not of another leader, and not of another term, since two
// servers need not write the same bytes for the same place.
func TestChunksOfTwoSnapshotsAreNotMixed(t *testing.T) {
	last := Position{4, 9}
	for what, c := range map[string]struct {
		from ID
		term Term
		last Position
	}{
		"a newer snapshot":              {2, 5, Position{4, 10}},
		"another leader":                {3, 6, last},
		"the same leader in a new term": {2, 6, last},
	} {
		r := boot(5, 1)
		r.Step(from(r, 2, chunk(last, 0)))
		takeAll(r)
		r.Step(Message{From: c.from, To: 1, Term: c.term, Body: chunk(c.last, 2)})
		out := r.Take()
		require.Empty(t, out.Chunks, what)
		require.Zero(t, lacks(t, out), "%s: it begins again", what)
		r.Step(Message{From: c.from, To: 1, Term: c.term, Body: chunk(c.last, 0)})
		out = r.Take()
		require.Len(t, out.Chunks, 1, what)
		require.Equal(t, uint64(2), lacks(t, out), what)
	}
}

// A snapshot that turns out to be unusable is forgotten, and comes again from its
// beginning.
func TestDiscardBeginsAnew(t *testing.T) {
	r := boot(5, 1)
	r.Step(from(r, 2, chunk(Position{4, 9}, 0)))
	takeAll(r)
	r.Discard()
	r.Step(from(r, 2, chunk(Position{4, 9}, 2)))
	out := takeAll(r)
	require.Empty(t, out.Chunks)
	require.Zero(t, lacks(t, out))
}

// "If … the snapshot describes a prefix of its log (due to retransmission or by
// mistake) …" (§7): what the follower knows to be committed it does not need. The
// answer is that of AppendEntries, so that the leader goes on with entries, and
// promises what is committed, not what may be a tail.
func TestSnapshotOfWhatIsCommittedIsRefused(t *testing.T) {
	for _, at := range []Index{1, 2, 3} {
		r := boot(2, 1, 1, 1, 1)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 4, PrevLogTerm: 1, LeaderCommit: 3}))
		takeAll(r)
		r.Step(from(r, 2, chunk(Position{1, at}, 0)))
		out := takeAll(r)
		require.Empty(t, out.Chunks)
		require.Equal(t, AppendEntriesReply{Success: true, MatchIndex: 3}, out.reply(t))

		// Nor does one change anything that was stored before the entries came.
		before := r.Status()
		r.Restore(Position{1, at}, three)
		require.True(t, takeAll(r).Empty())
		require.Equal(t, before, r.Status())
		require.Len(t, terms(r), 4)
	}
}

// "If existing log entry has same index and term as snapshot's last included
// entry, retain log entries following it and reply. Discard the entire log
// [otherwise]. Reset state machine using snapshot contents" (Figure 13, 6 to 8).
func TestRestoreKeepsWhatFollows(t *testing.T) {
	for _, c := range []struct {
		what     string
		base     Position
		log      []Term
		snapshot Position
		want     []Term
	}{
		{"nothing was there", Position{}, nil, Position{3, 4}, nil},
		{"the log is shorter", Position{}, []Term{1, 1}, Position{3, 4}, nil},
		{"it ends there", Position{}, []Term{1, 1, 3, 3}, Position{3, 4}, nil},
		{"it goes on behind it", Position{}, []Term{1, 1, 3, 3, 3, 4}, Position{3, 4}, []Term{3, 4}},
		{"it ends in another term", Position{}, []Term{1, 1, 2, 2}, Position{3, 4}, nil},
		{"it goes on, and disagrees", Position{}, []Term{1, 1, 2, 2, 2, 2}, Position{3, 4}, nil},
		{"it goes on in newer terms, and disagrees", Position{}, []Term{1, 1, 2, 2, 4, 4}, Position{3, 4}, nil},
		{"behind a snapshot, shorter", Position{1, 2}, []Term{1}, Position{3, 4}, nil},
		{"behind a snapshot, it goes on", Position{1, 2}, []Term{3, 3, 3}, Position{3, 4}, []Term{3}},
		{"behind a snapshot, it disagrees", Position{1, 2}, []Term{1, 1, 1}, Position{3, 4}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := bootAt(5, c.base, c.base, c.log...)
			r.Step(from(r, 2, AppendEntries{PrevLogIndex: c.base.Index, PrevLogTerm: c.base.Term}))
			takeAll(r)
			r.Restore(c.snapshot, three)
			out := r.Take()
			require.True(t, out.Rewrite)
			base, log := r.Saved()
			require.Equal(t, c.snapshot, base)
			require.Len(t, log, len(c.want))
			require.Equal(t, c.want, terms(r))
			status := r.Status()
			require.Equal(t, []Index{4, 4, 4 + Index(len(c.want))}, []Index{status.Commit, status.Applied, status.Last})
			require.Equal(t, c.snapshot, status.Snapshot)
			require.Equal(t, []Message{{From: 1, To: 2, Term: 5, Body: AppendEntriesReply{Success: true, MatchIndex: 4}}}, out.Messages, "it promises what was sent, not what follows")
			require.Empty(t, out.Early)
		})
	}
}

// A log that replaces the old one is saved as a whole: entries and
// truncations of the same round are in it.
func TestRewriteSavesAll(t *testing.T) {
	r := boot(5, 1, 1, 2, 2)
	saved := rules.Disk[Entry]{State: rules.State{CurrentTerm: 5}, Log: entries(1, 1, 2, 2)}
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1, Entries: []Entry{{Index: 2, Term: 5}, {Index: 3, Term: 5}}}))
	r.Step(Message{From: 3, To: 1, Term: 6, Body: chunk(Position{5, 2}, 0)})
	r.Restore(Position{5, 2}, three)
	out := r.Take()
	require.Zero(t, out.Truncate)
	require.Empty(t, out.Append)
	rules.Save(&saved, r, sharedOutput(out), -1)
	require.Equal(t, Position{5, 2}.shared(), saved.Base)
	require.Equal(t, []Entry{{Index: 3, Term: 5}}, saved.Log)
	require.Equal(t, rules.State{CurrentTerm: 6}, saved.State)
}

// What a snapshot covers is not applied again, neither after it was taken over nor
// after a restart (§7; Figure 2, lastApplied).
func TestWhatASnapshotCoversIsNotAppliedAgain(t *testing.T) {
	for what, r := range map[string]*Raft{
		"the log begins after it":   bootAt(5, Position{2, 4}, Position{2, 4}, 2, 2),
		"the log begins before it":  bootAt(5, Position{2, 1}, Position{2, 4}, 2, 2, 2, 2, 2),
		"the log was never cut":     bootAt(5, Position{}, Position{2, 4}, 2, 2, 2, 2, 2, 2),
		"the log ends just with it": bootAt(5, Position{2, 2}, Position{2, 4}, 2, 2),
	} {
		status := r.Status()
		require.Equal(t, []Index{4, 4}, []Index{status.Commit, status.Applied}, what)
		require.True(t, r.Take().Empty(), "%s: there is nothing to put right", what)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, Entries: []Entry{{Index: 5, Term: 2}, {Index: 6, Term: 2}}, LeaderCommit: 6}))
		committed := takeAll(r).Committed
		require.Len(t, committed, 2, what)
		require.Equal(t, Index(5), committed[0].Index, what)
	}
}

// A crash may leave a leader's snapshot and the log from before it: that log goes,
// unless it has the entry at which the snapshot ends.
func TestRestartPutsTheLogRight(t *testing.T) {
	for what, r := range map[string]*Raft{
		"the log is shorter":     bootAt(5, Position{}, Position{2, 4}, 2, 2),
		"the log is empty":       bootAt(5, Position{1, 1}, Position{2, 4}),
		"the log disagrees":      bootAt(5, Position{}, Position{2, 4}, 1, 1, 1, 1, 1),
		"it disagrees, and goes": bootAt(5, Position{1, 2}, Position{2, 4}, 1, 3, 3, 3),
	} {
		out := r.Take()
		require.True(t, out.Rewrite, what)
		base, log := r.Saved()
		require.Equal(t, Position{2, 4}, base, what)
		require.Empty(t, log, what)
		require.Equal(t, Index(4), r.Status().Commit, what)
		require.Equal(t, State{CurrentTerm: 5}, r.Status().State, "%s: the term stays", what)
	}
}

// "The leader must occasionally send snapshots to followers that lag behind. This
// happens when the leader has already discarded the next log entry that it needs to
// send" (§7), and not before: who needs an entry that is there gets it.
func TestOnlyWhoNeedsAForgottenEntryGetsTheSnapshot(t *testing.T) {
	for _, c := range []struct {
		lacks Index
		sent  bool
	}{{1, true}, {3, true}, {4, false}, {5, false}} {
		r := leaderAt(t)
		r.Step(from(r, 2, AppendEntriesReply{Refused: 5, ConflictIndex: c.lacks}))
		out := takeAll(r)
		if c.sent {
			require.Equal(t, []InstallSnapshot{{LastIncluded: Position{2, 4}}}, out.chunksTo(2), "it lacks %d", c.lacks)
			require.Empty(t, out.to(2))
			continue
		}
		require.Empty(t, out.chunksTo(2), "it lacks %d", c.lacks)
		require.Len(t, out.to(2), 1)
		require.Equal(t, c.lacks, out.to(2)[0].Entries[0].Index)
		require.Equal(t, Term(2), out.to(2)[0].PrevLogTerm, "the entry before the first is known")
	}
}

// A chunk is sent once, and again with each heartbeat until it is answered; the
// next follows at once. Meanwhile no entries are tried.
func TestChunksFollowTheAnswers(t *testing.T) {
	r := leaderAt(t)
	reply := func(offset uint64) []InstallSnapshot {
		r.Step(from(r, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: offset}))
		return takeAll(r).chunksTo(2)
	}
	refuse(r, 2)
	require.Len(t, takeAll(r).chunksTo(2), 1)
	propose(t, r, "x")
	out := takeAll(r)
	require.Empty(t, out.chunksTo(2), "it is on its way")
	require.Empty(t, out.to(2))
	for range 3 {
		out = beat(r)
		require.Len(t, out.chunksTo(2), 1)
		require.Zero(t, out.chunksTo(2)[0].Offset)
		require.Empty(t, out.to(2))
	}

	require.Equal(t, []InstallSnapshot{{LastIncluded: Position{2, 4}, Offset: 10}}, reply(10))
	require.Empty(t, reply(10), "the same answer again")
	require.Equal(t, uint64(20), reply(20)[0].Offset)
	require.Empty(t, reply(10), "an old answer")
	require.Zero(t, reply(0)[0].Offset, "it has to begin again")

	accept(r, 2, 4)
	out = takeAll(r)
	require.Empty(t, out.chunksTo(2))
	require.Len(t, out.to(2), 1, "the snapshot is there: entries go on behind it")
	require.Equal(t, Index(4), out.to(2)[0].PrevLogIndex)
}

// An old answer may lead the leader beyond what a follower has, that had to begin
// again. Once the follower has said so to a chunk that was sent twice, the leader
// goes back.
func TestAnOldAnswerLeadsNowhereForLong(t *testing.T) {
	r := leaderAt(t)
	reply := func(offset uint64) []InstallSnapshot {
		r.Step(from(r, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: offset}))
		return takeAll(r).chunksTo(2)
	}
	refuse(r, 2)
	takeAll(r)
	require.Equal(t, uint64(30), reply(30)[0].Offset, "said before it had to begin again")
	require.Empty(t, reply(10), "is that an old answer?")
	require.Equal(t, uint64(30), beat(r).chunksTo(2)[0].Offset)
	require.Equal(t, uint64(10), reply(10)[0].Offset, "it is not")
}

// Answers about another snapshot, to who does not lead, and of who needs none are
// old; so are those of an earlier term and of strangers.
func TestOldAnswersToChunksAreIgnored(t *testing.T) {
	answer := InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: 10}
	for what, c := range map[string]struct {
		r *Raft
		m Message
	}{
		"another snapshot": {leaderAt(t), Message{From: 2, To: 1, Term: 5, Body: InstallSnapshotReply{LastIncluded: Position{2, 3}, Offset: 10}}},
		"an older term":    {leaderAt(t), Message{From: 2, To: 1, Term: 4, Body: answer}},
		"a stranger":       {leaderAt(t), Message{From: 9, To: 1, Term: 5, Body: answer}},
		"needs none":       {leaderAt(t), Message{From: 3, To: 1, Term: 5, Body: answer}},
		"a follower":       {bootAt(5, Position{2, 3}, Position{2, 4}, 2), Message{From: 2, To: 1, Term: 5, Body: answer}},
	} {
		if c.r.role == Leader {
			refuse(c.r, 2)
		}
		takeAll(c.r)
		c.r.Step(c.m)
		require.Empty(t, takeAll(c.r).sent(), what)
	}
}

// Several followers are sent the snapshot at once, each from where it is.
func TestSeveralFollowersAtOnce(t *testing.T) {
	r := leaderAt(t)
	refuse(r, 2)
	refuse(r, 3)
	takeAll(r)
	r.Step(from(r, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: 10}))
	r.Step(from(r, 3, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: 30}))
	out := takeAll(r)
	require.Equal(t, uint64(10), out.chunksTo(2)[0].Offset)
	require.Equal(t, uint64(30), out.chunksTo(3)[0].Offset)
}

// A leader whose snapshot is newer by now begins again with that one. So a follower
// that makes progress holds the next snapshot up, and one that does not answer does
// not.
func TestANewerSnapshotBeginsAnew(t *testing.T) {
	r := leaderAt(t)
	require.False(t, r.Sending())
	refuse(r, 2)
	takeAll(r)
	require.True(t, r.Sending())
	r.Step(from(r, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: 10}))
	accept(r, 3, 6)
	takeAll(r)
	for range patience - 1 {
		require.True(t, r.Sending())
		beat(r)
		accept(r, 3, 6)
	}
	require.False(t, r.Sending(), "it does not answer")

	r.Compact(6, 5)
	for range patience {
		out := beat(r)
		accept(r, 3, 6)
		require.Empty(t, out.chunksTo(2), "a server that may be down costs no chunks")
		require.Len(t, out.to(2), 1)
		require.Empty(t, out.to(2)[0].Entries)
	}
	r.Step(from(r, 2, AppendEntriesReply{Refused: 5, ConflictIndex: 1}))
	takeAll(r)
	require.Equal(t, []InstallSnapshot{{LastIncluded: Position{5, 6}}}, beat(r).chunksTo(2))
	require.True(t, r.Sending())
	r.Step(from(r, 2, InstallSnapshotReply{LastIncluded: Position{2, 4}, Offset: 20}))
	require.Empty(t, takeAll(r).chunksTo(2), "that was about the old one")
	accept(r, 2, 6)
	require.False(t, r.Sending())
}

// "Raft also includes a small amount of metadata in the snapshot: the last included
// index … and the last included term. These are preserved to support the
// AppendEntries consistency check for the first log entry following the snapshot,
// since that entry needs a previous log index and term" (§7).
func TestTheFirstEntryBehindTheSnapshotIsChecked(t *testing.T) {
	for _, c := range []struct {
		prev    Position
		success bool
	}{{Position{2, 4}, true}, {Position{3, 4}, false}, {Position{1, 4}, false}} {
		r := bootAt(5, Position{2, 4}, Position{2, 4})
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: c.prev.Index, PrevLogTerm: c.prev.Term, Entries: []Entry{{Index: 5, Term: 5}}}))
		out := takeAll(r)
		require.Equal(t, c.success, len(terms(r)) == 1)
		if !c.success {
			require.Empty(t, out.sent(), "what the snapshot covers is committed, so no leader has another entry there")
			require.Equal(t, Contradicts, out.Reasons[0].Rule)
			continue
		}
		require.True(t, out.reply(t).Success)
	}
}

// "If a server has applied a log entry at a given index to its state machine, no
// other server will ever apply a different log entry for the same index" (§5.4.3).
// A snapshot that says otherwise comes from no leader.
func TestASnapshotThatContradictsWhatIsCommittedIsRefused(t *testing.T) {
	for _, last := range []Position{{3, 4}, {1, 4}, {3, 5}, {1, 6}} {
		r := bootAt(5, Position{2, 4}, Position{2, 4})
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, Entries: []Entry{{Index: 5, Term: 2}}, LeaderCommit: 5}))
		takeAll(r)
		r.Step(from(r, 2, InstallSnapshot{LastIncluded: last, Data: []byte("x"), Done: true}))
		out := takeAll(r)
		require.Empty(t, out.sent(), "%v", last)
		require.Empty(t, out.Chunks, "%v", last)
		require.Equal(t, Contradicts, out.Reasons[len(out.Reasons)-1].Rule, "%v", last)
	}
	for _, last := range []Position{{2, 4}, {1, 3}, {2, 5}, {2, 6}, {5, 6}} {
		r := bootAt(5, Position{2, 4}, Position{2, 4})
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, Entries: []Entry{{Index: 5, Term: 2}}, LeaderCommit: 5}))
		takeAll(r)
		r.Step(from(r, 2, InstallSnapshot{LastIncluded: last, Data: []byte("x"), Done: true}))
		require.Len(t, takeAll(r).sent(), 1, "%v", last)
	}
}

// Entries that a snapshot covers are committed: an AppendEntries that begins among
// them agrees, and what it brings of them is neither a conflict nor new.
func TestEntriesBeforeTheLogAgree(t *testing.T) {
	for _, c := range []struct {
		prev Index
		new  []Term
		want []Term
		save int
	}{
		{0, nil, []Term{2, 2}, 0},
		{0, []Term{1, 1}, []Term{2, 2}, 0},
		{2, []Term{2, 2}, []Term{2, 2}, 0},
		{2, []Term{2, 2, 2}, []Term{2, 2}, 0},
		{0, []Term{1, 1, 2, 2, 2, 2, 5}, []Term{2, 2, 5}, 1},
		{3, []Term{2, 2, 5, 5}, []Term{2, 5, 5}, 2},
	} {
		r := bootAt(5, Position{2, 4}, Position{2, 4}, 2, 2)
		m := AppendEntries{PrevLogIndex: c.prev, PrevLogTerm: min(1, Term(c.prev))}
		for i, term := range c.new {
			m.Entries = append(m.Entries, Entry{Index: c.prev + Index(i+1), Term: term})
		}
		r.Step(from(r, 2, m))
		out := takeAll(r)
		require.Equal(t, AppendEntriesReply{Success: true, MatchIndex: c.prev + Index(len(c.new))}, out.reply(t), "%+v", c)
		require.Equal(t, c.want, terms(r), "%+v", c)
		require.Len(t, out.Append, c.save, "%+v", c)
		require.Equal(t, Index(4), r.Status().Commit, "%+v", c)
	}
}

// A server whose log is empty behind its snapshot is as up to date as the entry at
// which that ends, as a candidate and as a voter (§5.4.1, §7).
func TestASnapshotIsAsUpToDateAsItsLastEntry(t *testing.T) {
	r := bootAt(5, Position{3, 4}, Position{3, 4})
	forceElection(r)
	require.Equal(t, RequestVote{LastLogIndex: 4, LastLogTerm: 3, Transfer: true}, takeAll(r).Messages[0].Body)

	for _, c := range []struct {
		theirs Position
		want   bool
	}{{Position{2, 9}, false}, {Position{3, 3}, false}, {Position{3, 4}, true}, {Position{4, 1}, true}} {
		r := bootAt(5, Position{3, 4}, Position{3, 4})
		r.Step(from(r, 2, RequestVote{LastLogIndex: c.theirs.Index, LastLogTerm: c.theirs.Term}))
		require.Equal(t, c.want, takeAll(r).granted(t), "%v", c.theirs)
	}
}

// "Once a server completes writing a snapshot, it may delete all log entries up
// through the last included index, as well as any prior snapshot" (§7). Up to base
// they are gone; those between base and the snapshot stay. Nothing else changes.
func TestCompactForgetsThePrefix(t *testing.T) {
	for _, base := range []Index{3, 4, 5, 6} {
		r := leaderAt(t)
		accept(r, 2, 6)
		takeAll(r)
		before := r.Status()
		match, next := r.Progress(2)
		r.Compact(6, base)
		after := r.Status()
		require.Equal(t, Position{5, 6}, after.Snapshot)
		before.Snapshot = after.Snapshot
		require.Equal(t, before, after)
		require.Equal(t, int(6-base), len(terms(r)))
		require.False(t, r.Has(Position{2, base - 1}))
		require.True(t, r.Has(r.Position(base)))
		require.Len(t, r.Entries(base+1), int(6-base))
		match2, next2 := r.Progress(2)
		require.Equal(t, []Index{match, next}, []Index{match2, next2})
		out := takeAll(r)
		require.False(t, out.Rewrite, "the driver has written that log")
		require.Empty(t, out.sent())
		require.Equal(t, Index(7), propose(t, r, "x"))
		require.Equal(t, Index(7), takeAll(r).to(2)[0].Entries[0].Index)
	}
}

// A log that forgot its prefix shares no memory with it, so the memory comes back;
// what was sliced off stays as it was.
func TestCompactedLogsAreCopies(t *testing.T) {
	l := newLog(Position{}, Config{}, entries(1, 1, 2, 2))
	held := l.slice(1, 4)
	l.compact(Position{1, 2})
	require.Equal(t, 3, len(l.entries))
	require.NotSame(t, &held[2], &l.entries[1])
	l.truncate(4)
	l.append([]Entry{{Index: 4, Term: 3}})
	require.Equal(t, entries(1, 1, 2, 2), held)
	require.Equal(t, []Entry{{Index: 3, Term: 2}, {Index: 4, Term: 3}}, l.slice(3, 4))
	require.Equal(t, Index(2), l.base())
	require.True(t, l.has(1, 9), "what is before the base was committed")
	require.True(t, l.has(2, 1))
	require.False(t, l.has(2, 2))
	require.Len(t, l.batch(3, 0), 2)
}

// A leader whose log begins late finds the place where the logs meet only in what
// it still has; before that it sends the snapshot.
func TestTheMeetingPointMayBeForgotten(t *testing.T) {
	for _, c := range []struct {
		conflict Position
		next     Index
	}{
		{Position{2, 1}, 6}, {Position{1, 2}, 2}, {Position{1, 4}, 4}, {Position{0, 1}, 1}, {Position{0, 5}, 5},
	} {
		r := leaderAt(t)
		r.Step(from(r, 2, AppendEntriesReply{Refused: 5, ConflictIndex: c.conflict.Index, ConflictTerm: c.conflict.Term}))
		_, next := r.Progress(2)
		require.Equal(t, min(c.next, 5), next, "%v", c.conflict)
	}
}

// A follower does the same as a leader: "servers take snapshots independently,
// covering just the committed entries in their logs" (§7).
func TestFollowersTakeSnapshotsToo(t *testing.T) {
	r := boot(5, 1, 1, 3)
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 3, PrevLogTerm: 3, LeaderCommit: 2}))
	takeAll(r)
	r.Compact(2, 2)
	require.Equal(t, []Term{3}, terms(r))
	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 3, PrevLogTerm: 3, Entries: []Entry{{Index: 4, Term: 5}}, LeaderCommit: 4}))
	out := takeAll(r)
	require.Equal(t, Index(4), out.reply(t).MatchIndex)
	require.Len(t, out.Committed, 2)
}

// A snapshot would hide that a server has lost what it acknowledged. So a leader that
// sends one says as well which entries it counts on.
func TestServerThatLostEntriesTakesNoSnapshot(t *testing.T) {
	r := leader(t, 3, 1, 1, 1)
	accept(r, 3, r.log.lastIndex())
	accept(r, 2, 2)
	takeAll(r)
	r.Compact(3, 3)
	r.Step(from(r, 2, AppendEntriesReply{Refused: 4, ConflictIndex: 3}))
	require.Contains(t, r.Take().sent(), Message{From: 1, To: 2, Term: r.currentTerm, Body: InstallSnapshot{LastIncluded: Position{1, 3}, MatchIndex: 2}})

	f := boot(5, 1)
	m := InstallSnapshot{LastIncluded: Position{4, 9}, MatchIndex: 1}
	f.Step(from(f, 2, m))
	m.MatchIndex = 2
	require.PanicsWithValue(t, Contradiction{Forgot: true, Text: "n1's disk has lost entries that n1 had acknowledged: the leader n2 counts on entries up to 2, but n1's log, which ends at 1, lacks some of them; put the lost files back, or remove this server and add it under a new number"}, func() { f.Step(from(f, 2, m)) })
}

// A leader counts what is on its own disk. After a snapshot has replaced a longer log
// that disagreed with it, that is no more than the new log has.
func TestARestoredLogCountsOnlyWhatItHas(t *testing.T) {
	r := boot(5, 1, 1, 2, 2, 2, 2)
	forceElection(r)
	takeAll(r)
	r.Restore(Position{3, 4}, three)
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	require.Equal(t, Leader, r.Status().Role)
	r.Take()
	require.Equal(t, Index(4), r.Status().Commit)
	match, _ := r.Progress(1)
	require.LessOrEqual(t, match, Index(5))
}
