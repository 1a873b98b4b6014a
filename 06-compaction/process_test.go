package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/06-compaction/client"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/bench"
	"example.com/raftsteps/shared/run/cli"
	"example.com/raftsteps/shared/run/cluster"
)

// over is what carries messages between the servers.
var over = flag.String("transport", "", "what carries messages between the servers: tcp, udp or grpc")

// patient is longer than any test needs: a wait this long is a failure.
const patient = time.Minute

// processes are five servers, each a process of its own.
type processes struct {
	t         *testing.T
	data      string
	remote    *cluster.Remote
	endpoints []string
}

func startProcesses(t *testing.T) *processes {
	dir := t.TempDir()
	p := &processes{t: t, data: filepath.Join(dir, "data")}
	config := filepath.Join(dir, "our.json")
	p.endpoints = writeConfig(t, config)
	ctx, stop := context.WithCancel(context.Background())
	var out output
	var g errgroup.Group
	g.Go(func() error {
		args := []string{"cluster", "--data", p.data, "--config", config}
		if code := cli.Run(ctx, stage, args, strings.NewReader(""), &out, &out); code != 0 {
			return fmt.Errorf("the cluster ended with exit code %d", code)
		}
		return nil
	})
	t.Cleanup(func() {
		stop()
		require.NoError(t, g.Wait())
		if t.Failed() {
			t.Log(out.String())
		}
	})
	require.Eventually(t, func() bool {
		remote, err := cluster.Connect(p.data)
		p.remote = remote
		return err == nil
	}, patient, 5*time.Millisecond)
	return p
}

// writeConfig creates a configuration with free ports, in which a log is soon
// compacted.
func writeConfig(t *testing.T, path string) (endpoints []string) {
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(stage.Name, 5, ports.First(), 0)
	require.NoError(t, err)
	file.Config.CompactBytes = 64 << 10
	for _, m := range file.Config.Members {
		endpoints = append(endpoints, m.Address)
	}
	file.Config.Transport = *over
	require.NoError(t, file.Save(path))
	return endpoints
}

// output is what the cluster prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (p *processes) do(what string, ids ...uint64) {
	p.t.Helper()
	_, err := p.remote.Do(p.t.Context(), cluster.Command{Do: what, IDs: ids})
	require.NoError(p.t, err)
}

// status is what a server says of itself; Role is "" if it does not answer.
type status struct {
	Role string
	Term uint64

	Snapshot, Last uint64
}

func (p *processes) status(id uint64) (is status) {
	c := client.New(p.endpoints[id-1 : id])
	defer c.Close()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	if a, err := c.Do(ctx, api.Request{Op: api.Status}); err == nil {
		require.NoError(p.t, json.Unmarshal(a.Data, &is))
	}
	return is
}

// leader waits for a leader and returns it: of two, the one of the later term.
func (p *processes) leader() (id uint64) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		latest := uint64(0)
		for other := range uint64(len(p.endpoints)) {
			if is := p.status(other + 1); is.Role == "leader" && is.Term > latest {
				id, latest = other+1, is.Term
			}
		}
		return latest > 0
	}, patient, 5*time.Millisecond)
	return id
}

// rest is how long a client waits after each operation. What a test takes is the
// time of elections and changes; more load would only take the cores from them.
const rest = 10 * time.Millisecond

// load appends tokens until it is ended, and then checks them.
type load struct {
	t      *testing.T
	done   atomic.Int64
	end    context.CancelFunc
	g      errgroup.Group
	report bench.Report
}

// counted counts the appends that were acknowledged.
type counted struct {
	*client.Client
	done *atomic.Int64
}

func (c counted) Do(ctx context.Context, r api.Request) (api.Response, error) {
	response, err := c.Client.Do(ctx, r)
	if err == nil {
		c.done.Add(1)
	}
	time.Sleep(rest)
	return response, err
}

