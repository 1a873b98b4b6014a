package raft

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"example.com/raftsteps/shared/lab/explore"
	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has to explore: an operator who appoints leaders.

type (
	bounds  = rules.Bounds[stageBounds]
	rung    = rules.Rung[stageBounds]
	machine = rules.Machine[*Raft, machineStage, Entry]
	past    = rules.Past[Entry]
	model   = rules.Model[*Raft, Entry, Message, machineStage, stageBounds]
	doing   = rules.Doing[*Raft, Entry, Message, machineStage, stageBounds]
	writer  = rules.ScriptWriter[*Raft, Entry, Message, machineStage, stageBounds]
	worlds  = explore.World[*machine, past]
)

func TestExplore(t *testing.T) { explorer.TestExplore(t) }

// The search folds states that differ only in the servers' names.
func TestExploreFoldsOnlyNames(t *testing.T) { explorer.TestFolding(t) }

// The shortest way to each of the goals becomes a script that plays the same.
func TestExploreWritesScripts(t *testing.T) { explorer.TestScripts(t, harness.Play) }

// A copy of a server has all of it, and shares nothing with it.
func TestExploreForgetsNothing(t *testing.T) { explorer.TestForgetsNothing(t) }

func init() { explorer.Flags() }

var explorer = &rules.Explorer[*Raft, Entry, Message, machineStage, stageBounds]{
	Ladder: ladder, Goals: goals, Counters: counters,
	Names: reflect.TypeFor[ID](), Bodies: []any{AppendEntries{}, AppendEntriesReply{}},
	Boot: bootMachine, Inputs: stageInputs, Input: stageInput, Tell: tellStage, Step: writeStage,
}

// ladder are the searches of every test run.
var ladder = []rung{
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 2, Torn: true},
		Must: []string{"leaders", "leaders stopped", "commits", "commits learned", "truncations", "refused probes", "fallbacks", "stale messages", "restarts", "power cuts in a save", explore.Lost}},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 3, Log: 2, Torn: true},
		Must: []string{"commits", "truncations", "refused probes", "restarts", "power cuts in a save"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, Terms: 2, Log: 2},
		Must: []string{"commits", "truncations", "refused probes"}, Long: true},
	// Figure 8: an entry of term 1, copied in term 3, overwritten in term 4.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 4, Log: 1, Single: true},
		Must: []string{"commits", "truncations"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 5, InFlight: 1}, Terms: 2, Log: 1},
		Must: []string{"commits", "truncations"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2, Restarts: 1, Duplicates: 1}, Terms: 2, Log: 1},
		Must: []string{"commits", "truncations", "restarts", explore.Duplicated}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 1, Grouped: 2, Torn: true},
		Must: []string{"commits", "truncations", "power cuts in a save"}, Long: true},
}

// goals are events to which the explorer writes scripts.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Goal: "truncations"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Single: true, Goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 2, Torn: true, Goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, Terms: 2, Log: 1, Grouped: 2, Goal: "commits"},
}

// counters say which decision moves which counter.
var counters = []rules.Counter{
	{Code: Committed.Code, Name: "commits"}, {Code: LearnedCommit.Code, Name: "commits learned"}, {Code: Truncated.Code, Name: "truncations"},
	{Code: Refused.Code, Name: "refused probes"}, {Code: FellBack.Code, Name: "fallbacks"}, {Code: OlderTerm.Code, Name: "stale messages"},
	{Code: SteppedDown.Code, Name: "steps down"}, {Code: "restart", Name: "restarts"}, {Code: "power cut", Name: "power cuts in a save"},
	{Code: Appointed.Code, Name: "leaders"}, {Code: TwoLeaders.Code, Name: "rivals met"}, {Code: "depose", Name: "leaders stopped"},
}

// stageBounds say what kind of operator there is.
type stageBounds struct{ operator operator }

// operator is a way to appoint leaders.
type operator string

