// Package scenario is the catalog of faults: named stories that the simulator
// plays against a stage, with the same code and the same seeds for all stages.
//
// A stage declares which stories it survives and which it does not. Test fails
// if the stage breaks in a story that it should survive. It also fails if the
// stage survives a story that it should not survive, or breaks in a different
// way than expected: the failure is the lesson, so it is tested too. Every
// failure prints the command that replays it.
package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
	"example.com/raftsteps/shared/lab/sim"
)

// Stage is a stage that the stories can be played against.
type Stage struct {
	// Name is the stage's folder, such as "02-naive-replication".
	Name string

	// Servers is the number of servers in the cluster; 0 means five. The
	// stories need five.
	Servers int

	// New makes a server, Ops is what it understands.
	New node.Factory
	Ops api.Ops

	// Route makes the decisions of the stage's client; nil if this client asks one
	// server once.
	Route node.RouteOf

	// Appointed is true if the operator appoints the leader: the configuration
	// names n1 as the first.
	Appointed bool

	// Compacts is true if the servers compact their logs, as the configuration
	// says.
	Compacts bool

	// Survives and Fails are the names of the stories that the stage survives,
	// and of those it does not. A story in neither does not apply.
	Survives []string
	Fails    []string

	// Edits are the changes to the stage's source that this program was built
	// with; none if it was built from the source as it is.
	Edits []string

	// Unchecked are the invariants that are not checked, such as "I10", because an
	// edit takes away the rule that they are about. So the consequence is seen.
	Unchecked []string
}

// Applies reports whether the stage declares a story.
func (s Stage) Applies(name string) bool {
	return slices.Contains(s.Survives, name) || slices.Contains(s.Fails, name)
}

// Linearizable reports whether the stage's reads are linearizable.
func (s Stage) Linearizable() bool { return slices.Contains(s.Survives, "stale-read") }

// Kind is how something broke.
type Kind string

// The kinds.
const (
	// ReplicasDiffer: servers hold different values under a key, forever.
	ReplicasDiffer Kind = "replicas differ"

	// LostWrite: a write that was acknowledged is gone.
	LostWrite Kind = "lost write"

	// Phantom: a read returned a write that no majority has accepted.
	Phantom Kind = "refused write is visible"

	// AppliedTwice: one operation of a client was applied twice.
	AppliedTwice Kind = "applied twice"

	// StaleRead: a read missed a write that was acknowledged before the read
	// began.
	StaleRead Kind = "stale read"

	// Unavailable: no server answers, though a majority is running and
	// connected.
	Unavailable Kind = "unavailable"

	// NotLinearizable: no order of the operations explains the answers.
	NotLinearizable Kind = "not linearizable"

	// Unsafe: a server did what it must never do: an invariant was violated, it
	// violated its contract, or it did not restart.
	Unsafe Kind = "unsafe"

	// Unbounded: a server's data grows with the number of writes.
	Unbounded Kind = "grows without end"

	// Replayed: a server had to receive every write again.
	Replayed Kind = "replays everything"

	// Disturbed: servers outside the majority deposed a working leader.
	Disturbed Kind = "disturbed"

	// Panicked: a server panicked.
	Panicked Kind = "panicked"

	// Missed: the run never reached its case, so it proves nothing.
	Missed Kind = "missed its case"
)

// Scenario is one story.
type Scenario struct {
	// Name is the name on the command line.
	Name string

	// Claim is the property of a stage that survives the story.
	Claim string

	// Needs says what a stage must have for the story to apply; "" if a leader
	// that accepts writes is enough.
	Needs string

	// Breaks has the kinds of failure of the stages that do not survive.
	Breaks []Kind

	// moves has the counters of the simulator that must not stay 0 in a run.
	moves []string

	// servers is the initial size of the cluster, spare the number of further
	// machines. 0 servers means as many as the stage has.
	servers, spare int

	// reads is true if reads must be linearizable, so that they are checked
	// too.
	reads bool

	// exhaustive is true if one run tries every possible step, so that few
	// seeds are enough.
	exhaustive bool

	// config, if not nil, changes the configuration. rng is used for nothing
	// else.
	config func(c *node.Config, rng *rand.Rand)

	script func(r *run)
}

// All returns the catalog, in the order of the lessons.
func All() []Scenario { return slices.Clone(catalog) }

// Find returns the story with that name. The error lists all names.
func Find(name string) (Scenario, error) {
	var names []string
	for _, s := range catalog {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scenario{}, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(names, ", "))
}

