package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/toy"
)

// What goes on by itself can be ended, each on its own.
func TestWhatStandsCanBeEnded(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	require.Zero(t, w.Loads())
	require.Zero(t, w.Plans())
	require.False(t, w.Filtered())
	require.False(t, w.Unleashed())

	w.StartLoad(DefaultLoad)
	w.RunFor(time.Second)
	require.Equal(t, 1, w.Loads())
	w.EndLoads()
	require.Zero(t, w.Loads())
	w.RunFor(10 * time.Second)
	asked := len(w.History())
	require.Greater(t, asked, 10)
	w.RunFor(10 * time.Second)
	require.Len(t, w.History(), asked, "no operation begins")

	happened := 0
	w.After(time.Second, func() { happened++ })
	w.After(3*time.Second, func() { happened++ })
	w.RunFor(2 * time.Second)
	require.Equal(t, 1, w.Plans())
	w.EndPlans()
	require.Zero(t, w.Plans())
	w.After(2*time.Second, func() { happened += 10 })
	w.RunFor(5 * time.Second)
	require.Equal(t, 11, happened, "what was planned before is forgotten, and nothing else")
	require.Zero(t, w.Plans())

	w.Drop(func(uint64, uint64, []byte) bool { return true })
	require.True(t, w.Filtered())
	w.Drop(nil)
	require.False(t, w.Filtered())

	w.Unleash(everything)
	w.RunFor(5 * time.Second)
	require.True(t, w.Unleashed())
	w.EndFaults()
	require.False(t, w.Unleashed())
	before := w.Counters()
	w.RunFor(time.Minute)
	after := w.Counters()
	require.Equal(t, before.Crashes, after.Crashes)
	require.Equal(t, before.PowerCuts, after.PowerCuts)
}
