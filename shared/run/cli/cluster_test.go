//go:build unix

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// configFor writes a cluster.json with free ports and returns its path.
func configFor(t *testing.T, servers int, leader uint64) string {
	t.Helper()
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	file, err := cluster.New("test", servers, ports.First(), leader)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "given.json")
	require.NoError(t, file.Save(path))
	return path
}

// startCluster runs a cluster of real processes in a new folder, which becomes
// the current one.
func startCluster(t *testing.T, stage string, servers int, leader uint64, flags ...string) (*background, Stage) {
	t.Helper()
	config := configFor(t, servers, leader)
	t.Chdir(t.TempDir())
	t.Setenv(stageVariable, stage)
	s := stages[stage]
	b := start(t, s, append([]string{"cluster", "--config", config, "--data", filepath.Join(".raftsteps", s.Name)}, flags...)...)
	b.shows("^C stops all servers.")
	return b, s
}

func TestAClusterFromStartToEnd(t *testing.T) {
	b, s := startCluster(t, "92-cluster", 3, 2)
	require.Contains(t, b.out.String(), "3 servers on 127.0.0.1:")
	require.Contains(t, b.out.String(), ", n2 leads. Its data is in .raftsteps/92-cluster.\n")
	require.Contains(t, b.out.String(), "    go run ./92-cluster kill 3\n")

	require.Equal(t, result{0, "ok\n", ""}, run(t, s, "put", "x", "1"), "the client must find the leader by itself")
	require.Equal(t, result{0, "1\n", ""}, run(t, s, "get", "x"))
	require.Equal(t, 3, run(t, s, "get", "x", "--endpoints", "n1").code)
	got := run(t, s, "put", "x", "2", "--endpoints", "n3")
	require.Equal(t, 1, got.code)
	require.Regexp(t, `^error: n1 leads \(not_leader\); try --endpoints 127\.0\.0\.1:\d+\n$`, got.errors)

	require.Equal(t, result{0, "n2 killed\n", ""}, run(t, s, "kill", "leader"))
	got = run(t, s, "put", "x", "2")
	require.Equal(t, 5, got.code)
	require.Contains(t, got.errors, "connection refused (unavailable); n2 is not running (killed); bring it back with: go run ./92-cluster restart 2\n")
	got = run(t, s, "kill", "leader")
	require.Equal(t, 5, got.code)
	require.Contains(t, got.errors, "no server reports that it is the leader (unavailable); n2 is not running (killed); bring it back with: go run ./92-cluster restart 2\n")
	got = run(t, s, "kill", "2,1")
	require.Equal(t, result{1, "n1 killed\nn2 killed\n", "error: n2 is not running (killed); bring it back with: go run ./92-cluster restart 2\n"}, got)
	got = run(t, s, "-o", "json", "kill", "9")
	text, isError := strings.CutPrefix(got.errors, "error: n9 is not a server of this cluster; the servers are ")
	require.True(t, isError, got.errors)
	require.Equal(t, result{2, `{"ok":false,"error":{"code":"usage","message":"n9 is not a server of this cluster; the servers are ` +
		strings.TrimSuffix(text, "\n") + `","definite":true}}` + "\n", got.errors}, got)
	for _, words := range []string{"kill 9", "restart 1 9", "cut 9", "talk n9", "get x --endpoints n9"} {
		require.Equal(t, 2, run(t, s, strings.Fields(words)...).code, words)
	}
	require.Equal(t, result{0, "n1 running\nn2 running\nn3 running\n", ""}, run(t, s, "restart", "all"))
	require.Equal(t, 3, run(t, s, "get", "x").code, "a server without a disk must be empty after a restart")

	require.Equal(t, 0, b.stop())
	require.Empty(t, b.errors.String())
	got = run(t, s, "get", "x")
	require.Equal(t, 5, got.code)
	require.Contains(t, got.errors, "connection refused (unavailable); is the server running? (go run ./92-cluster cluster)\n")
	got = run(t, s, "kill", "1")
	require.Equal(t, result{5, "", "error: no cluster is running on .raftsteps/92-cluster; start one with: go run ./92-cluster cluster\n"}, got)
}

