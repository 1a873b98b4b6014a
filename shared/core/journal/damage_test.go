package journal

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
)

// tenRecords writes a journal of ten records and the header, in four rounds, and
// returns its file. If stopped is true, the journal was closed; otherwise its
// process was killed.
func tenRecords(t *testing.T, stopped bool) []byte {
	t.Helper()
	d := disk.NewSim("n2")
	j, _ := open(t, d)
	put := func(index, term uint64, value string) {
		j.Append(Entry{Index: index, Term: term, Command: fmt.Appendf(nil, `{"op":"put","key":"k","value":"%s"}`, value)})
	}
	j.SetState(State{Term: 1, Vote: 2})
	j.Append(Entry{Index: 1, Term: 1, Kind: "noop"})
	put(2, 1, "one")
	require.NoError(t, j.Sync())
	put(3, 1, strings.Repeat("long ", 110))
	require.NoError(t, j.Sync())
	j.SetState(State{Term: 2})
	j.Truncate(3)
	j.Append(Entry{Index: 3, Term: 2, Kind: "noop"})
	require.NoError(t, j.Sync())
	put(4, 2, "four")
	put(5, 2, strings.Repeat(" ", 1100))
	put(6, 2, "six")
	require.NoError(t, j.Sync())
	if stopped {
		require.NoError(t, j.Close())
	}
	text := fileOf(t, d)
	require.Equal(t, 11, bytes.Count(text, []byte("\n")))
	return text
}

// rewritten returns the file of a journal that was compacted and not changed
// since.
func rewritten(t *testing.T) []byte {
	t.Helper()
	d := onDisk(t, tenRecords(t, true))
	j, r := open(t, d)
	require.NoError(t, j.Rewrite(r.State, Base{Index: 2, Term: 1, Config: `{"voters":[1]}`}, r.Entries[2:]))
	return fileOf(t, d)
}

// Open never takes a changed byte for a crash, at any offset and with any new
// value: it refuses the file, or it reads every record although the byte is wrong
// (a tab that was written in advance, or a line break that can be restored).
func TestChangedByteAnywhere(t *testing.T) {
	for name, text := range map[string][]byte{
		"stopped":   tenRecords(t, true),
		"running":   tenRecords(t, false),
		"rewritten": rewritten(t),
	} {
		t.Run(name, func(t *testing.T) {
			clean, err := Read(onDisk(t, text), "journal")
			require.NoError(t, err)
			want := contentOf(clean)
			refused, healed := 0, 0
			for at := 0; at < len(text); at += stride {
				if at > len(trimmed(text))+40 && at%97 != 0 {
					// Far inside the tabs, all positions give the same result.
					continue
				}
				for _, value := range changedTo(text[at]) {
					bad := slices.Clone(text)
					bad[at] = value
					if openChanged(t, bad, at, want) {
						healed++
					} else {
						refused++
					}
				}
			}
			require.Greater(t, refused, 10*len(trimmed(text))/stride)
			if name == "running" {
				require.Positive(t, healed)
			}
		})
	}
}

// changedTo returns the values to which the test changes a byte: the byte with
// one bit flipped, and the values that have a meaning in a journal.
func changedTo(b byte) []byte {
	values := []byte("\n\t\x00 }\"0x")
	for bit := range 8 {
		values = append(values, b^1<<bit)
	}
	slices.Sort(values)
	return slices.DeleteFunc(slices.Compact(values), func(v byte) bool { return v == b })
}

// openChanged opens a journal with a changed byte. It fails the test unless Open
// refuses the file or reads every record, and reports whether Open has read them.
func openChanged(t *testing.T, text []byte, at int, want content) bool {
	t.Helper()
	d := onDisk(t, text)
	_, r, err := Open(d, "journal", header)
	if err != nil {
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, "n2/journal", corrupt.File)
		line := bytes.Count(text[:min(at, corrupt.Offset)], []byte("\n")) + 1
		require.GreaterOrEqual(t, corrupt.Line, line)
		require.Equal(t, bytes.Count(text[:corrupt.Offset], []byte("\n"))+1, corrupt.Line)
		require.Equal(t, text, fileOf(t, d), "Open must not change a file that it refuses")
		return false
	}
	for range 2 {
		if got := contentOf(r); !want.equal(got) {
			require.Equal(t, want, got, "byte %d turned into %q", at, text[at])
		}
		_, r = open(t, d)
	}
	require.Empty(t, r.Torn)
	return true
}

