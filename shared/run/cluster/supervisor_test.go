//go:build unix

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/freeport"
)

// The test binary runs itself as a server, or as a supervisor. This variable
// says as which.
const roleVariable = "RAFTSTEPS_CLUSTER_TEST"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		// The race detector makes each process that ends wait for a second.
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		os.Exit(m.Run())
	case "supervisor":
		superviseForTest(os.Args[1], os.Args[2])
	default:
		serveForTest(role, os.Args[1], os.Args[2])
	}
}

// serveForTest is a server that keeps to the protocol of its pipes. How well
// it keeps to it depends on its role.
func serveForTest(role, address, cuts string) {
	// What it prints after its supervisor has died must not be its death.
	signal.Ignore(syscall.SIGPIPE)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	l, err := net.Listen("tcp", address)
	if err != nil || role == "broken" {
		fmt.Fprintln(os.Stderr, "error: the disk is full of beans")
		os.Exit(1)
	}
	defer l.Close()
	fmt.Fprintln(os.Stderr, "up with cuts", cuts)
	fmt.Println(Ready)
	end := make(chan string, 2)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			fmt.Fprintln(os.Stderr, "was told:", in.Text())
			f, err := os.OpenFile(notesOf(address), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
			if err == nil {
				_, err = fmt.Fprintln(f, in.Text())
			}
			if err := errors.Join(err, f.Close()); err != nil {
				panic(err)
			}
			fmt.Println(Done)
		}
		end <- "the end of the pipe"
	}()
	go func() {
		<-term
		end <- "a signal"
	}()
	why := <-end
	if role == "deaf" {
		select {}
	}
	fmt.Fprintln(os.Stderr, "stops because of", why)
}

// notesOf is the file in which a server notes what it was told, before it says
// that it is done. What it prints takes another way and may be seen later.
func notesOf(address string) string {
	return os.Getenv("RAFTSTEPS_CLUSTER_TEST_CONFIG") + "." + strings.ReplaceAll(address, ":", ".")
}

// superviseForTest runs a cluster until it is killed.
func superviseForTest(dir, config string) {
	f, err := Open(OpenOptions{Stage: "02-test", Dir: dir, Config: config})
	if err == nil {
		err = Run(context.Background(), Options{Folder: f, Command: commandForTest("good"), Out: os.Stdout})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// commandForTest starts this test binary as a server; role may name a server,
// as in "good n2:deaf".
func commandForTest(roles string) func(uint64, []uint64) *exec.Cmd {
	return func(id uint64, cuts []uint64) *exec.Cmd {
		words := strings.Fields(roles)
		role := words[0]
		for _, w := range words[1:] {
			if name, special, _ := strings.Cut(w, ":"); name == fmt.Sprintf("n%d", id) {
				role = special
			}
		}
		config, err := Load(os.Getenv("RAFTSTEPS_CLUSTER_TEST_CONFIG"))
		if err != nil {
			panic(err)
		}
		cmd := exec.Command(os.Args[0], config.Config.Address(id), fmt.Sprint(cuts))
		cmd.Env = append(os.Environ(), roleVariable+"="+role)
		return cmd
	}
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// runningCluster is a cluster under test.
type runningCluster struct {
	t       *testing.T
	dir     string
	out     *buffer
	cancel  context.CancelFunc
	killNow chan struct{}
	result  chan error
	remote  *Remote
}

// freePorts are ports for servers that come and go, until the test ends.
func freePorts(t *testing.T) *freeport.Block {
	t.Helper()
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	return ports
}

// freeConfig writes a configuration of three servers on free ports, which are
// not in a row.
func freeConfig(t *testing.T) string {
	t.Helper()
	ports := freePorts(t)
	var list []string
	for i := 1; i <= 3; i++ {
		list = append(list, fmt.Sprintf(`{"id":%d,"address":%q}`, i, ports.Address(10*i)))
	}
	path := writeConfig(t, members(strings.Join(list, ",")))
	t.Setenv("RAFTSTEPS_CLUSTER_TEST_CONFIG", path)
	return path
}

// startCluster starts a cluster and, unless it cannot start, waits until it is
// up.
func startCluster(t *testing.T, roles string, change func(*Options)) *runningCluster {
	t.Helper()
	config := freeConfig(t)
	dir := t.TempDir()
	f, err := open(t, OpenOptions{Dir: dir, Config: config})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	c := &runningCluster{t: t, dir: dir, out: &buffer{}, cancel: cancel, killNow: make(chan struct{}), result: make(chan error, 1)}
	up := make(chan struct{})
	o := Options{
		Folder:  f,
		Command: commandForTest(roles),
		Program: "kv",
		Out:     c.out,
		Up:      func() string { close(up); return "all are up\n" },
		Kill:    c.killNow,
	}
	if change != nil {
		change(&o)
	}
	ended := make(chan struct{})
	go func() {
		c.result <- Run(ctx, o)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-up:
		c.remote, err = Connect(dir)
		require.NoError(t, err)
	case <-ended:
	}
	return c
}

func (c *runningCluster) do(command Command) ([]Server, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return c.remote.Do(ctx, command)
}

// must does a command and returns the states of the servers it was about.
func (c *runningCluster) must(do string, ids ...uint64) []Server {
	c.t.Helper()
	servers, err := c.do(Command{Do: do, IDs: ids})
	require.NoError(c.t, err)
	return servers
}

// shows waits until the output holds a text.
func (c *runningCluster) shows(text string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return strings.Contains(c.out.String(), text) }, 10*time.Second, 2*time.Millisecond,
		"the output never held %q", text)
}

// stop stops the cluster in order.
func (c *runningCluster) stop() error {
	c.cancel()
	return <-c.result
}

func TestAClusterStartsAndStopsInOrder(t *testing.T) {
	c := startCluster(t, "good", nil)
	require.Equal(t, []Server{{ID: 1, State: Running}, {ID: 2, State: Running}, {ID: 3, State: Running}}, c.must(List))
	require.NoError(t, c.stop())
	out := c.out.String()
	for _, want := range []string{"n1 | up with cuts []\n", "n3 | up with cuts []\n", "all are up\n", "-- | stopping 3 servers; ^C again to kill\n", "n2 | stops because of "} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, Ready, "the protocol is not for people")
	require.NotContains(t, out, "ended by itself")
	require.NoFileExists(t, filepath.Join(c.dir, controlName))
	_, err := Connect(c.dir)
	require.ErrorIs(t, err, ErrNotRunning)
}

