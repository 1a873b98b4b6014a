// In the browser there are no tests, and testing would be linked in vain.

//go:build !js

package scenario

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/trace"
)

// seedsFlag is the number of seeds that Test plays. The flag exists only in
// test binaries.
var seedsFlag = func() *int {
	if !testing.Testing() {
		return new(int)
	}
	return flag.Int("seeds", 0, "how many seeds the scenarios are played with; 0 for the usual few")
}()

// The default numbers of seeds: for chaos and for every other story, and both in
// long tests. One seed is enough for an exhaustive story.
const (
	chaosSeeds     = 6
	storySeeds     = 1
	longChaosSeeds = 10
	longStorySeeds = 3
)

// Test plays all stories that a stage declares, over some seeds: more with the
// test flag -seeds. It fails if the stage breaks where it should survive,
// survives where it should break, or breaks in a different way than expected.
// It also plays each story twice with one seed and compares the traces byte by
// byte; a story that tries every step only in long tests.
func Test(t *testing.T, s Stage) {
	t.Helper()
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	for _, story := range catalog {
		survives := slices.Contains(s.Survives, story.Name)
		if !survives && !slices.Contains(s.Fails, story.Name) {
			continue
		}
		t.Run(story.Name, func(t *testing.T) {
			t.Parallel()
			testStory(t, s, story, survives)
		})
	}
}

// check returns an error if the declaration of the stage is wrong.
func (s Stage) check() error {
	seen := make(map[string]bool)
	for _, name := range slices.Concat(s.Survives, s.Fails) {
		if _, err := Find(name); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if seen[name] {
			return fmt.Errorf("%s names the scenario %s twice", s.Name, name)
		}
		seen[name] = true
	}
	return nil
}

func testStory(t *testing.T, s Stage, story Scenario, survives bool) {
	seeds := storySeeds
	long := longtest.On() && !testing.Short()
	switch {
	case story.exhaustive:
	case story.Name == "chaos" && long:
		seeds = longChaosSeeds
	case story.Name == "chaos":
		seeds = chaosSeeds
	case long:
		seeds = longStorySeeds
	}
	if *seedsFlag > 0 {
		seeds = *seedsFlag
	}
	if story.exhaustive && testing.Short() {
		t.Skip("it tries every step, which takes long; run it without -short")
	}
	var mu sync.Mutex
	var total Coverage
	var first, again hash
	twice := long || !story.exhaustive
	var runs errgroup.Group
	runs.SetLimit(2)
	for seed := range uint64(seeds) {
		runs.Go(func() error {
			var result Result
			var err error
			if seed == 0 && twice {
				result, first, err = playHashed(s, story.Name, nil)
			} else {
				result, err = Play(s, story.Name, seed+1, nil)
			}
			if err != nil {
				return err
			}
			if why := complaint(s, story, result, survives); why != "" {
				t.Error(why)
			}
			mu.Lock()
			defer mu.Unlock()
			total.Add(result.Coverage)
			return nil
		})
	}
	if twice {
		runs.Go(func() (err error) {
			again, err = playTold(s, story)
			return err
		})
	}
	if err := runs.Wait(); err != nil {
		t.Error(err)
	} else if first != again {
		t.Errorf("%s is not deterministic in %s with seed 1: %v", s.Name, story.Name, differ(s, story.Name))
	}
	t.Logf("%d seeds: %v", seeds, total)
	if zero := unmoved(s, story, survives, seeds, total); len(zero) > 0 {
		t.Errorf("in %d seeds these stayed 0, so nothing is proved about them: %s", seeds, strings.Join(zero, ", "))
	}
}

// chaosMoves has the counters that must not be 0 over the seeds of a chaos,
// rareMoves those that need more seeds.
var (
	chaosMoves = []string{"lost", "duplicated", "reordered", "cuts", "heals", "crashes", "power_cuts", "power_cuts_in_flush",
		"restarts", "pauses", "clock_jumps", "requests", "replies", "refusals", "breaks"}
	rareMoves = []string{"torn"}
)

// manySeeds is the number of seeds from which rare counters must not be 0.
const manySeeds = 50

// unmoved lists the counters that should not be 0 over the seeds of a chaos,
// but are.
func unmoved(s Stage, story Scenario, survives bool, seeds int, total Coverage) []string {
	if story.Name != "chaos" || !survives {
		return nil
	}
	moves := chaosMoves
	if seeds >= manySeeds {
		moves = slices.Concat(chaosMoves, rareMoves)
	}
	zero := total.Counters.Zero(moves...)
	// A server that cannot be inspected shows no logs.
	if total.Looks > 0 {
		if total.Leaders <= seeds {
			zero = append(zero, "changes of the leader")
		}
		if s.Compacts && total.Snapshots == 0 {
			zero = append(zero, "snapshots")
		}
		if s.Compacts && total.Installed == 0 {
			zero = append(zero, "installed")
		}
		if total.Truncated == 0 && seeds >= manySeeds {
			zero = append(zero, "truncated")
		}
		if s.changes() {
			zero = append(zero, total.unchanged(seeds >= manySeeds)...)
		}
	}
	return zero
}

