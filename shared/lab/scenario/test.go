// In the browser there are no tests, and testing would be linked in vain.

//go:build !js

package scenario

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

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

// The default numbers of seeds: for chaos, for chaos with -short, and for every
// other story. One seed is enough for an exhaustive story.
const (
	chaosSeeds = 10
	someSeeds  = 6
	fewSeeds   = 3
)

// Test plays all stories that a stage declares, over some seeds: more with the
// test flag -seeds. It fails if the stage breaks where it should survive,
// survives where it should break, or breaks in a different way than expected.
// It also plays each story twice with one seed and compares the traces byte by
// byte.
func Test(t *testing.T, s Stage) {
	t.Helper()
	// A run lives for a fraction of a second, on a heap of a few MB: collecting it
	// all the time would cost a fifth of the time.
	before := debug.SetGCPercent(400)
	t.Cleanup(func() { debug.SetGCPercent(before) })
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
	seeds := fewSeeds
	switch {
	case story.exhaustive:
		seeds = 1
	case story.Name == "chaos" && testing.Short():
		seeds = someSeeds
	case story.Name == "chaos":
		seeds = chaosSeeds
	case testing.Short():
		seeds = 1
	}
	if *seedsFlag > 0 {
		seeds = *seedsFlag
	}
	if story.exhaustive && testing.Short() {
		t.Skip("it tries every step, which takes long; run it without -short")
	}
	var mu sync.Mutex
	var total Coverage
	var first, again []byte
	var runs errgroup.Group
	runs.SetLimit(2)
	for seed := range uint64(seeds) {
		runs.Go(func() error {
			record := &first
			if seed > 0 {
				record = nil
			}
			result, err := playTest(s, story.Name, seed+1, record)
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
	runs.Go(func() error {
		_, err := playTest(s, story.Name, 1, &again)
		return err
	})
	if !story.exhaustive {
		runs.Go(func() error { return short(s, story.Name) })
	}
	if err := runs.Wait(); err != nil {
		t.Error(err)
	} else if err := same(first, again); err != nil {
		t.Errorf("%s is not deterministic in %s with seed 1: %v", s.Name, story.Name, err)
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

// playTest plays a run and, if record is not nil, keeps its trace there.
func playTest(s Stage, name string, seed uint64, record *[]byte) (Result, error) {
	if record == nil {
		return Play(s, name, seed, nil)
	}
	var b bytes.Buffer
	w := trace.NewWriter(&b)
	result, err := Play(s, name, seed, w.Emit)
	if err == nil {
		err = w.Flush()
	}
	*record = b.Bytes()
	return result, err
}

// maxLines is the longest story on a screen: the limit of a Digest plus the
// rest of a table or two.
const mostLines = trace.StoryLines + 12

// short returns an error if the story is too long or has no end.
func short(s Stage, name string) error {
	var b bytes.Buffer
	d := trace.NewDigest(&b, trace.StoryLines)
	result, err := Play(s, name, 1, d.Tell)
	if err = errors.Join(err, d.End()); err != nil {
		return err
	}
	switch lines := strings.Count(b.String(), "\n"); {
	case lines > mostLines:
		return fmt.Errorf("%s tells %s in %d lines; %d are enough", s.Name, name, lines, mostLines)
	case !strings.Contains(b.String(), result.Why):
		return fmt.Errorf("%s tells %s without its end, %q", s.Name, name, result.Why)
	}
	return nil
}

// same compares the traces of two runs with the same seed. They differ if a
// server uses hidden state, a real clock or the order of a map.
func same(one, two []byte) error {
	if bytes.Equal(one, two) {
		return nil
	}
	first, second := bytes.Split(one, []byte("\n")), bytes.Split(two, []byte("\n"))
	for i := range min(len(first), len(second)) {
		if !bytes.Equal(first[i], second[i]) {
			return fmt.Errorf("line %d of the trace is\n%s\nand then\n%s", i+1, first[i], second[i])
		}
	}
	return fmt.Errorf("the traces have %d and %d lines", len(first), len(second))
}
