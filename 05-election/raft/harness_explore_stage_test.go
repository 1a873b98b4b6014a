package raft

import (
	"fmt"
	"slices"

	"example.com/raftsteps/shared/lab/explore"
)

// What only this stage has to explore: elections and reads.

// ladder are the searches of every test run.
var ladder = []rung{
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 2, torn: true},
		must: []string{"elections", "leaders", "votes", "votes refused: given already", "votes refused: old log", "commits", "commits learned",
			"truncations", "refused probes", "fallbacks", "stale messages", "steps down", "restarts", "power cuts in a save", explore.Lost}},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 3, log: 2, torn: true},
		must: []string{"leaders", "commits", "truncations", "restarts", "power cuts in a save"}, long: true},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, terms: 2, log: 2},
		must: []string{"leaders", "commits", "truncations", "refused probes"}, long: true},
	// A vote that arrives twice makes two leaders of five servers, not of three.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 5, InFlight: 2, Duplicates: 1}, terms: 1, log: 1},
		must: []string{"leaders", "commits", explore.Duplicated}, long: true},
	// Figure 8: an entry of term 1, copied in term 3, overwritten in term 4.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 4, log: 2, single: true},
		must: []string{"leaders", "commits", "truncations", "votes refused: old log"}, long: true},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2, Restarts: 1, Duplicates: 1}, terms: 2, log: 1},
		must: []string{"leaders", "commits", "truncations", "restarts", explore.Duplicated}, long: true},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Reads: 1}, terms: 2, log: 2},
		must: []string{"leaders", "commits", "truncations", "reads", "reads confirmed", "reads answered"}, long: true},
	// A read may be asked again, and a server forgets that it asked.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1, Reads: 2}, terms: 2, log: 1},
		must: []string{"leaders", "commits", "restarts", "reads", "reads confirmed", "reads answered"}, long: true},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 1, grouped: 2, torn: true},
		must: []string{"leaders", "commits", "truncations", "power cuts in a save"}, long: true},
}

// goals are events to which the explorer writes scripts.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, goal: "truncations"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 3, single: true, goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 2, torn: true, goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, terms: 2, log: 1, grouped: 2, goal: "commits"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Reads: 1}, terms: 2, log: 1, goal: "reads answered"},
	{Bounds: explore.Bounds{Servers: 5, InFlight: 2}, terms: 2, log: 1, goal: "leaders"},
}

// exploreBodies are this stage's own messages.
var exploreBodies = []any{RequestVote{}, RequestVoteReply{}, ReadIndex{}, ReadIndexReply{}}

// exploreLeaves are fields that are not part of the state: clocks, and what never
// changes.
var exploreLeaves = []string{"Raft.timeout", "reads.age", "Options.ElectionTicks", "Options.Random"}

var exploreStageCounters = []counter{
	{TimedOut.Code, "elections"}, {Elected.Code, "leaders"}, {Voted.Code, "votes"},
	{AlreadyVoted.Code, "votes refused: given already"}, {OldLog.Code, "votes refused: old log"},
	{ReadConfirmed.Code, "reads confirmed"}, {"read", "reads"}, {"answer", "reads answered"},
}

// stageBounds: this stage needs none of its own.
type stageBounds struct{}

// machineStage are the reads that wait: for each, how much was committed when
// it began.
type machineStage struct {
	reads []waitingRead
}

type waitingRead struct {
	id    ReadID
	least Index
}

func (m *machine) cloneStage(of *machine) {
	r := m.raft
	r.votes = slices.Clone(r.votes)
	r.reads.pending = slices.Clone(r.reads.pending)
	r.out.Reads = slices.Clone(r.out.Reads)
	m.stage.reads = slices.Clone(of.stage.reads)
}

// stageOptions: timeouts are inputs, so nothing is random but where the numbers
// of reads begin; they must be new in each life.
func (p *model) stageOptions(o Options, life uint64) Options {
	first := uint64(0)
	if p.Reads > 0 {
		first = life << 8
	}
	o.ElectionTicks = [2]int{10, 19}
	o.Random = func(uint64) uint64 { return first }
	return o
}

// config is who decides what is committed.
func (p *model) config(past) Config { return Config{Voters: p.members} }

// The inputs of this stage.
const (
	inputTimeout = stageKinds + iota

	// inputRead is a client's; its argument is how much is committed by then.
	inputRead

	// inputRetry is the time after which a server asks for its reads again; it counts
	// as a read.
	inputRetry
)

