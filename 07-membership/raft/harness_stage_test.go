package raft

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What only this stage has: votes, reads and snapshots. What it has of changes of the
// members stands in harness_changes_test.go.

// stage is what the tests remember of a server for this stage.
type stage struct {
	// random are the numbers that the server draws next; then it draws 0.
	random []uint64

	// reads are those that wait: for each, how much was committed when it began.
	reads map[ReadID]Index

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

	// joins says that the server is not in the first configuration.
	joins bool

	changes changes
}

// The names of this stage's invariants.
const (
	oneVote          = "One Vote"
	candidateVotes   = "Candidate"
	linearizableRead = "Linearizable Read"
	snapshotTrue     = "Snapshot"
	configTrue       = "Configuration"
	configStep       = "Configuration Step"
	configOverlap    = "Configuration Overlap"
	votersKnown      = "Voters Known"
)

func (s *server) startOptions(members []ID) Options {
	s.stage.reads = map[ReadID]Index{}
	s.stage.frozen, s.stage.placed, s.stage.incoming = nil, false, nil
	config, covers := s.configs(members)
	return Options{
		ID: s.id, Config: config, SnapshotConfig: covers, State: s.disk.state, Log: s.disk.log,
		Base: s.disk.base, Snapshot: s.disk.covered(),
		HeartbeatTicks: 3, ElectionTicks: [2]int{10, 19}, MaxBatch: 1000,
		Random: s.draw, Explain: true,
	}
}

func (s *server) draw(n uint64) uint64 {
	if len(s.stage.random) == 0 {
		return 0
	}
	x := s.stage.random[0]
	s.stage.random = s.stage.random[1:]
	return x % n
}

// read starts a read on a server.
func (c *cluster) read(s *server) {
	c.input(s, func(r *Raft) { s.stage.reads[r.Read()] = Index(len(c.ghost.committed)) })
}

// covered is the last entry that the snapshot on the disk covers.
func (d *disk) covered() Position {
	if len(d.snapshot) == 0 {
		return Position{}
	}
	return place(d.snapshot[len(d.snapshot)-1])
}

// freeze begins a snapshot of a server's state machine as it is after an entry.
func (s *server) freeze(at Index) {
	s.stage.frozen = slices.Clip(s.applied[:at])
}

// place gives a snapshot that is written its name, unless a leader's was faster.
// The log stays as it is.
func (c *cluster) place(s *server) {
	if Index(len(s.stage.frozen)) <= s.raft.snapshot.Index {
		s.stage.frozen = nil
		return
	}
	c.counts["snapshot taken"]++
	s.stage.placed = true
	s.disk.snapshot, s.disk.covers = s.stage.frozen, s.raft.Config(Index(len(s.stage.frozen)))
	s.disk.whole = s.disk.join()
	c.checkDisk(s)
}

// compact puts the log behind base in place of the whole one, and tells the
// rules.
func (c *cluster) compact(s *server, base Index) {
	at := Index(len(s.stage.frozen))
	s.stage.frozen, s.stage.placed = nil, false
	s.disk.log = slices.Clone(s.disk.log[base-s.disk.base.Index:])
	s.disk.base, s.disk.config = s.raft.Position(base), s.raft.Config(base)
	s.disk.whole = s.disk.join()
	c.input(s, func(r *Raft) { r.Compact(at, base) })
}

// file returns the bytes of a server's snapshot. No two servers write the same.
func (s *server) file() string {
	content := s.applied[:s.raft.snapshot.Index]
	return fmt.Sprintf("%v: %s%s end of %v", s.id, entriesWords(content), snapshotWords(s.raft.Config(s.raft.snapshot.Index)), s.id)
}

// fill puts a piece of the snapshot into a message that is to bring one. It
// reports false if there is a newer snapshot by now.
func (s *server) fill(m *Message) bool {
	b, is := m.Body.(InstallSnapshot)
	if !is {
		return true
	}
	if b.LastIncluded != s.raft.snapshot {
		return false
	}
	file := s.file()
	pieces := cmp.Or(s.stage.pieces, 2)
	size := (len(file) + pieces - 1) / pieces
	from := int(b.Offset)
	to := min(from+size, len(file))
	b.Data, b.Done = []byte(file[from:to]), to == len(file)
	m.Body = b
	return true
}

