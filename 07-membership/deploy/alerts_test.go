package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/httpapi"
	"example.com/raftsteps/shared/core/metrics"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trust"
)

var (
	metricInRules = regexp.MustCompile(`\b(?:raft|kv|host|process|go)_[a-z_]+[a-z]`)
	metricServed  = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
)

// The alerts and the page speak only of metrics that a server has. An alert about
// another one would never fire.
func TestAlertsNameMetrics(t *testing.T) {
	a, ca, err := trust.NewAuthority("north", time.Hour)
	require.NoError(t, err)
	pair, err := a.Issue(trust.Identity{Cluster: "north", Server: 1}, nil, time.Hour)
	require.NoError(t, err)
	file := func(name string, text []byte) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	keys, err := trust.Open(trust.Options{Cluster: "north", Server: 1, CA: file("ca", ca.Cert), Cert: file("cert", pair.Cert), Key: file("key", pair.Key)})
	require.NoError(t, err)
	m := metrics.New(nil, keys)
	m.Answered(api.Status, "", time.Millisecond)
	m.Sent(2)
	m.Received(2)
	m.Lost(2, peers.LostFull, 1)
	m.Round(host.Round{State: &node.State{Role: node.Leader, Progress: []node.Progress{{ID: 2}}}})
	ask := func(_ api.Request, reply func(api.Response)) {
		reply(api.Response{Data: json.RawMessage(`{"id":1,"role":"leader","ready":true,"phase":"none"}`)})
	}
	w := httptest.NewRecorder()
	httpapi.New(httpapi.Options{Ask: ask, Metrics: m.Collectors()}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code)
	served := map[string]bool{}
	for _, s := range metricServed.FindAllStringSubmatch(w.Body.String(), -1) {
		served[s[1]] = true
		if s[2] == "histogram" {
			served[s[1]+"_bucket"] = true
		}
	}
	rules, err := os.ReadFile("alerts.yaml")
	require.NoError(t, err)
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	names := append(metricInRules.FindAllString(string(rules), -1), metricInRules.FindAllString(string(page), -1)...)
	require.Greater(t, len(names), 8)
	for _, name := range names {
		require.True(t, served[name], "no server has the metric %s", name)
	}
}
