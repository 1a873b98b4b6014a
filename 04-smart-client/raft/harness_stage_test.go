package raft

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/rules"
)

// What only this stage has: leaders that an operator appoints.

var harness = &rules.Stage[*Raft, Entry, Message, stage]{
	New: startRaft, NewEntry: newEntry, Forge: forge, Command: stageCommand,
	Random: rules.Random[*Raft, Entry, Message, stage]{
		Runs: 400, Own: 40, Step: stageStep, Calm: appoint,
		MustHappen: mustHappen,
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
	o.MaxBatch = c.MaxBatch
	return New(o)
}

// startOptions are those of a server with a state and a log on its disk.
func startOptions(id ID, voters []ID, state State, log []Entry) Options {
	return Options{ID: id, Config: Config{Voters: voters}, State: state, Log: log, HeartbeatTicks: 3, MaxBatch: 1000, Explain: true}
}

func (e Entry) Same(o Entry) bool {
	return e.Index == o.Index && e.Term == o.Term && string(e.Command) == string(o.Command)
}

func (e Entry) KindWords() string { return "" }

func (m Message) BodyWords() string {
	if b, is := m.Append(); is {
		return rules.AppendWords(b)
	}
	if b, is := m.AppendReply(); is {
		return b.String()
	}
	return fmt.Sprint(m.Body)
}

// stageCommand has the command of this stage:
//
//	lead n1 4    the operator appoints n1 to lead term 4
func stageCommand(s *script, name string, args []string) (bool, error) {
	if name != "lead" || len(args) != 2 {
		return false, nil
	}
	server, err := s.Named(args[0])
	if err != nil {
		return true, err
	}
	term, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return true, err
	}
	s.Input(server, func(r *Raft) {
		if err := r.Lead(Term(term)); err != nil {
			s.Print(fmt.Sprintf(rules.Effect+"%v does not lead term %d: %v", server.ID, term, err))
		}
	})
	return true, nil
}

// mustHappen is what random runs must come to in this stage.
var mustHappen = []string{
	NewerTerm.Code, OlderTerm.Code, SteppedDown.Code, Appointed.Code,
	Refused.Code, Truncated.Code, FellBack.Code, Committed.Code, LearnedCommit.Code,
}

// stageStep is this stage's own kind of random step: an appointment, now and then.
func stageStep(w *world, _ *server) {
	if w.Rand.IntN(4) == 0 {
		appoint(w)
	}
}

// appoint is what an operator does who does it right: of a majority, the server
// whose log is the most up to date leads, in a term that is new, and the server that led
// before is stopped first and comes back as a follower.
func appoint(w *world) {
	var best *server
	asked, term := 0, uint64(0)
	for _, i := range w.Rand.Perm(len(w.Servers)) {
		s := w.Servers[i]
		term = max(term, s.Disk.State.CurrentTerm)
		if s.Raft == nil || s.Held || 2*asked > len(w.Servers) {
			continue
		}
		asked++
		if best == nil || later(s.Disk.Last(), best.Disk.Last()) {
			best = s
		}
	}
	if 2*asked <= len(w.Servers) {
		return
	}
	for _, s := range w.Servers {
		if s != best && s.Leads() {
			w.Crash(s)
			w.Start(s)
		}
	}
	w.Input(best, func(r *Raft) { _ = r.Lead(Term(term + 1)) })
}

// later reports whether a log that ends in p is more up to date than one that ends
// in q.
func later(p, q rules.Position) bool {
	return p.Term > q.Term || p.Term == q.Term && p.Index > q.Index
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
const ownEntries = 0

// makeLeader makes n1, a follower, the leader of the next term.
func makeLeader(t testing.TB, r *Raft) {
	require.NoError(t, r.Lead(r.currentTerm+1))
	require.Equal(t, Leader, r.role)
}

// makeOnlyLeader makes the only server of a cluster the leader of the next term.
func makeOnlyLeader(t testing.TB, r *Raft) { makeLeader(t, r) }

// What only this stage sends: nothing.
var (
	stageBodies   []Body
	staleRequests map[Body]Body
	staleReplies  []Body
)

// neverSent are answers to what a leader has never sent.
func neverSent(last Index) []AppendEntriesReply {
	return []AppendEntriesReply{
		{Success: true, MatchIndex: last + 1}, {Success: true, MatchIndex: 1<<64 - 1}, {Refused: last + 1, ConflictIndex: 1},
	}
}
