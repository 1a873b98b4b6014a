// In the browser there are no tests, and testing would be linked in vain.

//go:build !js

package film

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/sim"
)

// filmsFlag is the number of further random scripts that Test plays. The flag exists
// only in test binaries.
var filmsFlag = func() *uint64 {
	if !testing.Testing() {
		return new(uint64)
	}
	return flag.Uint64("films", 0, "how many further random scripts are played, short ones")
}()

// Test checks a stage's films: the same script gives the same film, a deed changes
// nothing before its step, and no script does harm.
func Test(t *testing.T, s scenario.Stage) {
	t.Helper()
	inspects(t, s)
	t.Run("stories", func(t *testing.T) {
		t.Parallel()
		for i, name := range slices.Concat(s.Survives, s.Fails) {
			script := Script{Stage: s.Name, Seed: 1, Story: name, Steps: 1000}
			film := play(t, s, script)
			if i%longtest.Pick(4, 1) == 0 && film.Hash() != play(t, s, script).Hash() {
				t.Errorf("%s: two films of one script differ", name)
			}
			if len(film.Frames) == 0 || len(film.Events) == 0 {
				t.Errorf("%s: %d events and %d frames", name, len(film.Events), len(film.Frames))
			}
		}
	})
	t.Run("snapshots", func(t *testing.T) {
		t.Parallel()
		if !s.Compacts {
			t.Skip("the servers of this stage compact nothing")
		}
		// Until followers have installed a snapshot.
		film := play(t, s, Script{Stage: s.Name, Seed: 1, Story: "lagging-follower", Steps: 20_000})
		installed := 0
		for _, e := range film.Events {
			if e.Reason != nil && e.Reason.Code == "restored" {
				installed++
			}
		}
		if installed == 0 {
			t.Error("no server has installed a snapshot")
		}
	})
	t.Run("fields", func(t *testing.T) {
		t.Parallel()
		film := play(t, s, busy(s))
		saves := 0
		began := make(map[uint64]bool)
		for _, e := range film.Events {
			switch {
			case e.Kind != trace.Save:
			case !began[e.Node]:
				began[e.Node] = true // a leader that is appointed has its term before the first frame
			default:
				saves++
				saved(t, film, e)
			}
		}
		_, sessions := s.Ops[api.Open]
		_, log := s.Ops[api.Log]
		_, lead := s.Ops[api.Lead]
		for name, has := range map[string]bool{"store": true, "sessions": sessions, "log": log, "unsynced": log, "timer": log && !lead} {
			frames := slices.ContainsFunc(film.Frames, func(f Frame) bool { return bytes.Contains(f.JSON, []byte(`,"`+name+`":`)) })
			if frames != has {
				t.Errorf("does a frame have the field %s: %t, want %t", name, frames, has)
			}
		}
		if log != (saves > 0) {
			t.Errorf("%d times a server has synced its disk", saves)
		}
		for id := range uint64(3) {
			last, err := lastFrame(film, id+1, film.Length)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[string]string{"y": "3", "z": "4"}; !maps.Equal(last.Store, want) {
				t.Errorf("the store of n%d is %v, want %v", id+1, last.Store, want)
			}
			answers := slices.Sorted(maps.Values(convert(last.Sessions)))
			if want := []string{"[2 3 not_found]", "[2 3 ok]"}; sessions && !slices.Equal(answers, want) {
				t.Errorf("the sessions of n%d are %v, want %v", id+1, answers, want)
			}
		}
		if log && !lead {
			timedOut(t, film)
		}
	})
	t.Run("verdict", func(t *testing.T) {
		t.Parallel()
		script, lying := busy(s), s
		if !s.Linearizable() {
			if !s.Applies("stale-read") {
				t.Skip("this stage has no log and promises nothing about reads")
			}
			script = Script{Stage: s.Name, Seed: 1, Story: "stale-read"}
		} else {
			lying.New = liar(s.New)
		}
		film := play(t, lying, script)
		last := film.Events[len(film.Events)-1]
		answer := slices.IndexFunc(film.Events, func(e trace.Event) bool { return e.Step == film.Steps && e.Kind == trace.Return })
		if !strings.Contains(film.Verdict, "I23 (Reads) is broken: client ") || answer < 0 || last.Step != film.Steps {
			t.Errorf("the film ends at step %d, its last event is %+v, its verdict is %q", film.Steps, last, film.Verdict)
		}
	})
	t.Run("forks", func(t *testing.T) {
		t.Parallel()
		for _, script := range []Script{{Stage: s.Name, Seed: 1, Steps: 1500}, {Stage: s.Name, Seed: 1, Steps: 1500, Story: s.Survives[0]}} {
			trunk := play(t, s, script)
			for _, at := range []uint64{1, trunk.Steps / 3, trunk.Steps * 2 / 3} {
				fork := script
				fork.Deeds = []Deed{{At: at, Do: PowerCut, Server: 2}}
				branch := play(t, s, fork)
				if !branch.Outcomes[0].Applied {
					t.Fatalf("step %d: the deed did not apply: %s", at, branch.Outcomes[0].Why)
				}
				if a, b := before(trunk, at), before(branch, at); a != b {
					t.Errorf("%q: a deed before step %d changes what comes before it", script.Story, at)
				}
				if trunk.Hash() == branch.Hash() {
					t.Errorf("%q: a deed before step %d changes nothing", script.Story, at)
				}
			}
		}
	})
	t.Run("what a story leaves", func(t *testing.T) {
		t.Parallel()
		ended := 0
		for _, name := range slices.Concat(s.Survives, s.Fails) {
			for _, at := range longtest.Pick([]uint64{600}, []uint64{100, 600}) {
				ended += endsStanding(t, s, Script{Stage: s.Name, Seed: 1, Story: name, Steps: at + 400, Deeds: []Deed{{At: at, Do: HealAll}}})
			}
		}
		if ended == 0 && slices.Contains(s.Survives, "chaos") {
			t.Error("no story goes on doing anything by itself")
		}
	})
	t.Run("many", func(t *testing.T) {
		t.Parallel()
		for seed := range *filmsFlag {
			script := Random(s.Name, 1_000_000+seed)
			script.Steps = 1000
			read, err := Decode(script.AppendJSON(nil))
			if err != nil {
				t.Fatalf("%s: %v", script.AppendJSON(nil), err)
			}
			film, err := Play(s, read)
			switch {
			case err != nil:
				t.Fatalf("%s: %v", script.AppendJSON(nil), err)
			case film.Verdict != "" && (s.Linearizable() || strings.HasPrefix(film.Verdict, panicked)):
				t.Errorf("%s: %s", script.AppendJSON(nil), film.Verdict)
			}
		}
	})
	t.Run("disk", func(t *testing.T) {
		t.Parallel()
		disks(t, s)
	})
	t.Run("go", func(t *testing.T) {
		t.Parallel()
		if *filmsFlag == 0 {
			t.Skip("it compiles the stage; -films=1 runs it")
		}
		runs(t, s)
	})
	t.Run("random", func(t *testing.T) {
		t.Parallel()
		applied := make(map[string]int)
		for seed := range uint64(12) {
			script := Random(s.Name, seed)
			// A message that is in transit can be found only in a film.
			first := Script{Stage: s.Name, Seed: seed, Servers: script.Servers, Steps: 600, Deeds: []Deed{{At: 50, Do: Ask, Server: 1, Client: 1, Request: `{"op":"put","key":"k0","value":"first"}`}}}
			script.Deeds = slices.Concat(first.Deeds, inTransit(play(t, s, first), seed), script.Deeds)
			text := script.AppendJSON(nil)
			read, err := Decode(text)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			film := play(t, s, read)
			if film.Verdict != "" && s.Linearizable() {
				t.Errorf("seed %d: %s", seed, film.Verdict)
			}
			for i, o := range film.Outcomes {
				if o.Applied {
					applied[script.Deeds[i].Do]++
				}
			}
		}
		for name := range deeds {
			if applied[name] == 0 && name != Expire && !strings.HasPrefix(name, "end-") {
				t.Errorf("no %s was ever carried out", name)
			}
		}
	})
}

