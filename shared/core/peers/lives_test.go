package peers

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// A peer that starts again and again runs once. More than two processes may replace
// each other in any order.
func TestLives(t *testing.T) {
	var l Lives
	see := func(start uint64) string { return l.See(start, fmt.Sprintf("place %d", start)) }
	for start := range uint64(20) {
		require.Empty(t, see(start))
		require.Empty(t, see(start))
	}
	require.Empty(t, see(3), "too long ago to be remembered")
	require.Equal(t, "place 3", see(17))
	require.Empty(t, see(19), "once")
	require.LessOrEqual(t, len(l.before), keptStarts)

	var unknown Lives // a peer that does not say when it has started
	for _, start := range []uint64{0, 1, 0, 0, 1, 0} {
		require.Empty(t, unknown.See(start, "place"))
	}
}

func TestLogTwice(t *testing.T) {
	var log bytes.Buffer
	LogTwice(slog.New(slog.NewTextHandler(&log, nil)), 2, "a:1", "b:1")
	require.Contains(t, log.String(), `level=ERROR msg="a peer runs twice, on copies of one folder; stop one of the two, and delete its folder" peer=2 one=a:1 other=b:1`)
}
