package rules

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/explore"
)

// TestExplore searches the rungs of the ladder, or once at the bounds that the
// flags give.
func (x *Explorer[R, E, M, X, B]) TestExplore(t *testing.T) {
	t.Helper()
	rungs := x.Ladder
	if explore.Given() {
		x.Chosen.Progress = explore.Progress
		rungs = []Rung[B]{x.Chosen}
	}
	for _, r := range rungs {
		t.Run(r.String(), func(t *testing.T) {
			t.Helper()
			if why := explore.Skip(r.Long); why != "" {
				t.Skip(why)
			}
			result := x.Search(t, r.Bounds)
			t.Log(result)
			if v := result.Violation; v != nil {
				t.Log(show(t, x.scriptOf(r.Bounds, v)))
			}
			require.NoError(t, result.Err(r.Must...))
		})
	}
}

// show writes a counterexample as a script into a file, and returns the commands that
// show it message by message. The lab cannot show it: a search orders messages and
// timeouts as no simulated network and clock would, and there is no server around
// the rules.
func show(t *testing.T, script string) string {
	t.Helper()
	file, err := os.CreateTemp("", "counterexample-*.txt")
	require.NoError(t, err)
	_, err = file.WriteString(script)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	const to = "raft/testdata/scripts/counterexample.txt"
	return fmt.Sprintf("as a script:\n%s\nTo see what each line causes, run this in the folder of the stage:\n\n"+
		"cp %s %s && go test ./raft -run TestScripts/counterexample -update; cat %s\n", script, file.Name(), to, to)
}

// Search runs one search.
func (x *Explorer[R, E, M, X, B]) Search(t *testing.T, b Bounds[B]) explore.Result[*Machine[R, X, E], M] {
	t.Helper()
	p, err := x.newModel(b)
	require.NoError(t, err)
	result, err := explore.Search(p, p.Bounds.Bounds)
	require.NoError(t, err)
	return result
}

// TestFolding searches with and without folding the servers' names, and compares
// what the searches saw.
func (x *Explorer[R, E, M, X, B]) TestFolding(t *testing.T) {
	t.Helper()
	if explore.Race {
		t.Skip("left out of runs with the race detector")
	}
	for i, b := range append([]Bounds[B]{
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 1},
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 1, Log: 1},
		{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 1, Log: 1, Grouped: 1},
	}, x.Folds...) {
		if why := explore.Skip(i > 0); why != "" {
			t.Log(why)
			break
		}
		states := func(named bool) (int, map[uint64]bool) {
			p, err := x.newModel(b)
			require.NoError(t, err)
			p.Bounds.Named = named
			w := &witness[R, E, M, X, B]{Model: p, seen: map[uint64]bool{}, servers: map[*Machine[R, X, E]]nameHashes{}}
			result, err := explore.Search(w, p.Bounds.Bounds)
			require.NoError(t, err)
			return int(result.States), w.seen
		}
		some, folded := states(false)
		all, named := states(true)
		require.Less(t, some, all)
		require.True(t, maps.Equal(named, folded), "%v: the search saw %d kinds of worlds, and %d when it folded the names", b, len(named), len(folded))
	}
}

// witness is the model, and notes what Check is shown, but for the names.
type witness[R Explorable[R, E, M], E Entry[E], M Message[E], X any, B comparable] struct {
	*Model[R, E, M, X, B]
	mu   sync.Mutex
	seen map[uint64]bool

	// servers are the hashes of the servers that Check was shown, in each order of
	// the names. The search makes few servers, and many worlds of them.
	servers map[*Machine[R, X, E]]nameHashes
}

// nameHashes has a hash for each order of the names of three servers.
type nameHashes [6]uint64

// names are those orders.
var names = [6][3]uint64{{1, 2, 3}, {1, 3, 2}, {2, 1, 3}, {2, 3, 1}, {3, 1, 2}, {3, 2, 1}}

// nameSeed is the seed of all their hashes.
var nameSeed = maphash.MakeSeed()

// hashNames returns the hashes of a server or of a history.
func (p *witness[R, E, M, X, B]) hashNames(of any) (hashes nameHashes) {
	var text []byte
	for i := range names {
		text = p.encoder.Append(text[:0], of, func(id uint64) uint64 { return names[i][id-1] })
		hashes[i] = maphash.Bytes(nameSeed, text)
	}
	return hashes
}

