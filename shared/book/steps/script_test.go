package steps

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// scripted writes a repository whose stage 03-log has two scripts. The test that
// plays the scripts fails for one of them.
func scripted(t *testing.T) *Repo {
	return write(t, map[string]string{
		"02-naive/naive/naive.go": "package naive\n",
		"03-log/raft/old.go":      "", "03-log/raft/log.go": "",
		"03-log/raft/raft.go": "package raft\n",
		"03-log/raft/testdata/scripts/a-vote-counts-once.txt": "# A vote counts once.\n> deliver\n",
		"03-log/raft/testdata/scripts/a-log-is-cut.txt":       "# A log is cut.\n",
		"03-log/raft/script_test.go": `package raft

import "testing"

func TestScripts(t *testing.T) {
	t.Run("a vote counts once", func(t *testing.T) {})
	t.Run("a log is cut", func(t *testing.T) { t.Fatal("the trace has changed") })
}
`,
	})
}

func TestScript(t *testing.T) {
	dir := scripted(t).Root
	code, stdout, stderr := run(t, dir, "script", "03")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "a-log-is-cut\na-vote-counts-once\n", stdout)

	for _, words := range [][]string{{"a-vote-counts-once"}, {"vote"}, {"a", "vote", "counts"}, {"raft/testdata/scripts/a-vote-counts-once.txt"}} {
		code, stdout, stderr = run(t, dir, append([]string{"script", "03"}, words...)...)
		require.Equal(t, 0, code, stdout+stderr)
		require.Equal(t, "# A vote counts once.\n> deliver\n", stdout)
	}

	code, stdout, stderr = run(t, dir, "script", "03", "a-log-is-cut")
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "the trace has changed")
	require.Contains(t, stderr, "the story of the script a-log-is-cut has changed")
}

func TestScriptRefusals(t *testing.T) {
	dir := scripted(t).Root
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "an argument is missing"},
		{[]string{"02"}, "02-naive has no scripts"},
		{[]string{"09"}, "09"},
		{[]string{"03", "zork"}, `no script has "zork" in its name`},
		{[]string{"03", "a-"}, `2 scripts have "a-" in their names: a-log-is-cut, a-vote-counts-once`},
	} {
		code, _, stderr := run(t, dir, append([]string{"script"}, c.args...)...)
		require.Equal(t, 2, code, c.args)
		require.Contains(t, stderr, c.want)
	}
}
