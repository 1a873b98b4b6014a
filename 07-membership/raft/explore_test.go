package raft

import (
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/raftsteps/shared/lab/explore"
	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has to explore: elections, reads and snapshots. Changes of
// the members stand in harness_explore_changes_test.go.

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
	Names: reflect.TypeFor[ID](), Bodies: []any{AppendEntries{}, AppendEntriesReply{}, RequestVote{}, RequestVoteReply{}, ReadIndex{}, ReadIndexReply{}, InstallSnapshot{}, InstallSnapshotReply{}, TimeoutNow{}, Config{}},
	Leave: []string{"Raft.timeout", "reads.age", "Options.ElectionTicks", "Options.Random", "Options.Base", "Options.Snapshot", "Options.SnapshotConfig", "progress.silent", "Config.Addresses"}, Unchanging: []string{"InstallSnapshot.Data", "Entry.Config", "Disk.Config", "Disk.Covers"},
	Boot: bootMachine, Inputs: stageInputs, Input: stageInput, Tell: tellStage, Step: writeStage,
	Fill: exploreFill, Output: exploreOutput, Done: exploreDone, CheckMessage: exploreMessage, CheckServer: exploreServer, Restart: writeRestart,
	CloneStage: cloneStage, Walk: walkBounds, Folds: folds,
	Arrive: exploreArrive, MayDoubt: mayDoubt, CheckChange: checkConfigs, CheckWorld: checkDecided, Decides: exploreDecides,
	Voters: votersOf, Given: givenDisk, Committed: givenCommitted, Named: namesShow, Begin: writeBegin,
}

// ladder are the searches of every test run. What the rules had before changes of
// the members is searched further in the stages before this one.
var ladder = []rung{
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 1, Torn: true},
		Must: []string{"elections", "leaders", "votes", "votes refused: given already", "votes refused: old log", "commits", "commits learned",
			"truncations", "stale messages", "steps down", "restarts", "power cuts in a save", explore.Lost}},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 1, Log: 2, Stage: stageBounds{pieces: 2}},
		Must: []string{"commits", "fallbacks", "compactions", "snapshots sent", "snapshots taken over", "logs kept behind a snapshot", "logs dropped for a snapshot"}, Long: true},
	// How leaders come and go.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 1, Stage: stageBounds{changeBounds: changeBounds{asks: true, alone: true, transfers: true}}},
		Must: []string{"pre-votes", "pre-votes granted", "calls for an election ignored", "majorities lost", "handed over", "transfers given up", "leaders", "truncations"}},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{alone: true, transfers: true}}},
		Must: []string{"majorities lost", "handed over", "transfers given up", "leaders", "truncations"}, Long: true},
	// Any change of two voters, from its beginning.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 3, Stage: stageBounds{changeBounds: changeBounds{voters: 2, changes: allChanges}}},
		Must: []string{"changes", "joint", "called off", "leaders", "votes refused: no voters known"}},
	// The server that joins is sent a snapshot.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 3, Stage: stageBounds{pieces: 1, changeBounds: changeBounds{voters: 2, under: begun}}},
		Must: []string{"snapshots taken over", "joint"}},
	// From {1, 2} to {1, 3}, under three leaders.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 3, Log: 5, Stage: stageBounds{changeBounds: changeBounds{voters: 2, under: begun}}},
		Must: []string{"joint", "changed", "leaders", "leaders outside"}, Long: true},
	// From {1, 2, 3} to {1, 2, 4}, each half of it under a new leader.
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 4, InFlight: 1}, Terms: 2, Log: 4, Stage: stageBounds{changeBounds: changeBounds{voters: 3, changes: replacements, under: begun}}},
		Must: []string{"joint", "changed", "called off", "leaders", "leaders outside", "fallbacks"}, Long: true},
	{Bounds: bounds{Bounds: explore.Bounds{Servers: 4, InFlight: 1}, Terms: 2, Log: 4, Stage: stageBounds{changeBounds: changeBounds{voters: 3, changes: replacements, under: joint}}},
		Must: []string{"rolled back", "truncations", "leaders"}, Long: true},
}

