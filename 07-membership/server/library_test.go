package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
)

// diary is a Machine that keeps every command. Its result is how many there are.
type diary struct {
	commands []string

	// wrong is written to a snapshot instead of the last line.
	wrong string
}

func (d *diary) Apply(index uint64, command []byte) any {
	d.commands = append(d.commands, string(command))
	if string(command) == `"loop"` {
		return func() {} // no JSON can hold it
	}
	return map[string]any{"index": index, "length": len(d.commands)}
}

func (d *diary) Snapshot() View { return diaryView{slices.Clone(d.commands), d.wrong} }

func (d *diary) Restore(line []byte) error {
	if string(line) == `"unknown"` {
		return errors.New("the diary does not know this line")
	}
	d.commands = append(d.commands, string(line))
	return nil
}

type diaryView struct {
	commands []string
	wrong    string
}

func (v diaryView) Save(line func(add func(b []byte) []byte)) error {
	for i, c := range v.commands {
		if v.wrong != "" && i == len(v.commands)-1 {
			c = v.wrong
		}
		line(func(b []byte) []byte { return append(b, c...) })
	}
	return nil
}

func (v diaryView) Close() {}

// startDiary starts the only server of a cluster that replicates a diary, and
// lets it lead.
func startDiary(t *testing.T, d *disk.Sim) *world {
	w := startWith(t, With(func() Machine { return &diary{} }), 1, d)
	w.stand()
	w.flush()
	require.Equal(t, raft.Leader, w.status().Role)
	return w
}

func (w *world) diary() *diary { return w.server.Machine().(*diary) }

func (w *world) request(r api.Request) *answer {
	a := &answer{}
	w.server.Request(r, func(response api.Response) { a.responses = append(a.responses, response) })
	return a
}

func (w *world) propose(command string) *answer {
	w.t.Helper()
	a := w.request(api.Request{ID: 7, Op: api.Propose, Value: command})
	w.flush()
	return a
}

func TestAnotherMachineThanTheStore(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	commands := []string{`{"op":"put","key":"x","value":"<&>"}`, `7`, `null`, `[[[[]]]]`, `"` + strings.Repeat("x", MaxText-2) + `"`, strings.Repeat("\xff", MaxText)}
	for i, c := range commands {
		a := w.propose(c)
		w.done(a)
		index := uint64(w.status().Last)
		require.Equal(t, index, a.responses[0].Index)
		require.JSONEq(t, fmt.Sprintf(`{"index":%d,"length":%d}`, index, i+1), string(a.responses[0].Data))
	}
	require.Equal(t, commands, w.diary().commands)

	applied, leader, term := w.server.Progress()
	require.EqualValues(t, w.status().Last, applied)
	require.EqualValues(t, 1, leader)
	require.EqualValues(t, w.status().CurrentTerm, term)

	status := w.request(api.Request{Op: api.Status})
	require.True(t, json.Valid(status.responses[0].Data))
	require.NotContains(t, string(status.responses[0].Data), "keys")
}

func TestTooLongCommand(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	last := w.status().Last
	w.refused(w.propose(strings.Repeat("x", MaxText+1)), api.TooLarge, "at most 1048576 are allowed")
	require.Equal(t, last, w.status().Last)
	long := appendMessage(nil, raft.Message{Term: 9, Body: raft.AppendEntries{Entries: []raft.Entry{{Index: 1, Term: 9, Command: wrap(nil, bytes.Repeat([]byte{0xff}, MaxText+1))}}}})
	w.server.Receive(2, long)
	require.Contains(t, w.logged[len(w.logged)-1], "entry 1: a command of 1048577 bytes; at most 1048576 are allowed")
}

// anyBytes are commands, and the text of each in the log. A command that is a JSON
// value stands there as it is.
var anyBytes = []struct{ command, text string }{
	{`{"op":"put"}`, `{"op":"put"}`},
	{`{"op": "put"}`, `{"op": "put"}`},
	{`[[[[]]]]`, `[[[[]]]]`},
	{`{"proposed":7}`, `{"proposed":7}`},
	{`{"proposed":"7"}`, `{"proposed":"{\"proposed\":\"7\"}"}`},
	{``, `{"proposed":""}`},
	{`pay 5`, `{"proposed":"pay 5"}`},
	{` 7`, `{"proposed":" 7"}`}, // after a colon, the blank before 7 is not part of the value
	{`7 `, `{"proposed":"7 "}`},
	{"{\"a\":1,\n\"b\":2}", `{"proposed":"{\"a\":1,\n\"b\":2}"}`},
	{"{\"a\":\t1}", `{"proposed":"{\"a\":\t1}"}`},
	{`{} {}`, `{"proposed":"{} {}"}`},
	{`1],[2`, `{"proposed":"1],[2"}`},
	{`{"a":1,"a":2}`, `{"proposed":"{\"a\":1,\"a\":2}"}`},
	{`{"a":1,"a_b64":"/w=="}`, `{"proposed":"{\"a\":1,\"a_b64\":\"/w==\"}"}`},
	{`[[[[[]]]]]`, `{"proposed":"[[[[[]]]]]"}`},
	{"\xff", `{"proposed_b64":"/w=="}`},
	{"\"\xff\"", `{"proposed_b64":"Iv8i"}`},
	{strings.Repeat("\x00", 30), `{"proposed_b64":"` + strings.Repeat("AAAA", 10) + `"}`},
	{`{"proposed":"pay 5"}`, `{"proposed":"{\"proposed\":\"pay 5\"}"}`},
	{`{"proposed_b64":"/w=="}`, `{"proposed":"{\"proposed_b64\":\"/w==\"}"}`},
	{`{"proposed_b64":"/x=="}`, `{"proposed_b64":"/x=="}`},         // not written by this program
	{`{"proposed":"\u0041!"}`, `{"proposed":"\u0041!"}`},           // nor is this
	{`{"proposed":"pay 5","to":1}`, `{"proposed":"pay 5","to":1}`}, // nor this
}

