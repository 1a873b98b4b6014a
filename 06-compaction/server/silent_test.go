package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/06-compaction/raft"
)

// A follower that is down costs a leader little: what it lacks is sent once, and
// then each heartbeat is a message of a hundred bytes.
func TestASilentFollowerCostsLittle(t *testing.T) {
	w := lead(t, 3)
	for i := range 100 {
		w.put(fmt.Sprint("k", i), strings.Repeat("v", 1000))
	}
	w.commit()
	w.receive(3, w.status().CurrentTerm, raft.AppendEntriesReply{Refused: w.status().Last, ConflictIndex: 2})
	w.flush()
	batch := w.bytesTo(3)
	require.Greater(t, batch, 100*1000)

	for heartbeats := 0; heartbeats < 50; {
		w.forget()
		w.server.Tick()
		w.flush()
		if n := w.bytesTo(3); n > 0 {
			heartbeats++
			require.Less(t, n, 200)
			w.acknowledge(2)
		}
	}
	w.forget()
	w.receive(3, w.status().CurrentTerm, raft.AppendEntriesReply{Success: true, MatchIndex: 1})
	w.flush()
	require.Greater(t, w.bytesTo(3), 100*1000, "an answer brings what is missing")
}

// bytesTo is how long the messages to a server are.
func (w *world) bytesTo(id raft.ID) (n int) {
	for _, m := range w.sent {
		if m.To == id {
			n += len(appendMessage(nil, m))
		}
	}
	return n
}
