package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
)

func world(t testing.TB, seed uint64, flaws toy.Flaws, sink trace.Sink) *World {
	w, err := New(Options{
		Seed: seed, Servers: 5, New: toy.New(flaws), Ops: toy.Ops, Config: node.Config{Leader: 1}, Sink: sink,
	})
	require.NoError(t, err)
	return w
}

func value(t *testing.T, c *Client, server uint64, key string) string {
	t.Helper()
	r, err := c.Get(server, key)
	if err != nil {
		return err.Error()
	}
	return r.Value
}

func TestAWriteReachesAllServers(t *testing.T) {
	w := world(t, 1, toy.Flaws{Stale: true}, nil)
	c := w.Client(1)
	r, err := c.Put(1, "x", "1")
	require.NoError(t, err)
	require.Equal(t, uint64(1), r.Index)
	w.RunFor(time.Second)
	for _, id := range w.IDs() {
		require.Equal(t, "1", value(t, c, id, "x"))
	}
	require.NoError(t, w.Err())
	require.Positive(t, w.Counters().Delivered)
	require.Len(t, w.History(), 6)
	first := w.History()[0]
	require.Less(t, first.Invoke, first.Return)
	require.Less(t, first.Return, w.History()[1].Invoke, "what follows begins later")
}

// chaosTrace returns the trace file of a run with all faults.
func chaosTrace(t testing.TB, seed uint64, flaws toy.Flaws) string {
	var b bytes.Buffer
	file := trace.NewWriter(&b)
	w := world(t, seed, flaws, file.Emit)
	chaos(t, w, time.Second)
	require.NoError(t, file.Flush())
	return b.String()
}

// everything has all faults at once.
var everything = Faults{
	Loss: 0.05, Duplicate: 0.05, Reorder: 0.1, ReorderBy: 50 * time.Millisecond, Break: 0.01, Crash: 1, PowerCut: 4, Blackout: 0.3,
	Downtime: [2]time.Duration{50 * time.Millisecond, 300 * time.Millisecond},
	Pause:    1, ClockJump: 1, SlowDisk: 1, Partition: 0.5, OneWay: 1, Skew: 0.1, MaxDown: 2,
}

func chaos(t testing.TB, w *World, d time.Duration) {
	w.Unleash(everything)
	load := DefaultLoad
	load.Think[1] = 60 * time.Millisecond
	g := w.StartLoad(load)
	w.RunFor(d)
	g.Stop()
	require.NoError(t, w.Err())
	require.NoError(t, w.Calm())
	require.True(t, w.RunUntil(g.Idle, 30*time.Second), "%v", w.Err())
}

func TestSameSeedSameRunByteForByte(t *testing.T) {
	for seed := range uint64(2) {
		first, second := chaosTrace(t, seed, toy.Flaws{}), chaosTrace(t, seed, toy.Flaws{})
		if first != second {
			t.Fatalf("seed %d: the traces differ: %s", seed, firstDifference(first, second))
		}
		require.NotEqual(t, first, chaosTrace(t, seed+1000, toy.Flaws{}), "another seed is another run")
	}
}

// The comparison must detect differences: a server that sends in map order
// gives a different run each time.
func TestMapOrderChangesTheTrace(t *testing.T) {
	first := chaosTrace(t, 1, toy.Flaws{Disordered: true})
	for range 10 {
		if chaosTrace(t, 1, toy.Flaws{Disordered: true}) != first {
			return
		}
	}
	t.Fatal("eleven runs in the order of a map gave the same trace")
}

