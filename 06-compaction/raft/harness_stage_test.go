package raft

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has: votes, reads and snapshots.

var harness = &rules.Stage[*Raft, Entry, Message, stage]{
	New: startRaft, NewEntry: newEntry, Forge: forge, Fill: fill, Output: stageOutput, Words: stageWords,
	Check: checkStage, CheckMessage: checkStageMessage, Command: stageCommand,
	Random: rules.Random[*Raft, Entry, Message, stage]{
		Runs: 700, Own: 150, MustHappen: mustHappen,
		Step: stageStep, Repair: repair, Waits: (*server).ReadsWait,
	},
}

// stage is what the tests remember of a server for this stage.
type stage struct {
	// pieces is in how many pieces the snapshot travels; 0 is 2.
	pieces int

	// frozen is a snapshot that is being written, nil if none is; placed is true
	// once it has its name, and the old log is still there.
	frozen []Entry
	placed bool

	// incoming is what has come of a leader's snapshot; nil if nothing has.
	incoming []byte

	// damaged says that the next one that is complete has a bad checksum.
	damaged bool

	// unlucky says that the power fails when the next one has its name, and the
	// log that goes with it is not there yet.
	unlucky bool
}

// The names of this stage's invariants.
const (
	snapshotTrue = "Snapshot"
)

func startRaft(c *cluster, s *server) *Raft {
	s.Stage.frozen, s.Stage.placed, s.Stage.incoming = nil, false, nil
	var voters []ID
	for _, other := range c.Servers {
		voters = append(voters, ID(other.ID))
	}
	o := startOptions(ID(s.ID), voters, stateOf(&s.Disk), s.Disk.Log)
	o.Base, o.Snapshot = ownPosition(s.Disk.Base), ownPosition(s.Disk.Covered())
	o.MaxBatch, o.Random = c.MaxBatch, s.Draw
	if c.Random != nil {
		o.Random = c.Random
	}
	return New(o)
}

func ownPosition(p rules.Position) Position { return Position{Term(p.Term), Index(p.Index)} }

// startOptions are those of a server with a state and a log on its disk.
func startOptions(id ID, voters []ID, state State, log []Entry) Options {
	return Options{
		ID: id, Config: Config{Voters: voters}, State: state, Log: log,
		HeartbeatTicks: 3, ElectionTicks: [2]int{10, 19}, MaxBatch: 1000,
		Random: func(uint64) uint64 { return 0 }, Explain: true,
	}
}

// read starts a read on a server.
func read(c *cluster, s *server) {
	c.Input(s, func(r *Raft) { c.ReadBegins(s, uint64(r.Read())) })
}

// freeze begins a snapshot of a server's state machine as it is after an entry.
func freeze(s *server, at Index) {
	s.Stage.frozen = slices.Clip(s.Applied[:at])
}

// placeSnapshot gives a snapshot that is written its name, unless a leader's was faster.
// The log stays as it is.
func placeSnapshot(c *cluster, s *server) {
	if Index(len(s.Stage.frozen)) <= s.Raft.snapshot.Index {
		s.Stage.frozen = nil
		return
	}
	c.Counts["snapshot taken"]++
	s.Stage.placed = true
	s.Disk.Snapshot = s.Stage.frozen
	s.Disk.Changed()
	c.CheckDisk(s)
}

// compact puts the log behind base in place of the whole one, and tells the
// rules.
func compact(c *cluster, s *server, base Index) {
	at := Index(len(s.Stage.frozen))
	s.Stage.frozen, s.Stage.placed = nil, false
	s.Disk.Log = slices.Clone(s.Disk.Log[uint64(base)-s.Disk.Base.Index:])
	s.Disk.Base = s.Raft.Position(base).shared()
	s.Disk.Changed()
	c.Input(s, func(r *Raft) { r.Compact(at, base) })
}

// file returns the bytes of a server's snapshot that ends at an index. No two servers
// write the same.
func file(s *server, at Index) string {
	content := s.Applied[:at]
	return fmt.Sprintf("%v: %s end of %v", s.ID, rules.EntriesWords(content), s.ID)
}

