package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/03-log-replication/client"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
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

// writeConfig creates a configuration with free ports.
func writeConfig(t *testing.T, path string) (endpoints []string) {
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(stage.Name, 5, ports.First(), 1)
	require.NoError(t, err)
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

// at returns a client of one server.
func (p *processes) at(id uint64) *client.Client {
	c := client.New(p.endpoints[id-1 : id])
	p.t.Cleanup(func() { require.NoError(p.t, c.Close()) })
	return c
}

// eventually tries until it succeeds: a server that starts is not there yet.
func (p *processes) eventually(try func(ctx context.Context) error) {
	p.t.Helper()
	var err error
	assert.Eventually(p.t, func() bool {
		err = try(p.t.Context())
		return err == nil
	}, patient, 5*time.Millisecond)
	require.NoError(p.t, err)
}

// All five are killed at once. What was acknowledged is on the disks of a
// majority: once a leader is appointed, it is there again, on every server.
func TestAPowerCutLosesNothing(t *testing.T) {
	const keys = 30
	p := startProcesses(t)
	first := p.at(1)
	p.eventually(func(ctx context.Context) error { return first.Put(ctx, "ready", "1") })
	for i := range keys {
		require.NoError(t, first.Put(t.Context(), fmt.Sprint("k", i), fmt.Sprint("v", i)))
	}
	p.do(cluster.Kill, 1, 2, 3, 4, 5)
	p.do(cluster.Restart, 1, 2, 3, 4, 5)

	// The newest log is that of the old leader. To choose it is the operator's
	// task: nobody checks.
	p.eventually(func(ctx context.Context) error {
		_, err := first.Do(ctx, api.Request{Op: api.Status})
		return err
	})
	require.ErrorContains(t, first.Put(t.Context(), "x", "1"), "not_leader", "nobody leads until a person says so")
	_, err := first.Do(t.Context(), api.Request{Op: api.Lead, Term: 2})
	require.NoError(t, err)
	require.NoError(t, first.Put(t.Context(), "after", "1"))
	for id := uint64(1); id <= 5; id++ {
		c := p.at(id)
		for i := range keys {
			p.eventually(func(ctx context.Context) error {
				value, err := c.Get(ctx, fmt.Sprint("k", i))
				if err == nil && value != fmt.Sprint("v", i) {
					err = fmt.Errorf("k%d is %q on n%d", i, value, id)
				}
				return err
			})
		}
	}
}