// endsStanding ends what a story goes on doing after the first deed of a script, and
// checks that there is nothing to end then. It returns how much there was.
func endsStanding(t *testing.T, s scenario.Stage, script Script) int {
	t.Helper()
	at, going := script.Deeds[0].At, play(t, s, script)
	for _, what := range going.Standing {
		script.Deeds = append(script.Deeds, Deed{At: at, Do: what})
	}
	for _, what := range going.Standing {
		script.Deeds = append(script.Deeds, Deed{At: at, Do: what})
	}
	film, n := play(t, s, script), len(going.Standing)
	for i, o := range film.Outcomes[1:] {
		if o.Applied != (i < n) {
			t.Errorf("%s, step %d: deed %d, %s: applied %t %s", script.Story, at, i+1, script.Deeds[i+1].Do, o.Applied, o.Why)
		}
	}
	return n
}

// disks checks what Disk shows: the file as it is in the end, and a change in each step
// in which a server syncs it.
func disks(t *testing.T, s scenario.Stage) {
	t.Helper()
	script := busy(s)
	p, err := project(s, script)
	if err != nil {
		t.Fatal(err)
	}
	at := func(m Moment, server uint64) string {
		text, err := Disk(s, script, m, server)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	end := Moment{Step: p.film.Steps}
	journal, err := disk.ReadFile(p.world.Disk(1), "journal")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if is := at(end, 1); is != `{"files":[]}` {
			t.Errorf("the disk of n1 is %s, and it has no journal", is)
		}
		return
	case err != nil:
		t.Fatal(err)
	}
	var is struct {
		Files []struct {
			Name         string
			Size, Synced int
			Parts        []struct {
				At   int
				Text string
			}
		}
	}
	if err := json.Unmarshal([]byte(at(end, 1)), &is); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, f := range is.Files {
		if f.Name != "journal" {
			continue
		}
		found = true
		if f.Size != len(journal) || f.Synced != len(journal) {
			t.Errorf("the journal of n1 has %d bytes, %d of them synced; want %d", f.Size, f.Synced, len(journal))
		}
		for _, part := range f.Parts {
			if string(journal[part.At:part.At+len(part.Text)]) != part.Text {
				t.Errorf("the journal of n1 has at %d not the text %s", part.At, part.Text)
			}
		}
		last := f.Parts[len(f.Parts)-1]
		if f.Parts[0].At != 0 || last.At+len(last.Text) != len(journal) {
			t.Errorf("the beginning or the end of the journal of n1 is missing: %d parts, the last at %d", len(f.Parts), last.At)
		}
	}
	if !found {
		t.Errorf("n1 has a journal, and it is not shown: %+v", is)
	}
	changed := 0
	for _, e := range p.film.Events {
		if e.Kind != trace.Save || e.Step == 0 || changed == 5 {
			continue
		}
		before, half, after := at(Moment{Step: e.Step - 1}, e.Node), at(Moment{Step: e.Step, Half: true}, e.Node), at(Moment{Step: e.Step}, e.Node)
		if before != half || before == after {
			t.Errorf("step %d: n%d syncs its disk, which is before the step, before the sync and after it:\n%s\n%s\n%s", e.Step, e.Node, before, half, after)
		}
		changed++
	}
	if changed == 0 {
		t.Error("no server syncs its disk")
	}
	if _, err := Disk(s, script, end, MaxServers+1); err == nil {
		t.Error("a server that does not exist has a disk")
	}
}

