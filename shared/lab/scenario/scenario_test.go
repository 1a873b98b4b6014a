package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/sim"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// toyStage is the toy as a stage, with some flaws. It survives the stories that
// need no election, but reads from followers are stale.
func toyStage(flaws toy.Flaws) Stage {
	flaws.Stale = true
	return Stage{
		Name: "toy", New: toy.New(flaws), Ops: toy.Ops, Appointed: true,
		Survives: []string{"restart", "missed-message", "reordered-messages", "refused-write", "minority-down", "full-disk", "failed-fsync", "crash-in-write"},
		Fails:    []string{"lost-reply", "leader-crash", "partitioned-leader", "split-vote", "stale-read"},
	}
}

func TestTheToyIsAsDeclared(t *testing.T) { Test(t, toyStage(toy.Flaws{})) }

// Each flaw breaks the story about it, in the expected way.
func TestEachFlawBreaksItsStory(t *testing.T) {
	for _, c := range []struct {
		flaws toy.Flaws
		story string
		kind  Kind
		why   string
	}{
		{toy.Flaws{Forgets: true}, "restart", LostWrite, "every server holds nothing, and x=1 was acknowledged"},
		{toy.Flaws{Hasty: true}, "refused-write", Phantom, "acknowledges x=1"},
		{toy.Flaws{Eager: true}, "reordered-messages", ReplicasDiffer, "the others x=2"},
		{toy.Flaws{}, "lost-reply", AppliedTwice, "abb"},
		{toy.Flaws{}, "leader-crash", Unavailable, "no server takes put d=1"},
		{toy.Flaws{}, "split-vote", Unavailable, "no server takes put x=2"},
		{toy.Flaws{}, "stale-read", StaleRead, "reads x=0 after x=1 was acknowledged"},
		{toy.Flaws{Twice: true}, "missed-message", Unsafe, "twice"},
	} {
		for seed := range uint64(5) {
			result, err := Play(toyStage(c.flaws), c.story, seed, nil)
			require.NoError(t, err)
			require.Equal(t, c.kind, result.Kind, "%+v", result)
			require.Contains(t, result.Why, c.why)
			require.False(t, result.Survived)
		}
	}
}

// Test complains about a stage that breaks where it should survive, one that
// survives where it should break, and one that breaks in the wrong way. It says
// how to repeat the run.
func TestWrongDeclarationsAreReported(t *testing.T) {
	play := func(flaws toy.Flaws, name string) (Stage, Scenario, Result) {
		s := toyStage(flaws)
		story, err := Find(name)
		require.NoError(t, err)
		result, err := Play(s, name, 3, nil)
		require.NoError(t, err)
		return s, story, result
	}
	s, story, broken := play(toy.Flaws{Forgets: true}, "restart")
	text := complaint(s, story, broken, true)
	require.Contains(t, text, "declared to survive restart and broke: lost write")
	require.Contains(t, text, "✘", "the end of the story")
	require.Contains(t, text, "replay: go run ./toy scenario restart --seed 3")
	require.Contains(t, text, "watch:  go run ./toy lab --story restart --seed 3")
	require.Empty(t, complaint(s, story, broken, false), "it fails as declared")

	s, story, fine := play(toy.Flaws{}, "restart")
	require.Empty(t, complaint(s, story, fine, true))
	text = complaint(s, story, fine, false)
	require.Contains(t, text, "declared to fail restart and survived it")
	require.Contains(t, text, "--seed 3")

	s, story, wrong := play(toy.Flaws{Twice: true}, "missed-message")
	require.Contains(t, complaint(s, story, wrong, false), "in another way than the story's ([replicas differ]): unsafe")
}

func TestDeclarationsAreChecked(t *testing.T) {
	require.NoError(t, toyStage(toy.Flaws{}).check())
	require.ErrorContains(t, Stage{Name: "s", Survives: []string{"reboot"}}.check(), `no scenario "reboot"; there are restart, missed-message`)
	require.ErrorContains(t, Stage{Name: "s", Survives: []string{"restart"}, Fails: []string{"restart"}}.check(), "twice")
}