func TestCutsStopMessagesAndNotClients(t *testing.T) {
	_, s := startCluster(t, "95-elect", 3, 0)
	heard := func(server string) string {
		got := run(t, s, "get", "hear", "--endpoints", server)
		require.Zero(t, got.code, got.errors)
		return got.out
	}
	require.Eventually(t, func() bool { return heard("n1") == "n2n3\n" }, 10*time.Second, 20*time.Millisecond)

	require.Equal(t, result{0, "n1 running, cut off from n3\nn2 running\nn3 running, cut off from n1\n", ""}, run(t, s, "cut", "1", "3"))
	heard("n1")
	require.Eventually(t, func() bool { return heard("n1") == "n2\n" }, 10*time.Second, 20*time.Millisecond)
	require.Equal(t, result{0, "n3 running, cut off from n1\n", ""}, run(t, s, "restart", "3"))
	for range 5 {
		require.NotContains(t, heard("n1"), "n3", "a restart must not heal a cut")
	}
	require.Equal(t, result{0, "n1 running, cut off from n2 n3\nn2 running, cut off from n1\nn3 running, cut off from n1\n", ""}, run(t, s, "cut", "n1"))
	got := run(t, s, "heal", "-o", "json")
	require.Equal(t, `[{"id":1,"state":"running"},{"id":2,"state":"running"},{"id":3,"state":"running"}]`+"\n", got.out)
	require.Eventually(t, func() bool { return heard("n1") == "n2n3\n" }, 10*time.Second, 20*time.Millisecond)
}

func TestStatusSaysWhoCanBeReachedAndWhyNot(t *testing.T) {
	_, s := startCluster(t, "92-cluster", 4, 1)
	run(t, s, "kill", "2")
	run(t, s, "pause", "3")
	got := run(t, s, "status")
	require.Zero(t, got.code)
	lines := regexp.MustCompile(`(127\.0\.0\.1:\d+) +`).ReplaceAllString(got.out, "ADDRESS  ")
	lines = regexp.MustCompile(` {2,}`).ReplaceAllString(lines, "  ")
	require.Equal(t, strings.Join([]string{
		"SERVER  ADDRESS  ROLE  LEADER  COMMIT  APPLIED  LAG  REACHABLE",
		"n1  ADDRESS  leader  n1  9  1  8  yes",
		"n2  ADDRESS  -  -  -  -  -  no: killed",
		"n3  ADDRESS  -  -  -  -  -  no: paused",
		"n4  ADDRESS  follower  n1  9  4  5  yes",
		"",
	}, "\n"), lines)

	got = run(t, s, "status", "-o", "json")
	var rows []map[string]any
	require.NoError(t, json.Unmarshal([]byte(got.out), &rows))
	require.Len(t, rows, 4)
	delete(rows[0], "address")
	delete(rows[1], "address")
	require.Equal(t, map[string]any{"server": "n1", "reachable": true, "id": 1.0, "role": "leader", "leader": 1.0, "commit": 9.0, "applied": 1.0, "lag": 8.0}, rows[0])
	require.Equal(t, map[string]any{"server": "n2", "reachable": false, "reason": "killed"}, rows[1])

	got = run(t, s, "status", "--endpoints", "n2,n3")
	require.Equal(t, 5, got.code)
	require.Equal(t, "error: no server can be reached (unavailable); n2 is not running (killed); bring it back with: go run ./92-cluster restart 2; "+
		"n3 is paused; resume it with: go run ./92-cluster resume 3\n", got.errors)
	got = run(t, s, "status", "--endpoints", freeAddress(t))
	require.Equal(t, "error: no server can be reached (unavailable)\n", got.errors, "status must not advise to look at the status")
}

