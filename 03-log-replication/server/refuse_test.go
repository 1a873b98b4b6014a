package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/03-log-replication/raft"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
)

// loud checks that the log has these words in one new line, and forgets it.
func (w *world) loud(words ...string) {
	w.t.Helper()
	w.flush()
	require.Len(w.t, w.logged, 1)
	for _, text := range words {
		require.Contains(w.t, w.logged[0], text)
	}
	w.logged = nil
}

// A leader that contradicts what is committed is not obeyed, and neither stops the
// server nor leads it.
func TestAContradictionIsRefused(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(2, 8, raft.AppendEntries{LeaderCommit: 1, Entries: entries(1, 8, 1)})
	w.flush()
	w.forget()
	w.receive(3, 9, raft.AppendEntries{Entries: entries(1, 9, 1)})
	w.loud("n1 refuses the leader n3 of term 9: n3 has 9@1 where 8@1 is committed")
	require.Empty(t, w.sent)
	require.Equal(t, raft.Index(1), w.status().Applied)
	require.Equal(t, raft.ID(0), w.status().Leader)
}

// A leader stays leader when another says that it leads its term.
func TestASecondLeaderIsRefused(t *testing.T) {
	w := lead(t, 3)
	before := w.status()
	for range 1000 {
		w.receive(3, before.CurrentTerm, raft.AppendEntries{Entries: entries(1, before.CurrentTerm, 1)})
	}
	w.loud("n1 ", " n3", "term")
	require.Equal(t, before, w.status())
	require.Len(t, w.events, 1000, "a trace has them all")
}

// A command that the state machine cannot apply does not enter the log.
func TestAnInvalidCommandIsRefused(t *testing.T) {
	for _, command := range []string{`{"op":"poison"}`, `{}`, `7`, `{"op":"put","value":"1"}`} {
		w := start(t, 3, disk.NewSim("d"))
		w.forget()
		w.receive(2, 9, raft.AppendEntries{LeaderCommit: 2, Entries: append(entries(1, 9, 1), raft.Entry{Index: 2, Term: 9, Command: text(command)})})
		w.loud("entry 2: a command: ")
		require.Zero(t, w.status().Last)
		require.Empty(t, w.sent)
	}
}

// Such a command in the journal was written by another program. To skip it would be
// to differ from the other servers, so the server says what stops it.
func TestACommandThatCannotBeAppliedStopsTheServer(t *testing.T) {
	d := disk.NewSim("d")
	j, _, err := journal.Open(d, "journal", journal.Header{Stage: Stage, Cluster: "north", ID: 1})
	require.NoError(t, err)
	j.SetState(journal.State{Term: 1})
	j.Append(journal.Entry{Index: 1, Term: 1, Command: text(`{"op":"poison"}`)})
	require.NoError(t, j.Sync())
	require.NoError(t, j.Close())
	w := start(t, 3, d)
	w.receive(2, 1, raft.AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1, LeaderCommit: 1})
	require.ErrorContains(t, w.server.Flush(), "n1 cannot apply entry 1, which is committed, and stops at it after every restart: a command: ")
}

// An answer to what was never sent counts for nothing.
func TestAnAnswerWithoutARequestIsRefused(t *testing.T) {
	w := lead(t, 3)
	before := w.status()
	for _, reply := range []raft.AppendEntriesReply{
		{Success: true, MatchIndex: before.Last + 1}, {Refused: before.Last + 1, ConflictIndex: 1},
	} {
		w.receive(3, before.CurrentTerm, reply)
		w.loud("it answers what n1 has never sent")
		w.server.refusals = refusals{}
	}
	require.Equal(t, before, w.status())
}

// A message that claims to come from its receiver comes from another server.
func TestAMessageOfItsOwnIsRefused(t *testing.T) {
	w := lead(t, 3)
	before := w.status()
	w.receive(1, before.CurrentTerm, raft.AppendEntries{})
	w.loud("another server runs under this number")
	require.Equal(t, before, w.status())
}

// A server that is no member neither leads nor moves anybody to its term.
func TestAMessageOfAStrangerIsRefused(t *testing.T) {
	w := lead(t, 3)
	before := w.status()
	w.receive(9, before.CurrentTerm+1, raft.AppendEntries{Entries: entries(1, before.CurrentTerm+1, 1)})
	w.loud("it comes from n9, which is no member of this cluster")
	require.Equal(t, before, w.status())
}

// No cluster holds so many elections that a term could be so high, and one near the
// end of its range would be the last. The log says what can be done.
func TestATermThatIsTooHighIsRefused(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.forget()
	for _, term := range []raft.Term{1 << 62, maxTermJump + 1 + 3*termsPerTick} {
		w.receive(2, term, raft.AppendEntries{})
		w.receive(2, term, raft.AppendEntriesReply{})
		w.flush()
	}
	require.Less(t, w.status().CurrentTerm, raft.Term(2))
	require.Len(t, w.events, 4)
	require.Len(t, w.logged, 2, "each kind once")
	require.Contains(t, w.logged[0], "its term 4611686018427387904 is implausibly high: n1 is in term")
	require.Contains(t, w.logged[0], "unless n2 is stopped, n1 follows it in 763549h44m27s")
}

// Three messages lead a server far ahead, and not out of the reach of the others:
// as long as it hears terms that it does not accept, its limit grows.
func TestADistantTermCanBeReached(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	for range 3 {
		w.receive(2, w.status().CurrentTerm+maxTermJump, raft.AppendEntriesReply{})
	}
	w.flush()
	ahead := w.status().CurrentTerm
	require.LessOrEqual(t, ahead, raft.Term(maxTermJump+termsPerTick))

	other := start(t, 3, disk.NewSim("d"))
	other.receive(3, ahead, raft.AppendEntriesReply{})
	other.flush()
	require.Equal(t, ahead, other.status().CurrentTerm, "it follows at once")

	beyond := other.server.maxTerm() + 10*termsPerTick
	other.receive(3, beyond, raft.AppendEntriesReply{})
	require.Equal(t, ahead, other.status().CurrentTerm)
	for range 10 {
		other.server.Tick()
	}
	other.receive(3, beyond, raft.AppendEntriesReply{})
	require.Equal(t, beyond, other.status().CurrentTerm)
}

// A peer that sends nonsense does not fill the log, and neither do many of them.
func TestRefusalsAreLoggedRarely(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.forget()
	for range 5 {
		for from := range uint64(1000) {
			w.server.Receive(from+2, []byte(`{}`))
		}
	}
	require.Len(t, w.logged, maxRefusals)
	w.logged = nil
	for range node.Ticks(refusalInterval) {
		w.server.Tick()
	}
	w.server.Receive(2, []byte(`{}`))
	require.Len(t, w.logged, 1, "it is said again")
}
