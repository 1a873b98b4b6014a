// Package metrics counts and measures what a server does, for Prometheus. The names
// follow those that an operator of etcd knows, as far as the thing is the same.
//
//	host_rounds_total                    rounds of the server
//	host_inputs_total                    requests and messages that it has processed
//	host_answers_total                   requests that it has answered
//	host_fsync_seconds                   how long each fsync took
//	host_file_bytes{file}                how long the files in its folder are
//	host_certificate_end_time_seconds    when the certificate of a server that speaks TLS ends, or its CA
//	kv_requests_total{op,code}           answers by what was asked and how it ended
//	kv_request_seconds{op}               from the arrival of a request to its answer
//	kv_store_bytes                       bytes of keys and values
//	raft_commit_seconds                  at the leader: from when entries are in its log until they are committed
//	raft_apply_seconds                   rounds that have applied entries, without their fsync
//	raft_elections_started_total         elections that this server has started
//	raft_elections_won_total             and won
//	raft_leader_changes_total            leaders that this server has seen begin
//	raft_messages_sent_total{peer}       messages to a peer
//	raft_messages_received_total{peer}   messages from a peer
//	raft_messages_lost_total{peer,why}   messages that are known to be lost: cut, full, unreachable, too_long or refused
//	raft_peer_lag_entries{peer}          at the leader: entries that the peer is not known to have
//	go_…, process_…                      the process
//
// Package httpapi adds the fields of the status. This package is apart from host,
// so that a program which embeds a server does not carry Prometheus.
package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trust"
)

// Metrics is a host.Meter. Its Collectors are safe for concurrent use.
type Metrics struct {
	rounds, inputs, answers prometheus.Counter
	started, won, leaders   prometheus.Counter
	syncs, commits, applies prometheus.Histogram
	requests                *prometheus.CounterVec
	requestTimes            *prometheus.HistogramVec
	sent, received, lost    *prometheus.CounterVec
	lag                     *prometheus.GaugeVec
	store                   prometheus.Gauge
	files                   files
	certificate             prometheus.Collector

	// ops and peers have the metrics of one operation and of one peer, which take
	// longer to find by their labels.
	ops   map[string]*opMetrics
	peers map[uint64]*peerMetrics

	// before is the server's state after the last round, without its slices. elects is
	// true once the server had an election timer: without one, an operator appoints
	// the leader.
	before node.State
	elects bool

	// uncommitted says when a leader's entries came, the oldest first.
	uncommitted []arrival

	// lagging are the peers of this leader, and lags their gauges.
	lagging []uint64
	lags    []prometheus.Gauge
}

// opMetrics are the metrics of one operation.
type opMetrics struct {
	took prometheus.Observer
	ok   prometheus.Counter
}

// peerMetrics are the metrics of one peer.
type peerMetrics struct{ sent, received prometheus.Counter }

// arrival says that the log reached up to an index at a time.
type arrival struct {
	index uint64
	at    time.Time
}

// maxArrivals bounds the memory of a leader without a majority.
const maxArrivals = 10_000

// New returns metrics that have counted nothing. d is the server's folder, whose
// files are measured; nil for none. keys are those of a server that speaks TLS; nil for
// one that does not.
func New(d disk.Disk, keys *trust.Keys) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	times := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}
	}
	m := &Metrics{
		ops: make(map[string]*opMetrics), peers: make(map[uint64]*peerMetrics),
		rounds:       counter("host_rounds_total", "Rounds of the server. Each round writes to the disk at most once."),
		inputs:       counter("host_inputs_total", "Requests of clients and messages of peers that the server has processed."),
		answers:      counter("host_answers_total", "Requests of clients that the server has answered."),
		started:      counter("raft_elections_started_total", "Elections that this server has started."),
		won:          counter("raft_elections_won_total", "Elections that this server has won."),
		leaders:      counter("raft_leader_changes_total", "How often this server has learned of a leader of a newer term, itself included."),
		syncs:        prometheus.NewHistogram(times("host_fsync_seconds", "How long each fsync of a file or of the data folder took.")),
		commits:      prometheus.NewHistogram(times("raft_commit_seconds", "At the leader: the time from when the entries of a round are in its log until all of them are committed.")),
		applies:      prometheus.NewHistogram(times("raft_apply_seconds", "The time of a round that has applied entries, without its fsync.")),
		requests:     counters("kv_requests_total", "Answers to clients, by what was asked and how it ended: ok, or the code of the error.", "op", "code"),
		requestTimes: prometheus.NewHistogramVec(times("kv_request_seconds", "The time from the arrival of a request to its answer."), []string{"op"}),
		sent:         counters("raft_messages_sent_total", "Messages to a peer.", "peer"),
		received:     counters("raft_messages_received_total", "Messages from a peer.", "peer"),
		lost:         counters("raft_messages_lost_total", "Messages to or from a peer that are known to be lost: cut by an operator, because the queue was full, the peer unreachable or the message too long, or refused.", "peer", "why"),
		lag:          prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "raft_peer_lag_entries", Help: "At the leader: how many entries of its log the peer is not known to have."}, []string{"peer"}),
		store:        prometheus.NewGauge(prometheus.GaugeOpts{Name: "kv_store_bytes", Help: "Bytes of keys and values in the store."}),
		files:        files{disk: d, desc: prometheus.NewDesc("host_file_bytes", "How long the files in the server's folder are. A journal reserves space in advance.", []string{"file"}, nil)},
	}
	if keys != nil {
		m.certificate = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "host_certificate_end_time_seconds",
			Help: "When the server's certificate ends, or the one of the CA that has signed it, in seconds since 1970.",
		}, func() float64 { return float64(keys.End().Unix()) })
	}
	return m
}

