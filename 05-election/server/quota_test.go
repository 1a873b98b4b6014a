package server

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
)

// The leader refuses a write for which the store has no room, before it is in the
// log. What makes nothing longer still works, and what was deleted leaves room.
func TestTheLeaderHasAQuota(t *testing.T) {
	w := lead(t, 3)
	w.server.quota.Limit = 1000
	value := strings.Repeat("v", 400)
	first, second := w.put("a", value), w.put("b", value)
	last := w.status().Last
	third := w.put("c", value)
	w.refused(third, api.Full, "the store holds 0 bytes and may hold 1000; delete something first")
	require.Equal(t, last, w.status().Last, "nothing was added to the log")
	w.commit()
	w.done(first)
	w.done(second)
	w.refused(w.ask(`{"op":"append","key":"a","value":"`+value+`"}`), api.Full, "holds 930 bytes")
	shorter := w.put("a", "1")
	w.commit()
	w.done(shorter)
	removed := w.ask(`{"op":"delete","key":"b"}`)
	w.commit()
	w.done(removed)
	third = w.put("c", value)
	w.commit()
	w.done(third)
}

// The quota is the leader's: a server that follows stores what the leader sends,
// whatever its own cluster.json says. It sends clients to the leader.
func TestAFollowerHasNoQuota(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.server.quota.Limit = 1
	w.receive(2, 4, follow(1, 4, 3))
	w.flush()
	require.EqualValues(t, 3, w.status().Applied)
	w.refused(w.put("x", "1"), api.NotLeader, "n2 at a:2 leads term 4")
}

// follow is an AppendEntries with n puts that are committed.
func follow(from raft.Index, term raft.Term, n int) raft.AppendEntries {
	return raft.AppendEntries{Entries: entries(from, term, n), LeaderCommit: from + raft.Index(n) - 1}
}
