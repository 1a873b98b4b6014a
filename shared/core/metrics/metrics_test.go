package metrics

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trust"
)

var _ host.Meter = (*Metrics)(nil)

// gather returns the metrics that are not those of the process, by name and labels.
// A histogram has the number of its observations and their sum.
func gather(t *testing.T, m *Metrics) map[string]float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.Collectors()...)
	families, err := registry.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		require.Regexp(t, "^go_", p.Metric, "%s", p.Text)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, one := range f.GetMetric() {
			name := f.GetName()
			for _, l := range one.GetLabel() {
				name += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				got[name] = one.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				got[name] = one.GetGauge().GetValue()
			case dto.MetricType_HISTOGRAM:
				got[name+" count"] = float64(one.GetHistogram().GetSampleCount())
				got[name+" sum"] = one.GetHistogram().GetSampleSum()
			}
		}
	}
	return got
}

// changed returns what differs between two results of gather, without the process.
func changed(before, after map[string]float64) map[string]float64 {
	diff := make(map[string]float64)
	for name, v := range after {
		if v != before[name] && !bytes.HasPrefix([]byte(name), []byte("go_")) && !bytes.HasPrefix([]byte(name), []byte("process_")) {
			diff[name] = v
		}
	}
	return diff
}

// A server that speaks TLS says when its certificate ends.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		return filepath.Join(dir, name)
	}
	a, ca, err := trust.NewAuthority("north", 48*time.Hour)
	require.NoError(t, err)
	pair, err := a.Issue(trust.Identity{Cluster: "north", Server: 1}, nil, time.Hour)
	require.NoError(t, err)
	keys, err := trust.Open(trust.Options{Cluster: "north", Server: 1, CA: file("ca", ca.Cert), Cert: file("cert", pair.Cert), Key: file("key", pair.Key)})
	require.NoError(t, err)
	require.Equal(t, float64(pair.Until.Unix()), gather(t, New(nil, keys))["host_certificate_end_time_seconds"])
	require.NotContains(t, gather(t, New(nil, nil)), "host_certificate_end_time_seconds", "0 would mean 1970")
}

func TestCounts(t *testing.T) {
	m := New(nil, nil)
	before := gather(t, m)
	m.Synced(2 * time.Second)
	m.Input()
	m.Sent(2)
	m.Sent(2)
	m.Received(3)
	m.Lost(2, peers.LostFull, 3)
	m.Answered("put", "", time.Second)
	m.Answered("put", api.NotLeader, time.Second)
	m.Round(host.Round{StoreBytes: 77})
	require.Equal(t, map[string]float64{
		"host_fsync_seconds count": 1, "host_fsync_seconds sum": 2, "host_inputs_total": 1, "host_answers_total": 2, "host_rounds_total": 1,
		"raft_messages_sent_total peer=n2": 2, "raft_messages_received_total peer=n3": 1, "raft_messages_lost_total peer=n2 why=full": 3,
		"kv_requests_total code=ok op=put": 1, "kv_requests_total code=not_leader op=put": 1,
		"kv_request_seconds op=put count": 2, "kv_request_seconds op=put sum": 2, "kv_store_bytes": 77,
	}, changed(before, gather(t, m)))
}

