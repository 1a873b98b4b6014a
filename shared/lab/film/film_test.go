package film

import (
	"bytes"
	"go/format"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/scenario"
)

// toyStage is a stage whose servers hand each write to all others.
func toyStage(flaws toy.Flaws) scenario.Stage {
	flaws.Stale = true
	return scenario.Stage{Name: "toy", New: toy.New(flaws), Ops: toy.Ops, Appointed: true, Survives: []string{"minority-down"}, Fails: []string{"missed-message", "restart"}}
}

const put = `{"op":"put","key":"x","value":"1"}`

// ask is a film of one write, which reaches n1 soon after step 50.
func ask(deeds ...Deed) Script {
	return Script{Stage: "toy", Seed: 3, Servers: 3, Steps: 600, Deeds: append([]Deed{{At: 50, Do: Ask, Server: 1, Client: 1, Request: put}}, deeds...)}
}

// travels returns the first message from n1 to n2 in a film, and the steps at which
// it was sent and delivered.
func travels(t *testing.T, f *Film) (number, sent, delivered uint64) {
	t.Helper()
	for _, e := range f.Events {
		if e.From != 1 || e.To != 2 {
			continue
		}
		if e.Kind == trace.Send && sent == 0 && e.Step > 50 {
			number, sent = e.Number, e.Step
		}
		if e.Kind == trace.Deliver && e.Number == number {
			return number, sent, e.Step
		}
	}
	t.Fatal("no message from n1 to n2 arrives")
	return 0, 0, 0
}

// arrivals returns when a message arrives, and why it does not.
func arrivals(f *Film, number uint64) (at []time.Duration, why string) {
	for _, e := range f.Events {
		if e.From == 1 && e.To == 2 && e.Number == number {
			switch e.Kind {
			case trace.Deliver:
				at = append(at, e.At)
			case trace.Drop:
				why = e.Text
			}
		}
	}
	return at, why
}

// What a film has said already is left out. That the page adds all of it again is
// tested where there is Node: see TestCarriers of package site.
func TestJSONSaysNothingTwice(t *testing.T) {
	f := Film{Events: []trace.Event{
		{Kind: trace.Invoke, Client: 1, To: 2, Message: "a"},
		{Kind: trace.Request, Client: 1, Node: 2, Message: "a"},
		{At: 7, Step: 3, Kind: trace.Send, Node: 1, From: 1, To: 2, Number: 5, Message: "b"},
		{At: 7, Step: 3, Kind: trace.Send, Node: 1, From: 1, To: 3, Number: 5, Message: "b"},
		{At: 7, Step: 4, Kind: trace.Send, Node: 1, From: 1, To: 2, Number: 6, Message: "c"},
		{At: 8, Step: 4, Kind: trace.Deliver, Node: 3, From: 1, To: 3, Number: 5, Message: "b"},
		{At: 8, Step: 4, Kind: trace.Drop, Node: 3, From: 1, To: 3, Message: "b"},
		{At: 8, Step: 4, Kind: trace.Apply, Node: 1, Index: 1, Message: "d"},
		{At: 8, Step: 4, Kind: trace.Apply, Node: 2, Index: 1, Message: "e"},
		{At: 8, Step: 4, Kind: trace.Apply, Node: 3, Index: 1, Message: "e"},
		{At: 8, Step: 4, Kind: trace.Apply, Node: 3, Index: 2, Message: "e"},
		{At: 8, Step: 4, Kind: trace.Reply, Node: 2, Client: 1, Message: "f"},
		{At: 8, Step: 4, Kind: trace.Return, Client: 2, Message: "f"},
		{At: 8, Step: 4, Kind: trace.Return, Client: 1, Message: "f"},
	}}
	_, events, _ := strings.Cut(string(f.AppendJSON(nil)), `"events":[`)
	events, _, _ = strings.Cut(events, `],"run"`)
	require.Equal(t, []string{
		`{"at":0,"kind":"invoke","to":2,"client":1,"message":"a"}`,
		`{"node":2,"kind":"request","client":1}`,
		`{"at":7,"step":3,"node":1,"kind":"send","from":1,"to":2,"number":5,"message":"b"}`,
		`{"node":1,"kind":"send","from":1,"to":3,"number":5}`,
		`{"at":7,"step":4,"node":1,"kind":"send","from":1,"to":2,"number":6,"message":"c"}`,
		`{"at":8,"step":4,"node":3,"kind":"deliver","from":1,"to":3,"number":5}`,
		`{"node":3,"kind":"drop","from":1,"to":3,"message":"b"}`,
		`{"node":1,"kind":"apply","message":"d","index":1}`,
		`{"node":2,"kind":"apply","message":"e","index":1}`,
		`{"node":3,"kind":"apply","index":1}`,
		`{"node":3,"kind":"apply","message":"e","index":2}`,
		`{"node":2,"kind":"reply","client":1,"message":"f"}`,
		`{"kind":"return","client":2,"message":"f"}`,
		`{"kind":"return","client":1}`,
	}, strings.Split(strings.ReplaceAll(events, "},{", "}\n{"), "\n"))
}

