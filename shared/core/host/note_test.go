package host

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
)

// A refused message is logged as a warning. If a rule has refused it, it is
// logged as an error, because something is wrong with another server.
func TestNotesHaveLevels(t *testing.T) {
	for want, e := range map[string]trace.Event{
		`level=INFO msg="starts with nothing"`:                              {Kind: trace.Start, Text: "with nothing"},
		`level=INFO msg=leads`:                                              {Kind: trace.Role, Text: "leads"},
		`level=WARN msg="refuses a message" peer=n3 error="it has no body"`: {Kind: trace.Drop, From: 3, Text: "it has no body"},
		`level=ERROR msg="n3 leads as well"`:                                {Kind: trace.Decide, Reason: &trace.Reason{Text: "n3 leads as well"}},
	} {
		var log bytes.Buffer
		c := &counts{}
		h := &Host{log: slog.New(slog.NewTextHandler(&log, nil)), loop: newLoop(1, nil, nil)}
		h.loop.meter = c
		h.note(e)
		require.Contains(t, log.String(), want)
		require.Equal(t, e.Kind == trace.Drop, slices.Equal([]string{"n3 refused 1"}, c.messages))
	}
}

// A peer whose messages are refused, again and again, does not fill the log. All of them
// are counted.
func TestRefusedMessagesDoNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	c := &counts{}
	h := &Host{log: slog.New(slog.NewTextHandler(&log, nil)), loop: newLoop(1, nil, nil)}
	h.loop.meter = c
	for range 1000 {
		h.note(trace.Event{Kind: trace.Drop, From: 9, Text: "it comes from n9, which is no member of this cluster"})
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"))
	require.Len(t, c.messages, 1000)
}
