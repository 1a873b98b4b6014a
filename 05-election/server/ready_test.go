package server

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/disk"
)

// ready checks what the status says: that the server is ready, or why it is not.
func (w *world) ready(unready string) {
	w.t.Helper()
	var got struct {
		Ready   bool
		Unready string
	}
	require.NoError(w.t, json.Unmarshal(w.ask(`{"op":"status"}`).responses[0].Data, &got))
	require.Equal(w.t, unready, got.Unready)
	require.Equal(w.t, unready == "", got.Ready)
}

// A follower is ready once it has applied what was committed when it first heard
// its leader, however much has been committed since.
func TestAFollowerIsReadyOnceItHasCaughtUp(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(2, 5, raft.AppendEntries{Entries: entries(1, 5, 5)})
	w.flush()
	w.receive(2, 5, raft.AppendEntries{PrevLogIndex: 5, PrevLogTerm: 5, LeaderCommit: 5})
	w.flush()
	w.ready("")

	again := start(t, 3, w.disk)
	again.ready("n1 knows no leader")
	again.receive(2, 5, raft.AppendEntries{PrevLogIndex: 9, PrevLogTerm: 5, LeaderCommit: 9})
	again.flush()
	require.Zero(t, again.status().Applied)
	again.ready("n1 has applied 0 of the 9 entries that were committed when it first heard n2")
	again.receive(2, 5, raft.AppendEntries{PrevLogIndex: 5, PrevLogTerm: 5, Entries: entries(6, 5, 3), LeaderCommit: 12})
	again.flush()
	again.ready("n1 has applied 8 of the 9 entries that were committed when it first heard n2")
	again.receive(2, 5, raft.AppendEntries{PrevLogIndex: 8, PrevLogTerm: 5, Entries: entries(9, 5, 1), LeaderCommit: 12})
	again.flush()
	again.ready("")

	again.receive(3, 6, raft.AppendEntries{PrevLogIndex: 9, PrevLogTerm: 5, LeaderCommit: 12})
	again.flush()
	again.ready("n1 has applied 9 of the 12 entries that were committed when it first heard n3")
	again.receive(3, 6, raft.AppendEntries{PrevLogIndex: 9, PrevLogTerm: 5, Entries: entries(10, 5, 3), LeaderCommit: 12})
	again.flush()
	again.ready("n1 has applied 12 entries, and waits for the first committed entry of term 6")
	again.receive(3, 6, raft.AppendEntries{PrevLogIndex: 12, PrevLogTerm: 5, Entries: entries(13, 6, 1), LeaderCommit: 13})
	again.flush()
	again.ready("")
	again.stand()
	again.ready("n1 knows no leader")
}

// A leader does not know what is committed before an entry of its own term is: all
// servers may have been started again.
func TestALeaderIsReadyOnceItsFirstEntryIsCommitted(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.stand()
	term := w.status().CurrentTerm
	w.receive(2, term, raft.RequestVoteReply{Granted: true})
	w.flush()
	require.Equal(t, raft.Leader, w.status().Role)
	w.ready("n1 has applied 0 entries, and waits for the first committed entry of term 1")
	w.acknowledge(2)
	w.flush()
	w.ready("")
}