// unchanged lists the counters of membership changes that should not be 0, but
// are.
func (c Coverage) unchanged(many bool) (zero []string) {
	for _, n := range []struct {
		name string
		n    int
		rare bool
	}{
		{"changes_begun", c.Changes, false},
		{"joint", c.Joint, false},
		{"changes_done", c.Changed, false},
		{"transfers", c.Transfers, false},
		{"retired", c.Retired, false},
		{"changes_cancelled", c.Cancelled, true},
		{"learners_installed", c.LearnersInstalled, true},
		{"leaders_removed", c.LeadersRemoved, true},
		{"configurations_rolled_back", c.RolledBack, true},
	} {
		if n.n == 0 && (many || !n.rare) {
			zero = append(zero, n.name)
		}
	}
	return zero
}

// complaint compares a run with the declaration of the stage. It returns "" if
// they agree.
func complaint(s Stage, story Scenario, result Result, survives bool) string {
	switch {
	case survives && !result.Survived:
		return fmt.Sprintf("%s is declared to survive %s and broke: %s: %s\n%s\nreplay: %s\nwatch:  %s",
			s.Name, story.Name, result.Kind, result.Why, ending(s, story.Name, result.Seed), result.Replay(), result.Watch())
	case !survives && result.Survived:
		return fmt.Sprintf("%s is declared to fail %s and survived it: %s\nreplay: %s\nwatch:  %s", s.Name, story.Name, story.Claim, result.Replay(), result.Watch())
	case !survives && !slices.Contains(story.Breaks, result.Kind):
		return fmt.Sprintf("%s fails %s as declared, but in another way than the story's (%v): %s: %s\nreplay: %s\nwatch:  %s",
			s.Name, story.Name, story.Breaks, result.Kind, result.Why, result.Replay(), result.Watch())
	}
	return ""
}

// ending returns the last lines of a run's story.
func ending(s Stage, name string, seed uint64) string {
	const shown = 40
	var b bytes.Buffer
	if _, err := Play(s, name, seed, trace.NewNarrator(&b).Tell); err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) > shown {
		lines = append([]string{fmt.Sprintf("(%d lines before)", len(lines)-shown)}, lines[len(lines)-shown:]...)
	}
	return strings.Join(lines, "\n")
}

// hash is the hash of a trace. The trace itself can be 100 MB long.
type hash [sha256.Size]byte

// playHashed plays a run with seed 1 and returns the hash of its trace. also may
// be nil.
func playHashed(s Stage, name string, also trace.Sink) (Result, hash, error) {
	h := sha256.New()
	w := trace.NewWriter(h)
	emit := w.Emit
	if also != nil {
		emit = func(e trace.Event) {
			w.Emit(e)
			also(e)
		}
	}
	result, err := Play(s, name, 1, emit)
	if err == nil {
		err = w.Flush()
	}
	return result, hash(h.Sum(nil)), err
}

// mostLines is the longest story on a screen: the limit of a Digest plus the
// rest of a table or two.
const mostLines = trace.StoryLines + 12

// playTold plays a run as it is told to a person, and returns the hash of its
// trace. It returns an error if the story is too long or has no end; an exhaustive
// story may be long.
func playTold(s Stage, story Scenario) (hash, error) {
	var b bytes.Buffer
	d := trace.NewDigest(&b, trace.StoryLines)
	result, sum, err := playHashed(s, story.Name, d.Tell)
	if err = errors.Join(err, d.End()); err != nil || story.exhaustive {
		return sum, err
	}
	switch lines := strings.Count(b.String(), "\n"); {
	case lines > mostLines:
		return sum, fmt.Errorf("%s tells %s in %d lines; %d are enough", s.Name, story.Name, lines, mostLines)
	case !strings.Contains(b.String(), result.Why):
		return sum, fmt.Errorf("%s tells %s without its end, %q", s.Name, story.Name, result.Why)
	}
	return sum, nil
}

// differ plays a run twice and returns an error that says where the traces differ.
// They differ if a server uses hidden state, a real clock or the order of a map.
func differ(s Stage, name string) error {
	var traces [2][][]byte
	for i := range traces {
		var b bytes.Buffer
		w := trace.NewWriter(&b)
		_, err := Play(s, name, 1, w.Emit)
		if err = errors.Join(err, w.Flush()); err != nil {
			return err
		}
		traces[i] = bytes.SplitAfter(b.Bytes(), []byte("\n"))
	}
	first, second := traces[0], traces[1]
	for i := range min(len(first), len(second)) {
		if !bytes.Equal(first[i], second[i]) {
			return fmt.Errorf("line %d of the trace is\n%sand then\n%s", i+1, first[i], second[i])
		}
	}
	if len(first) != len(second) {
		return fmt.Errorf("the traces have %d and %d lines", len(first), len(second))
	}
	return errors.New("the traces of two runs differed, and those of two further runs did not")
}
