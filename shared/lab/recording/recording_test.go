package recording

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/film"
)

const wall = int64(1_700_000_000_000_000_000)

// world makes traces of servers whose clocks differ.
type world struct {
	rng    *rand.Rand
	now    time.Duration
	traces []bytes.Buffer
	skew   []time.Duration
	rounds []uint64

	// wires are the messages on their way on each link, in order.
	wires map[[2]int][]string

	// delivered is how often each message was.
	delivered int
}

func newWorld(seed uint64, servers int, skew time.Duration) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), traces: make([]bytes.Buffer, servers), skew: make([]time.Duration, servers), rounds: make([]uint64, servers), wires: make(map[[2]int][]string)}
	for i := range servers {
		if skew > 0 {
			w.skew[i] = time.Duration(w.rng.Int64N(int64(skew)))
		}
		w.begin(i, "c")
		w.write(i, trace.Event{Kind: trace.Start})
	}
	return w
}

func (w *world) begin(i int, cluster string) {
	e := trace.Event{Node: uint64(i + 1), Kind: trace.Begin, Origin: &trace.Origin{Stage: "05-election", Cluster: cluster, Began: wall}}
	e.Origin.Began += int64(w.skew[i] + w.now)
	w.traces[i].Write(append(e.AppendJSON(nil), '\n'))
}

func (w *world) write(i int, e trace.Event) {
	e.Node, e.At, e.Step = uint64(i+1), w.now, w.rounds[i]
	w.traces[i].Write(append(e.AppendJSON(nil), '\n'))
}

// round lets a server receive, then send: contents repeat, and messages are lost.
func (w *world) round(i int) {
	w.rounds[i]++
	for from := range w.traces {
		key := [2]int{from, i}
		for len(w.wires[key]) > 0 && w.rng.IntN(2) == 0 {
			m := w.wires[key][0]
			w.wires[key] = w.wires[key][1:]
			if w.rng.IntN(10) == 0 {
				continue // lost
			}
			w.now += 10
			w.write(i, trace.Event{Kind: trace.Deliver, From: uint64(from + 1), To: uint64(i + 1), Message: m})
			w.delivered++
		}
	}
	for to := range w.traces {
		if to != i && w.rng.IntN(3) == 0 {
			w.now += 10
			m := fmt.Sprintf(`{"n":%d}`, w.rng.IntN(3))
			w.write(i, trace.Event{Kind: trace.Send, From: uint64(i + 1), To: uint64(to + 1), Message: m})
			w.wires[[2]int{i, to}] = append(w.wires[[2]int{i, to}], m)
		}
	}
	w.now += time.Duration(w.rng.IntN(1000)) * time.Microsecond
}

// record reads traces in pieces.
func record(t *testing.T, r *Recording, rng *rand.Rand, traces ...[]byte) {
	t.Helper()
	for i, text := range traces {
		require.Equal(t, i, r.Trace(fmt.Sprintf("t.n%d", i+1)))
		_ = text
	}
	for left := true; left; {
		left = false
		for i := range traces {
			n := min(len(traces[i]), 1+rng.IntN(4000))
			require.NoError(t, r.Add(i, traces[i][:n]))
			if traces[i] = traces[i][n:]; len(traces[i]) > 0 {
				left = true
			}
		}
		r.Merge()
	}
	for i := range traces {
		require.NoError(t, r.End(i))
	}
	r.Merge()
}