func TestKillPauseResumeAndRestart(t *testing.T) {
	c := startCluster(t, "good", nil)
	require.Equal(t, []Server{{ID: 1, State: Killed}, {ID: 3, State: Killed}}, c.must(Kill, 1, 3))
	c.shows("-- | n3 was killed\n")

	_, err := c.do(Command{Do: Kill, IDs: []uint64{3}})
	require.EqualError(t, err, "n3 is not running (killed); bring it back with: kv restart 3")
	_, err = c.do(Command{Do: Pause, IDs: []uint64{3, 2}})
	require.ErrorContains(t, err, "n3 is not running")
	c.shows("-- | n2 is paused\n")
	_, err = c.do(Command{Do: Resume, IDs: []uint64{1}})
	require.ErrorContains(t, err, "n1 is not running")
	require.Equal(t, []Server{{ID: 1, State: Killed}, {ID: 2, State: Paused}, {ID: 3, State: Killed}}, c.must(List))

	require.Equal(t, []Server{{ID: 2, State: Running}}, c.must(Resume, 2))
	_, err = c.do(Command{Do: Resume, IDs: []uint64{2}})
	require.EqualError(t, err, "n2 is not paused")
	require.Equal(t, []Server{{ID: 1, State: Running}, {ID: 2, State: Running}, {ID: 3, State: Running}}, c.must(Restart, 1, 2, 3))
	c.shows("-- | n2 is back\n")
	c.shows("n2 | stops because of ")
	require.NoError(t, c.stop())
	require.NotContains(t, c.out.String(), "by itself")
}

func TestAPausedServerStopsWithTheOthers(t *testing.T) {
	c := startCluster(t, "good", nil)
	c.must(Pause, 2)
	require.NoError(t, c.stop())
	require.Contains(t, c.out.String(), "n2 | stops because of ")
	require.NotContains(t, c.out.String(), "was killed")
}

func TestAServerThatDiesIsSaidAndNotRestarted(t *testing.T) {
	c := startCluster(t, "good", nil)
	pid := c.pid(2)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	c.shows("-- | n2 ended by itself (killed) and stays down; bring it back with: kv restart 2\n")
	require.Equal(t, Server{ID: 2, State: "ended by itself: killed"}, c.must(List)[1])
	require.Equal(t, []Server{{ID: 2, State: Running}}, c.must(Restart, 2))
	require.NoError(t, c.stop())
}

