package journal

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

// A new journal gets the incarnation that Open is given, and keeps it through
// crashes, Rewrite and Replace.
func TestAJournalKeepsItsIncarnation(t *testing.T) {
	d := disk.NewSim("n2")
	first, second := header, header
	first.Incarnation, second.Incarnation = 7, 8
	j, saved, err := Open(d, "journal", first)
	require.NoError(t, err)
	require.Equal(t, first, saved.Header)
	j.SetState(State{Term: 1})
	j.Append(Entry{Index: 1, Term: 1})
	require.NoError(t, j.Sync())

	reopened := func() {
		t.Helper()
		d.CrashWorst()
		j, saved, err = Open(d, "journal", second)
		require.NoError(t, err)
		require.Equal(t, first, saved.Header)
		require.Equal(t, first.Incarnation, j.Incarnation())
	}
	reopened()
	require.NoError(t, j.Rewrite(State{Term: 1}, Base{}, saved.Entries))
	reopened()
	next, err := j.Successor(State{Term: 1}, Base{Index: 1, Term: 1}, nil)
	require.NoError(t, err)
	_, err = j.Replace(next)
	require.NoError(t, err)
	require.Equal(t, first.Incarnation, j.Incarnation())
	reopened()
	require.Equal(t, Base{Index: 1, Term: 1}, saved.Base)
}

// A journal without an incarnation, from an earlier version, gets one when it is
// opened, and loses nothing if the power is cut at any operation.
func TestAnOldJournalGetsAnIncarnation(t *testing.T) {
	old := disk.NewSim("n2")
	j, _, err := Open(old, "journal", header)
	require.NoError(t, err)
	j.SetState(State{Term: 2, Vote: 3})
	j.Append(Entry{Index: 1, Term: 1})
	j.Append(Entry{Index: 2, Term: 2, Command: []byte(`{"op":"put"}`)})
	require.NoError(t, j.Sync())
	before, err := Read(old, "journal")
	require.NoError(t, err)
	require.Zero(t, before.Header.Incarnation)

	named := header
	named.Incarnation = 7
	for cut := 1; ; cut++ {
		d := old.Clone()
		d.CutPower(cut)
		_, saved, err := Open(d, "journal", named)
		if err == nil {
			require.Equal(t, named, saved.Header)
			require.Greater(t, cut, 5, "setting the incarnation takes several operations, and each must have been cut")
			break
		}
		d.CrashWorst()
		named.Incarnation++ // the next start draws another incarnation
		_, saved, err = Open(d, "journal", named)
		require.NoError(t, err)
		require.NotZero(t, saved.Header.Incarnation)
		require.Equal(t, contentOf(before), contentOf(saved))
	}
}

func TestAnInvalidIncarnationIsRefused(t *testing.T) {
	d := onDisk(t, []byte(line(`{"journal":{"version":1,"stage":"s","cluster":"c","id":2,"incarnation":"12","lines":1},"synced":0}`)))
	_, err := Read(d, "journal")
	require.ErrorContains(t, err, "an incarnation has 16 hexadecimal digits")
}