// No message arrives before it is sent, every delivery finds its send, and what a
// server does stays in its order: whatever the clocks say.
func TestCausality(t *testing.T) {
	for seed := range uint64(60) {
		skew := []time.Duration{0, 5 * time.Millisecond, time.Hour}[seed%3]
		w := newWorld(seed, 2+int(seed%4), skew)
		for range 300 {
			w.round(w.rng.IntN(len(w.traces)))
		}
		var texts [][]byte
		for i := range w.traces {
			texts = append(texts, w.traces[i].Bytes())
		}
		r := New("05-election")
		record(t, r, w.rng, texts...)
		f, _, _ := r.Film(0)
		type message struct{ from, to, number uint64 }
		sent := make(map[message]string)
		delivered, step, at := 0, uint64(0), time.Duration(0)
		for _, e := range f.Events {
			require.GreaterOrEqual(t, e.At, at, "seed %d: time goes backwards", seed)
			require.GreaterOrEqual(t, e.Step, step)
			at, step = e.At, e.Step
			m := message{e.From, e.To, e.Number}
			switch e.Kind {
			case trace.Send:
				sent[m] = e.Message
			case trace.Deliver:
				require.Equal(t, e.Message, sent[m], "seed %d: message %d from n%d to n%d arrives before it is sent", seed, e.Number, e.From, e.To)
				sent[m] = "" // nothing arrives twice
				delivered++
			}
		}
		require.Equal(t, w.delivered, delivered)
		if skew > time.Minute {
			require.Less(t, f.Length, time.Minute, "seed %d: the clocks are put right", seed)
		}
	}
}

// lines joins events to a trace of n1.
func lines(events ...trace.Event) []byte {
	b := append(trace.Event{Node: 1, Kind: trace.Begin, Origin: &trace.Origin{Stage: "05-election", Cluster: "c", Began: wall}}.AppendJSON(nil), '\n')
	for _, e := range events {
		e.Node = 1
		b = append(e.AppendJSON(b), '\n')
	}
	return b
}

// The last line of a process that was killed may be torn, and what is torn is left
// out; anywhere else it is an error that names the line.
func TestTornAndBadLines(t *testing.T) {
	start := lines(trace.Event{Kind: trace.Start})
	for name, c := range map[string]struct {
		text  string
		error string
	}{
		"torn at the end":         {string(start) + `{"at":5,"node":1,"ki`, ""},
		"torn at a restart":       {string(start) + `{"at":5,"node":1,"ki` + "\n" + string(start), ""},
		"bad in the middle":       {string(start) + "{}\n" + `{"at":9,"node":1,"kind":"save"}` + "\n" + string(start), `t.n1:3: field "kind" is missing`},
		"not a trace":             {"hello\n", "t.n1:1: this is no trace of a server"},
		"empty":                   {"", "t.n1: it has no line that is complete"},
		"no beginning":            {`{"at":5,"node":1,"kind":"start"}` + "\n", "it does not begin with an event of the kind begin"},
		"another stage":           {`{"at":5,"node":1,"kind":"begin","origin":{"stage":"06-compaction","cluster":"c","began":1}}` + "\n", "go run ./06-compaction lab"},
		"another cluster":         {string(start) + `{"at":5,"node":1,"kind":"begin","origin":{"stage":"05-election","cluster":"d","began":1}}` + "\n", `t.n1:3: a trace of cluster "d" begins here, and what was read before is of cluster "c"`},
		"another server":          {string(start) + `{"at":5,"node":2,"kind":"begin","origin":{"stage":"05-election","cluster":"c","began":1}}` + "\n", "t.n1:3: from here on it is a trace of another server, n2"},
		"an event of another":     {string(start) + `{"at":5,"node":2,"kind":"save"}` + "\n" + `{"at":5,"node":1,"kind":"save"}` + "\n", "t.n1:3: an event of n2 in the trace of n1"},
		"time goes backwards":     {string(lines(trace.Event{At: 5, Kind: trace.Start}, trace.Event{At: 4, Kind: trace.Save}, trace.Event{At: 6, Kind: trace.Save})), "t.n1:3: the time 4ns comes after 5ns"},
		"a state that is none":    {string(lines(trace.Event{Kind: trace.State, State: `{"term":"x"}`}, trace.Event{Kind: trace.Save})), "t.n1:2: a state: "},
		"entries that are none":   {string(lines(trace.Event{Kind: trace.State, State: `{"log":{"from":1,"entries":[7]}}`}, trace.Event{Kind: trace.Save})), "t.n1:2: a state: "},
		"a line that is too long": {string(start) + string(bytes.Repeat([]byte("x"), trace.MaxLine+1)), "t.n1:3: the line is longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			r := New("05-election")
			r.Trace("t.n1")
			err := r.Add(0, []byte(c.text))
			if err == nil {
				err = r.End(0)
			}
			if c.error != "" {
				require.ErrorContains(t, err, c.error)
				return
			}
			require.NoError(t, err)
			r.Merge()
			f, _, _ := r.Film(0)
			require.Equal(t, trace.Start, f.Events[0].Kind)
		})
	}
}

