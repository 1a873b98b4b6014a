package raft

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// What only this stage has: votes and reads.

// stage is what the tests remember of a server for this stage.
type stage struct {
	// random are the numbers that the server draws next; then it draws 0.
	random []uint64

	// reads are those that wait: for each, how much was committed when it began.
	reads map[ReadID]Index
}

// The names of this stage's invariants.
const (
	oneVote          = "One Vote"
	candidateVotes   = "Candidate"
	linearizableRead = "Linearizable Read"
)

func (s *server) startOptions(members []ID) Options {
	s.stage.reads = map[ReadID]Index{}
	return Options{
		ID: s.id, Config: Config{Voters: members}, State: s.disk.state, Log: s.disk.log,
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

// stageOutput: a read sees all that was committed when it began.
func (c *cluster) stageOutput(s *server, out Output) {
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
	case RequestVoteReply:
		if to = m.To; !b.Granted {
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
	return a.Index == b.Index && a.Term == b.Term && a.Kind == b.Kind && string(a.Command) == string(b.Command)
}

func kindWords(e Entry) string { return string(e.Kind) }

func stateWords(s State) string {
	if s.VotedFor == 0 {
		return fmt.Sprintf("term %d", s.CurrentTerm)
	}
	return fmt.Sprintf("term %d and its vote for %v", s.CurrentTerm, s.VotedFor)
}

func stageWords(out Output) (does []string) {
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
		return fmt.Sprintf("my log ends in %d@%d", m.LastLogTerm, m.LastLogIndex)
	case RequestVoteReply:
		if m.Granted {
			return "yes"
		}
		return "no"
	case ReadIndex:
		return fmt.Sprintf("where may reads up to %d be answered?", m.ID)
	case ReadIndexReply:
		return fmt.Sprintf("reads up to %d at index %d", m.ID, m.Index)
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
//	campaign n1     time passes on n1 until it starts an election
//	random n1 4 0   the numbers that n1 draws next; otherwise it draws 0
//	read n1         a client wants to read from n1
func (s *script) stageCommand(name string, args []string) (bool, error) {
	if name != "campaign" && name != "random" && name != "read" {
		return false, nil
	}
	server, err := s.named(first(args))
	if err != nil {
		return true, err
	}
	if server.raft == nil && name != "random" {
		return true, fmt.Errorf("%v is down", server.id)
	}
	switch name {
	case "campaign":
		return true, s.campaign(server)
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

// campaign lets time pass on a server until it starts an election.
func (c *cluster) campaign(s *server) error {
	r, before := s.raft, s.raft.currentTerm
	for range r.options.ElectionTicks[1] + 1 {
		c.input(s, (*Raft).Tick)
		if r.currentTerm != before {
			return nil
		}
	}
	return fmt.Errorf("%v does not start an election", s.id)
}

// mustHappen is what random runs must come to in this stage.
var mustHappen = []string{
	NewerTerm.Code, OlderTerm.Code, SteppedDown.Code, TimedOut.Code, Voted.Code, AlreadyVoted.Code, OldLog.Code, Elected.Code,
	Refused.Code, Truncated.Code, FellBack.Code, Committed.Code, LearnedCommit.Code, ReadConfirmed.Code, "read answered",
}

func randomOptions(o Options, r *rand.Rand) Options {
	o.Random = r.Uint64N
	return o
}

// stageStep is this stage's own kind of random step: a read.
func (w *world) stageStep(s *server) { w.read(s) }

// stageCalm is what somebody must do so that the cluster continues by itself:
// nothing.
func (w *world) stageCalm() {}

// waits reports whether a client still waits for an answer.
func (s *server) waits() bool { return len(s.stage.reads) > 0 }

// config is who decides what is committed.
func (c *cluster) config() Config { return Config{Voters: c.members()} }

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

// stand lets time pass until a follower starts an election.
func stand(r *Raft) {
	for r.role == Follower {
		r.Tick()
	}
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
	stageBodies   = []Body{RequestVote{}, RequestVoteReply{}, RequestVoteReply{Granted: true}, ReadIndex{}, ReadIndexReply{}}
	staleRequests = map[Body]Body{RequestVote{LastLogIndex: 9, LastLogTerm: 4}: RequestVoteReply{}}
	staleReplies  = []Body{RequestVoteReply{Granted: true}, ReadIndexReply{ID: 1, Index: 1}}
)

// secondLeader is what only the leader of a term sends.
func secondLeader(e Entry) []Body {
	return []Body{AppendEntries{}, AppendEntries{PrevLogIndex: e.Index - 1, PrevLogTerm: 1, Entries: []Entry{e}}, ReadIndexReply{ID: 1}}
}

// neverSent are answers to what a leader has never sent.
func neverSent(last Index) []AppendEntriesReply {
	return []AppendEntriesReply{
		{Success: true, MatchIndex: last + 1}, {Success: true, MatchIndex: 1<<64 - 1}, {Refused: last + 1, ConflictIndex: 1}, {Success: true, Round: 1},
	}
}