// goals are events to which the explorer writes scripts. What a stage before this one
// has comes there, but for two that tell of saves and snapshots.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, Terms: 2, Log: 2, Torn: true, Goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 1, Log: 1, Stage: stageBounds{pieces: 2}, Goal: "snapshots taken over"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{asks: true}}, Goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 1, Stage: stageBounds{changeBounds: changeBounds{asks: true, transfers: true}}, Goal: "calls for an election ignored"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{transfers: true}}, Goal: "handed over"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{transfers: true}}, Goal: "transfers given up"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{alone: true}}, Goal: "majorities lost"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 4, Stage: stageBounds{changeBounds: changeBounds{voters: 1, changes: replacements}}, Goal: "changed"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 3, Stage: stageBounds{changeBounds: changeBounds{voters: 2, changes: allChanges}}, Goal: "called off"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 2, Stage: stageBounds{changeBounds: changeBounds{changes: allChanges}}, Goal: "rolled back"},
}

// folds are bounds at which folding the servers' names is tested.
var folds = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 1, Log: 1, Stage: stageBounds{pieces: 2}},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 3, Stage: stageBounds{changeBounds: changeBounds{voters: 1, changes: replacements}}},
}

func walkBounds(b *bounds, seed uint64) {
	b.Stage.pieces = 1 + int(seed%3)
	if seed%2 == 1 {
		b.Servers, b.Bounds.Named, b.Log = 4, true, 20
		b.Stage.changeBounds = changeBounds{voters: 3, changes: allChanges, transfers: true, alone: true, asks: seed%4 == 1}
	}
}

// counters say which decision moves which counter.
var counters = []rules.Counter{
	{Code: Committed.Code, Name: "commits"}, {Code: LearnedCommit.Code, Name: "commits learned"}, {Code: Truncated.Code, Name: "truncations"},
	{Code: Refused.Code, Name: "refused probes"}, {Code: FellBack.Code, Name: "fallbacks"}, {Code: OlderTerm.Code, Name: "stale messages"},
	{Code: SteppedDown.Code, Name: "steps down"}, {Code: "restart", Name: "restarts"}, {Code: "power cut", Name: "power cuts in a save"},
	{Code: TimedOut.Code, Name: "elections"}, {Code: Elected.Code, Name: "leaders"}, {Code: Voted.Code, Name: "votes"},
	{Code: AlreadyVoted.Code, Name: "votes refused: given already"}, {Code: OldLog.Code, Name: "votes refused: old log"}, {Code: KnowsNoVoters.Code, Name: "votes refused: no voters known"},
	{Code: ReadConfirmed.Code, Name: "reads confirmed"}, {Code: "read", Name: "reads"}, {Code: "answer", Name: "reads answered"},
	{Code: Compacted.Code, Name: "compactions"}, {Code: SentSnapshot.Code, Name: "snapshots sent"}, {Code: Restored.Code, Name: "snapshots taken over"},
	{Code: Asks.Code, Name: "pre-votes"}, {Code: WouldVote.Code, Name: "pre-votes granted"}, {Code: LeaderLives.Code, Name: "calls for an election ignored"}, {Code: LostMajority.Code, Name: "majorities lost"},
	{Code: Learning.Code, Name: "changes"}, {Code: Jointly.Code, Name: "joint"}, {Code: Final.Code, Name: "changed"}, {Code: CalledOff.Code, Name: "called off"}, {Code: HandsOver.Code, Name: "handed over"},
	{Code: "rolled back", Name: "rolled back"}, {Code: "given up", Name: "transfers given up"}, {Code: "outside", Name: "leaders outside"},
	{Code: "kept", Name: "logs kept behind a snapshot"}, {Code: "dropped", Name: "logs dropped for a snapshot"}, {Code: "ahead", Name: "snapshots ahead of their logs"},
}

// stageBounds are those of snapshots.
type stageBounds struct {
	// pieces is in how many pieces a snapshot travels; 0 means that nobody takes
	// one.
	pieces int

	// apart makes two steps of a snapshot and of the log that goes with it, which
	// may keep entries that the snapshot covers. Else it is one, and keeps none.
	apart bool

	changeBounds
}