// Without the data folder no command finds the supervisor, so it names none. It
// leaves alone what another cluster has put there since.
func TestADataFolderThatWasDeleted(t *testing.T) {
	c := startCluster(t, "good", nil)
	pids := []int{c.pid(1), c.pid(2)}
	require.NoError(t, os.RemoveAll(c.dir))
	for _, pid := range pids {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	c.shows("-- | n1 ended by itself (killed)\n")
	c.shows("-- | n2 ended by itself (killed)\n")
	advice := "-- | the folder " + c.dir + " was deleted or replaced, so no command can bring servers back; press ^C and start again with: kv cluster\n"
	c.shows(advice)
	_, err := Connect(c.dir)
	require.ErrorIs(t, err, ErrNotRunning)

	require.NoError(t, os.MkdirAll(c.dir, 0o700))
	theirs := filepath.Join(c.dir, controlName)
	require.NoError(t, os.WriteFile(theirs, []byte(`{"pid":1,"address":"127.0.0.1:1","token":"of another cluster"}`), 0o600))
	require.NoError(t, c.stop())
	require.FileExists(t, theirs)
	require.Equal(t, 1, strings.Count(c.out.String(), advice))
	require.NotContains(t, c.out.String(), "restart")
}

// pid asks the system who listens on a server's address.
func (c *runningCluster) pid(id uint64) int {
	c.t.Helper()
	for _, pid := range children(c.t, os.Getpid()) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		f, err := Load(filepath.Join(c.dir, ConfigName))
		require.NoError(c.t, err)
		if strings.Contains(string(command), f.Config.Address(id)+"\x00") {
			return pid
		}
	}
	c.t.Skip("this system does not show processes in /proc")
	return 0
}

// children returns the processes that a process has started.
func children(t *testing.T, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	var pids []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid …
		after := text[bytes.LastIndexByte(text, ')')+1:]
		fields := strings.Fields(string(after))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestCutsAreReportedAndSurviveARestart(t *testing.T) {
	c := startCluster(t, "good", nil)
	servers, err := c.do(Command{Do: Cut, IDs: []uint64{1}, Others: []uint64{2, 3}})
	require.NoError(t, err)
	require.Equal(t, []Server{{ID: 1, State: Running, Cut: []uint64{2, 3}}, {ID: 2, State: Running, Cut: []uint64{1}}, {ID: 3, State: Running, Cut: []uint64{1}}}, servers)
	c.shows("n1 | was told: cut 2\n")
	c.shows("n1 | was told: cut 3\n")
	c.shows("n3 | was told: cut 1\n")
	c.shows("-- | links that are cut: n1-n2 n1-n3\n")

	c.must(Kill, 1)
	c.must(Restart, 1)
	c.shows("n1 | up with cuts [2 3]\n")

	_, err = c.do(Command{Do: Heal, IDs: []uint64{3}, Others: []uint64{1}})
	require.NoError(t, err)
	c.shows("n1 | was told: heal 3\n")
	c.shows("-- | links that are cut: n1-n2\n")
	require.Empty(t, c.must(Heal)[0].Cut)
	c.shows("n2 | was told: heal 1\n")
	c.shows("-- | all links are healed\n")
	require.NoError(t, c.stop())
}

func TestCutWaitsForTheServersButNotForOneThatStandsStill(t *testing.T) {
	c := startCluster(t, "good", nil)
	told := func(id uint64) string {
		config, err := Load(os.Getenv("RAFTSTEPS_CLUSTER_TEST_CONFIG"))
		require.NoError(t, err)
		text, err := os.ReadFile(notesOf(config.Config.Address(id)))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		return string(text)
	}
	c.must(Pause, 2)
	_, err := c.do(Command{Do: Cut, IDs: []uint64{1}, Others: []uint64{2}})
	require.NoError(t, err)
	require.Equal(t, "cut 2\n", told(1), "n1 has carried it out when cut returns")
	require.Empty(t, told(2))
	c.must(Resume, 2)
	c.shows("n2 | was told: cut 1\n")
	_, err = c.do(Command{Do: Heal})
	require.NoError(t, err)
	require.Equal(t, "cut 1\nheal 1\n", told(2))
	require.NoError(t, c.stop())
}

func TestCommandsAboutServersThatAreNotThere(t *testing.T) {
	c := startCluster(t, "good", nil)
	_, err := c.do(Command{Do: Kill, IDs: []uint64{1, 9}})
	require.ErrorContains(t, err, "n9 is not a server of this cluster; the servers are n1 (127.0.0.1:")
	require.Equal(t, Running, c.must(List)[0].State, "nothing was done")
	_, err = c.do(Command{Do: "dance"})
	require.ErrorContains(t, err, `does not know the command "dance"`)
	require.NoError(t, c.stop())
}

func TestAServerThatDoesNotComeUpEndsTheStartOfANewCluster(t *testing.T) {
	c := startCluster(t, "good n2:broken", func(o *Options) { o.Folder.Created = true })
	err := <-c.result
	require.EqualError(t, err, "n2 did not come up: it ended with exit status 1 after it printed: the disk is full of beans")
	require.Contains(t, c.out.String(), "n1 | stops because of ", "the others are stopped")
	require.Empty(t, children(t, os.Getpid()))
}

// A damaged disk of one server is no reason to keep the data of the others from
// their clients.
func TestAClusterWithDataStartsWithoutAServerThatDoesNotComeUp(t *testing.T) {
	c := startCluster(t, "good n2:broken", nil)
	c.shows("n2 | error: the disk is full of beans\n")
	c.shows("-- | n2 did not come up; its output says why, and the other servers continue\n")
	require.Equal(t, []Server{{ID: 1, State: Running}, {ID: 2, State: "ended by itself: exit status 1"}, {ID: 3, State: Running}}, c.must(List))
	require.NoError(t, c.stop())

	c = startCluster(t, "broken", nil)
	require.ErrorContains(t, <-c.result, "n3 did not come up: it ended with exit status 1")
}

func TestAUsedPortIsToldBeforeAnythingStarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	dir, base := t.TempDir(), l.Addr().(*net.TCPAddr).Port-1
	for _, advice := range []string{"take other ports with --fresh --base-port", "start another cluster with --data and --base-port"} {
		f, err := open(t, OpenOptions{Dir: dir, Servers: 1, BasePort: base})
		require.NoError(t, err)
		err = Run(context.Background(), Options{Folder: f, Out: io.Discard})
		require.EqualError(t, err, "n1 cannot listen on "+l.Addr().String()+
			": another program uses that port, or n1 is already running; stop it, or "+advice, "--fresh is no advice where there is data")
		require.NoError(t, f.Close())
	}
}

