// Package film plays scripts. A script says which cluster to run, under which
// seed, and what somebody does to it at which step; a film is all that follows:
// every event, and the state of every server after each event that changed it.
//
// A film is a function of its script: the same script gives the same film, so
// nothing else has to be stored. Rewinding is looking at an earlier frame. Going
// another way from a moment is cutting the script there, adding a deed and playing
// again.
//
// The package has no files, sockets or clocks. Scripts may come from anyone: they
// are read strictly, and bounded in steps, time, servers and size.
package film

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/sim"
)

// Film is a played script.
type Film struct {
	// Script is what was played.
	Script Script

	// Events are what happened, in order.
	Events []trace.Event

	// Frames are the states of the servers, in the order of their steps. A frame
	// says what differs from the frame before it of the same server.
	Frames []Frame

	// Outcomes are what became of the deeds, in the order of the script.
	Outcomes []Outcome

	// Standing are the deeds that would have ended something that the story goes on
	// doing by itself, at the moment when the first deed took over from it.
	Standing []string

	// Steps is how many steps were played, and Length how much virtual time they
	// took.
	Steps  uint64
	Length time.Duration

	// Verdict is what was violated, in words; "" if nothing was. The film ends
	// there.
	Verdict string

	// Limit is which limit of the script or of this package ended the film, in
	// words; "" if none did.
	Limit string
}

// Outcome is what became of a deed.
type Outcome struct {
	// Applied is true if the deed happened; Step is before which step.
	Applied bool
	Step    uint64

	// Why says why it did not happen: there was no such message, the server was
	// down already, or the film ended earlier.
	Why string
}

// Limits of a film. A script that wants more gets less, and the film says so.
const (
	// MaxSteps and MaxTime bound what is played.
	MaxSteps = 200_000
	MaxTime  = 10 * time.Minute

	// MaxBytes bounds the events and the frames together, roughly in memory.
	MaxBytes = 64 << 20
)

// defaultSteps is the length of a film whose script names none.
const defaultSteps = 20_000

// Play plays a script against its stage. The error is about the script, or about a
// cluster that does not start; what goes wrong in the film is in its Verdict.
func Play(stage scenario.Stage, s Script) (*Film, error) {
	p, err := project(stage, s)
	if err != nil {
		return nil, err
	}
	return p.film, nil
}

// project plays a script, and returns the projector with the world as it ends.
func project(stage scenario.Stage, s Script) (*projector, error) {
	if err := s.Check(stage); err != nil {
		return nil, err
	}
	p, err := playUntil(stage, s, cmp.Or(s.Steps, defaultSteps))
	if err == nil && p.broke > 0 && p.broke < p.film.Steps {
		// What was wrong is known only at the end; the film ends with that answer.
		if p, err = playUntil(stage, s, p.broke); err == nil {
			p.film.Limit = ""
		}
	}
	return p, err
}

// playUntil plays a script up to a step.
func playUntil(stage scenario.Stage, s Script, steps uint64) (*projector, error) {
	p := &projector{stage: stage, steps: steps, film: &Film{Script: s, Outcomes: make([]Outcome, len(s.Deeds))}}
	p.recorder = newRecorder(p.film)
	if err := p.play(); err != nil {
		return nil, err
	}
	p.end()
	return p, nil
}

// caught notes what a server panicked with: the film ends there.
func (p *projector) caught() {
	if v := recover(); v != nil {
		p.verdict = fmt.Sprintf("%s%v", panicked, v)
	}
}

// panicked is how a verdict about a panic begins.
const panicked = "a server panicked: "

// projector plays one script.
type projector struct {
	stage    scenario.Stage
	film     *Film
	recorder *recorder

	// steps is how many steps are played at most, next the first deed that has
	// not been tried.
	steps uint64
	next  int

	// invariants judge free play; a story brings its own.
	invariants *check.Invariants
	world      *sim.World
	verdict    string

	// awaited are the deeds that wait for a message that was not sent yet.
	awaited []int

	// broke is the step of the answer that the verdict is about, if it is known.
	broke uint64
}

