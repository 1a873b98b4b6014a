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

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/04-smart-client/client"
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

// A client and its session outlive the servers: all are killed while it writes,
// and each of its appends is there once. The session is in the log, and the log
// on disk.
func TestSessionsSurviveAPowerCut(t *testing.T) {
	const appends = 20
	p := startProcesses(t)
	c := client.New(p.endpoints)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	var want strings.Builder
	write := func(ctx context.Context) error {
		for i := range appends {
			fmt.Fprintf(&want, "%d,", i)
			length, err := c.Append(ctx, "x", fmt.Sprintf("%d,", i))
			if err != nil || length != want.Len() {
				return fmt.Errorf("x has %d bytes, want %q: %w", length, want.String(), err)
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	require.NoError(t, write(ctx))

	p.do(cluster.Kill, 1, 2, 3, 4, 5)
	var g errgroup.Group
	g.Go(func() error { return write(ctx) }) // it waits, and tries again and again
	p.do(cluster.Restart, 1, 2, 3, 4, 5)
	p.appoint(ctx, 1)
	require.NoError(t, g.Wait())
}

// appoint makes a server the leader of the second term.
func (p *processes) appoint(ctx context.Context, id uint64) {
	p.t.Helper()
	c := client.New(p.endpoints[id-1 : id])
	defer c.Close()
	require.Eventually(p.t, func() bool {
		_, err := c.Do(ctx, api.Request{Op: api.Lead, Term: 2})
		return err == nil
	}, patient, 5*time.Millisecond)
}
