package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/lab/sim"
)

// A removed server that starts with an empty folder reads in cluster.json that
// it is a member. The real members remember its old disk, so it ends, and
// neither votes nor disturbs them.
func TestARemovedFirstMemberDoesNotStartANewCluster(t *testing.T) {
	w, err := sim.New(sim.Options{Seed: 1, Servers: 3, Spare: 1, New: scenarios.New, Ops: scenarios.Ops})
	require.NoError(t, err)
	require.NoError(t, w.Restart(4))
	person := w.Client(1)
	person.Follow, person.Timeout, person.Patience = true, 500*time.Millisecond, 10*time.Second
	insist := func(r api.Request) {
		t.Helper()
		_, err := person.Do(2, r)
		for range 100 {
			if err == nil {
				return
			}
			w.RunFor(100 * time.Millisecond)
			_, err = person.Do(2, r)
		}
		require.NoError(t, err)
	}
	insist(api.Request{Op: "put", Key: "x", Value: "1"})
	insist(api.Request{Op: api.Change, Add: []api.Member{{ID: 4, Address: sim.Address(4)}}, Remove: []uint64{1}})
	insist(api.Request{Op: "put", Key: "x", Value: "2"})
	w.RunFor(5 * time.Second)
	w.Crash(1)
	d := w.Disk(1)
	files, err := d.List()
	require.NoError(t, err)
	for _, name := range files {
		require.NoError(t, d.Remove(name))
	}
	d.Kill()
	require.NoError(t, w.Restart(1))
	w.RunFor(5 * time.Second)
	require.NoError(t, w.Err())
	require.ErrorContains(t, w.Ended(1), "n1 has lost its disk: n")
	require.ErrorContains(t, w.Ended(1), "or remove n1 and add a new server with a new number")
	require.Len(t, w.Stops(), 1)
	insist(api.Request{Op: "put", Key: "x", Value: "3"})
}
