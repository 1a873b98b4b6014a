package raft

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	seeds   = flag.Int("seeds", 1500, "how many random runs TestRandom plays")
	oneSeed = flag.Uint64("seed", 0, "if not 0, the one run that TestRandom plays, with its trace")
)

// TestRandom plays random runs and checks the invariants after every step:
// messages that get lost, arrive twice or late, partitions, crashes in and
// between saves, several inputs in one save. Then the disturbance ends, and the
// servers must agree and answer. The same seed gives the same run.
func TestRandom(t *testing.T) {
	counts := map[string]int{}
	if *oneSeed != 0 {
		playRandom(t, *oneSeed, counts, func(line string) { t.Log(line) })
		return
	}
	runs := *seeds
	if testing.Short() {
		runs /= 5
	}
	for seed := range uint64(runs) {
		playRandom(t, seed+1, counts, nil)
	}
	t.Log(counts)
	if testing.Short() {
		return // so few runs need not come to every case
	}
	// A test that never comes to a case proves nothing about it.
	for _, what := range append(mustHappen, "committed", "crash", "power cut in a save", "lost", "duplicated", "partition", "held") {
		require.NotZero(t, counts[what], "%s: it never happened", what)
	}
}

// world is a cluster in a random run.
type world struct {
	*cluster
	rand *rand.Rand

	odds odds

	proposed int
}

// odds say how often what happens in a run.
type odds struct {
	// Of a thousand steps, so many are …
	tick, propose, crash, powercut, hold, cut, stage int

	// Of a hundred messages, so many get lost, and so many arrive twice. reach is
	// how many others a message may overtake.
	lose, repeat, reach int

	// changes says that the members change.
	changes bool
}

func drawOdds(r *rand.Rand) odds {
	return odds{
		tick: 100 + r.IntN(200), propose: 1 + r.IntN(60), crash: r.IntN(6) * r.IntN(2), powercut: r.IntN(6) * r.IntN(2),
		hold: r.IntN(40) * r.IntN(2), cut: r.IntN(10), stage: r.IntN(150),
		lose: r.IntN(15) * r.IntN(2), repeat: r.IntN(15) * r.IntN(2), reach: 1 + r.IntN(30)*r.IntN(2),
		changes: r.IntN(3) > 0,
	}
}

// sizes are those of the clusters. Three servers hide mistakes that five show, and
// five hide some that three show; one and two are corners, and with four, half is
// not a majority.
var sizes = []int{1, 2, 3, 3, 3, 4, 5, 5}

// playRandom plays one run. What may happen in it, and how often, is drawn
// first, so that runs differ in kind.
func playRandom(t *testing.T, seed uint64, counts map[string]int, tell func(string)) {
	r := rand.New(rand.NewPCG(seed, 0))
	n := sizes[r.IntN(len(sizes))]
	w := &world{cluster: newCluster(n + r.IntN(3)), rand: r, odds: drawOdds(r)}
	w.addJoiners(n)
	w.tell = tell
	w.broken = func(name, format string, args ...any) {
		t.Fatalf("%s is broken: %s\nSee the run: go test ./raft -run Random -v -seed %d", name, fmt.Sprintf(format, args...), seed)
	}
	batch := []int{1, 20, 1000}[r.IntN(3)]
	w.options = func(_ *server, o Options) Options {
		o.MaxBatch = batch
		return randomOptions(o, r)
	}
	for _, s := range w.servers {
		w.start(s)
	}
	for range 2500 {
		w.step()
	}
	committed := len(w.ghost.committed)
	w.calm(t, seed)
	counts["committed"] += committed
	for what, n := range w.counts {
		counts[what] += n
	}
}