// Result is the result of one run.
type Result struct {
	// Stage, Scenario and Seed name the run.
	Stage    string `json:"stage"`
	Scenario string `json:"scenario"`
	Seed     uint64 `json:"seed"`

	// Survived is true if nothing broke.
	Survived bool `json:"survived"`

	// Kind is how it broke, "" if it did not.
	Kind Kind `json:"kind,omitempty"`

	// Why says in words what broke, such as "n3 holds x=1, the others x=2", or
	// that nothing did.
	Why string `json:"why"`

	// Virtual is how much virtual time has passed.
	Virtual time.Duration `json:"virtual_ns"`

	// Coverage counts what happened in the run.
	Coverage Coverage `json:"coverage"`
}

// Replay returns the command that repeats the run.
func (r Result) Replay() string {
	return fmt.Sprintf("go run ./%s scenario %s --seed %d", r.Stage, r.Scenario, r.Seed)
}

// Watch returns the command that shows the run in the browser.
func (r Result) Watch() string {
	return fmt.Sprintf("go run ./%s lab --story %s --seed %d", r.Stage, r.Scenario, r.Seed)
}

// String returns the result in one line.
func (r Result) String() string {
	if r.Survived {
		return fmt.Sprintf("%s: survived (seed %d)", r.Scenario, r.Seed)
	}
	return fmt.Sprintf("%s: %s (seed %d): %s", r.Scenario, r.Kind, r.Seed, r.Why)
}

// Coverage counts what happened in a run: a test that never reaches its case
// proves nothing.
type Coverage struct {
	sim.Counters
	check.InvariantCounters

	// Transfers is how often leadership was transferred on request.
	Transfers int `json:"transfers"`

	// Operations counts what clients did, by outcome.
	Operations check.Counts `json:"operations"`
}

// String lists what has moved.
func (c Coverage) String() string {
	text := c.Counters.String()
	if i := c.InvariantCounters; i.Looks > 0 {
		text += fmt.Sprintf("; leaders %d, committed %d, truncated %d, snapshots %d, installed %d, joint configurations %d",
			i.Leaders, i.Committed, i.Truncated, i.Snapshots, i.Installed, i.Joint)
		if i.Changes > 0 {
			text += fmt.Sprintf("; changes begun %d, done %d, cancelled %d, rolled back %d, learners that installed %d, leaders removed %d, transfers %d",
				i.Changes, i.Changed, i.Cancelled, i.RolledBack, i.LearnersInstalled, i.LeadersRemoved, c.Transfers)
		}
	}
	o := c.Operations
	return text + fmt.Sprintf("; operations done %d, refused %d, unknown %d", o.Happened, o.Refused, o.Unknown)
}

// Add adds what another run has shown.
func (c *Coverage) Add(o Coverage) {
	c.Counters.Add(o.Counters)
	c.InvariantCounters.Add(o.InvariantCounters)
	c.Transfers += o.Transfers
	c.Operations.Add(o.Operations)
}

// ErrNotApplicable is what Play returns for a story that the stage does not
// declare.
var ErrNotApplicable = errors.New("the scenario does not apply to the stage")

// Play plays one story against a stage. The same seed gives the same run. sink
// receives the events; nil discards them.
//
// An error means that nothing was played: there is no such story, it does not
// apply, or the cluster does not start.
func Play(s Stage, name string, seed uint64, sink trace.Sink) (Result, error) {
	story, err := Find(name)
	if err != nil {
		return Result{}, err
	}
	if !s.Applies(name) {
		return Result{}, fmt.Errorf("%s, %s: %w", s.Name, name, ErrNotApplicable)
	}
	return Direct(s, story.Name, seed, Direction{Sink: sink})
}

// Direction says how a story is played for somebody who watches it from inside.
type Direction struct {
	// Sink receives the events; nil discards them.
	Sink trace.Sink

	// Watchers are told about every step of every server, after the scenario's
	// own.
	Watchers []sim.Watcher

	// Judge ends the run at the first answer that contradicts the committed log.
	// Without it the story ends by itself, and the answers are judged then.
	Judge bool

	// Carrier creates what carries the lines between the servers; nil means that
	// the world does.
	Carrier func(w *sim.World) sim.Carrier

	// Before is called before each step of the world; nil means nothing.
	Before func(w *sim.World, step uint64)

	// Until, if not 0, ends the story before that step: the rest of its script is
	// not carried out and nothing is judged. Then goes on with the world as it is.
	// If the story is shorter, Then goes on after its end.
	Until uint64
	Then  func(w *sim.World)
}

// Direct is Play for somebody who watches from inside, and who may take over from
// the story.
func Direct(s Stage, name string, seed uint64, d Direction) (Result, error) {
	story, err := Find(name)
	if err != nil {
		return Result{}, err
	}
	r, err := newRun(s, story, seed, d)
	if err != nil {
		return Result{}, err
	}
	r.play()
	if d.Then != nil {
		d.Then(r.w)
	}
	return r.result(), nil
}

