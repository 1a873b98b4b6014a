// Package scenario is the catalogue of what may go wrong: named stories that
// the simulator plays against a stage, the same code and the same seeds for
// all stages.
//
// A stage declares which stories it survives and which it does not. Test fails
// if a declared survivor breaks, and if a declared casualty survives or breaks
// in another way than the story tells: the failure is the lesson, so it is
// tested like one. Every failure prints the command that replays it.
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

// Stage is what can be put through the stories.
type Stage struct {
	// Name is the stage's folder, such as "02-naive-replication".
	Name string

	// Servers is how many servers the cluster has; five if it is 0. The stories
	// need five.
	Servers int

	// New makes a server, Ops is what it understands.
	New node.Factory
	Ops api.Ops

	// Appointed is true if a person appoints the leader: the configuration
	// names n1 as the first.
	Appointed bool

	// Compacts is true if the servers compact their log, as the configuration
	// bids them.
	Compacts bool

	// Survives and Fails are the names of the stories that the stage survives,
	// and of those it does not. A story in neither does not apply.
	Survives []string
	Fails    []string
}

// Kind is how something broke.
type Kind string

// The kinds.
const (
	// ReplicasDiffer: servers hold different values under a key, forever.
	ReplicasDiffer Kind = "replicas differ"

	// LostWrite: a write that was acknowledged is gone.
	LostWrite Kind = "lost write"

	// Phantom: a write shows that no majority has accepted.
	Phantom Kind = "refused write shows"

	// AppliedTwice: one operation of a client was done twice.
	AppliedTwice Kind = "applied twice"

	// StaleRead: a read missed what was acknowledged before it began.
	StaleRead Kind = "stale read"

	// Unavailable: nobody answers, though a majority runs and is connected.
	Unavailable Kind = "unavailable"

	// NotLinearizable: no order of the operations explains the answers.
	NotLinearizable Kind = "not linearizable"

	// Unsafe: a server did what it must never do: an invariant broke, it broke
	// its contract, or it did not start again.
	Unsafe Kind = "unsafe"

	// Unbounded: what a server keeps grows with all that was ever written.
	Unbounded Kind = "grows without end"

	// Replayed: a server had to be told again all that was ever written.
	Replayed Kind = "replays all of it"

	// Disturbed: servers that should not count deposed a leader that did its work.
	Disturbed Kind = "disturbed"

	// Panicked: a server panicked.
	Panicked Kind = "panicked"

	// Missed: the run never reached its case, so it proves nothing.
	Missed Kind = "missed its case"
)

// Scenario is one story.
type Scenario struct {
	// Name is what people type.
	Name string

	// Claim is what a stage that survives it can say of itself.
	Claim string

	// Needs says what a stage must have for the story to mean anything; "" if
	// a leader that takes writes is enough.
	Needs string

	// Breaks are the kinds in which a stage that does not survive may break.
	Breaks []Kind

	// moves are the counters of the simulator that must move in a run.
	moves []string

	// servers and spare are how many servers the cluster has at first, and how
	// many machines there are besides; 0 servers means as many as the stage has.
	servers, spare int

	// reads says that reads must be linearizable, so that they are judged too.
	reads bool

	// exhaustive says that one run tries every place that there is, so that few
	// seeds will do.
	exhaustive bool

	// config prepares the configuration, if it matters to the story. rng is for
	// this alone.
	config func(c *node.Config, rng *rand.Rand)

	script func(r *run)
}

// All returns the catalogue, in the order of the lessons.
func All() []Scenario { return slices.Clone(catalogue) }