func TestOneMessageIsLostDelayedOrRepeated(t *testing.T) {
	s := toyStage(toy.Flaws{})
	trunk := play(t, s, ask())
	number, sent, delivered := travels(t, trunk)
	require.Greater(t, delivered, sent+1)
	before, _ := arrivals(trunk, number)
	require.Len(t, before, 1)

	lost := play(t, s, ask(Deed{At: sent + 1, Do: Lose, From: 1, To: 2, Number: number}))
	at, why := arrivals(lost, number)
	require.Empty(t, at)
	require.Equal(t, "it is taken away", why)

	// A server handles what has arrived up to 0.3 ms later.
	late := play(t, s, ask(Deed{At: sent + 1, Do: Delay, From: 1, To: 2, Number: number, For: 20 * time.Millisecond}))
	at, _ = arrivals(late, number)
	require.Len(t, at, 1)
	require.InDelta(t, 20*time.Millisecond, at[0]-before[0], float64(time.Millisecond))

	twice := play(t, s, ask(Deed{At: sent + 1, Do: Repeat, From: 1, To: 2, Number: number, For: 5 * time.Millisecond}))
	at, _ = arrivals(twice, number)
	require.Len(t, at, 2)
	require.Equal(t, before[0], at[0])

	gone := play(t, s, ask(Deed{At: delivered + 1, Do: Lose, From: 1, To: 2, Number: number}))
	require.Equal(t, Outcome{Step: delivered + 1, Why: "that message is not in transit"}, gone.Outcomes[1])
}

func TestTheNextMessageOfAKindIsLost(t *testing.T) {
	s := toyStage(toy.Flaws{})
	s.New = renamed(s.New)
	trunk := play(t, s, ask())
	var first []trace.Event
	for _, e := range trunk.Events {
		if e.Kind == trace.Send && e.Step > 50 && e.From == 2 && e.To == 1 && strings.Contains(e.Message, `"replicateReply":`) {
			first = append(first, e)
		}
	}
	require.NotEmpty(t, first)
	f := play(t, s, ask(Deed{At: 51, Do: LoseNext, From: 2, To: 1, Kind: "replicateReply"}, Deed{At: 51, Do: LoseNext, From: 2, To: 1, Kind: "timeoutNow"}))
	require.Equal(t, Outcome{Applied: true, Step: 51}, f.Outcomes[1])
	require.Equal(t, Outcome{Step: 51, Why: "n2 sends n1 no timeoutNow after it"}, f.Outcomes[2])
	lost := 0
	for _, e := range f.Events {
		if e.Kind == trace.Drop {
			lost++
			require.Equal(t, [4]any{uint64(2), uint64(1), first[0].Number, "it is taken away"}, [4]any{e.From, e.To, e.Number, e.Text})
		}
	}
	require.Equal(t, 1, lost)
}

