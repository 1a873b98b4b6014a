package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// TestLostDisk runs three servers as processes and removes the folder of one of
// them. Its supervisor does not start it again. Without that supervisor it
// starts with an empty folder, but its peers refuse it, and it stops without a
// vote for any server. With its old folder it is a member again. An entry that is
// altered in that folder is found by status --verify. The stage needs RunTests.
func TestLostDisk(t *testing.T, s Stage) {
	t.Helper()
	t.Parallel()
	c := startForTest(t, s)
	c.until("put", "x", "1")
	for id := uint64(1); id <= 3; id++ {
		c.eventually("the servers meet", func() bool { return c.met(id) == 2 })
	}
	c.ok("kill", "3")
	folder, kept := filepath.Join(c.data, "n3"), filepath.Join(c.data, "kept")
	c.check(os.Rename(folder, kept))
	c.fails("n3 has lost its data: there is no "+folder, "restart", "3")

	advice := node.DiskAdvice(3, (&app{stage: s}).needs().Changes)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	said := c.fails("n3 has lost its disk: n", "node", "--config", filepath.Join(c.data, cluster.ConfigName), "--id", "3", "--data", elsewhere)
	if !strings.Contains(said, advice) {
		t.Fatalf("no advice in: %s", said)
	}
	c.eventually("a peer says so", func() bool {
		return strings.Contains(c.out.String(), "a peer is refused because it has lost its disk; "+advice)
	})
	saved, err := journal.Read(openForTest(t, filepath.Join(elsewhere, "n3")), "journal")
	c.check(err)
	if saved.State.Vote != 0 || len(saved.Entries) > 0 {
		t.Fatalf("it took part: %+v, %d entries", saved.State, len(saved.Entries))
	}
	c.until("put", "x", "2")

	c.check(os.Rename(kept, folder))
	c.ok("restart", "3")
	c.until("put", "y", "1")
	c.eventually("the servers hold the same", func() bool {
		code, out := c.run("status", "--verify")
		return code == exitDone && strings.Contains(out, "n1, n2, n3 hold the same at index ")
	})
	c.ok("kill", "3")
	c.alter(filepath.Join(folder, "journal"), `"key":"y","value":"1"`, `"key":"y","value":"9"`)
	c.ok("restart", "3")
	c.eventually("the difference is found", func() bool {
		code, out := c.run("status", "--verify")
		return code == exitRefused && strings.Contains(out, "n1, n2 hold one state, n3 holds another")
	})
	c.ok("kill", "2")
	c.until("put", "x", "3") // n3 is one of the two that are running
}

// openForTest opens a folder that no server uses any longer. A process that another test
// starts at this moment may hold its lock until it becomes another program.
func openForTest(t *testing.T, path string) *disk.Folder {
	folder, err := disk.OpenFolder(path, disk.Options{})
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		folder, err = disk.OpenFolder(path, disk.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	return folder
}

// testCluster is a cluster that runs during a test.
type testCluster struct {
	t     *testing.T
	stage Stage
	data  string
	out   lockedBuffer
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startForTest starts a cluster of three servers, which ends with the test.
func startForTest(t *testing.T, s Stage) *testCluster {
	c := &testCluster{t: t, stage: s, data: filepath.Join(t.TempDir(), "data")}
	ports, err := freeport.Reserve()
	c.check(err)
	t.Cleanup(func() { ports.Close() })
	var leader uint64
	if (&app{stage: s}).needs().Appointed {
		leader = 1
	}
	file, err := cluster.New(s.Name, 3, ports.First(), leader)
	c.check(err)
	config := filepath.Join(t.TempDir(), "our.json")
	c.check(file.Save(config))
	c.begin("cluster", "--data", c.data, "--config", config)
	return c
}

// begin runs the command that starts the cluster, and ends it with the test.
func (c *testCluster) begin(args ...string) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, c.stage, args, strings.NewReader(""), &c.out, &c.out)
	}()
	c.t.Cleanup(func() {
		stop()
		if code := <-done; code != exitDone || c.t.Failed() {
			c.t.Errorf("the cluster ended with exit code %d:\n%s", code, c.out.String())
		}
	})
}

// met returns the number of peers that a server remembers.
func (c *testCluster) met(id uint64) int {
	text, err := os.ReadFile(filepath.Join(c.data, node.Name(id), "peers"))
	if err != nil {
		return 0
	}
	return strings.Count(string(text), `{"peer":`)
}

// alter replaces a text in a journal, and the checksum of its line.
func (c *testCluster) alter(path, old, replacement string) {
	c.t.Helper()
	text, err := os.ReadFile(path)
	c.check(err)
	if strings.Count(string(text), old) != 1 {
		c.t.Fatalf("%s once in %s", old, text)
	}
	var out []byte
	for line := range bytes.Lines(text) {
		start := len(out)
		out = append(out, bytes.Replace(line, []byte(old), []byte(replacement), 1)...)
		crcline.Seal(out[start : len(out)-1])
	}
	c.check(os.WriteFile(path, out, 0o600))
}

func (c *testCluster) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// run runs a command as a user would.
func (c *testCluster) run(args ...string) (code int, out string) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	var b lockedBuffer
	if args[0] != "node" {
		args = append(args, "--data", c.data)
	}
	code = Run(ctx, c.stage, args, strings.NewReader(""), &b, &b)
	return code, b.String()
}

func (c *testCluster) ok(args ...string) {
	c.t.Helper()
	if code, out := c.run(args...); code != exitDone {
		c.t.Fatalf("%v: exit code %d: %s", args, code, out)
	}
}

// fails runs a command that must fail, and returns its output.
func (c *testCluster) fails(why string, args ...string) string {
	c.t.Helper()
	code, out := c.run(args...)
	if code != exitRefused || !strings.Contains(out, why) {
		c.t.Fatalf("%v: exit code %d, not %q: %s", args, code, why, out)
	}
	return out
}

// until repeats a command until it succeeds.
func (c *testCluster) until(args ...string) {
	c.t.Helper()
	c.eventually(fmt.Sprint(args), func() bool {
		code, _ := c.run(args...)
		return code == exitDone
	})
}

func (c *testCluster) eventually(what string, f func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not within a minute: %s", what)
		}
	}
}
