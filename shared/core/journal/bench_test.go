package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.com/raftsteps/shared/core/disk"
)

var benchHeader = Header{Stage: "05-election", Cluster: "c1", ID: 2}

// benchEntry is a put of a value of 64 bytes, encoded once, as a leader does.
func benchEntry(index uint64) Entry {
	e := Entry{Index: index, Term: 3, Command: []byte(`{"op":"put","key":"k1234","value":"` + string(bytes.Repeat([]byte("v"), 64)) + `"}`)}
	e.JSON = e.AppendJSON(nil)
	return e
}

// BenchmarkRound saves rounds of entries on the real disk. For comparison, it
// writes and syncs the same bytes without a journal: at the end of a file
// ("append"), and within a file that is long enough already ("in-place"), which
// is the fastest way.
func BenchmarkRound(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("entries=%d/journal", n), func(b *testing.B) { benchJournal(b, n) })
		b.Run(fmt.Sprintf("entries=%d/append", n), func(b *testing.B) { benchRaw(b, n, 0) })
		b.Run(fmt.Sprintf("entries=%d/in-place", n), func(b *testing.B) { benchRaw(b, n, 64<<20) })
	}
}

func benchJournal(b *testing.B, n int) {
	d, err := disk.OpenFolder(b.TempDir(), disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	j, _, err := Open(d, "journal", benchHeader)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	j.SetState(State{Term: 3})
	e := benchEntry(1)
	b.SetBytes(int64(n * len(appendEntry(nil, e, 1000))))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for range n {
			j.Append(e)
			e.Index++
		}
		if err := j.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchRaw(b *testing.B, n, ahead int) {
	d, err := disk.OpenFolder(b.TempDir(), disk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	f, err := d.Create("raw")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	round := bytes.Repeat(appendEntry(nil, benchEntry(1), 1000), n)
	if ahead > 0 {
		if _, err := f.WriteAt(make([]byte, ahead), 0); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(round)))
	b.ReportAllocs()
	b.ResetTimer()
	off := 0
	for range b.N {
		if ahead > 0 && off+len(round) > ahead {
			off = 0
		}
		if _, err := f.WriteAt(round, int64(off)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		off += len(round)
	}
}

// BenchmarkAppend measures how long it takes to buffer one entry, without a disk.
func BenchmarkAppend(b *testing.B) {
	for _, encoded := range []bool{true, false} {
		b.Run(fmt.Sprintf("encoded=%v", encoded), func(b *testing.B) {
			j, _, err := Open(disk.NewSim("n1"), "journal", benchHeader)
			if err != nil {
				b.Fatal(err)
			}
			j.SetState(State{Term: 3})
			e := benchEntry(1)
			if !encoded {
				e.JSON = nil
			}
			b.ReportAllocs()
			for range b.N {
				j.Append(e)
				e.Index++
				if len(j.buf) > 1<<20 {
					j.buf = j.buf[:0]
				}
			}
		})
	}
}

// BenchmarkOpen measures the recovery of 100,000 entries.
func BenchmarkOpen(b *testing.B) {
	const entries = 100_000
	dir := b.TempDir()
	d, err := disk.OpenFolder(dir, disk.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	j, _, err := Open(d, "journal", benchHeader)
	if err != nil {
		b.Fatal(err)
	}
	j.SetState(State{Term: 3})
	for i := range uint64(entries) {
		j.Append(benchEntry(i + 1))
		if i%16 == 0 {
			if err := j.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := j.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "journal"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		j, r, err := Open(d, "journal", benchHeader)
		if err != nil || len(r.Entries) != entries {
			b.Fatal(len(r.Entries), err)
		}
		j.Close()
	}
	b.ReportMetric(float64(entries)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