// runs compiles and runs the tests in Go that scripts become, in the folder of the
// stage, and one that expects another run, which must fail.
func runs(t *testing.T, s scenario.Stage) {
	t.Helper()
	folder, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	scripts := []Script{{Stage: s.Name, Seed: 1, Story: s.Survives[0]}}
	for seed := range uint64(20) {
		scripts = append(scripts, Random(s.Name, seed))
	}
	temp, replace := t.TempDir(), make(map[string]string)
	add := func(name, text string) {
		file := filepath.Join(temp, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(folder, name)] = file
	}
	for i, script := range scripts {
		text, err := GoTest(s, script)
		if err != nil {
			t.Fatal(err)
		}
		add(fmt.Sprintf("lab%d_test.go", i), text)
		if i == 0 {
			run := play(t, s, script).Run()
			text = strings.ReplaceAll(text, "TestLab"+run[:8], "TestLabOther")
			add("labother_test.go", strings.ReplaceAll(text, run, strings.Repeat("0", len(run))))
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-overlay", overlay, "-run", "^TestLab[0-9a-fO]", ".")
	// The tests of a stage tell their processes by a variable to be the stage's program.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return !slices.ContainsFunc([]string{"PATH=", "HOME=", "TMPDIR=", "XDG_", "GO", "CGO_"}, func(prefix string) bool { return strings.HasPrefix(v, prefix) })
	})
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("the test that expects another run passes: %s", out)
	}
	if n := bytes.Count(out, []byte("\n--- PASS: TestLab")); n != len(scripts) {
		t.Errorf("%d of %d tests pass: %s", n, len(scripts), out)
	}
	if !bytes.Contains(out, []byte("this is another run than in the lab")) {
		t.Errorf("the output does not say that it is another run: %s", out)
	}
}

