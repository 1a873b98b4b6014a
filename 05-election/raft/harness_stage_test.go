package raft

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has: votes and reads.

var harness = &rules.Stage[*Raft, Entry, Message, stage]{
	New: startRaft, NewEntry: newEntry, Forge: forge, Output: stageOutput, Words: stageWords,
	Check: checkStage, CheckMessage: checkStageMessage, Command: stageCommand,
	Random: rules.Random[*Raft, Entry, Message, stage]{
		Runs: 400, Own: 40, MustHappen: mustHappen,
		Step:  func(w *world, s *server) { read(w.Cluster, s) },
		Waits: (*server).ReadsWait,
	},
}

// stage is what the tests remember of a server for this stage.
type stage struct{}

func startRaft(c *cluster, s *server) *Raft {
	var voters []ID
	for _, other := range c.Servers {
		voters = append(voters, ID(other.ID))
	}
	o := startOptions(ID(s.ID), voters, stateOf(&s.Disk), s.Disk.Log)
	o.MaxBatch, o.Random = c.MaxBatch, s.Draw
	if c.Random != nil {
		o.Random = c.Random
	}
	return New(o)
}

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

func stageOutput(c *cluster, s *server, all output) {
	out := all.Stage.(Output)
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
func stageCommand(s *script, name string, args []string) (bool, error) {
	if name != "campaign" && name != "random" && name != "read" {
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
