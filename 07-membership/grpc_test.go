//go:build grpc

package main

import (
	"bufio"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport/grpc"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/run/cluster"
)

// Each message that the servers send in the simulator is converted as gRPC would send
// it, and back.
func TestScenariosOverGRPC(t *testing.T) {
	s := scenarios
	s.New = func(w node.World) (node.Server, error) {
		send := w.Send
		w.Send = func(to uint64, line []byte) { send(to, thereAndBack(line)) }
		return scenarios.New(w)
	}
	s.Survives = []string{"lagging-follower", "grow", "hand-over", "chaos"}
	scenario.Test(t, s)
}

// thereAndBack returns the line that arrives. A line that cannot be sent, or that
// arrives as another one, ends the scenario.
func thereAndBack(line []byte) []byte {
	m, err := grpc.FromLine(slices.Clone(line))
	if err != nil {
		panic(err)
	}
	sent, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	var arrived raftpb.Message
	if err := proto.Unmarshal(sent, &arrived); err != nil {
		panic(err)
	}
	back, err := grpc.AppendLine(nil, &arrived)
	if err != nil || string(back) != string(line) {
		panic(fmt.Sprintf("%s arrives as %s: %v", line, back, err))
	}
	return back
}

// A server counts its messages to each peer, and says why it loses those to a server
// that has stopped.
func TestMetricsOverGRPC(t *testing.T) {
	if *over != grpc.Name {
		t.Skip("only with -transport grpc")
	}
	p := startProcesses(t)
	gone := p.leader()
	p.do(cluster.Kill, gone)
	require.Eventually(t, func() bool { // one of the other two leads next
		for _, pair := range [][2]uint64{{gone%3 + 1, (gone+1)%3 + 1}, {(gone+1)%3 + 1, gone%3 + 1}} {
			all, peer := p.metrics(pair[0]), node.Name(pair[1])
			lost := all[`raft_messages_lost_total{peer="`+node.Name(gone)+`",why="unreachable"}`]
			if lost > 0 && all[`raft_messages_sent_total{peer="`+peer+`"}`] > 0 && all[`raft_messages_received_total{peer="`+peer+`"}`] > 0 {
				return true
			}
		}
		return false
	}, patient, 10*time.Millisecond)
}

// metrics returns the metrics of a server, by name and labels.
func (p *processes) metrics(id uint64) map[string]float64 {
	answer, err := http.Get("http://" + p.endpoints[id-1] + "/metrics")
	require.NoError(p.t, err)
	defer answer.Body.Close()
	require.Equal(p.t, http.StatusOK, answer.StatusCode)
	all := make(map[string]float64)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && name != "#" {
			all[name], err = strconv.ParseFloat(value, 64)
			require.NoError(p.t, err)
		}
	}
	return all
}

var grpcurl = flag.Bool("grpcurl", false, "install grpcurl and run the README's commands with it; needs -transport grpc")

// The README shows what grpcurl prints.
func TestGRPCurl(t *testing.T) {
	if !*grpcurl {
		t.Skip("it builds grpcurl; run it with -transport grpc -grpcurl")
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	address := startProcesses(t).endpoints[0]
	bin := t.TempDir()
	ran := 0
	for _, c := range regexp.MustCompile(`(?m)^\$ (go install|grpcurl) (.*)\n((?:[^$`+"`"+`].*\n)*)`).FindAllStringSubmatch(string(text), -1) {
		var cmd *exec.Cmd
		if c[1] == "grpcurl" {
			cmd = exec.CommandContext(t.Context(), "sh", "-c", filepath.Join(bin, "grpcurl")+" "+strings.ReplaceAll(c[2], "127.0.0.1:7071", address))
			ran++
		} else {
			cmd = exec.CommandContext(t.Context(), "go", "install", c[2])
			cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off")
		}
		out, _ := cmd.CombinedOutput() // what the README shows may be an error
		if c[1] == "grpcurl" {
			require.Equal(t, c[3], string(out), c[0])
		}
	}
	require.Equal(t, 3, ran, "commands with grpcurl in the README")
}
