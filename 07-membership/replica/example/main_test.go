package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/freeport"
)

// programVariable makes the test binary act as the example.
const programVariable = "EXAMPLE_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		os.Unsetenv(programVariable)
		main()
		return
	}
	os.Exit(m.Run())
}

// processes are the three processes of the example.
type processes struct {
	t       *testing.T
	dir     string
	base    int
	running [replicas + 1]*exec.Cmd
}

func (p *processes) start(id int) {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], "-dir", p.dir, "-base-port", fmt.Sprint(p.base), fmt.Sprint(id))
	cmd.Env = append(os.Environ(), programVariable+"=1", "GORACE=atexit_sleep_ms=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(p.t, cmd.Start())
	p.running[id] = cmd
	p.t.Cleanup(func() {
		if p.running[id] == cmd {
			p.end(id, syscall.SIGKILL)
		}
		if p.t.Failed() {
			p.t.Logf("process %d:\n%s", id, &out)
		}
	})
}

// end sends a signal to a process and waits until it has ended.
func (p *processes) end(id int, s os.Signal) *os.ProcessState {
	cmd := p.running[id]
	p.running[id] = nil
	_ = cmd.Process.Signal(s)
	_ = cmd.Wait()
	return cmd.ProcessState
}

// ask is curl. It repeats a request while the process is not yet, or no longer, able
// to answer it.
func (p *processes) ask(ctx context.Context, id int, method, path, body string) (status int, text string) {
	p.t.Helper()
	for {
		r, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", p.base+10+id, path), strings.NewReader(body))
		require.NoError(p.t, err)
		a, err := http.DefaultClient.Do(r)
		if err == nil && a.StatusCode != http.StatusServiceUnavailable {
			text, err := io.ReadAll(a.Body)
			require.NoError(p.t, err)
			require.NoError(p.t, a.Body.Close())
			return a.StatusCode, string(text)
		}
		if err == nil {
			a.Body.Close()
		}
		require.NoError(p.t, ctx.Err(), "%s %s never succeeds: %v", method, path, err)
		time.Sleep(20 * time.Millisecond)
	}
}

// request is a request over HTTP to a process.
type request struct {
	id                 int
	method, path, body string
}

var curl = regexp.MustCompile(`^curl (?:-X (\w+) )?(?:-d '([^']*)' )?http://127\.0\.0\.1:791(\d)(/\S*)$`)

// documented returns the requests in the README, and checks that main.go has the same
// commands.
func documented(t *testing.T) (all []request) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	for line := range strings.Lines(string(source)) {
		line, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "//\t")
		if !found {
			continue
		}
		require.Contains(t, string(readme), "\n"+line, "the README has other commands")
		if m := curl.FindStringSubmatch(line); m != nil {
			id, err := strconv.Atoi(m[3])
			require.NoError(t, err)
			all = append(all, request{id, cmp.Or(m[1], "GET"), m[4], m[2]})
		} else {
			require.Regexp(t, `^go run \./07-membership/replica/example [123]$`, line)
		}
	}
	require.Len(t, all, 4)
	return all
}

// Three processes work together, one is killed, and the other two go on. It catches up
// when it is started again.
func TestThreeProcesses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	block, err := freeport.Reserve()
	require.NoError(t, err)
	defer block.Close()
	p := &processes{t: t, dir: t.TempDir(), base: block.First()}
	for id := 1; id <= replicas; id++ {
		p.start(id)
	}
	for _, c := range documented(t) {
		status, text := p.ask(ctx, c.id, c.method, c.path, c.body)
		require.Equal(t, 200, status, "%s %s: %s", c.method, c.path, text)
	}
	for _, step := range []struct {
		id                       int
		method, path, body, want string
		status                   int
	}{
		{1, "PUT", "/jobs/door", "paint the door", "door: added (paint the door)\n", 200},
		{2, "PUT", "/jobs/raw", "\x00\xff", "raw: added (\x00\xff)\n", 200},
		{3, "PUT", "/jobs/door", "again", "door: is in the queue already (paint the door)\n", 200},
		{1, "POST", "/take/ann", "", "door: taken by ann (paint the door)\n", 200},
		{2, "POST", "/take/ann", "", "door: taken by ann (paint the door)\n", 200},
		{3, "POST", "/take/bob", "", "raw: taken by bob (\x00\xff)\n", 200},
		{1, "POST", "/take/cleo", "", "no job waits\n", 404},
		{2, "DELETE", "/jobs/raw", "", "raw: done (\x00\xff)\n", 200},
		{3, "DELETE", "/jobs/raw", "", "there is no job raw\n", 404},
		{1, "PUT", "/jobs/a%20b", "", "a name has 1 to 64 letters, digits, and . _ -\n", 400},
		{1, "PUT", "/jobs/long", strings.Repeat("x", maxWork+1), "the work of a job has at most 65536 bytes\n", 413},
	} {
		status, text := p.ask(ctx, step.id, step.method, step.path, step.body)
		require.Equal(t, step.want, text, "%s %s", step.method, step.path)
		require.Equal(t, step.status, status)
	}

	_, name := p.ask(ctx, 1, "GET", "/leader", "")
	var leader int
	_, err = fmt.Sscanf(name, "n%d\n", &leader)
	require.NoError(t, err)
	p.end(leader, syscall.SIGKILL)
	others := []int{1 + leader%3, 1 + (leader+1)%3}
	status, text := p.ask(ctx, others[0], "PUT", "/jobs/roof", "fix it")
	require.Equal(t, 200, status)
	if text != "roof: added (fix it)\n" {
		require.Equal(t, "roof: is in the queue already (fix it)\n", text, "a repetition after an unknown outcome")
	}
	const queue = "door: taken by ann (paint the door)\nroof: waits (fix it)\n"
	_, text = p.ask(ctx, others[1], "GET", "/jobs", "")
	require.Equal(t, queue, text)

	p.start(leader)
	_, text = p.ask(ctx, leader, "GET", "/jobs", "")
	require.Equal(t, queue, text)

	state := p.end(leader, os.Interrupt)
	require.True(t, state.Success(), "%v", state)
}

// The jobs that a snapshot holds are those that were there when it began.
func TestSnapshot(t *testing.T) {
	q := newQueue()
	for _, c := range []string{"add a work\nof a", "add b \xff\x00", "add c", "take ann", "add d ", "done c"} {
		q.Apply(0, []byte(c))
	}
	v := q.Snapshot()
	want := newQueue()
	want.jobs = append(want.jobs, job{"a", []byte("work\nof a"), "ann"}, job{"b", []byte("\xff\x00"), ""}, job{"d", []byte{}, ""})
	q.Apply(0, []byte("take bob"))
	q.Apply(0, []byte("done a"))
	again := newQueue()
	require.NoError(t, v.Save(func(add func(b []byte) []byte) { require.NoError(t, again.Restore(add(nil))) }))
	v.Close()
	require.Equal(t, want, again)
	require.EqualError(t, again.Restore([]byte("x")), `this is not a job: "x"`)
	require.Equal(t, result{Text: `there is no operation "drop"`}, q.Apply(0, []byte("drop a")))
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"0"}, {"4"}, {"x"}, {"1", "2"}} {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), programVariable+"=1", "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, 2, cmd.ProcessState.ExitCode())
		require.Contains(t, string(out), "usage: example [flags] ID")
	}
}
