package trace

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// digest returns the story of events in at most limit lines.
func digest(t *testing.T, limit int, events ...Event) string {
	t.Helper()
	var b bytes.Buffer
	d := NewDigest(&b, limit)
	for _, e := range events {
		d.Tell(e)
	}
	require.NoError(t, d.End())
	return b.String()
}

// A story that fits is written in full; otherwise only its important lines are
// written.
func TestDigest(t *testing.T) {
	golden(t, "digest-long.txt", []byte(digest(t, 100, story()...)))
	golden(t, "digest-short.txt", []byte(digest(t, 17, story()...)))
}

// The story of a run of any length is bounded, and contains the first chapters
// and the end.
func TestDigestIsBounded(t *testing.T) {
	var events []Event
	for i := range 20_000 {
		at := time.Duration(i) * time.Millisecond
		events = append(events,
			Event{At: at, Kind: Note, Text: fmt.Sprintf("chapter %d", i)},
			Event{At: at, Node: 1, Kind: Decide, Reason: &Reason{Code: "truncated", Text: fmt.Sprintf("n1 removes entry %d", i)}},
			Event{At: at, Node: 2, Kind: Deliver, From: 1, To: 2, Message: fmt.Sprintf(`{"n":%d}`, i)},
		)
	}
	events = append(events, Event{Kind: Verdict, Text: "survived"})
	var b bytes.Buffer
	d := NewDigest(&b, 30)
	most := 0
	for _, e := range events {
		d.Tell(e)
		most = max(most, len(d.lines))
	}
	require.NoError(t, d.End())
	require.LessOrEqual(t, most, 64*30+1, "lines that cannot be shown are not kept")
	text := b.String()
	require.LessOrEqual(t, strings.Count(text, "\n"), 42)
	require.Contains(t, text, "— chapter 0\n")
	require.Contains(t, text, "— chapter 19999\n")
	require.Contains(t, text, "✔ survived\n")
	require.Contains(t, text, fmt.Sprintf("(%d more events: -v tells them all)", len(events)-30))
}

func TestDigestKeepsTheErrorOfItsWriter(t *testing.T) {
	full := errors.New("disk full")
	d := NewDigest(writerFunc(func([]byte) (int, error) { return 0, full }), 10)
	d.Tell(Event{Kind: Note, Text: "a"})
	require.ErrorIs(t, d.End(), full)
}

// An event of several servers is one line, and a retry is written once.
func TestDigestFolds(t *testing.T) {
	text := digest(t, 50,
		Event{Node: 1, Kind: Start, Text: "with nothing"},
		Event{Node: 2, Kind: Start, Text: "with nothing"},
		Event{Node: 3, Kind: Start, Text: "with one entry"},
		Event{Kind: Drop, From: 1, To: 3, Text: "the link is cut", Message: "a"},
		Event{Kind: Drop, From: 1, To: 2, Text: "the link is cut", Message: "b"},
		Event{Node: 2, Kind: Decide, Reason: &Reason{Code: "elected", Text: "n2 leads term 1"}},
		Event{Node: 2, Kind: Role, Role: "leader", Term: 1},
	)
	require.Contains(t, text, "each of n1, n2 starts: with nothing\n")
	require.Contains(t, text, "n3   starts: with one entry\n")
	require.Contains(t, text, "n1 → n2, n3 are lost (the link is cut): a\n")
	require.Contains(t, text, "n2   leads term 1\n")
	require.NotContains(t, text, "becomes leader")

	again := Event{Kind: Return, Client: 1, Message: `{"ok":false,"error":{"code":"busy","message":"later"}}`, Text: "it retries"}
	var retries []Event
	for range 100 {
		retries = append(retries, again, Event{Kind: Invoke, Client: 1, To: 2, Message: `{"op":"get","key":"x"}`, Text: "again"})
	}
	require.Equal(t, 3, strings.Count(digest(t, 50, retries...), "\n"), "the answer, the retry, and how much is left out")
}