func TestStatusWithoutASupervisor(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	got := run(t, s, "status", "--endpoints", freeAddress(t)+","+deaf(t), "--timeout", "50ms")
	require.Equal(t, 5, got.code)
	require.Regexp(t, `(?m)^-       127.0.0.1:\d+ +no: connection refused$`, got.out)
	require.Regexp(t, `(?m)^-       127.0.0.1:\d+ +no: .*no answer in time`, got.out)
	require.Contains(t, got.errors, "error: no server can be reached (unavailable); is the server running? (")
}

func TestStatusOfASingleServer(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	run(t, s, "put", "x", "1", "--endpoints", live)
	got := run(t, s, "status", "--endpoints", live)
	require.Equal(t, result{0, "SERVER  ADDRESS          KEYS  REACHABLE\n-       " + live + "  1     yes\n", ""}, got)
}

func TestEndpointsInTheirOrder(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	a := &app{stage: s}
	a.flags.data, a.flags.basePort = a.defaultData(), 7920
	targets := func() []string {
		got, err := a.targets()
		require.NoError(t, err)
		return got
	}
	require.Equal(t, []string{"127.0.0.1:7921", "127.0.0.1:7922", "127.0.0.1:7923", "127.0.0.1:7924", "127.0.0.1:7925"}, targets(), "the stage's own ports")

	require.NoError(t, os.MkdirAll(a.flags.data, 0o755))
	file, err := cluster.New(s.Name, 3, 8000, 3)
	require.NoError(t, err)
	require.NoError(t, file.Save(filepath.Join(a.flags.data, cluster.ConfigName)))
	require.Equal(t, []string{"127.0.0.1:8003", "127.0.0.1:8002", "127.0.0.1:8001"}, targets(), "the cluster in the data folder, its leader first")

	t.Setenv(endpointsVariable, "n2, localhost:99")
	require.Equal(t, []string{"127.0.0.1:8002", "localhost:99"}, targets())
	a.flags.endpoints = "127.0.0.1:8001,2"
	require.Equal(t, []string{"127.0.0.1:8001", "127.0.0.1:8002"}, targets())

	require.NoError(t, os.WriteFile(filepath.Join(a.flags.data, "stage"), []byte("07-other\n"), 0o600))
	got := run(t, s, "get", "x")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, ".raftsteps/92-cluster holds the data of stage 07-other, but this is 92-cluster")
}

// A cluster that writes traces can be watched in the lab.
func TestHintsNameTheLabOfACluster(t *testing.T) {
	s := storied(nil, nil)
	file, err := cluster.New(s.Name, 3, 8000, 0)
	require.NoError(t, err)
	a := &app{stage: s}
	require.NotContains(t, a.clusterHints(&cluster.Folder{File: file}), "lab --live")
	a.traceFile = "trace"
	require.Contains(t, a.clusterHints(&cluster.Folder{File: file}), " lab --live --data ")
	a.stage.Scenarios = nil
	require.NotContains(t, a.clusterHints(&cluster.Folder{File: file}), "lab --live")
}

func TestTheBasePortMovesWithTheVariable(t *testing.T) {
	t.Setenv(basePortVariable, "8100")
	a := &app{stage: stages["91-single"]}
	require.NoError(t, a.checkBasePort(a.root()))
	require.Equal(t, "127.0.0.1:8100", a.defaultListen())
	for name, want := range map[string]int{"00-kvserver": 7000, "07-membership": 7070, "nonsense": 7000} {
		require.Equal(t, want, (&app{stage: Stage{Name: name}}).stageBase())
	}
}

// The advice for a majority names every server that is not running.
func TestHintsToRestoreAMajority(t *testing.T) {
	_, s := startCluster(t, "94-members", 3, 0)
	require.Zero(t, run(t, s, "kill", "1", "3").code)
	got := run(t, s, "get", "x")
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "connection refused (unavailable); n1, n3 are not running; bring them back with: go run ./94-members restart 1 3\n")
}