func (p *projector) play() error {
	defer p.caught()
	if p.film.Script.Story != "" {
		return p.playStory()
	}
	p.invariants = check.NewInvariants(p.stage.Unchecked...)
	config := node.Config{}
	if p.stage.Appointed {
		config.Leader = 1
	}
	w, err := sim.New(sim.Options{
		Seed: p.film.Script.Seed, Servers: p.film.Script.servers(), Spare: p.film.Script.Spare,
		New: p.stage.New, Ops: p.stage.Ops, Route: p.stage.Route, Config: config,
		Sink: p.recorder.event, Before: p.before, Watchers: []sim.Watcher{p.invariants, check.NewJudge(p.invariants, p.stage.Linearizable()), p.recorder},
	})
	if err != nil {
		return fmt.Errorf("the cluster of %s does not start: %w", p.stage.Name, err)
	}
	p.run(w)
	return nil
}

// playStory plays a story up to the first deed; from there on the script decides.
// A story is straight code, so it cannot go on with what somebody else has done in
// the middle of it.
func (p *projector) playStory() error {
	d := scenario.Direction{Sink: p.recorder.event, Judge: true, Before: p.before, Watchers: []sim.Watcher{p.recorder}, Until: p.steps + 1}
	deeds := p.film.Script.Deeds
	if len(deeds) > 0 {
		d.Until = min(d.Until, deeds[0].At)
	}
	d.Then = func(w *sim.World) {
		p.world = w
		if len(deeds) > 0 {
			p.film.Standing = standing(w)
		}
		if len(deeds) > 0 || w.Steps() >= p.steps {
			p.run(w)
		}
	}
	result, err := scenario.Direct(p.stage, p.film.Script.Story, p.film.Script.Seed, d)
	if err != nil {
		return err
	}
	if result.Kind != "" {
		why, _, _ := strings.Cut(result.Why, "\n") // a stack follows a panic
		p.verdict = fmt.Sprintf("%s: %s", result.Kind, why)
	}
	p.film.Length = result.Virtual
	return nil
}

// run plays on until the film is full.
func (p *projector) run(w *sim.World) {
	p.world = w
	limit := MaxTime
	if t := p.film.Script.Time; t > 0 {
		limit = min(limit, t)
	}
	for w.Steps() < p.steps && !p.recorder.full {
		at, more := w.Next()
		if !more {
			break
		}
		if at > limit {
			p.limited(fmt.Sprintf("it is %v long", limit))
			break
		}
		if !w.Step() {
			break
		}
	}
	if w.Steps() >= p.steps {
		p.limited(fmt.Sprintf("it has %d steps", p.steps))
	}
	if err := w.Err(); err != nil {
		p.verdict = err.Error()
	} else if p.invariants != nil {
		p.judge(w)
	}
	p.film.Length = w.Now()
}

// searchTime is how long judge searches for an order of the operations. It is far
// more than a history without hundreds of operations of unknown outcome needs.
const searchTime = time.Second

// judge looks for an order of the operations that explains all answers, in a stage
// without a log: a log is the order, and check.Judge has compared each answer with
// it. If the search runs out of time, nothing is said.
func (p *projector) judge(w *sim.World) {
	if p.invariants.Counters().Looks > 0 {
		return
	}
	var broken *check.NotLinearizable
	if !errors.As(check.Linearizable(w.History(), searchTime), &broken) || broken.Undecided || broken.Culprit < 0 {
		return
	}
	p.verdict = broken.Error()
	o := broken.Operations[broken.Culprit]
	i := slices.IndexFunc(p.film.Events, func(e trace.Event) bool {
		return e.Kind == trace.Return && e.Client == o.Client && e.At == o.Return
	})
	if i >= 0 {
		p.broke = p.film.Events[i].Step
	}
}

// limited notes which limit has ended the film; the first one counts.
func (p *projector) limited(why string) { p.film.Limit = cmp.Or(p.film.Limit, why) }

// end completes the film.
func (p *projector) end() {
	f := p.film
	if p.recorder.full {
		p.limited(fmt.Sprintf("it holds %d bytes", MaxBytes))
	}
	f.Steps, f.Verdict = p.recorder.step, p.verdict
	if p.world != nil {
		f.Steps = p.world.Steps()
	}
	p.stillAwaited()
	for i := p.next; i < len(f.Outcomes); i++ {
		f.Outcomes[i].Why = "the film ends before it"
	}
}