// store keeps a piece of a leader's snapshot, and takes the whole over with the
// last one.
func (c *cluster) store(s *server, m InstallSnapshot) {
	if m.Offset == 0 {
		s.stage.incoming = []byte{}
	}
	if s.stage.incoming == nil {
		s.raft.Discard()
		return
	}
	s.stage.incoming = append(s.stage.incoming[:min(int(m.Offset), len(s.stage.incoming))], m.Data...)
	if m.Done {
		c.install(s, m.LastIncluded)
	}
}

// install checks a snapshot that is complete and takes it over.
func (c *cluster) install(s *server, at Position) {
	file := string(s.stage.incoming)
	s.stage.incoming = nil
	if at.Index <= s.raft.commitIndex || s.stage.placed || s.stage.damaged {
		c.counts["snapshot discarded"]++
		s.stage.damaged = false
		s.raft.Discard()
		return
	}
	var content []Entry
	for i := range min(at.Index, Index(len(c.ghost.committed))) {
		content = append(content, c.ghost.committed[i].entry)
	}
	first, _, _ := strings.Cut(file, ":")
	config := c.configAt(content)
	if want := fmt.Sprintf("%s: %s%s end of %s", first, entriesWords(content), snapshotWords(config), first); file != want || len(content) < int(at.Index) || place(content[at.Index-1]) != at {
		c.broken(snapshotTrue, "%v takes over a snapshot that ends in %v and is %q; it should be %q", s.id, at, file, want)
		s.raft.Discard()
		return
	}
	if r := s.raft; at.Index < r.log.lastIndex() && r.log.term(at.Index) == at.Term {
		c.counts["log kept behind a snapshot"]++
	} else if len(r.log.entries) > 1 {
		c.counts["log dropped for a snapshot"]++
	}
	if s.stage.unlucky {
		s.stage.unlucky, s.powerFails = false, 0
	}
	s.disk.snapshot, s.disk.covers, s.applied = content, config, content
	s.disk.whole = s.disk.join()
	s.raft.Restore(at, config)
}

// stageOutput: a read sees all that was committed when it began.
func (c *cluster) stageOutput(s *server, out Output) {
	c.checkAppended(s, out)
	for _, chunk := range out.Chunks {
		c.store(s, chunk)
	}
	for _, answer := range out.Reads {
		for id, least := range s.stage.reads {
			if id > answer.ID {
				continue
			}
			if answer.Index < least {
				c.broken(linearizableRead, "%v answers read %d at %d, and when it began %d was committed", s.id, id, answer.Index, least)
			}
			delete(s.stage.reads, id)
			c.counts["read answered"]++
		}
	}
}

// checkStage: a vote, once on disk, holds for the whole term. A candidate has
// its own vote, and no vote that was not given.
func (c *cluster) checkStage(s *server) {
	r, d := s.raft, s.disk.state
	c.checkVote(s, d.CurrentTerm, d.VotedFor)
	c.checkConfig(s)
	if r.role != Candidate {
		return
	}
	if r.votedFor != s.id || !slices.Contains(r.votes, s.id) {
		c.broken(candidateVotes, "%v starts an election in term %d without its own vote", s.id, r.currentTerm)
	}
	for i, of := range r.votes {
		if c.ghost.votes[vote{of, r.currentTerm}] != s.id || slices.Contains(r.votes[:i], of) {
			c.broken(candidateVotes, "%v counts a vote of %v in term %d that it did not get", s.id, of, r.currentTerm)
		}
	}
}

// checkStageMessage: a server that asks for a vote or gives one has it on disk, and
// gives one in a term at most, crash or no crash. A server that has moved to a
// newer term cannot give the old vote again.
func (c *cluster) checkStageMessage(s *server, m Message) {
	to := s.id
	switch b := m.Body.(type) {
	case RequestVote:
		if b.PreVote {
			return
		}
	case RequestVoteReply:
		if by := c.committedConfig(b.Committed.Index); b.Removed && slices.Contains(by.Members(), m.To) {
			c.broken(configTrue, "%v tells %v that it is no member, and by entry %d the members are %s", s.id, m.To, b.Committed.Index, configWords(by))
		}
		if to = m.To; !b.Granted || b.PreVote {
			return
		}
	default:
		return
	}
	if d := s.disk.state; d.CurrentTerm == m.Term && d.VotedFor != to {
		c.broken(savedFirst, "%v gives its vote in term %d to %v, and its disk says %v", s.id, m.Term, to, d.VotedFor)
	}
	c.checkVote(s, m.Term, to)
}

