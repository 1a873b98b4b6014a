package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
)

// storied returns a stage with scenarios. Its servers replicate nothing, so they
// break in every story in which replicas must agree.
func storied(survives, fails []string) Stage {
	s := stages["92-cluster"]
	s.Scenarios = &scenario.Stage{New: s.New, Ops: s.Ops, Appointed: true, Survives: survives, Fails: fails}
	return s
}

func TestScenarioTellsItsStory(t *testing.T) {
	s := storied(nil, []string{"missed-message"})
	got := run(t, s, "scenario", "missed-message", "--seed", "7")
	require.Zero(t, got.code, "the stage must break as it declares: %s", got.errors)
	require.Contains(t, got.out, "missed-message: a follower that missed a write agrees again once it is back\n")
	require.Contains(t, got.out, "asks n1: put x=1\n")
	require.Contains(t, got.out, "replicas differ")
	require.Contains(t, got.out, "\nwatch it in the browser: go run ./92-cluster lab --story missed-message --seed 7\n")
	require.Equal(t, got, run(t, s, "scenario", "missed-message", "--seed", "7"), "the same seed must give the same run")
	require.NotEqual(t, got, run(t, s, "scenario", "missed-message"))
	require.Greater(t, len(run(t, s, "scenario", "missed-message", "--seed", "7", "-v").out), len(got.out))
}

func TestScenarioThatContradictsItsDeclarationIsAnError(t *testing.T) {
	got := run(t, storied([]string{"missed-message"}, nil), "scenario", "missed-message")
	require.Equal(t, 1, got.code)
	require.Regexp(t, `^error: 92-cluster should survive missed-message but does not: .*; repeat it with: go run ./92-cluster scenario missed-message --seed 1, or watch it with: go run ./92-cluster lab --story missed-message --seed 1\n$`, got.errors)
}

func TestScenarioAllPrintsOneLinePerRun(t *testing.T) {
	s := storied(nil, []string{"restart", "missed-message"})
	got := run(t, s, "scenario", "--all")
	require.Zero(t, got.code, got.errors)
	require.Equal(t, 2*allSeeds, strings.Count(got.out, "\n"))
	require.Contains(t, got.out, "missed-message: replicas differ (seed 3): ")

	got = run(t, s, "scenario", "--all", "--seeds", "2", "--seed", "5", "-o", "json")
	require.Zero(t, got.code, got.errors)
	var seeds []uint64
	for line := range strings.Lines(got.out) {
		var r scenario.Result
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		require.Equal(t, "92-cluster", r.Stage)
		require.False(t, r.Survived)
		seeds = append(seeds, r.Seed)
	}
	require.Equal(t, []uint64{5, 6, 5, 6}, seeds)
}

func TestScenarioList(t *testing.T) {
	got := run(t, storied([]string{"minority-down"}, []string{"missed-message"}), "scenario", "--list")
	require.Zero(t, got.code)
	require.Regexp(t, `(?m)^missed-message +breaks +a follower that missed a write`, got.out)
	require.Regexp(t, `(?m)^minority-down +survives +`, got.out)
	require.Equal(t, 2, strings.Count(got.out, "\n"))
}

func TestScenarioWritesATrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	got := run(t, storied(nil, []string{"missed-message"}), "scenario", "missed-message", "--trace", path, "-o", "json")
	require.Zero(t, got.code, got.errors)
	require.Equal(t, 1, strings.Count(got.out, "\n"), "only the result must be printed, and no story")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	events := 0
	require.NoError(t, trace.Read(bytes.NewReader(text), func(trace.Event) { events++ }))
	require.Greater(t, events, 20)
}

func TestScenarioRefusals(t *testing.T) {
	s := storied(nil, []string{"missed-message"})
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, `scenario takes one of NAME, --list and --all; see "go run ./92-cluster scenario --list"`},
		{[]string{"nonsense"}, 2, `there is no scenario "nonsense"; there are `},
		{[]string{"restart"}, 1, `the scenario restart does not apply to this stage; see "go run ./92-cluster scenario --list"`},
		{[]string{"restart", "--all"}, 2, `scenario takes one of NAME, --list and --all`},
		{[]string{"--list", "--all"}, 2, `scenario takes one of NAME, --list and --all`},
		{[]string{"missed-message", "--seeds", "0"}, 2, `--seeds is 0; it must be at least 1`},
		{[]string{"--all", "--trace", "x"}, 2, `--trace and --svg are for one run of one scenario`},
		{[]string{"missed-message", "--trace", "/nowhere/x"}, 1, `--trace: open /nowhere/x`},
	} {
		got := run(t, s, append([]string{"scenario"}, tt.args...)...)
		require.Equal(t, tt.code, got.code, tt.args)
		require.Contains(t, got.errors, "error: "+tt.want)
	}
}

// A shard plays every Nth seed, and the shards together play each seed once.
func TestShards(t *testing.T) {
	seen := make(map[uint64]int)
	for i := range 4 {
		seeds, err := scenarioFlags{seed: 10, seeds: 10, shard: fmt.Sprintf("%d/4", i)}.each()
		require.NoError(t, err)
		for _, s := range seeds {
			seen[s]++
		}
	}
	require.Len(t, seen, 10)
	for s := range uint64(10) {
		require.Equal(t, 1, seen[10+s])
	}
	t.Setenv(jobIndex, "3")
	seeds, err := scenarioFlags{seed: 10, seeds: 10, shard: "/4"}.each()
	require.NoError(t, err)
	require.Equal(t, []uint64{13, 17}, seeds)
	for shard, want := range map[string]string{
		"4/4": `--shard is "4"; it must be a number from 0 to 3`, "-1/4": "from 0 to 3", "x/4": "from 0 to 3", "1": "it must be I/N", "1/0": "it must be I/N", "1/": "it must be I/N",
		"/2": `JOB_COMPLETION_INDEX is "3"; it must be a number from 0 to 1`, "10/11": "has no seeds",
	} {
		_, err := scenarioFlags{seeds: 10, shard: shard}.each()
		require.ErrorContains(t, err, want, shard)
		require.Equal(t, exitUsage, exitCode(err))
	}
	t.Setenv(jobIndex, "")
	_, err = scenarioFlags{seeds: 10, shard: "/4"}.each()
	require.ErrorContains(t, err, "JOB_COMPLETION_INDEX is not set")
}