func TestClusterRefusals(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	for name, want := range map[string]string{
		"92-cluster": `error: --transport: this program has no transport "grpc"; it has tcp`,
		"94-members": "error: --transport: this program was built without grpc; run it as go run -tags grpc ./94-members …",
	} {
		got := run(t, stages[name], "cluster", "--transport", "grpc")
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.errors, want)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	got := run(t, s, "cluster", "-n", "1", "--base-port", strconv.Itoa(port-1))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, fmt.Sprintf("error: n1 cannot listen on 127.0.0.1:%d: another program uses that port, or n1 is already running; stop it, or take other ports with --fresh --base-port", port))
	require.Empty(t, got.out)

	got = run(t, s, "cluster", "-n", "3")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "has 1 servers, not 3; leave -n out to continue with it, or delete it with --fresh")
	got = run(t, s, "cluster", "--config", "missing.json")
	require.Equal(t, result{1, "", "error: there is no file missing.json\n"}, got)
	got = run(t, stages["95-elect"], "cluster", "--data", filepath.Join(".raftsteps", s.Name))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "holds the data of stage 92-cluster, but this is 95-elect; name another folder with --data")
	got = run(t, s, "cluster", "--config", configFor(t, 3, 0))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, `field "leader" is missing`)
}

func TestAConfigurationNamesItsDataFolder(t *testing.T) {
	config := configFor(t, 1, 1)
	text, err := os.ReadFile(config)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte(`"data_dir": "."`), []byte(`"data_dir": "here"`), 1)
	require.NoError(t, os.WriteFile(config, text, 0o600))
	t.Chdir(t.TempDir())
	t.Setenv(stageVariable, "92-cluster")
	s := stages["92-cluster"]
	b := start(t, s, "cluster", "--config", config)
	b.shows("^C stops all servers.")
	data := filepath.Join(filepath.Dir(config), "here")
	require.Contains(t, b.out.String(), "    go run ./92-cluster put x 1 --data "+data+"\n", "the hints must work if they are typed as they are")
	require.Zero(t, run(t, s, "put", "x", "1", "--data", data).code)
	got := run(t, s, "pause", "1", "--data", data)
	require.Zero(t, got.code, got.errors)
	got = run(t, s, "get", "x", "--data", data, "--timeout", "50ms", "-o", "json")
	require.NotZero(t, got.code)
	got = run(t, s, "kill", "1", "--data", data)
	require.Zero(t, got.code, got.errors)
	got = run(t, s, "get", "x", "--data", data)
	require.Contains(t, got.errors, "n1 is not running (killed); bring it back with: go run ./92-cluster restart 1 --data "+data+"\n")
	require.Zero(t, b.stop())
}

func TestNodeRefusals(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	config := configFor(t, 2, 1)
	file, err := cluster.Load(config)
	require.NoError(t, err)
	got := run(t, s, "node", "--id", "1")
	require.Equal(t, result{1, "", "error: there is no file .raftsteps/92-cluster/cluster.json; run \"go run ./92-cluster cluster\" to create one, or name another file with --config\n"}, got)
	got = run(t, s, "node", "--id", "9", "--config", config)
	require.Equal(t, 2, got.code)
	require.Contains(t, got.errors, "error: --id 9: "+config+" has no such member; the members are n1 ("+file.Config.Address(1)+"), n2 (")
	got = run(t, stages["95-elect"], "node", "--id", "1", "--config", config)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "the servers elect their leader; leave the field out")

	busy, err := net.Listen("tcp", file.Config.Address(2))
	require.NoError(t, err)
	defer busy.Close()
	got = run(t, s, "node", "--id", "2", "--config", config)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "error: n2 cannot listen on "+file.Config.Address(2)+": another program uses that port")

	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(config), "stage"), []byte("07-other\n"), 0o600))
	got = run(t, s, "node", "--id", "1", "--config", config)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "holds the data of stage 07-other")
}

