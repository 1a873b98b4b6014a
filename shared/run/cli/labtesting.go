package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/run/cluster"
)

// labPatience bounds TestLab, which takes much less time.
const labPatience = time.Minute

// TestLab runs a cluster of real processes, watches it with lab --live, kills and
// restarts a server from the page, and opens the traces afterward. The page must get
// all of these events, with the reasons. The stage needs RunTests.
func TestLab(t *testing.T, s Stage) {
	t.Helper()
	t.Parallel() // it mostly waits
	ctx, cancel := context.WithTimeout(t.Context(), labPatience)
	defer cancel()
	dir := t.TempDir()
	ports, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer ports.Close()
	leader := uint64(0)
	if s.Appointed {
		leader = 1
	}
	file, err := cluster.New(s.Name, 3, ports.First(), leader)
	if err == nil {
		err = file.Save(filepath.Join(dir, "our.json"))
	}
	if err != nil {
		t.Fatal(err)
	}
	data, traces := filepath.Join(dir, "data"), filepath.Join(dir, "t")
	running := startRun(ctx, t, s, "^C stops all servers.", "cluster", "--config", filepath.Join(dir, "our.json"), "--data", data, "--trace", traces)
	live := openLab(ctx, t, s, "live", "--live", "--data", data)
	seen := live.follow(ctx, t)
	first := seen.leader(s, 0)
	if s.Appointed {
		seen.until("the start of n2", func(e trace.Event) bool { return e.Kind == trace.Start && e.Node == 2 })
	}
	if status := live.post(ctx, t, "deed?key=0", `{"do":"kill","servers":[1]}`); status != http.StatusForbidden {
		t.Fatalf("a deed without the key: %d", status)
	}
	victim := cmp.Or(first, 2)
	live.deed(ctx, t, fmt.Sprintf(`{"do":"kill","servers":[%d]}`, victim))
	crashed := seen.until("the crash", func(e trace.Event) bool { return e.Kind == trace.Crash && e.Node == victim })
	if crashed.Text != "its process was killed" {
		t.Errorf("the crash says %q", crashed.Text)
	}
	second := seen.leader(s, first)
	live.deed(ctx, t, fmt.Sprintf(`{"do":"restart","servers":[%d]}`, victim))
	seen.until("the restart", func(e trace.Event) bool { return e.Kind == trace.Start && e.Node == victim })
	seen.stop()
	live.stop()
	running.stop()

	files := []string{traces + ".n1", traces + ".n2", traces + ".n3", traces + "." + processesName}
	recorded := openLab(ctx, t, s, "recorded", files...)
	var answer shownFilm
	if err := json.Unmarshal(recorded.get(ctx, t, "recording?key="+recorded.key), &answer); err != nil {
		t.Fatal(err)
	}
	recorded.stop()
	checkRecorded(t, s, answer, victim, second)
}

// checkRecorded checks the film of a run in which the victim was killed, the second
// became the leader (0 in stages without elections), and the victim restarted.
func checkRecorded(t *testing.T, s Stage, shown shownFilm, victim, second uint64) {
	t.Helper()
	type message struct{ from, to, number uint64 }
	sent := make(map[message]bool)
	delivered := 0
	var story []string
	for _, e := range shown.Film.Events {
		m := message{e.From, e.To, e.Number}
		switch e.Kind {
		case trace.Send:
			sent[m] = true
		case trace.Deliver:
			delivered++
			if e.Number != 0 && !sent[m] {
				t.Errorf("message %d from n%d to n%d arrives before it is sent", e.Number, e.From, e.To)
			}
		case trace.Decide:
			if e.Reason.Code == "elected" && e.Node == second {
				story = append(story, "elected")
			}
		case trace.Crash, trace.Start:
			if e.Node == victim {
				story = append(story, string(e.Kind))
			}
		}
	}
	want := []string{"start", "crash", "start"}
	if !s.Appointed {
		want = []string{"start", "crash", "elected", "start"}
		if delivered == 0 {
			t.Error("no message was delivered")
		}
	}
	if story = slices.Compact(story); !slices.Equal(story, want) {
		t.Errorf("the film shows %v, but %v happened", story, want)
	}
	up := make(map[uint64]bool)
	for _, f := range shown.Film.Frames {
		if f.Up != nil {
			up[f.Server] = *f.Up
		}
	}
	if len(up) != 3 {
		t.Errorf("the frames have the servers %v, not all three", up)
	}
}

// shownFilm is what a page gets.
type shownFilm struct {
	Whole bool
	Note  string
	Film  struct {
		Events []trace.Event
		Frames []struct {
			Server uint64
			Up     *bool
		}
	}
}

