package raft

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"example.com/raftsteps/shared/lab/explore"
	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has to explore: elections and reads.

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
	Names: reflect.TypeFor[ID](), Bodies: []any{AppendEntries{}, AppendEntriesReply{}, RequestVote{}, RequestVoteReply{}, ReadIndex{}, ReadIndexReply{}},
	Leave: []string{"Raft.timeout", "reads.age", "Options.ElectionTicks", "Options.Random"},
	Boot:  bootMachine, Inputs: stageInputs, Input: stageInput, Tell: tellStage, Step: writeStage,
	Output: exploreOutput, CheckMessage: exploreMessage, CheckServer: exploreServer, Restart: writeRestart,
}

// ladder are the searches of every test run.
var ladder = []rung{
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 2, Torn: true},
		Must: []string{"elections", "leaders", "votes", "votes refused: given already", "votes refused: old log", "commits", "commits learned",
			"truncations", "refused probes", "fallbacks", "stale messages", "steps down", "restarts", "power cuts in a save", explore.Lost}},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 3, Log: 2, Torn: true},
		Must: []string{"leaders", "commits", "truncations", "restarts", "power cuts in a save"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, Terms: 2, Log: 2},
		Must: []string{"leaders", "commits", "truncations", "refused probes"}, Long: true},
	// A vote that arrives twice makes two leaders of five servers, not of three.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 5, InFlight: 2, Duplicates: 1}, Terms: 1, Log: 1},
		Must: []string{"leaders", "commits", explore.Duplicated}, Long: true},
	// Figure 8: an entry of term 1, copied in term 3, overwritten in term 4.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 4, Log: 2, Single: true},
		Must: []string{"leaders", "commits", "truncations", "votes refused: old log"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 2, Restarts: 1, Duplicates: 1}, Terms: 2, Log: 1},
		Must: []string{"leaders", "commits", "truncations", "restarts", explore.Duplicated}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Reads: 1}, Terms: 2, Log: 2},
		Must: []string{"leaders", "commits", "truncations", "reads", "reads confirmed", "reads answered"}, Long: true},
	// A read may be asked again, and a server forgets that it asked.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1, Reads: 2}, Terms: 2, Log: 1},
		Must: []string{"leaders", "commits", "restarts", "reads", "reads confirmed", "reads answered"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 1, Grouped: 2, Torn: true},
		Must: []string{"leaders", "commits", "truncations", "power cuts in a save"}, Long: true},
}

// goals are events to which the explorer writes scripts.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Goal: "truncations"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 3, Single: true, Goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 2, Torn: true, Goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, Terms: 2, Log: 1, Grouped: 2, Goal: "commits"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Reads: 1}, Terms: 2, Log: 1, Goal: "reads answered"},
	{Bounds: explore.Bounds{Servers: 5, InFlight: 2}, Terms: 2, Log: 1, Goal: "leaders"},
}

// counters say which decision moves which counter.
var counters = []rules.Counter{
	{Code: Committed.Code, Name: "commits"}, {Code: LearnedCommit.Code, Name: "commits learned"}, {Code: Truncated.Code, Name: "truncations"},
	{Code: Refused.Code, Name: "refused probes"}, {Code: FellBack.Code, Name: "fallbacks"}, {Code: OlderTerm.Code, Name: "stale messages"},
	{Code: SteppedDown.Code, Name: "steps down"}, {Code: "restart", Name: "restarts"}, {Code: "power cut", Name: "power cuts in a save"},
	{Code: TimedOut.Code, Name: "elections"}, {Code: Elected.Code, Name: "leaders"}, {Code: Voted.Code, Name: "votes"},
	{Code: AlreadyVoted.Code, Name: "votes refused: given already"}, {Code: OldLog.Code, Name: "votes refused: old log"},
	{Code: ReadConfirmed.Code, Name: "reads confirmed"}, {Code: "read", Name: "reads"}, {Code: "answer", Name: "reads answered"},
}

