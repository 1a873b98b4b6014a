package film

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/sim"
)

// Test checks a stage's films: the same script gives the same film, a deed changes
// nothing before its step, and no script does harm.
func Test(t *testing.T, s scenario.Stage) {
	t.Helper()
	t.Run("stories", func(t *testing.T) {
		t.Parallel()
		for _, name := range slices.Concat(s.Survives, s.Fails) {
			script := Script{Stage: s.Name, Seed: 1, Story: name, Steps: 1000}
			film := play(t, s, script)
			again := play(t, s, script)
			if film.Hash() != again.Hash() {
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
	t.Run("random", func(t *testing.T) {
		t.Parallel()
		applied := make(map[string]int)
		for seed := range uint64(12) {
			script := random(s, seed)
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
			if applied[name] == 0 && name != Expire {
				t.Errorf("no %s was ever carried out", name)
			}
		}
	})
}

// inTransit returns a deed for a message that travels while other things happen.
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
				return []Deed{d}
			}
		}
	}
	return nil
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
		shown, err := lastFrame(p.film, id)
		if err != nil {
			t.Fatalf("%s: the frames of n%d: %v", script.AppendJSON(nil), id, err)
		}
		if is := lastState(p.world, id); !reflect.DeepEqual(is, shown) {
			t.Fatalf("%s: the frames of n%d lead to\n%+v\nand it is\n%+v", script.AppendJSON(nil), id, shown, is)
		}
	}
	return p.film
}

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
}

// lastFrame applies all frames of a server, as the page does.
func lastFrame(f *Film, id uint64) (shown, error) {
	var v shown
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
		}
		if err := json.Unmarshal(frame.JSON, &d); err != nil {
			return v, fmt.Errorf("%s: %w", frame.JSON, err)
		}
		if d.Up != nil {
			v = shown{Up: *d.Up} // what it had in memory is gone
		}
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
	return v.plain(), nil
}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// lastState is a server as it is.
func lastState(w *sim.World, id uint64) shown {
	v := shown{Up: w.Up(id), Paused: w.Paused(id)}
	in, ok := w.Server(id).(node.Inspector)
	if !ok {
		return v.plain()
	}
	var s node.State
	in.Inspect(&s)
	v.Role, v.Term, v.Vote, v.Snapshot = string(s.Role), s.Term, s.Vote, [2]uint64{s.SnapIndex, s.SnapTerm}
	v.Commit, v.Applied, v.Votes = s.Commit, s.Applied, s.Votes
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

// random returns a script of all deeds. Messages are named by guessing: most links
// carry a few hundred of them.
func random(s scenario.Stage, seed uint64) Script {
	rng := rand.New(rand.NewPCG(seed, 99))
	script := Script{Stage: s.Name, Seed: seed, Servers: 3 + 2*rng.IntN(2), Steps: 3000}
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
		}
		if wants&needsGroups != 0 {
			e.Groups = [][]uint64{{1, 2}, {3}}
		}
		if wants&needsRequest != 0 {
			e.Client = 1 + uint64(rng.IntN(3))
			op := []string{kv.Put, kv.Append, kv.Get}[rng.IntN(3)]
			e.Request = fmt.Sprintf(`{"op":%q,"key":"k%d"}`, op, rng.IntN(3))
			if op != kv.Get {
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
