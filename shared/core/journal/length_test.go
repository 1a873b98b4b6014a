package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

// lived returns the disk of a server that was killed after ten rounds, and the
// length of its journal in the last note.
func lived(t *testing.T) (d *disk.Sim, noted int) {
	t.Helper()
	d = disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	for i := range uint64(10) {
		j.Append(Entry{Index: i + 1, Term: 1, Command: fmt.Appendf(nil, `"%0600d"`, i)})
		require.NoError(t, j.Sync())
		if i == 7 {
			noted = int(j.Size())
			for range noteTicks {
				j.Tick()
			}
		}
	}
	d.Kill()
	return d, noted
}

// swap replaces the content of the journal's file.
func swap(t *testing.T, d disk.Disk, text []byte) {
	t.Helper()
	f, err := disk.Replace(d, "journal", text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// requireLost checks that Open refuses the journal with an error that has both
// lengths, and that it changes nothing.
func requireLost(t *testing.T, d *disk.Sim, has, saved int) {
	t.Helper()
	before, ops := fileOf(t, d), d.Stats().Ops
	_, _, err := Open(d, "journal", header)
	var lost *LostError
	require.ErrorAs(t, err, &lost)
	require.EqualValues(t, has, lost.Has)
	require.EqualValues(t, saved, lost.Saved)
	require.ErrorContains(t, err, fmt.Sprintf("n2/journal holds %d bytes of records, but %d had been saved", has, saved))
	require.ErrorContains(t, err, "Do not start this server again with an empty folder")
	require.Equal(t, before, fileOf(t, d))
	require.Equal(t, ops, d.Stats().Ops)
}

// A journal that is cut off anywhere before the noted length is refused; the
// checksums do not show this if the cut is between two lines. If only records
// after the last note are lost, Open cannot notice.
func TestATruncatedJournalIsRefused(t *testing.T) {
	whole, noted := lived(t)
	text := trimmed(fileOf(t, whole))
	for end := bytes.IndexByte(text, '\n') + 1; end < len(text); end += stride {
		d := whole.Clone()
		swap(t, d, text[:end])
		lines := bytes.LastIndexByte(text[:end+1], '\n') + 1 // a line that lacks only its line break is whole
		if lines < noted {
			requireLost(t, d, lines, noted)
			continue
		}
		_, _, err := Open(d, "journal", header)
		require.NoError(t, err, "%d of %d bytes", end, len(text))
	}
}

func TestAJournalWhoseEndIsZeroedIsRefused(t *testing.T) {
	d, noted := lived(t)
	text := trimmed(fileOf(t, d))
	clear(text[len(text)-4096:])
	has := bytes.LastIndexByte(text, '\n') + 1
	swap(t, d, text)
	requireLost(t, d, has, noted)
}

// Close notes the full length.
func TestAStoppedJournalIsRefusedIfAnyLineIsMissing(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	require.NoError(t, j.Sync())
	before := int(j.Size())
	j.SetState(State{Term: 2})
	require.NoError(t, j.Sync())
	require.NoError(t, j.Close())
	text := fileOf(t, d)
	swap(t, d, text[:before])
	requireLost(t, d, before, len(text))
}

func TestAMissingJournalIsRefused(t *testing.T) {
	d, noted := lived(t)
	require.NoError(t, d.Remove("journal"))
	_, _, err := Open(d, "journal", header)
	var lost *LostError
	require.ErrorAs(t, err, &lost)
	require.ErrorContains(t, err, fmt.Sprintf(`the file "journal" is gone, of which %d bytes had been saved`, noted))
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{"journal.length"}, names)
}

// A file that was replaced by a later one is refused even if it is longer than
// the later one.
func TestAnOldFileIsRefused(t *testing.T) {
	d, _ := lived(t)
	old := fileOf(t, d)
	j, r := open(t, d)
	require.NoError(t, j.Rewrite(r.State, Base{Index: 9, Term: 1}, r.Entries[9:]))
	require.NoError(t, j.Close())
	swap(t, d, old)
	_, _, err := Open(d, "journal", header)
	var lost *LostError
	require.ErrorAs(t, err, &lost)
	require.ErrorContains(t, err, "n2/journal is an old file: it was rewritten 0 times, and the one that was saved last 1 times")
}

// The journal opens if the length file is missing, empty or damaged, and if a
// full disk has no space for it. The next note writes the file again.
func TestAJournalWithoutAUsableLengthOpens(t *testing.T) {
	whole, _ := lived(t)
	for name, spoil := range map[string]func(d *disk.Sim) error{
		"missing": func(d *disk.Sim) error { return d.Remove("journal.length") },
		"empty":   func(d *disk.Sim) error { _, err := d.Create("journal.length"); return err },
		"damaged": func(d *disk.Sim) error {
			d.Corrupt("journal.length", 20, 1)
			d.Corrupt("journal.length", disk.SectorSize+20, 1)
			return nil
		},
		"full": func(d *disk.Sim) error { d.Fill(0); return d.Remove("journal.length") },
	} {
		t.Run(name, func(t *testing.T) {
			d := whole.Clone()
			text := trimmed(fileOf(t, d))
			require.NoError(t, spoil(d))
			j, r := open(t, d)
			require.Len(t, r.Entries, 10)
			d.Fill(-1)
			for range noteTicks {
				j.Tick()
			}
			require.NoError(t, j.Close())
			swap(t, d, text[:1000])
			_, _, err := Open(d, "journal", header)
			require.ErrorAs(t, err, new(*LostError))
		})
	}
}

// A torn note does not hide the previous note: the newest note that is whole
// counts.
func TestATornNoteKeepsThePreviousOne(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	var sizes []uint64
	for term := range uint64(4) {
		j.SetState(State{Term: term + 1})
		require.NoError(t, j.Sync())
		j.note()
		sizes = append(sizes, uint64(j.Size()))
		d.Kill()
		j, _ = open(t, d)
	}
	text, err := disk.ReadFile(d, "journal.length")
	require.NoError(t, err)
	require.Len(t, text, 2*disk.SectorSize)
	seen := make(map[uint64]bool)
	for _, turn := range []int{0, 1} {
		bad := slices.Clone(text)
		bad[turn*disk.SectorSize+30] ^= 1
		f, err := disk.Replace(d, "journal.length", bad)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		l, err := openLength(d, "journal")
		require.NoError(t, err)
		require.Equal(t, turn, l.turn, "the next note replaces the torn one")
		seen[l.noted.bytes] = true
	}
	require.Equal(t, map[uint64]bool{sizes[2]: true, sizes[3]: true}, seen)
}

// A note that cannot be written does not stop the journal.
func TestANoteThatFailsIsTriedAgain(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	d.Hook = func(op disk.Op) error {
		if op.File == "journal.length" {
			return errors.New("bad sector")
		}
		return nil
	}
	j.SetState(State{Term: 1})
	require.NoError(t, j.Sync())
	before := j.noted.noted
	j.note()
	require.Equal(t, before, j.noted.noted)
	d.Hook = nil
	j.note()
	require.EqualValues(t, j.Size(), j.noted.noted.bytes)
	ops := d.Stats().Ops
	j.note()
	require.Equal(t, ops, d.Stats().Ops, "a length that has not changed must not be written")
}

// While a journal is replaced, the power is cut at every disk operation. No note
// may make Open refuse a good journal.
func TestAPowerCutWhileAJournalIsReplaced(t *testing.T) {
	met := make(map[uint64]int)
	for nth := 1; ; nth++ {
		for seed := range uint64(20) {
			d := disk.NewSim("n1")
			j := longJournal(t, d)
			j.note()
			d.CutPower(nth)
			err := compacted(j)
			if err == nil {
				j.note()
				err = j.Close()
			}
			if err == nil && d.Sync() == nil {
				require.Len(t, met, 2)
				return
			}
			d.Crash(rand.New(rand.NewPCG(seed, uint64(nth))))
			j, saved, err := Open(d, "journal", Header{Stage: "s", Cluster: "c", ID: 1})
			require.NoError(t, err)
			require.EqualValues(t, 5, saved.Entries[len(saved.Entries)-1].Index)
			met[j.rewrites]++
		}
	}
}