// What a server's state tells from round to round.
func TestRounds(t *testing.T) {
	m := New(nil, nil)
	at := time.Unix(1_000, 0)
	round := func(s node.State, more time.Duration) map[string]float64 {
		before := gather(t, m)
		at = at.Add(more)
		m.Round(host.Round{At: at, Took: 3 * time.Second, Synced: 2 * time.Second, State: &s})
		diff := changed(before, gather(t, m))
		delete(diff, "host_rounds_total")
		return diff
	}
	peers := func(match2, match3 uint64) []node.Progress {
		return []node.Progress{{ID: 2, Match: match2}, {ID: 3, Match: match3}}
	}
	for _, c := range []struct {
		what  string
		after time.Duration
		state node.State
		want  map[string]float64
	}{
		{"it starts with what is on its disk", 0, node.State{Role: node.Follower, Term: 4, Timeout: 20, Last: 10, Commit: 0}, map[string]float64{}},
		{"it hears from a leader", 0, node.State{Role: node.Follower, Term: 4, Leader: 2, Last: 10, Commit: 10, Applied: 10},
			map[string]float64{"raft_leader_changes_total": 1, "raft_apply_seconds count": 1, "raft_apply_seconds sum": 1}},
		{"nothing happens", 0, node.State{Role: node.Follower, Term: 4, Leader: 2, Last: 10, Commit: 10, Applied: 10}, map[string]float64{}},
		{"it starts an election", 0, node.State{Role: node.Candidate, Term: 5, Last: 10, Commit: 10, Applied: 10}, map[string]float64{"raft_elections_started_total": 1}},
		{"and another", 0, node.State{Role: node.Candidate, Term: 6, Last: 10, Commit: 10, Applied: 10}, map[string]float64{"raft_elections_started_total": 2}},
		{"it wins", 0, node.State{Role: node.Leader, Term: 6, Leader: 1, Last: 11, Commit: 10, Applied: 10, Progress: peers(10, 4)},
			map[string]float64{"raft_elections_won_total": 1, "raft_leader_changes_total": 2, "raft_peer_lag_entries peer=n2": 1, "raft_peer_lag_entries peer=n3": 7}},
		{"its entry is committed five seconds later", 5 * time.Second, node.State{Role: node.Leader, Term: 6, Leader: 1, Last: 12, Commit: 11, Applied: 11, Progress: peers(11, 12)},
			map[string]float64{"raft_commit_seconds count": 1, "raft_commit_seconds sum": 8, "raft_apply_seconds count": 2, "raft_apply_seconds sum": 2, "raft_peer_lag_entries peer=n3": 0}},
		{"nothing happens at the leader", time.Second, node.State{Role: node.Leader, Term: 6, Leader: 1, Last: 12, Commit: 11, Applied: 11, Progress: peers(11, 12)}, map[string]float64{}},
		{"the next one never is: another server leads", time.Second, node.State{Role: node.Follower, Term: 7, Leader: 3, Last: 12, Commit: 11, Applied: 11},
			map[string]float64{"raft_leader_changes_total": 3}},
		{"an election that is won in one round", time.Second, node.State{Role: node.Leader, Term: 8, Leader: 1, Last: 13, Commit: 13, Applied: 13},
			map[string]float64{"raft_elections_started_total": 3, "raft_elections_won_total": 2, "raft_leader_changes_total": 4,
				"raft_commit_seconds count": 2, "raft_commit_seconds sum": 11, "raft_apply_seconds count": 3, "raft_apply_seconds sum": 3}},
	} {
		require.Equal(t, c.want, round(c.state, c.after), c.what)
	}
	require.NotContains(t, gather(t, m), "raft_peer_lag_entries peer=n2", "a server that leads no longer knows nothing of the others")
}

// Where an operator appoints the leader, there are no elections to count.
func TestAnAppointedLeaderIsNotElected(t *testing.T) {
	m := New(nil, nil)
	m.Round(host.Round{State: &node.State{Role: node.Follower, Term: 1}})
	before := gather(t, m)
	m.Round(host.Round{State: &node.State{Role: node.Leader, Term: 2, Leader: 1}})
	require.Equal(t, map[string]float64{"host_rounds_total": 2, "raft_leader_changes_total": 1}, changed(before, gather(t, m)))
}

// A leader without a majority must not remember every entry.
func TestALeaderWithoutAMajorityIsBounded(t *testing.T) {
	m := New(nil, nil)
	for i := range uint64(2 * maxArrivals) {
		m.Round(host.Round{State: &node.State{Role: node.Leader, Term: 1, Last: i + 1}})
	}
	require.Len(t, m.uncommitted, maxArrivals)
}

// The files are measured when somebody asks.
func TestFiles(t *testing.T) {
	folder, err := disk.OpenFolder(t.TempDir(), disk.Options{})
	require.NoError(t, err)
	defer folder.Close()
	m := New(folder, nil)
	f, err := disk.Replace(folder, "journal", []byte("12345"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, 5., gather(t, m)["host_file_bytes file=journal"])
	require.NoError(t, folder.Remove("journal"))
	require.NotContains(t, gather(t, m), "host_file_bytes file=journal")
}

func BenchmarkRound(b *testing.B) {
	m := New(nil, nil)
	s := node.State{Role: node.Leader, Term: 1, Leader: 1, Progress: []node.Progress{{ID: 2}, {ID: 3}, {ID: 4}, {ID: 5}}}
	b.ReportAllocs()
	for b.Loop() {
		s.Last++
		s.Commit, s.Applied = s.Last, s.Last
		m.Round(host.Round{State: &s})
		m.Sent(2)
		m.Answered("put", "", time.Millisecond)
	}
}
