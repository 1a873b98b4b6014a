package server

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

// BenchmarkPut is what one server alone does for a put, from the request to the
// answer, in rounds of 64, and without a disk to speak of.
func BenchmarkPut(b *testing.B) {
	s, err := New(node.World{
		ID: 1, Disk: disk.NewSim("d"), Rand: rand.New(rand.NewPCG(1, 1)), Send: func(uint64, []byte) {},
		Work: func(work func() error, done func(error)) { done(work()) },
		Config: node.Config{Cluster: "north", Members: []node.Member{{ID: 1, Address: "a:1"}}, CompactBytes: 4 << 20,
			Heartbeat: 50 * time.Millisecond, ElectionTimeout: [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond}},
	})
	require.NoError(b, err)
	for s.(*Server).rules.Status().Commit == 0 {
		s.Tick()
		require.NoError(b, s.Flush())
	}
	answered := 0
	reply := func(r api.Response) {
		if r.Error == nil {
			answered++
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Request(api.Request{ID: 7, Op: "put", Key: "k" + string(rune('a'+i%16)), Value: "a value of some length"}, reply)
		if i%64 == 63 {
			require.NoError(b, s.Flush())
		}
	}
	require.NoError(b, s.Flush())
	require.Equal(b, b.N, answered)
}