func firstDifference(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(la), len(lb)) {
		if la[i] != lb[i] {
			return fmt.Sprintf("line %d:\n%s\n%s", i+1, la[i], lb[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(la), len(lb))
}

// A toy without flaws survives all faults.
func TestChaosJudgesTheToy(t *testing.T) {
	var all Counters
	creates := make(map[api.Code]int)
	for seed := range uint64(8) {
		w := world(t, seed, toy.Flaws{}, nil)
		chaos(t, w, 2*time.Second)
		require.NoError(t, check.Linearizable(w.History(), check.LinearLimit), "seed %d", seed)
		for _, o := range w.History() {
			if o.Request.Op == kv.Create && o.Response.Error != nil {
				creates[o.Response.Error.Code]++
			} else if o.Request.Op == kv.Create {
				creates["done"]++
			}
		}
		all.Add(w.Counters())
	}
	require.Empty(t, all.Zero("clock_jumps", "power_cuts_in_flush", "reordered", "duplicated", "crashes", "torn", "breaks",
		"refusals", "cuts", "heals", "pauses", "restarts", "lost"), "%+v", all)
	require.Greater(t, creates["done"], 10)
	require.Greater(t, creates[api.Exists], 10)
}

// A swarm has some faults in each run, and every fault in some run.
func TestSwarmDrawsDifferentFaults(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var with, without int
	for range 100 {
		f := Swarm(r, 5)
		require.NotZero(t, f.MaxDown)
		for _, p := range []float64{f.Loss, f.Duplicate, f.Reorder, f.Break, f.Crash, f.PowerCut, f.Blackout, f.Pause, f.ClockJump, f.SlowDisk, f.Partition, f.OneWay, f.Skew} {
			require.GreaterOrEqual(t, p, 0.0)
			if p > 0 {
				with++
			} else {
				without++
			}
		}
	}
	require.InDelta(t, with, without, 300)
}

func TestChaosFindsTheFlaws(t *testing.T) {
	for name, flaws := range map[string]toy.Flaws{
		"forgets": {Forgets: true},
		"twice":   {Twice: true},
		"stale":   {Stale: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				w := world(t, seed, flaws, nil)
				w.Unleash(everything)
				l := DefaultLoad
				l.ReadAnywhere = true
				w.StartLoad(l)
				w.RunFor(2 * time.Second)
				if w.Err() != nil || check.Linearizable(w.History(), check.LinearLimit) != nil {
					return
				}
			}
			t.Fatal("twenty seeds have not found it")
		})
	}
}

func TestInvalidLinesAreHarmless(t *testing.T) {
	w := world(t, 3, toy.Flaws{Garbled: true}, nil)
	chaos(t, w, time.Second)
	require.NoError(t, check.Linearizable(w.History(), check.LinearLimit))
}

func TestPowerCutKeepsWhatWasSynced(t *testing.T) {
	w := world(t, 1, toy.Flaws{Stale: true}, nil)
	c := w.Client(1)
	_, err := c.Put(1, "x", "1")
	require.NoError(t, err)
	w.PowerCut(w.IDs()...)
	require.Empty(t, w.Running())
	_, err = c.Get(1, "x")
	var refused *api.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, api.Unavailable, refused.Code)
	require.True(t, refused.Definite)
	for _, id := range w.IDs() {
		require.NoError(t, w.Restart(id))
	}
	w.RunFor(time.Second)
	for _, id := range w.IDs() {
		require.Equal(t, "1", value(t, c, id, "x"))
	}
}

func TestPowerCutInTheMiddleOfAWrite(t *testing.T) {
	for nth := 1; nth <= 3; nth++ {
		w := world(t, uint64(nth), toy.Flaws{}, nil)
		c := w.Client(1)
		_, err := c.Put(1, "x", "1")
		require.NoError(t, err)
		w.PowerCutAt(1, nth)
		_, err = c.Put(1, "x", "2")
		if nth == 3 {
			require.NoError(t, err, "a flush has two operations, a write and a sync")
			continue
		}
		var unknown *api.Error
		require.ErrorAs(t, err, &unknown)
		require.Equal(t, api.Unknown, unknown.Code, "the connection broke after the request had been read")
		require.False(t, w.Up(1))
		require.NoError(t, w.Restart(1))
		w.RunFor(time.Second)
		require.Contains(t, []string{"1", "2"}, value(t, c, 1, "x"))
		require.NoError(t, w.Err())
		require.Equal(t, 1, w.Counters().PowerCutsInFlush)
	}
}

func TestAFullDiskEndsTheServer(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	w.Disk(1).Fill(0)
	_, err := w.Client(1).Put(1, "x", "1")
	var unknown *api.Error
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, api.Unknown, unknown.Code)
	require.False(t, w.Up(1))
	require.ErrorContains(t, w.Ended(1), "no space left")
	require.Equal(t, 1, w.Counters().Stops)
	w.Disk(1).Fill(-1)
	require.NoError(t, w.Restart(1))
	require.NoError(t, w.Ended(1))
}

func TestPausedServersCatchUp(t *testing.T) {
	w := world(t, 1, toy.Flaws{Stale: true}, nil)
	c := w.Client(1)
	w.Pause(3)
	require.Equal(t, []uint64{1, 2, 4, 5}, w.Running())
	require.True(t, w.Up(3))
	_, err := c.Put(1, "x", "1")
	require.NoError(t, err)
	_, err = c.Get(3, "x")
	var late *api.Error
	require.ErrorAs(t, err, &late)
	require.Equal(t, api.Unknown, late.Code, "it is paused, so nobody knows")
	ticks := w.Counters().Ticks
	w.Resume(3)
	require.Equal(t, ticks+madeUp, w.Counters().Ticks)
	require.Equal(t, "1", value(t, c, 3, "x"), "what waited came before the next request")
	require.Equal(t, 1, w.Counters().Timeouts)
}