// before carries out the deeds whose step comes next.
func (p *projector) before(w *sim.World, step uint64) {
	p.recorder.step, p.recorder.world = step, w
	for deeds := p.film.Script.Deeds; p.next < len(deeds) && deeds[p.next].At <= step && w.Err() == nil; p.next++ {
		out := Outcome{Step: step}
		if out.Why = p.do(w, deeds[p.next]); out.Why == "" {
			out.Applied = true
		}
		p.film.Outcomes[p.next] = out
	}
}

// AppendJSON appends the film as one JSON object, on one line. What it has said
// already is left out: the time and the step of an event that are those of the event
// before it, and the text of a message, a request, an answer or a command that is
// the last one in the same place.
//
// The field run is a hash of all that happened. A link carries it, so a page can
// tell whether other code has played another run from the same script.
func (f *Film) AppendJSON(b []byte) []byte {
	b = slices.Grow(b, f.size())
	b = append(b, `{"script":`...)
	b = f.Script.AppendJSON(b)
	start := len(b)
	b = f.appendRun(b)
	run := hashRun(b[start:])
	b = append(b, `],"run":"`...)
	b = append(append(b, run...), `","frames":[`...)
	for _, frame := range f.Frames {
		b = append(strict.AppendComma(b), frame.JSON...)
	}
	return append(b, `]}`...)
}

// Run returns a hash of all that happened in the film, as hexadecimal digits. It
// depends on the script only through what the script caused.
func (f *Film) Run() string {
	b := append(make([]byte, 0, f.size()), '{', '}') // the fields follow those of another object
	return hashRun(f.appendRun(b)[2:])
}

func hashRun(text []byte) string {
	run := fnv.New64a()
	_, _ = run.Write(text)
	return fmt.Sprintf("%016x", run.Sum64())
}

// appendRun appends the fields that say what happened, up to the last event.
func (f *Film) appendRun(b []byte) []byte {
	b = strict.AppendNumber(b, "steps", f.Steps)
	b = strict.AppendNumber(b, "length", uint64(f.Length))
	b = strict.AppendText(b, "verdict", f.Verdict)
	b = strict.AppendText(b, "limit", f.Limit)
	b = append(b, `,"deeds":[`...)
	for _, o := range f.Outcomes {
		b = fmt.Appendf(strict.AppendComma(b), `{"applied":%t`, o.Applied)
		b = strict.AppendNumber(b, "step", o.Step)
		b = strict.AppendText(b, "why", o.Why)
		b = append(b, '}')
	}
	b = append(b, ']')
	if len(f.Standing) > 0 {
		b = strict.AppendArray(b, "standing", f.Standing, strict.AppendString[string])
	}
	b = append(b, `,"events":[`...)
	texts := make(map[place]string)
	for i, e := range f.Events {
		text, p := e.Message, placeOf(e)
		switch {
		case text == "" || p == (place{}):
		case text == texts[p]:
			e.Message = ""
		default:
			texts[p] = text
		}
		if e.Kind == trace.Send && e.Number != 0 {
			texts[place{trace.Deliver, e.From, e.To, e.Number}] = text
		}
		b = strict.AppendComma(b)
		if i > 0 && e.Step == f.Events[i-1].Step && e.At == f.Events[i-1].At {
			b = append(e.AppendFields(append(b, '{')), '}')
		} else {
			b = e.AppendJSON(b)
		}
	}
	return b
}

// place is where an event may have the same text as one before it.
type place struct {
	kind             trace.Kind
	from, to, number uint64
}

// placeOf returns the place of an event, or none; film.js does the same.
func placeOf(e trace.Event) place {
	switch e.Kind {
	case trace.Send: // one server often sends the same to many
		return place{kind: trace.Send, from: e.From}
	case trace.Deliver, trace.Drop:
		if e.Number != 0 {
			return place{trace.Deliver, e.From, e.To, e.Number}
		}
	case trace.Invoke, trace.Request:
		return place{kind: trace.Request, from: e.Client}
	case trace.Reply, trace.Return:
		return place{kind: trace.Reply, from: e.Client}
	case trace.Apply:
		if e.Index != 0 {
			return place{kind: trace.Apply, number: e.Index}
		}
	}
	return place{}
}

// size is roughly how many bytes of JSON the film takes.
func (f *Film) size() int {
	n := 1000
	for i := range f.Events {
		n += 120 + len(f.Events[i].Message)*9/8 + len(f.Events[i].Text)
	}
	for _, frame := range f.Frames {
		n += len(frame.JSON) + 1
	}
	return n
}