// stageBounds: this stage needs none of its own.
type stageBounds struct{}

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
	c.votes = slices.Clone(r.votes)
	c.reads.pending = slices.Clone(r.reads.pending)
	c.out.Reads = slices.Clone(r.out.Reads)
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

// bootMachine: timeouts are inputs, so nothing is random but where the numbers of
// reads begin; they must be new in each life.
func bootMachine(p *model, id rules.ID, d rules.Disk[Entry], life uint64) *machine {
	var voters []ID
	for _, member := range p.Members {
		voters = append(voters, ID(member))
	}
	o := startOptions(ID(id), voters, stateOf(&d), d.Log)
	o.MaxBatch = p.MaxBatch()
	if p.Reads > 0 {
		o.Random = func(uint64) uint64 { return life << 8 }
	}
	return &machine{Raft: New(o)}
}

// The inputs of this stage.
const (
	inputTimeout = rules.StageKinds + iota

	// inputRead is a client's; its argument is how much is committed by then.
	inputRead

	// inputRetry is the time after which a server asks for its reads again; it counts
	// as a read.
	inputRetry
)

func stageInputs(p *model, in []explore.Input, w worlds, id int) []explore.Input {
	r := w.Servers[id-1].Raft
	if r.role != Leader && uint64(r.currentTerm) < p.Terms {
		in = append(in, explore.Input{Kind: inputTimeout})
	}
	if p.Reads > 0 {
		in = append(in, explore.Input{Kind: inputRead, Arg: uint16(len(w.History.Committed))})
	}
	if r.role != Leader && r.reads.asked != r.reads.done {
		in = append(in, explore.Input{Kind: inputRetry})
	}
	return in
}

func stageInput(do *doing, in explore.Input) {
	r := do.Now.Raft
	r.reads.age = 0
	switch in.Kind {
	case inputTimeout:
		r.elapsed = r.timeout - 1
		r.Tick()
	case inputRead:
		do.SpendsRead()
		do.Happened("read")
		do.ReadBegins(uint64(r.Read()), uint64(in.Arg))
	case inputRetry:
		do.SpendsRead()
		r.elapsed, r.reads.age = 0, r.options.HeartbeatTicks-1
		r.Tick()
	}
}

func tellStage(id rules.ID, in explore.Input) string {
	switch in.Kind {
	case inputTimeout:
		return fmt.Sprintf("the election timeout of %v passes", id)
	case inputRead:
		return fmt.Sprintf("a client wants to read from %v; by now %d entries are committed", id, in.Arg)
	}
	return fmt.Sprintf("%v has waited long for its reads, and asks again", id)
}

func exploreOutput(do *doing, out output) {
	for _, answer := range out.Stage.(Output).Reads {
		do.ReadsAnswered(uint64(answer.ID), uint64(answer.Index))
	}
}

func exploreMessage(do *doing, m Message) {
	switch b := m.Body.(type) {
	case RequestVote:
		do.CheckGiven(rules.ID(m.From), uint64(m.Term), rules.ID(m.From))
	case RequestVoteReply:
		if b.Granted {
			do.CheckGiven(rules.ID(m.From), uint64(m.Term), rules.ID(m.To))
		}
	}
}

func exploreServer(p *model, err *error, w worlds, a *machine) {
	p.CheckVotes(err, w, a, sharedIDs(a.Raft.votes))
}

func writeStage(w *writer, id rules.ID, in explore.Input) {
	switch in.Kind {
	case inputTimeout:
		w.Line("> campaign %v", id)
	case inputRead:
		w.Line("> read %v", id)
	case inputRetry:
		w.Line("> tick %v 3", id)
	}
}

func writeRestart(w *writer, id rules.ID, life uint64) {
	if w.Reads > 0 {
		w.Line("- random %v %d 0", id, life<<8)
	}
}