func TestCutsAndPartitions(t *testing.T) {
	w := world(t, 1, toy.Flaws{Stale: true}, nil)
	c := w.Client(1)
	put := func(v string) {
		_, err := c.Put(1, "x", v)
		require.NoError(t, err)
	}
	w.Cut(1, 3)
	put("1")
	require.Contains(t, value(t, c, 3, "x"), "not_found")
	w.Heal(1, 3)
	w.RunFor(time.Second)
	require.Equal(t, "1", value(t, c, 3, "x"))

	w.Partition([]uint64{1, 2, 3}, []uint64{4, 5})
	put("2")
	w.RunFor(time.Second)
	require.Equal(t, "1", value(t, c, 5, "x"))
	w.Isolate(1)
	_, err := c.Put(1, "x", "3")
	require.Error(t, err)
	w.HealAll()
	w.RunFor(time.Second)
	require.Equal(t, "3", value(t, c, 5, "x"), "unknown was the right answer")
}

// A cut also loses messages in transit, and they do not arrive when the link is
// healed later.
func TestACutLosesMessagesInTransit(t *testing.T) {
	var arrived, lost []string
	w := world(t, 1, toy.Flaws{Stale: true}, func(e trace.Event) {
		switch {
		case e.From != 1 || e.To != 3 || !strings.Contains(e.Message, `"late"`):
		case e.Kind == trace.Deliver:
			arrived = append(arrived, e.Message)
		case e.Kind == trace.Drop:
			lost = append(lost, e.Text)
		}
	})
	w.Slow(1, 3, 40*time.Millisecond)
	_, err := w.Client(1).Put(1, "x", "late")
	require.NoError(t, err)
	w.Cut(1, 3)
	require.Empty(t, lost, "it is on its way")
	w.RunFor(100 * time.Millisecond)
	require.Empty(t, arrived)
	require.Contains(t, lost, "the link is cut")
}

func TestASlowLinkIsOvertaken(t *testing.T) {
	var texts []string
	w := world(t, 1, toy.Flaws{}, func(e trace.Event) {
		if e.Kind == trace.Deliver && e.From == 1 && e.To == 2 {
			texts = append(texts, e.Text)
		}
	})
	w.Slow(1, 2, 40*time.Millisecond)
	_, err := w.Client(1).Put(1, "x", "1")
	require.NoError(t, err)
	w.Slow(1, 2, 0)
	_, err = w.Client(1).Put(1, "x", "2")
	require.NoError(t, err)
	w.RunFor(100 * time.Millisecond)
	require.Positive(t, w.Counters().Reordered)
	require.Contains(t, texts, "overtaken by a later one")
}

func TestDropIsAskedForEachMessage(t *testing.T) {
	w := world(t, 1, toy.Flaws{Stale: true}, nil)
	w.Drop(func(from, to uint64, line []byte) bool { return to == 4 })
	_, err := w.Client(1).Put(1, "x", "1")
	require.NoError(t, err)
	require.Contains(t, value(t, w.Client(1), 4, "x"), "not_found")
	require.Positive(t, w.Counters().Lost)
}

func TestLostAnswers(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	c := w.Client(1)
	w.LoseAnswers(1, 1)
	_, err := c.Append(1, "x", "a")
	var unknown *api.Error
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, api.Unknown, unknown.Code)
	require.False(t, unknown.Definite)

	// Without sessions, a retried append is applied twice.
	w.LoseAnswers(1, 1)
	again := w.Client(2)
	again.Retry = true
	_, err = again.Append(1, "y", "a")
	require.NoError(t, err)
	require.Equal(t, "aa", value(t, c, 1, "y"))
	require.Equal(t, 2, w.History()[1].Attempts)
	require.Error(t, check.Linearizable(w.History(), check.LinearLimit))
}

func TestAClientFollows(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	_, err := w.Client(1).Put(4, "x", "1")
	var not *api.Error
	require.ErrorAs(t, err, &not)
	require.Equal(t, api.NotLeader, not.Code)

	c := w.Client(2)
	c.Follow = true
	_, err = c.Put(4, "x", "1")
	require.NoError(t, err)
	o := w.History()[1]
	require.Equal(t, 2, o.Attempts)
	require.Equal(t, uint64(1), o.Server)

	// No server can lead any longer: the client tries all, and returns what it
	// knows.
	w.Crash(1)
	c.Patience = time.Second
	before := w.Now()
	_, err = c.Put(0, "x", "2")
	require.ErrorAs(t, err, &not)
	require.True(t, not.Definite)
	require.Greater(t, w.Now()-before, time.Second)
}

