package host

import "github.com/prometheus/client_golang/prometheus"

// metrics count what the loop does. They are safe for concurrent use.
type metrics struct {
	rounds  prometheus.Counter
	inputs  prometheus.Counter
	answers prometheus.Counter
	syncs   prometheus.Histogram
}

func newMetrics() metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return metrics{
		rounds:  counter("host_rounds_total", "Rounds of the server. Each round writes to the disk at most once."),
		inputs:  counter("host_inputs_total", "Requests of clients and messages of peers that the server has processed."),
		answers: counter("host_answers_total", "Requests of clients that the server has answered."),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "host_fsync_seconds", Help: "How long each fsync of a file or of the data folder took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
}

func (m metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.rounds, m.inputs, m.answers, m.syncs}
}