// Collectors returns what a registry must collect: the metrics, and those of the
// process.
func (m *Metrics) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{
		m.rounds, m.inputs, m.answers, m.started, m.won, m.leaders, m.syncs, m.commits, m.applies, m.requests, m.requestTimes,
		m.sent, m.received, m.lost, m.lag, m.store, m.files,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	if m.certificate != nil {
		all = append(all, m.certificate)
	}
	return all
}

// Synced is host.Meter.Synced.
func (m *Metrics) Synced(took time.Duration) { m.syncs.Observe(took.Seconds()) }

// Sent is host.Meter.Sent.
func (m *Metrics) Sent(to uint64) { m.peer(to).sent.Inc() }

// Received is host.Meter.Received.
func (m *Metrics) Received(from uint64) { m.peer(from).received.Inc() }

// Lost is host.Meter.Lost.
func (m *Metrics) Lost(peer uint64, why peers.Loss, count int) {
	m.lost.WithLabelValues(node.Name(peer), string(why)).Add(float64(count))
}

func (m *Metrics) peer(id uint64) *peerMetrics {
	p := m.peers[id]
	if p == nil {
		name := node.Name(id)
		p = &peerMetrics{sent: m.sent.WithLabelValues(name), received: m.received.WithLabelValues(name)}
		m.peers[id] = p
	}
	return p
}

// Input is host.Meter.Input.
func (m *Metrics) Input() { m.inputs.Inc() }

// Answered is host.Meter.Answered.
func (m *Metrics) Answered(op string, code api.Code, took time.Duration) {
	m.answers.Inc()
	o := m.ops[op]
	if o == nil {
		o = &opMetrics{took: m.requestTimes.WithLabelValues(op), ok: m.requests.WithLabelValues(op, "ok")}
		m.ops[op] = o
	}
	o.took.Observe(took.Seconds())
	if code == "" {
		o.ok.Inc()
		return
	}
	m.requests.WithLabelValues(op, string(code)).Inc()
}

// Round is host.Meter.Round.
func (m *Metrics) Round(r host.Round) {
	m.rounds.Inc()
	m.store.Set(float64(r.StoreBytes))
	if r.State == nil {
		return
	}
	m.countRole(r.State)
	m.measureEntries(r)
	m.measureLag(r.State)
	m.before = *r.State
	m.before.Votes, m.before.Progress, m.before.Config, m.before.Base = nil, nil, node.Voters{}, node.Voters{}
}

// countRole counts elections and leaders.
func (m *Metrics) countRole(s *node.State) {
	newer := s.Term > m.before.Term
	m.elects = m.elects || s.Timeout > 0
	// A leader of a new term has started its election in this round, as in a
	// cluster of one.
	started := s.Role == node.Leader && newer || s.Role == node.Candidate && (newer || m.before.Role != node.Candidate)
	if m.elects && started {
		m.started.Inc()
	}
	if m.elects && s.Role == node.Leader && (newer || m.before.Role != node.Leader) {
		m.won.Inc()
	}
	if s.Leader != 0 && (newer || m.before.Leader != s.Leader) {
		m.leaders.Inc()
	}
}

// measureEntries measures the commits of a leader, and the applying of entries.
func (m *Metrics) measureEntries(r host.Round) {
	s := r.State
	leads := s.Role == node.Leader
	if !leads || s.Term != m.before.Term {
		m.uncommitted = m.uncommitted[:0]
	}
	if leads && s.Last > m.before.Last && len(m.uncommitted) < maxArrivals {
		m.uncommitted = append(m.uncommitted, arrival{s.Last, r.At.Add(-r.Took)})
	}
	done := 0
	for ; done < len(m.uncommitted) && m.uncommitted[done].index <= s.Commit; done++ {
		m.commits.Observe(r.At.Sub(m.uncommitted[done].at).Seconds())
	}
	m.uncommitted = append(m.uncommitted[:0], m.uncommitted[done:]...)
	if s.Applied > m.before.Applied {
		m.applies.Observe(max(0, r.Took-r.Synced).Seconds())
	}
}

// measureLag says how far the peers of a leader are.
func (m *Metrics) measureLag(s *node.State) {
	same := func(id uint64, p node.Progress) bool { return id == p.ID }
	if !slices.EqualFunc(m.lagging, s.Progress, same) {
		m.lag.Reset() // the servers are others, or this one leads no longer
		m.lagging, m.lags = m.lagging[:0], m.lags[:0]
		for _, p := range s.Progress {
			m.lagging = append(m.lagging, p.ID)
			m.lags = append(m.lags, m.lag.WithLabelValues(node.Name(p.ID)))
		}
	}
	for i, p := range s.Progress {
		m.lags[i].Set(float64(s.Last - min(p.Match, s.Last)))
	}
}

// files measures the files of a folder when somebody asks.
type files struct {
	disk disk.Disk
	desc *prometheus.Desc
}

// Describe is prometheus.Collector.Describe.
func (f files) Describe(out chan<- *prometheus.Desc) { out <- f.desc }

// Collect is prometheus.Collector.Collect. A file that disappears meanwhile is left
// out.
func (f files) Collect(out chan<- prometheus.Metric) {
	if f.disk == nil {
		return
	}
	names, err := f.disk.List()
	if err != nil {
		return
	}
	for _, name := range names {
		if size, ok := f.size(name); ok {
			out <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, float64(size), name)
		}
	}
}

func (f files) size(name string) (int64, bool) {
	file, err := f.disk.Open(name)
	if err != nil {
		return 0, false
	}
	size, err := file.Size()
	return size, file.Close() == nil && err == nil
}
