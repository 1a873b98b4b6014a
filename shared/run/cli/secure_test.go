//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"regexp"
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
	require.Equal(t, result{1, "", "error: the server at " + address + " refused the connection: this server speaks only TLS; name the CA of the cluster with --cacert (KV_CACERT), or write https:// (handshake)\n"}, got)
	got = run(t, s, "get", "x", "--endpoints", "https://"+address)
	require.Equal(t, result{1, "", "error: no TLS connection to the server at " + address + ": the certificate of raftsteps://" + file.Config.Cluster + `/server/1 was signed by "CA of ` + file.Config.Cluster + `", which this client does not trust; name the CA of the cluster with --cacert (KV_CACERT) (handshake)` + "\n"}, got)
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
	require.Equal(t, result{1, "", "error: no TLS connection to the server at " + address + ": it speaks no TLS; leave --cacert (KV_CACERT) out, and write http:// instead of https:// (handshake)\n"}, got)
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

// certs creates a cluster for hosts, and adds to it later.
func TestCerts(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["98-changes"]
	got := run(t, s, "certs", "--out", "c", "n1=host1:7071", "n2=10.0.0.2:7071,kv.example.org", "--client", "app=write", "--days", "30")
	require.Zero(t, got.code, got.errors)
	until := time.Now().Add(30 * 24 * time.Hour).UTC().Format(time.DateOnly)
	table := regexp.MustCompile(`98-changes-[0-9a-f]{6}|\d{4}-\d\d-\d\d;`).ReplaceAllString(strings.ReplaceAll(got.out, until, "UNTIL"), "…")
	require.Equal(t, strings.Join([]string{
		"c/ca.crt        the CA, until … every server and every client needs a copy",
		"c/ca.key        signs certificates; keep it on a machine without a server",
		"c/cluster.json  cluster … with n1 (host1:7071), n2 (10.0.0.2:7071)",
		"c/n1.crt        server n1 at host1, until UNTIL; its key is n1.key",
		"c/n2.crt        server n2 at 10.0.0.2, kv.example.org, until UNTIL; its key is n2.key",
		"c/app.crt       client app with the role write, until UNTIL; its key is app.key", "",
	}, "\n"), table)
	require.Equal(t, "copy cluster.json, ca.crt and the two files of each server to its machine, and start it there with: go run ./98-changes node --config cluster.json --id N\n", got.errors)
	file, err := cluster.Load("c/cluster.json")
	require.NoError(t, err)
	require.NotNil(t, file.Config.Access, "a server without it would not listen at these addresses")
	ca, err := os.ReadFile("c/ca.crt")
	require.NoError(t, err)

	got = run(t, s, "certs", "--out", "c", "n3=host3:7071", "--client", "ops=operate")
	require.Zero(t, got.code, got.errors)
	require.Equal(t, 2, strings.Count(got.out, "\n"), "only the new files")
	require.Equal(t, "c/cluster.json does not name n3; start it with: go run ./98-changes node --config cluster.json --id 3 --address host3:7071, and then add it\n", got.errors)
	same, err := os.ReadFile("c/ca.crt")
	require.NoError(t, err)
	require.Equal(t, ca, same)
	for id := uint64(1); id <= 3; id++ {
		_, err := file.Keys("c/cluster.json", id, nil)
		require.NoError(t, err)
	}
	_, err = trust.Client("c/ca.crt", "c/ops.crt", "c/ops.key")
	require.NoError(t, err)

	// Without arguments, all servers of the file get new ones.
	before, err := os.ReadFile("c/n1.crt")
	require.NoError(t, err)
	got = run(t, s, "certs", "--out", "c")
	require.Zero(t, got.code, got.errors)
	require.Equal(t, 2, strings.Count(got.out, "\n"))
	after, err := os.ReadFile("c/n1.crt")
	require.NoError(t, err)
	require.NotEqual(t, before, after)

	require.NoError(t, os.Rename("c/ca.key", "away"))
	got = run(t, s, "certs", "--out", "c")
	require.Equal(t, result{1, "", "error: the key of the CA is not here (c/ca.key); create certificates where it is\n"}, got)

	// A cluster.json that somebody has written learns of the certificates.
	require.NoError(t, os.Mkdir("own", 0o700))
	file.TLS = nil
	require.NoError(t, file.Save("own/cluster.json"))
	got = run(t, s, "certs", "--out", "own")
	require.Zero(t, got.code, got.errors)
	require.Contains(t, got.out, `own/cluster.json  now has "tls"; copy it to every server`)
	own, err := cluster.Load("own/cluster.json")
	require.NoError(t, err)
	_, err = own.Keys("own/cluster.json", 2, nil)
	require.NoError(t, err)
}

func TestCertsRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["92-cluster"]
	for words, want := range map[string]string{
		"":                                  "there is no cluster in .raftsteps/92-cluster; name a folder",
		"--out c":                           "there is no cluster.json in c; name the servers of the new cluster, such as n1=host1:7071",
		"--out c host1:7071":                `"host1:7071" is not a server with its address; write number=host:port, such as n1=host1:7071`,
		"--out c n1=host1":                  `n1=host1: "host1" is not host:port`,
		"--out c n1=host1:1 1=host2:1":      "n1 is named twice",
		"--out c n1=host1:1,a:b":            `n1=host1:1,a:b: "a:b" is not a host name or an IP address`,
		"--out c n1=host1:1 n2=host1:1":     "the address host1:1 is taken by n1",
		"--out c n1=host1:1 --client app":   `--client: "app" is not a client with its role; write name=role, such as app=write; the roles are read, write, operate`,
		"--out c n1=h:1 --client app=admin": "the roles are read, write, operate",
		"--out c n1=h:1 --client n2=read":   "--client: the name n2 is taken",
		"--out c n1=h:1 --days 0":           "--days is 0; it must be from 1 to 36500",
	} {
		got := run(t, s, append([]string{"certs"}, strings.Fields(words)...)...)
		require.Equal(t, exitUsage, got.code, "%s: %s", words, got.errors)
		require.Contains(t, got.errors, want)
		require.NoDirExists(t, "c")
	}
	require.Zero(t, run(t, s, "certs", "--out", "c", "n1=127.0.0.1:7071").code)
	file, err := cluster.Load("c/cluster.json")
	require.NoError(t, err)
	require.Nil(t, file.Config.Access)
	got := run(t, s, "certs", "--out", "c", "n2=127.0.0.1:7072")
	require.Equal(t, exitUsage, got.code)
	require.Contains(t, got.errors, "c/cluster.json has no server n2; its servers are n1 (127.0.0.1:7071)")
}
