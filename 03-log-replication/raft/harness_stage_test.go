package raft

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// What only this stage has: leaders that an operator appoints.

// stage is what the tests remember of a server for this stage.
type stage struct{}

func (s *server) startOptions(members []ID) Options {
	return Options{
		ID: s.id, Config: Config{Voters: members}, State: s.disk.state, Log: s.disk.log,
		HeartbeatTicks: 3, MaxBatch: 1000, Explain: true,
	}
}

func (c *cluster) stageOutput(*server, Output) {}

func (c *cluster) checkStage(*server) {}

func (c *cluster) checkStageMessage(*server, Message) {}

func sameEntry(a, b Entry) bool {
	return a.Index == b.Index && a.Term == b.Term && string(a.Command) == string(b.Command)
}

func kindWords(Entry) string { return "" }

func stateWords(s State) string { return fmt.Sprintf("term %d", s.CurrentTerm) }

func stageWords(Output) []string { return nil }

func bodyWords(b Body) string {
	switch m := b.(type) {
	case AppendEntries:
		return appendWords(m)
	case AppendEntriesReply:
		return replyWords(m)
	}
	return fmt.Sprint(b)
}

// stageCommand has the command of this stage:
//
//	lead n1 4    the operator appoints n1 to lead term 4
func (s *script) stageCommand(name string, args []string) (bool, error) {
	if name != "lead" || len(args) != 2 {
		return false, nil
	}
	server, err := s.named(args[0])
	if err != nil {
		return true, err
	}
	term, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return true, err
	}
	s.input(server, func(r *Raft) {
		if err := r.Lead(Term(term)); err != nil {
			s.print(fmt.Sprintf(effect+"%v does not lead term %d: %v", server.id, term, err))
		}
	})
	return true, nil
}

// mustHappen is what random runs must come to in this stage.
var mustHappen = []string{
	NewerTerm.Code, OlderTerm.Code, SteppedDown.Code, Appointed.Code,
	Refused.Code, Truncated.Code, FellBack.Code, Committed.Code, LearnedCommit.Code,
}

func randomOptions(o Options, _ *rand.Rand) Options { return o }

// stageStep is this stage's own kind of random step: an appointment, now and then.
func (w *world) stageStep(*server) {
	if w.rand.IntN(4) == 0 {
		w.appoint()
	}
}

// appoint is what an operator does who does it right: of a majority, the server
// whose log is the most up to date leads, in a term that is new, and the server that led
// before is stopped first and comes back as a follower.
func (w *world) appoint() {
	var best *server
	asked, term := 0, Term(0)
	for _, i := range w.rand.Perm(len(w.servers)) {
		s := w.servers[i]
		term = max(term, s.disk.state.CurrentTerm)
		if s.raft == nil || s.held || 2*asked > len(w.servers) {
			continue
		}
		asked++
		if best == nil || later(s.disk.last(), best.disk.last()) {
			best = s
		}
	}
	if 2*asked <= len(w.servers) {
		return
	}
	for _, s := range w.servers {
		if s != best && s.raft != nil && s.raft.role == Leader {
			w.crash(s)
			w.start(s)
		}
	}
	w.input(best, func(r *Raft) { _ = r.Lead(term + 1) })
}

// later reports whether a log that ends in p is more up to date than one that ends
// in q.
func later(p, q Position) bool {
	return p.Term > q.Term || p.Term == q.Term && p.Index > q.Index
}

// stageCalm is what somebody must do so that the cluster goes on: appoint a leader.
func (w *world) stageCalm() { w.appoint() }

// waits reports whether a client still waits for an answer.
func (s *server) waits() bool { return false }

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
const ownEntries = 0

// lead makes n1, a follower, the leader of the next term.
func lead(t testing.TB, r *Raft) {
	require.NoError(t, r.Lead(r.currentTerm+1))
	require.Equal(t, Leader, r.role)
}

// lead1 makes the only server of a cluster the leader of the next term.
func lead1(t testing.TB, r *Raft) { lead(t, r) }

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