func (c *cluster) checkVote(s *server, term Term, to ID) {
	before, given := c.ghost.votes[vote{s.id, term}]
	if given && before != to {
		c.broken(oneVote, "%v gave its vote in term %d to %v, and now it is %v's", s.id, term, before, to)
	}
	if to != 0 {
		c.ghost.votes[vote{s.id, term}] = to
	}
}

func sameEntry(a, b Entry) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Kind == b.Kind && string(a.Command) == string(b.Command) && sameConfig(a.Config, b.Config)
}

func kindWords(e Entry) string {
	if e.Config != nil {
		return configWords(*e.Config)
	}
	return string(e.Kind)
}

func stateWords(s State) string {
	if s.VotedFor == 0 {
		return fmt.Sprintf("term %d", s.CurrentTerm)
	}
	return fmt.Sprintf("term %d and its vote for %v", s.CurrentTerm, s.VotedFor)
}

func stageWords(out Output) (does []string) {
	for _, chunk := range out.Chunks {
		does = append(does, fmt.Sprintf("stores the piece from byte %d on", chunk.Offset))
	}
	for _, answer := range out.Reads {
		does = append(does, fmt.Sprintf("answers reads up to %d at index %d", answer.ID, answer.Index))
	}
	return does
}

func bodyWords(b Body) string {
	switch m := b.(type) {
	case AppendEntries:
		return appendWords(m) + roundWords(m.Round)
	case AppendEntriesReply:
		return replyWords(m) + roundWords(m.Round)
	case RequestVote:
		return requestWords(m)
	case RequestVoteReply:
		return voteWords(m)
	case TimeoutNow:
		return "start an election now"
	case ReadIndex:
		return fmt.Sprintf("where may reads up to %d be answered?", m.ID)
	case ReadIndexReply:
		return fmt.Sprintf("reads up to %d at index %d", m.ID, m.Index)
	case InstallSnapshot:
		last := ""
		if m.Done {
			last = ", the last"
		}
		return fmt.Sprintf("my snapshot up to %v, from byte %d on%s", m.LastIncluded, m.Offset, last)
	case InstallSnapshotReply:
		if m.LastIncluded == (Position{}) {
			return "your term is over"
		}
		return fmt.Sprintf("of your snapshot up to %v I lack what is from byte %d on", m.LastIncluded, m.Offset)
	}
	return fmt.Sprint(b)
}

func roundWords(round uint64) string {
	if round == 0 {
		return ""
	}
	return fmt.Sprintf(" (round %d)", round)
}

// stageCommand has the commands of this stage:
//
//	campaign n1     nobody has heard of a leader for an election timeout: n1 asks, and hears, who would vote for it
//	timeoutnow n1   n1 starts an election at once, as its leader's TimeoutNow lets it
//	ask n1          time passes on n1 until it asks who would vote for it
//	random n1 4 0   the numbers that n1 draws next; otherwise it draws 0
//	read n1         a client wants to read from n1
//	snapshot n1 2   n1 has a snapshot as of entry 2 on its disk, and still all of its log
//	compact n1 1    n1 puts a log that begins after entry 1 in its place
//	pieces n1 3     the snapshot of n1 travels in 3 pieces; otherwise in 2
//	damage n1       the next snapshot that n1 receives is damaged
//
// changeCommand has those about the members.
func (s *script) stageCommand(name string, args []string) (bool, error) {
	if !slices.Contains([]string{"campaign", "timeoutnow", "ask", "random", "read", "snapshot", "compact", "pieces", "damage"}, name) {
		return s.changeCommand(name, args)
	}
	server, err := s.named(first(args))
	if err != nil {
		return true, err
	}
	if server.raft == nil && name != "random" {
		return true, fmt.Errorf("%v is down", server.id)
	}
	switch name {
	case "snapshot", "compact", "pieces":
		return true, s.snapshotCommand(server, name, args[1:])
	case "damage":
		server.stage.damaged = true
	case "campaign":
		return true, s.campaign(server)
	case "timeoutnow":
		s.timeoutNow(server)
	case "ask":
		return true, s.ask(server)
	case "read":
		s.read(server)
	case "random":
		for _, arg := range args[1:] {
			x, err := strconv.ParseUint(arg, 10, 64)
			if err != nil {
				return true, err
			}
			server.stage.random = append(server.stage.random, x)
		}
	}
	return true, nil
}

