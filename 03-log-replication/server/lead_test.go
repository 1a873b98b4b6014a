package server

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/03-log-replication/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
)

// lead starts a server that leads, by its configuration.
func lead(t *testing.T, members uint64) *world {
	w := start(t, members, disk.NewSim("d"))
	require.Equal(t, raft.Leader, w.status().Role)
	if members > 1 {
		w.acknowledge(2)
		w.acknowledge(3)
		w.flush()
	}
	w.forget()
	return w
}

// success is what a follower answers that took everything.
func success(a raft.AppendEntries) raft.AppendEntriesReply {
	return raft.AppendEntriesReply{Success: true, MatchIndex: a.PrevLogIndex + raft.Index(len(a.Entries))}
}

func TestTheConfiguredLeaderLeadsOnlyTheFirstTerm(t *testing.T) {
	w := lead(t, 3)
	require.EqualValues(t, 1, w.status().CurrentTerm)
	w.disk.CrashWorst()
	again := start(t, 3, w.disk)
	require.Equal(t, raft.Follower, again.status().Role, "somebody else may have been appointed")
}

func TestAnAppointment(t *testing.T) {
	w := lead(t, 3)
	w.receive(2, 5, raft.AppendEntries{})
	w.flush()
	w.refused(w.ask(`{"op":"lead","term":5}`), api.BadRequest, "it is in term 5")
	w.refused(w.ask(fmt.Sprintf(`{"op":"lead","term":%d}`, uint64(maxTermJump)+6)), api.BadRequest, "implausibly high")
	w.forget()
	a := w.ask(`{"id":1,"op":"lead","term":6}`)
	w.flush()
	w.done(a)
	require.Contains(t, string(a.responses[0].Data), `"role":"leader","term":6`)
	require.Equal(t, []string{"answer", "sync", "AppendEntries", "AppendEntries"}, w.order, "no message speaks of a term that is not on disk")
	require.Equal(t, []string{"leads"}, w.logged)
}

// A leader that is deposed and appointed again before it could answer anybody
// must not forget those who wait, although new commands take their places.
func TestAnAppointmentKeepsTheClients(t *testing.T) {
	w := lead(t, 3)
	first, second := w.put("x", "1"), w.put("y", "2")
	w.flush()
	w.receive(2, 2, raft.AppendEntries{Entries: entries(1, 2, 1)})
	w.done(w.ask(`{"op":"lead","term":3}`))
	third := w.put("z", "3")
	w.flush()
	w.refused(first, api.Unknown, "lost its leadership before a majority had the command")
	w.refused(second, api.Unknown, "lost its leadership before a majority had the command")
	require.Empty(t, third.responses)
	w.acknowledge(2)
	w.commit()
	w.done(third)
}
