package diagram

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
)

// wellFormed checks that a picture is XML, and returns its texts.
func wellFormed(t *testing.T, svg []byte) string {
	t.Helper()
	var texts strings.Builder
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts.String()
		}
		require.NoError(t, err)
		if text, ok := token.(xml.CharData); ok {
			texts.Write(text)
			texts.WriteByte('\n')
		}
	}
}

// Whatever stands in a story is text in the picture, and never markup.
func TestTextsAreEscaped(t *testing.T) {
	svg := Draw(`<story>`, []trace.Event{
		{Kind: trace.Note, Text: `<story>: it's "so" & <b>so</b>`},
		{Step: 1, Kind: trace.Note, Text: `</svg><script>alert(1)</script>`},
		{Step: 2, Node: 1, Kind: trace.Send, From: 1, To: 2, Number: 1, Message: `{"replicate":{"command":{"op":"put","key":"<i>","value":"&"}}}`},
		{Step: 2, Kind: trace.Drop, From: 1, To: 2, Number: 1, Message: `{"replicate":{"command":{"op":"put","key":"<i>","value":"&"}}}`, Text: "<cut>"},
		{Step: 3, Kind: trace.Verdict, Text: "a<b"},
	})
	texts := wellFormed(t, svg)
	for _, want := range []string{"<story>", `it's "so" & <b>so</b>`, "</svg><script>alert(1)</script>", "n1 → n2 is lost (<cut>): command (<i>=&)", "✔ a<b"} {
		require.Contains(t, texts, want)
	}
}

// However long a story is, its picture has a bounded number of rows, and its chapters,
// crashes and end are among them. Where turning points were left out, dots say so.
func TestAPictureIsBounded(t *testing.T) {
	var events []trace.Event
	step := uint64(0)
	add := func(e trace.Event) {
		step++
		e.Step, e.At = step, time.Duration(step)*time.Millisecond
		events = append(events, e)
	}
	add(trace.Event{Kind: trace.Note, Text: "long: a story"})
	for i := range 300 {
		add(trace.Event{Node: 1, Kind: trace.Crash, Text: "its power is cut"})
		add(trace.Event{Node: 1, Kind: trace.Start, Text: fmt.Sprintf("for the %d. time", i)})
		add(trace.Event{Kind: trace.Invoke, Client: 1, To: 1, Message: `{"id":1,"op":"get","key":"x"}`})
		add(trace.Event{Kind: trace.Return, Client: 1, Message: `{"id":1,"ok":true}`})
	}
	add(trace.Event{Kind: trace.Verdict, Text: "survived"})
	rows := choose(events)
	require.LessOrEqual(t, len(rows), maxRows)
	require.Equal(t, trace.Crash, rows[0].event.Kind)
	require.Equal(t, trace.Verdict, rows[len(rows)-1].event.Kind)
	svg := Draw("long", events)
	wellFormed(t, svg)
	require.Equal(t, 1, strings.Count(string(svg), "⋮"))
	require.Less(t, len(svg), 64<<10)
}

// An arrow leads from where a message was sent to where it arrived. A lost one ends in
// a cross, and one that is still on its way at the end has no cross.
func TestMessages(t *testing.T) {
	vote := `{"term":2,"requestVote":{}}`
	events := []trace.Event{
		{Kind: trace.Note, Text: "votes: a story"},
		{Step: 1, Node: 1, Kind: trace.Decide, Role: "candidate", Term: 2, Reason: &trace.Reason{Code: "timed-out", Text: "n1 starts an election in term 2"}},
		{Step: 1, Node: 1, Kind: trace.Send, From: 1, To: 2, Number: 1, Message: vote},
		{Step: 1, Node: 1, Kind: trace.Send, From: 1, To: 3, Number: 1, Message: vote},
		{Step: 1, Node: 1, Kind: trace.Send, From: 1, To: 4, Number: 1, Message: vote},
		{Step: 2, Node: 2, Kind: trace.Deliver, From: 1, To: 2, Number: 1, Message: vote},
		{Step: 2, Node: 2, Kind: trace.Send, From: 2, To: 1, Number: 1, Message: `{"term":2,"requestVoteReply":{"granted":true}}`},
		{Step: 3, Kind: trace.Drop, From: 1, To: 3, Number: 1, Message: vote, Text: "random loss"},
		{Step: 4, Node: 1, Kind: trace.Deliver, From: 2, To: 1, Number: 1, Message: `{"term":2,"requestVoteReply":{"granted":true}}`},
		{Step: 4, Node: 1, Kind: trace.Decide, Role: "leader", Term: 2, Reason: &trace.Reason{Code: "elected", Text: "n1 becomes the leader"}},
	}
	rows := choose(events)
	require.Len(t, rows, 3)
	got := messages(events, rows)
	for i := range got {
		got[i].line = ""
	}
	require.Equal(t, []message{
		{from: 1, to: 2, sent: 1, ended: 2},
		{from: 1, to: 3, sent: 1, ended: 3, lost: true},
		{from: 1, to: 4, sent: 1, label: "vote?"},
		{from: 2, to: 1, sent: 2, ended: 4, label: "yes"},
	}, got)
}