func (s *script) snapshotCommand(server *server, name string, args []string) error {
	n, err := strconv.Atoi(first(args))
	if err != nil {
		return err
	}
	r, index := server.raft, Index(n)
	switch name {
	case "pieces":
		server.stage.pieces = n
	case "snapshot":
		if index <= r.snapshot.Index || index > r.lastApplied {
			return fmt.Errorf("%v has a snapshot up to %v and has applied %d", server.id, r.snapshot, r.lastApplied)
		}
		server.freeze(index)
		s.place(server)
	case "compact":
		if !server.stage.placed || index < r.log.base() || index > Index(len(server.stage.frozen)) {
			return fmt.Errorf("%v has no snapshot that covers what is before its log from %d on", server.id, index)
		}
		s.compact(server, index)
	}
	return nil
}

// campaign lets an election timeout pass in which nobody has heard of a leader, until
// a server asks who would vote for it. Its questions and their answers arrive, and
// if a majority would, it starts an election.
func (c *cluster) campaign(s *server) error {
	for _, other := range c.servers {
		if other.raft != nil && other.raft.role == Follower {
			other.raft.silence()
		}
	}
	if err := c.ask(s); err != nil {
		return err
	}
	c.deliver(func(m Message) bool {
		request, ok := m.Body.(RequestVote)
		return ok && request.PreVote && m.From == s.id
	})
	c.deliver(func(m Message) bool {
		reply, ok := m.Body.(RequestVoteReply)
		return ok && (reply.PreVote || reply.Removed) && m.To == s.id
	})
	return nil
}

// deliver lets the messages that are in flight now arrive, if they are among those.
func (c *cluster) deliver(among func(Message) bool) {
	for i := 0; i < len(c.network); {
		if !among(c.network[i]) {
			i++
			continue
		}
		c.arrive(c.take(i))
	}
}

// timeoutNow makes a server start an election at once, as its leader's message does.
// A candidate gives its old election up first, as it would before it asks.
func (c *cluster) timeoutNow(s *server) {
	c.input(s, func(r *Raft) {
		if r.role == Candidate {
			r.becomeFollower(r.currentTerm)
		}
		stand(r)
	})
}

// mustHappen is what random runs must come to in this stage.
var mustHappen = []string{
	NewerTerm.Code, OlderTerm.Code, SteppedDown.Code, TimedOut.Code, Voted.Code, AlreadyVoted.Code, OldLog.Code, KnowsNoVoters.Code, Elected.Code,
	Refused.Code, Truncated.Code, FellBack.Code, Committed.Code, LearnedCommit.Code, ReadConfirmed.Code, "read answered",
	Compacted.Code, SentSnapshot.Code, Restored.Code, "snapshot taken", "snapshot discarded",
	"log kept behind a snapshot", "log dropped for a snapshot", "snapshot ahead of its log",
	Asks.Code, WouldVote.Code, LeaderLives.Code, LostMajority.Code, HandsOver.Code,
	Learning.Code, Jointly.Code, Final.Code, CalledOff.Code, "change rolled back", "leader left", "transfer begun", "told of its removal",
}

func randomOptions(o Options, r *rand.Rand) Options {
	o.Random = r.Uint64N
	return o
}

// stageStep is this stage's own kind of random step: a read, or one or more steps
// of a snapshot, which takes its time.
func (w *world) stageStep(s *server) {
	if w.odds.changes && w.rand.IntN(3) == 0 {
		w.changeStep(s)
		return
	}
	if s.raft == nil || s.held || w.rand.IntN(4) == 0 {
		w.read(s)
		return
	}
	s.stage.pieces, s.stage.damaged, s.stage.unlucky = 1+w.rand.IntN(5), w.rand.IntN(10) == 0, w.rand.IntN(10) == 0
	for range 1 + w.rand.IntN(3) {
		w.snapshotStep(s)
	}
}

