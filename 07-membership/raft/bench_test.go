package raft

import (
	"fmt"
	"testing"
)

// BenchmarkReplication is a round of the group commit: some proposals, one
// AppendEntries to each of two followers, their replies, the commit, and all three
// apply. There is no disk, no network and no encoding, so what it costs is what the
// rules cost. With explain=true each decision is described as well.
//
//	go test ./raft -run ^$ -bench .
func BenchmarkReplication(b *testing.B) {
	for _, batch := range []int{1, 16, 256} {
		for _, explain := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/explain=%v", batch, explain), func(b *testing.B) {
				servers := trio(b, explain)
				command := []byte("sixteen bytes...")
				b.ReportAllocs()
				for b.Loop() {
					for range batch {
						_, _, _ = servers[0].Propose(command)
					}
					pump(servers)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/proposal")
			})
		}
	}
}

// trio returns three servers of which the first leads.
func trio(b testing.TB, explain bool) []*Raft {
	var servers []*Raft
	for id := range ID(3) {
		o := startOptions(id+1, []ID{1, 2, 3}, State{}, nil)
		o.Explain, o.MaxBatch = explain, 1<<20
		servers = append(servers, New(o))
	}
	makeLeader(b, servers[0])
	pump(servers)
	return servers
}

// pump carries out outputs and delivers messages until nothing more happens.
func pump(servers []*Raft) {
	for busy := true; busy; {
		busy = false
		for _, r := range servers {
			for out := r.Take(); !out.Empty(); out = r.Take() {
				busy = true
				for _, m := range out.Early {
					servers[m.To-1].Step(m)
				}
				for _, m := range out.Messages {
					servers[m.To-1].Step(m)
				}
			}
		}
	}
}
