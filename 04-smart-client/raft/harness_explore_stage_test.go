package raft

import (
	"fmt"

	"example.com/raftsteps/shared/lab/explore"
)

// What only this stage has to explore: an operator who appoints leaders.

// ladder are the searches of every test run. The rules are those of 03, whose tests
// search further.
var ladder = []rung{
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 2, torn: true},
		must: []string{"leaders", "leaders stopped", "commits", "commits learned", "truncations", "refused probes", "fallbacks", "stale messages", "restarts", "power cuts in a save", explore.Lost}},
}

// goals are events to which the explorer writes scripts.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, goal: "truncations"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, single: true, goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 2, torn: true, goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, terms: 2, log: 1, grouped: 2, goal: "commits"},
}

// exploreBodies are this stage's own messages, exploreLeaves fields that are not
// part of the state.
var (
	exploreBodies []any
	exploreLeaves []string
)

var exploreStageCounters = []counter{
	{Appointed.Code, "leaders"}, {TwoLeaders.Code, "rivals met"}, {"depose", "leaders stopped"},
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

func (m *machine) cloneStage(*machine) {}

func (p *model) stageOptions(o Options, _ uint64) Options { return o }

// config is who decides what is committed.
func (p *model) config(past) Config { return Config{Voters: p.members} }

// The inputs of this stage.
const (
	// inputLead is an appointment; its argument is the term.
	inputLead = stageKinds + iota

	// inputDepose stops a leader, which starts again as a follower.
	inputDepose
)

func (p *model) stageInputs(in []explore.Input, w explore.World[*machine, past], id int) []explore.Input {
	r := w.Servers[id-1].raft
	if r.role == Leader && p.stage.operator == careful {
		return append(in, explore.Input{Kind: inputDepose})
	}
	if term := p.termFor(w, id); term <= p.terms {
		in = append(in, explore.Input{Kind: inputLead, Arg: uint16(term)})
	}
	return in
}

// termFor returns the term in which the operator may appoint a server now; a
// term beyond the bounds if he may not.
func (p *model) termFor(w explore.World[*machine, past], id int) Term {
	s := w.Servers[id-1]
	if p.stage.operator == forgetful {
		return s.raft.currentTerm + 1
	}
	term, behind, led := Term(1), 0, false
	for _, other := range w.Servers {
		led = led || other.raft.role == Leader
		if !later(other.disk.last().shared(), s.disk.last().shared()) {
			behind++
		}
		term = max(term, other.disk.state.CurrentTerm+1)
	}
	if p.stage.operator == careful && (led || 2*behind <= len(w.Servers)) {
		return p.terms + 1
	}
	return term
}

func (p *model) stageInput(do *doing, in explore.Input) {
	switch in.Kind {
	case inputLead:
		err := do.now.raft.Lead(Term(in.Arg))
		p.check(&do.e.Err, err == nil, ownCheck, "%v is to lead term %d: %v", do.now.raft.options.ID, in.Arg, err)
	case inputDepose:
		p.happened(&do.e, "depose")
		do.now = p.boot(do.now.raft.options.ID, do.now.disk, do.now.life+1)
		do.restarted = true
	}
}

func (p *model) tellStage(id ID, in explore.Input) string {
	if in.Kind == inputDepose {
		return fmt.Sprintf("the operator stops %v, which starts again", id)
	}
	return fmt.Sprintf("the operator appoints %v to lead term %d", id, in.Arg)
}

func (do *doing) stageOutput(Output) {}

func (p *model) checkStageChange(*error, *machine, *machine) {}

func (do *doing) checkStageMessage(Message) {}

func (p *model) checkStageWorld(*error, explore.World[*machine, past], *machine) {}

func (w *scriptWriter) stageStep(id ID, in explore.Input) {
	if in.Kind == inputDepose {
		w.line("> restart %v", id)
	} else {
		w.line("> lead %v %d", id, in.Arg)
	}
}

func (w *scriptWriter) stageRestart(ID, uint64) {}
