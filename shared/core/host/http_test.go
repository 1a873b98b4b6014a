package host

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/core/wire"
)

// counted returns the metrics of a loop by name.
func counted(t *testing.T, m metrics) map[string]float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.all()...)
	families, err := registry.Gather()
	require.NoError(t, err)
	got := make(map[string]float64)
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	return got
}

// The metrics count what their help says: rounds, inputs of the server, and
// answers.
func TestMetricsCountWhatWasDone(t *testing.T) {
	w := newWorld(nil)
	for _, key := range []string{"a", "b", "c"} {
		w.ask(key)
	}
	w.receive(2, []byte("m1"))
	w.receive(3, []byte("m2"))
	w.cut(4, true)
	require.NoError(t, w.round(1))
	require.Equal(t, map[string]float64{"host_rounds_total": 1, "host_inputs_total": 5, "host_answers_total": 3, "host_fsync_seconds": 0}, counted(t, w.metrics))
	w.receive(4, []byte("cut"))
	require.NoError(t, w.round(2))
	require.Equal(t, map[string]float64{"host_rounds_total": 2, "host_inputs_total": 5, "host_answers_total": 3, "host_fsync_seconds": 0}, counted(t, w.metrics))
	w.server.waiting = nil
	w.ask("d")
	w.server.flush = func() error { return io.ErrShortWrite }
	require.Error(t, w.round(0))
	require.Equal(t, map[string]float64{"host_rounds_total": 3, "host_inputs_total": 6, "host_answers_total": 3, "host_fsync_seconds": 0}, counted(t, w.metrics), "no answer has left")
}

// A host speaks HTTP on its address, shows its metrics there, and answers to the
// names of its configuration only.
func TestHTTPOfAHost(t *testing.T) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	h, err := New(Options{
		ID: 1, HTTP: true, Listener: ln, Ops: api.Commands(), Log: slog.New(slog.DiscardHandler), Trace: func(trace.Event) {},
		Config: node.Config{
			Cluster: "c", HTTPHosts: []string{"kv.example.org"},
			Members: []node.Member{{ID: 1, Address: "n1.example.org:7071"}}, Joiners: []node.Member{{ID: 4, Address: "n4.example.org:7074"}}, Secret: "s",
		},
		New: func(node.World) (node.Server, error) { return &recorder{}, nil },
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		require.NoError(t, <-done)
	}()
	get := func(host, path string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+path, nil)
		require.NoError(t, err)
		r.Host = host
		a, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		require.NoError(t, err)
		return a.StatusCode, string(text)
	}
	for host, want := range map[string]int{
		"kv.example.org": 200, "n1.example.org:7071": 200, "n4.example.org": 200, "localhost": 200, address: 200,
		"example.org": 421, "evil.example": 421,
	} {
		status, text := get(host, "/v1/kv/x")
		require.Equal(t, want, status, host)
		require.Equal(t, want == 200, text == "x", host)
	}
	_, text := get(address, "/metrics")
	require.Contains(t, text, "\nhost_rounds_total ")
	require.Regexp(t, "\nhost_answers_total [56]\n", text, "the status, which is asked for the metrics, may count")
}
