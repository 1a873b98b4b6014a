package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/run/cluster"
)

// What cannot be shown is refused, with what to do.
func TestLabRefusesWhatItCannotShow(t *testing.T) {
	s, dir := storied(nil, []string{"missed-message"}), t.TempDir()
	write := func(name string, origin trace.Origin, server uint64) string {
		path := filepath.Join(dir, name)
		begin := trace.Event{Node: server, Kind: trace.Begin, Origin: &origin}
		require.NoError(t, os.WriteFile(path, append(begin.AppendJSON(nil), '\n'), 0o600))
		return path
	}
	good := write("good", trace.Origin{Stage: s.Name, Cluster: "a", Began: 1}, 1)
	same := write("same", trace.Origin{Stage: s.Name, Cluster: "a", Began: 1}, 1)
	other := write("other", trace.Origin{Stage: s.Name, Cluster: "b", Began: 1}, 2)
	stage := write("another", trace.Origin{Stage: "06-compaction", Cluster: "a", Began: 1}, 1)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a folder":        {[]string{dir}, dir + " is not a file; name the traces that"},
		"nothing":         {[]string{filepath.Join(dir, "none")}, `file does not exist; name the traces that "cluster --trace FILE" has written`},
		"another stage":   {[]string{stage}, stage + `:1: this is a trace of "06-compaction"; open it with: go run ./06-compaction lab`},
		"two clusters":    {[]string{good, other}, other + `:1: a trace of cluster "b" begins here, and what was read before is of cluster "a"`},
		"the same server": {[]string{good, same}, good + " and " + same + " are traces of the same server"},
		"live and files":  {[]string{good, "--live"}, "--live and files exclude each other"},
		"a seed":          {[]string{good, "--seed", "3"}, "--seed is for simulated clusters"},
		"no cluster":      {[]string{"--live", "--data", dir}, "no cluster is running on " + dir + "; start one with: "},
		"endpoints":       {[]string{"--live", "--endpoints", "127.0.0.1:1"}, "leave --endpoints out"},
	} {
		got := run(t, s, append([]string{"lab"}, c.args...)...)
		require.NotZero(t, got.code, name)
		require.Contains(t, got.errors, c.want, name)
	}
}

func TestDeedsOfAPage(t *testing.T) {
	c, err := decodeDeed([]byte(`{"do":"cut","servers":[1],"others":[2,3]}`))
	require.NoError(t, err)
	require.Equal(t, cluster.Command{Do: cluster.Cut, IDs: []uint64{1}, Others: []uint64{2, 3}}, c)
	c, err = decodeDeed([]byte(`{"do":"heal"}`))
	require.NoError(t, err)
	require.Equal(t, cluster.Command{Do: cluster.Heal}, c)
	for text, want := range map[string]string{
		`{"do":"kill"}`:                          "kill needs its servers: servers, and no others",
		`{"do":"cut","servers":[1]}`:             "cut needs its servers: servers and others",
		`{"do":"start","servers":[6]}`:           `there is no deed "start"`,
		`{"do":"kill","servers":[1],"now":true}`: `field "now": unknown field`,
		``:                                       "the deed: ",
	} {
		_, err := decodeDeed([]byte(text))
		require.ErrorContains(t, err, want)
	}
}

// A process that was killed may leave half a line; the next one begins on its own.
func TestATraceAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.n1")
	require.NoError(t, os.WriteFile(path, []byte(`{"at":5,"no`), 0o600))
	sink, end, err := openTrace(path, 1, trace.Origin{Stage: "s", Cluster: "c"})
	require.NoError(t, err)
	sink(trace.Event{Node: 1, Kind: trace.Start})
	require.NoError(t, end())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Regexp(t, `^\{"at":5,"no\n\{"at":\d+,"node":1,"kind":"begin","origin":\{"stage":"s","cluster":"c","began":\d+\}\}\n\{"at":\d+,"node":1,"kind":"start"\}\n$`, string(text))
}

// A new cluster begins new traces: those that another one has left under the same
// names could not be shown together with them.
func TestANewClusterBeginsNewTraces(t *testing.T) {
	dir := t.TempDir()
	a := &app{traceFile: filepath.Join(dir, "t")}
	for _, end := range []string{"n1", "n2", "cluster", "n9"} {
		require.NoError(t, os.WriteFile(a.traceFile+"."+end, nil, 0o600))
	}
	require.NoError(t, os.Mkdir(a.traceFile+".n3", 0o700))
	a.dropTraces(node.Config{Members: []node.Member{{ID: 1}, {ID: 3}}, Joiners: []node.Member{{ID: 2}}})
	left, err := filepath.Glob(a.traceFile + ".*")
	require.NoError(t, err)
	require.Equal(t, []string{a.traceFile + ".n3", a.traceFile + ".n9"}, left)
}