func TestASecondTraceOfAServerIsRefused(t *testing.T) {
	r := New("05-election")
	r.Trace("a")
	r.Trace("b")
	require.NoError(t, r.Add(0, lines()))
	require.EqualError(t, r.Add(1, lines()), "a and b are traces of the same server; open one of them")
}

// kinds returns the kinds of the events of a film, with the servers.
func kinds(f *film.Film) (all []string) {
	for _, e := range f.Events {
		all = append(all, fmt.Sprintf("%s %d", e.Kind, e.Node))
	}
	return all
}

// A process that was killed says nothing about it: the trace of the processes does,
// or the next process of the server.
func TestCrashes(t *testing.T) {
	first := lines(trace.Event{At: 5, Kind: trace.Start}, trace.Event{At: 9, Step: 1, Kind: trace.Save})
	second := bytes.ReplaceAll(lines(trace.Event{At: 5, Kind: trace.Start}), fmt.Append(nil, wall), fmt.Append(nil, wall+1000))
	both := append(bytes.Clone(first), second...)
	r := New("05-election")
	record(t, r, rand.New(rand.NewPCG(1, 1)), bytes.Clone(both))
	f, _, _ := r.Film(0)
	require.Equal(t, []string{"start 1", "save 1", "crash 1", "start 1"}, kinds(f))

	processes := []byte(fmt.Sprintf(`{"at":0,"kind":"begin","origin":{"stage":"05-election","cluster":"c","began":%d}}
{"at":7,"node":1,"kind":"pause"}
{"at":8,"node":1,"kind":"resume"}
{"at":500,"node":1,"kind":"crash","text":"its process was killed"}
`, wall))
	r = New("05-election")
	record(t, r, rand.New(rand.NewPCG(1, 1)), both, processes)
	f, _, _ = r.Film(0)
	require.Equal(t, []string{"start 1", "pause 1", "resume 1", "save 1", "crash 1", "start 1"}, kinds(f))
	require.Equal(t, "its process was killed", f.Events[4].Text)
	require.JSONEq(t, `{"step":5,"server":1,"up":false}`, string(f.Frames[3].JSON))
}

// A process that was killed has lost the end of its trace. What it had sent is not
// taken for what the next process sends, even if it is the same.
func TestALostSend(t *testing.T) {
	message := trace.Event{Kind: trace.Send, From: 1, To: 2, Message: "m"}
	first := lines(trace.Event{Kind: trace.Start})
	message.At, message.Step = time.Millisecond, 1
	second := bytes.ReplaceAll(lines(trace.Event{Kind: trace.Start}, message), fmt.Append(nil, wall), fmt.Append(nil, wall+int64(time.Second)))
	receiver := fmt.Appendf(nil, `{"at":0,"node":2,"kind":"begin","origin":{"stage":"05-election","cluster":"c","began":%d}}
{"at":0,"node":2,"kind":"start"}
{"at":500000000,"step":1,"node":2,"kind":"deliver","from":1,"to":2,"message":"m"}
{"at":1500000000,"step":2,"node":2,"kind":"deliver","from":1,"to":2,"message":"m"}
`, wall)
	r := New("05-election")
	record(t, r, rand.New(rand.NewPCG(1, 1)), append(first, second...), receiver)
	f, _, _ := r.Film(0)
	require.Equal(t, []string{"start 1", "start 2", "deliver 2", "crash 1", "start 1", "send 1", "deliver 2"}, kinds(f))
	require.Equal(t, []uint64{0, 1, 1}, []uint64{f.Events[2].Number, f.Events[5].Number, f.Events[6].Number})
}