// inTransit returns a deed for a message that travels while other things happen, and
// one for the next of its kind on its link.
func inTransit(f *Film, seed uint64) []Deed {
	sent := make(map[[3]uint64]uint64)
	for _, e := range f.Events {
		link := [3]uint64{e.From, e.To, e.Number}
		switch e.Kind {
		case trace.Send:
			sent[link] = e.Step
		case trace.Deliver:
			if at := sent[link] + 1; at < e.Step && at > 50 && at < 300 {
				d := Deed{At: at, Do: []string{Lose, Delay, Repeat}[seed%3], From: e.From, To: e.To, Number: e.Number}
				if d.Do != Lose {
					d.For = 5 * time.Millisecond
				}
				kind := slices.IndexFunc(Kinds, func(kind string) bool { return strings.Contains(e.Message, `"`+kind+`":`) })
				return []Deed{d, {At: at, Do: LoseNext, From: e.From, To: e.To, Kind: Kinds[kind]}}
			}
		}
	}
	return nil
}

// Hash returns a hash of the whole film, as hexadecimal digits: two films are the
// same if it is.
func (f *Film) Hash() string {
	sum := sha256.Sum256(f.AppendJSON(nil))
	return hex.EncodeToString(sum[:])
}

// play plays a script, and checks that its frames lead to the servers as they are
// at the end.
func play(t *testing.T, s scenario.Stage, script Script) *Film {
	t.Helper()
	p, err := project(s, script)
	if err != nil {
		t.Fatalf("%s: %v", script.AppendJSON(nil), err)
	}
	for _, id := range p.world.IDs() {
		shown, err := lastFrame(p.film, id, p.world.Now())
		if err != nil {
			t.Fatalf("%s: the frames of n%d: %v", script.AppendJSON(nil), id, err)
		}
		is := lastState(p.world, id)
		if near(is.Elapsed, shown.Elapsed) {
			shown.Elapsed = is.Elapsed
		}
		if !reflect.DeepEqual(is, shown) {
			t.Fatalf("%s: the frames of n%d lead to\n%+v\nand it is\n%+v", script.AppendJSON(nil), id, shown, is)
		}
	}
	return p.film
}

func convert(sessions map[string][3]any) map[string]string {
	texts := make(map[string]string)
	for id, s := range sessions {
		texts[id] = fmt.Sprint(s)
	}
	return texts
}

// timedOut checks that the first election begins when the timer of that server has
// run out.
func timedOut(t *testing.T, f *Film) {
	t.Helper()
	i := slices.IndexFunc(f.Events, func(e trace.Event) bool {
		return e.Reason != nil && (e.Reason.Code == "timed-out" || e.Reason.Code == "asks")
	})
	if i < 0 {
		t.Fatal("no server has started an election")
	}
	e := f.Events[i]
	early := &Film{Frames: slices.DeleteFunc(slices.Clone(f.Frames), func(frame Frame) bool { return frame.Step >= e.Step })}
	shown, err := lastFrame(early, e.Node, e.At)
	if err != nil {
		t.Fatal(err)
	}
	if shown.Timeout == 0 || !near(shown.Elapsed, shown.Timeout) {
		t.Errorf("n%d starts an election, and %d of %d ticks have passed", e.Node, shown.Elapsed, shown.Timeout)
	}
}