func (p *model) stageInputs(in []explore.Input, w explore.World[*machine, past], id int) []explore.Input {
	r := w.Servers[id-1].raft
	if r.role != Leader && r.currentTerm < p.terms {
		in = append(in, explore.Input{Kind: inputTimeout})
	}
	if p.Reads > 0 {
		in = append(in, explore.Input{Kind: inputRead, Arg: uint16(len(w.History.committed))})
	}
	if r.role != Leader && r.reads.asked != r.reads.done {
		in = append(in, explore.Input{Kind: inputRetry})
	}
	return in
}

func (p *model) stageInput(do *doing, in explore.Input) {
	r := do.now.raft
	r.reads.age = 0
	switch in.Kind {
	case inputTimeout:
		r.elapsed = r.timeout - 1
		r.Tick()
	case inputRead:
		do.e.Spends = explore.Read
		p.happened(&do.e, "read")
		do.now.stage.reads = append(do.now.stage.reads, waitingRead{r.Read(), Index(in.Arg)})
	case inputRetry:
		do.e.Spends = explore.Read
		r.elapsed, r.reads.age = 0, r.options.HeartbeatTicks-1
		r.Tick()
	}
}

func (p *model) tellStage(id ID, in explore.Input) string {
	switch in.Kind {
	case inputTimeout:
		return fmt.Sprintf("the election timeout of %v passes", id)
	case inputRead:
		return fmt.Sprintf("a client wants to read from %v; by now %d entries are committed", id, in.Arg)
	}
	return fmt.Sprintf("%v has waited long for its reads, and asks again", id)
}

// stageOutput: a read sees all that was committed when it began.
func (do *doing) stageOutput(out Output) {
	s := &do.now.stage
	for _, answer := range out.Reads {
		s.reads = slices.DeleteFunc(s.reads, func(q waitingRead) bool {
			if q.id > answer.ID {
				return false
			}
			do.happened(&do.e, "answer")
			do.check(&do.e.Err, answer.Index >= q.least, linearizableRead, "%v answers a read at %d, and when it began %d was committed", do.now.raft.options.ID, answer.Index, q.least)
			return true
		})
	}
}

// checkStageChange: a vote on the disk holds for its whole term.
func (p *model) checkStageChange(err *error, a, b *machine) {
	was, is := a.disk.state, b.disk.state
	p.check(err, was.CurrentTerm != is.CurrentTerm || was.VotedFor == 0 || was.VotedFor == is.VotedFor, oneVote,
		"%v gave its vote in term %d to %v, and now it is %v's", b.raft.options.ID, is.CurrentTerm, was.VotedFor, is.VotedFor)
}

// checkStageMessage: a server that asks for a vote or gives one has it on disk, unless
// its disk is in a newer term and cannot give it again.
func (do *doing) checkStageMessage(m Message) {
	to := m.From
	switch b := m.Body.(type) {
	case RequestVote:
	case RequestVoteReply:
		if to = m.To; !b.Granted {
			return
		}
	default:
		return
	}
	d := do.now.disk.state
	do.check(&do.e.Err, d.CurrentTerm != m.Term || d.VotedFor == to, savedFirst, "%v gives its vote in term %d to %v, and its disk says %v", m.From, m.Term, to, d.VotedFor)
}

// checkStageWorld: a candidate counts no vote that it did not get.
func (p *model) checkStageWorld(err *error, w explore.World[*machine, past], a *machine) {
	r := a.raft
	if r.role == Candidate {
		p.check(err, r.votedFor == r.options.ID && slices.Contains(r.votes, r.options.ID), candidateVotes, "%v starts an election in term %d without its own vote", r.options.ID, r.currentTerm)
		for _, of := range r.votes {
			d := w.Servers[of-1].disk.state
			// Its own vote may still be on the way to its disk.
			got := of == r.options.ID || d.CurrentTerm > r.currentTerm || d.CurrentTerm == r.currentTerm && d.VotedFor == r.options.ID
			p.check(err, got, candidateVotes, "%v counts a vote of %v in term %d that it did not get", r.options.ID, of, r.currentTerm)
		}
	}
}

func (w *scriptWriter) stageStep(id ID, in explore.Input) {
	switch in.Kind {
	case inputTimeout:
		w.line("> campaign %v", id)
	case inputRead:
		w.line("> read %v", id)
	case inputRetry:
		w.line("> tick %v 3", id)
	}
}

func (w *scriptWriter) stageRestart(id ID, life uint64) {
	if w.Reads > 0 {
		w.line("- random %v %d 0", id, life<<8)
	}
}