// snapshotStep is the next step of a snapshot. A server that joins takes none before
// it knows the members.
func (w *world) snapshotStep(s *server) {
	switch r := s.raft; {
	case s.stage.placed:
		from, to := r.log.base(), Index(len(s.stage.frozen))
		w.compact(s, to-Index(w.rand.IntN(int(to-from)+1)*w.rand.IntN(2)))
	case s.stage.frozen != nil:
		w.place(s)
	case r.lastApplied > r.snapshot.Index && len(r.Config(r.lastApplied).Voters) > 0 && (w.rand.IntN(4) == 0 || !r.Sending()):
		s.freeze(r.lastApplied)
	}
}

// endSnapshot leads a snapshot that is under way to its end.
func (w *world) endSnapshot(s *server) {
	for s.stage.frozen != nil {
		w.snapshotStep(s)
	}
}

// stageCalm is what somebody must do so that the cluster continues by itself:
// nothing.
func (w *world) stageCalm() {}

// waits reports whether a client still waits for an answer.
func (s *server) waits() bool { return len(s.stage.reads) > 0 }

// config is who decides what is committed: the newest configuration that is.
func (c *cluster) config() Config { return c.committedConfig(Index(len(c.ghost.committed))) }

// quorum reports whether has is true of enough servers to decide: in a joint
// configuration of both majorities. The checks count for themselves.
func quorum(c Config, has func(ID) bool) bool {
	most := func(voters []ID) bool {
		n := 0
		for _, id := range voters {
			if has(id) {
				n++
			}
		}
		return n > len(voters)/2
	}
	return most(c.Voters) && (!c.Joint || most(c.Next))
}

// ownEntries is how many entries a leader appends by itself when its term
// begins.
const ownEntries = 1

// stand makes a follower start an election at once, as if its leader had told it.
// Else it would ask the others first.
func stand(r *Raft) {
	r.Step(Message{From: cmp.Or(r.leader, 2), To: r.options.ID, Term: r.currentTerm, Body: TimeoutNow{}})
}

// lead makes n1, a follower, the leader of the next term.
func lead(t testing.TB, r *Raft) {
	stand(r)
	r.Take()
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	r.Step(from(r, 3, RequestVoteReply{Granted: true}))
	require.Equal(t, Leader, r.role)
}

// lead1 makes the only server of a cluster the leader of the next term.
func lead1(t testing.TB, r *Raft) {
	stand(r)
	require.Equal(t, Leader, r.role)
}

// What only this stage sends: all kinds, requests with the answer to a stale one,
// and replies.
var (
	stageBodies   = []Body{RequestVote{Transfer: true}, RequestVoteReply{}, RequestVoteReply{Granted: true}, ReadIndex{}, ReadIndexReply{}, InstallSnapshotReply{}}
	staleRequests = map[Body]Body{RequestVote{LastLogIndex: 9, LastLogTerm: 4, Transfer: true}: RequestVoteReply{}}
	staleReplies  = []Body{RequestVoteReply{Granted: true}, RequestVoteReply{Granted: true, PreVote: true}, TimeoutNow{}, ReadIndexReply{ID: 1, Index: 1}, InstallSnapshotReply{Offset: 3}}
)

// secondLeader is what only the leader of a term sends.
func secondLeader(e Entry) []Body {
	return []Body{
		AppendEntries{}, AppendEntries{PrevLogIndex: e.Index - 1, PrevLogTerm: 1, Entries: []Entry{e}},
		AppendEntries{Entries: []Entry{{Index: 1, Term: 1, Kind: ConfigEntry, Config: &Config{Voters: []ID{2}, Index: 1}}}},
		InstallSnapshot{LastIncluded: Position{1, 9}}, ReadIndexReply{ID: 1}, TimeoutNow{},
	}
}

// neverSent are answers to what a leader has never sent.
func neverSent(last Index) []AppendEntriesReply {
	return []AppendEntriesReply{
		{Success: true, MatchIndex: last + 1}, {Success: true, MatchIndex: 1<<64 - 1}, {Refused: last + 1, ConflictIndex: 1}, {Success: true, Round: 1},
	}
}
