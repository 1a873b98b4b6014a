package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/06-compaction/raft"
	"example.com/raftsteps/shared/core/disk"
)

// lead starts a server that leads: it has started an election, and the others
// have its first entry.
func lead(t *testing.T, members uint64) *world {
	w := start(t, members, disk.NewSim("d"))
	w.stand()
	if members > 1 {
		w.receive(2, w.status().CurrentTerm, raft.RequestVoteReply{Granted: true})
		w.flush()
		w.acknowledge(2)
		w.acknowledge(3)
	}
	w.flush()
	require.Equal(t, raft.Leader, w.status().Role)
	require.Equal(t, w.status().Last, w.status().Commit)
	w.forget()
	return w
}

// stand lets time pass until the server asks for votes.
func (w *world) stand() {
	w.t.Helper()
	term := w.status().CurrentTerm
	for range 100 {
		if w.status().CurrentTerm > term {
			return
		}
		w.server.Tick()
		w.flush()
	}
	require.Fail(w.t, "it does not start an election")
}

// success is what a follower answers that took everything.
func success(a raft.AppendEntries) raft.AppendEntriesReply {
	return raft.AppendEntriesReply{Success: true, MatchIndex: a.PrevLogIndex + raft.Index(len(a.Entries)), Round: a.Round}
}

// A vote is a promise: term and vote are on disk before anybody hears of it,
// the server's own vote for itself as well.
func TestVotesAreSavedBeforeTheyAreSent(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.forget()
	w.receive(2, 4, raft.RequestVote{})
	w.flush()
	require.Equal(t, []string{"sync", "RequestVoteReply"}, w.order)
	require.Equal(t, raft.RequestVoteReply{Granted: true}, w.sent[0].Body)
	w.disk.CrashWorst()
	again := start(t, 3, w.disk)
	again.forget()
	again.receive(3, 4, raft.RequestVote{LastLogIndex: 9, LastLogTerm: 3})
	again.flush()
	require.Equal(t, raft.RequestVoteReply{}, again.sent[0].Body, "it has voted in that term, in an earlier life")
	again.forget()
	again.stand()
	require.Equal(t, []string{"sync", "RequestVote", "RequestVote"}, again.order)
	require.Equal(t, []string{"starts an election"}, again.logged)
	require.Equal(t, raft.ID(1), again.status().VotedFor)
	again.disk.CrashWorst()
	require.Equal(t, raft.ID(1), start(t, 3, again.disk).status().VotedFor)
}

func TestInspectACandidate(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.stand()
	s := w.inspect()
	require.Equal(t, []uint64{1}, s.Votes)
	require.EqualValues(t, 1, s.Vote)
	require.Empty(t, s.Progress)
}