// A long recording loses its quiet steps first, and then its beginning. The servers
// are still as they were.
func TestLongRecordings(t *testing.T) {
	r := New("05-election")
	r.Most = 100_000
	r.Trace("t.n1")
	require.NoError(t, r.Add(0, lines(trace.Event{Kind: trace.Start})))
	for i := range 3000 {
		at := time.Duration(i) * time.Millisecond
		b := trace.Event{At: at, Step: uint64(2*i + 1), Node: 1, Kind: trace.Save}.AppendJSON(nil)
		b = append(b, '\n')
		if i%10 == 0 {
			n := i/10 + 1
			b = trace.Event{At: at, Step: uint64(2*i + 2), Node: 1, Kind: trace.State, State: trace.Raw(fmt.Sprintf(`{"role":"leader","term":%d,"log":{"from":%d,"entries":[[%d,"e%d"]]}}`, n, n, n, n))}.AppendJSON(b)
			b = append(b, '\n')
		}
		require.NoError(t, r.Add(0, b))
		r.Pause(time.Unix(0, wall+int64(at)+1))
		require.LessOrEqual(t, r.bytes, r.Most)
	}
	f, last, whole := r.Film(0)
	require.True(t, whole)
	require.Equal(t, last, f.Steps)
	require.Regexp(t, `^The recording is long, so these are left out: the first [0-9.]+m?s \(\d+ steps\), and \d+ steps with heartbeats that changed nothing\.$`, r.LeftOut())
	require.Equal(t, r.LeftOut(), f.Events[0].Text)
	require.Equal(t, "leader", f.Events[1].Role, "who led before is said again")
	var s server
	for _, x := range f.Frames {
		var d struct {
			Up *bool
			state
		}
		require.NoError(t, json.Unmarshal(x.JSON, &d))
		s.apply(change{up: d.Up, state: d.state})
	}
	require.Equal(t, uint64(300), *s.state.Term)
	require.Len(t, s.entries, 300, "the entries of before are in the first frame")
	require.Equal(t, entry{7, "e7"}, s.entries[6])

	// What comes after a step has no opening, unless the step is no longer kept.
	_, _, whole = r.Film(last - 1)
	require.False(t, whole)
	_, _, whole = r.Film(1)
	require.True(t, whole)
}

// Requests that are open at once have different clients, and an answer goes to the
// client that asked.
func TestClients(t *testing.T) {
	ask := func(id int) trace.Event {
		return trace.Event{Kind: trace.Request, Message: fmt.Sprintf(`{"id":%d,"op":"get"}`, id)}
	}
	answer := func(id int) trace.Event {
		return trace.Event{Kind: trace.Reply, Message: fmt.Sprintf(`{"id":%d,"ok":true}`, id)}
	}
	r := New("05-election")
	record(t, r, rand.New(rand.NewPCG(1, 1)), lines(trace.Event{Kind: trace.Start}, ask(7), ask(8), answer(8), ask(9), answer(7), answer(9), answer(1)))
	f, _, _ := r.Film(0)
	var got []string
	for _, e := range f.Events {
		if e.Kind == trace.Invoke || e.Kind == trace.Return {
			got = append(got, fmt.Sprintf("%s %d %s", e.Kind, e.Client, requestID(e.Message)))
		}
	}
	require.Equal(t, []string{"invoke 1 7", "invoke 2 8", "return 2 8", "invoke 2 9", "return 1 7", "return 2 9"}, got)
}
