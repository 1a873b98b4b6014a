package rules

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/longtest"
)

var (
	seeds   = flag.Int("seeds", 0, "how many random runs TestRandom plays; 0 is as many as the stage asks for, or a fifth of them without RAFTSTEPS_LONG=1")
	oneSeed = flag.Uint64("seed", 0, "if not 0, the one run that TestRandom plays, with its trace")
)

// Random is what only a stage does in random runs.
type Random[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	// Runs is how many runs a long test plays, Own how many of a thousand steps
	// may at most be the stage's own.
	Runs, Own int

	// MustHappen is what a long test must come to.
	MustHappen []string

	// Joiners: so many servers, less one, may start outside of the cluster. SetUp
	// is told how many are in it.
	Joiners int
	SetUp   func(w *World[R, E, M, S], members int)

	// Step is the stage's own kind of random step.
	Step func(w *World[R, E, M, S], s *Server[R, E, M, S])

	// Repair ends what disturbs a server; Calm does what somebody must do after
	// that so that the cluster continues by itself.
	Repair func(w *World[R, E, M, S], s *Server[R, E, M, S])
	Calm   func(w *World[R, E, M, S])

	// Waits reports whether a client of a server still waits for an answer.
	Waits func(s *Server[R, E, M, S]) bool

	// Deciding returns the servers that must agree in the end; without it, all.
	// Agreed checks a cluster that does.
	Deciding func(w *World[R, E, M, S]) []*Server[R, E, M, S]
	Agreed   func(w *World[R, E, M, S])
}

// TestRandom plays random runs and checks the invariants after every step:
// messages that get lost, arrive twice or late, partitions, crashes in and
// between saves, several inputs in one save. Then the disturbance ends, and the
// servers must agree and answer. The same seed gives the same run.
func (g *Stage[R, E, M, S]) TestRandom(t *testing.T) {
	t.Helper()
	counts := map[string]int{}
	if *oneSeed != 0 {
		g.playRandom(t, *oneSeed, counts, func(line string) { t.Log(line) })
		return
	}
	runs := *seeds
	if runs == 0 {
		runs = longtest.Pick(g.Random.Runs/5, g.Random.Runs)
	}
	if testing.Short() {
		runs = min(runs, g.Random.Runs/5)
	}
	for seed := range uint64(runs) {
		g.playRandom(t, seed+1, counts, nil)
	}
	require.True(t, g.traceOf(t, 1) == g.traceOf(t, 1), "the same seed gives another run: go test ./raft -run Random -v -seed 1")
	t.Log(counts)
	if runs < g.Random.Runs {
		return // so few runs need not come to every case
	}
	// A test that never comes to a case proves nothing about it.
	for _, what := range append(g.Random.MustHappen, "committed", "crash", "power cut in a save", "lost", "duplicated", "partition", "held") {
		require.NotZero(t, counts[what], "%s: it never happened", what)
	}
}

// traceOf returns the trace of a random run.
func (g *Stage[R, E, M, S]) traceOf(t *testing.T, seed uint64) string {
	var trace strings.Builder
	g.playRandom(t, seed, map[string]int{}, func(line string) { trace.WriteString(line + "\n") })
	require.NotZero(t, trace.Len())
	return trace.String()
}

// World is a cluster in a random run.
type World[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	*Cluster[R, E, M, S]
	Rand *rand.Rand

	// Changes says that the members change.
	Changes bool

	odds     odds
	proposed int
}

// odds say how often what happens in a run.
type odds struct {
	// Of a thousand steps, so many are …
	tick, propose, crash, powercut, hold, cut, stage int

	// Of a hundred messages, so many get lost, and so many arrive twice. reach is
	// how many others a message may overtake.
	lose, repeat, reach int
}

func drawOdds(r *rand.Rand, own int) odds {
	return odds{
		tick: 100 + r.IntN(200), propose: 1 + r.IntN(60), crash: r.IntN(6) * r.IntN(2), powercut: r.IntN(6) * r.IntN(2),
		hold: r.IntN(40) * r.IntN(2), cut: r.IntN(10), stage: r.IntN(own),
		lose: r.IntN(15) * r.IntN(2), repeat: r.IntN(15) * r.IntN(2), reach: 1 + r.IntN(30)*r.IntN(2),
	}
}

// sizes are those of the clusters. Three servers hide mistakes that five show, and
// five hide some that three show; one and two are corners, and with four, half is
// not a majority.
var sizes = []int{1, 2, 3, 3, 3, 4, 5, 5}

// playRandom plays one run. What may happen in it, and how often, is drawn
// first, so that runs differ in kind.
func (g *Stage[R, E, M, S]) playRandom(t *testing.T, seed uint64, counts map[string]int, tell func(string)) {
	r := rand.New(rand.NewPCG(seed, 0))
	n := sizes[r.IntN(len(sizes))]
	joiners := 0
	if g.Random.Joiners > 0 {
		joiners = r.IntN(g.Random.Joiners)
	}
	w := &World[R, E, M, S]{Cluster: newCluster(g, n+joiners), Rand: r, odds: drawOdds(r, g.Random.Own)}
	if g.Random.SetUp != nil {
		g.Random.SetUp(w, n)
	}
	w.tell = tell
	w.Broken = func(name, format string, args ...any) {
		t.Fatalf("%s is broken: %s\nSee the run: go test ./raft -run Random -v -seed %d", name, fmt.Sprintf(format, args...), seed)
	}
	w.MaxBatch, w.Random = []int{1, 20, 1000}[r.IntN(3)], r.Uint64N
	for _, s := range w.Servers {
		w.Start(s)
	}
	for range 2500 {
		w.step()
	}
	committed := len(w.Ghost.Committed)
	w.calm(t, seed)
	counts["committed"] += committed
	for what, n := range w.Counts {
		counts[what] += n
	}
}

