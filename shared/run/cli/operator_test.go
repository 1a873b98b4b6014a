//go:build unix

package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLogListsEveryEntry(t *testing.T) {
	_, s := startCluster(t, "93-log", 2, 1)
	require.Equal(t, result{0, "" +
		"INDEX  TERM  COMMITTED  ENTRY\n" +
		"1      1     yes        noop\n" +
		"2      2     yes        put x=2\n" +
		"3      2     yes        put x=3\n" +
		"4      2     no         put x=4\n" +
		"5      2     no         put x=5\n", ""}, run(t, s, "log", "leader"))
	require.Equal(t, result{0, "INDEX  TERM  COMMITTED  ENTRY\n5      2     no         put x=5\n", ""}, run(t, s, "log", "n1", "--from", "5"))
	require.Equal(t, result{0, "INDEX  TERM  COMMITTED  ENTRY\n", ""}, run(t, s, "log", "1", "--from", "6"))
	require.Equal(t, result{0, "" +
		`{"index":4,"term":2,"command":{"op":"put","key":"x","value":"4"},"committed":false}` + "\n" +
		`{"index":5,"term":2,"command":{"op":"put","key":"x","value":"5"},"committed":false}` + "\n", ""}, run(t, s, "log", "1", "--from", "4", "-o", "json"))

	require.Equal(t, result{1, "", "error: the answer of n2 about its log is invalid: entry 4 is out of order\n"}, run(t, s, "log", "2"))
	got := run(t, s, "log", "3")
	require.Equal(t, result{2, "", "error: there is no server n3 in the cluster\n"}, got)
	got = run(t, s, "log", "all", "--from", "5", "-o", "json")
	require.Equal(t, result{1, `{"server":"n1","index":5,"term":2,"command":{"op":"put","key":"x","value":"5"},"committed":false}` + "\n",
		"n2: the answer of n2 about its log is invalid: entry 4 is out of order\nerror: 1 of 2 logs are missing\n"}, got)
	run(t, s, "kill", "1")
	got = run(t, s, "log", "all", "--from", "5")
	require.Equal(t, 5, got.code)
	require.Regexp(t, `^n1 at 127\.0\.0\.1:\d+\n\nn2 at 127\.0\.0\.1:\d+\n$`, got.out)
	require.Contains(t, got.errors, "n1 is not running (killed); bring it back with: go run ./93-log restart 1\n")
	got = run(t, s, "log", "1")
	require.Equal(t, 5, got.code)
	require.Contains(t, got.errors, "n1 is not running (killed); bring it back with: go run ./93-log restart 1\n")
}

// If a log does not begin at 1, the command says which entries a snapshot has
// replaced, and then lists the others.
func TestACompactedLog(t *testing.T) {
	_, s := startCluster(t, "93-log", 3, 1)
	for _, tt := range []struct{ args, note string }{
		{"log 3", "n3: the log begins at 4: a snapshot has replaced entries 1 to 3\n"},
		{"log n3 --from 3", "n3: the log begins at 4: a snapshot has replaced entries 1 to 3\n"},
		{"log 3 --from 4", ""},
	} {
		got := run(t, s, strings.Fields(tt.args)...)
		require.Equal(t, result{0, "INDEX  TERM  COMMITTED  ENTRY\n4      2     no         put x=4\n5      2     no         put x=5\n", tt.note}, got)
		got = run(t, s, append(strings.Fields(tt.args), "-o", "json")...)
		require.Equal(t, 2, strings.Count(got.out, "\n"))
		require.Equal(t, tt.note, got.errors)
	}
}

func TestLeadAppointsInTheNextTerm(t *testing.T) {
	_, s := startCluster(t, "93-log", 2, 1)
	require.Equal(t, result{0, "n2 leads term 1\n", ""}, run(t, s, "lead", "2"))
	require.Equal(t, result{0, "n1 leads term 2\n", ""}, run(t, s, "lead", "n1"))
	require.Equal(t, result{0, "n2 leads term 9\n", ""}, run(t, s, "lead", "2", "--term", "9"))
	require.Equal(t, result{1, "", "error: that term is over (bad_request)\n"}, run(t, s, "lead", "2", "--term", "9"))
	require.Equal(t, result{0, `{"ok":true,"data":{"role":"leader"}}` + "\n", ""}, run(t, s, "lead", "1", "-o", "json"))
	require.Equal(t, result{0, "n1 leads term 11\n", ""}, run(t, s, "lead", "leader"), "the leader is the server that leads the highest term")
}

func TestConsistencyIsAFlagWhereServersKnowIt(t *testing.T) {
	_, s := startCluster(t, "93-log", 1, 1)
	require.Equal(t, "stale\n", run(t, s, "get", "x", "--consistency", "stale").out)
	require.Equal(t, result{2, "", "error: --consistency is \"new\"; it must be linearizable or stale\n"}, run(t, s, "get", "x", "--consistency", "new"))
	got := run(t, s, "put", "x", "1", "--consistency", "stale")
	require.Equal(t, 2, got.code, "a write must not accept the flag")
}
