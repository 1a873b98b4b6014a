package server

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var overwrites = flag.Int("overwrites", 30_000, "how often TestOverwritesLeaveNothingBehind writes its ten keys")

// However often ten keys are overwritten, what is on the disk stays within a bound,
// at each moment, and a server that starts reads no more than after the first
// thousand.
//
//	go test ./server -run Overwrites -v -overwrites 1000000
func TestOverwritesLeaveNothingBehind(t *testing.T) {
	const bound = 16 << 10
	w := lead(t, 1)
	most, begun := int64(0), time.Now()
	w.overwrite(0, 1000, bound, &most)
	soon := w.startAgain("a thousand")
	w.overwrite(1000, *overwrites, bound, &most)
	t.Logf("%d writes took %v; at most %d KiB were on the disk", *overwrites, time.Since(begun).Round(time.Millisecond), most>>10)
	late := w.startAgain(fmt.Sprint(*overwrites))
	require.Less(t, soon, int64(3*bound))
	require.Less(t, late, int64(3*bound))
}

// overwrite writes ten keys again and again, some in one round.
func (w *world) overwrite(from, to int, bound int64, most *int64) {
	for n := from; n < to; n += 20 {
		for i := n; i < min(n+20, to); i++ {
			w.put(fmt.Sprint("k", i%10), fmt.Sprintf("%d %s", i, strings.Repeat("v", 100)))
		}
		w.flush()
		kept := w.bytes()
		*most = max(*most, kept)
		// A journal and its successor, a snapshot and its successor.
		require.LessOrEqual(w.t, kept, 4*bound, "after %d writes", n)
		w.work()
		w.forget()
	}
}

// bytes is the size of all files on the disk.
func (w *world) bytes() (total int64) {
	for _, name := range w.names() {
		f, err := w.disk.Open(name)
		require.NoError(w.t, err)
		size, err := f.Size()
		require.NoError(w.t, err)
		require.NoError(w.t, f.Close())
		total += size
	}
	return total
}

// startAgain starts a server with a copy of the disk, and returns how much there
// is to read.
func (w *world) startAgain(after string) int64 {
	w.t.Helper()
	d := w.disk.Clone()
	d.CrashWorst()
	begun := time.Now()
	again := start(w.t, 1, d)
	size := again.bytes()
	w.t.Logf("after %s writes: %d entries and %d KiB to read, started in %v", after, len(again.server.rules.Entries(again.status().Snapshot.Index+1)), size>>10, time.Since(begun).Round(10*time.Microsecond))
	require.Equal(w.t, w.status().Last, again.status().Last)
	return size
}

// A restart knows the latest value of each key, wherever it stands.
func TestOverwritesSurviveARestart(t *testing.T) {
	w := lead(t, 1)
	most := int64(0)
	w.overwrite(0, 995, 16<<10, &most)
	w.disk.CrashWorst()
	again := start(t, 1, w.disk)
	again.stand()
	for i := range 10 {
		n := 990 + i
		if n >= 995 {
			n -= 10
		}
		a := again.ask(fmt.Sprintf(`{"op":"get","key":"k%d"}`, i))
		again.flush()
		again.value(a, fmt.Sprintf("%d %s", n, strings.Repeat("v", 100)))
	}
}
