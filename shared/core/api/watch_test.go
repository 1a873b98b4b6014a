package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// One change may be told to thousands of clients at once. Each answer counts for about
// as many bytes as it has, so that they do not use up the budget of the server.
func TestTheAnswerToAWatchCountsForItsLength(t *testing.T) {
	for _, length := range []int{0, 1, 100, 500, 5000, 100_000} {
		want := Events{Events: []Event{{Index: 7, Key: "x", Value: strings.Repeat("v", length)}}, Next: 8}
		r := want.Response(3)
		require.EqualValues(t, 3, r.ID)
		if length <= 500 {
			require.Less(t, r.Size(), 1000, length)
		}
		if length >= 5000 {
			require.Equal(t, LongData+128, r.Size(), "it is encoded by the goroutine that sends it")
		}
		events, err := DecodeEvents(r.WithData().Data)
		require.NoError(t, err)
		require.Equal(t, want, events)
	}
	require.Less(t, Events{Next: 8}.Response(3).Size(), 1000)
}