// The exception in the package comment: Open takes a changed first byte of the
// last round for a crash if it is the last byte of a sector.
func TestChangedByteThatLooksLikeALostSector(t *testing.T) {
	for pad := range disk.SectorSize {
		d := disk.NewSim("n2")
		j, _ := open(t, d)
		j.SetState(State{Term: 1})
		j.Append(Entry{Index: 1, Term: 1, Command: fmt.Appendf(nil, `"%s"`, strings.Repeat("x", pad))})
		require.NoError(t, j.Sync())
		at := int(j.Size())
		j.Append(Entry{Index: 2, Term: 1, Kind: "noop"})
		require.NoError(t, j.Sync())
		require.NoError(t, j.Close())
		text := fileOf(t, d)
		text[at] = '\t'
		_, r, err := Open(onDisk(t, text), "journal", header)
		if at%disk.SectorSize == disk.SectorSize-1 {
			require.NoError(t, err)
			require.Len(t, r.Entries, 1)
			return
		}
		require.Error(t, err)
	}
	require.Fail(t, "no round began with the last byte of a sector")
}

// Lost sectors are damage in a round that another round follows, and in the lines
// with which the file was created. In the last round, lost sectors cannot be
// distinguished from what a crash leaves, and Open keeps everything before them.
func TestLostSector(t *testing.T) {
	text := tenRecords(t, true)
	lastRound := bytes.LastIndex(text, []byte(`"synced":`))
	var start int
	_, err := fmt.Sscanf(string(text[lastRound:]), `"synced":%d`, &start)
	require.NoError(t, err)
	require.Greater(t, len(text)-start, 2*disk.SectorSize, "the last round must have whole sectors")
	for _, blank := range []byte{'\t', 0} {
		for at := 0; at < len(text); at += disk.SectorSize {
			bad := slices.Clone(text)
			end := min(at+disk.SectorSize, len(text))
			copy(bad[at:end], bytes.Repeat([]byte{blank}, disk.SectorSize))
			_, r, err := Open(onDisk(t, bad), "journal", header)
			if at < start {
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt, "sector at %d", at)
				continue
			}
			require.NoError(t, err)
			require.NotEmpty(t, r.Torn)
			require.GreaterOrEqual(t, len(r.Entries), 3)
			require.Less(t, len(r.Entries), 6)
			require.Equal(t, State{Term: 2}, r.State)
		}
	}
	for cut := 1; cut < len(text)-start; cut++ {
		_, r, err := Open(onDisk(t, text[:len(text)-cut]), "journal", header)
		require.NoError(t, err, "the last round lacks %d bytes", cut)
		require.GreaterOrEqual(t, len(r.Entries), 3)
	}
	made := rewritten(t)
	for cut := 1; cut <= len(made); cut++ {
		_, _, err := Open(onDisk(t, made[:len(made)-cut]), "journal", header)
		require.Error(t, err, "the lines with which a file was created were synced before it had its name; %d bytes are missing", cut)
	}
}

// line adds the checksum to a record, as the journal does.
func line(json string) string {
	b := append(make([]byte, crcline.Len), json...)
	crcline.Seal(b)
	return string(b) + "\n"
}

// damage is a file and the error that Open must return for it.
type damage struct {
	text   string
	line   int
	sealed bool
	want   string
}