// step does one thing at random.
func (w *world) step() {
	s := w.servers[w.rand.IntN(len(w.servers))]
	x := w.rand.IntN(1000)
	for _, kind := range []struct {
		often int
		do    func(*server)
	}{
		{w.odds.tick, func(s *server) { w.input(s, (*Raft).Tick) }},
		{w.odds.propose, w.proposeSomewhere},
		{w.odds.crash, w.cluster.crash},
		{w.odds.powercut, func(s *server) { s.powerFails = w.rand.IntN(4) }},
		{w.odds.hold, func(s *server) { w.counts["held"]++; s.held = s.raft != nil }},
		{2 * w.odds.hold, w.release},
		{2*w.odds.crash + 3*w.odds.powercut, w.restart},
		{w.odds.cut, w.partition},
		{w.odds.stage, w.stageStep},
	} {
		if x -= kind.often; x < 0 {
			kind.do(s)
			return
		}
	}
	w.deliver()
}

// proposeSomewhere proposes at a leader if there is one.
func (w *world) proposeSomewhere(s *server) {
	for _, l := range w.servers {
		if l.raft != nil && l.raft.role == Leader && w.rand.IntN(2) == 0 {
			s = l
		}
	}
	w.proposed++
	command := fmt.Appendf(nil, "c%d%s", w.proposed, strings.Repeat(".", w.rand.IntN(12)))
	w.input(s, func(r *Raft) { _, _, _ = r.Propose(command) })
}

func (w *world) release(s *server) {
	if s.held {
		s.held = false
		w.flush(s)
	}
}

func (w *world) restart(s *server) {
	if s.raft == nil {
		w.start(s)
	}
}

// partition cuts some directions between servers, or heals all.
func (w *world) partition(*server) {
	w.counts["partition"]++
	cut := map[[2]ID]bool{}
	if w.rand.IntN(3) > 0 {
		for _, a := range w.servers {
			for _, b := range w.servers {
				cut[[2]ID{a.id, b.id}] = w.rand.IntN(3) == 0
			}
		}
	}
	w.cut = func(from, to ID) bool { return cut[[2]ID{from, to}] }
}

// deliver lets one message arrive, be lost, or arrive and be repeated.
func (w *world) deliver() {
	if len(w.network) == 0 {
		return
	}
	m := w.take(w.rand.IntN(min(len(w.network), w.odds.reach)))
	switch x := w.rand.IntN(100); {
	case x < w.odds.lose || len(w.network) > 300:
		w.counts["lost"]++
		return
	case x < w.odds.lose+w.odds.repeat:
		w.counts["duplicated"]++
		w.network = append(w.network, m)
	}
	w.arrive(m)
}

// calm ends all disturbance. Before long there must be a leader, its new command
// must be on all servers, and nobody may still wait.
func (w *world) calm(t *testing.T, seed uint64) {
	w.cut = func(ID, ID) bool { return false }
	for _, s := range w.servers {
		s.powerFails, s.stage.damaged, s.stage.unlucky = -1, false, false
		w.restart(s)
		w.release(s)
		w.endSnapshot(s)
	}
	w.settle()
	w.stageCalm()
	for i := range 200 {
		for _, s := range w.servers {
			w.input(s, (*Raft).Tick)
		}
		w.settle()
		if w.agreed() {
			w.nobodyDisturbs()
			return
		}
		for _, s := range w.servers {
			if i%20 == 19 {
				w.input(s, func(r *Raft) { _, _, _ = r.Propose([]byte("last")) })
			}
		}
	}
	require.Fail(t, "after the disturbance the servers do not agree, or somebody still waits", "go test ./raft -run Random -v -seed %d", seed)
}

// agreed reports whether all members have applied the same entries, the last
// command among them, and nobody waits.
func (w *world) agreed() bool {
	members := w.deciding()
	if len(members) == 0 {
		return false
	}
	n := len(members[0].applied)
	if n == 0 || string(members[0].applied[n-1].Command) != "last" {
		return false
	}
	for _, s := range members {
		if !sameLog(s.applied, members[0].applied) || s.waits() {
			return false
		}
	}
	return true
}