func (b stageBounds) String() string {
	s := ""
	if b.pieces > 0 {
		s = fmt.Sprintf("snapshots in %d pieces, ", b.pieces)
	}
	if b.apart {
		s += "apart from their logs, "
	}
	return strings.TrimSuffix(s+b.changeBounds.String(), ", ")
}

func init() {
	flag.IntVar(&explorer.Chosen.Stage.pieces, "explore.pieces", 0, "explore: in how many pieces a snapshot travels; 0 takes none")
	flag.BoolVar(&explorer.Chosen.Stage.apart, "explore.apart", false, "explore: a snapshot and the log that goes with it are two steps")
}

// machineStage is what this stage's tests remember of a server.
type machineStage struct {
	// applied is the state machine: the entries it has received.
	applied []Entry

	// placed is true once a snapshot has its name, and the old log is still there.
	placed bool

	// coming is true if some of a leader's snapshot has come, and incoming is what.
	coming   bool
	incoming []byte
}

// Clone copies a server for the search.
func (r *Raft) Clone() *Raft {
	c := *r
	c.log.entries = slices.Clone(r.log.entries)
	c.log.configs = slices.Clone(r.log.configs)
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
	c.out.Chunks = slices.Clone(r.out.Chunks)
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

func (r *Raft) MayPropose() bool { return r.successor == 0 }

func cloneStage(now *machine) {
	now.Stage.applied, now.Stage.incoming = slices.Clone(now.Stage.applied), slices.Clone(now.Stage.incoming)
}

// bootMachine: timeouts are inputs, so nothing is random but where the numbers of
// reads begin; they must be new in each life.
func bootMachine(p *model, id rules.ID, d rules.Disk[Entry], life uint64) *machine {
	o := startOptions(ID(id), nil, stateOf(&d), d.Log)
	o.Config, o.SnapshotConfig = configsOf(p, ID(id), d)
	o.Base, o.Snapshot, o.MaxBatch = ownPosition(d.Base), ownPosition(d.Covered()), p.MaxBatch()
	if p.Reads > 0 {
		o.Random = func(uint64) uint64 { return life << 8 }
	}
	return &machine{Raft: New(o), Stage: machineStage{applied: slices.Clone(d.Snapshot)}}
}

// exploreDecides asks the newest configuration that is committed.
func exploreDecides(p *model, g past, has func(rules.ID) bool) bool {
	config := Config{Voters: firstVoters(p)}
	for _, k := range slices.Backward(g.Committed) {
		if k.Entry.Config != nil {
			config = *k.Entry.Config
			break
		}
	}
	return quorum(config, func(id ID) bool { return has(rules.ID(id)) })
}

// The inputs of this stage.
const (
	inputTimeout = rules.StageKinds + iota

	// inputRead is a client's; its argument is how much is committed by then.
	inputRead

	// inputRetry is the time after which a server asks for its reads again; it counts
	// as a read.
	inputRetry

	// inputSnapshot puts a snapshot onto the disk; its argument is the last entry
	// it covers.
	inputSnapshot

	// inputCompact puts a log that begins after its argument in place of the old
	// one.
	inputCompact

	changeKinds
)

func stageInputs(p *model, in []explore.Input, w worlds, id int) []explore.Input {
	r := w.Servers[id-1].Raft
	if r.role != Leader && uint64(r.currentTerm) < p.Terms && (p.Stage.asks || r.mayCampaign()) {
		in = append(in, explore.Input{Kind: inputTimeout})
	}
	if p.Reads > 0 {
		in = append(in, explore.Input{Kind: inputRead, Arg: uint16(len(w.History.Committed))})
	}
	if r.role != Leader && r.reads.asked != r.reads.done {
		in = append(in, explore.Input{Kind: inputRetry})
	}
	in = changeInputs(p, in, r)
	return snapshotInputs(p, in, w.Servers[id-1])
}

// snapshotInputs: a snapshot may be taken at each entry that was applied, and the
// log cut at each that it covers, when nothing waits to be saved.
func snapshotInputs(p *model, in []explore.Input, s *machine) []explore.Input {
	r := s.Raft
	switch {
	case p.Stage.pieces == 0 || s.Gathers() || r.out.Rewrite:
	case s.Stage.placed:
		for base := r.log.base(); uint64(base) <= s.Disk.Covered().Index; base++ {
			in = append(in, explore.Input{Kind: inputCompact, Arg: uint16(base)})
		}
	default:
		for at := r.snapshot.Index + 1; at <= r.lastApplied; at++ {
			if len(r.Config(at).Voters) == 0 {
				continue // it joins, and does not know the members yet
			}
			in = append(in, explore.Input{Kind: inputSnapshot, Arg: uint16(at)})
		}
	}
	return in
}

func stageInput(do *doing, in explore.Input) {
	r := do.Now.Raft
	r.reads.age = 0
	switch in.Kind {
	case inputTimeout:
		passTimeout(do)
	case inputRead:
		do.SpendsRead()
		do.Happened("read")
		do.ReadBegins(uint64(r.Read()), uint64(in.Arg))
	case inputRetry:
		do.SpendsRead()
		r.elapsed, r.reads.age = 0, r.options.HeartbeatTicks-1
		r.Tick()
	case inputSnapshot:
		do.Now.Stage.placed = true
		do.Now.Disk.Snapshot, do.Now.Disk.Covers = slices.Clone(do.Now.Stage.applied[:in.Arg]), r.Config(Index(in.Arg))
		do.Now.Disk.Changed()
		if !do.Model.Stage.apart {
			compactNow(do, Index(in.Arg))
		}
	case inputCompact:
		compactNow(do, Index(in.Arg))
	default:
		changeInput(do, in)
	}
}

func compactNow(do *doing, base Index) {
	r, d := do.Now.Raft, &do.Now.Disk
	if do.Torn {
		do.Cut(output{Rewrite: true})
	}
	do.Now.Stage.placed = false
	d.Log = slices.Clone(d.Log[uint64(base)-d.Base.Index:])
	d.Base, d.Config = r.Position(base).shared(), r.Config(base)
	d.Changed()
	r.Compact(Index(d.Covered().Index), base)
}

func tellStage(id rules.ID, in explore.Input) string {
	switch in.Kind {
	case inputTimeout:
		return fmt.Sprintf("the election timeout of %v passes", id)
	case inputRead:
		return fmt.Sprintf("a client wants to read from %v; by now %d entries are committed", id, in.Arg)
	case inputSnapshot:
		return fmt.Sprintf("%v has a snapshot up to entry %d on its disk", id, in.Arg)
	case inputCompact:
		return fmt.Sprintf("%v puts a log that begins after entry %d in place of its old one", id, in.Arg)
	case inputRetry:
		return fmt.Sprintf("%v has waited long for its reads, and asks again", id)
	}
	return tellChange(id, in)
}

// exploreFill puts a piece of the snapshot into a message that is to bring one. The file
// of a leader begins and ends with its term, so that no two are the same.
func exploreFill(do *doing, m *Message) {
	b, is := m.Body.(InstallSnapshot)
	if !is {
		return
	}
	s := do.Now
	file := packConfig([]byte{byte(m.Term)}, s.Raft.Config(b.LastIncluded.Index))
	for _, e := range s.Stage.applied[:b.LastIncluded.Index] {
		file = packEntry(file, e)
	}
	file = append(file, byte(m.Term))
	size := (len(file) + do.Model.Stage.pieces - 1) / do.Model.Stage.pieces
	from := int(b.Offset)
	to := min(from+size, len(file))
	b.Data, b.Done = file[from:to:to], to == len(file)
	m.Body = b
}

// storePiece keeps a piece of a leader's snapshot, and takes the whole over with the
// last one.
func storePiece(do *doing, m InstallSnapshot) {
	s := &do.Now.Stage
	if m.Offset == 0 {
		s.coming, s.incoming = true, nil
	}
	if !s.coming {
		do.Now.Raft.Discard()
		return
	}
	s.incoming = append(s.incoming[:min(int(m.Offset), len(s.incoming))], m.Data...)
	if m.Done {
		file := s.incoming
		s.coming, s.incoming = false, nil
		installNow(do, file, m.LastIncluded)
	}
}

// installNow takes over a snapshot that is complete. That it is what was committed,
// exploreServer says.
func installNow(do *doing, file []byte, at Position) {
	s, r := do.Now, do.Now.Raft
	if at.Index <= r.commitIndex || s.Stage.placed {
		r.Discard()
		return
	}
	n := len(file) - 1
	config, content := unpack(file[1:n])
	do.Ensure(len(content) == int(at.Index) && file[0] == file[n], snapshotTrue, "%v takes over a snapshot up to %v that is %v", r.options.ID, at, file)
	if at.Index < r.log.lastIndex() && r.log.term(at.Index) == at.Term {
		do.Happened("kept")
	} else if len(r.log.entries) > 1 {
		do.Happened("dropped")
	}
	s.Disk.Snapshot, s.Disk.Covers, s.Stage.applied = content, config, slices.Clone(content)
	s.Disk.Changed()
	r.Restore(at, config)
}

// exploreDone: how often a piece was sent does not matter from the second time
// on, but for when the next snapshot is taken. For how long others were silent is
// an input.
func exploreDone(do *doing) {
	checkElection(do)
	countChanges(do)
	for _, p := range do.Now.Raft.progress {
		p.delivery.sent, p.silent = min(p.delivery.sent, 2), 0
	}
}

// exploreOutput: the state machine receives each entry once, in order.
func exploreOutput(do *doing, out output) {
	s := &do.Now.Stage
	for _, e := range out.Committed {
		do.Ensure(int(e.Index) == len(s.applied)+1, rules.StateMachineSafety, "%v applies %v after %d others", do.Now.Raft.options.ID, e.Place(), len(s.applied))
		s.applied = append(s.applied, e)
	}
	for _, chunk := range out.Stage.(Output).Chunks {
		storePiece(do, chunk)
	}
	for _, answer := range out.Stage.(Output).Reads {
		do.ReadsAnswered(uint64(answer.ID), uint64(answer.Index))
	}
}

func exploreMessage(do *doing, m Message) {
	switch b := m.Body.(type) {
	case RequestVote:
		if !b.PreVote {
			do.CheckGiven(rules.ID(m.From), uint64(m.Term), rules.ID(m.From))
		}
	case RequestVoteReply:
		if b.Granted && !b.PreVote {
			do.CheckGiven(rules.ID(m.From), uint64(m.Term), rules.ID(m.To))
		}
	}
}

// exploreServer: snapshots and state machines hold what was committed.
func exploreServer(p *model, err *error, w worlds, a *machine) {
	r := a.Raft
	for i, c := range w.History.Committed {
		p.Ensure(err, i >= len(a.Disk.Snapshot) || a.Disk.Snapshot[i].Same(c.Entry), snapshotTrue, "the snapshot of %v does not hold %v", r.options.ID, c.Entry.Place())
		p.Ensure(err, i >= len(a.Stage.applied) || a.Stage.applied[i].Same(c.Entry), rules.StateMachineSafety, "the state machine of %v does not hold %v", r.options.ID, c.Entry.Place())
	}
	p.Ensure(err, len(a.Disk.Snapshot) <= len(w.History.Committed), snapshotTrue, "the snapshot of %v covers %v, which is not committed", r.options.ID, a.Disk.Covered())
	p.CheckVotes(err, w, a, sharedIDs(r.votes))
	checkOpen(p, err, w.History, a)
	checkAllKnown(p, err, w, a)
}

func writeStage(w *writer, id rules.ID, in explore.Input) {
	switch in.Kind {
	case inputTimeout:
		w.Line("> %s %v", timeoutCommand(w), id)
	case inputRead:
		w.Line("> read %v", id)
	case inputRetry:
		w.Line("> tick %v 3", id)
	case inputSnapshot:
		w.Line("> snapshot %v %d", id, in.Arg)
		if !w.Stage.apart {
			w.Line("> compact %v %d", id, in.Arg)
		}
	case inputCompact:
		w.Line("> compact %v %d", id, in.Arg)
	default:
		writeChange(w, id, in)
	}
}

func writeRestart(w *writer, id rules.ID, life uint64) {
	if w.Reads > 0 {
		w.Line("- random %v %d 0", id, life<<8)
	}
}