// Benchmark measures how long a film of 20,000 steps takes, and its size in JSON.
func Benchmark(b *testing.B, s scenario.Stage) {
	script := Script{Stage: s.Name, Seed: 1, Steps: 20_000}
	if s.Applies("chaos") {
		script.Story = "chaos"
	}
	b.ReportAllocs()
	for b.Loop() {
		f, err := Play(s, script)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(f.AppendJSON(nil))), "bytes")
	}
}

// liar returns a factory of servers that say to every reader that there is nothing.
func liar(of node.Factory) node.Factory {
	return func(w node.World) (node.Server, error) {
		s, err := of(w)
		if err != nil {
			return nil, err
		}
		in := s.(inspected)
		return &lies{inspected: in}, nil
	}
}

// inspected is what a film asks of a server with a log.
type inspected interface {
	node.Server
	node.Inspector
	node.Hasher
	node.Keeper
	node.StoreHolder
	node.SessionHolder
}

type lies struct{ inspected }

func (l *lies) Request(q api.Request, reply func(api.Response)) {
	if q.Op != kv.Get {
		l.inspected.Request(q, reply)
		return
	}
	reply(api.Failed(q.ID, &api.Error{Code: api.NotFound, Message: "there is no such key", Definite: true}))
}

// inspects checks that a server can be inspected after every step at little cost: it
// allocates memory only for copies of configurations, where they change.
func inspects(t *testing.T, s scenario.Stage) {
	t.Helper()
	p, err := project(s, Script{Stage: s.Name, Seed: 1, Servers: 3, Steps: 500})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range p.world.IDs() {
		in, ok := p.world.Server(id).(node.Inspector)
		if !ok {
			continue
		}
		var to node.State
		in.Inspect(&to)
		most := 0.0
		if _, changes := s.Ops[api.Change]; changes {
			most = 8
		}
		if n := testing.AllocsPerRun(20, func() { in.Inspect(&to) }); n > most {
			t.Errorf("an inspection of n%d, %s, allocates memory %v times", id, to.Role, n)
		}
	}
}

// saved checks that what a server has synced was shown as unsynced before.
func saved(t *testing.T, f *Film, e trace.Event) {
	t.Helper()
	var shown []string
	for _, frame := range f.Frames {
		var d struct {
			Unsynced *[2]uint64
			Up       *bool
		}
		if frame.Step != e.Step || frame.Server != e.Node {
			continue
		}
		if err := json.Unmarshal(frame.JSON, &d); err != nil {
			t.Fatalf("%s: %v", frame.JSON, err)
		}
		switch {
		case d.Unsynced != nil && *d.Unsynced == [2]uint64{}:
			shown = append(shown, "on disk")
		case d.Unsynced != nil:
			shown = append(shown, "in memory")
		case d.Up != nil && !*d.Up:
			shown = append(shown, "down")
		}
	}
	words := strings.Join(shown, ", ")
	if !strings.Contains(words, "in memory, on disk") && !strings.Contains(words, "in memory, down") && !strings.Contains(words, "in memory, in memory") {
		t.Errorf("step %d: n%d syncs its disk, and its frames say: %s", e.Step, e.Node, words)
	}
}

// near reports whether two counts of ticks differ by no more than a page may be
// wrong.
func near(a, b uint64) bool { return max(a, b)-min(a, b) <= drift }

// shown is a server as a page shows it.
type shown struct {
	Up, Paused          bool
	Role                string
	Term, Vote          uint64
	Snapshot            [2]uint64
	Commit, Applied     uint64
	Now, Next, Learners []uint64
	Votes               []uint64
	Progress            [][3]uint64
	Terms               []uint64
	Contents            []string
	Elapsed, Timeout    uint64
	Unsynced            [2]uint64
	Keys                int
	Store               map[string]string
	Sessions            map[string][3]any
}

