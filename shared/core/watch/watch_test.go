package watch

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// apply applies a command as a server does.
func apply(c *Changes, s *kv.Store, index uint64, command kv.Command) {
	c.Follow(s, 0)
	c.At(index)
	s.Apply(command)
}

// Only what has changed is an event: not a read, not a command that was refused.
func TestEventsAreWhatHasChanged(t *testing.T) {
	var c Changes
	s := kv.NewStore()
	for i, command := range []kv.Command{
		{Op: kv.Put, Key: "x", Value: "1"},
		{Op: kv.Cas, Key: "x", Old: "2", Value: "3"},
		{Op: kv.Append, Key: "x", Value: "1"},
		{Op: kv.Create, Key: "x", Value: "4"},
		{Op: kv.Delete, Key: "nothing"},
		{Op: kv.Cas, Key: "x", Old: "11", Value: "5"},
		{Op: kv.Create, Key: "y", Value: "6"},
		{Op: kv.Delete, Key: "x"},
	} {
		apply(&c, s, uint64(i)+1, command)
	}
	events, next, e := c.Since(1, 8, "")
	require.Nil(t, e)
	require.EqualValues(t, 9, next)
	require.Equal(t, []api.Event{{Index: 1, Key: "x", Value: "1"}, {Index: 3, Key: "x", Value: "11"}, {Index: 6, Key: "x", Value: "5"},
		{Index: 7, Key: "y", Value: "6"}, {Index: 8, Key: "x", Deleted: true}}, events)
	events, next, e = c.Since(7, 8, "x")
	require.Nil(t, e)
	require.EqualValues(t, 9, next)
	require.Equal(t, []api.Event{{Index: 8, Key: "x", Deleted: true}}, events)
	events, next, e = c.Since(20, 8, "")
	require.Nil(t, e)
	require.Empty(t, events)
	require.EqualValues(t, 20, next, "a server that is behind tells nothing about what is ahead")
}

// A client that asks page by page gets every change exactly once, or is told that some are
// gone. The memory is bounded.
func TestPages(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var c Changes
	s := kv.NewStore()
	var all []api.Event
	from, got, gone := uint64(1), 0, false
	for i := uint64(1); i <= 30_000; i++ {
		e := api.Event{Index: i, Key: fmt.Sprintf("k%d", random.IntN(10)), Value: strings.Repeat("v", random.IntN(2000))}
		apply(&c, s, i, kv.Command{Op: kv.Put, Key: e.Key, Value: e.Value})
		all = append(all, e)
		require.LessOrEqual(t, c.bytes, maxBytes)
		if random.IntN(1000) > 0 && i != 30_000 {
			continue
		}
		for {
			events, next, refusal := c.Since(from, i, "")
			if refusal != nil {
				require.Equal(t, api.Compacted, refusal.Code)
				require.Less(t, from, c.first)
				gone, from = true, c.first
				got = int(from) - 1
				continue
			}
			require.Equal(t, all[got:got+len(events)], events)
			got += len(events)
			from = next
			if from > i {
				break
			}
		}
		require.Equal(t, len(all), got)
	}
	require.False(t, gone, "the client is never far behind")
	events, _, refusal := c.Since(c.first, 30_000, "")
	require.Nil(t, refusal)
	require.Equal(t, c.first, events[0].Index, "every index has a change here, so this one must be remembered")
	_, _, refusal = c.Since(1, 30_000, "")
	require.NotNil(t, refusal)
	require.Contains(t, refusal.Message, fmt.Sprintf("the changes from %d on; list the keys, and watch from 30001", c.first))
}

// After a snapshot was installed, the changes that it covers are unknown.
func TestASnapshotHidesChanges(t *testing.T) {
	var c Changes
	old := kv.NewStore()
	apply(&c, old, 1, kv.Command{Op: kv.Put, Key: "x", Value: "1"})
	loaded := kv.NewStore()
	loaded.Apply(kv.Command{Op: kv.Put, Key: "x", Value: "7"})
	c.Follow(loaded, 9)
	_, _, refusal := c.Since(9, 9, "")
	require.NotNil(t, refusal)
	events, next, refusal := c.Since(10, 9, "")
	require.Nil(t, refusal)
	require.Empty(t, events)
	require.EqualValues(t, 10, next)
	c.At(10)
	loaded.Apply(kv.Command{Op: kv.Put, Key: "x", Value: "8"})
	events, _, _ = c.Since(10, 10, "")
	require.Equal(t, []api.Event{{Index: 10, Key: "x", Value: "8"}}, events)
}
