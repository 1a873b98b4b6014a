package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
)

// talker sends to configured servers at each tick, and records what arrives.
type talker struct {
	counter
	world node.World
	to    map[uint64]uint64
	heard map[string]int
}

func (t talker) Tick() {
	if to := t.to[t.world.ID]; to != 0 {
		t.world.Send(to, []byte("hello"))
	}
}

func (t talker) Receive(from uint64, _ []byte) {
	t.heard[fmt.Sprintf("%d→%d", from, t.world.ID)]++
}

// A server can send to the members of its configuration, to servers that it
// names, and to servers that have reached it, but to no other.
func TestLinks(t *testing.T) {
	to, heard, worlds := make(map[uint64]uint64), make(map[string]int), make(map[uint64]node.World)
	w, err := New(Options{Seed: 1, Servers: 2, Spare: 2, Ops: toy.Ops, New: func(w node.World) (node.Server, error) {
		worlds[w.ID] = w
		return talker{counter{new(int)}, w, to, heard}, nil
	}})
	require.NoError(t, err)
	require.NoError(t, w.Restart(3))
	sees := func(from, receiver uint64, want bool) {
		t.Helper()
		clear(to)
		w.RunFor(20 * time.Millisecond)
		clear(heard)
		to[from] = receiver
		w.RunFor(100 * time.Millisecond)
		require.NoError(t, w.Err())
		require.Equal(t, want, heard[fmt.Sprintf("%d→%d", from, receiver)] > 0)
	}
	sees(1, 2, true)
	sees(1, 3, false)
	sees(3, 1, true)
	sees(1, 3, true)
	sees(2, 3, false)

	worlds[2].Connect([]node.Member{{ID: 3}, {ID: 2}, {ID: 99}})
	sees(2, 3, true)
	sees(2, 1, true)

	// After a restart, a server knows only its configuration.
	w.Crash(2)
	require.NoError(t, w.Restart(2))
	sees(2, 3, false)
	require.Equal(t, []node.Member{{ID: 3, Address: Address(3)}}, worlds[3].Config.Joiners)
	require.Empty(t, worlds[2].Config.Joiners)
	require.Len(t, worlds[3].Config.Members, 2)
}

// A retired machine is not chosen for a fault, and does not come
// back.
func TestRetiredMachines(t *testing.T) {
	w, err := New(Options{Seed: 1, Servers: 3, Spare: 2, New: toy.New(toy.Flaws{Stale: true}), Ops: toy.Ops, Config: node.Config{Leader: 1}})
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3}, w.InUse())
	require.NoError(t, w.Restart(4))
	w.Retire(3)
	w.Retire(3)
	require.Equal(t, []uint64{1, 2, 4}, w.InUse())
	require.Equal(t, 1, w.Counters().Retired)
	require.NoError(t, w.Restart(3))
	require.False(t, w.Up(3))
	w.Unleash(everything)
	w.RunFor(5 * time.Second)
	require.NoError(t, w.Calm())
	require.NoError(t, w.Err())
	require.Equal(t, []uint64{1, 2, 4}, w.Running())

	// A client that searches for the leader asks only machines in use.
	c := w.Client(1)
	c.Follow, c.Patience = true, time.Second
	require.Equal(t, uint64(4), c.next(2))
	require.Equal(t, uint64(1), c.next(4))
	c.Knows = func() []uint64 { return []uint64{1, 2} }
	require.Equal(t, uint64(1), c.next(2))
	call := c.Begin(4, api.Request{Op: "put", Key: "x", Value: "1"})
	require.True(t, w.RunUntil(func() bool { return call.Done }, time.Second))
	require.NoError(t, w.Err())
	require.Nil(t, call.Response.Error)
}

// The client does not repeat an invalid request.
func TestARefusalIsFinal(t *testing.T) {
	asked := 0
	ops := api.Ops{api.Cancel: {}}
	w, err := New(Options{Seed: 1, Servers: 3, Ops: ops, New: func(node.World) (node.Server, error) { return refuser{counter{new(int)}, &asked}, nil }})
	require.NoError(t, err)
	c := w.Client(1)
	c.Follow, c.Retry = true, true
	_, err = c.Do(1, api.Request{Op: api.Cancel})
	require.ErrorContains(t, err, "no change is under way")
	require.Equal(t, 1, asked)
}

type refuser struct {
	counter
	asked *int
}

func (r refuser) Request(q api.Request, reply func(api.Response)) {
	*r.asked++
	reply(api.Failed(q.ID, &api.Error{Code: api.Refused, Message: "no change is under way", Definite: true}))
}

// A machine with a replaced disk starts from that disk, and the watchers are
// told.
func TestReplacedDisks(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	replaced := &replacements{}
	w.options.Watchers = append(w.options.Watchers, replaced)
	_, err := w.Client(1).Put(1, "x", "1")
	require.NoError(t, err)
	w.RunFor(time.Second)
	for _, d := range []*disk.Sim{w.Disk(2).Clone(), disk.NewSim("n2")} {
		w.Crash(2)
		w.ReplaceDisk(2, d)
		require.Same(t, d, w.Disk(2))
		before := d.Stats().Ops
		require.NoError(t, w.Restart(2))
		w.RunFor(time.Second)
		_, err = w.Client(1).Put(1, "x", "2")
		require.NoError(t, err)
		w.RunFor(time.Second)
		require.Greater(t, d.Stats().Ops, before)
	}
	require.Equal(t, []uint64{2, 2}, replaced.of)
	require.Equal(t, 2, w.Counters().Replaced)
}

// replacements records the machines whose disks were replaced.
type replacements struct{ of []uint64 }

func (r *replacements) Started(uint64)                          {}
func (r *replacements) Stopped(uint64, bool)                    {}
func (r *replacements) Stepped(uint64, node.Server, bool) error { return nil }
func (r *replacements) Replaced(id uint64)                      { r.of = append(r.of, id) }
