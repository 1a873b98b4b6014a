package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/02-naive-replication/naive"
)

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, body := range []naive.Body{
		naive.Replicate{Seq: 1<<64 - 1, Command: []byte(`{"op":"put","key":"k\"","value":"ä\n"}`)},
		naive.ReplicateReply{Seq: 3},
	} {
		got, err := decodeMessage(appendMessage(nil, body))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(body, got))
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"replicate":{"seq":4,"command":{"op":"append","key":"x","value":"ab"}}}`))
	f.Add([]byte(`{"replicateReply":{"seq":4}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := decodeMessage(text)
		if err != nil {
			return
		}
		again, err := decodeMessage(appendMessage(nil, body))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(body, again))
	})
}
