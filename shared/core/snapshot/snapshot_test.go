package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
)

var header = Header{Stage: "06-compaction", Cluster: "c1", Index: 118, Term: 4, Config: `{"voters":[1,2]}`}

// write writes a snapshot of these lines.
func write(t testing.TB, d disk.Disk, lines ...string) {
	w, err := Create(d, "snapshot", header)
	require.NoError(t, err)
	for _, line := range lines {
		w.Line(func(b []byte) []byte { return append(b, line...) })
	}
	require.NoError(t, w.Finish())
}

// read returns the content of a snapshot.
func read(d disk.Disk) (Header, []string, error) {
	var lines []string
	h, err := Read(d, "snapshot", func(text []byte) error {
		lines = append(lines, string(text))
		return nil
	})
	return h, lines, err
}

func lines(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`{"key":"k%d","value":"%s"}`, i, strings.Repeat("v", i%50))
	}
	return all
}

// replace replaces the content of the file.
func replace(t testing.TB, d disk.Disk, content []byte) {
	f, err := disk.Replace(d, "snapshot", content)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestWrittenRecordsAreRead(t *testing.T) {
	for _, n := range []int{0, 1, 10, 20_000} {
		d := disk.NewSim("n1")
		write(t, d, lines(n)...)
		h, got, err := read(d)
		require.NoError(t, err)
		require.Equal(t, header, h)
		require.Len(t, got, n)
		require.True(t, n == 0 || got[n-1] == lines(n)[n-1])
	}
}

func TestTheFormat(t *testing.T) {
	d := disk.NewSim("n1")
	write(t, d, `{"key":"x","value":"1"}`)
	content, err := disk.ReadFile(d, "snapshot")
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{8} {"snapshot":{"version":1,"stage":"06-compaction","cluster":"c1","index":118,"term":4,"config":{"voters":\[1,2\]}}}
[0-9a-f]{8} {"key":"x","value":"1"}
[0-9a-f]{8} {"end":{"lines":3}}
$`, string(content))
}

// A changed byte anywhere makes the whole snapshot invalid, and the error names
// the file, the line and what to do.
func TestAChangedByteIsFound(t *testing.T) {
	d := disk.NewSim("n1")
	write(t, d, lines(5)...)
	content, err := disk.ReadFile(d, "snapshot")
	require.NoError(t, err)
	for at := range content {
		for _, flip := range []byte{0x01, 0x20, 0x80} {
			changed := bytes.Clone(content)
			changed[at] ^= flip
			replace(t, d, changed)
			_, _, err := read(d)
			var bad *CorruptError
			require.ErrorAs(t, err, &bad, "byte %d", at)
			require.Equal(t, "n1/snapshot", bad.File)
			require.InDelta(t, 1+bytes.Count(content[:at], []byte("\n")), bad.Line, 1)
			require.ErrorContains(t, err, "do not start this server again with an empty one")
		}
	}
}

// A file that ends too soon, at any byte, is not a snapshot, nor is one that
// continues after its last line, or in which a line is missing.
func TestAPartIsNoSnapshot(t *testing.T) {
	d := disk.NewSim("n1")
	write(t, d, lines(3)...)
	content, err := disk.ReadFile(d, "snapshot")
	require.NoError(t, err)
	var bad *CorruptError
	for end := range content {
		replace(t, d, content[:end])
		_, _, err := read(d)
		require.ErrorAs(t, err, &bad, "cut at byte %d", end)
	}
	all := bytes.SplitAfter(content, []byte("\n"))
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{bytes.Join([][]byte{all[0], all[2], all[3], all[4]}, nil), "it says that there are 5 lines"},
		{append(bytes.Clone(content), all[1]...), "it follows the last line"},
		{append(bytes.Clone(content), content...), "it follows the last line"},
		{bytes.Join(all[1:], nil), `snapshot is damaged in line 1`},
		{nil, "the file ends before the last line"},
	} {
		replace(t, d, c.content)
		_, _, err := read(d)
		require.ErrorAs(t, err, &bad)
		require.ErrorContains(t, err, c.want)
	}
}

func TestReadReportsUnsupportedFiles(t *testing.T) {
	d := disk.NewSim("n1")
	_, _, err := read(d)
	require.ErrorIs(t, err, fs.ErrNotExist)

	write(t, d, lines(3)...)
	_, err = Read(d, "snapshot", func([]byte) error { return errors.New("no such field") })
	require.ErrorContains(t, err, "damaged in line 2: no such field")

	newer := seal(`{"snapshot":{"version":2,"stage":"s","cluster":"c","index":1,"term":1}}`) + seal(`{"end":{"lines":2}}`)
	replace(t, d, []byte(newer))
	_, _, err = read(d)
	require.ErrorContains(t, err, "has version 2, and this program knows only version 1")

	odd := seal(`{"snapshot":{"version":1,"color":"red"}}`)
	replace(t, d, []byte(odd))
	_, _, err = read(d)
	require.ErrorContains(t, err, "color")
}

// seal returns a line with its checksum.
func seal(json string) string {
	d := disk.NewSim("seal")
	w, err := Create(d, "line", header)
	if err == nil {
		w.Line(func(b []byte) []byte { return append(b, json...) })
		err = w.Finish()
	}
	content, readErr := disk.ReadFile(d, "line")
	if err = errors.Join(err, readErr); err != nil {
		panic(err)
	}
	return string(bytes.SplitAfter(content, []byte("\n"))[1])
}

// For every chunk size, the chunks end at the ends of lines and together give the
// file.
func TestChunks(t *testing.T) {
	d := disk.NewSim("n1")
	long := fmt.Sprintf(`{"key":"long","value":"%s"}`, strings.Repeat("l", 5000))
	write(t, d, append(lines(40), long, `{"key":"z","value":""}`)...)
	f, err := d.Open("snapshot")
	require.NoError(t, err)
	content, err := disk.ReadAll(f)
	require.NoError(t, err)
	for _, size := range []int{1, 7, 64, 100, 1000, 4999, len(content) - 1, len(content), len(content) + 1} {
		var got []byte
		chunks := 0
		for last := false; !last; chunks++ {
			var data []byte
			data, last, err = Chunk(f, int64(len(content)), int64(len(got)), size)
			require.NoError(t, err)
			require.Equal(t, byte('\n'), data[len(data)-1])
			if bytes.Count(data, []byte("\n")) > 1 {
				require.LessOrEqual(t, len(data), size, "only a line that does not fit makes a chunk larger")
			}
			got = append(got, data...)
		}
		require.Equal(t, content, got)
		if size == 1 {
			require.Equal(t, bytes.Count(content, []byte("\n")), chunks)
		}
	}
	data, last, err := Chunk(f, int64(len(content)), int64(len(content)), 10)
	require.NoError(t, err)
	require.True(t, last)
	require.Empty(t, data)
	_, _, err = Chunk(brokenFile{}, 100, 0, 10)
	require.ErrorContains(t, err, "the disk is gone")
}

type brokenFile struct{}

func (brokenFile) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is gone") }

var _ io.ReaderAt = brokenFile{}

// Finish returns the first failure of the disk, whatever happens later.
func TestAFailingDiskIsReported(t *testing.T) {
	d := disk.NewSim("n1")
	d.Fill(100)
	w, err := Create(d, "snapshot", header)
	require.NoError(t, err)
	for _, line := range lines(10_000) {
		w.Line(func(b []byte) []byte { return append(b, line...) })
	}
	require.ErrorContains(t, w.Finish(), "no space left on device")

	d = disk.NewSim("n1")
	w, err = Create(d, "snapshot", header)
	require.NoError(t, err)
	d.FailSync(1)
	require.ErrorContains(t, w.Finish(), "writing a snapshot")
}

// A power cut at any operation leaves either a complete snapshot or a file that
// no reader takes for one.
func TestACrashWhileWriting(t *testing.T) {
	want := lines(20_000)
	for nth := 1; ; nth++ {
		d := disk.NewSim("n1")
		d.CutPower(nth)
		w, err := Create(d, "snapshot", header)
		if err == nil {
			for _, line := range want {
				w.Line(func(b []byte) []byte { return append(b, line...) })
			}
			err = w.Finish()
		}
		if err == nil {
			require.Greater(t, nth, 4)
			return
		}
		d.Crash(rand.New(rand.NewPCG(1, uint64(nth))))
		if _, got, err := read(d); err == nil {
			require.Equal(t, want, got)
		}
	}
}

// For any bytes, Read returns an error or a snapshot, and Chunk passes on exactly
// what was read.
func FuzzRead(f *testing.F) {
	d := disk.NewSim("n1")
	write(f, d, lines(3)...)
	content, err := disk.ReadFile(d, "snapshot")
	require.NoError(f, err)
	f.Add(content)
	f.Add(content[:len(content)/2])
	f.Add([]byte(seal(`{"snapshot":{}}`) + seal(`{"end":{}}`)))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		d := disk.NewSim("n1")
		replace(t, d, content)
		_, got, err := read(d)
		var bad *CorruptError
		if err != nil {
			require.ErrorAs(t, err, &bad)
			return
		}
		require.Equal(t, len(got)+2, bytes.Count(content, []byte("\n")))
		file, err := d.Open("snapshot")
		require.NoError(t, err)
		data, last, err := Chunk(file, int64(len(content)), 0, len(content))
		require.NoError(t, err)
		require.True(t, last)
		require.Equal(t, content, data)
	})
}
