package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

// compacted compacts a journal as a server does: it creates a successor, brings
// it up to date, and replaces the journal.
func compacted(j *Journal) error {
	entries := []Entry{{Index: 3, Term: 2}, {Index: 4, Term: 2}}
	next, err := j.Successor(State{Term: 2, Vote: 1}, Base{Index: 2, Term: 1}, entries)
	if err != nil {
		return err
	}
	next.SetState(State{Term: 3, Vote: 2})
	next.Append(Entry{Index: 5, Term: 3})
	if err := next.Sync(); err != nil {
		return err
	}
	old, err := j.Replace(next)
	if err != nil {
		return err
	}
	return old.Close()
}

// longJournal returns a journal with five entries and the state of term 3.
func longJournal(t *testing.T, d disk.Disk) *Journal {
	j, _, err := Open(d, "journal", Header{Stage: "s", Cluster: "c", ID: 1})
	require.NoError(t, err)
	j.SetState(State{Term: 3, Vote: 2})
	for i, term := range []uint64{1, 1, 2, 2, 3} {
		j.Append(Entry{Index: uint64(i + 1), Term: term})
	}
	require.NoError(t, j.Sync())
	return j
}

func TestASuccessorTakesTheJournalsPlace(t *testing.T) {
	d := disk.NewSim("n1")
	j := longJournal(t, d)
	require.NoError(t, compacted(j))
	require.EqualValues(t, len(trimmed(fileOf(t, d))), j.Size())
	j.Append(Entry{Index: 6, Term: 3})
	require.NoError(t, j.Sync())
	require.NoError(t, j.Close())
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{"journal", "journal.length"}, names)
	saved, err := Read(d, "journal")
	require.NoError(t, err)
	require.Equal(t, Base{Index: 2, Term: 1}, saved.Base)
	require.Equal(t, State{Term: 3, Vote: 2}, saved.State)
	require.Len(t, saved.Entries, 4)
	require.EqualValues(t, 6, saved.Entries[3].Index)
}

// The power is cut at each disk operation: either the old journal is there or the
// new one, with everything that was saved.
func TestACrashLeavesAJournalOrItsSuccessor(t *testing.T) {
	bases := make(map[uint64]int)
	for nth := 1; ; nth++ {
		for seed := range uint64(20) {
			d := disk.NewSim("n1")
			j := longJournal(t, d)
			d.CutPower(nth)
			err := compacted(j)
			if err == nil {
				require.Len(t, bases, 2, "both cases must occur")
				return
			}
			require.ErrorIs(t, err, disk.ErrPowerCut)
			d.Crash(rand.New(rand.NewPCG(seed, uint64(nth))))
			_, saved, err := Open(d, "journal", Header{Stage: "s", Cluster: "c", ID: 1})
			require.NoError(t, err)
			require.Equal(t, State{Term: 3, Vote: 2}, saved.State)
			require.EqualValues(t, 5, saved.Entries[len(saved.Entries)-1].Index)
			bases[saved.Base.Index]++
		}
	}
}

// Successor syncs what it writes, at any length: if nothing is added to the
// successor, Replace syncs only the folder.
func TestASuccessorIsSyncedWhenItIsMade(t *testing.T) {
	for _, bytes := range []int{1, 3*pace + 100} {
		d := disk.NewSim("n1")
		j := longJournal(t, d)
		var entries []Entry
		for i, term := range []uint64{2, 2, 3} {
			entries = append(entries, Entry{Index: uint64(i + 3), Term: term, Command: fmt.Appendf(nil, `"%0*d"`, bytes/3, i)})
		}
		next, err := j.Successor(State{Term: 3, Vote: 2}, Base{Index: 2, Term: 1}, entries)
		require.NoError(t, err)
		old, err := j.Replace(next)
		require.NoError(t, err)
		require.NoError(t, old.Close())
		d.CrashWorst()
		_, saved, err := Open(d, "journal", Header{Stage: "s", Cluster: "c", ID: 1})
		require.NoError(t, err)
		require.Equal(t, State{Term: 3, Vote: 2}, saved.State)
		require.Equal(t, Base{Index: 2, Term: 1}, saved.Base)
		require.Len(t, saved.Entries, 3)
		require.Equal(t, entries[2].Command, saved.Entries[2].Command)
	}
}

// A rewritten journal keeps the vote.
func TestARewrittenJournalKeepsTheVote(t *testing.T) {
	d := disk.NewSim("n1")
	j := longJournal(t, d)
	require.NoError(t, j.Rewrite(State{Term: 3, Vote: 2}, Base{Index: 5, Term: 3}, nil))
	d.CrashWorst()
	_, saved, err := Open(d, "journal", Header{Stage: "s", Cluster: "c", ID: 1})
	require.NoError(t, err)
	require.Equal(t, State{Term: 3, Vote: 2}, saved.State)
}

func TestASuccessorThatIsNotUpToDateIsRefused(t *testing.T) {
	j := longJournal(t, disk.NewSim("n1"))
	next, err := j.Successor(State{Term: 3, Vote: 2}, Base{Index: 4, Term: 2}, nil)
	require.NoError(t, err)
	_, err = j.Replace(next)
	require.ErrorContains(t, err, "not up to date")
	require.ErrorContains(t, j.Sync(), "not up to date", "the journal must have stopped")

	j = longJournal(t, disk.NewSim("n1"))
	_, err = j.Successor(State{Term: 1}, Base{Index: 4, Term: 2}, nil)
	require.ErrorContains(t, err, "the program is at fault")
	require.NoError(t, j.Sync(), "the failure must not stop the journal")

	d := disk.NewSim("n1")
	j = longJournal(t, d)
	d.Fill(10)
	_, err = j.Successor(State{Term: 3, Vote: 2}, Base{Index: 4, Term: 2}, nil)
	require.Error(t, err)
	require.False(t, errors.Is(err, disk.ErrPowerCut))

	j = longJournal(t, disk.NewSim("n1"))
	next, err = j.Successor(State{Term: 3, Vote: 2}, Base{Index: 4, Term: 2}, nil)
	require.NoError(t, err)
	require.NoError(t, next.Drop())
	require.NoError(t, j.Sync())
}
