package scenario

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// durable is a watcher that checks what is really on the servers' disks. After
// a flush it starts a second server from the data that would survive a power
// cut at this moment, and compares the two. Term, vote and log must be the
// same, because other servers rely on them from now on (I2, I12), and so must
// the configuration (I20).
type durable struct {
	new   node.Factory
	world *sim.World

	// since is the number of flushes since the last comparison.
	since int
}

// Started and Stopped implement sim.Watcher.
func (d *durable) Started(uint64)       {}
func (d *durable) Stopped(uint64, bool) {}

// between is the number of flushes between two comparisons. One more is added
// for each entry of the log, because recovery reads them all.
const between = 16

// Stepped makes a comparison after some of the flushes.
func (d *durable) Stepped(id uint64, s node.Server, flushed bool) error {
	live, ok := s.(node.Inspector)
	if !ok || !flushed || d.world == nil {
		return nil
	}
	var v node.State
	live.Inspect(&v)
	if d.since++; d.since < between+int(v.Last-v.SnapIndex) {
		return nil
	}
	d.since = 0
	twin, err := d.recover(id)
	if err != nil {
		return fmt.Errorf("%s would not start again after a power cut now: %w", node.Name(id), err)
	}
	return compare(v, live, twin.(node.Inspector))
}

// recover starts a server on a copy of the synced part of a disk. The server is
// connected to nothing.
func (d *durable) recover(id uint64) (node.Server, error) {
	disk := d.world.Disk(id).Clone()
	disk.CrashWorst()
	disk.CutPower(0)
	disk.FailSync(0)
	disk.Fill(-1)
	return d.new(node.World{
		ID: id, Config: d.world.ConfigOf(id), Disk: disk, Rand: rand.New(rand.NewPCG(1, 1)),
		Send:    func(uint64, []byte) {},
		Connect: func([]node.Member) {},
		Work:    func(func() error, func(error)) {},
	})
}

// compare returns an error if a recovered server differs from the running one.
func compare(v node.State, live, twin node.Inspector) error {
	var d node.State
	twin.Inspect(&d)
	name := node.Name(v.ID)
	switch {
	case d.Term != v.Term || d.Vote != v.Vote:
		return fmt.Errorf("I2 is broken: %s is in term %d with its vote for n%d, and has term %d and n%d on its disk", name, v.Term, v.Vote, d.Term, d.Vote)
	case d.Last != v.Last:
		return fmt.Errorf("I12 is broken: the log of %s ends at %d, and at %d on its disk", name, v.Last, d.Last)
	}
	for k := max(v.SnapIndex, d.SnapIndex) + 1; k <= v.Last; k++ {
		if a, b := live.Entry(k), twin.Entry(k); a.Term != b.Term || !bytes.Equal(a.Data, b.Data) {
			return fmt.Errorf("I12 is broken: %s has another entry %d on its disk than in its log", name, k)
		}
	}
	if a, b := v.Config, d.Config; !slices.Equal(a.Now, b.Now) || !slices.Equal(a.Next, b.Next) || !slices.Equal(a.Learners, b.Learners) {
		return fmt.Errorf("I20 is broken: %s goes by the configuration %+v, and would come back with %+v", name, a, b)
	}
	return nil
}