// renamed returns a factory of toys whose messages look like those of stage 02.
func renamed(of node.Factory) node.Factory {
	return func(w node.World) (node.Server, error) {
		send := w.Send
		w.Send = func(to uint64, line []byte) {
			kind := "replicate"
			if w.ID != 1 {
				kind = "replicateReply"
			}
			send(to, []byte(`{"`+kind+`":`+string(line)+`}`))
		}
		s, err := of(w)
		return unpack{s}, err
	}
}

type unpack struct{ node.Server }

func (u unpack) Receive(from uint64, line []byte) {
	_, body, _ := bytes.Cut(line, []byte(":"))
	u.Server.Receive(from, bytes.TrimSuffix(body, []byte("}")))
}

func TestALinkLosesRepeatsAndDelays(t *testing.T) {
	s := toyStage(toy.Flaws{})
	count := func(deeds ...Deed) (sent, arrived, lost int, slowest time.Duration) {
		began := make(map[uint64]time.Duration)
		for _, e := range play(t, s, ask(deeds...)).Events {
			switch {
			case e.From != 1 || e.To != 2 || e.Step <= 50:
			case e.Kind == trace.Send:
				sent++
				began[e.Number] = e.At
			case began[e.Number] == 0: // it was sent before
			case e.Kind == trace.Deliver:
				arrived++
				slowest = max(slowest, e.At-began[e.Number])
			case e.Kind == trace.Drop:
				lost++
			}
		}
		return sent, arrived, lost, slowest
	}
	sent, arrived, _, slowest := count()
	require.Greater(t, arrived, 5)
	require.Less(t, slowest, 5*time.Millisecond)
	require.InDelta(t, sent, arrived, 1)

	sent, arrived, lost, _ := count(Deed{At: 50, Do: LinkLoss, From: 1, To: 2, Percent: 100})
	require.Zero(t, arrived)
	require.Equal(t, sent, lost)
	_, arrived, lost, _ = count(Deed{At: 50, Do: LinkLoss, From: 1, To: 2, Percent: 100}, Deed{At: 300, Do: LinkLoss, From: 1, To: 2})
	require.NotZero(t, arrived)
	require.NotZero(t, lost)
	_, arrived, _, _ = count(Deed{At: 50, Do: LinkLoss, From: 1, To: 2, Percent: 100}, Deed{At: 300, Do: HealAll})
	require.NotZero(t, arrived)
	_, arrived, _, _ = count(Deed{At: 50, Do: LinkLoss, From: 2, To: 1, Percent: 100})
	require.NotZero(t, arrived, "the other direction is another link")

	sent, arrived, _, _ = count(Deed{At: 50, Do: LinkRepeat, From: 1, To: 2, Percent: 100})
	require.Greater(t, arrived, sent*3/2)
	_, _, _, slowest = count(Deed{At: 50, Do: LinkDelay, From: 1, To: 2, For: 30 * time.Millisecond})
	require.Greater(t, slowest, 30*time.Millisecond)
}

// The power of a server is cut when it writes: nothing of that write was promised.
func TestThePowerIsCutInAWrite(t *testing.T) {
	f := play(t, toyStage(toy.Flaws{}), ask(Deed{At: 50, Do: CutWrite, Server: 1}))
	i := slices.IndexFunc(f.Events, func(e trace.Event) bool { return e.Kind == trace.Crash })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, "its power is cut while it writes", f.Events[i].Text)
	require.Greater(t, f.Events[i].Step, uint64(50))
	require.False(t, slices.ContainsFunc(f.Events, func(e trace.Event) bool { return e.Kind == trace.Reply }))
}

