// Package framing plays chaos with the real transports between simulated servers.
//
// Elsewhere, the simulator hands whole lines from server to server. Here, each line
// goes through the code that carries it in production: package udp or tcp, with
// handshakes, session keys, MACs, counters, parts of long messages, replay windows,
// pacing and reconnects. The simulator's faults hit what these send: datagrams are
// lost, repeated and reordered; connections stall, break and stay half open. In
// addition, somebody on the way changes, repeats, swaps and removes what is on its
// way. Servers crash together with their transports.
//
// Everything runs in a bubble of synctest, whose time is that of the simulator. The
// simulator's own judges check the servers and the clients as always. A ledger checks
// each line that a transport delivers.
//
// A seed decides which faults there are, and when, but it does not repeat a run
// byte for byte: the transports have goroutines, and their nonces are random.
package framing

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/udp"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/sim"
)

// The flags choose the seeds.
var (
	seedsFlag = flag.Int("framing.seeds", 0, "with how many seeds chaos is played over each real transport; 0 for the usual few")
	firstFlag = flag.Uint64("framing.first", 1, "the first of these seeds")
)

// usualSeeds and longSeeds are the default numbers of seeds.
const (
	usualSeeds = 2
	longSeeds  = 32
)

// story is what is played.
const story = "chaos"

// Test plays chaos over TCP and over UDP. It fails if the stage breaks, if a transport
// delivers what it must not deliver, or if some kind of fault never happened.
func Test(t *testing.T, s scenario.Stage) {
	t.Helper()
	for _, name := range []string{transport.TCP, udp.Name} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s, name)
		})
	}
}

func test(t *testing.T, s scenario.Stage, name string) {
	seeds := cmp.Or(*seedsFlag, longtest.Pick(usualSeeds, longSeeds))
	if testing.Short() && *seedsFlag == 0 {
		seeds = 1
	}
	var mu sync.Mutex
	var servers scenario.Coverage
	total := make(counts)
	t.Cleanup(func() { // after all seeds
		t.Logf("%d seeds: %v", seeds, servers)
		t.Logf("over %s: %v", name, total.list(name))
		if zero := total.zero(name); len(zero) > 0 && seeds >= usualSeeds {
			t.Errorf("in %d seeds these stayed 0, so nothing is proved about them: %s", seeds, strings.Join(zero, ", "))
		}
	})
	for seed := *firstFlag; seed < *firstFlag+uint64(seeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			var result scenario.Result
			var c *carrier
			synctest.Test(t, func(t *testing.T) { result, c = play(t, s, name, seed) })
			mu.Lock()
			defer mu.Unlock()
			servers.Add(result.Coverage)
			for n, count := range c.counts {
				total[n] += count
			}
			if !result.Survived {
				t.Errorf("%s over %s, seed %d: %s: %s\n%sagain, perhaps not in the same way: go test -run TestFraming/%[2]s . -framing.first %[3]d -framing.seeds 1",
					s.Name, name, seed, result.Kind, result.Why, c.log.String())
			}
		})
	}
}

// play plays one seed, in a bubble of synctest.
func play(t *testing.T, s scenario.Stage, name string, seed uint64) (scenario.Result, *carrier) {
	c := newCarrier(name, seed)
	result, err := scenario.Direct(s, story, seed, scenario.Direction{Carrier: func(w *sim.World) sim.Carrier {
		c.w = w
		return c
	}})
	c.close()
	if err != nil {
		t.Error(err)
	}
	return result, c
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 4 << 10

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b = append(l.b, b...); len(l.b) > 4*tailBytes {
		l.b = bytes.Clone(l.b[len(l.b)-tailBytes:])
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b[max(0, len(l.b)-tailBytes):])
}
