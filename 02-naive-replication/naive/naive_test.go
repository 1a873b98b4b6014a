package naive

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func five(id ID) *Naive {
	return New(Options{ID: id, Leader: 1, Members: []ID{1, 2, 3, 4, 5}, Patience: 3, Explain: true})
}

func answer(n *Naive, from ID, seq Seq) {
	n.Step(Message{From: from, To: 1, Body: ReplicateReply{Seq: seq}})
}

func TestLeaderSendsToAllFollowersAndAppliesNothingYet(t *testing.T) {
	n := five(1)
	seq, err := n.Propose([]byte("x"))
	require.NoError(t, err)

	out := n.Take()
	require.Empty(t, out.Apply)
	require.Len(t, out.Messages, 4)
	for i, m := range out.Messages {
		require.Equal(t, Message{From: 1, To: ID(i + 2), Body: Replicate{Seq: seq, Command: []byte("x")}}, m)
	}
}

func TestLeaderAppliesACommandThatAMajorityHas(t *testing.T) {
	n := five(1)
	seq, _ := n.Propose([]byte("x"))
	n.Take()

	answer(n, 2, seq)
	require.Empty(t, n.Take().Apply, "two of five are no majority")
	answer(n, 2, seq)
	require.Empty(t, n.Take().Apply, "an answer that comes twice counts once")
	answer(n, 4, seq)
	require.Equal(t, []Write{{Seq: seq, Command: []byte("x")}}, n.Take().Apply)
	answer(n, 5, seq)
	require.Empty(t, n.Take().Apply, "it is applied once")
}

func TestLeaderGivesUpAfterATimeout(t *testing.T) {
	n := five(1)
	seq, _ := n.Propose([]byte("x"))
	answer(n, 3, seq)
	for range 3 {
		n.Tick()
	}
	require.Empty(t, n.Take().Refused)
	n.Tick()
	require.Equal(t, []Refusal{{Seq: seq, Answers: 1}}, n.Take().Refused)

	answer(n, 4, seq)
	answer(n, 5, seq)
	require.Empty(t, n.Take().Apply, "what was given up stays so")
}

func TestFollowerAppliesCommandsInOrderOfArrival(t *testing.T) {
	n := five(2)
	n.Step(Message{From: 1, To: 2, Body: Replicate{Seq: 8, Command: []byte("b")}})
	n.Step(Message{From: 1, To: 2, Body: Replicate{Seq: 7, Command: []byte("a")}})

	out := n.Take()
	require.Equal(t, []Write{{Command: []byte("b")}, {Command: []byte("a")}}, out.Apply)
	require.Equal(t, []Message{
		{From: 2, To: 1, Body: ReplicateReply{Seq: 8}},
		{From: 2, To: 1, Body: ReplicateReply{Seq: 7}},
	}, out.Messages)
}

func TestFollowerRefusesProposalsAndOtherLeaders(t *testing.T) {
	n := five(2)
	_, err := n.Propose([]byte("x"))
	require.ErrorIs(t, err, ErrNotLeader)
	n.Step(Message{From: 3, To: 2, Body: Replicate{Seq: 1, Command: []byte("x")}})
	require.Empty(t, n.Take())
}

func TestLeaderAloneIsAMajority(t *testing.T) {
	n := New(Options{ID: 1, Leader: 1, Members: []ID{1}, Patience: 3})
	seq, err := n.Propose([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, []Write{{Seq: seq, Command: []byte("x")}}, n.Take().Apply)
}

func TestReasonsTellTheFacts(t *testing.T) {
	n := five(1)
	seq, _ := n.Propose([]byte("x"))
	answer(n, 2, seq)
	answer(n, 3, seq)
	reasons := n.Take().Reasons
	require.Len(t, reasons, 1)
	require.Equal(t, "n1 applies command 1: with 2 answers, 3 of 5 servers have it", reasons[0].String())
}