// lastFrame applies all frames of a server, as the page does at the end of the film.
func lastFrame(f *Film, id uint64, end time.Duration) (shown, error) {
	v := shown{}
	var timer [3]uint64
	clock := uint64(100)
	for _, frame := range f.Frames {
		if frame.Server != id {
			continue
		}
		var d struct {
			Up, Paused      *bool
			Role            *string
			Term, Vote      *uint64
			Snapshot        *[2]uint64
			Commit, Applied *uint64
			Config          *struct{ Now, Next, Learners []uint64 }
			Votes           *[]uint64
			Progress        *[][3]uint64
			Log             *struct {
				From    uint64
				Entries [][2]any
			}
			Clock    *uint64
			Timer    *[3]uint64
			Unsynced *[2]uint64
			Keys     *int
			Store    map[string]*string
			Sessions map[string]*[3]any
		}
		if err := json.Unmarshal(frame.JSON, &d); err != nil {
			return v, fmt.Errorf("%s: %w", frame.JSON, err)
		}
		if d.Up != nil {
			v = shown{Up: *d.Up, Store: map[string]string{}, Sessions: map[string][3]any{}} // what it had in memory is gone
			timer, clock = [3]uint64{}, 100
		}
		set(&clock, d.Clock)
		set(&timer, d.Timer)
		set(&v.Unsynced, d.Unsynced)
		set(&v.Keys, d.Keys)
		merge(v.Store, d.Store)
		merge(v.Sessions, d.Sessions)
		set(&v.Paused, d.Paused)
		set(&v.Role, d.Role)
		set(&v.Term, d.Term)
		set(&v.Vote, d.Vote)
		set(&v.Commit, d.Commit)
		set(&v.Applied, d.Applied)
		set(&v.Votes, d.Votes)
		set(&v.Progress, d.Progress)
		if c := d.Config; c != nil {
			v.Now, v.Next, v.Learners = c.Now, c.Next, c.Learners
		}
		before := v.Snapshot[0]
		set(&v.Snapshot, d.Snapshot)
		if gone := int(v.Snapshot[0]) - int(before); gone != 0 {
			gone = max(0, min(gone, len(v.Terms)))
			v.Terms, v.Contents = v.Terms[gone:], v.Contents[gone:]
		}
		if l := d.Log; l != nil {
			keep := l.From - v.Snapshot[0] - 1
			v.Terms, v.Contents = v.Terms[:keep], v.Contents[:keep]
			for _, e := range l.Entries {
				v.Terms, v.Contents = append(v.Terms, uint64(e[0].(float64))), append(v.Contents, e[1].(string))
			}
		}
	}
	v.Elapsed, v.Timeout = timer[1], timer[2]
	if v.Timeout > 0 && !v.Paused {
		v.Elapsed += uint64((end - time.Duration(timer[0])) * time.Duration(clock) / 100 / node.TickInterval)
	}
	if len(v.Store) < mostKeys {
		v.Keys = len(v.Store)
	}
	return v.plain(), nil
}

