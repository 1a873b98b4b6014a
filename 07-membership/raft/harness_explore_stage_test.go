package raft

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/explore"
)

// What only this stage has to explore: elections, reads and snapshots. Changes of
// the members stand in harness_explore_changes_test.go.

// ladder are the searches of every test run. What the rules had before changes of
// the members is searched further in the stages before this one.
var ladder = []rung{
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 1, torn: true},
		must: []string{"elections", "leaders", "votes", "votes refused: given already", "votes refused: old log", "commits", "commits learned",
			"truncations", "stale messages", "steps down", "restarts", "power cuts in a save", explore.Lost}},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 1, log: 2, stage: stageBounds{pieces: 2}},
		must: []string{"commits", "fallbacks", "compactions", "snapshots sent", "snapshots taken over", "logs kept behind a snapshot", "logs dropped for a snapshot"}},
	// How leaders come and go.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 1, stage: stageBounds{changeBounds: changeBounds{asks: true, alone: true, transfers: true}}},
		must: []string{"pre-votes", "pre-votes granted", "calls for an election ignored", "majorities lost", "handed over", "transfers given up", "leaders", "truncations"}},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{alone: true, transfers: true}}},
		must: []string{"majorities lost", "handed over", "transfers given up", "leaders", "truncations"}, long: true},
	// Any change of two voters, from its beginning.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 3, stage: stageBounds{changeBounds: changeBounds{voters: 2, changes: allChanges}}},
		must: []string{"changes", "joint", "called off", "leaders", "votes refused: no voters known"}},
	// The server that joins is sent a snapshot.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 3, stage: stageBounds{pieces: 1, changeBounds: changeBounds{voters: 2, under: begun}}},
		must: []string{"snapshots taken over", "joint"}},
	// From {1, 2} to {1, 3}, under three leaders.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 3, log: 5, stage: stageBounds{changeBounds: changeBounds{voters: 2, under: begun}}},
		must: []string{"joint", "changed", "leaders", "leaders outside"}, long: true},
	// From {1, 2, 3} to {1, 2, 4}, each half of it under a new leader.
	{bounds: bounds{Bounds: explore.Bounds{Servers: 4, InFlight: 1}, terms: 2, log: 4, stage: stageBounds{changeBounds: changeBounds{voters: 3, changes: replacements, under: begun}}},
		must: []string{"joint", "changed", "called off", "leaders", "leaders outside", "fallbacks"}, long: true},
	{bounds: bounds{Bounds: explore.Bounds{Servers: 4, InFlight: 1}, terms: 2, log: 4, stage: stageBounds{changeBounds: changeBounds{voters: 3, changes: replacements, under: joint}}},
		must: []string{"rolled back", "truncations", "leaders"}, long: true},
}

// goals are events to which the explorer writes scripts.
var goals = []bounds{
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, goal: "truncations"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 3, single: true, goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 2, log: 2, torn: true, goal: "power cuts in a save"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 2}, terms: 2, log: 1, grouped: 2, goal: "commits"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Reads: 1}, terms: 2, log: 1, goal: "reads answered"},
	{Bounds: explore.Bounds{Servers: 5, InFlight: 2}, terms: 2, log: 1, goal: "leaders"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 1, log: 1, stage: stageBounds{pieces: 2}, goal: "snapshots taken over"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 1, log: 2, stage: stageBounds{pieces: 2, apart: true}, goal: "logs kept behind a snapshot"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{pieces: 2}, goal: "logs dropped for a snapshot"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1, Restarts: 1}, terms: 1, log: 1, torn: true, stage: stageBounds{pieces: 2}, goal: "snapshots ahead of their logs"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{asks: true}}, goal: "commits learned"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 1, stage: stageBounds{changeBounds: changeBounds{asks: true, transfers: true}}, goal: "calls for an election ignored"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{transfers: true}}, goal: "handed over"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{transfers: true}}, goal: "transfers given up"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{alone: true}}, goal: "majorities lost"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 4, stage: stageBounds{changeBounds: changeBounds{voters: 1, changes: replacements}}, goal: "changed"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 3, stage: stageBounds{changeBounds: changeBounds{voters: 2, changes: allChanges}}, goal: "called off"},
	{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, terms: 2, log: 2, stage: stageBounds{changeBounds: changeBounds{changes: allChanges}}, goal: "rolled back"},
}

