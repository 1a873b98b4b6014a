package raft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// committedLeader returns n1 as a leader that has committed an entry of its term
// and heard from all.
func committedLeader(t *testing.T, term Term) *Raft {
	r := leader(t, term)
	accept(r, 2, 1)
	accept(r, 3, 1)
	takeAll(r)
	require.Equal(t, Index(1), r.Status().Commit)
	return r
}

// drain takes all outputs and returns the answers to reads in them, and the
// messages.
func drain(r *Raft) (answers []ReadIndexReply, sent []Message) {
	for out := r.Take(); !out.Empty(); out = r.Take() {
		answers = append(answers, out.Reads...)
		sent = append(sent, out.sent()...)
	}
	return answers, sent
}

// echo lets a server answer an AppendEntries of a round.
func echo(r *Raft, id ID, round uint64) {
	r.Step(from(r, id, AppendEntriesReply{Success: true, MatchIndex: r.log.lastIndex(), Round: round}))
}

// A round that never began confirms nothing.
func TestAFalseRoundConfirmsNothing(t *testing.T) {
	r := leader(t, 4, 1)
	r.Step(from(r, 2, AppendEntriesReply{Success: true, Round: 1 << 60}))
	require.Zero(t, r.progress[2].round)
}

// "A leader must check whether it has been deposed before processing a read-only
// request", by "having the leader exchange heartbeat messages with a majority of
// the cluster" (§8).
func TestReadNeedsAMajority(t *testing.T) {
	r := leaderOfFive(t, 3)
	for _, id := range []ID{2, 3, 4, 5} {
		accept(r, id, 1)
	}
	takeAll(r)
	id := r.Read()
	answers, sent := drain(r)
	require.Empty(t, answers)
	require.Len(t, sent, 4, "all are asked")
	echo(r, 2, 1)
	echo(r, 2, 1)
	answers, _ = drain(r)
	require.Empty(t, answers, "two of five")
	echo(r, 4, 1)
	answers, _ = drain(r)
	require.Equal(t, []ReadIndexReply{{ID: id, Index: 1}}, answers)
}

// What a server has confirmed stays confirmed, though an older answer of it arrives
// later.
func TestLateAnswersTakeNothingBack(t *testing.T) {
	r := leaderOfFive(t, 3)
	for _, id := range []ID{2, 3, 4, 5} {
		accept(r, id, 1)
	}
	takeAll(r)
	r.Read()
	takeAll(r)
	echo(r, 2, 1)
	echo(r, 2, 0)
	echo(r, 4, 1)
	answers, _ := drain(r)
	require.Len(t, answers, 1)
}

// A refusal confirms the leader as well as a success does: it is of the same term.
func TestRefusalConfirmsTheLeader(t *testing.T) {
	r := committedLeader(t, 3)
	id := r.Read()
	takeAll(r)
	r.Step(from(r, 2, AppendEntriesReply{Refused: 1, ConflictIndex: 1, Round: 1}))
	answers, _ := drain(r)
	require.Equal(t, []ReadIndexReply{{ID: id, Index: 1}}, answers)
}

// "A leader must have the latest information on which entries are committed" (§8):
// before an entry of its term is committed, it answers no read. It keeps the read,
// and answers it afterwards.
func TestNoReadBeforeACommitInTheTerm(t *testing.T) {
	r := leader(t, 3, 1, 1)
	r.Step(from(r, 2, AppendEntriesReply{Success: true, MatchIndex: 2}))
	r.Read()
	takeAll(r)
	require.Zero(t, r.reads.round, "no round begins")
	accept(r, 2, 3)
	_, sent := drain(r)
	require.Len(t, sent, 2)
	echo(r, 2, 1)
	answers, _ := drain(r)
	require.Len(t, answers, 1)
	require.Equal(t, Index(3), answers[0].Index)
}

// An answer to a round that began before the read says nothing about it (§8). Each
// read takes the commitIndex of its round.
func TestEarlierRoundsConfirmNoRead(t *testing.T) {
	r := committedLeader(t, 3)
	first := r.Read()
	takeAll(r)
	propose(t, r, "x")
	accept(r, 2, 2)
	takeAll(r)
	second := r.Read()
	takeAll(r)

	echo(r, 2, 0)
	answers, _ := drain(r)
	require.Empty(t, answers, "of no round")
	echo(r, 2, 1)
	answers, _ = drain(r)
	require.Equal(t, []ReadIndexReply{{ID: first, Index: 1}}, answers)
	echo(r, 2, 2)
	answers, _ = drain(r)
	require.Equal(t, []ReadIndexReply{{ID: second, Index: 2}}, answers)
}

// All reads that wait when a round begins share it, and one answer serves them all
// (thesis §6.4).
func TestReadsShareARound(t *testing.T) {
	r := committedLeader(t, 3)
	for range 3 {
		r.Read()
	}
	r.Step(from(r, 2, ReadIndex{ID: 70}))
	last := r.Read()
	_, sent := drain(r)
	require.Len(t, sent, 2)
	echo(r, 3, 1)
	answers, sent := drain(r)
	require.Equal(t, []ReadIndexReply{{ID: last, Index: 1}}, answers)
	require.Equal(t, ReadIndexReply{ID: 70, Index: 1}, sent[len(sent)-1].Body)
}

