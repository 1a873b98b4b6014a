package film

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
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

func play(t *testing.T, s scenario.Stage, script Script) *Film {
	t.Helper()
	f, err := Play(s, script)
	if err != nil {
		t.Fatalf("%s: %v", script.AppendJSON(nil), err)
	}
	return f
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
