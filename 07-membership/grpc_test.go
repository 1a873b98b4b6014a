//go:build grpc

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport/grpc"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
	"example.com/raftsteps/shared/lab/scenario"
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