func TestPlayReportsErrors(t *testing.T) {
	_, err := Play(toyStage(toy.Flaws{}), "reboot", 1, nil)
	require.ErrorContains(t, err, "there are restart, ")
	_, err = Play(toyStage(toy.Flaws{}), "chaos", 1, nil)
	require.ErrorIs(t, err, ErrNotApplicable)
	bad := errors.New("no disk")
	s := Stage{Name: "s", Ops: toy.Ops, Survives: []string{"restart"}, New: func(node.World) (node.Server, error) { return nil, bad }}
	_, err = Play(s, "restart", 1, nil)
	require.ErrorIs(t, err, bad)
}

// A server that panics is a failure with a name, not the end of the program.
func TestAPanicIsAResult(t *testing.T) {
	s := toyStage(toy.Flaws{})
	s.New = func(w node.World) (node.Server, error) { return explosive{}, nil }
	result, err := Play(s, "restart", 1, nil)
	require.NoError(t, err)
	require.Equal(t, Panicked, result.Kind)
	require.Contains(t, result.Why, "boom")
}

// quitter ends itself after a while.
type quitter struct {
	explosive
	ticks *int
}

func (q quitter) Tick() { *q.ticks++ }
func (q quitter) Flush() error {
	if *q.ticks < 5 {
		return nil
	}
	return errors.New("it gives up")
}

// A server must not end itself while its disk works.
func TestAServerThatGivesUpIsUnsafe(t *testing.T) {
	s := toyStage(toy.Flaws{})
	s.New = func(w node.World) (node.Server, error) { return quitter{ticks: new(int)}, nil }
	result, err := Play(s, "missed-message", 1, nil)
	require.NoError(t, err)
	require.Equal(t, Unsafe, result.Kind)
	require.Contains(t, result.Why, "it gives up")
}

type explosive struct{}

func (explosive) Tick()                                     { panic("boom") }
func (explosive) Receive(uint64, []byte)                    {}
func (explosive) Request(api.Request, func(r api.Response)) {}
func (explosive) Flush() error                              { return nil }

// A story that never reached its case was not survived.
func TestAStoryThatMissesItsCaseIsAFailure(t *testing.T) {
	r, err := newRun(toyStage(toy.Flaws{}), Scenario{Name: "nothing", moves: []string{"crashes"}, script: func(*run) {}}, 1, Direction{})
	require.NoError(t, err)
	r.play()
	result := r.result()
	require.Equal(t, Missed, result.Kind)
	require.Contains(t, result.Why, "crashes")
}

func TestUnmovedCountersOfChaos(t *testing.T) {
	story, err := Find("chaos")
	require.NoError(t, err)
	require.Contains(t, unmoved(Stage{}, story, true, 10, Coverage{}), "power_cuts_in_flush")
	require.NotContains(t, unmoved(Stage{}, story, true, 10, Coverage{}), "torn")
	require.Contains(t, unmoved(Stage{}, story, true, manySeeds, Coverage{}), "torn")
	c := Coverage{}
	c.Looks, c.Leaders = 1, 10
	require.Contains(t, unmoved(Stage{}, story, true, 10, c), "changes of the leader")
	require.Empty(t, unmoved(Stage{}, story, false, 10, Coverage{}))
}

// The order of a map in a server shows.
func TestMapOrderIsDetected(t *testing.T) {
	twice := func(f toy.Flaws) error {
		story, err := Find("missed-message")
		require.NoError(t, err)
		_, first, err := playHashed(toyStage(f), story.Name, nil)
		require.NoError(t, err)
		again, err := playTold(toyStage(f), story)
		require.NoError(t, err)
		if first == again {
			return nil
		}
		return differ(toyStage(f), story.Name)
	}
	require.NoError(t, twice(toy.Flaws{}))
	var err error
	for range 10 {
		if err = twice(toy.Flaws{Disordered: true}); err != nil && strings.Contains(err.Error(), "of the trace is") {
			break
		}
	}
	require.ErrorContains(t, err, "of the trace is")
}