// A server syncs its disk, unless its configuration turns that off.
func TestANodeSyncsItsDisk(t *testing.T) {
	for _, fsync := range []bool{true, false} {
		s := stages["92-cluster"]
		s.Disk = true
		syncs := make(chan uint64, 1)
		s.New = func(w node.World) (node.Server, error) {
			d := w.Disk.(*disk.Folder)
			before := d.Syncs()
			f, err := disk.Replace(d, "a", []byte("x"))
			if err != nil {
				return nil, err
			}
			syncs <- d.Syncs() - before
			return newForTestIn(w, f)
		}
		config := configFor(t, 1, 1)
		file, err := cluster.Load(config)
		require.NoError(t, err)
		file.Config.Fsync = fsync
		require.NoError(t, file.Save(config))
		b := start(t, s, "node", "--id", "1", "--config", config, "--data", t.TempDir())
		b.shows("listening")
		require.Zero(t, b.stop())
		if n := <-syncs; fsync {
			require.Equal(t, uint64(2), n, "the file and the folder")
		} else {
			require.Zero(t, n)
		}
	}
}

// newForTestIn closes a file and creates a server.
func newForTestIn(w node.World, f disk.File) (node.Server, error) {
	if err := f.Close(); err != nil {
		return nil, err
	}
	return newForTest(w)
}

// A configuration that other users can read causes a warning, because it contains
// the secret; also if it is given to the command cluster.
func TestAReadableSecretIsReported(t *testing.T) {
	s := stages["92-cluster"]
	config := configFor(t, 1, 1)
	b := start(t, s, "node", "--id", "1", "--config", config)
	b.shows("listening")
	require.Zero(t, b.stop())
	require.NotContains(t, b.errors.String(), "secret")
	require.NoError(t, os.Chmod(config, 0o644))
	b = start(t, s, "node", "--id", "1", "--config", config)
	b.shows("WARN  n1: other users of this machine can read or change " + config)
	require.Zero(t, b.stop())
	require.NotContains(t, b.errors.String(), "0123456789", "the secret must not be printed")
}

// The file of a trace can be read only by its owner. A pipe without a reader is
// refused at once.
func TestFilesForATrace(t *testing.T) {
	dir := t.TempDir()
	file, err := createTrace(filepath.Join(dir, "trace"), os.O_APPEND)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	info, err := os.Stat(file.Name())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	got := run(t, stages["92-cluster"], "node", "--id", "1", "--config", configFor(t, 1, 1), "--trace", pipe)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "--trace: no program reads the pipe "+pipe)
}

func TestANodeRunsAloneUntilItsContextEnds(t *testing.T) {
	s := stages["92-cluster"]
	s.Disk = true
	config := configFor(t, 1, 1)
	data := t.TempDir()
	b := start(t, s, "node", "--id", "1", "--config", config, "--data", data, "--log-level", "debug")
	b.shows("INFO  n1: listening address=127.0.0.1:")
	file, err := cluster.Load(config)
	require.NoError(t, err)
	require.Zero(t, run(t, s, "put", "x", "1", "--endpoints", file.Config.Address(1)).code)
	require.DirExists(t, filepath.Join(data, "n1"))
	require.Zero(t, b.stop())
	require.Contains(t, b.errors.String(), "INFO  n1: stopped\n")
	require.Contains(t, b.errors.String(), "DEBUG n1: request put x=1\n", "level debug must log every event")
	require.Empty(t, b.out.String(), "the log must not go to stdout")
}

// program starts the test binary as the program of a stage in a folder.
func program(t *testing.T, stage, dir string, args ...string) (*exec.Cmd, *buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	cmd.Dir = dir
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, out
}

