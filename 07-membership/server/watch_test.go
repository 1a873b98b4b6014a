package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// told checks that a watch was answered, and returns what it was told.
func (w *world) told(a *answer) api.Events {
	w.t.Helper()
	w.done(a)
	e, err := api.DecodeEvents(a.responses[0].WithData().Data)
	require.NoError(w.t, err)
	return e
}

func TestAWatchWaitsForTheNextChange(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	before := uint64(w.status().Applied)
	all, prefixed := w.ask(`{"op":"watch"}`), w.ask(`{"op":"watch","prefix":"y"}`)
	w.flush()
	require.Empty(t, all.responses)
	w.put("x", "2")
	w.flush()
	require.Empty(t, all.responses, "it is not committed")
	w.commit()
	require.Equal(t, api.Events{Events: []api.Event{{Index: before + 1, Key: "x", Value: "2"}}, Next: before + 2}, w.told(all))
	require.Empty(t, prefixed.responses)
	for range node.Ticks(watchPatience) {
		w.server.Tick()
		w.acknowledge(2)
	}
	w.flush()
	require.Equal(t, api.Events{Next: before + 2}, w.told(prefixed), "a client learns that the server is alive")
}

func TestAWatchGoesOnFromAnIndex(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.put("x", "2")
	w.commit()
	applied := uint64(w.status().Applied)
	a := w.ask(`{"op":"watch","from":1}`)
	require.Equal(t, api.Events{Events: []api.Event{{Index: applied - 1, Key: "x", Value: "1"}, {Index: applied, Key: "x", Value: "2"}}, Next: applied + 1}, w.told(a))
}

// A server that is cut off does not keep a client waiting for changes that it cannot
// hear of: the client goes to another server.
func TestAWatchLeavesAServerThatIsCutOff(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	for w.status().Leader != 0 { // nobody answers, so it steps down
		w.server.Tick()
		w.flush()
	}
	a := w.ask(`{"op":"watch"}`)
	for range node.Ticks(watchPatience) {
		require.Empty(t, a.responses)
		w.server.Tick()
		w.flush()
	}
	w.refused(a, api.Unavailable, "n1 knows no leader")
	b := w.ask(`{"op":"watch","from":1}`)
	require.NotEmpty(t, w.told(b).Events, "what it has, it still tells")
}

// Thousands of clients may wait while others read: a flush that applies nothing does
// not look at them.
func TestWatchesCostNothingWhileNothingChanges(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	a := w.ask(`{"op":"watch"}`)
	w.flush()
	w.server.watches.waiting[0].from = 0 // a look at it answers it: that is no longer remembered
	w.ask(`{"op":"get","key":"x","consistency":"stale"}`)
	w.flush()
	require.Empty(t, a.responses)
	w.server.Tick()
	w.flush()
	require.Len(t, a.responses, 1)
}