// ranCommand is a command that runs until stop is called.
type ranCommand struct {
	t    *testing.T
	end  context.CancelFunc
	done chan struct{}
	out  lockedText
}

// lockedText is a text that several goroutines write and read.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startRun runs a command, and returns once it has printed a text.
func startRun(ctx context.Context, t *testing.T, s Stage, until string, args ...string) *ranCommand {
	t.Helper()
	ctx, end := context.WithCancel(ctx)
	r := &ranCommand{t: t, end: end, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if code := Run(ctx, s, args, strings.NewReader(""), &r.out, &r.out); code != exitDone {
			t.Errorf("%s ended with exit code %d:\n%s", strings.Join(args, " "), code, r.out.String())
		}
	}()
	t.Cleanup(r.stop)
	for !strings.Contains(r.out.String(), until) {
		select {
		case <-r.done:
			t.Fatalf("%s has ended:\n%s", strings.Join(args, " "), r.out.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return r
}

func (r *ranCommand) stop() {
	r.end()
	<-r.done
}

// openedLab is a running lab, with the address and the key that its page has.
type openedLab struct {
	*ranCommand
	address, key string
}

var labAddress = regexp.MustCompile(`(http://127\.0\.0\.1:\d+/)#real:(\w+):([0-9a-f]+)\n`)

func openLab(ctx context.Context, t *testing.T, s Stage, kind string, args ...string) openedLab {
	t.Helper()
	r := startRun(ctx, t, s, "^C ends it.", append([]string{"lab"}, args...)...)
	m := labAddress.FindStringSubmatch(r.out.String())
	if m == nil || m[2] != kind {
		t.Fatalf("the lab prints no address:\n%s", r.out.String())
	}
	return openedLab{r, m[1], m[3]}
}

func (l openedLab) ask(ctx context.Context, t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, l.address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (l openedLab) get(ctx context.Context, t *testing.T, path string) []byte {
	t.Helper()
	a := l.ask(ctx, t, http.MethodGet, path, "")
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", path, a.StatusCode, text, err)
	}
	return text
}

func (l openedLab) post(ctx context.Context, t *testing.T, path, body string) int {
	t.Helper()
	a := l.ask(ctx, t, http.MethodPost, path, body)
	defer a.Body.Close()
	return a.StatusCode
}

func (l openedLab) deed(ctx context.Context, t *testing.T, deed string) {
	t.Helper()
	if status := l.post(ctx, t, "deed?key="+url.QueryEscape(l.key), deed); status != http.StatusOK {
		t.Fatalf("%s: %d", deed, status)
	}
}

// followed reads the events of a running cluster as they arrive.
type followed struct {
	t      *testing.T
	body   io.Closer
	lines  *bufio.Reader
	events []trace.Event
}

func (l openedLab) follow(ctx context.Context, t *testing.T) *followed {
	t.Helper()
	a := l.ask(ctx, t, http.MethodGet, "live?key="+l.key, "")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("live: %d", a.StatusCode)
	}
	return &followed{t: t, body: a.Body, lines: bufio.NewReader(a.Body)}
}

func (f *followed) stop() { _ = f.body.Close() } // it was only read

// until returns the next event that is wanted.
func (f *followed) until(what string, wanted func(trace.Event) bool) trace.Event {
	f.t.Helper()
	for {
		for i, e := range f.events {
			if wanted(e) {
				f.events = f.events[i+1:]
				return e
			}
		}
		f.events = nil
		line, err := f.lines.ReadString('\n')
		if err != nil {
			f.t.Fatalf("%s does not arrive: %v", what, err)
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			var x shownFilm
			if err := json.Unmarshal([]byte(text), &x); err != nil {
				f.t.Fatal(err)
			}
			if x.Note != "" {
				f.t.Fatalf("waiting for %s: %s", what, x.Note)
			}
			f.events = x.Film.Events
		}
	}
}

// leader waits for a leader other than before, and returns it. It returns 0 in the
// stages in which an operator appoints the leader.
func (f *followed) leader(s Stage, before uint64) uint64 {
	f.t.Helper()
	if s.Appointed {
		return 0
	}
	e := f.until("a leader", func(e trace.Event) bool {
		return e.Kind == trace.Decide && e.Reason.Code == "elected" && e.Node != before
	})
	if !strings.HasPrefix(e.Reason.Text, node.Name(e.Node)+" becomes the leader") {
		f.t.Errorf("the reason is %q", e.Reason.Text)
	}
	return e.Node
}