func TestAnAddressOfAnotherMachine(t *testing.T) {
	f, err := open(t, OpenOptions{Dir: t.TempDir(), Config: writeConfig(t, members(`{"id":1,"address":"192.0.2.1:7021"}`))})
	require.NoError(t, err)
	err = Run(context.Background(), Options{Folder: f, Out: io.Discard})
	require.ErrorContains(t, err, "n1 cannot listen on 192.0.2.1:7021: that is not an address of this machine; give n1 one of its addresses")
}

func TestTheLastStopKills(t *testing.T) {
	t.Run("after a bound", func(t *testing.T) {
		c := startCluster(t, "good n2:deaf", func(o *Options) { o.StopTime = time.Millisecond })
		require.NoError(t, c.stop())
		require.Contains(t, c.out.String(), "-- | n2 did not stop in time and was killed\n")
	})
	t.Run("after the second ^C", func(t *testing.T) {
		c := startCluster(t, "deaf", func(o *Options) { o.StopTime = time.Hour })
		close(c.killNow)
		require.NoError(t, c.stop())
	})
	require.Empty(t, children(t, os.Getpid()))
}

func TestServersEndWithTheirSupervisor(t *testing.T) {
	config := freeConfig(t)
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], dir, config)
	cmd.Env = append(os.Environ(), roleVariable+"=supervisor")
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var remote *Remote
	require.Eventually(t, func() bool {
		var err error
		remote, err = Connect(dir)
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err := remote.Do(ctx, Command{Do: Pause, IDs: []uint64{3}})
	require.NoError(t, err)
	pids := children(t, cmd.Process.Pid)

	require.NoError(t, cmd.Process.Kill())
	for _, pid := range pids {
		require.Eventually(t, func() bool { return gone(pid) }, 10*time.Second, 5*time.Millisecond, "a server outlived its supervisor")
	}
	_, err = Connect(dir)
	require.ErrorIs(t, err, ErrNotRunning, "the file that was left behind fools nobody")
	_, err = open(t, OpenOptions{Dir: dir, Config: config})
	require.NoError(t, err, "the lock died with the supervisor")
}

// gone reports whether a process has ended, reaped or not.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		return regexp.MustCompile(`\) Z `).Match(text)
	}
	return syscall.Kill(pid, 0) == syscall.ESRCH
}

func TestTheControlChannelKnowsItsOwn(t *testing.T) {
	c := startCluster(t, "good", nil)
	info, err := os.Stat(filepath.Join(c.dir, controlName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	stranger := *c.remote
	stranger.token = strings.Repeat("0", 64)
	_, err = stranger.Do(context.Background(), Command{Do: Kill, IDs: []uint64{1}})
	require.EqualError(t, err, "the token is wrong")
	for _, line := range []string{"\n", "GET / HTTP/1.1\n", `{"tok":1}` + "\n", "[]\n", strings.Repeat("x", maxControlLine)} {
		conn, err := net.Dial("tcp", c.remote.address)
		require.NoError(t, err)
		io.WriteString(conn, line)
		io.Copy(io.Discard, conn)
		conn.Close()
	}
	require.Len(t, c.must(List), 3, "nothing came of it")
	require.NoError(t, c.stop())
}

func TestASecondSupervisorIsRefused(t *testing.T) {
	c := startCluster(t, "good", nil)
	_, err := open(t, OpenOptions{Dir: c.dir})
	require.EqualError(t, err, fmt.Sprintf("a cluster is already running on %s (process %d); stop it with ^C in its terminal, or start another with --data and --base-port", c.dir, os.Getpid()))
	require.NoError(t, c.stop())
}