func damages() map[string]damage {
	const head = `{"journal":{"version":1,"stage":"03-log-replication","cluster":"c1","id":2,"lines":1},"synced":0}`
	h := len(line(head))
	state := line(fmt.Sprintf(`{"state":{"term":3,"vote":1},"synced":%d}`, h))
	two := h + len(state)
	entry := func(synced int) string {
		return line(fmt.Sprintf(`{"entry":{"index":1,"term":3,"kind":"noop"},"synced":%d}`, synced))
	}
	at := func(json string) string { return line(fmt.Sprintf(json, two)) }
	return map[string]damage{
		"empty":              {"", 1, false, "the file ends here, but it was created with 1 lines or more"},
		"only blank":         {"\t\t", 1, false, "the file ends here, but it was created with 1 lines or more"},
		"not a journal":      {"hello\n", 1, false, "its checksum is wrong, and the file was created with this line"},
		"no first line":      {state, 1, true, "it says that its round began at byte 107, but no round began there"},
		"no header":          {line(`{"state":{"term":3},"synced":0}`), 1, true, `the record "state" is not allowed in this line`},
		"newer version":      {line(strings.Replace(head, `"version":1`, `"version":2`, 1)), 1, true, "the journal has version 2, and this program knows only version 1"},
		"no version":         {line(strings.Replace(head, `"version":1,`, ``, 1)), 1, true, "a journal needs a version and a number of lines"},
		"no lines":           {line(strings.Replace(head, `,"lines":1`, ``, 1)), 1, true, "a journal needs a version and a number of lines"},
		"too many lines":     {line(strings.Replace(head, `"lines":1`, `"lines":18446744073709551615`, 1)), 1, true, "18446744073709551615 lines, which is more than it has bytes"},
		"header field":       {line(strings.Replace(head, `"id"`, `"ID"`, 1)), 1, true, `field "ID": unknown field`},
		"second header":      {line(head) + state + at(strings.Replace(head, `"synced":0`, `"synced":%d`, 1)), 3, true, `the record "journal" is not allowed in this line`},
		"break missing":      {strings.TrimSuffix(line(head), "\n"), 1, false, "its line break is missing, although the file was created with it"},
		"lines missing":      {line(strings.Replace(head, `"lines":1`, `"lines":3`, 1)) + line(`{"state":{"term":3},"synced":0}`), 3, false, "the file ends here, but it was created with 3 lines or more"},
		"made, whole, later": {line(head) + line(`{"state":{"term":3},"synced":0}`), 2, true, "it says that its round began at byte 0, but no round began there"},
		"tab in the end":     {line(head) + state + "0123\t567 {", 3, false, "its checksum is wrong, and nothing of it is missing"},
		"empty line":         {line(head) + state + "\n", 3, false, "its checksum is wrong, and nothing of it is missing"},
		"good behind bad":    {line(head) + state[1:] + entry(two-1), 2, false, "its checksum is wrong, and nothing of it is missing"},
		"sector lost":        {line(head) + strings.Repeat("\t", 600) + "\n" + entry(h+601), 2, false, "its checksum is wrong, but line 3 is whole and was written when everything before byte 708 was on the disk"},
		"sector lost before": {line(head) + strings.Repeat("\t", 600) + "\n" + strings.Repeat("\x00", 1200) + "\n" + entry(h+1802), 2, false, "but line 4 is whole"},
		"same round":         {line(head) + state[1:] + entry(h), 2, false, "its checksum is wrong, and nothing of it is missing"},
		"synced nowhere":     {line(head) + state + entry(two-1), 3, true, "it says that its round began at byte"},
		"lost, then nowhere": {line(head) + strings.Repeat("\t", 600) + "\n" + entry(50), 3, true, "it says that its round began at byte 50, but no round began there"},
		"lost, then unknown": {line(head) + strings.Repeat("\t", 600) + "\n" + line(`{}`), 3, true, "it cannot be read"},
		"unknown record":     {line(head) + state + at(`{"vote":{"term":3},"synced":%d}`), 3, true, `field "vote": unknown field`},
		"two records":        {line(head) + state + at(`{"state":{"term":3},"truncate":{"from":1},"synced":%d}`), 3, true, `field "truncate": unknown field`},
		"no synced":          {line(head) + line(`{"state":{"term":3}}`), 2, true, `the record has no content or no field "synced"`},
		"no record":          {line(head) + line(`{"synced":107}`), 2, true, `the record has no content or no field "synced"`},
		"not JSON":           {line(head) + line(`state`), 2, true, "it cannot be read: want an object"},
		"state without term": {line(head) + state + at(`{"state":{"vote":3},"synced":%d}`), 3, true, `the field "term" is missing`},
		"term falls":         {line(head) + state + at(`{"state":{"term":2},"synced":%d}`), 3, true, "it does not fit what is before it: the term falls from 3 to 2"},
		"vote changes":       {line(head) + state + at(`{"state":{"term":3,"vote":2},"synced":%d}`), 3, true, "the vote in term 3 changes from 1 to 2"},
		"gap":                {line(head) + state + at(`{"entry":{"index":2,"term":3,"kind":"noop"},"synced":%d}`), 3, true, "entry 2 follows entry 0"},
		"ahead of state":     {line(head) + state + at(`{"entry":{"index":1,"term":4,"kind":"noop"},"synced":%d}`), 3, true, "entry 1 has term 4, but the server is still in term 3"},
		"truncate nothing":   {line(head) + state + at(`{"truncate":{"from":1},"synced":%d}`), 3, true, "the entries from 1 on cannot be removed: the log has entries 1 to 0"},
		"base, later":        {line(head) + state + at(`{"base":{"index":9,"term":3},"synced":%d}`), 3, true, "a base must come before the entries that the file was created with"},
	}
}