// fill puts a piece of the snapshot into a message that is to bring one.
func fill(_ *cluster, s *server, m *Message) {
	b, is := m.Body.(InstallSnapshot)
	if !is {
		return
	}
	file := file(s, b.LastIncluded.Index)
	pieces := cmp.Or(s.Stage.pieces, 2)
	size := (len(file) + pieces - 1) / pieces
	from := int(b.Offset)
	to := min(from+size, len(file))
	b.Data, b.Done = []byte(file[from:to]), to == len(file)
	m.Body = b
}

// store keeps a piece of a leader's snapshot, and takes the whole over with the
// last one.
func store(c *cluster, s *server, m InstallSnapshot) {
	if m.Offset == 0 {
		s.Stage.incoming = []byte{}
	}
	if s.Stage.incoming == nil {
		s.Raft.Discard()
		return
	}
	s.Stage.incoming = append(s.Stage.incoming[:min(int(m.Offset), len(s.Stage.incoming))], m.Data...)
	if m.Done {
		install(c, s, m.LastIncluded)
	}
}

// install checks a snapshot that is complete and takes it over.
func install(c *cluster, s *server, at Position) {
	file := string(s.Stage.incoming)
	s.Stage.incoming = nil
	if at.Index <= s.Raft.commitIndex || s.Stage.placed || s.Stage.damaged {
		c.Counts["snapshot discarded"]++
		s.Stage.damaged = false
		s.Raft.Discard()
		return
	}
	var content []Entry
	for i := range min(at.Index, Index(len(c.Ghost.Committed))) {
		content = append(content, c.Ghost.Committed[i].Entry)
	}
	first, _, _ := strings.Cut(file, ":")
	if want := fmt.Sprintf("%s: %s end of %s", first, rules.EntriesWords(content), first); file != want || len(content) < int(at.Index) || content[at.Index-1].Place() != at.shared() {
		c.Broken(snapshotTrue, "%v takes over a snapshot that ends in %v and is %q; it should be %q", s.ID, at, file, want)
		s.Raft.Discard()
		return
	}
	if r := s.Raft; at.Index < r.log.lastIndex() && r.log.term(at.Index) == at.Term {
		c.Counts["log kept behind a snapshot"]++
	} else if len(r.log.entries) > 1 {
		c.Counts["log dropped for a snapshot"]++
	}
	if s.Stage.unlucky {
		s.Stage.unlucky, s.PowerFails = false, 0
	}
	s.Disk.Snapshot, s.Applied = content, content
	s.Disk.Changed()
	s.Raft.Restore(at)
}

func stageOutput(c *cluster, s *server, all output) {
	out := all.Stage.(Output)
	for _, chunk := range out.Chunks {
		store(c, s, chunk)
	}
	for _, answer := range out.Reads {
		c.ReadsAnswered(s, uint64(answer.ID), uint64(answer.Index))
	}
}

func checkStage(c *cluster, s *server) { c.CheckVotes(s, sharedIDs(s.Raft.votes)) }

func checkStageMessage(c *cluster, s *server, m Message) {
	switch b := m.Body.(type) {
	case RequestVote:
		c.CheckGiven(s, uint64(m.Term), s.ID)
	case RequestVoteReply:
		if b.Granted {
			c.CheckGiven(s, uint64(m.Term), rules.ID(m.To))
		}
	}
}

func (e Entry) Same(o Entry) bool {
	return e.Index == o.Index && e.Term == o.Term && e.Kind == o.Kind && string(e.Command) == string(o.Command)
}

func (e Entry) KindWords() string { return string(e.Kind) }

func stageWords(all output) (does []string) {
	out := all.Stage.(Output)
	for _, chunk := range out.Chunks {
		does = append(does, fmt.Sprintf("stores the piece from byte %d on", chunk.Offset))
	}
	for _, answer := range out.Reads {
		does = append(does, fmt.Sprintf("answers reads up to %d at index %d", answer.ID, answer.Index))
	}
	return does
}