// exploreBodies are this stage's own messages.
var exploreBodies = []any{RequestVote{}, RequestVoteReply{}, ReadIndex{}, ReadIndexReply{}, InstallSnapshot{}, InstallSnapshotReply{}, TimeoutNow{}}

// exploreLeaves are fields that are not part of the state: clocks, and what never
// changes.
var exploreLeaves = []string{"Raft.timeout", "reads.age", "Options.ElectionTicks", "Options.Random", "Options.Base", "Options.Snapshot", "disk.whole", "progress.silent", "Config.Addresses"}

var exploreStageCounters = []counter{
	{TimedOut.Code, "elections"}, {Elected.Code, "leaders"}, {Voted.Code, "votes"},
	{AlreadyVoted.Code, "votes refused: given already"}, {OldLog.Code, "votes refused: old log"}, {KnowsNoVoters.Code, "votes refused: no voters known"},
	{ReadConfirmed.Code, "reads confirmed"}, {"read", "reads"}, {"answer", "reads answered"},
	{Compacted.Code, "compactions"}, {SentSnapshot.Code, "snapshots sent"}, {Restored.Code, "snapshots taken over"},
	{Asks.Code, "pre-votes"}, {WouldVote.Code, "pre-votes granted"}, {LeaderLives.Code, "calls for an election ignored"}, {LostMajority.Code, "majorities lost"},
	{Learning.Code, "changes"}, {Jointly.Code, "joint"}, {Final.Code, "changed"}, {CalledOff.Code, "called off"}, {HandsOver.Code, "handed over"},
	{"rolled back", "rolled back"}, {"given up", "transfers given up"}, {"outside", "leaders outside"},
	{"kept", "logs kept behind a snapshot"}, {"dropped", "logs dropped for a snapshot"}, {"ahead", "snapshots ahead of their logs"},
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
	flag.IntVar(&chosen.stage.pieces, "explore.pieces", 0, "explore: in how many pieces a snapshot travels; 0 takes none")
	flag.BoolVar(&chosen.stage.apart, "explore.apart", false, "explore: a snapshot and the log that goes with it are two steps")
}

// machineStage is what this stage's tests remember of a server.
type machineStage struct {
	// reads are those that wait: for each, how much was committed when it began.
	reads []waitingRead

	// applied is the state machine: the entries it has received.
	applied []Entry

	// placed is true once a snapshot has its name, and the old log is still there.
	placed bool

	// coming is true if some of a leader's snapshot has come, and incoming is what.
	coming   bool
	incoming []byte
}

type waitingRead struct {
	id    ReadID
	least Index
}

