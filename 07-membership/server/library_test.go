package server

import (
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
	commands := []string{`{"op":"put","key":"x","value":"<&>"}`, `7`, `null`, `[[[[]]]]`, `"` + strings.Repeat("x", maxText-2) + `"`}
	for i, c := range commands {
		a := w.propose(c)
		w.done(a)
		index := uint64(w.status().Last)
		require.Equal(t, index, a.responses[0].Index)
		require.JSONEq(t, fmt.Sprintf(`{"index":%d,"length":%d}`, index, i+1), string(a.responses[0].Data))
	}
	require.Equal(t, commands, w.diary().commands)

	applied, leader := w.server.Progress()
	require.EqualValues(t, w.status().Last, applied)
	require.EqualValues(t, 1, leader)

	status := w.request(api.Request{Op: api.Status})
	require.True(t, json.Valid(status.responses[0].Data))
	require.NotContains(t, string(status.responses[0].Data), "keys")
}

// What could not be sent, saved or read again is refused before it is in a log.
func TestInvalidCommands(t *testing.T) {
	w := startDiary(t, disk.NewSim("d"))
	last := w.status().Last
	for _, c := range []struct {
		command, words string
		code           api.Code
	}{
		{``, "want a JSON value", api.BadRequest},
		{`transfer 5`, "a command is a JSON value on one line: want a JSON value, found 't'", api.BadRequest},
		{`{} {}`, "something follows", api.BadRequest},
		{`1],[2`, "something follows", api.BadRequest},
		{"{\"a\":1,\n\"b\":2}", "a line break (at byte 7)", api.BadRequest},
		{"{\"a\":\t1}", "a tab", api.BadRequest},
		{`[[[[[]]]]]`, "nested deeper than 4", api.BadRequest},
		{"\"\xff\"", "not valid UTF-8", api.BadRequest},
		{`"` + strings.Repeat("x", maxText-1) + `"`, "at most 1048576 are allowed", api.TooLarge},
	} {
		w.refused(w.propose(c.command), c.code, c.words)
	}
	require.Equal(t, last, w.status().Last)
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
	w.diary().commands = append(w.diary().commands, `{`+strings.Repeat(`"a":[[[[[[[[[[0]]]]]]]]]],`, 50)+`"b":"\u0000"}`) // as no command could
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

// A snapshot that nobody could read again must not replace the log.
func TestASnapshotRejectsAnInvalidLine(t *testing.T) {
	for wrong, words := range map[string]string{
		"{\n}":                                   "a line break",
		`{"a"`:                                   "it is not a JSON value: \"{\\\"a\\\"\"",
		"\"\xff\"":                               "not valid UTF-8",
		`"` + strings.Repeat("x", maxText) + `"`: "at most 1048576 are allowed",
	} {
		w := startDiary(t, disk.NewSim("d"))
		w.diary().wrong = wrong
		for len(w.works) == 0 {
			w.propose(`"` + strings.Repeat("x", 100) + `"`)
		}
		for _, work := range w.works {
			work()
		}
		w.forget()
		w.flush()
		require.Len(t, w.logged, 1)
		require.Contains(t, w.logged[0], "a line that the state machine wrote for its snapshot: ")
		require.Contains(t, w.logged[0], words)
		require.NotContains(t, w.names(), newestName)
	}
}