// A follower asks the leader, once for all reads that wait, and again if it hears
// nothing. A read waits where no leader is known.
func TestFollowerAsksTheLeader(t *testing.T) {
	r := boot(3, 1)
	r.Read()
	_, sent := drain(r)
	require.Empty(t, sent, "there is nobody to ask")

	r.Step(from(r, 2, AppendEntries{}))
	last := r.Read()
	ask := Message{From: 1, To: 2, Term: 3, Body: ReadIndex{ID: last}}
	_, sent = drain(r)
	require.Contains(t, sent, ask)
	for range r.options.HeartbeatTicks - 1 {
		r.Tick()
	}
	_, sent = drain(r)
	require.Empty(t, sent)
	r.Tick()
	_, sent = drain(r)
	require.Equal(t, []Message{ask}, sent)

	r.Step(from(r, 2, ReadIndexReply{ID: last, Index: 1}))
	answers, _ := drain(r)
	require.Equal(t, []ReadIndexReply{{ID: last, Index: 1}}, answers)
	for range r.options.HeartbeatTicks {
		r.Tick()
	}
	_, sent = drain(r)
	require.Empty(t, sent, "no read waits any longer")
}

// An answer counts once, and only for reads that were asked in this life.
func TestStrangeAnswersToReads(t *testing.T) {
	o := startOptions(1, []ID{1, 2, 3}, State{}, nil)
	o.Random = func(n uint64) uint64 { return 1000 % n }
	r := New(o)
	r.Step(Message{From: 2, To: 1, Term: 3, Body: AppendEntries{}})
	first := r.Read()
	require.Equal(t, ReadID(1001), first)
	second := r.Read()
	takeAll(r)
	for _, c := range []struct {
		id   ReadID
		want int
	}{{3, 0}, {1000, 0}, {second + 1, 0}, {first, 1}, {first, 0}, {second, 1}, {first, 0}, {second, 0}} {
		r.Step(from(r, 2, ReadIndexReply{ID: c.id, Index: 4}))
		answers, _ := drain(r)
		require.Len(t, answers, c.want, "%+v", c)
	}
}

// Only a leader says where reads may be answered; a server that asks another asks again.
func TestOnlyALeaderAnswersReads(t *testing.T) {
	for _, r := range []*Raft{boot(3, 1), candidate(t, 3, 1)} {
		r.Step(from(r, 2, ReadIndex{ID: 5}))
		require.Empty(t, takeAll(r).sent())
		require.Empty(t, r.reads.pending)
	}
}

// A stranger gets no answer, and does no harm.
func TestOnlyMembersMayAsk(t *testing.T) {
	r := committedLeader(t, 3)
	r.Step(from(r, 9, ReadIndex{ID: 5}))
	takeAll(r)
	echo(r, 2, 1)
	require.Empty(t, takeAll(r).sent())
}

// A leader that steps down forgets the reads of others, and asks the next leader
// about its own.
func TestReadsGoToTheNextLeader(t *testing.T) {
	r := committedLeader(t, 3)
	own := r.Read()
	r.Step(from(r, 2, ReadIndex{ID: 70}))
	takeAll(r)
	r.Step(Message{From: 3, To: 1, Term: 4, Body: AppendEntries{PrevLogIndex: 1, PrevLogTerm: 3}})
	answers, sent := drain(r)
	require.Empty(t, answers)
	require.Contains(t, sent, Message{From: 1, To: 3, Term: 4, Body: ReadIndex{ID: own}})
	require.Empty(t, r.reads.pending)
}

// A follower that has asked about a read and is then elected puts the read to
// itself, even if it never came to ask again.
func TestReadsAskedOfADeadLeader(t *testing.T) {
	r := boot(3, 1)
	r.Step(from(r, 2, AppendEntries{}))
	for range 9 {
		r.Tick()
	}
	r.Take()
	read := r.Read()
	takeAll(r)
	r.Tick()
	require.Equal(t, Candidate, r.role)
	takeAll(r)
	r.Step(from(r, 3, RequestVoteReply{Granted: true}))
	takeAll(r)
	accept(r, 3, 2)
	takeAll(r)
	echo(r, 3, 1)
	answers, _ := drain(r)
	require.Equal(t, []ReadIndexReply{{ID: read, Index: 2}}, answers)
}

// A reply carries the round of its request, be it a success or a refusal: it is the
// request's answer, and no other's (§8).
func TestRepliesCarryTheRound(t *testing.T) {
	r := boot(3, 1)
	for _, prev := range []Index{1, 7} {
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: prev, PrevLogTerm: 1, Round: 5}))
		require.Equal(t, uint64(5), takeAll(r).reply(t).Round)
	}
}

// A question to the leader of a new term waits until that term is saved: it speaks
// of it, like any message.
func TestQuestionsWaitForTheTermToBeSaved(t *testing.T) {
	r := boot(3, 1)
	r.Read()
	r.Step(Message{From: 2, To: 1, Term: 4, Body: AppendEntries{}})
	out := r.Take()
	require.NotNil(t, out.State)
	require.Empty(t, out.Early)
	require.Equal(t, ReadIndex{ID: 1}, out.Messages[0].Body)
	require.Len(t, out.Messages, 2)
}

// A leader sends the follower that asked the news of the commit along with the
// answer, so that it need not wait for the next heartbeat.
func TestTheCommitTravelsWithTheAnswer(t *testing.T) {
	r := committedLeader(t, 3)
	propose(t, r, "x")
	takeAll(r)
	accept(r, 3, 2)
	takeAll(r)
	r.Step(from(r, 2, ReadIndex{ID: 7}))
	takeAll(r)
	echo(r, 3, 1)
	_, sent := drain(r)
	require.Len(t, sent, 2)
	require.Equal(t, Index(2), sent[0].Body.(AppendEntries).LeaderCommit)
	require.Equal(t, ReadIndexReply{ID: 7, Index: 2}, sent[1].Body)
}