// Find returns the story of that name. The error lists those there are.
func Find(name string) (Scenario, error) {
	var names []string
	for _, s := range catalogue {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scenario{}, fmt.Errorf("there is no scenario %q; there are %s", name, strings.Join(names, ", "))
}

// Result is how a stage fared in one run.
type Result struct {
	// Stage, Scenario and Seed name the run.
	Stage    string `json:"stage"`
	Scenario string `json:"scenario"`
	Seed     uint64 `json:"seed"`

	// Survived says whether all went well.
	Survived bool `json:"survived"`

	// Kind is how it broke, "" if it did not.
	Kind Kind `json:"kind,omitempty"`

	// Why says in words what broke, such as "n3 holds x=1, the others x=2", or
	// that nothing did.
	Why string `json:"why"`

	// Virtual is how much virtual time has passed.
	Virtual time.Duration `json:"virtual_ns"`

	// Coverage says what the run has shown.
	Coverage Coverage `json:"coverage"`
}

// Replay is the command that plays the run again.
func (r Result) Replay() string {
	return fmt.Sprintf("go run ./%s scenario %s --seed %d", r.Stage, r.Scenario, r.Seed)
}

// String is one line about the result.
func (r Result) String() string {
	if r.Survived {
		return fmt.Sprintf("%s: survived (seed %d)", r.Scenario, r.Seed)
	}
	return fmt.Sprintf("%s: %s (seed %d): %s", r.Scenario, r.Kind, r.Seed, r.Why)
}

// Coverage is what a run has shown: a test that never reaches its case proves
// nothing.
type Coverage struct {
	sim.Counters
	check.InvariantCounters

	// Transfers is how often leadership was transferred when somebody asked for it.
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
// name: it has no parts for it.
var ErrNotApplicable = errors.New("the scenario does not apply to the stage")

// Play plays one story against a stage. The same seed gives the same run. sink
// takes its events; nil for silence.
//
// The error says that nothing was played: no such story, one that does not
// apply, or a cluster that does not start.
func Play(s Stage, name string, seed uint64, sink trace.Sink) (Result, error) {
	story, err := Find(name)
	if err != nil {
		return Result{}, err
	}
	if !slices.Contains(s.Survives, name) && !slices.Contains(s.Fails, name) {
		return Result{}, fmt.Errorf("%s, %s: %w", s.Name, name, ErrNotApplicable)
	}
	r, err := newRun(s, story, seed, sink)
	if err != nil {
		return Result{}, err
	}
	r.play()
	return r.result(), nil
}

func newRun(s Stage, story Scenario, seed uint64, sink trace.Sink) (*run, error) {
	r := &run{stage: s, story: story, seed: seed, invariants: check.NewInvariants(), wire: &tripwire{}, acknowledged: map[string]string{}}
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
	w, err := sim.New(sim.Options{
		Seed: seed, Servers: servers, Spare: spare, New: s.New, Ops: s.Ops, Config: config, Sink: sink,
		Watchers: []sim.Watcher{r.invariants, disks, r.wire},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	r.w, r.disks, disks.world = w, disks, w
	return r, nil
}

// crowd is how many servers there are at first in a run, and how many machines
// besides. Chaos draws it where the members can change.
func (story Scenario) crowd(s Stage, seed uint64) (servers, spare int) {
	servers = cmp.Or(story.servers, s.Servers, 5)
	if story.Name == "chaos" && s.changes() {
		rng := rand.New(rand.NewPCG(seed, 7))
		return 1 + 2*rng.IntN(3), chaosSpares
	}
	return servers, story.spare
}

// play tells the story and gives the verdict.
func (r *run) play() {
	defer func() {
		if p := recover(); p != nil {
			r.kind, r.why = Panicked, fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
		r.verdict()
	}()
	r.say("%s: %s", r.story.Name, r.story.Claim)
	r.story.script(r)
	if err := r.w.Err(); err != nil {
		r.kind, r.why = Unsafe, err.Error()
	}
	if stops := r.w.Stops(); len(stops) > 0 && !slices.Contains(r.story.moves, "stops") {
		// Whatever else broke, this may be why.
		r.kind, r.why = Unsafe, fmt.Sprintf("a server ended itself, though nothing is wrong with its disk: %v", stops[0])
	}
	r.checkLedger()
	counters := r.w.Counters()
	if still := counters.Zero(r.story.moves...); r.kind == "" && len(still) > 0 {
		r.breaks(Missed, "these counters did not move: %s", strings.Join(still, ", "))
	}
}

// checkLedger holds what clients were told against what was committed.
func (r *run) checkLedger() {
	if r.over() || r.invariants.Counters().Looks == 0 {
		return
	}
	err := check.AgainstLog(r.w.History(), r.invariants.Committed(), r.story.reads)
	var v *check.Violation
	if !errors.As(err, &v) {
		return
	}
	kind := Unsafe
	switch v.Invariant {
	case "I22":
		kind = AppliedTwice
	case "I23":
		kind = StaleRead
	}
	r.breaks(kind, "%v", v)
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
