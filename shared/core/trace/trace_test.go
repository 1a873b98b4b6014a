package trace

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// story has an event of every kind, and events that a narrator leaves out.
func story() []Event {
	put := `{"replicate":{"seq":1,"command":{"op":"put","key":"x","value":"1"}}}`
	beat := `{"appendEntries":{"term":3,"entries":[]}}`
	return []Event{
		{Kind: Note, Text: "five servers; n1 leads"},
		{Node: 1, Kind: Start, Text: "its disk is empty"},
		{At: 1, Kind: Cut, From: 1, To: 3},
		{At: 2, Kind: Cut, Text: "the network parts: n1 n2 | n3"},
		{At: time.Millisecond, Kind: Invoke, Client: 1, To: 1, Message: `{"id":4,"op":"put","key":"x","value":"1"}`},
		{At: 2 * time.Millisecond, Node: 1, Kind: Request, Client: 1, Message: `{"id":4,"op":"put","key":"x","value":"1"}`},
		{At: 2 * time.Millisecond, Node: 1, Kind: Send, From: 1, To: 2, Message: put},
		{At: 3 * time.Millisecond, Node: 2, Kind: Deliver, From: 1, To: 2, Message: put},
		{At: 3 * time.Millisecond, Node: 2, Kind: Apply, Index: 7, Message: `{"op":"put","key":"x","value":"1"}`},
		{At: 3 * time.Millisecond, Kind: Drop, From: 1, To: 3, Message: put, Text: "the link is cut"},
		{At: 4 * time.Millisecond, Node: 1, Kind: Reply, Client: 1, Message: `{"id":4,"ok":true,"index":7}`},
		{At: 5 * time.Millisecond, Kind: Return, Client: 1, Message: `{"id":4,"ok":true,"index":7}`},
		{At: 6 * time.Millisecond, Node: 2, Kind: Deliver, From: 1, To: 2, Message: beat},
		{At: 7 * time.Millisecond, Node: 2, Kind: Deliver, From: 1, To: 2, Message: beat},
		{At: 8 * time.Millisecond, Node: 2, Kind: Deliver, From: 1, To: 2, Message: beat},
		{At: 9 * time.Millisecond, Node: 2, Kind: Deliver, From: 1, To: 2, Message: put, Text: "a duplicate"},
		{At: 10 * time.Millisecond, Node: 2, Kind: Save},
		{At: time.Second, Node: 3, Kind: Decide, Role: "follower", Term: 3, Reason: &Reason{
			Code: "log-behind", Section: "§5.4.1", Text: "n3 refuses its vote to n1: n1's log ends at 2@5, n3's at 3@7"}},
		{At: time.Second, Node: 3, Kind: Decide, Role: "follower", Term: 3, Reason: &Reason{
			Code: "log-behind", Section: "§5.4.1", Text: "n3 refuses its vote to n1: n1's log ends at 2@5, n3's at 3@7"}},
		{At: 1100 * time.Millisecond, Node: 2, Kind: Role, Role: "leader", Term: 4, Reason: &Reason{Code: "elected", Section: "§5.2", Text: "n2 has 3 of 5 votes"}},
		{At: 2 * time.Second, Node: 2, Kind: Pause},
		{At: 3 * time.Second, Node: 2, Kind: Resume},
		{At: 4 * time.Second, Node: 2, Kind: Crash, Text: "the power is cut"},
		{At: 5 * time.Second, Node: 4, Kind: Stop, Text: "its disk failed: input/output error"},
		{At: 6 * time.Second, Kind: Heal, From: 1, To: 3},
		{At: 7 * time.Second, Kind: Return, Client: 2, Message: `{"id":9,"ok":false,"error":{"code":"unknown","message":"the answer was lost","definite":false}}`},
		{At: 8 * time.Second, Kind: Return, Client: 2, Message: `{"id":9,"ok":false,"error":{"code":"not_leader","message":"n2 leads","leader":"127.0.0.1:7002","definite":true}}`},
		{At: 9 * time.Second, Node: 5, Kind: Drop, Text: `a message: unknown field "<b>"`},
		{At: 9 * time.Second, Kind: Logs, Text: "n1 leads 4   1:x=1 | 4:noop\nn2           1:x=1 |"},
		{At: 9 * time.Second, Kind: Verdict, Text: "the replicas differ", Reason: &Reason{Code: "replicas-differ", Text: "n3 holds x=1, the others x=2"}},
		{At: 9 * time.Second, Kind: Verdict, Text: "survived"},
	}
}

