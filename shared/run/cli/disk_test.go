package cli

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/run/cluster"
)

// diskProgram runs one server with a disk as a process, and returns its address,
// its folder, the process and its output.
func diskProgram(t *testing.T, fsync bool) (address, folder string, cmd *exec.Cmd, out *buffer) {
	t.Helper()
	config, data := configFor(t, 1, 1), t.TempDir()
	file, err := cluster.Load(config)
	require.NoError(t, err)
	file.Config.Fsync = fsync
	require.NoError(t, file.Save(config))
	cmd, out = program(t, "96-disk", data, "node", "--id", "1", "--config", config, "--data", data)
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "listening") }, 20*time.Second, 2*time.Millisecond, "%v", out)
	return file.Config.Address(1), filepath.Join(data, "n1"), cmd, out
}

// metricsOf returns the text of a server's metrics.
func metricsOf(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(text)
}

// syncsOf returns how many syncs a server has done, from its metrics.
func syncsOf(t *testing.T, address string) int {
	t.Helper()
	text := metricsOf(t, address)
	count := regexp.MustCompile(`(?m)^host_fsync_seconds_count (\d+)$`).FindStringSubmatch(text)
	require.NotNil(t, count, "%s", text)
	n, err := strconv.Atoi(count[1])
	require.NoError(t, err)
	return n
}

// A process shows what its server does, its files, and itself.
func TestMetricsOfAProcess(t *testing.T) {
	address, _, _, _ := diskProgram(t, true)
	for range 3 {
		require.Zero(t, run(t, stages["96-disk"], "put", "x", "1", "--endpoints", address).code)
	}
	text := metricsOf(t, address)
	for _, line := range []string{`kv_requests_total{code="ok",op="put"} 3`, `kv_request_seconds_count{op="put"} 3`,
		`host_file_bytes{file="log"} `, "host_rounds_total ", "raft_elections_won_total ", "go_goroutines ", "process_cpu_seconds_total "} {
		require.Contains(t, text, "\n"+line)
	}
}

// The real process syncs each write before it acknowledges it, unless the
// configuration turns that off; then it logs a warning.
func TestFsyncIsOnByDefault(t *testing.T) {
	const off = "fsync is off, so writes are acknowledged before they are on the disk"
	for _, fsync := range []bool{true, false} {
		address, _, _, out := diskProgram(t, fsync)
		before := syncsOf(t, address)
		for range 3 {
			require.Zero(t, run(t, stages["96-disk"], "put", "x", "1", "--endpoints", address).code)
		}
		if fsync {
			require.GreaterOrEqual(t, syncsOf(t, address), before+3)
			require.NotContains(t, out.String(), off)
		} else {
			require.Zero(t, syncsOf(t, address))
			require.Contains(t, out.String(), off)
		}
	}
}

// If a file or the folder of a server is deleted or moved, the server stops, so
// it acknowledges no more writes.
func TestAServerWhoseFolderIsGoneStops(t *testing.T) {
	for name, lose := range map[string]func(folder string) error{
		"file":   func(folder string) error { return os.Remove(filepath.Join(folder, "log")) },
		"folder": os.RemoveAll,
		"moved":  func(folder string) error { return os.Rename(folder, folder+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, folder, cmd, out := diskProgram(t, true)
			require.Zero(t, run(t, stages["96-disk"], "put", "x", "1", "--endpoints", address).code)
			require.NoError(t, lose(folder))
			var failed *exec.ExitError
			require.ErrorAs(t, cmd.Wait(), &failed)
			require.Equal(t, 1, failed.ExitCode())
			require.Contains(t, out.String(), "was deleted, moved or replaced while the server was running, so writes acknowledged in the last second may be lost")
		})
	}
}