// A refusal after a lost attempt must not be definite.
func TestARefusalAfterALostAttemptIsUnknown(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	c := w.Client(1)
	c.Follow, c.Retry, c.Patience = true, true, 500*time.Millisecond
	w.LoseAnswers(1, 1)
	call := c.Begin(1, api.Request{Op: kv.Put, Key: "x", Value: "1"})
	w.RunUntil(func() bool { return call.maybe }, time.Second)
	w.Crash(1)
	w.RunUntil(func() bool { return call.Done }, 10*time.Second)
	require.Equal(t, api.Unknown, call.Response.Error.Code)
	require.False(t, call.Response.Error.Definite)
}

func TestAnsweringTwiceEndsTheRun(t *testing.T) {
	w := world(t, 1, toy.Flaws{Twice: true}, nil)
	_, err := w.Client(1).Put(1, "x", "1")
	require.ErrorContains(t, err, "twice")
	require.ErrorIs(t, err, w.Err())
	require.False(t, w.Step(), "nothing happens afterwards")
}

func TestBadRequestsAreRefusedByTheRealDecoder(t *testing.T) {
	w := world(t, 1, toy.Flaws{}, nil)
	_, err := w.Client(1).Do(1, api.Request{Op: "fly"})
	var bad *api.Error
	require.ErrorAs(t, err, &bad)
	require.Equal(t, api.BadRequest, bad.Code)
	require.Contains(t, bad.Message, `"fly"`)
}

func TestSpareMachinesJoinLater(t *testing.T) {
	w, err := New(Options{Seed: 1, Servers: 3, Spare: 1, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Config: node.Config{Leader: 1}})
	require.NoError(t, err)
	require.Len(t, w.Config().Members, 3)
	require.Equal(t, []uint64{1, 2, 3}, w.Running())
	require.NoError(t, w.Restart(4))
	require.Equal(t, []uint64{1, 2, 3, 4}, w.Running())
	w.RunFor(100 * time.Millisecond)
	require.NoError(t, w.Err())
}

func TestAServerThatDoesNotStart(t *testing.T) {
	bad := errors.New("the disk belongs to another cluster")
	o := Options{Seed: 1, Servers: 3, Ops: toy.Ops, New: func(node.World) (node.Server, error) { return nil, bad }}
	_, err := New(o)
	require.ErrorIs(t, err, bad)
	require.ErrorContains(t, err, "n1 does not start")
	_, err = New(Options{})
	require.Error(t, err)
}

func TestClocksRunAtTheirSpeed(t *testing.T) {
	counts := make([]int, 3)
	w, err := New(Options{Seed: 1, Servers: 3, Ops: toy.Ops, New: func(w node.World) (node.Server, error) {
		return counter{&counts[w.ID-1]}, nil
	}})
	require.NoError(t, err)
	w.SetClock(2, 2)
	w.SetClock(3, 0)
	w.RunFor(time.Second)
	require.InDelta(t, 100, counts[0], 1)
	require.InDelta(t, 200, counts[1], 2)
	require.Zero(t, counts[2])
	w.JumpClock(3, 7)
	require.Equal(t, 7, counts[2])
}

// counter counts its ticks.
type counter struct{ n *int }

func (c counter) Tick()                                     { *c.n++ }
func (c counter) Receive(uint64, []byte)                    {}
func (c counter) Request(api.Request, func(r api.Response)) {}
func (c counter) Flush() error                              { return nil }

func TestQueueIsOrdered(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var q queue
	var want, got []time.Duration
	for range 1000 {
		at := time.Duration(r.IntN(50))
		q.add(at, evCall)
		want = append(want, at)
		if r.IntN(3) == 0 {
			q.free(q.pop())
			slices.Sort(want)
			want = want[1:]
		}
	}
	var last *event
	for !q.empty() {
		e := q.pop()
		if last != nil {
			require.True(t, before(last, e))
		}
		got, last = append(got, e.at), e
	}
	slices.Sort(want)
	require.Equal(t, want, got)
}

// The cost of the world: virtual seconds per second, with a trivial server and
// with all faults.
func BenchmarkWorld(b *testing.B) {
	for _, c := range []struct {
		name  string
		chaos bool
	}{{"idle", false}, {"chaos", true}} {
		b.Run(c.name, func(b *testing.B) {
			var virtual time.Duration
			var events int
			for i := 0; b.Loop(); i++ {
				w := world(b, uint64(i), toy.Flaws{}, nil)
				if c.chaos {
					chaos(b, w, 4*time.Second)
				} else {
					w.RunFor(10 * time.Second)
				}
				virtual += w.Now()
				events += w.Counters().Events
			}
			b.ReportMetric(virtual.Seconds()/b.Elapsed().Seconds(), "virtual-s/s")
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
