package raft

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// An appointment begins a term: "each term begins with" a new leader (§5.1), where
// the paper has an election. It leads if the term is newer than all it has seen.
func TestLeadNeedsANewerTerm(t *testing.T) {
	for _, c := range []struct {
		term Term
		want error
	}{{0, ErrTermIsOver}, {3, ErrTermIsOver}, {4, ErrTermIsOver}, {5, nil}, {9, nil}} {
		for name, r := range map[string]*Raft{"follower": boot(4, 1), "leader": leader(t, 4, 1)} {
			before := r.Status()
			require.ErrorIs(t, r.Lead(c.term), c.want, "%s of term 4 is to lead %d", name, c.term)
			if c.want != nil {
				require.Equal(t, before, r.Status())
				require.True(t, r.Take().Empty())
				continue
			}
			require.Equal(t, Leader, r.Status().Role)
			require.Equal(t, ID(1), r.Status().Leader)
			require.Equal(t, c.term, r.Status().CurrentTerm)
		}
	}
}

// The term of an appointment is on disk before anyone hears of it: a leader that
// forgot it might lead it again and send other entries (§5.1).
func TestAppointmentIsSavedBeforeItIsSaid(t *testing.T) {
	r := boot(4, 1)
	require.NoError(t, r.Lead(5))
	out := r.Take()
	require.Equal(t, &State{CurrentTerm: 5}, out.State)
	require.Empty(t, out.Early)
	require.Len(t, out.to(2), 1)
	require.Len(t, out.to(3), 1)

	require.ErrorIs(t, New(startOptions(1, []ID{1, 2, 3}, *out.State, nil)).Lead(5), ErrTermIsOver)
}

// An appointed leader takes its log as it is. It appends nothing by itself, and
// commits what earlier leaders left only with an entry of its own (§5.4.2).
func TestAppointedLeaderCommitsWithItsFirstEntry(t *testing.T) {
	r := leader(t, 4, 1, 2)
	accept(r, 2, 2)
	accept(r, 3, 2)
	require.Empty(t, takeAll(r).Committed)
	propose(t, r, "x")
	require.Empty(t, takeAll(r).Committed)
	accept(r, 2, 3)
	require.Len(t, takeAll(r).Committed, 3)
}

// Two leaders of a term are a mistake of the operator. Each drops what the other
// sends: to follow would change the log of a leader (§5.2, §5.3).
func TestTwoLeadersOfATermDropEachOther(t *testing.T) {
	r := leader(t, 4, 1)
	before := r.Status()
	r.Step(from(r, 2, AppendEntries{Entries: entries(4, 4), LeaderCommit: 2}))
	out := takeAll(r)
	require.Empty(t, out.sent())
	require.Len(t, out.Reasons, 1)
	require.Equal(t, "n1 drops entries of n2: n1 and n2 were both appointed to lead term 4", out.Reasons[0].String())
	require.Equal(t, before, r.Status())
}

// Followers wait for a leader, however long it takes: nobody takes over by himself.
func TestFollowersWaitForTheOperator(t *testing.T) {
	r := boot(4, 1)
	for range 10_000 {
		r.Tick()
	}
	require.True(t, r.Take().Empty())
	require.Equal(t, Follower, r.Status().Role)
}
