package sim

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trace"
)

// What a message draws does not depend on the messages before it.
func TestEachMessageHasAStreamOfItsOwn(t *testing.T) {
	var some, all messages
	some.init(7)
	all.init(7)
	for n := range uint64(100) {
		rng := all.of(n)
		for range n {
			rng.Uint64()
		}
		if n%10 == 0 {
			require.Equal(t, all.of(n).Uint64(), some.of(n).Uint64())
		}
	}
	seen := make(map[uint64]bool)
	for n := range uint64(10_000) {
		seen[all.of(n).Uint64()>>32] = true
	}
	require.Greater(t, len(seen), 9_990, "neighbouring messages differ")
}

// chatter sends its tick to all others. Messages do not change its state, so
// only the world's randomness could let one message affect another.
type chatter struct {
	node.Server
	world node.World
	ticks int
}

func (c *chatter) Tick() {
	c.ticks++
	for to := uint64(1); to <= 5; to++ {
		if to != c.world.ID {
			c.world.Send(to, fmt.Appendf(nil, `{"tick":%d,"drawn":%d}`, c.ticks, c.world.Rand.Uint32()))
		}
	}
}

func (c *chatter) Receive(uint64, []byte) {}

func (c *chatter) Flush() error { return nil }

// chat returns the times of the faults and of the arrivals in a world with
// faults. lose is the number of the message from n1 to n2 to lose; 0 loses
// none.
func chat(t *testing.T, lose int) (strikes, arrivals []string) {
	w, err := New(Options{
		Seed: 5, Servers: 5, Ops: toy.Ops,
		New: func(world node.World) (node.Server, error) { return &chatter{world: world}, nil },
		Sink: func(e trace.Event) {
			switch e.Kind {
			case trace.Pause, trace.Cut:
				strikes = append(strikes, fmt.Sprint(e.At, " ", e.Kind, " ", e.Node, " ", e.From, " ", e.To))
			case trace.Deliver:
				arrivals = append(arrivals, fmt.Sprintf("%v n%d to n%d: %s", e.At, e.From, e.To, e.Message))
			}
		},
	})
	require.NoError(t, err)
	sent := 0
	w.Drop(func(from, to uint64, _ []byte) bool {
		if from == 1 && to == 2 {
			sent++
		}
		return from == 1 && to == 2 && sent == lose
	})
	w.Unleash(Faults{Loss: 0.02, Duplicate: 0.02, Reorder: 0.1, ReorderBy: 20 * time.Millisecond, Pause: 2, OneWay: 2, ClockJump: 1, MaxDown: 2, Skew: 0.1})
	w.RunFor(5 * time.Second)
	require.Greater(t, sent, lose)
	return strikes, arrivals
}

// "What if this message had been lost?" The new run differs only in the
// consequences of the loss: here that is the message's own arrival.
func TestALostMessageChangesNothingElse(t *testing.T) {
	strikes, arrivals := chat(t, 0)
	require.NotEmpty(t, strikes)
	for _, lose := range []int{1, 40, 123} {
		others, less := chat(t, lose)
		require.Equal(t, strikes, others)
		var missing []string
		for _, a := range arrivals {
			if !slices.Contains(less, a) {
				missing = append(missing, a)
			}
		}
		require.Len(t, missing, len(arrivals)-len(less), "nothing arrives at another time")
		require.LessOrEqual(t, len(missing), 2, "it and its duplicate")
		require.Regexp(t, `n1 to n2: {"tick"`, missing[0])
	}
}

// draws returns the next random value of each part of a new world, after the
// busy part has drawn many.
func draws(t *testing.T, busy string) map[string]uint64 {
	parts := make(map[string]func() uint64)
	w, err := New(Options{Seed: 5, Servers: 3, Ops: toy.Ops, New: func(world node.World) (node.Server, error) {
		parts[node.Name(world.ID)] = world.Rand.Uint64
		return counter{new(int)}, nil
	}})
	require.NoError(t, err)
	parts["story"] = w.Rand().Uint64
	for id := uint64(1); id <= 3; id++ {
		c := w.Client(id)
		parts[fmt.Sprint("client ", id)] = c.rng.Uint64
		parts[fmt.Sprint("connection ", id)] = func() uint64 { return uint64(delay(c)) }
	}
	if busy != "" {
		parts[busy]()
	}
	drawn := make(map[string]uint64)
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		if part != busy {
			drawn[part] = parts[part]()
		}
	}
	return drawn
}

// delay returns the travel time of a client's next request.
func delay(c *Client) time.Duration {
	c.Begin(1, api.Request{Op: kv.Get, Key: "x"})
	for _, e := range c.world.queue.heap {
		if e.kind == evRequest && e.attempt.call.client == c && e.attempt.id == c.requests {
			return e.at - c.world.now
		}
	}
	return 0
}

// If one part draws more random values, the other parts draw the same as
// before.
func TestEachPartHasAStreamOfItsOwn(t *testing.T) {
	want := draws(t, "")
	for busy := range want {
		for part, drawn := range draws(t, busy) {
			require.Equal(t, want[part], drawn, "%s draws, and then %s draws something else", busy, part)
		}
	}
}

// power is math.Pow up to the last digits, and those are the same on every processor.
func TestPower(t *testing.T) {
	for _, base := range []float64{1.5, 10, 200, 300} {
		for _, exponent := range []float64{0, 0.001, 0.25, 1.0 / 3, 0.5, 0.75, 0.999999} {
			require.InEpsilon(t, math.Pow(base, exponent), power(base, exponent), 1e-13)
		}
	}
	require.Equal(t, "4012dab614b30f27", strconv.FormatUint(math.Float64bits(power(300, 0.27182818)), 16))
}
