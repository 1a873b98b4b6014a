package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// counter is a state machine whose hash is the number of entries that it has applied,
// times 10. hashed counts how often it was asked.
type counter struct{ applied, hashed uint64 }

func (c *counter) StateHash() uint64 {
	c.hashed++
	return 10 * c.applied
}

// replica is a server that applies entries.
type replica struct {
	counter
	hashes Hashes
	ticks  uint64
}

func (r *replica) apply(n int) {
	for range n {
		r.applied++
		r.hashes.Note(r.applied, r.ticks, r)
	}
}

func (r *replica) answer(t *testing.T) api.StateHashes {
	a, err := api.DecodeHashes(r.hashes.Answer(3, r.applied, r.ticks, r))
	require.NoError(t, err)
	require.Equal(t, uint64(3), a.ID)
	require.Equal(t, r.applied, a.Applied)
	for _, h := range a.Hashes {
		require.Equal(t, 10*h.Index, h.Hash)
	}
	return a
}

func indexes(a api.StateHashes) (all []uint64) {
	for _, h := range a.Hashes {
		all = append(all, h.Index)
	}
	return all
}

// Hashes cost nothing until somebody asks, and some time after that.
func TestHashesAreKeptOnlyForAWhile(t *testing.T) {
	r := &replica{ticks: 7}
	require.Empty(t, r.answer(t).Hashes, "nothing is applied")
	r.ticks += hashTicks
	r.apply(10_000)
	require.Zero(t, r.hashed)
	require.Equal(t, []uint64{10_000}, indexes(r.answer(t)))
	r.apply(1)
	require.Equal(t, []uint64{10_000}, indexes(r.answer(t)), "one hash per tick is enough")
	r.ticks++
	require.Equal(t, []uint64{10_000, 10_001}, indexes(r.answer(t)))
	for range 100 {
		r.ticks++
		require.Equal(t, []uint64{10_000, 10_001}, indexes(r.answer(t)), "it is the same state")
	}
	r.ticks += hashTicks - 1
	r.apply(1)
	require.Equal(t, uint64(3), r.hashed)
	r.ticks++
	r.apply(1000)
	require.Equal(t, uint64(3), r.hashed)
}

// Under load there are hashes at the same indexes everywhere, however the entries come
// together, and only so many.
func TestHashesUnderLoad(t *testing.T) {
	const entries = 50_000
	common := make(map[uint64]int)
	for _, together := range []int{97, 1003} {
		r := &replica{}
		seen := make(map[uint64]bool)
		for r.applied < entries {
			r.ticks++
			r.apply(min(together, int(entries-r.applied)))
			if r.ticks%10 == 0 {
				a := r.answer(t)
				require.LessOrEqual(t, len(a.Hashes), maxHashes)
				for _, i := range indexes(a) {
					seen[i] = true
				}
			}
		}
		for i := range seen {
			common[i]++
		}
		require.Less(t, r.hashed, r.ticks+entries/everyHash)
	}
	n := 0
	for _, servers := range common {
		n += servers - 1
	}
	require.Greater(t, n, entries/everyHash/2)
}

// holder is a server with a store.
type holder struct {
	counter
	store *kv.Store
}

func (h *holder) Store() *kv.Store { return h.store }

// A store is looked at part by part, and again for the next who asks.
func TestHashesLookAtTheMemory(t *testing.T) {
	h := &holder{store: kv.NewStore()}
	for i := range 30 {
		h.store.Apply(kv.Command{Op: kv.Put, Key: fmt.Sprint(i), Value: strings.Repeat("v", lookBytes/10)})
	}
	var hashes Hashes
	tick := uint64(1)
	ask := func() api.StateHashes {
		a, err := api.DecodeHashes(hashes.Answer(1, 0, tick, h))
		require.NoError(t, err)
		require.False(t, a.Damaged)
		return a
	}
	for range 2 {
		require.False(t, ask().Checked)
		require.False(t, ask().Checked, "one part per tick")
		tick++
		require.False(t, ask().Checked)
		for range 10 {
			tick++
			ask()
		}
		require.True(t, ask().Checked)
		tick += hashTicks
	}
}

// If entries are rare, there is a hash at each of them.
func TestHashesOfRareEntries(t *testing.T) {
	r := &replica{}
	r.answer(t)
	for range 5 {
		r.ticks++
		r.apply(1)
	}
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, indexes(r.answer(t)))
}
