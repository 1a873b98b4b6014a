package journal

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

func decodeEntry(t *testing.T, text string) Entry {
	t.Helper()
	d := strict.NewDecoder([]byte(text))
	e := DecodeEntry(&d)
	require.NoError(t, d.End())
	return e
}

func TestAJournalWithoutFaults(t *testing.T) {
	for seed := range uint64(20) {
		require.NoError(t, newLife(t, seed).live())
	}
}

func TestRoundIsOneWriteAndOneSync(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	before := d.Stats()
	require.NoError(t, j.Sync())
	j.SetState(State{})
	require.NoError(t, j.Sync())
	require.Equal(t, before, d.Stats(), "if there is nothing to save, Sync must not use the disk")

	for n := range 5 {
		j.SetState(State{Term: uint64(n + 1)})
		for range 100 * n {
			j.Append(Entry{Index: j.LastIndex() + 1, Term: uint64(n + 1), Command: []byte(`"x"`)})
		}
		before := d.Stats()
		require.NoError(t, j.Sync())
		after := d.Stats()
		require.Equal(t, before.Writes+1, after.Writes)
		require.Equal(t, before.Syncs+1, after.Syncs)
		require.Equal(t, before.Ops+2, after.Ops)
		require.NoError(t, j.Sync())
		require.Equal(t, after, d.Stats())
	}
}

func TestAnUnchangedStateIsNotWritten(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 2, Vote: 1})
	require.NoError(t, j.Sync())
	before := d.Stats()
	j.SetState(State{Term: 2, Vote: 1})
	require.NoError(t, j.Sync())
	require.Equal(t, before, d.Stats())
	require.Equal(t, State{Term: 2, Vote: 1}, j.State())
}

// The file of a stopped server is plain text that a person can read.
func TestFileOfAStoppedServerIsText(t *testing.T) {
	path := t.TempDir()
	d, err := disk.OpenFolder(path, disk.Options{})
	require.NoError(t, err)
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	require.NoError(t, j.Sync())
	running, err := os.ReadFile(filepath.Join(path, "journal"))
	require.NoError(t, err)
	require.Greater(t, len(running), minStep, "tabs must be written in advance")
	j.Append(Entry{Index: 1, Term: 1, Command: []byte(`{"op":"put","key":"ключ","value":"\n"}`)})
	require.NoError(t, j.Sync())
	size := j.Size()
	require.NoError(t, j.Close())

	text, err := os.ReadFile(filepath.Join(path, "journal"))
	require.NoError(t, err)
	require.Len(t, text, int(size))
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines[2], ` {"entry":{"index":1,"term":1,"command":{"op":"put","key":"ключ","value":"\n"}},"synced":`)
	require.Equal(t, string(text), strings.TrimRight(string(running), "\t")+lines[2]+"\n")

	_, r := open(t, d)
	require.Equal(t, State{Term: 1}, r.State)
	require.Len(t, r.Entries, 1)
	require.NoError(t, d.Close())
}

func TestFileGrowsInSteps(t *testing.T) {
	for _, test := range []struct{ end, want int64 }{
		{1, 8192}, {4096, 8192}, {4097, 12288}, {100_000, 200_704}, {1 << 20, 1<<20 + maxStep}, {1<<20 + 1, 1<<20 + maxStep + minStep},
	} {
		require.Equal(t, test.want, ahead(test.end), "%d", test.end)
	}
}