// merge applies what has changed in a map.
func merge[V any](to map[string]V, changes map[string]*V) {
	for key, v := range changes {
		if v == nil {
			delete(to, key)
		} else {
			to[key] = *v
		}
	}
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// lastState is a server as it is.
func lastState(w *sim.World, id uint64) shown {
	v := shown{Up: w.Up(id), Paused: w.Paused(id), Store: map[string]string{}, Sessions: map[string][3]any{}}
	if h, ok := w.Server(id).(node.StoreHolder); ok {
		v.Keys = h.Store().Len()
		h.Store().Each(func(key, value string) bool {
			v.Store[key] = clip(value)
			return true
		})
	}
	if h, ok := w.Server(id).(node.SessionHolder); ok {
		for _, n := range h.Sessions() {
			s, _ := h.Session(n)
			v.Sessions[fmt.Sprint(n)] = [3]any{float64(s.Ack), float64(s.Last), reply(s)}
		}
	}
	in, ok := w.Server(id).(node.Inspector)
	if !ok {
		return v.plain()
	}
	var s node.State
	in.Inspect(&s)
	v.Role, v.Term, v.Vote, v.Snapshot = string(s.Role), s.Term, s.Vote, [2]uint64{s.SnapIndex, s.SnapTerm}
	v.Commit, v.Applied, v.Votes, v.Elapsed, v.Timeout = s.Commit, s.Applied, s.Votes, s.Elapsed, s.Timeout
	v.Now, v.Next, v.Learners = s.Config.Now, s.Config.Next, s.Config.Learners
	for _, p := range s.Progress {
		v.Progress = append(v.Progress, [3]uint64{p.ID, p.Next, p.Match})
	}
	for i := s.SnapIndex + 1; i <= s.Last; i++ {
		e := in.Entry(i)
		v.Terms, v.Contents = append(v.Terms, e.Term), append(v.Contents, string(e.Data))
	}
	return v.plain()
}

// plain makes all empty lists the same.
func (v shown) plain() shown {
	for _, l := range []*[]uint64{&v.Now, &v.Next, &v.Learners, &v.Votes, &v.Terms} {
		*l = append([]uint64{}, *l...)
	}
	if v.Store == nil {
		v.Store, v.Sessions = map[string]string{}, map[string][3]any{}
	}
	v.Progress, v.Contents = append([][3]uint64{}, v.Progress...), append([]string{}, v.Contents...)
	return v
}

// before is what a film holds of the steps before one.
func before(f *Film, step uint64) string {
	cut := &Film{}
	for _, e := range f.Events {
		if e.Step < step {
			cut.Events = append(cut.Events, e)
		}
	}
	for _, frame := range f.Frames {
		if frame.Step < step {
			cut.Frames = append(cut.Frames, frame)
		}
	}
	return cut.Hash()
}

// busy returns a script of some requests.
func busy(s scenario.Stage) Script {
	script := Script{Stage: s.Name, Seed: 1, Servers: 3, Steps: 2500}
	for i, q := range []string{`"put","key":"x","value":"1"`, `"append","key":"x","value":"2"`, `"put","key":"y","value":"3"`, `"delete","key":"x"`, `"get","key":"y"`, `"delete","key":"x"`, `"put","key":"z","value":"4"`} {
		script.Deeds = append(script.Deeds, Deed{At: uint64(400 + 200*i), Do: Ask, Client: uint64(1 + i%2), Request: `{"op":` + q + `}`})
	}
	return script
}

// Random returns a script of all deeds for a stage. Messages are named by guessing:
// most links carry a few hundred of them.
func Random(stage string, seed uint64) Script {
	rng := rand.New(rand.NewPCG(seed, 99))
	script := Script{Stage: stage, Seed: seed, Servers: 3 + 2*rng.IntN(2), Steps: 3000}
	names := make([]string, 0, len(deeds))
	for name := range deeds {
		names = append(names, name)
	}
	slices.Sort(names)
	server := func() uint64 { return 1 + uint64(rng.IntN(script.Servers)) }
	at := uint64(300)
	for i := range 60 {
		at += uint64(rng.IntN(60))
		e := Deed{At: at, Do: names[rng.IntN(len(names))]}
		if i%3 == 0 {
			e.Do = Ask
		}
		wants := deeds[e.Do]
		if wants&needsServer != 0 {
			e.Server = server()
		}
		if wants&needsLink != 0 {
			e.From, e.To = server(), server()
			if e.From == e.To {
				e.To = 1 + e.From%uint64(script.Servers)
			}
		}
		if wants&needsNumber != 0 {
			e.Number = 1 + uint64(rng.IntN(200))
		}
		if wants&mayFor != 0 {
			e.For = time.Duration(rng.IntN(int(300 * time.Millisecond)))
		}
		if wants&mayPercent != 0 {
			e.Percent = uint64(50 + rng.IntN(150))
			if e.Do != Clock {
				e.Percent = uint64(rng.IntN(101))
			}
		}
		if wants&needsKind != 0 {
			// The first stage has other messages than those with a log.
			kinds := []string{"appendEntries", "appendEntriesReply", "replicate", "replicateReply"}
			e.Kind = kinds[rng.IntN(len(kinds))]
		}
		if wants&needsGroups != 0 {
			e.Groups = [][]uint64{{1, 2}, {3}}
		}
		if wants&needsRequest != 0 {
			e.Client = 1 + uint64(rng.IntN(3))
			op := []string{kv.Put, kv.Append, kv.Get, kv.Delete}[rng.IntN(4)]
			e.Request = fmt.Sprintf(`{"op":%q,"key":"k%d"}`, op, rng.IntN(3))
			if op == kv.Put || op == kv.Append {
				e.Request = fmt.Sprintf(`{"op":%q,"key":"k%d","value":"%d;"}`, op, rng.IntN(3), i)
			}
			if rng.IntN(2) == 0 {
				e.Server = server()
			}
		}
		script.Deeds = append(script.Deeds, e)
	}
	return script
}
