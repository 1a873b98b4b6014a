package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/07-membership/client"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/transport/conform"
	"example.com/raftsteps/shared/run/bench"
	"example.com/raftsteps/shared/run/cli"
	"example.com/raftsteps/shared/run/cluster"
)

var lossFigures = flag.Bool("loss.figures", false, "print how fast the cluster is over UDP while datagrams are lost")

// badNetwork loses a fifth of the datagrams, repeats a tenth, and delays a fifth, so
// that others overtake them.
var badNetwork = conform.Faults{Lose: 0.2, Repeat: 0.1, Delay: 0.2, Late: 10 * time.Millisecond}

// startFarProcesses starts three servers that reach each other over UDP, through a
// relay in front of each. The clients reach the servers without a relay.
func startFarProcesses(t *testing.T, f conform.Faults) (*processes, []*conform.Relay) {
	dir := t.TempDir()
	p := &processes{t: t, data: filepath.Join(dir, "data")}
	config := filepath.Join(dir, "our.json")
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(stage.Name, 3, ports.First(), 0)
	require.NoError(t, err)
	file.Config.Transport, file.Config.Listen = "udp", make(map[uint64]string)
	var relays []*conform.Relay
	for _, m := range file.Config.Members {
		own := ports.Address(50 + int(m.ID))
		file.Config.Listen[m.ID] = own
		p.endpoints = append(p.endpoints, own)
		relays = append(relays, conform.NewRelay(t, m.Address, own, f))
	}
	require.NoError(t, file.Save(config))
	p.launch("--config", config)
	return p, relays
}

// launch starts the cluster.
func (p *processes) launch(flags ...string) {
	ctx, stop := context.WithCancel(context.Background())
	var out output
	var g errgroup.Group
	g.Go(func() error {
		args := append([]string{"cluster", "--data", p.data}, flags...)
		if code := cli.Run(ctx, stage, args, strings.NewReader(""), &out, &out); code != 0 {
			return fmt.Errorf("the cluster ended with exit code %d", code)
		}
		return nil
	})
	p.t.Cleanup(func() {
		stop()
		require.NoError(p.t, g.Wait())
		if p.t.Failed() {
			p.t.Log(out.String())
		}
	})
	require.Eventually(p.t, func() bool {
		remote, err := cluster.Connect(p.data)
		p.remote = remote
		return err == nil
	}, patient, 5*time.Millisecond)
}

// Over UDP, while the network loses, repeats and reorders datagrams, every
// acknowledged write is there exactly once.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	p, relays := startFarProcesses(t, badNetwork)
	const writes = 15
	var g errgroup.Group
	for key := range 3 {
		g.Go(func() error {
			c := client.New(p.endpoints)
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			for range writes {
				if _, err := c.Append(ctx, fmt.Sprint(key), "x"); err != nil {
					return err
				}
			}
			got, err := c.Get(ctx, fmt.Sprint(key))
			if err == nil && got != strings.Repeat("x", writes) {
				err = fmt.Errorf("%d writes, and the value is %q", writes, got)
			}
			return errors.Join(err, c.Close())
		})
	}
	require.NoError(t, g.Wait())
	passed, lost := 0, 0
	for _, r := range relays {
		p, l := r.Counts()
		passed, lost = passed+p, lost+l
	}
	require.Greater(t, passed, 3*writes)
	require.InDelta(t, 0.2, float64(lost)/float64(passed), 0.15)
}

// All that clients see is linearizable, and no acknowledged write is lost, although
// leaders are killed, servers are paused, and members join and leave on a bad
// network.
func TestChangesOnABadNetwork(t *testing.T) {
	if !longtest.On() {
		t.Skip("only with RAFTSTEPS_LONG=1: it takes half a minute")
	}
	p, _ := startFarProcesses(t, badNetwork)
	p.leader()
	l, readers := startLoad(t, p.endpoints), startReaders(t, p.endpoints)
	l.goesOn("the start")
	for range 5 {
		first := p.leader()
		p.do(cluster.Kill, first)
		l.goesOn("the end of a leader")
		p.do(cluster.Restart, first)
		p.do(cluster.Pause, first%3+1)
		l.goesOn("the pause of a server")
		p.do(cluster.Resume, first%3+1)
		l.goesOn("the return of all")
	}
	p.until(func(m members) bool { return m.Phase == "stable" && m.has(4) }, "add", p.start(4))
	l.goesOn("the arrival of a server")
	p.until(func(m members) bool { return m.Phase == "stable" && !m.has(1) }, "remove", "1")
	l.goesOn("the removal of a member")
	readers.judge()
	l.judge()
}

// How fast is the cluster while datagrams are lost?
func TestLossFigures(t *testing.T) {
	if !*lossFigures {
		t.Skip("only with -loss.figures")
	}
	for _, percent := range []float64{0, 1, 5, 20} {
		t.Run(fmt.Sprintf("%v%%", percent), func(t *testing.T) {
			p, _ := startFarProcesses(t, conform.Faults{Lose: percent / 100})
			p.leader()
			o := bench.Defaults()
			o.Dial = func() (bench.Client, error) { return client.New(p.endpoints), nil }
			o.Duration, o.Mix = 5*time.Second, "put"
			report, err := bench.Run(t.Context(), o)
			require.NoError(t, err)
			fmt.Printf("%2v %% lost: %6.0f puts/s, p50 %.1f ms, p99 %.1f ms, longest gap %.1f s\n",
				percent, report.OpsPerSecond, report.Latency.P50/1000, report.Latency.P99/1000, report.Gap.Seconds)
		})
	}
}
