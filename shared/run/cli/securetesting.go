package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/run/cluster"
)

// TestSecureCluster runs three servers as processes that speak TLS, through the loss of
// their leader and the addition of a server. A client that does not trust their CA, or
// speaks no TLS, gets nothing. The stage needs RunTests, and members that change.
func TestSecureCluster(t *testing.T, s Stage) {
	t.Helper()
	t.Parallel()
	c := &testCluster{t: t, stage: s, data: filepath.Join(t.TempDir(), "data")}
	ports, err := freeport.Reserve()
	c.check(err)
	t.Cleanup(func() { ports.Close() })
	file, err := cluster.New(s.Name, 3, ports.First(), 0)
	c.check(err)
	c.check(os.MkdirAll(c.data, 0o700))
	c.check(file.Save(filepath.Join(c.data, cluster.ConfigName)))
	c.begin("cluster", "--data", c.data, "--tls")
	c.until("put", "x", "1")
	c.ok("kill", "leader")
	c.until("put", "x", "2")
	c.ok("start", "4")
	c.until("add", "4")
	c.ok("restart", "all")
	c.until("get", "x")
	code, out := c.run("get", "x", "--endpoints", "n4")
	if code != exitDone || out != "2\n" {
		t.Fatalf("exit code %d: %s", code, out)
	}
	address, err := file.AddressFor(4)
	c.check(err)
	elsewhere := strings.Replace(address, "127.0.0.1", "localhost", 1) // cluster.json does not name it so
	for endpoint, want := range map[string]string{
		"http://" + elsewhere:  "this server speaks only TLS",
		"https://" + elsewhere: "which this client does not trust",
	} {
		code, out := c.run("get", "x", "--timeout", "1h", "--endpoints", endpoint)
		if code != exitRefused || !strings.Contains(out, want) || !strings.Contains(out, "nothing was done") {
			t.Errorf("%s: exit code %d: %s", endpoint, code, out)
		}
	}
}