func TestInterruptEndsTheClusterInOrder(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			if signal.Ignored(sig) {
				t.Skip("this process ignores the signal, as under nohup, so its children do too")
			}
			config, dir := configFor(t, 3, 1), t.TempDir()
			cmd, out := program(t, "92-cluster", dir, "cluster", "--config", config, "--data", "data")
			require.Eventually(t, func() bool { return strings.Contains(out.String(), "^C stops all servers.") }, 20*time.Second, 2*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(sig))
			require.NoError(t, cmd.Wait(), "the exit code must be 0")
			for _, want := range []string{"-- | stopping 3 servers; ^C again to kill\n", "n1 | ", " stopped\n"} {
				require.Contains(t, out.String(), want)
			}
			file, err := cluster.Load(config)
			require.NoError(t, err)
			for _, m := range file.Config.Members {
				l, err := net.Listen("tcp", m.Address)
				require.NoError(t, err, "a server is still running")
				l.Close()
			}
		})
	}
}

func TestASecondInterruptKills(t *testing.T) {
	config, dir := configFor(t, 2, 1), t.TempDir()
	cmd, out := program(t, "92-cluster", dir, "cluster", "--config", config, "--data", "data")
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "^C stops all servers.") }, 20*time.Second, 2*time.Millisecond)
	// An orderly stop would wait for a client with a request in flight, and for a
	// server whose process was stopped by a signal.
	for _, pid := range childrenOf(t, cmd.Process.Pid) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
		defer syscall.Kill(pid, syscall.SIGKILL)
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "stopping 2 servers") }, 20*time.Second, 2*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait())
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		t.Skip("this system does not show the children of a process in /proc")
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// ^C always has the same exit code; the error says what is known about the
// operation.
func TestInterruptEndsACommandWithTheRightCode(t *testing.T) {
	for _, tt := range []struct{ command, error string }{
		{"put x 1", "error: interrupted: .* may yet happen \\(unknown\\); read the key before you try again\n"},
		{"put x 1 -o json", `{"ok":false,"error":{"code":"unknown",.*"definite":false}}`},
		{"get x", "error: interrupted: .* \\(unknown\\)"},
		{"status", "^error: interrupted\n$"},
		{"bench --verify", "error: interrupted: "},
	} {
		t.Run(tt.command, func(t *testing.T) {
			address, asked := deafServer(t)
			cmd, out := program(t, "91-single", t.TempDir(), append(strings.Fields(tt.command), "--endpoints", address, "--timeout", "1h")...)
			<-asked
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			cmd.Wait()
			require.Equal(t, 130, cmd.ProcessState.ExitCode(), out)
			require.Regexp(t, tt.error, out.String())
		})
	}
}

// ^C interrupts scenarios. The command talk, which ^C may end at any time, then
// exits with 0.
func TestInterruptEndsScenariosAndTalk(t *testing.T) {
	b := start(t, storied(nil, []string{"missed-message"}), "scenario", "missed-message", "--seeds", "1000000")
	b.shows("missed-message breaks")
	require.Equal(t, exitInterrupted, b.stop())
	b = start(t, storied(nil, []string{"missed-message"}), "scenario", "--all", "--seeds", "1000000")
	b.shows("missed-message: ")
	require.Equal(t, exitInterrupted, b.stop())
	require.Equal(t, "error: interrupted\n", b.errors.String())

	in, typed := io.Pipe()
	defer typed.Close()
	b = startWith(t, stages["91-single"], in, "talk", startSingle(t, stages["91-single"]))
	_, err := io.WriteString(typed, `{"op":"put","key":"x","value":"1"}`+"\n")
	require.NoError(t, err)
	b.shows(`{"ok":true}`)
	require.Zero(t, b.stop(), b.errors.String())
}

func TestInterruptOfAClusterCommandSaysThatItMayContinue(t *testing.T) {
	b, s := startCluster(t, "92-cluster", 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errors buffer
	require.Equal(t, exitInterrupted, Run(ctx, s, []string{"restart", "1"}, strings.NewReader(""), &out, &errors))
	require.Equal(t, "error: interrupted; restart may still be carried out; see the servers with: go run ./92-cluster status\n", errors.String())
	require.Empty(t, out.String())
	require.Zero(t, b.stop(), "a cluster that ends with ^C must exit with 0")
}
