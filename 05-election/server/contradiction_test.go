package server

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

// follower starts n2 of three servers.
func follower(t *testing.T, d disk.Disk) node.Server {
	s, err := New(node.World{
		ID:   2,
		Disk: d,
		Send: func(uint64, []byte) {},
		Rand: rand.New(rand.NewPCG(1, 1)),
		Config: node.Config{
			Members:         []node.Member{{ID: 1, Address: "a:1"}, {ID: 2, Address: "a:2"}, {ID: 3, Address: "a:3"}},
			ElectionTimeout: [2]time.Duration{time.Second, time.Second},
			Heartbeat:       100 * time.Millisecond,
		},
	})
	require.NoError(t, err)
	return s
}

// A server whose disk lacks entries that it has acknowledged stops and says so. That
// leaves no trace on its disk: with the right disk it starts again.
func TestLostEntriesEndTheServer(t *testing.T) {
	counted := []byte(`{"term":1,"appendEntries":{"prevLogIndex":1,"prevLogTerm":1,"matched":true}}`)
	d := disk.NewSim("n2")
	s := follower(t, d)
	s.Receive(1, counted)
	require.ErrorContains(t, s.Flush(), "n2's disk has lost entries that n2 had acknowledged")
	require.ErrorContains(t, s.Flush(), "the leader n1 counts on entries up to 1, but n2's log, which ends at 0, lacks some of them", "and it stays so")

	d.Kill()
	s = follower(t, d)
	s.Receive(1, []byte(`{"term":1,"appendEntries":{"entries":[{"index":1,"term":1,"command":{"op":"put","key":"x","value":"1"}}]}}`))
	require.NoError(t, s.Flush())
	s.Receive(1, counted)
	require.NoError(t, s.Flush())
}
