package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
)

// keeper is a talker that has a disk.
type keeper struct {
	talker
	own disk.Incarnation
}

func (k keeper) Incarnation() disk.Incarnation { return k.own }

// keepers returns a world of three servers with disks and a spare machine, and
// the messages that they received.
func keepers(t *testing.T, to map[uint64]uint64) (*World, map[string]int) {
	heard := make(map[string]int)
	w, err := New(Options{Seed: 1, Servers: 3, Spare: 1, Ops: toy.Ops, New: func(w node.World) (node.Server, error) {
		j, _, err := journal.Open(w.Disk, "journal", journal.Header{ID: w.ID, Incarnation: disk.Draw(w.Rand)})
		if err != nil {
			return nil, err
		}
		return keeper{talker{counter{new(int)}, w, to, heard}, j.Incarnation()}, nil
	}})
	require.NoError(t, err)
	return w, heard
}

// A server whose disk was replaced ends when it meets a server that knows its
// old disk, whichever sends first. The other server continues, and no message
// of the first one is delivered to it.
func TestAWipedServerIsDisowned(t *testing.T) {
	for _, speaker := range []uint64{1, 3} {
		to := map[uint64]uint64{3: 1}
		w, heard := keepers(t, to)
		w.RunFor(100 * time.Millisecond)
		require.NotZero(t, heard["3→1"])

		w.Crash(3)
		require.NoError(t, w.Restart(3))
		w.RunFor(100 * time.Millisecond)
		require.Empty(t, w.Stops(), "it came back with its disk")

		w.Crash(3)
		w.RunFor(100 * time.Millisecond) // what is on its way arrives
		w.ReplaceDisk(3, disk.NewSim("n3"))
		clear(to)
		to[speaker] = 4 - speaker
		clear(heard)
		w.Isolate(3)
		require.NoError(t, w.Restart(3))
		w.RunFor(100 * time.Millisecond)
		require.True(t, w.Up(3), "it has met nobody")
		w.HealAll()
		w.RunFor(100 * time.Millisecond)
		require.NoError(t, w.Err())
		require.Empty(t, heard)
		require.Len(t, w.Stops(), 1)
		require.ErrorContains(t, w.Ended(3), "n3 has lost its disk: n1 knows it with incarnation")
		require.True(t, w.Up(1))
	}
}

// A starting server meets the others before it sends a message.
func TestAWipedServerIsDisownedWhenItStarts(t *testing.T) {
	w, _ := keepers(t, nil)
	w.Crash(3)
	w.ReplaceDisk(3, disk.NewSim("n3"))
	require.NoError(t, w.Restart(3))
	require.ErrorContains(t, w.Ended(3), "n3 has lost its disk: n1 knows it with incarnation")
}

// A server that has never met it cannot detect the new disk.
func TestAStrangerTakesAnyDisk(t *testing.T) {
	to := map[uint64]uint64{}
	w, heard := keepers(t, to)
	for id := range uint64(3) {
		w.Crash(id + 1)
	}
	w.ReplaceDisk(3, disk.NewSim("n3"))
	to[4] = 3
	require.NoError(t, w.Restart(3))
	require.NoError(t, w.Restart(4))
	w.RunFor(100 * time.Millisecond)
	require.NotZero(t, heard["4→3"])
	require.Empty(t, w.Stops())
}

// A power cut during the write of a peer is a crash of the machine, not an
// error.
func TestAPowerCutWhileAPeerIsMet(t *testing.T) {
	to := map[uint64]uint64{4: 1}
	w, heard := keepers(t, to)
	w.PowerCutAt(1, 2)
	require.NoError(t, w.Restart(4))
	w.RunFor(100 * time.Millisecond)
	require.NoError(t, w.Err())
	require.False(t, w.Up(1))
	require.Empty(t, w.Stops())
	require.NoError(t, w.Restart(1))
	w.RunFor(100 * time.Millisecond)
	require.NotZero(t, heard["4→1"])
}