func (m *machine) cloneStage(of *machine) {
	r := m.raft
	r.votes = slices.Clone(r.votes)
	r.reads.pending = slices.Clone(r.reads.pending)
	r.out.Reads, r.out.Chunks = slices.Clone(r.out.Reads), slices.Clone(r.out.Chunks)
	m.stage.reads, m.stage.applied = slices.Clone(of.stage.reads), slices.Clone(of.stage.applied)
	m.stage.incoming = slices.Clone(of.stage.incoming)
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

// config is who decides what is committed: the newest configuration that is.
func (p *model) config(g past) Config {
	for _, k := range slices.Backward(g.committed) {
		if k.entry.Config != nil {
			return *k.entry.Config
		}
	}
	return Config{Voters: p.members}
}

// The inputs of this stage.
const (
	inputTimeout = stageKinds + iota

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

func (p *model) stageInputs(in []explore.Input, w explore.World[*machine, past], id int) []explore.Input {
	r := w.Servers[id-1].raft
	if r.role != Leader && r.currentTerm < p.terms && (p.stage.asks || r.mayCampaign()) {
		in = append(in, explore.Input{Kind: inputTimeout})
	}
	if p.Reads > 0 {
		in = append(in, explore.Input{Kind: inputRead, Arg: uint16(len(w.History.committed))})
	}
	if r.role != Leader && r.reads.asked != r.reads.done {
		in = append(in, explore.Input{Kind: inputRetry})
	}
	in = p.changeInputs(in, r)
	return p.snapshotInputs(in, w.Servers[id-1])
}

// snapshotInputs: a snapshot may be taken at each entry that was applied, and the
// log cut at each that it covers, when nothing waits to be saved.
func (p *model) snapshotInputs(in []explore.Input, s *machine) []explore.Input {
	r := s.raft
	switch {
	case p.stage.pieces == 0 || s.gathered > 0 || r.out.Rewrite:
	case s.stage.placed:
		for base := r.log.base(); base <= s.disk.covered().Index; base++ {
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

func (p *model) stageInput(do *doing, in explore.Input) {
	r := do.now.raft
	r.reads.age = 0
	switch in.Kind {
	case inputTimeout:
		do.timeout()
	case inputRead:
		do.e.Spends = explore.Read
		p.happened(&do.e, "read")
		do.now.stage.reads = append(do.now.stage.reads, waitingRead{r.Read(), Index(in.Arg)})
	case inputRetry:
		do.e.Spends = explore.Read
		r.elapsed, r.reads.age = 0, r.options.HeartbeatTicks-1
		r.Tick()
	case inputSnapshot:
		do.now.stage.placed = true
		do.now.disk.snapshot, do.now.disk.covers = slices.Clone(do.now.stage.applied[:in.Arg]), r.Config(Index(in.Arg))
		do.now.disk.whole = do.now.disk.join()
		if !do.model.stage.apart {
			do.compact(Index(in.Arg))
		}
	case inputCompact:
		do.compact(Index(in.Arg))
	default:
		do.changeInput(in)
	}
}

func (do *doing) compact(base Index) {
	r, d := do.now.raft, &do.now.disk
	if do.torn {
		do.cut(Output{Rewrite: true})
	}
	do.now.stage.placed = false
	d.log = slices.Clone(d.log[base-d.base.Index:])
	d.base, d.config = r.Position(base), r.Config(base)
	d.whole = d.join()
	r.Compact(d.covered().Index, base)
}

func (p *model) tellStage(id ID, in explore.Input) string {
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
	return p.tellChange(id, in)
}

// fill puts a piece of the snapshot into a message that is to bring one. The file
// of a leader begins and ends with its term, so that no two are the same.
func (do *doing) fill(m *Message) bool {
	b, is := m.Body.(InstallSnapshot)
	if !is {
		return true
	}
	s := do.now
	if b.LastIncluded != s.raft.snapshot {
		return false
	}
	file := packConfig([]byte{byte(m.Term)}, s.raft.Config(b.LastIncluded.Index))
	for _, e := range s.stage.applied[:b.LastIncluded.Index] {
		file = packEntry(file, e)
	}
	file = append(file, byte(m.Term))
	size := (len(file) + do.stage.pieces - 1) / do.stage.pieces
	from := int(b.Offset)
	to := min(from+size, len(file))
	b.Data, b.Done = file[from:to:to], to == len(file)
	m.Body = b
	return true
}

// store keeps a piece of a leader's snapshot, and takes the whole over with the
// last one.
func (do *doing) store(m InstallSnapshot) {
	s := &do.now.stage
	if m.Offset == 0 {
		s.coming, s.incoming = true, nil
	}
	if !s.coming {
		do.now.raft.Discard()
		return
	}
	s.incoming = append(s.incoming[:min(int(m.Offset), len(s.incoming))], m.Data...)
	if m.Done {
		file := s.incoming
		s.coming, s.incoming = false, nil
		do.install(file, m.LastIncluded)
	}
}

// install takes over a snapshot that is complete. That it is what was committed,
// checkStageWorld says.
func (do *doing) install(file []byte, at Position) {
	s, r := do.now, do.now.raft
	if at.Index <= r.commitIndex || s.stage.placed {
		r.Discard()
		return
	}
	n := len(file) - 1
	config, content := unpack(file[1:n])
	do.check(&do.e.Err, len(content) == int(at.Index) && file[0] == file[n], snapshotTrue, "%v takes over a snapshot up to %v that is %v", r.options.ID, at, file)
	if at.Index < r.log.lastIndex() && r.log.term(at.Index) == at.Term {
		do.happened(&do.e, "kept")
	} else if len(r.log.entries) > 1 {
		do.happened(&do.e, "dropped")
	}
	s.disk.snapshot, s.disk.covers, s.stage.applied = content, config, slices.Clone(content)
	s.disk.whole = s.disk.join()
	r.Restore(at, config)
}

// forgetPatience: for how long others were silent is an input. How often a piece was sent does not matter from the second time
// on, but for when the next snapshot is taken.
func (do *doing) forgetPatience() {
	for _, p := range do.now.raft.progress {
		p.delivery.sent, p.silent = min(p.delivery.sent, 2), 0
	}
}

// stageOutput: the state machine receives each entry once, in order. A read sees
// all that was committed when it began.
func (do *doing) stageOutput(out Output) {
	s := &do.now.stage
	for _, e := range out.Committed {
		do.check(&do.e.Err, int(e.Index) == len(s.applied)+1, stateMachineSafety, "%v applies %v after %d others", do.now.raft.options.ID, place(e), len(s.applied))
		s.applied = append(s.applied, e)
	}
	for _, chunk := range out.Chunks {
		do.store(chunk)
	}
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
	p.checkConfigs(err, a, b)
}

// checkStageMessage: a server that asks for a vote or gives one has it on disk, unless
// its disk is in a newer term and cannot give it again.
func (do *doing) checkStageMessage(m Message) {
	to := m.From
	switch b := m.Body.(type) {
	case RequestVote:
		if b.PreVote {
			return
		}
	case RequestVoteReply:
		if to = m.To; !b.Granted || b.PreVote {
			return
		}
	default:
		return
	}
	d := do.now.disk.state
	do.check(&do.e.Err, d.CurrentTerm != m.Term || d.VotedFor == to, savedFirst, "%v gives its vote in term %d to %v, and its disk says %v", m.From, m.Term, to, d.VotedFor)
}

// checkStageWorld: snapshots and state machines hold what was committed. A
// candidate counts no vote that it did not get.
func (p *model) checkStageWorld(err *error, w explore.World[*machine, past], a *machine) {
	r := a.raft
	p.checkOpen(err, w.History, a)
	p.checkKnown(err, w, a)
	for i, c := range w.History.committed {
		p.check(err, i >= len(a.disk.snapshot) || sameEntry(a.disk.snapshot[i], c.entry), snapshotTrue, "the snapshot of %v does not hold %v", r.options.ID, place(c.entry))
		p.check(err, i >= len(a.stage.applied) || sameEntry(a.stage.applied[i], c.entry), stateMachineSafety, "the state machine of %v does not hold %v", r.options.ID, place(c.entry))
	}
	p.check(err, len(a.disk.snapshot) <= len(w.History.committed), snapshotTrue, "the snapshot of %v covers %v, which is not committed", r.options.ID, a.disk.covered())
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
		w.line("> %s %v", w.timeout(), id)
	case inputRead:
		w.line("> read %v", id)
	case inputRetry:
		w.line("> tick %v 3", id)
	case inputSnapshot:
		w.line("> snapshot %v %d", id, in.Arg)
		if !w.bounds.stage.apart {
			w.line("> compact %v %d", id, in.Arg)
		}
	case inputCompact:
		w.line("> compact %v %d", id, in.Arg)
	default:
		w.changeStep(id, in)
	}
}

func (w *scriptWriter) stageRestart(id ID, life uint64) {
	if w.Reads > 0 {
		w.line("- random %v %d 0", id, life<<8)
	}
}
