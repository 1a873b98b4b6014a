package raft

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// The sentinel gives every index in [0, last] a term, the empty log included.
func TestLogHasATermEverywhere(t *testing.T) {
	l := newLog(Position{}, Config{}, nil)
	require.Zero(t, l.lastIndex())
	require.Zero(t, l.term(l.lastIndex()))
	require.True(t, l.has(0, 0), "every log has the place before the first entry")
	require.False(t, l.has(1, 0))

	l = newLog(Position{}, Config{}, entries(1, 1, 3))
	for index, term := range []Term{0, 1, 1, 3} {
		require.Equal(t, term, l.term(Index(index)))
		require.True(t, l.has(Index(index), term))
		require.False(t, l.has(Index(index), term+1))
	}
	require.False(t, l.has(4, 3))
	require.Equal(t, Index(3), l.lastIndex())
	require.Equal(t, Term(3), l.term(l.lastIndex()))
}

// A batch is a piece of the log without a gap: it ends before the first entry that
// does not fit, however small the next ones are, and has at least one entry. Of
// tiny entries it has no more than may be in flight: each of them takes more room
// in a message than its command.
func TestBatchHasNoHoles(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		from  Index
		max   int
		want  int
	}{
		{[]int{10, 10, 10}, 1, 100, 3},
		{[]int{10, 10, 10}, 2, 100, 2},
		{[]int{10, 10, 10}, 4, 100, 0},
		{[]int{10, 10, 10}, 1, 30, 3},
		{[]int{10, 10, 10}, 1, 29, 2},
		{[]int{10, 10, 10}, 1, 10, 1},
		{[]int{10, 10, 10}, 1, 9, 1},
		{[]int{10, 10, 10}, 1, 0, 1},
		{[]int{10, 50, 1, 1}, 1, 20, 1},
		{[]int{50, 1, 1}, 1, 20, 1},
		{[]int{50, 1, 1}, 2, 20, 2},
		{[]int{0, 0, 0}, 1, 0, 3},
		{make([]int, 2*maxInFlight), 1, 100, maxInFlight},
		{make([]int, 2*maxInFlight), maxInFlight + 2, 100, maxInFlight - 1},
		{nil, 1, 100, 0},
	} {
		var l log = newLog(Position{}, Config{}, nil)
		for i, size := range c.sizes {
			l.append([]Entry{{Index: Index(i + 1), Term: 1, Command: make([]byte, size)}})
		}
		batch := l.batch(c.from, c.max)
		what := fmt.Sprintf("%.80s", fmt.Sprint(c))
		require.Equal(t, c.want, len(batch), what)
		for i, e := range batch {
			if e.Index != c.from+Index(i) {
				require.Equal(t, c.from+Index(i), e.Index, what)
			}
		}
	}
}

// What was sliced off a log stays as it was, whatever happens to the log: messages
// that wait in a queue hold such slices.
func TestSlicesOfTheLogDoNotChange(t *testing.T) {
	l := newLog(Position{}, Config{}, entries(1, 1, 1, 1))
	held := l.slice(2, 4)
	want := append([]Entry(nil), held...)
	l.truncate(3)
	l.append([]Entry{{Index: 3, Term: 2}, {Index: 4, Term: 2}})
	l.append([]Entry{{Index: 5, Term: 2}})
	require.Equal(t, want, held)
	require.Equal(t, []Entry{{Index: 2, Term: 1}, {Index: 3, Term: 2}, {Index: 4, Term: 2}, {Index: 5, Term: 2}}, l.slice(2, 5))

	// Nor does the log change if somebody appends to a slice of it.
	_ = append(l.slice(1, 2), Entry{Index: 3, Term: 9})
	require.Equal(t, Term(2), l.term(3))
}