func startLoad(t *testing.T, endpoints []string) *load {
	l := &load{t: t}
	o := bench.Defaults()
	o.Dial = func() (bench.Client, error) { return counted{client.New(endpoints), &l.done}, nil }
	o.Clients, o.Warmup, o.Duration, o.Timeout, o.Verify = 8, 0, time.Hour, patient, true
	ctx, end := context.WithCancel(t.Context())
	l.end = end
	l.g.Go(func() (err error) {
		l.report, err = bench.Run(ctx, o)
		return err
	})
	t.Cleanup(func() {
		end()
		if !t.Failed() { // else it may go on for long
			_ = l.g.Wait()
		}
	})
	return l
}

// goesOn waits until more was acknowledged.
func (l *load) goesOn(after string) {
	l.t.Helper()
	enough := l.done.Load() + 100
	require.Eventually(l.t, func() bool { return l.done.Load() >= enough }, patient, time.Millisecond, "after %s", after)
}

// judge ends the load and checks that every acknowledged append is there
// exactly once.
func (l *load) judge() {
	l.t.Helper()
	l.end()
	require.NoError(l.t, l.g.Wait())
	require.NoError(l.t, l.report.Err())
	require.Zero(l.t, l.report.Verify.Broken, "%v", l.report.Verify.Violations)
	require.Zero(l.t, l.report.Verify.Unknown, "a session makes an end of every doubt")
}

// The servers survive what the README promises, with real processes and real
// disks, while clients write: a leader that is killed, three times; one that is
// paused and resumes; and kill -9 for all five at once. Every acknowledged
// append is there exactly once.
func TestCrashesAndPauses(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.leader()
	l := startLoad(t, p.endpoints)
	l.goesOn("the start")
	for range 3 {
		id := p.leader()
		p.do(cluster.Kill, id)
		l.goesOn("the end of a leader")
		p.do(cluster.Restart, id)
	}

	id := p.leader()
	p.do(cluster.Pause, id)
	l.goesOn("the pause of a leader")
	p.do(cluster.Resume, id)
	require.Eventually(t, func() bool { return p.status(id).Role == "follower" }, patient, 5*time.Millisecond)

	p.do(cluster.Kill, 1, 2, 3, 4, 5)
	p.do(cluster.Restart, 1, 2, 3, 4, 5)
	l.goesOn("the end of all")
	l.judge()
	require.GreaterOrEqual(t, l.report.Verify.Acknowledged, int64(600))
}

// A follower that was killed, and is away for longer than any log remembers, comes
// back by a snapshot while writes go on; so does one that stood still. All five
// are then killed, and come back from their snapshots and the entries after them.
func TestAwayForLongerThanTheLogReachesBack(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	first := p.leader()
	l := startLoad(t, p.endpoints)
	l.goesOn("the start")
	killed, paused := first%5+1, (first+1)%5+1
	p.do(cluster.Kill, killed)
	p.do(cluster.Pause, paused)
	had := p.status(p.leader()).Last // no less than those two have
	p.forgets(had, killed, paused)
	p.do(cluster.Restart, killed)
	p.do(cluster.Resume, paused)
	require.Eventually(t, func() bool {
		return p.status(killed).Snapshot > had && p.status(paused).Snapshot > had
	}, patient, 5*time.Millisecond, "a snapshot must bring them beyond entry %d", had)
	l.goesOn("the return of two")

	p.do(cluster.Kill, 1, 2, 3, 4, 5)
	for id := range uint64(5) {
		folder := filepath.Join(p.data, node.Name(id+1))
		require.FileExists(t, filepath.Join(folder, "snapshot"))
		journal, err := os.Stat(filepath.Join(folder, "journal"))
		require.NoError(t, err)
		require.Less(t, journal.Size(), int64(4<<20))
	}
	p.do(cluster.Restart, 1, 2, 3, 4, 5)
	l.goesOn("the end of all")
	l.judge()
}

// forgets waits until no server but those has an entry up to an index in its log:
// what a log keeps before a snapshot is a quarter of the bound, fewer than 200
// entries.
func (p *processes) forgets(index uint64, but ...uint64) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		for id := range uint64(len(p.endpoints)) {
			if !slices.Contains(but, id+1) && p.status(id+1).Snapshot < index+200 {
				return false
			}
		}
		return true
	}, patient, 5*time.Millisecond, "entry %d is not forgotten", index)
}