func TestDamageIsNamed(t *testing.T) {
	for name, test := range damages() {
		t.Run(name, func(t *testing.T) {
			d := onDisk(t, []byte(test.text))
			_, _, err := Open(d, "journal", header)
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.Contains(t, corrupt.Problem, test.want)
			require.Equal(t, test.line, corrupt.Line)
			require.Equal(t, test.sealed, corrupt.Sealed)
			require.Equal(t, test.text, string(fileOf(t, d)))
			_, err = Read(d, "journal")
			require.ErrorAs(t, err, &corrupt)
		})
	}
}

func TestDamageSaysWhatToDo(t *testing.T) {
	text := tenRecords(t, true)
	text[bytes.Index(text, []byte("one"))] = 'O'
	_, _, err := Open(onDisk(t, text), "journal", header)
	require.EqualError(t, err, "n2/journal, line 4 (at byte 226): its checksum is wrong, and nothing of it is missing; "+
		"no crash leaves this behind, so the disk has lost or changed what it had saved: check the disk; nothing was changed. "+
		"Keep the file. Do not start this server again with an empty folder, since it would have forgotten what it promised; the others continue without it as long as they are a majority")
	_, _, err = Open(onDisk(t, []byte(line(`{"journal":{"version":2},"synced":0}`))), "journal", header)
	require.ErrorContains(t, err, "its checksum is right, so it was written like this, by another version of this program or through an error in it")
}

func TestATornEndIsReported(t *testing.T) {
	text := tenRecords(t, true)
	_, r, err := Open(onDisk(t, text[:len(text)-5]), "journal", header)
	require.NoError(t, err)
	require.Equal(t, 11, r.TornLine)
	lastLine := len(text) - 1 - bytes.LastIndexByte(text[:len(text)-1], '\n')
	require.Equal(t, lastLine-5, r.TornBytes)
	require.Equal(t, fmt.Sprintf("n2/journal: cut off the last %d bytes, from line 11 on: a crash had left them incomplete, and the server had not reported them as saved", lastLine-5), r.Torn)
}

// If only the line break of a line is missing, the line is whole, as its checksum
// shows.
func TestLineWithoutALineBreak(t *testing.T) {
	whole := tenRecords(t, true)
	for _, end := range []string{"", "\t", "\t\t\t", "\x00\x00"} {
		d := onDisk(t, append(slices.Clone(whole[:len(whole)-1]), end...))
		j, r := open(t, d)
		require.Len(t, r.Entries, 6)
		require.Empty(t, r.Torn)
		require.Equal(t, whole, fileOf(t, d))
		j.Append(Entry{Index: 7, Term: 2, Kind: "noop"})
		require.NoError(t, j.Sync())
		_, r = open(t, d)
		require.Len(t, r.Entries, 7)
	}
}
