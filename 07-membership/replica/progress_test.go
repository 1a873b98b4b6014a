package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A waiter wakes up at every change, and only then.
func TestProgress(t *testing.T) {
	var p progress
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	p.set(0, 0)
	for _, to := range [][2]uint64{{0, 1}, {5, 1}, {5, 2}, {6, 0}, {7, 3}} {
		_, _, first := p.get()
		_, _, second := p.get()
		p.set(p.applied, p.leader)
		require.False(t, woken(first))
		p.set(to[0], to[1])
		require.True(t, woken(first))
		require.True(t, woken(second))
		applied, leader, again := p.get()
		require.Equal(t, to, [2]uint64{applied, leader})
		require.False(t, woken(again))
	}
}