func (m Message) BodyWords() string {
	switch b := m.Body.(type) {
	case AppendEntries:
		body, _ := m.Append()
		return rules.AppendWords(body) + roundWords(b.Round)
	case AppendEntriesReply:
		body, _ := m.AppendReply()
		return body.String() + roundWords(b.Round)
	case RequestVote:
		return fmt.Sprintf("my log ends in %d@%d", b.LastLogTerm, b.LastLogIndex)
	case RequestVoteReply:
		if b.Granted {
			return "yes"
		}
		return "no"
	case ReadIndex:
		return fmt.Sprintf("where may reads up to %d be answered?", b.ID)
	case ReadIndexReply:
		return fmt.Sprintf("reads up to %d at index %d", b.ID, b.Index)
	case InstallSnapshot:
		last := ""
		if b.Done {
			last = ", the last"
		}
		return fmt.Sprintf("my snapshot up to %v, from byte %d on%s", b.LastIncluded, b.Offset, last)
	case InstallSnapshotReply:
		if b.LastIncluded == (Position{}) {
			return "your term is over"
		}
		return fmt.Sprintf("of your snapshot up to %v I lack what is from byte %d on", b.LastIncluded, b.Offset)
	}
	return fmt.Sprint(m.Body)
}

func roundWords(round uint64) string {
	if round == 0 {
		return ""
	}
	return fmt.Sprintf(" (round %d)", round)
}

// stageCommand has the commands of this stage:
//
//	campaign n1     time passes on n1 until it starts an election
//	random n1 4 0   the numbers that n1 draws next; otherwise it draws 0
//	read n1         a client wants to read from n1
//	snapshot n1 2   n1 has a snapshot as of entry 2 on its disk, and still all of its log
//	compact n1 1    n1 puts a log that begins after entry 1 in its place
//	pieces n1 3     the snapshot of n1 travels in 3 pieces; otherwise in 2
//	damage n1       the next snapshot that n1 receives is damaged
func stageCommand(s *script, name string, args []string) (bool, error) {
	if !slices.Contains([]string{"campaign", "random", "read", "snapshot", "compact", "pieces", "damage"}, name) {
		return false, nil
	}
	server, err := s.Named(rules.First(args))
	if err != nil {
		return true, err
	}
	if server.Raft == nil && name != "random" {
		return true, fmt.Errorf("%v is down", server.ID)
	}
	switch name {
	case "snapshot", "compact", "pieces":
		return true, snapshotCommand(s, server, name, args[1:])
	case "damage":
		server.Stage.damaged = true
	case "campaign":
		return true, campaign(s.Cluster, server)
	case "read":
		read(s.Cluster, server)
	case "random":
		for _, arg := range args[1:] {
			x, err := strconv.ParseUint(arg, 10, 64)
			if err != nil {
				return true, err
			}
			server.Draws = append(server.Draws, x)
		}
	}
	return true, nil
}

func snapshotCommand(s *script, server *server, name string, args []string) error {
	n, err := strconv.Atoi(rules.First(args))
	if err != nil {
		return err
	}
	r, index := server.Raft, Index(n)
	switch name {
	case "pieces":
		server.Stage.pieces = n
	case "snapshot":
		if index <= r.snapshot.Index || index > r.lastApplied {
			return fmt.Errorf("%v has a snapshot up to %v and has applied %d", server.ID, r.snapshot, r.lastApplied)
		}
		freeze(server, index)
		placeSnapshot(s.Cluster, server)
	case "compact":
		if !server.Stage.placed || index < r.log.base() || index > Index(len(server.Stage.frozen)) {
			return fmt.Errorf("%v has no snapshot that covers what is before its log from %d on", server.ID, index)
		}
		compact(s.Cluster, server, index)
	}
	return nil
}

// campaign lets time pass on a server until it starts an election.
func campaign(c *cluster, s *server) error {
	r, before := s.Raft, s.Raft.currentTerm
	for range r.options.ElectionTicks[1] + 1 {
		c.Input(s, (*Raft).Tick)
		if r.currentTerm != before {
			return nil
		}
	}
	return fmt.Errorf("%v does not start an election", s.ID)
}

