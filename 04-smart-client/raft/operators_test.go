package raft

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/explore"
	"example.com/raftsteps/shared/lab/rules"
)

// TestExploreOperatorsWhoDoItWrong finds the shortest ways in which an
// appointment breaks what was promised: this is the argument for votes.
func TestExploreOperatorsWhoDoItWrong(t *testing.T) {
	for _, c := range []struct {
		operator operator
		only     string
		says     string
		steps    int
	}{
		// Two servers are given the same term; neither knows of the other.
		{forgetful, rules.ElectionSafety, "both lead term 1", 2},
		// Two of three have an entry, so it is committed; the third is given the
		// next term.
		{careless, rules.LeaderCompleteness, "leads term 2 without 1@1, which was committed in term 1", 7},
		// It puts another entry instead of one that was acknowledged.
		{careless, rules.StateMachineSafety, "n3 commits 2@1 x where 1@1 x was committed in term 1", 12},
	} {
		b := bounds{Bounds: explore.Bounds{Servers: 3, InFlight: 1}, Terms: 2, Log: 1, Only: []string{c.only}, Stage: stageBounds{c.operator}}
		result := explorer.Search(t, b)
		require.NotNil(t, result.Violation, "with %s, %s holds", c.operator, c.only)
		t.Logf("%v, %s\n%s", b, c.only, result.Violation.Story)
		require.ErrorContains(t, result.Violation.Err, c.says)
		require.Len(t, result.Violation.Path, c.steps)
	}
}