func TestADeedThatCannotHappenSaysWhy(t *testing.T) {
	for _, c := range []struct {
		deeds []Deed
		why   string
	}{
		{[]Deed{{At: 60, Do: Kill, Server: 4}}, "n4 does not exist"},
		{[]Deed{{At: 60, Do: Kill, Server: 2}, {At: 61, Do: Kill, Server: 2}}, "n2 is down"},
		{[]Deed{{At: 60, Do: Restart, Server: 2}}, "n2 is running"},
		{[]Deed{{At: 60, Do: Pause, Server: 2}, {At: 61, Do: Pause, Server: 2}}, "n2 is paused already"},
		{[]Deed{{At: 60, Do: Resume, Server: 2}}, "n2 is not paused"},
		{[]Deed{{At: 60, Do: Cut, From: 1, To: 2}, {At: 61, Do: Cut, From: 1, To: 2}}, "that link is cut already"},
		{[]Deed{{At: 60, Do: Heal, From: 1, To: 2}}, "that link is not cut"},
		{[]Deed{{At: 60, Do: Expire, Server: 2}}, "n2 starts no election"},
		{[]Deed{{At: 60, Do: Kill, Server: 2}, {At: 61, Do: CutWrite, Server: 2}}, "n2 is down"},
		{[]Deed{{At: 60, Do: LinkLoss, From: 1, To: 4, Percent: 5}}, "n4 does not exist"},
		{[]Deed{{At: 60, Do: LoseNext, From: 1, To: 2, Kind: "readIndex"}}, "n1 sends n2 no readIndex after it"},
		{[]Deed{{At: 601, Do: Kill, Server: 2}}, "the film ends before it"},
	} {
		f := play(t, toyStage(toy.Flaws{}), ask(c.deeds...))
		last := f.Outcomes[len(f.Outcomes)-1]
		require.False(t, last.Applied)
		require.Equal(t, c.why, last.Why)
	}
}

func TestAViolationEndsTheFilm(t *testing.T) {
	f := play(t, toyStage(toy.Flaws{Forgets: true}), Script{Stage: "toy", Seed: 1, Story: "restart"})
	require.Contains(t, f.Verdict, "lost write")
	require.Empty(t, f.Limit)
}

// A server that reads from its own store misses a write that is still on its way:
// the film of a stage without a log ends with that answer, though it was judged only
// at the end.
func TestAStaleReadEndsTheFilm(t *testing.T) {
	get := func(at, server uint64) Deed {
		return Deed{At: at, Do: Ask, Server: server, Client: 2, Request: `{"op":"get","key":"x"}`}
	}
	f := play(t, toyStage(toy.Flaws{}), ask(Deed{At: 50, Do: Cut, From: 1, To: 3}, get(120, 3), get(300, 2)))
	require.Contains(t, f.Verdict, `key "x" is not linearizable: no order of its operations explains the answer marked →`)
	require.Contains(t, f.Verdict, "→ ")
	last := f.Events[len(f.Events)-1]
	require.Equal(t, trace.Return, last.Kind)
	require.Contains(t, last.Message, "not_found")
	require.Equal(t, f.Steps, last.Step)
	require.Empty(t, f.Limit)
	require.Equal(t, Outcome{Why: "the film ends before it"}, f.Outcomes[3])
}

func TestAFilmIsBounded(t *testing.T) {
	f := play(t, toyStage(toy.Flaws{}), Script{Stage: "toy", Seed: 1, Steps: 100})
	require.Equal(t, uint64(100), f.Steps)
	require.Equal(t, "it has 100 steps", f.Limit)
	f = play(t, toyStage(toy.Flaws{}), Script{Stage: "toy", Seed: 1, Time: 50 * time.Millisecond})
	require.LessOrEqual(t, f.Length, 50*time.Millisecond)
	require.Equal(t, "it is 50ms long", f.Limit)
}

