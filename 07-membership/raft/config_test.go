package raft

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A majority is more than half: half is not enough, and strangers do not count.
func TestMajority(t *testing.T) {
	for _, c := range []struct {
		voters, have int
		want         bool
	}{
		{1, 0, false}, {1, 1, true},
		{2, 1, false}, {2, 2, true},
		{3, 1, false}, {3, 2, true},
		{4, 2, false}, {4, 3, true},
		{5, 2, false}, {5, 3, true}, {5, 5, true},
		{6, 3, false}, {6, 4, true},
		{7, 3, false}, {7, 4, true},
	} {
		var members []ID
		for i := range c.voters {
			members = append(members, ID(i+1))
		}
		conf := Config{Voters: members}
		have := append(slices.Clone(members[c.voters-c.have:]), 90, 91, 92, 93)
		require.Equal(t, c.want, conf.Majority(func(id ID) bool { return slices.Contains(have, id) }), "%+v", c)
		require.Equal(t, members, conf.Members())
	}
}
