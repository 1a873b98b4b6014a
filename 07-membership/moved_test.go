package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/client"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// runServer runs a server until stop is called, or the test ends.
func runServer(t *testing.T, c node.Config, id uint64, d disk.Disk, ln net.Listener) (stop func()) {
	t.Helper()
	h, err := host.New(host.Options{ID: id, Config: c, New: server.New, Ops: server.Ops, Listener: ln, Disk: d})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	ended := false
	stop = func() {
		cancel()
		if !ended {
			ended = true
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// A cluster of one server that has moved to another address can still grow, and
// then learns the new address.
func TestAMovedClusterOfOneGrows(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	var lns [3]net.Listener
	for i := range lns {
		ln, err := wire.Listen("127.0.0.1:0")
		require.NoError(t, err)
		lns[i] = ln
	}
	before, after, other := lns[0].Addr().String(), lns[1].Addr().String(), lns[2].Addr().String()
	config := node.Config{Cluster: "c", Secret: "0123456789abcdef", Members: []node.Member{{ID: 1, Address: before}},
		ElectionTimeout: [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond}, Heartbeat: 50 * time.Millisecond}
	d := disk.NewSim("n1")
	stop := runServer(t, config, 1, d, lns[0])
	first := client.New([]string{before})
	require.NoError(t, first.Put(ctx, "x", "1"))
	require.NoError(t, first.Close())
	stop()

	config.Members = []node.Member{{ID: 1, Address: after}}
	runServer(t, config, 1, d, lns[1])
	joins := config
	joins.Joiners = []node.Member{{ID: 2, Address: other}}
	runServer(t, joins, 2, disk.NewSim("n2"), lns[2])

	c := client.New([]string{after})
	defer c.Close()
	until := func(what string) {
		require.Eventually(t, func() bool {
			m, err := c.Members(ctx)
			known := slices.ContainsFunc(m.Members, func(s api.MemberStatus) bool { return s.Address == what })
			return err == nil && m.Phase == api.Stable && known
		}, patient, 5*time.Millisecond)
	}
	// The members are stable as soon as they are in the log, but the next change may have
	// to wait until they are committed.
	change := func(m api.Member) {
		require.Eventually(t, func() bool {
			err := c.Change(ctx, []api.Member{m}, nil)
			var e *api.Error
			require.True(t, err == nil || errors.As(err, &e) && e.Code == api.Refused, "%v", err)
			return err == nil
		}, patient, 5*time.Millisecond)
		until(m.Address)
	}
	until(before)
	change(api.Member{ID: 2, Address: other})
	change(api.Member{ID: 1, Address: after})
	value, err := c.Get(ctx, "x")
	require.NoError(t, err)
	require.Equal(t, "1", value)
}
