package journal

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/strict"
)

// FuzzOpen opens a file with any content. Either Open refuses the file and
// changes nothing, or the server can continue from what Open has returned.
func FuzzOpen(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		d := onDisk(t, text)
		_, r, err := Open(d, "journal", header)
		if err != nil {
			require.True(t, bytes.Equal(text, fileOf(t, d)), "Open must not change a file that it refuses")
			return
		}
		d.CrashWorst()
		j, again := open(t, d)
		require.Equal(t, contentOf(r), contentOf(again))
		require.Empty(t, again.Torn)
		if r.State.Term >= 1<<63 || j.LastIndex() >= 1<<63 {
			return
		}
		want := contentOf(r)
		want.State = State{Term: r.State.Term + 1, Vote: 3}
		j.SetState(want.State)
		e := Entry{Index: j.LastIndex() + 1, Term: want.State.Term, Kind: "noop"}
		want.Entries = append(want.Entries, string(e.AppendJSON(nil)))
		j.Append(e)
		require.NoError(t, j.Sync())
		d.CrashWorst()
		_, again = open(t, d)
		require.Equal(t, want, contentOf(again))
	})
}

// FuzzRecords gives each line its correct checksum, which a fuzzer would rarely
// find, and then opens the file as FuzzOpen does.
func FuzzRecords(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		d := onDisk(t, sealAll(text))
		_, r, err := Open(d, "journal", header)
		if err != nil {
			return
		}
		_, again := open(t, d)
		require.Equal(t, contentOf(r), contentOf(again))
		last, term := r.Base.Index, r.Base.Term
		for _, e := range r.Entries {
			require.Equal(t, last+1, e.Index)
			require.GreaterOrEqual(t, e.Term, term)
			require.LessOrEqual(t, e.Term, r.State.Term)
			last, term = e.Index, e.Term
			dec := strict.NewDecoder(e.JSON)
			require.Equal(t, e, DecodeEntry(&dec))
			require.NoError(t, dec.End())
		}
	})
}

// sealAll puts a checksum before each line.
func sealAll(text []byte) []byte {
	var out []byte
	for _, l := range bytes.SplitAfter(text, []byte("\n")) {
		body, whole := bytes.CutSuffix(l, []byte("\n"))
		if len(body) > 0 {
			out = append(out, line(string(body))[:crcline.Len+len(body)]...)
		}
		if whole {
			out = append(out, '\n')
		}
	}
	return out
}
