//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/run/cluster"
)

// A process may open only a few files, and idle clients could use them all.
// Clients beyond the limit are refused, so that the next snapshot can still
// open a file.
func TestIdleClientsLeaveFilesForTheSnapshot(t *testing.T) {
	t.Parallel()
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New(stage.Name, 1, ports.First(), 0)
	require.NoError(t, err)
	file.Config.CompactBytes = cluster.MinCompact
	path := filepath.Join(t.TempDir(), cluster.ConfigName)
	require.NoError(t, file.Save(path))
	address := file.Config.Members[0].Address

	program, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := exec.CommandContext(ctx, "sh", "-c", `ulimit -n 64; exec "$0" node --id 1 --config "$1"`, program, path)
	var said bytes.Buffer
	server.Stderr = &said
	require.NoError(t, server.Start())

	var c net.Conn
	require.Eventually(t, func() bool {
		c, err = net.Dial("tcp", address)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	in := bufio.NewReader(c)
	ask := func(line string) string {
		_, err := fmt.Fprintln(c, line)
		require.NoError(t, err)
		answer, err := in.ReadString('\n')
		require.NoError(t, err)
		return answer
	}
	require.Eventually(t, func() bool { return strings.Contains(ask(`{"op":"put","key":"x","value":"1"}`), `"ok":true`) }, time.Minute, 5*time.Millisecond)

	const idle = 200
	refused := make(chan bool, idle)
	for range idle {
		other, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer other.Close()
		go func() {
			answer, _ := bufio.NewReader(other).ReadString('\n')
			refused <- strings.Contains(answer, `"code":"busy"`)
		}()
	}
	const places = 12 // half of 64 - 40
	for range idle - places + 1 {
		require.True(t, <-refused)
	}
	value := strings.Repeat("v", 60_000)
	require.Eventually(t, func() bool {
		require.Contains(t, ask(`{"op":"put","key":"x","value":"`+value+`"}`), `"ok":true`)
		return strings.Contains(ask(`{"op":"status"}`), `"snapshot":`)
	}, time.Minute, time.Millisecond)

	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	require.NoError(t, server.Wait(), said.String())
	require.Contains(t, said.String(), "this process may open only few files, so it accepts fewer clients")
}
