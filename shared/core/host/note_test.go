package host

import (
	"bytes"
	"log/slog"
	"slices"
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
