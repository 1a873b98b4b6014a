//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/run/cluster"
)

// prepare puts the cluster.json of a stage, with free ports, into its data folder below
// a new current folder.
func prepare(t *testing.T, s Stage, servers int, leader uint64) (data string) {
	t.Helper()
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(s.Name, servers, ports.First(), leader)
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	data = filepath.Join(".raftsteps", s.Name)
	require.NoError(t, os.MkdirAll(data, 0o700))
	require.NoError(t, file.Save(filepath.Join(data, cluster.ConfigName)))
	return data
}

// With one flag the servers speak TLS, and all commands find out by themselves.
func TestAClusterWithTLS(t *testing.T) {
	s := stages["96-disk"]
	data := prepare(t, s, 3, 1)
	t.Setenv(stageVariable, s.Name)
	b := start(t, s, "cluster", "--tls")
	b.shows("^C stops all servers.")
	require.Contains(t, b.out.String(), " with TLS, n1 leads.")
	for _, c := range []struct{ words, want string }{
		{"put x 1", "ok\n"},
		{"get x --endpoints n1", "1\n"},
		{"-o json get x", `{"ok":true,"value":"1"}` + "\n"},
	} {
		require.Equal(t, result{0, c.want, ""}, run(t, s, strings.Fields(c.words)...), c.words)
	}
	got := run(t, s, "status")
	require.Equal(t, 3, strings.Count(got.out, "  yes\n"), got.out)
	got = runWith(t, s, `{"op":"get","key":"x"}`, "talk")
	require.Equal(t, result{0, `{"ok":true,"value":"1"}` + "\n", ""}, got)
	got = runWith(t, s, "get x\nput x 2\n", "shell")
	require.Equal(t, result{0, "1\nok\n", ""}, got)
	got = run(t, s, "bench", "--clients", "2", "--duration", "10ms", "--warmup", "0s")
	require.Zero(t, got.code, got.errors)
	require.Contains(t, got.out, "errors       none", got.out)

	// Somebody elsewhere says it on the command line.
	file, err := cluster.Load(filepath.Join(data, cluster.ConfigName))
	require.NoError(t, err)
	address := file.Config.Address(1)
	ca, err := filepath.Abs(file.CAFile(filepath.Join(data, cluster.ConfigName)))
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	for _, words := range []string{
		"get x --cacert " + ca + " --endpoints " + address,
		"get x --cacert " + ca + " --endpoints https://" + address,
	} {
		require.Equal(t, result{0, "2\n", ""}, run(t, s, strings.Fields(words)...), words)
	}
	got = run(t, s, "get", "x", "--endpoints", address)
	require.Equal(t, result{1, "", "error: this server speaks only TLS: name the CA of the cluster with --cacert, or write https:// (bad_request)\n"}, got)
	got = run(t, s, "get", "x", "--endpoints", "https://"+address)
	require.Equal(t, result{5, "", "error: cannot reach a server at " + address + `: the server's certificate was signed by "CA of ` + file.Config.Cluster + `", which this client does not trust; name the CA of the cluster with --cacert (unavailable)` + "\n"}, got)
	t.Setenv(caVariable, ca)
	t.Setenv(endpointsVariable, address)
	require.Equal(t, result{0, "2\n", ""}, run(t, s, "get", "x"))
	require.Equal(t, 0, b.stop())
	require.Empty(t, b.errors.String())
}

// A client of servers without TLS that was told to speak it is told so.
func TestTLSForServersWithoutIt(t *testing.T) {
	_, s := startCluster(t, "92-cluster", 1, 1)
	file, err := cluster.Load(filepath.Join(".raftsteps", s.Name, cluster.ConfigName))
	require.NoError(t, err)
	address := file.Config.Address(1)
	got := run(t, s, "get", "x", "--endpoints", "https://"+address)
	require.Equal(t, result{5, "", "error: cannot reach a server at " + address + ": the server there speaks no TLS; leave --cacert out, and write http:// instead of https:// (unavailable)\n"}, got)
	require.Equal(t, 3, run(t, s, "get", "x", "--endpoints", "http://"+address+"/").code)
}

func TestFlagsForTLS(t *testing.T) {
	s, d := everyCommand(t)
	_, pair, err := trust.NewAuthority("north", time.Hour)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("ca.crt", pair.Cert, 0o600))
	for words, want := range map[string]string{
		"--endpoints https://127.0.0.1:9001,127.0.0.1:9002":     "some endpoints begin with https:// and others do not; all of them must speak TLS, or none",
		"--endpoints http://127.0.0.1:9001 --cacert ca.crt":     "--endpoints says http://, and --cacert, --cert and --key are for TLS; write https://, or leave them out",
		"--endpoints https://127.0.0.1:9001/v1":                 `"127.0.0.1:9001/v1" `,
		"--endpoints 127.0.0.1:9001 --cacert none.crt":          "TLS: the CA: open none.crt: no such file or directory",
		"--endpoints 127.0.0.1:9001 --cacert ca.crt --cert c":   "TLS: a certificate needs its key, and a key its certificate",
		"--endpoints 127.0.0.1:9001 --cacert .raftsteps/96-all": "TLS: the CA: read .raftsteps/96-all: is a directory",
	} {
		got := run(t, s, append([]string{"get", "x"}, strings.Fields(words)...)...)
		require.Equal(t, exitUsage, got.code, words)
		require.Contains(t, got.errors, want)
	}
	require.Empty(t, d.addresses)
	require.Zero(t, run(t, s, "get", "x", "--endpoints", "https://127.0.0.1:9001,https://127.0.0.1:9002/", "--cacert", "ca.crt").code)
	require.Equal(t, []string{"127.0.0.1:9001"}, d.addresses)

	a := &app{stage: s}
	a.flags.data, a.flags.endpoints, a.flags.tls.ca = a.defaultData(), "127.0.0.1:9001", "my ca.crt"
	require.Equal(t, "go run ./96-all members --endpoints 127.0.0.1:9001 --cacert 'my ca.crt'", a.hintMembers())
}
