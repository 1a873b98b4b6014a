package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

func TestList(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	require.Equal(t, result{}, run(t, s, "list"))
	for _, kv := range [][2]string{{"b", "two words"}, {"a/2", "2"}, {"a/10", "1\n"}, {"\xff", "\xfe"}, {"\"q\"", ""}} {
		require.Zero(t, runWith(t, s, kv[1], "put", kv[0], "-").code)
	}
	all := "\"\\\"q\\\"\"\t\na/10\t\"1\\n\"\na/2\t2\nb\ttwo words\n\"\\xff\"\t\"\\xfe\"\n"
	require.Equal(t, all, run(t, s, "list").out)
	require.Equal(t, "a/10\t\"1\\n\"\na/2\t2\n", run(t, s, "list", "a/").out)
	require.Equal(t, "a/2\n", run(t, s, "list", "a/", "--after", "a/10", "--keys-only").out)
	require.Equal(t, "b\ttwo words\n", run(t, s, "list", "--after", "a/2", "--limit", "1").out)
	require.Equal(t, `{"key":"b","value":"two words"}`+"\n"+`{"key_b64":"/w==","value_b64":"/g=="}`+"\n", run(t, s, "list", "--after", "a/2", "-o", "json").out)
	require.Equal(t, result{2, "", "error: --limit is 0; it must be at least 1\n"}, run(t, s, "list", "--limit", "0"))
	require.Equal(t, result{}, run(t, s, "list", "z"))
	got := run(t, s, "list", strings.Repeat("k", 1025))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "a prefix and a key have at most 1024 bytes")
}

// A list of more keys than a page holds is printed whole, each key once.
func TestALongList(t *testing.T) {
	s := stages["91-single"]
	t.Setenv(endpointsVariable, startSingle(t, s))
	var script, want strings.Builder
	for i := range 2*api.MaxList + 1 {
		fmt.Fprintf(&script, "put k%05d %d\n", i, i)
		fmt.Fprintf(&want, "k%05d\t%d\n", i, i)
	}
	require.Zero(t, runWith(t, s, script.String(), "shell").code)
	require.Equal(t, want.String(), run(t, s, "list").out)
	require.Equal(t, api.MaxList+1, strings.Count(run(t, s, "list", "--limit", fmt.Sprint(api.MaxList+1)).out, "\n"))
}