func (p *witness[R, E, M, X, B]) Check(w explore.World[*Machine[R, X, E], Past[E]]) error {
	history := p.hashNames(w.History)
	p.mu.Lock()
	defer p.mu.Unlock()
	var servers []nameHashes
	for _, s := range w.Servers {
		hashes, known := p.servers[s]
		if !known {
			hashes = p.hashNames(s)
			p.servers[s] = hashes
		}
		servers = append(servers, hashes)
	}
	// The least of all orders stands for the world under any names.
	least := ^uint64(0)
	for i := range names {
		world := []uint64{servers[0][i], servers[1][i], servers[2][i]}
		slices.Sort(world)
		least = min(least, maphash.Comparable(nameSeed, [4]uint64{world[0], world[1], world[2], history[i]}))
	}
	p.seen[least] = true
	return p.Model.Check(w)
}

// TestScripts finds the shortest way to each goal, writes it as a script and plays
// it: the same must happen there, for the same reasons.
func (x *Explorer[R, E, M, X, B]) TestScripts(t *testing.T, play func(t testing.TB, name, text string) string) {
	t.Helper()
	if explore.Race {
		t.Skip("TestExplore runs the same search with the race detector")
	}
	for _, b := range x.Goals {
		result := x.Search(t, b)
		require.NotNil(t, result.Violation, "there is no way to %q within %v", b.Goal, b)
		text := x.scriptOf(b, result.Violation)
		played := play(t, "the script to "+b.Goal, text)
		t.Logf("%s\n%s", result.Violation.Story, played)
		for _, step := range result.Violation.Path {
			for _, why := range step.Effect.Why() {
				_, rest, found := strings.Cut(played, why)
				require.True(t, found, "the script lacks, or has too early: %s\n%s", why, text)
				played = rest
			}
		}
	}
}

// TestForgetsNothing walks at random and takes each step twice: as the search
// does, from a copy of the state, and on servers that are never copied. If the two
// come to differ, a field is missing in the copy or in the encoding, or two values
// share memory that one of them changes.
func (x *Explorer[R, E, M, X, B]) TestForgetsNothing(t *testing.T) {
	t.Helper()
	seeds := uint64(40)
	if explore.Race {
		seeds = 8
	}
	for seed := range seeds {
		b := Bounds[B]{Bounds: explore.Bounds{Servers: 3, InFlight: 6, Restarts: 200, Reads: 200}, Terms: 9, Log: 6, Grouped: int(seed % 4), Single: seed%3 == 1}
		if x.Walk != nil {
			x.Walk(&b, seed)
		}
		p, err := x.newModel(b)
		require.NoError(t, err)
		p.walk(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

func (p *Model[R, E, M, X, B]) walk(t *testing.T, random *rand.Rand) {
	t.Helper()
	w := explore.World[*Machine[R, X, E], Past[E]]{}
	var live []*Machine[R, X, E]
	var flight []M
	unchanging := append([]string{"Raft.options", "Entry.Command", "Message.Body", "Disk.Snapshot", "Disk.whole"}, p.Unchanging...)
	for i := range p.Servers {
		w.Servers = append(w.Servers, p.Start(i+1))
		live = append(live, p.Start(i+1))
	}
	for range 400 {
		i := random.IntN(p.Servers)
		var m M
		in := explore.Input{}
		if len(flight) > 0 && random.IntN(3) > 0 {
			m = flight[random.IntN(len(flight))]
			i = p.To(m) - 1
			if p.MayDoubt != nil {
				in.Arg = uint16(random.IntN(2)) // whether it has heard from its leader
			}
		} else if all := p.Inputs(nil, w, i+1); len(all) > 0 {
			in = all[random.IntN(len(all))]
		} else {
			continue
		}
		before := p.encoder.Append(nil, w.Servers[i], nil)
		e := p.Do(w.Servers[i], in, m)[0]
		require.Equal(t, before, p.encoder.Append(nil, w.Servers[i], nil), "the step has changed the state it began in")
		require.Empty(t, explore.Shared(p.clone(w.Servers[i]), w.Servers[i], unchanging), "a clone shares memory with the original")
		require.NoError(t, e.Err)
		w.Servers[i] = e.Server
		inPlace := p.carryOut(p.clone(live[i]), live[i], in, m)
		live[i] = inPlace[0].Server
		require.Equal(t, p.encoder.Append(nil, e.Server, nil), p.encoder.Append(nil, live[i], nil), "the copy and the original part")
		require.Equal(t, len(e.Messages), len(inPlace[0].Messages))
		for j := range e.Messages {
			require.Equal(t, p.encoder.Append(nil, e.Messages[j], nil), p.encoder.Append(nil, inPlace[0].Messages[j], nil), "the messages of the copy and of the original part")
		}
		flight = append(flight, inPlace[0].Messages...)
		flight = flight[max(0, len(flight)-12):]
		if e.Beyond {
			return
		}
	}
}