// step does one thing at random.
func (w *World[R, E, M, S]) step() {
	s := w.Servers[w.Rand.IntN(len(w.Servers))]
	x := w.Rand.IntN(1000)
	for _, kind := range []struct {
		often int
		do    func(*Server[R, E, M, S])
	}{
		{w.odds.tick, func(s *Server[R, E, M, S]) { w.Input(s, R.Tick) }},
		{w.odds.propose, w.proposeSomewhere},
		{w.odds.crash, w.Crash},
		{w.odds.powercut, func(s *Server[R, E, M, S]) { s.PowerFails = w.Rand.IntN(4) }},
		{w.odds.hold, func(s *Server[R, E, M, S]) { w.Counts["held"]++; s.Held = s.Up() }},
		{2 * w.odds.hold, w.release},
		{2*w.odds.crash + 3*w.odds.powercut, w.restart},
		{w.odds.cut, w.partition},
		{w.odds.stage, func(s *Server[R, E, M, S]) { w.stage.Random.Step(w, s) }},
	} {
		if x -= kind.often; x < 0 {
			kind.do(s)
			return
		}
	}
	w.deliver()
}

// proposeSomewhere proposes at a leader if there is one.
func (w *World[R, E, M, S]) proposeSomewhere(s *Server[R, E, M, S]) {
	for _, l := range w.Servers {
		if l.Leads() && w.Rand.IntN(2) == 0 {
			s = l
		}
	}
	w.proposed++
	command := fmt.Appendf(nil, "c%d%s", w.proposed, strings.Repeat(".", w.Rand.IntN(12)))
	w.Input(s, func(r R) { _ = r.ProposeCommand(command) })
}

func (w *World[R, E, M, S]) release(s *Server[R, E, M, S]) {
	if s.Held {
		s.Held = false
		w.flush(s)
	}
}

func (w *World[R, E, M, S]) restart(s *Server[R, E, M, S]) {
	if !s.Up() {
		w.Start(s)
	}
}

// partition cuts some directions between servers, or heals all.
func (w *World[R, E, M, S]) partition(*Server[R, E, M, S]) {
	w.Counts["partition"]++
	cut := map[[2]ID]bool{}
	if w.Rand.IntN(3) > 0 {
		for _, a := range w.Servers {
			for _, b := range w.Servers {
				cut[[2]ID{a.ID, b.ID}] = w.Rand.IntN(3) == 0
			}
		}
	}
	w.cut = func(from, to ID) bool { return cut[[2]ID{from, to}] }
}

// deliver lets one message arrive, be lost, or arrive and be repeated.
func (w *World[R, E, M, S]) deliver() {
	if len(w.Network) == 0 {
		return
	}
	m := w.Take(w.Rand.IntN(min(len(w.Network), w.odds.reach)))
	switch x := w.Rand.IntN(100); {
	case x < w.odds.lose || len(w.Network) > 300:
		w.Counts["lost"]++
		return
	case x < w.odds.lose+w.odds.repeat:
		w.Counts["duplicated"]++
		w.Network = append(w.Network, m)
	}
	w.Arrive(m)
}

// calm ends all disturbance. Before long there must be a leader, its new command
// must be on all servers, and nobody may still wait.
func (w *World[R, E, M, S]) calm(t *testing.T, seed uint64) {
	hooks := &w.stage.Random
	w.cut = func(ID, ID) bool { return false }
	for _, s := range w.Servers {
		s.PowerFails = -1
		w.restart(s)
		w.release(s)
		if hooks.Repair != nil {
			hooks.Repair(w, s)
		}
	}
	w.Settle()
	if hooks.Calm != nil {
		hooks.Calm(w)
	}
	for i := range 200 {
		for _, s := range w.Servers {
			w.Input(s, R.Tick)
		}
		w.Settle()
		if w.agreed() {
			if hooks.Agreed != nil {
				hooks.Agreed(w)
			}
			return
		}
		for _, s := range w.Servers {
			if i%20 == 19 {
				w.Input(s, func(r R) { _ = r.ProposeCommand([]byte("last")) })
			}
		}
	}
	require.Fail(t, "after the disturbance the servers do not agree, or somebody still waits", "go test ./raft -run Random -v -seed %d", seed)
}

// agreed reports whether all members have applied the same entries, the last
// command among them, and nobody waits.
func (w *World[R, E, M, S]) agreed() bool {
	members := w.Servers
	if f := w.stage.Random.Deciding; f != nil {
		members = f(w)
	}
	if len(members) == 0 {
		return false
	}
	n := len(members[0].Applied)
	if n == 0 || string(members[0].Applied[n-1].Payload()) != "last" {
		return false
	}
	for _, s := range members {
		if !SameLog(s.Applied, members[0].Applied) || w.stage.Random.Waits != nil && w.stage.Random.Waits(s) {
			return false
		}
	}
	return true
}