// The operators.
const (
	// careful stops the server that leads, then appoints, in a new term, a server whose
	// log is as up to date as those of a majority.
	careful operator = ""

	// careless takes a new term, but asks no server for its log and stops none.
	careless operator = "a careless operator"

	// forgetful does not even remember which terms he has given away.
	forgetful operator = "a forgetful operator"
)

func (b stageBounds) String() string { return string(b.operator) }

type machineStage struct{}

// Clone copies a server for the search.
func (r *Raft) Clone() *Raft {
	c := *r
	c.log.entries = slices.Clone(r.log.entries)
	if r.progress != nil {
		c.progress = make(map[ID]*progress)
		for id, p := range r.progress {
			q := *p
			c.progress[id] = &q
		}
	}
	if s := r.out.State; s != nil {
		state := *s
		c.out.State = &state
	}
	c.out.Early, c.out.Append = slices.Clone(r.out.Early), slices.Clone(r.out.Append)
	c.out.Messages, c.out.Committed = slices.Clone(r.out.Messages), slices.Clone(r.out.Committed)
	c.out.Reasons = nil
	return &c
}

// Heartbeat lets the time for a heartbeat come.
func (r *Raft) Heartbeat() {
	r.elapsed = r.options.HeartbeatTicks - 1
	r.Tick()
}

func (r *Raft) TakeReasons() []rules.Reason {
	reasons := sharedReasons(r.out.Reasons)
	r.out.Reasons = nil
	return reasons
}

func (r *Raft) MayPropose() bool { return true }

func bootMachine(p *model, id rules.ID, d rules.Disk[Entry], _ uint64) *machine {
	var voters []ID
	for _, member := range p.Members {
		voters = append(voters, ID(member))
	}
	o := startOptions(ID(id), voters, stateOf(&d), d.Log)
	o.MaxBatch = p.MaxBatch()
	return &machine{Raft: New(o)}
}

// The inputs of this stage.
const (
	// inputLead is an appointment; its argument is the term.
	inputLead = rules.StageKinds + iota

	// inputDepose stops a leader, which starts again as a follower.
	inputDepose
)

func stageInputs(p *model, in []explore.Input, w worlds, id int) []explore.Input {
	r := w.Servers[id-1].Raft
	if r.role == Leader && p.Stage.operator == careful {
		return append(in, explore.Input{Kind: inputDepose})
	}
	if term := termFor(p, w, id); term <= p.Terms {
		in = append(in, explore.Input{Kind: inputLead, Arg: uint16(term)})
	}
	return in
}

// termFor returns the term in which the operator may appoint a server now; a
// term beyond the bounds if he may not.
func termFor(p *model, w worlds, id int) uint64 {
	s := w.Servers[id-1]
	if p.Stage.operator == forgetful {
		return uint64(s.Raft.currentTerm) + 1
	}
	term, behind, led := uint64(1), 0, false
	for _, other := range w.Servers {
		led = led || other.Raft.role == Leader
		if !later(other.Disk.Last(), s.Disk.Last()) {
			behind++
		}
		term = max(term, other.Disk.State.CurrentTerm+1)
	}
	if p.Stage.operator == careful && (led || 2*behind <= len(w.Servers)) {
		return p.Terms + 1
	}
	return term
}

func stageInput(do *doing, in explore.Input) {
	switch in.Kind {
	case inputLead:
		err := do.Now.Raft.Lead(Term(in.Arg))
		do.Ensure(err == nil, rules.OwnCheck, "%v is to lead term %d: %v", do.Now.Raft.options.ID, in.Arg, err)
	case inputDepose:
		do.StartAgain("depose")
	}
}

func tellStage(id rules.ID, in explore.Input) string {
	if in.Kind == inputDepose {
		return fmt.Sprintf("the operator stops %v, which starts again", id)
	}
	return fmt.Sprintf("the operator appoints %v to lead term %d", id, in.Arg)
}

func writeStage(w *writer, id rules.ID, in explore.Input) {
	if in.Kind == inputDepose {
		w.Line("> restart %v", id)
	} else {
		w.Line("> lead %v %d", id, in.Arg)
	}
}
