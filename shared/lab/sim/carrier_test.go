package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
)

// post is a Carrier that takes 3 ms for each line, by its own clock.
type post struct {
	w      *World
	now    time.Duration
	bags   []bag
	linked map[uint64][]node.Member
	up     map[uint64]bool
}

type bag struct {
	at               time.Duration
	from, to, number uint64
	line             []byte
}

func (p *post) Started(id uint64) { p.up[id] = true }
func (p *post) Stopped(id uint64) { p.up[id] = false }

func (p *post) Linked(id uint64, members []node.Member) { p.linked[id] = members }

func (p *post) Send(from, to, number uint64, line []byte) {
	p.bags = append(p.bags, bag{p.w.Now() + 3*time.Millisecond, from, to, number, line})
}

func (p *post) Rest(until time.Duration) time.Duration {
	for _, b := range p.bags {
		until = min(until, b.at)
	}
	p.now = max(p.now, until)
	return p.now
}

func (p *post) Collect() (some bool) {
	for len(p.bags) > 0 && p.bags[0].at <= p.now {
		b := p.bags[0]
		p.bags, some = p.bags[1:], true
		p.w.Arrived(b.from, b.to, b.number, b.line)
	}
	return some
}

// A Carrier carries all lines, when its clock says so, and those of the world's network
// have no effect.
func TestCarrier(t *testing.T) {
	p := &post{linked: make(map[uint64][]node.Member), up: make(map[uint64]bool)}
	w, err := New(Options{Seed: 1, Servers: 3, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Config: node.Config{Leader: 1},
		Network: Network{Delay: DefaultNetwork.Delay, Loss: 1}, Carrier: func(w *World) Carrier {
			p.w = w
			return p
		}})
	require.NoError(t, err)
	require.Equal(t, map[uint64]bool{1: true, 2: true, 3: true}, p.up)
	require.Len(t, p.linked[2], 3)
	before := w.Now()
	_, err = w.Client(1).Put(1, "x", "1")
	require.NoError(t, err)
	require.GreaterOrEqual(t, w.Now()-before, 6*time.Millisecond, "there and back")
	require.Zero(t, w.Counters().Lost)

	network, passes := w.Path(1, 2)
	require.True(t, passes)
	require.Equal(t, 1.0, network.Loss)
	w.Cut(1, 2)
	w.Slow(1, 2, time.Second)
	network, passes = w.Path(1, 2)
	require.False(t, passes)
	require.Equal(t, time.Second+DefaultNetwork.Delay[0], network.Delay[0])
}

// A line that has arrived at a server that is down now, or that has started again, is
// lost.
func TestCarriedToAnotherLife(t *testing.T) {
	p := &post{linked: make(map[uint64][]node.Member), up: make(map[uint64]bool)}
	w, err := New(Options{Seed: 1, Servers: 3, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Config: node.Config{Leader: 1},
		Carrier: func(w *World) Carrier {
			p.w = w
			return p
		}})
	require.NoError(t, err)
	w.RunFor(20 * time.Millisecond)
	deliver := func(change func()) (delivered, lost int) {
		before := w.Counters()
		w.Arrived(1, 2, 1000, []byte(`{}`))
		change()
		w.RunUntil(func() bool { return w.Counters().Delivered+w.Counters().Lost > before.Delivered+before.Lost }, time.Millisecond)
		return w.Counters().Delivered - before.Delivered, w.Counters().Lost - before.Lost
	}
	delivered, lost := deliver(func() {})
	require.Equal(t, []int{1, 0}, []int{delivered, lost})
	delivered, lost = deliver(func() {
		w.Crash(2)
		require.False(t, p.up[2])
		require.NoError(t, w.Restart(2))
	})
	require.Equal(t, []int{0, 1}, []int{delivered, lost})
	delivered, lost = deliver(func() { w.Crash(2) })
	require.Equal(t, []int{0, 1}, []int{delivered, lost})
	w.Arrived(1, 9, 1, nil)
	require.ErrorContains(t, w.Err(), "a line from n1 arrives at n9; there are 3 machines")
}
