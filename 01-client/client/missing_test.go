package client

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/01-client/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/run/bench"
)

// machine is the one machine there is: a server that can fail and come back at
// the same address, without its memory.
type machine struct {
	t       *testing.T
	address string
	stop    context.CancelFunc
	g       *errgroup.Group
}

func startMachine(t *testing.T) *machine {
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	m := &machine{t: t, address: ports.Address(0)}
	m.start()
	t.Cleanup(m.fail)
	return m
}

func (m *machine) start() {
	ln, err := net.Listen("tcp", m.address)
	require.NoError(m.t, err)
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.g = stop, new(errgroup.Group)
	m.g.Go(func() error { return server.New().Serve(ctx, ln, nil) })
}

func (m *machine) fail() {
	m.stop()
	require.NoError(m.t, m.g.Wait())
}

// What this stage cannot survive: the client says truthfully what the one
// server said, and the one server forgets.
func TestTheMachineFails(t *testing.T) {
	ctx := testContext(t)
	m := startMachine(t)
	c := open(t, m.address)
	require.NoError(t, c.Put(ctx, "x", "1"))

	m.fail()
	requireError(t, c.Put(ctx, "x", "2"), api.Unavailable, m.address)

	m.start()
	_, err := c.Get(ctx, "x")
	requireError(t, err, api.NotFound)
}

// counted counts the operations that were done.
type counted struct {
	*Client
	done *atomic.Int64
}

func (c counted) Do(ctx context.Context, r api.Request) (api.Response, error) {
	response, err := c.Client.Do(ctx, r)
	if err == nil {
		c.done.Add(1)
	}
	return response, err
}

// The same under load, and seen by the one who should see it: what was
// acknowledged before the failure is lost, and nothing else is wrong.
func TestVerifyFailsIfTheMachineFailed(t *testing.T) {
	m := startMachine(t)
	var done atomic.Int64
	o := bench.Defaults()
	o.Dial = func() (bench.Client, error) { return counted{New([]string{m.address}), &done}, nil }
	o.Clients = 4
	o.Warmup = 0
	o.Duration = time.Hour
	o.Timeout = patient
	o.Verify = true
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var report bench.Report
	var g errgroup.Group
	g.Go(func() (err error) {
		report, err = bench.Run(ctx, o)
		return err
	})
	work := func() {
		enough := done.Load() + 200
		require.Eventually(t, func() bool { return done.Load() >= enough }, patient, time.Millisecond)
	}
	work()
	m.fail()
	before := done.Load()
	m.start()
	work()
	end()
	require.NoError(t, g.Wait())

	require.ErrorContains(t, report.Err(), "the servers broke their promises")
	v := report.Verify
	require.InDelta(t, before, v.Broken, float64(1+o.Clients), "the probe was a read, and an answer may still be on its way to be counted")
	require.Greater(t, v.Acknowledged, v.Broken)
	for _, violation := range v.Violations {
		require.Equal(t, "lost", violation.Kind, violation.Text)
	}
}
