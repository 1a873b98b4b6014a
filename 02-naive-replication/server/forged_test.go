package server

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Only other members count for a majority, each once, and only once they were asked.
func FuzzForgedMessages(f *testing.F) {
	f.Add(uint64(1), uint64(3), `{"replicateReply":{"seq":18446744073709551615}}`)
	f.Add(uint64(2), uint64(1), `{"replicate":{"seq":0,"command":{"op":"append","key":"x","value":"1"}}}`)
	f.Fuzz(func(t *testing.T, to, from uint64, text string) {
		s, _, _ := start(t, 1+to%3)
		receive(t, s, from, text)
		if to%3 == 0 {
			put := ask(t, s, `{"id":7,"op":"put","key":"x","value":"2"}`)
			require.Empty(t, *put, "nobody has it yet")
			receive(t, s, 3, `{"replicateReply":{"seq":1}}`)
			require.Equal(t, []string{`{"id":7,"ok":true}`}, *put)
		}
	})
}