// mustHappen is what random runs must come to in this stage.
var mustHappen = []string{
	NewerTerm.Code, OlderTerm.Code, SteppedDown.Code, TimedOut.Code, Voted.Code, AlreadyVoted.Code, OldLog.Code, Elected.Code,
	Refused.Code, Truncated.Code, FellBack.Code, Committed.Code, LearnedCommit.Code, ReadConfirmed.Code, "read answered",
	Compacted.Code, SentSnapshot.Code, Restored.Code, "snapshot taken", "snapshot discarded",
	"log kept behind a snapshot", "log dropped for a snapshot", "snapshot ahead of its log",
}

// stageStep is this stage's own kind of random step: a read, or one or more steps
// of a snapshot, which takes its time.
func stageStep(w *world, s *server) {
	if s.Raft == nil || s.Held || w.Rand.IntN(4) == 0 {
		read(w.Cluster, s)
		return
	}
	s.Stage.pieces, s.Stage.damaged, s.Stage.unlucky = 1+w.Rand.IntN(5), w.Rand.IntN(10) == 0, w.Rand.IntN(10) == 0
	for range 1 + w.Rand.IntN(3) {
		snapshotStep(w, s)
	}
}

func snapshotStep(w *world, s *server) {
	switch r := s.Raft; {
	case s.Stage.placed:
		from, to := r.log.base(), Index(len(s.Stage.frozen))
		compact(w.Cluster, s, to-Index(w.Rand.IntN(int(to-from)+1)*w.Rand.IntN(2)))
	case s.Stage.frozen != nil:
		placeSnapshot(w.Cluster, s)
	case r.lastApplied > r.snapshot.Index && (w.Rand.IntN(4) == 0 || !r.Sending()):
		freeze(s, r.lastApplied)
	}
}

// repair leads a snapshot that is under way to its end.
func repair(w *world, s *server) {
	s.Stage.damaged, s.Stage.unlucky = false, false
	for s.Stage.frozen != nil {
		snapshotStep(w, s)
	}
}

// quorum reports whether has is true of enough servers to decide. The checks count
// for themselves.
func quorum(c Config, has func(ID) bool) bool {
	n := 0
	for _, id := range c.Voters {
		if has(id) {
			n++
		}
	}
	return n > len(c.Voters)/2
}

// ownEntries is how many entries a leader appends by itself when its term
// begins.
const ownEntries = 1

// forceElection lets time pass until a follower starts an election.
func forceElection(r *Raft) {
	for r.role == Follower {
		r.Tick()
	}
}

// makeLeader makes n1, a follower, the leader of the next term.
func makeLeader(t testing.TB, r *Raft) {
	forceElection(r)
	r.Take()
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	r.Step(from(r, 3, RequestVoteReply{Granted: true}))
	require.Equal(t, Leader, r.role)
}

// makeOnlyLeader makes the only server of a cluster the leader of the next term.
func makeOnlyLeader(t testing.TB, r *Raft) {
	forceElection(r)
	require.Equal(t, Leader, r.role)
}

// What only this stage sends: all kinds, requests with the answer to a stale one,
// and replies.
var (
	stageBodies   = []Body{RequestVote{}, RequestVoteReply{}, RequestVoteReply{Granted: true}, ReadIndex{}, ReadIndexReply{}, InstallSnapshotReply{}}
	staleRequests = map[Body]Body{RequestVote{LastLogIndex: 9, LastLogTerm: 4}: RequestVoteReply{}}
	staleReplies  = []Body{RequestVoteReply{Granted: true}, ReadIndexReply{ID: 1, Index: 1}, InstallSnapshotReply{Offset: 3}}
)

// secondLeader is what only the leader of a term sends.
func secondLeader(e Entry) []Body {
	return []Body{AppendEntries{}, AppendEntries{PrevLogIndex: e.Index - 1, PrevLogTerm: 1, Entries: []Entry{e}}, InstallSnapshot{LastIncluded: Position{1, 9}}, ReadIndexReply{ID: 1}}
}

// neverSent are answers to what a leader has never sent.
func neverSent(last Index) []AppendEntriesReply {
	return []AppendEntriesReply{
		{Success: true, MatchIndex: last + 1}, {Success: true, MatchIndex: 1<<64 - 1}, {Refused: last + 1, ConflictIndex: 1}, {Success: true, Round: 1},
	}
}