// The story of a failure ends with the point at which the replicas differ.
func TestTheStoryOfAFailure(t *testing.T) {
	var b bytes.Buffer
	n := trace.NewNarrator(&b)
	_, err := Play(toyStage(toy.Flaws{Eager: true}), "reordered-messages", 1, n.Tell)
	require.NoError(t, err)
	require.NoError(t, n.Err())
	path := filepath.Join("testdata", "reordered-messages.txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to make the file")
	require.Empty(t, cmp.Diff(string(want), b.String()), "run the test with -update if the new text is right")
}

// liar saves nothing, but claims to have a term and a log.
type liar struct {
	explosive
	state node.State
	log   []node.Entry
}

func (l *liar) Tick()                     {}
func (l *liar) Inspect(s *node.State)     { *s = l.state }
func (l *liar) Entry(k uint64) node.Entry { return l.log[k-1] }

// A server's state that is only in memory is not on its disk, whatever the
// server claims.
func TestUnsavedStateIsDetected(t *testing.T) {
	for name, c := range map[string]struct {
		live liar
		want string
	}{
		"a term":  {liar{state: node.State{ID: 1, Term: 1}}, "I2 is broken"},
		"a vote":  {liar{state: node.State{ID: 1, Vote: 1}}, "I2 is broken"},
		"members": {liar{state: node.State{ID: 1, Config: node.Voters{Now: []uint64{1}}}}, "I20 is broken"},
		"a log":   {liar{state: node.State{ID: 1, Last: 1}, log: make([]node.Entry, 1)}, "I12 is broken"},
		"nothing": {liar{state: node.State{ID: 1}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := &durable{new: func(node.World) (node.Server, error) { return &liar{state: node.State{ID: 1}}, nil }}
			w, err := sim.New(sim.Options{Seed: 1, Servers: 1, Ops: toy.Ops, Watchers: []sim.Watcher{d},
				New: func(node.World) (node.Server, error) { return &c.live, nil }})
			require.NoError(t, err)
			d.world = w
			w.RunFor(time.Second)
			if c.want == "" {
				require.NoError(t, w.Err())
				return
			}
			require.ErrorContains(t, w.Err(), c.want)
		})
	}
	same := func(text string) *liar {
		return &liar{log: []node.Entry{{Term: 1, Data: []byte(text)}}, state: node.State{ID: 1, Last: 1}}
	}
	require.NoError(t, compare(node.State{ID: 1, Last: 1}, same("a"), same("a")))
	require.ErrorContains(t, compare(node.State{ID: 1, Last: 1}, same("a"), same("b")), "another entry 1")
}

func TestTheCatalogue(t *testing.T) {
	var names []string
	for _, s := range All() {
		require.NotEmpty(t, s.Claim, s.Name)
		require.NotEmpty(t, s.Breaks, s.Name)
		require.NotNil(t, s.script, s.Name)
		names = append(names, s.Name)
	}
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	require.Len(t, slices.Compact(sorted), len(names), "each name once")
	for _, name := range strings.Fields("restart missed-message reordered-messages refused-write minority-down conflicting-logs figure-8 lost-reply leader-crash partitioned-leader split-vote stale-read full-disk failed-fsync grow shrink replace removed-server partial-partition hand-over crash-in-change chaos") {
		require.Contains(t, names, name)
	}
}

func TestResultsInWordsAndInJSON(t *testing.T) {
	result, err := Play(toyStage(toy.Flaws{}), "lost-reply", 7, nil)
	require.NoError(t, err)
	require.Equal(t, "lost-reply: applied twice (seed 7): the client appended b once, and every server holds x=abb", result.String())
	text, err := json.Marshal(result)
	require.NoError(t, err)
	var back Result
	require.NoError(t, json.Unmarshal(text, &back))
	require.Empty(t, cmp.Diff(result, back))
	require.Contains(t, string(text), `"breaks":1`)

	result, err = Play(toyStage(toy.Flaws{}), "restart", 7, nil)
	require.NoError(t, err)
	require.Equal(t, "restart: survived (seed 7)", result.String())
	require.Contains(t, result.Coverage.String(), "restarts 5")
}