func TestNarratorTellsTheStory(t *testing.T) {
	for _, c := range []struct {
		file           string
		color, verbose bool
	}{
		{"story.txt", false, false},
		{"story-verbose.txt", false, true},
		{"story-color.txt", true, false},
	} {
		t.Run(c.file, func(t *testing.T) {
			var b bytes.Buffer
			n := NewNarrator(&b)
			n.Color, n.Verbose = c.color, c.verbose
			for _, e := range story() {
				n.Tell(e)
			}
			require.NoError(t, n.Err())
			golden(t, c.file, b.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to make the file")
	require.Empty(t, cmp.Diff(string(want), string(got)), "run the test with -update if the new text is right")
}

func TestNarratorSkipsHeartbeats(t *testing.T) {
	beat := Event{Node: 2, Kind: Deliver, From: 1, To: 2, Message: `{"appendEntries":{"entries":[]}}`}
	var b bytes.Buffer
	n := NewNarrator(&b)
	for range 100 {
		n.Tell(beat)
		n.Tell(Event{Node: 1, Kind: Deliver, From: 2, To: 1, Message: `{"appendEntriesReply":{"success":true}}`})
	}
	require.Equal(t, 2, strings.Count(b.String(), "\n"))
}

func TestNarratorKeepsTheFirstErrorOfItsWriter(t *testing.T) {
	full := errors.New("disk full")
	n := NewNarrator(writerFunc(func([]byte) (int, error) { return 0, full }))
	n.Tell(Event{Kind: Note, Text: "a"})
	n.Tell(Event{Kind: Note, Text: "b"})
	require.ErrorIs(t, n.Err(), full)

	w := NewWriter(writerFunc(func([]byte) (int, error) { return 0, full }))
	for range 1000 {
		w.Emit(Event{Kind: Note, Text: "many enough to overflow the buffer"})
	}
	require.ErrorIs(t, w.Flush(), full)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestBrief(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"op":"put","key":"x","value":"1"}`, "put x=1"},
		{`{"id":3,"op":"put","key":"x","value":""}`, `put x=""`},
		{`{"op":"append","key":"x","value":"a b"}`, `append x+="a b"`},
		{`{"op":"cas","key":"x","old":"1","value":"2"}`, "cas x 1→2"},
		{`{"op":"create","key":"x","value":"2"}`, "create x=2"},
		{`{"op":"delete","key":"x","session":4,"seq":9}`, "delete x session=4 seq=9"},
		{`{"op":"get","key":"x"}`, "get x"},
		{`{"op":"status"}`, "status"},
		{`{"op":"lead","to":2}`, "lead to=2"},
		{`{"replicate":{"seq":3,"command":{"op":"put","key":"x","value":"1"}}}`, "replicate seq=3 put x=1"},
		{`{"appendEntries":{"term":3,"entries":[{"term":2,"command":{"op":"get","key":"k"}},{"term":3}]}}`, "appendEntries term=3 entries=[term=2 get k; term=3]"},
		{`{"ok":true}`, "ok"},
		{`{"id":1,"ok":true,"value":"<a>"}`, "ok value=<a>"},
		{`{"ok":false,"error":{"code":"busy","message":"try later","definite":true}}`, "busy: try later"},
		{`{"op":{"odd":[true,false,null]}}`, "op odd=[true; false; null]"},
		{`not json`, "not json"},
		{`{"a":`, `{"a":`},
		{"", ""},
	} {
		require.Equal(t, c.want, Brief(c.line), c.line)
	}
	long := Brief(`{"op":"put","key":"x","value":"` + strings.Repeat("é", 1000) + `"}`)
	require.Equal(t, mostRunes+1, len([]rune(long)))
}

// fill gives every field of an event a value that is not zero, so that a field
// added later cannot be forgotten by the writer.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.String:
		v.SetString("a \"b\" <c>\n\u2028é")
	case reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint64:
		v.SetUint(1<<64 - 1)
	default:
		panic("a kind of field that the test does not know: " + v.Kind().String())
	}
}

func TestTraceFileRoundTrip(t *testing.T) {
	var full Event
	fill(reflect.ValueOf(&full).Elem())
	full.State = `{"term":7}` // it is JSON as it is
	events := append(story(), full)

	var b bytes.Buffer
	w := NewWriter(&b)
	for _, e := range events {
		w.Emit(e)
	}
	require.NoError(t, w.Flush())

	var got []Event
	require.NoError(t, Read(&b, func(e Event) { got = append(got, e) }))
	require.Empty(t, cmp.Diff(events, got))
}

func TestTraceFileRefusals(t *testing.T) {
	good := `{"at":1,"kind":"note"}` + "\n"
	for _, c := range []struct{ line, want string }{
		{`{"at":1}`, `field "kind" is missing`},
		{`{"at":1,"kind":"note","mood":"good"}`, "mood"},
		{`{"at":1,"kind":"note"} {}`, "something follows"},
		{`{"at":`, "unexpected EOF"},
	} {
		err := Read(strings.NewReader(good+c.line), func(Event) {})
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, "line 2")
	}
	require.ErrorContains(t, Read(strings.NewReader(good+strings.Repeat("x", MaxLine+1)), func(Event) {}), "line 2")
}

func TestTee(t *testing.T) {
	require.Nil(t, Tee(), "nobody listens")
	require.Nil(t, Tee(nil, nil))
	var a, b int
	count := func(n *int) Sink { return func(Event) { *n++ } }
	Tee(nil, count(&a))(Event{})
	Tee(count(&a), nil, count(&b))(Event{})
	require.Equal(t, [2]int{2, 1}, [2]int{a, b})
}