func TestScriptsAreChecked(t *testing.T) {
	for text, want := range map[string]string{
		`{"stage":"toy","seed":1,"servers":8,"spare":2}`:                                                        "the script has more than 9 servers",
		`{"stage":"toy","seed":1,"steps":200001}`:                                                               "the script has 200001 steps; 200000 are allowed",
		`{"stage":"toy","seed":1,"time":600000000001}`:                                                          "the script takes 10m0.000000001s; 10m0s are allowed",
		`{"stage":"toy","seed":1,"story":"figure-8"}`:                                                           `toy does not play "figure-8"; it plays minority-down, missed-message, restart`,
		`{"stage":"toy","seed":1,"story":"missed-message","servers":3}`:                                         "the story missed-message brings its own servers: take out servers and spare",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"dance"}]}`:                                              `deed 1: there is no deed "dance"; there are clock, cut, delay, end-faults,`,
		`{"stage":"toy","seed":1,"deeds":[{"at":0,"do":"heal-all"}]}`:                                           "deed 1: step 0 comes before step 1",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"kill"}]}`:                                               "deed 1: kill lacks a field",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"kill","server":1,"to":2}]}`:                             "deed 1: kill has a field that it does not take",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"cut","from":1,"to":1}]}`:                                "deed 1: cut needs two different servers, from and to",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"request","client":1,"request":"x"}]}`:                   "deed 1: the request: ",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"request","request":"{\"op\":\"get\",\"key\":\"x\"}"}]}`: "deed 1: request needs a client",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"clock","server":1,"percent":1001}]}`:                    "deed 1: a clock may run at 1000 % at most",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"link-loss","from":1,"to":2,"percent":101}]}`:            "deed 1: 101 % of the messages are more than all",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"link-delay","from":1,"to":2,"for":60000000001}]}`:       "deed 1: 1m0.000000001s is too long",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"link-delay","from":1,"to":2,"percent":1}]}`:             "deed 1: link-delay has a field that it does not take",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"lose-next","from":1,"to":2}]}`:                          "deed 1: lose-next lacks a field",
		`{"stage":"toy","seed":1,"deeds":[{"at":1,"do":"lose-next","from":1,"to":2,"kind":"vote"}]}`:            `deed 1: there is no kind of message "vote"; there are replicate,`,
	} {
		s, err := Decode([]byte(text))
		require.NoError(t, err, text)
		_, err = Play(toyStage(toy.Flaws{}), s)
		require.ErrorContains(t, err, want, text)
	}
	for text, want := range map[string]string{
		`{"stage":"toy","sed":1}`:                  `field "sed": unknown field`,
		`{"stage":"toy","time":99999999999999999}`: "ns are more than a year",
		"": "the script: ",
	} {
		_, err := Decode([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
	_, err := Decode(bytes.Repeat([]byte(" "), MaxScript+1))
	require.ErrorContains(t, err, "is too long")
	_, err = Decode([]byte(`{"deeds":[` + strings.TrimSuffix(strings.Repeat(`{"at":1,"do":"heal-all"},`, MaxDeeds+1), ",") + `]}`))
	require.ErrorContains(t, err, "more than 1000 deeds")
}

// A script comes from a link, so from anyone: it is refused with an error, or it
// gives a film. What is read is written the same way.
func FuzzPlay(f *testing.F) {
	f.Add([]byte(`{"stage":"toy","seed":1,"steps":300}`))
	f.Add([]byte(`{"stage":"toy","seed":1,"story":"missed-message","steps":300,"deeds":[{"at":100,"do":"kill","server":2}]}`))
	f.Add(ask(Deed{At: 60, Do: Partition, Groups: [][]uint64{{1}, {2, 3}}}, Deed{At: 70, Do: Clock, Server: 1, Percent: 1000}, Deed{At: 80, Do: PowerCut, Server: 2}, Deed{At: 90, Do: Restart, Server: 2}).AppendJSON(nil))
	f.Add(ask(Deed{At: 60, Do: LoseNext, From: 1, To: 2, Kind: "replicate"}, Deed{At: 60, Do: LinkLoss, From: 1, To: 2, Percent: 50}, Deed{At: 70, Do: LinkRepeat, From: 2, To: 1, Percent: 100}, Deed{At: 80, Do: LinkDelay, From: 3, To: 1, For: time.Second}, Deed{At: 90, Do: CutWrite, Server: 1}).AppendJSON(nil))
	f.Add([]byte(`{"stage":"toy","seed":1,"edits":["a","b"],"steps":300}`))
	s := toyStage(toy.Flaws{})
	f.Fuzz(func(t *testing.T, text []byte) {
		script, err := Decode(text)
		if err != nil {
			return
		}
		again, err := Decode(script.AppendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, script.AppendJSON(nil), again.AppendJSON(nil))
		script.Steps = min(script.Steps, 500)
		if script.Steps == 0 {
			script.Steps = 500
		}
		film, err := Play(s, script)
		if err == nil {
			require.NotContains(t, film.Verdict, "panicked")
		}
	})
}

// A script with edits is played by the engine that was built with them, and by no
// other.
func TestEditsMustBeThoseOfTheEngine(t *testing.T) {
	s, err := Decode([]byte(`{"stage":"toy","seed":1,"edits":["no-votes","no-log"],"steps":100}`))
	require.NoError(t, err)
	stage := toyStage(toy.Flaws{})
	_, err = Play(stage, s)
	require.EqualError(t, err, `the script needs toy with the edits ["no-votes" "no-log"], and this engine has no edit`)
	stage.Edits = []string{"no-votes", "no-log"}
	film, err := Play(stage, s)
	require.NoError(t, err)
	require.Contains(t, string(film.AppendJSON(nil)), `"edits":["no-votes","no-log"]`)
	s.Edits = nil
	_, err = Play(stage, s)
	require.ErrorContains(t, err, "the script needs toy with no edit, and this engine has the edits")
	_, err = Decode([]byte(`{"edits":[` + strings.Repeat(`"a",`, MaxEdits) + `"a"]}`))
	require.ErrorContains(t, err, "more than 8 edits")
}

// The hash in a film is one of what happened: not of the script's words, and not of
// the frames.
func TestRunIsAHashOfWhatHappened(t *testing.T) {
	run := func(s Script) string {
		film, err := Play(toyStage(toy.Flaws{}), s)
		require.NoError(t, err)
		_, rest, found := strings.Cut(string(film.AppendJSON(nil)), `],"run":"`)
		require.True(t, found)
		return rest[:16]
	}
	one := Script{Stage: "toy", Seed: 1, Steps: 200}
	same := one
	same.Servers = 5 // the default
	require.Equal(t, run(one), run(one))
	require.Equal(t, run(one), run(same))
	other := one
	other.Seed = 2
	require.NotEqual(t, run(one), run(other))
	deed := one
	deed.Deeds = []Deed{{At: 100, Do: Kill, Server: 2}}
	require.NotEqual(t, run(one), run(deed))
}