func TestEntryIsEncodedOnce(t *testing.T) {
	for _, e := range []Entry{
		{Index: 7, Term: 4, Command: []byte(`{"op":"put","key":"x","value":"1"}`)},
		{Index: 1, Term: 1, Kind: "noop"},
		{Index: 1<<64 - 1, Term: 1<<64 - 1, Kind: "config", Command: []byte(`[1,2]`)},
		{Index: 3, Term: 3, Kind: "\"\n", Command: []byte(`null`)},
	} {
		text := e.AppendJSON(nil)
		got := decodeEntry(t, string(text))
		require.Equal(t, text, got.JSON)
		got.JSON = nil
		require.Equal(t, e, got)
	}
	// The text of an entry that was received is written unchanged.
	text := `{ "term":4, "command":{}, "index":7 }`
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 4})
	for i := range uint64(6) {
		j.Append(Entry{Index: i + 1, Term: 4, Kind: "noop"})
	}
	j.Append(decodeEntry(t, text))
	require.NoError(t, j.Sync())
	require.Contains(t, string(trimmed(fileOf(t, d))), ` {"entry":`+text+`,"synced":107}`)
	_, r := open(t, d)
	require.Equal(t, text, string(r.Entries[6].JSON))
}

func TestBadEntriesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"term":1}`:                 "an entry needs an index and a term",
		`{"index":1}`:                "an entry needs an index and a term",
		`{"index":0,"term":1}`:       "an entry needs an index and a term",
		`{"index":1,"x":1}`:          "unknown field",
		`{"index":1,"index":1}`:      "appears twice",
		`[]`:                         "want an object",
		"{\t\"index\":1,\"term\":1}": "entry 1 contains a tab or a line break",
		`{"index":1,"term":1`:        `want ","`,
	} {
		d := strict.NewDecoder([]byte(text))
		DecodeEntry(&d)
		require.ErrorContains(t, d.End(), want, text)
	}
}

func TestRewriteKeepsWhatItIsGiven(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 2, Vote: 1})
	for i := range uint64(10) {
		j.Append(Entry{Index: i + 1, Term: 1 + i/5, Command: fmt.Appendf(nil, "%d", i+1)})
	}
	require.NoError(t, j.Sync())
	before := j.Size()

	j.SetState(State{Term: 3})
	keep := []Entry{{Index: 9, Term: 2, Command: []byte("9")}, {Index: 10, Term: 2, Command: []byte("10")}, {Index: 11, Term: 3, Kind: "noop"}}
	require.NoError(t, j.Rewrite(State{Term: 3}, Base{Index: 8, Term: 2, Config: `{"voters":[1,2]}`}, keep))
	require.Less(t, j.Size(), before)
	require.Equal(t, uint64(11), j.LastIndex())
	require.Equal(t, int(j.Size()), len(fileOf(t, d)))
	d.CrashWorst()
	j, r := open(t, d)
	require.Equal(t, header, r.Header)
	require.Equal(t, State{Term: 3}, r.State)
	require.Equal(t, Base{Index: 8, Term: 2, Config: `{"voters":[1,2]}`}, r.Base)
	require.Len(t, r.Entries, 3)
	require.Equal(t, uint64(9), r.Entries[0].Index)

	j.Truncate(9)
	j.Append(Entry{Index: 9, Term: 3, Kind: "noop"})
	require.NoError(t, j.Sync())

	// A leader's snapshot can be ahead of the whole log.
	require.NoError(t, j.Rewrite(State{Term: 5}, Base{Index: 100, Term: 5}, nil))
	j.Append(Entry{Index: 101, Term: 5, Kind: "noop"})
	require.NoError(t, j.Sync())
	d.CrashWorst()
	_, r = open(t, d)
	require.Equal(t, content{State{5, 0}, Base{Index: 100, Term: 5}, []string{`{"index":101,"term":5,"kind":"noop"}`}}, contentOf(r))
}

// A record that a later Open would refuse must not get into the file.
func TestMisuseStopsTheJournalAndWritesNothing(t *testing.T) {
	at := func(index, term uint64) Entry { return Entry{Index: index, Term: term, Kind: "noop"} }
	for name, test := range map[string]struct {
		do   func(j *Journal)
		want string
	}{
		"gap":              {func(j *Journal) { j.Append(at(13, 4)) }, "entry 13 follows entry 11"},
		"again":            {func(j *Journal) { j.Append(at(11, 4)) }, "entry 11 follows entry 11"},
		"no term":          {func(j *Journal) { j.Append(at(12, 0)) }, "entry 12 has no term"},
		"term falls":       {func(j *Journal) { j.Append(at(12, 2)) }, "entry 12 of term 2 follows an entry of term 3"},
		"ahead of state":   {func(j *Journal) { j.Append(at(12, 5)) }, "entry 12 has term 5, but the server is still in term 4"},
		"line break":       {func(j *Journal) { j.Append(Entry{Index: 12, Term: 4, Command: []byte("1\n")}) }, "the JSON of entry 12 contains a tab or a line break"},
		"line break, JSON": {func(j *Journal) { j.Append(Entry{Index: 12, Term: 4, JSON: []byte("{\n}")}) }, "the JSON of entry 12 contains a tab or a line break"},
		"tab":              {func(j *Journal) { j.Append(Entry{Index: 12, Term: 4, Command: []byte("\t1")}) }, "the JSON of entry 12 contains a tab or a line break"},
		"truncate beyond":  {func(j *Journal) { j.Truncate(12) }, "the entries from 12 on cannot be removed: the log has entries 6 to 11"},
		"truncate base":    {func(j *Journal) { j.Truncate(5) }, "the entries from 5 on cannot be removed: the log has entries 6 to 11"},
		"old term":         {func(j *Journal) { j.SetState(State{Term: 3}) }, "the term falls from 4 to 3"},
		"second vote":      {func(j *Journal) { j.SetState(State{Term: 4, Vote: 3}) }, "the vote in term 4 changes from 1 to 3"},
		"vote taken back":  {func(j *Journal) { j.SetState(State{Term: 4}) }, "the vote in term 4 changes from 1 to 0"},
		"base back":        {func(j *Journal) { j.Rewrite(State{4, 1}, Base{Index: 4, Term: 2}, nil) }, "the log begins after entry 5 of term 2 and should begin after entry 4 of term 2, which is earlier"},
		"base term back":   {func(j *Journal) { j.Rewrite(State{4, 1}, Base{Index: 9, Term: 1}, nil) }, "the log begins after entry 5 of term 2 and should begin after entry 9 of term 1, which is earlier"},
		"base ahead":       {func(j *Journal) { j.Rewrite(State{4, 1}, Base{Index: 9, Term: 5}, nil) }, "the log should begin after an entry of term 5, but the server is still in term 4"},
		"rewritten state":  {func(j *Journal) { j.Rewrite(State{3, 0}, Base{Index: 9, Term: 3}, nil) }, "the term falls from 4 to 3"},
		"rewritten gap":    {func(j *Journal) { j.Rewrite(State{4, 1}, Base{Index: 9, Term: 3}, []Entry{at(11, 3)}) }, "entry 11 follows entry 9"},
	} {
		t.Run(name, func(t *testing.T) {
			d := disk.NewSim("n2")
			j, _ := open(t, d)
			entries := []Entry{at(6, 2), at(7, 2), at(8, 3), at(9, 3), at(10, 3), at(11, 3)}
			require.NoError(t, j.Rewrite(State{4, 1}, Base{Index: 5, Term: 2}, entries))
			before := fileOf(t, d)
			test.do(j)
			require.ErrorContains(t, j.Sync(), "the program is at fault, and nothing of this was written: "+test.want)
			j.Append(at(12, 4))
			require.ErrorContains(t, j.Sync(), test.want, "the journal must keep the first error")
			j.Close()
			require.Equal(t, before, fileOf(t, d))
			_, r := open(t, d)
			require.Len(t, r.Entries, 6)
		})
	}
}

func TestTermOfTheLogAfterTruncation(t *testing.T) {
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 9})
	for i, term := range []uint64{1, 1, 5, 5, 7} {
		j.Append(Entry{Index: uint64(i + 1), Term: term, Kind: "noop"})
	}
	j.Truncate(4)
	j.Append(Entry{Index: 4, Term: 5, Kind: "noop"})
	j.Truncate(2)
	j.Append(Entry{Index: 2, Term: 2, Kind: "noop"})
	j.Truncate(1)
	j.Append(Entry{Index: 1, Term: 1, Kind: "noop"})
	require.NoError(t, j.Sync())
	_, r := open(t, d)
	require.Equal(t, []string{`{"index":1,"term":1,"kind":"noop"}`}, contentOf(r).Entries)
}

func TestJournalOfAnotherServerIsRefused(t *testing.T) {
	d := disk.NewSim("data/n2")
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	require.NoError(t, j.Sync())
	before := fileOf(t, d)
	for _, h := range []Header{
		{Stage: "04-smart-client", Cluster: "c1", ID: 2},
		{Stage: "03-log-replication", Cluster: "c2", ID: 2},
		{Stage: "03-log-replication", Cluster: "c1", ID: 3},
	} {
		_, _, err := Open(d, "journal", h)
		require.Equal(t, &ForeignError{File: "data/n2/journal", Has: header, Want: h}, err)
	}
	_, _, err := Open(d, "journal", Header{Stage: "04-smart-client", Cluster: "c1", ID: 3})
	require.EqualError(t, err, `data/n2/journal belongs to server 2 of cluster "c1" of stage 03-log-replication, and this is server 3 of cluster "c1" of stage 04-smart-client: give this server its own folder`)
	require.Equal(t, before, fileOf(t, d))
}

func TestReadChangesNothing(t *testing.T) {
	d := disk.NewSim("n2")
	_, err := Read(d, "journal")
	require.ErrorIs(t, err, fs.ErrNotExist)
	j, _ := open(t, d)
	j.SetState(State{Term: 1})
	require.NoError(t, j.Sync())
	j.SetState(State{Term: 2})
	before := d.Stats()
	r, err := Read(d, "journal")
	require.NoError(t, err)
	require.Equal(t, State{Term: 1}, r.State, "a journal in use can be read")
	require.Equal(t, header, r.Header)

	f, err := d.Open("journal")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("half a li"), j.Size())
	require.NoError(t, err)
	r, err = Read(d, "journal")
	require.NoError(t, err)
	require.Equal(t, 9, r.TornBytes)
	require.Equal(t, 3, r.TornLine)
	r, err = Read(d.Durable(), "journal")
	require.NoError(t, err)
	require.Empty(t, r.Torn)
	require.Equal(t, State{Term: 1}, r.State)
	require.Equal(t, before.Ops+1, d.Stats().Ops)
	require.Contains(t, string(trimmed(fileOf(t, d))), "half a li")
}

// nullFile accepts every write and stores nothing.
type nullFile struct{ disk.File }

func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Sync() error                            { return nil }

func TestRoundsAllocateNothing(t *testing.T) {
	j, _ := open(t, disk.NewSim("n2"))
	j.f = nullFile{}
	j.SetState(State{Term: 3})
	e := benchEntry(1)
	round := func() {
		for range 16 {
			j.Append(e)
			e.Index++
		}
		require.NoError(t, j.Sync())
	}
	for range 4000 {
		round()
	}
	require.Zero(t, testing.AllocsPerRun(100, round))
}

func TestLargeBufferIsGivenBack(t *testing.T) {
	j, _ := open(t, disk.NewSim("n2"))
	j.SetState(State{Term: 1})
	j.Append(Entry{Index: 1, Term: 1, Command: append(append([]byte{'"'}, bytes.Repeat([]byte("x"), maxKept)...), '"')})
	require.NoError(t, j.Sync())
	require.Nil(t, j.buf)
	j.Append(Entry{Index: 2, Term: 1, Kind: "noop"})
	require.NoError(t, j.Sync())
}
