package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

const (
	get      = `{"op":"get","key":"x"}`
	getFresh = `{"op":"get","key":"x","consistency":"linearizable"}`
	getStale = `{"op":"get","key":"x","consistency":"stale"}`
)

// value checks that a read was answered with that value.
func (w *world) value(a *answer, want string) {
	w.t.Helper()
	w.done(a)
	require.Equal(w.t, want, a.responses[0].Value)
}

func TestAReadWaitsForAMajority(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	w.forget()
	for _, text := range []string{get, getFresh} {
		a := w.ask(text)
		w.flush()
		require.Empty(t, a.responses, "it may have been deposed without knowing")
		w.acknowledge(3)
		w.flush()
		w.value(a, "1")
	}
	require.NotContains(t, w.order, "sync", "a read changes nothing")
}

// A list is a read like a get.
func TestAListWaitsForAMajority(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.put("y", "2")
	w.commit()
	a := w.ask(`{"op":"list","after":"x"}`)
	w.flush()
	require.Empty(t, a.responses)
	w.acknowledge(3)
	w.flush()
	w.done(a)
	require.JSONEq(t, `{"keys":[{"key":"y","value":"2"}]}`, string(a.responses[0].WithData().Data))
	require.Equal(t, uint64(w.status().Applied), a.responses[0].Index, "a backup follows the changes from there on")
	w.done(w.ask(`{"op":"list","consistency":"stale"}`))
}

// A follower's answer that was on its way before the read began says nothing
// about now.
func TestAnOldAnswerDoesNotConfirmARead(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.flush()
	old := w.sent[0].Body.(raft.AppendEntries)
	a := w.ask(get)
	w.receive(2, w.status().CurrentTerm, success(old))
	w.flush()
	require.Empty(t, a.responses)
	w.acknowledge(2)
	w.flush()
	w.value(a, "1")
}

func TestReadsThatWaitShareOneRound(t *testing.T) {
	w := lead(t, 3)
	var all []*answer
	for range 100 {
		all = append(all, w.ask(get))
	}
	w.flush()
	require.Equal(t, []string{"AppendEntries", "AppendEntries"}, w.order)
	w.acknowledge(2)
	w.flush()
	for _, a := range all {
		w.refused(a, api.NotFound, "no value")
	}
}

// A new leader knows all committed entries, but not which of its entries they
// are, until one of its own term is committed (§8).
func TestANewLeaderReadsNothingYet(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(2, 1, raft.AppendEntries{Entries: entries(1, 1, 1)})
	w.flush()
	w.stand()
	w.receive(3, w.status().CurrentTerm, raft.RequestVoteReply{Granted: true})
	a := w.ask(`{"op":"get","key":"k1"}`)
	w.flush()
	require.Empty(t, a.responses)
	w.commit()
	w.acknowledge(2)
	w.flush()
	w.value(a, "of term 1")
}

func TestAStaleReadIsAnsweredAtOnce(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.flush()
	w.refused(w.ask(getStale), api.NotFound, "no value")
	w.commit()
	w.value(w.ask(getStale), "1")

	f := start(t, 3, disk.NewSim("d"))
	f.refused(f.ask(getStale), api.NotFound, "no value")
}

func TestAnUnknownConsistencyIsRefused(t *testing.T) {
	w := lead(t, 3)
	w.refused(w.ask(`{"op":"get","key":"x","consistency":"eventual"}`), api.BadRequest, `unknown consistency "eventual"; there are linearizable and stale`)
}

// A follower asks the leader for the index, and answers when it has applied
// that much.
func TestAReadFromAFollower(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	a := w.ask(`{"op":"get","key":"k1"}`)
	w.flush()
	require.NotContains(t, w.order, "ReadIndex", "it knows nobody to ask")
	w.receive(2, 1, raft.AppendEntries{Entries: entries(1, 1, 1)})
	w.flush()
	question := w.sent[len(w.sent)-1]
	for _, m := range w.sent {
		if _, ok := m.Body.(raft.ReadIndex); ok {
			question = m
		}
	}
	require.IsType(t, raft.ReadIndex{}, question.Body)
	require.EqualValues(t, 2, question.To)
	w.receive(2, 1, raft.ReadIndexReply{ID: question.Body.(raft.ReadIndex).ID, Index: 1})
	w.flush()
	require.Empty(t, a.responses, "entry 1 is not applied here")
	w.receive(2, 1, raft.AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1, LeaderCommit: 1})
	w.flush()
	w.value(a, "of term 1")
}

// A read that a deposed leader has begun goes to the new one.
func TestAReadSurvivesTheLeader(t *testing.T) {
	w := lead(t, 3)
	a := w.ask(get)
	w.flush()
	term := w.status().CurrentTerm
	w.receive(2, term+1, raft.AppendEntries{PrevLogIndex: w.status().Last, PrevLogTerm: term})
	w.forget()
	w.flush()
	require.Empty(t, a.responses)
	require.Contains(t, w.order, "ReadIndex")
	for _, m := range w.sent {
		if body, ok := m.Body.(raft.ReadIndex); ok {
			w.receive(2, term+1, raft.ReadIndexReply{ID: body.ID, Index: w.status().Commit})
		}
	}
	w.flush()
	w.refused(a, api.NotFound, "no value")
}

func TestAServerAloneReadsAtOnce(t *testing.T) {
	w := lead(t, 1)
	put, a := w.put("x", "1"), w.ask(get)
	w.flush()
	w.done(put)
	require.Len(t, a.responses, 1)
}

// A server that is cut off holds on to no clients.
func TestAReadWithoutConfirmationTimesOut(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	a := w.ask(get)
	w.flush()
	for range node.Ticks(readPatience) - 1 {
		w.server.Tick()
	}
	b := w.ask(get)
	require.Empty(t, a.responses)
	w.server.Tick()
	w.refused(a, api.Unavailable, "within 2s")
	require.Empty(t, b.responses, "it came later")
}

// An answer in a round that never began could confirm every later read.
func TestAnAnswerForAWrongRoundIsRefused(t *testing.T) {
	w := lead(t, 3)
	w.receive(3, w.status().CurrentTerm, raft.AppendEntriesReply{Success: true, Round: 1 << 60})
	w.loud("it answers what n1 has never sent")
	a := w.ask(get)
	w.flush()
	require.Empty(t, a.responses)
}

// An answer that says a later index, for later reads, does not make a read wait.
func TestAReadWaitsForItsOwnIndex(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(2, 1, raft.AppendEntries{Entries: entries(1, 1, 2)})
	w.flush()
	a := w.ask(`{"op":"get","key":"k1"}`)
	w.flush()
	question := w.sent[len(w.sent)-1]
	require.IsType(t, raft.ReadIndex{}, question.Body)
	id := question.Body.(raft.ReadIndex).ID
	w.receive(2, 1, raft.ReadIndexReply{ID: id, Index: 1})
	w.flush()
	b := w.ask(`{"op":"get","key":"k1"}`)
	w.flush()
	w.receive(2, 1, raft.ReadIndexReply{ID: id + 1, Index: 2})
	w.flush()
	w.receive(2, 1, raft.AppendEntries{PrevLogIndex: 2, PrevLogTerm: 1, LeaderCommit: 1})
	w.flush()
	require.Len(t, a.responses, 1)
	require.Empty(t, b.responses)
}