// The test in Go that a script becomes is written without go/format. A stage compiles
// and runs one in TestFilms/go.
func TestAGoTestIsFormatted(t *testing.T) {
	s := toyStage(toy.Flaws{})
	scripts := []Script{ask(), ask(Deed{At: 90, Do: LoseNext, From: 2, To: 1, Kind: "timeoutNow"}, Deed{At: 90, Do: LinkDelay, From: 2, To: 1, For: 1234567}), {Stage: "toy", Seed: 1, Story: "missed-message"}}
	for seed := range uint64(10) {
		scripts = append(scripts, Random("toy", seed))
	}
	for _, script := range scripts {
		text, err := GoTest(s, script)
		require.NoError(t, err)
		formatted, err := format.Source([]byte(text))
		require.NoError(t, err, "%s", text)
		require.Equal(t, string(formatted), text)
	}
	text, err := GoTest(s, scripts[1])
	require.NoError(t, err)
	for _, part := range []string{
		"\t\tStage: \"toy\", Seed: 3, Servers: 3, Steps: 600,\n",
		"\t\t\t// This one does not apply: n2 sends n1 no timeoutNow after it.\n\t\t\t{At: 90, Do: \"lose-next\", From: 2, To: 1, Kind: \"timeoutNow\"},\n",
		"{At: 50, Do: \"request\", Server: 1, Client: 1, Request: `" + put + "`},\n",
		"For: 1234567 * time.Nanosecond},\n",
		play(t, s, scripts[1]).Run(),
	} {
		require.Contains(t, text, part)
	}
	edited := ask()
	edited.Edits = []string{"without-a-rule"}
	_, err = GoTest(s, edited)
	require.ErrorContains(t, err, "a test plays the code of toy as it is")
}
