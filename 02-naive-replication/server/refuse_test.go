package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
)

// A message that no correct server sends changes nothing, and the log says so once.
func TestAnUnexpectedMessageIsRefused(t *testing.T) {
	for text, c := range map[string]struct{ to, from uint64 }{
		"n3 gives an order, but n1 leads":           {2, 3},
		"it comes from n2 itself: another server":   {2, 2},
		"it comes from n9, which is no member of t": {2, 9},
		"n3 answers n2, which does not lead":        {2, 3},
		"it comes from n1 itself: another server":   {1, 1},
	} {
		s, sent, _ := start(t, c.to)
		var logged []trace.Event
		s.(*Server).world.Log = func(e trace.Event) { logged = append(logged, e) }
		line := `{"replicate":{"seq":1,"command":{"op":"put","key":"x","value":"1"}}}`
		if text == "n3 answers n2, which does not lead" {
			line = `{"replicateReply":{"seq":1}}`
		}
		for range 3 {
			receive(t, s, c.from, line)
		}
		require.Len(t, logged, 1, text)
		require.Contains(t, logged[0].Text, text)
		require.Equal(t, trace.Drop, logged[0].Kind)
		require.Empty(t, *sent)
		require.Contains(t, (*ask(t, s, `{"op":"get","key":"x"}`))[0], "not_found")
	}
}
