package cli

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/run/cluster"
)

// node CONFIG ID and cluster CONFIG N mean the same as with flags.
func TestArgumentsInPlaceOfFlags(t *testing.T) {
	s := stages["92-cluster"]
	config := configFor(t, 2, 1)
	t.Chdir(filepath.Dir(config))
	file, err := cluster.Load(config)
	require.NoError(t, err)
	busy, err := net.Listen("tcp", file.Config.Address(2))
	require.NoError(t, err)
	defer busy.Close()

	inUse := "error: n2 cannot listen on " + file.Config.Address(2) + ": another program uses that port"
	for _, args := range []string{
		"node --config given.json --id 2",
		"node given.json 2",
		"node given.json n2",
		"node given.json --id 2",
		"node given.json 2 --id 2 --config given.json",
	} {
		got := run(t, s, strings.Split(args, " ")...)
		require.Equal(t, 1, got.code, args)
		require.Contains(t, got.errors, inUse, args)
	}
	for _, args := range []string{
		"cluster --config given.json -n 2",
		"cluster given.json 2",
		"cluster given.json",
		"cluster given.json -n 2",
		"cluster given.json 2 --servers 2 --config given.json",
	} {
		got := run(t, s, strings.Split(args+" --data data", " ")...)
		require.Equal(t, 1, got.code, args)
		require.Contains(t, got.errors, file.Config.Address(2), args)
	}

	for args, want := range map[string]string{
		"cluster given.json 3":                       "error: given.json has 2 servers, not 3; leave the number out\n",
		"cluster given.json 2 -n 3":                  "error: the number of servers is given twice: the argument says 2, and -n says 3; leave one of them out\n",
		"cluster given.json --config other.json":     "error: the configuration is given twice: the argument says given.json, and --config says other.json; leave one of them out\n",
		"cluster given.json x":                       "error: the number of servers is \"x\"; it must be a whole number\n",
		"cluster given.json 0":                       "error: the number of servers is 0; a cluster has 1 to 99 servers\n",
		"cluster 3":                                  "error: cluster takes the configuration before the number: go run ./92-cluster cluster CONFIG 3; for a new cluster of this size: go run ./92-cluster cluster -n 3; see \"go run ./92-cluster cluster --help\"\n",
		"cluster given.json 2 3":                     "error: cluster takes [CONFIG [N]]; remove the argument \"3\"; see \"go run ./92-cluster cluster --help\"\n",
		"node given.json 2 --id 1":                   "error: the number of the server is given twice: the argument says 2, and --id says 1; leave one of them out\n",
		"node given.json 2 --config data/other.json": "error: the configuration is given twice: the argument says given.json, and --config says data/other.json; leave one of them out\n",
		"node given.json x":                          "error: \"x\" does not name a server; write a number (2 or n2)\n",
		"node given.json":                            "error: node needs --id, the number of the server to run, or the arguments CONFIG ID; see \"go run ./92-cluster node --help\"\n",
		"node 2":                                     "error: node takes the configuration before the number: go run ./92-cluster node CONFIG 2; for the cluster in the data folder: go run ./92-cluster node --id 2; see \"go run ./92-cluster node --help\"\n",
		"node given.json 2 3":                        "error: node takes [CONFIG ID]; remove the argument \"3\"; see \"go run ./92-cluster node --help\"\n",
	} {
		got := run(t, s, strings.Split(args, " ")...)
		require.Equal(t, want, strings.ReplaceAll(got.errors, (&app{stage: s}).program(), "go run ./92-cluster"), args)
		require.NotZero(t, got.code, args)
	}

	for words, want := range map[string]string{
		"node ":                 "json\n:8\n",
		"node given.json ":      "1\n2\n:4\n",
		"node none.json ":       ":4\n",
		"node given.json 1 ":    ":4\n",
		"cluster ":              "json\n:8\n",
		"cluster given.json ":   "2\n:4\n",
		"cluster given.json 2 ": ":4\n",
	} {
		require.Equal(t, want, run(t, s, append([]string{"__complete"}, strings.Split(words, " ")...)...).out, words)
	}
	require.Contains(t, run(t, s, "node", "--help").out, "node [CONFIG ID]")
	require.Contains(t, run(t, s, "cluster", "--help").out, "cluster [CONFIG [N]]")
}
