package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// stalled is a disk whose syncs wait, once it is paused.
type stalled struct {
	*disk.Sim
	still atomic.Bool
	goOn  chan struct{}
	once  sync.Once
}

func (d *stalled) release() { d.once.Do(func() { close(d.goOn) }) }

func newStalled() *stalled {
	d := &stalled{Sim: disk.NewSim("d"), goOn: make(chan struct{})}
	d.Hook = func(op disk.Op) error {
		if op.Kind == disk.OpSync && d.still.Load() {
			<-d.goOn
		}
		return nil
	}
	return d
}

// serveAlone runs a cluster of one server on a disk, and returns its address.
func serveAlone(t *testing.T, d disk.Disk) string {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	h, err := host.New(host.Options{
		ID: 1, New: stage.New, Ops: stage.Ops, Listener: ln, Disk: d, Log: slog.New(slog.DiscardHandler),
		Config: node.Config{
			Cluster: "alone", Secret: "0123456789abcdef", Members: []node.Member{{ID: 1, Address: address}},
			Heartbeat: 50 * time.Millisecond, ElectionTimeout: [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond},
			CompactBytes: 1 << 40, // never: a disk.Sim has one user at a time
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return h.Run(ctx) })
	t.Cleanup(func() {
		stop()
		require.NoError(t, g.Wait())
	})
	return address
}

// peak is the largest memory that this process has had.
func peak() string {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			return strings.TrimSpace(line)
		}
	}
	return "its peak is not known here"
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// While its disk is paused, a server reads only as much as its budget allows,
// although 20 clients send 1 GiB. When the disk resumes, all requests are
// answered.
func TestAStalledDiskHoldsClientsBack(t *testing.T) {
	const clients, puts = 20, 400
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // as in a server that is no test
	d := newStalled()
	address := serveAlone(t, d)
	t.Cleanup(d.release)
	first, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer first.Close()
	in := bufio.NewReader(first)
	require.Eventually(t, func() bool {
		fmt.Fprintln(first, `{"op":"put","key":"x","value":"1"}`)
		line, err := in.ReadString('\n')
		return err == nil && strings.Contains(line, `"ok":true`)
	}, patient, time.Millisecond)

	before := heap()
	d.still.Store(true)
	request := []byte(`{"op":"put","key":"x","value":"` + strings.Repeat("v", kv.MaxValue) + `"}` + "\n")
	var sent, answered atomic.Int64
	var over atomic.Bool
	var g errgroup.Group
	for range clients {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer c.Close()
		g.Go(func() error {
			for i := 0; i < puts && !over.Load(); i++ {
				if _, err := c.Write(request); err != nil {
					return err
				}
				sent.Add(1)
			}
			_, err := fmt.Fprintln(c, `{"id":7,"op":"put","key":"x","value":"the last"}`)
			return err
		})
		g.Go(func() error {
			for in := bufio.NewReader(c); ; answered.Add(1) {
				line, err := in.ReadString('\n')
				switch {
				case err != nil || !strings.Contains(line, `"ok":true`):
					return fmt.Errorf("%q: %w", line, err)
				case strings.Contains(line, `"id":7`):
					return nil
				}
			}
		})
	}
	// The server has stopped reading when nothing more can be sent.
	for last := int64(-1); last < sent.Load(); time.Sleep(300 * time.Millisecond) {
		last = sent.Load()
	}
	held := heap() - before
	limits := wire.DefaultLimits()
	t.Logf("sent %d MiB, heap %+d MiB, %s", sent.Load()*kv.MaxValue>>20, held>>20, peak())
	require.Zero(t, answered.Load())
	require.Less(t, held, int64(2*limits.ServerBytes+clients*(1<<20)))
	over.Store(true)
	d.release()
	require.NoError(t, g.Wait())
	require.Equal(t, sent.Load(), answered.Load())
}