// taken is the value with which the world panics when a Direction ends the story.
type taken struct{}

func newRun(s Stage, story Scenario, seed uint64, d Direction) (*run, error) {
	sink := d.Sink
	r := &run{stage: s, story: story, seed: seed, invariants: check.NewInvariants(s.Unchecked...), wire: &tripwire{}, acknowledged: map[string]string{}}
	if sink != nil {
		r.logs.listened = true
		sink = trace.Tee(sink, r.remember)
	}
	disks := &durable{new: s.New}
	config := node.Config{}
	if s.Appointed {
		config.Leader = 1
	}
	if story.config != nil && s.Compacts {
		story.config(&config, rand.New(rand.NewPCG(seed, 6)))
	}
	servers, spare := story.crowd(s, seed)
	watchers := []sim.Watcher{r.invariants, disks, r.wire}
	if d.Judge {
		watchers = append(watchers, check.NewJudge(r.invariants, story.reads))
	}
	before := d.Before
	if d.Until > 0 {
		before = func(w *sim.World, step uint64) {
			if step == d.Until && !r.ended {
				r.ended = true
				panic(taken{})
			}
			if d.Before != nil {
				d.Before(w, step)
			}
		}
	}
	w, err := sim.New(sim.Options{
		Seed: seed, Servers: servers, Spare: spare, New: s.New, Ops: s.Ops, Route: s.Route, Config: config, Sink: sink, Before: before, Carrier: d.Carrier,
		Watchers: append(watchers, d.Watchers...),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	r.w, r.disks, disks.world = w, disks, w
	return r, nil
}

// crowd returns the initial number of servers in a run and the number of spare
// machines. Chaos draws both in stages with membership changes.
func (story Scenario) crowd(s Stage, seed uint64) (servers, spare int) {
	servers = cmp.Or(story.servers, s.Servers, 5)
	if story.Name == "chaos" && s.changes() {
		rng := rand.New(rand.NewPCG(seed, 7))
		return 1 + 2*rng.IntN(3), chaosSpares
	}
	return servers, story.spare
}

// play runs the story and sets the result.
func (r *run) play() {
	defer func() {
		p := recover()
		if _, stop := p.(taken); stop {
			return
		}
		if p != nil {
			r.kind, r.why = Panicked, fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
		r.ended = true
		r.verdict()
	}()
	r.say("%s: %s", r.story.Name, r.story.Claim)
	r.story.script(r)
	if err := r.w.Err(); err != nil {
		r.kind, r.why = kindOf(err), err.Error()
	}
	if stops := r.w.Stops(); len(stops) > 0 && !slices.Contains(r.story.moves, "stops") {
		// This may be the cause of any other failure.
		r.kind, r.why = Unsafe, fmt.Sprintf("a server ended itself, though its disk works: %v", stops[0])
	}
	r.checkLedger()
	counters := r.w.Counters()
	if still := counters.Zero(r.story.moves...); r.kind == "" && len(still) > 0 {
		r.breaks(Missed, "these counters stayed 0: %s", strings.Join(still, ", "))
	}
}

// checkLedger compares the clients' answers with the committed log.
func (r *run) checkLedger() {
	if r.over() || r.invariants.Counters().Looks == 0 {
		return
	}
	err := check.AgainstLog(r.w.History(), r.invariants.Committed(), r.story.reads)
	var v *check.Violation
	if !errors.As(err, &v) {
		return
	}
	r.breaks(kindOf(v), "%v", v)
}

// kindOf returns the kind of a failure that a checker has found.
func kindOf(err error) Kind {
	var v *check.Violation
	if errors.As(err, &v) {
		switch v.Invariant {
		case "I22":
			return AppliedTwice
		case "I23":
			return StaleRead
		}
	}
	return Unsafe
}

func (r *run) verdict() {
	r.tellLogs()
	e := trace.Event{Kind: trace.Verdict, Text: "survived: " + r.story.Claim}
	if r.kind != "" {
		e.Text = string(r.kind)
		e.Reason = &trace.Reason{Code: strings.ReplaceAll(string(r.kind), " ", "-"), Text: r.why}
	}
	r.w.Emit(e)
}

func (r *run) result() Result {
	result := Result{
		Stage: r.stage.Name, Scenario: r.story.Name, Seed: r.seed,
		Survived: r.kind == "", Kind: r.kind, Why: r.why, Virtual: r.w.Now(),
		Coverage: Coverage{r.w.Counters(), r.invariants.Counters(), r.transfers, r.w.History().Counts()},
	}
	if result.Survived {
		result.Why = r.story.Claim
	}
	return result
}