func TestCommandsOfAnyBytes(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	var want []string
	for _, c := range anyBytes {
		w.done(w.propose(c.command))
		require.Equal(t, c.text, string(w.server.rules.Entry(w.status().Last).Command))
		require.Equal(t, c.command, string(CommandBytes([]byte(c.text))))
		want = append(want, c.command)
	}
	require.Equal(t, want, w.diary().commands)

	// They are the same after a restart, and on the servers that get them in a message.
	var sent []raft.Entry
	for i := raft.Index(1); i <= w.status().Last; i++ {
		sent = append(sent, w.server.rules.Entry(i))
	}
	m, err := decodeMessage(appendMessage(nil, raft.Message{Term: 9, Body: raft.AppendEntries{Entries: sent}}))
	require.NoError(t, err)
	require.Equal(t, sent, m.Body.(raft.AppendEntries).Entries)
	w.disk.CrashWorst()
	require.Equal(t, want, startDiary(t, w.disk).diary().commands)
}

func FuzzAnyBytes(f *testing.F) {
	for _, c := range anyBytes {
		f.Add([]byte(c.command))
	}
	f.Fuzz(func(t *testing.T, original []byte) {
		for _, fits := range []func([]byte) bool{fitsInMessage, fitsInSnapshot} {
			text := original
			if !asItIs(original, fits) {
				text = wrap(nil, original)
				require.True(t, fitsInMessage(text))
			}
			require.True(t, fits(text))
			require.Equal(t, original, originalBytes(text, fits))
			require.LessOrEqual(t, len(text), 2*len(original)+len(`{"proposed_b64":""}`)+4)
		}
	})
}

func TestOpsOfTheLibrary(t *testing.T) {
	for _, text := range []string{`{"op":"propose","value":"1"}`, `{"op":"barrier"}`, `{"op":"status"}`, `{"op":"log","from":3}`, `{"op":"members"}`, `{"op":"cancel"}`, `{"op":"transfer","to":2}`, `{"op":"change","remove":[1]}`} {
		_, err := LibraryOps.Decode([]byte(text))
		require.NoError(t, err, text)
	}
	for _, text := range []string{`{"op":"get","key":"x"}`, `{"op":"put","key":"x","value":"1"}`, `{"op":"open"}`, `{"op":"propose"}`, `{"op":"propose","value":"1","key":"x"}`} {
		_, err := LibraryOps.Decode([]byte(text))
		require.Error(t, err, text)
	}
}

// The command was carried out, so it must not look as if it was not.
func TestAResultThatIsNotJSON(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	w.refused(w.propose(`"loop"`), api.Unknown, "cannot be written")
	require.Len(t, w.diary().commands, 1)
}

func TestBarrierWaitsForAMajority(t *testing.T) {
	w := startWith(t, With(func() Machine { return &diary{} }), 3, disk.NewSim("d"))
	w.stand()
	w.receive(2, w.status().CurrentTerm, raft.RequestVoteReply{Granted: true})
	w.flush()
	w.acknowledge(2)
	w.flush()
	first := w.propose(`1`)
	barrier := w.request(api.Request{ID: 8, Op: api.Barrier})
	w.flush()
	require.Empty(t, barrier.responses)
	w.acknowledge(2)
	w.flush()
	w.done(first)
	require.Equal(t, []api.Response{{ID: 8}}, barrier.responses)
	require.Equal(t, []string{`1`}, w.diary().commands)
}

func TestAnotherMachineInASnapshot(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	w.propose(`{"end":{"lines":2}}`)                                                                                      // it looks like the last line of a snapshot
	w.diary().commands = append(w.diary().commands, `{`+strings.Repeat(`"a":[[[[[[[[[[0]]]]]]]]]],`, 50)+`"b":"\u0000"}`) // as no message could hold it
	for _, c := range anyBytes {
		w.propose(c.command)
	}
	for len(w.works) == 0 {
		w.propose(`"` + strings.Repeat("x", 100) + `"`)
	}
	w.work()
	require.NotZero(t, w.status().Snapshot.Index)
	w.propose(`"tail"`)
	want := w.diary().commands
	w.disk.CrashWorst()

	again := startDiary(t, w.disk)
	require.Equal(t, want, again.diary().commands)
}

func TestASnapshotOfAnotherMachineIsRefused(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.work()
	_, err := With(func() Machine { return &diary{} })(w.world(1))
	require.ErrorContains(t, err, "is damaged in line 2: it is not a line of a state machine that was given to this server")

	w = startDiary(t, disk.NewSim("d"))
	w.propose(`"unknown"`)
	for len(w.works) == 0 {
		w.propose(`"` + strings.Repeat("x", 100) + `"`)
	}
	w.work()
	_, err = With(func() Machine { return &diary{} })(w.world(1))
	require.ErrorContains(t, err, "is damaged in line 2: the diary does not know this line")
}

// A snapshot with a line that is too long must not replace the log.
func TestASnapshotRejectsALongLine(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	w.diary().wrong = strings.Repeat("x", MaxText+1)
	for len(w.works) == 0 {
		w.propose(`"` + strings.Repeat("x", 100) + `"`)
	}
	for _, work := range w.works {
		work()
	}
	w.forget()
	w.flush()
	require.Len(t, w.logged, 1)
	require.Contains(t, w.logged[0], "a line that the state machine wrote for its snapshot has 1048577 bytes; at most 1048576 are allowed")
	require.NotContains(t, w.names(), newestName)
}
