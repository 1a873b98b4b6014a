package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
)

func voters(now ...uint64) node.Voters { return node.Voters{Now: now} }

// society is a cluster that can change its members. n1 leads term 1 and has
// committed its first entry. The joiners have started with empty logs.
func society(t *testing.T, members, joiners int) *stage {
	s := &stage{t: t, c: NewInvariants(), n: make(map[uint64]*puppet)}
	var ids []uint64
	for i := range members + joiners {
		id := uint64(i + 1)
		s.n[id] = &puppet{State: node.State{ID: id, Role: node.Follower}}
		if i < members {
			ids = append(ids, id)
		}
	}
	for i := range uint64(members + joiners) {
		p := s.n[i+1]
		if i < uint64(members) {
			p.Base, p.Config = voters(ids...), voters(ids...)
		}
		s.c.Started(i + 1)
		s.fine(i + 1)
	}
	s.elect(1, 1, ids[1:]...)
	s.write(entry(1, ""), ids...)
	s.commit(1, ids...)
	return s
}

// change is an entry that carries a configuration.
func change(term uint64, v node.Voters) node.Entry {
	return node.Entry{Term: term, Data: []byte(wordsOf(v)), Config: &v}
}

// configure appends a configuration to the logs of servers, the leader first,
// and puts it in force there.
func (s *stage) configure(e node.Entry, ids ...uint64) {
	s.t.Helper()
	for _, id := range ids {
		s.take(e, id)
		s.fine(id)
	}
}

// take is configure without a check.
func (s *stage) take(e node.Entry, id uint64) {
	s.n[id].log = append(s.n[id].log, e)
	s.n[id].Config = *e.Config
}

// catchUp gives a joiner all that n1 has.
func (s *stage) catchUp(id uint64) {
	s.t.Helper()
	p, leader := s.n[id], s.n[1]
	p.Term, p.SnapIndex, p.SnapTerm, p.Base = leader.Term, leader.SnapIndex, leader.SnapTerm, leader.Base
	if p.SnapIndex == 0 {
		p.Base = node.Voters{}
	}
	p.log = append([]node.Entry(nil), leader.log...)
	p.Config = leader.Config
	p.Commit, p.Applied = leader.Commit, leader.Applied
	s.fine(id)
}

var (
	learns   = node.Voters{Now: []uint64{1, 2, 3}, Learners: []uint64{4}}
	isJoint  = node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{1, 2, 4}}
	replaced = voters(1, 2, 4)
)

// replace3by4 takes a society of 3 and one joiner up to a phase.
func replace3by4(t *testing.T, upTo phase) *stage {
	s := society(t, 3, 1)
	s.configure(change(1, learns), 1, 2, 3)
	s.commit(2, 1, 2, 3)
	s.catchUp(4)
	if upTo == learning {
		return s
	}
	s.configure(change(1, isJoint), 1, 2, 4)
	s.commit(3, 1, 2)
	if upTo == joint {
		return s
	}
	s.configure(change(1, replaced), 1, 4)
	s.commit(4, 1, 4)
	return s
}

func TestALegalChangeViolatesNothing(t *testing.T) {
	s := replace3by4(t, stable)
	now, changing := s.c.Members()
	require.Equal(t, replaced, now)
	require.False(t, changing)

	// n4 takes a snapshot behind the change; n3 missed it and gets that snapshot;
	// n4 starts again.
	s.write(entry(1, "x"), 1, 4)
	s.commit(5, 1, 4)
	for _, id := range []uint64{4, 3} {
		p := s.n[id]
		p.SnapIndex, p.SnapTerm, p.Base, p.Config = 4, 1, replaced, replaced
		p.log = []node.Entry{entry(1, "x")}
		p.Commit, p.Applied = 5, 5
		s.fine(id)
	}
	s.n[4].Commit, s.n[4].Applied = 4, 4
	s.restart(4)
	s.fine(4)

	counters := s.c.Counters()
	require.Equal(t, 1, counters.Changes)
	require.Equal(t, 1, counters.Changed)
	require.Equal(t, 0, counters.Cancelled)
	require.Positive(t, counters.Joint)
}

func TestALegalCancelViolatesNothing(t *testing.T) {
	s := replace3by4(t, learning)
	s.configure(change(1, voters(1, 2, 3)), 1, 2)
	s.commit(3, 1, 2)
	s.configure(change(1, voters(1, 2, 3)), 1, 2)
	s.commit(4, 1, 2)
	s.configure(change(1, node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{1, 2}}), 1, 2)
	counters := s.c.Counters()
	require.Equal(t, 2, counters.Changes, "the second removes n3 and has nobody to learn")
	require.Equal(t, 1, counters.Cancelled)
	_, changing := s.c.Members()
	require.True(t, changing)
}

// If a log is truncated, its configurations there are lost, and the one before
// them is in force again.
func TestAConfigurationIsRolledBack(t *testing.T) {
	s := replace3by4(t, learning)
	s.configure(change(1, isJoint), 1)
	s.elect(2, 2, 3)
	s.write(entry(2, ""), 2, 3)
	s.follow(2, 0, 1)
	s.n[1].log = append(s.n[1].log[:2:2], entry(2, ""))
	s.breaks(1, "I20")
	s.n[1].Config = learns
	s.fine(1)
	require.Equal(t, 1, s.c.Counters().RolledBack)
}

func TestI20TheLastConfigurationInTheLogIsInForce(t *testing.T) {
	t.Run("not only when it is committed", func(t *testing.T) {
		s := replace3by4(t, learning)
		s.take(change(1, isJoint), 1)
		s.n[1].Config = learns
		s.breaks(1, "I20")
	})
	t.Run("and no other", func(t *testing.T) {
		s := society(t, 3, 0)
		s.n[2].Config = voters(1, 2)
		s.breaks(2, "I20")
	})
	t.Run("one that knows nothing has none", func(t *testing.T) {
		s := society(t, 3, 1)
		s.n[4].Config = voters(1, 2, 3)
		s.breaks(4, "I20")
	})
}

func TestI20TheConfigurationOfASnapshot(t *testing.T) {
	for name, wrong := range map[string]node.Voters{
		"is missing":             {},
		"is the first":           voters(1, 2, 3),
		"is the one before":      learns,
		"is one that came later": replaced,
	} {
		t.Run(name, func(t *testing.T) {
			s := replace3by4(t, stable)
			p := s.n[1]
			p.SnapIndex, p.SnapTerm, p.log = 3, 1, p.log[3:]
			p.Base = wrong
			s.breaks(1, "I20")
		})
	}
	t.Run("an uncommitted one is not in it", func(t *testing.T) {
		s := replace3by4(t, joint)
		s.configure(change(1, replaced), 1)
		p := s.n[1]
		p.SnapIndex, p.SnapTerm, p.log, p.Base = 3, 1, p.log[3:], replaced
		s.breaks(1, "I20")
	})
}

// A server that joins learns from the log who the members are. If it compacts
// the entries before that, it need not know the earlier members; the other
// servers must.
func TestI20TheFirstConfigurationIsInNoEntry(t *testing.T) {
	for _, id := range []uint64{4, 2} {
		s := replace3by4(t, learning)
		p := s.n[id]
		p.SnapIndex, p.SnapTerm, p.log, p.Base = 1, 1, p.log[1:], node.Voters{}
		if id == 4 {
			s.fine(4)
			continue
		}
		s.breaks(2, "I20")
	}
}

func TestI20AChangeFollowsACommittedConfiguration(t *testing.T) {
	t.Run("joint before the learning is", func(t *testing.T) {
		s := society(t, 3, 1)
		s.configure(change(1, learns), 1, 2, 3)
		s.take(change(1, isJoint), 1)
		s.breaks(1, "I20")
	})
	t.Run("the new one before the joint is", func(t *testing.T) {
		s := replace3by4(t, learning)
		s.configure(change(1, isJoint), 1, 2, 4)
		s.take(change(1, replaced), 1)
		s.breaks(1, "I20")
	})
	t.Run("another before the new one is", func(t *testing.T) {
		s := replace3by4(t, joint)
		s.configure(change(1, replaced), 1, 4)
		s.take(change(1, node.Voters{Now: []uint64{1, 2, 4}, Learners: []uint64{5}}), 1)
		s.breaks(1, "I20")
	})
	t.Run("its leader does not know that it is", func(t *testing.T) {
		s := replace3by4(t, learning)
		s.configure(change(1, isJoint), 1, 2, 3, 4)
		s.commit(3, 1)
		s.elect(2, 2, 3, 4)
		s.write(entry(2, ""), 2, 3, 4)
		s.take(change(2, replaced), 2)
		s.breaks(2, "I20")
	})
}

// The bug of 2015: a leader changes the members before it has committed an
// entry of its term.
func TestI20AChangeFollowsACommitOfItsTerm(t *testing.T) {
	s := society(t, 3, 1)
	s.elect(2, 2, 3)
	s.write(entry(2, ""), 2)
	s.take(change(2, learns), 2)
	s.breaks(2, "I20")
}

func TestI20HowMembersChange(t *testing.T) {
	for name, c := range map[string]struct {
		after phase
		v     node.Voters
	}{
		"at once":                       {stable, voters(1, 2)},
		"joint without learning":        {stable, node.Voters{Now: []uint64{1, 2, 4}, Next: []uint64{1, 2}}},
		"one who has not learned":       {learning, node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{1, 2, 5}}},
		"the old half changes":          {learning, node.Voters{Now: []uint64{1, 2}, Next: []uint64{1, 2, 4}}},
		"two changes at once":           {learning, node.Voters{Now: []uint64{1, 2, 3}, Learners: []uint64{5}}},
		"nobody votes":                  {joint, node.Voters{Learners: []uint64{1}}},
		"a joint one goes back":         {joint, voters(1, 2, 3)},
		"a joint one grows":             {joint, node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{1, 2}}},
		"a joint one ends in something": {joint, voters(1, 2, 5)},
	} {
		t.Run(name, func(t *testing.T) {
			s := replace3by4(t, c.after)
			s.take(change(1, c.v), 1)
			s.breaks(1, "I20")
		})
	}
}

// I20 already rejects large steps between configurations, so this test gives
// configurations without overlap to the rule itself.
func TestI21QuorumsOverlap(t *testing.T) {
	for name, c := range map[string]struct {
		a, b  node.Voters
		apart bool
	}{
		"the same":                   {voters(1, 2, 3), voters(1, 2, 3), false},
		"one more":                   {voters(1, 2, 3), voters(1, 2, 3, 4), false},
		"two more":                   {voters(1, 2, 3), voters(1, 2, 3, 4, 5), true},
		"one for another":            {voters(1, 2, 3), voters(1, 2, 4), true},
		"into a joint one":           {voters(1, 2, 3), isJoint, false},
		"out of a joint one":         {isJoint, voters(1, 2, 4), false},
		"all at once, into":          {voters(1, 2, 3), node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{4, 5, 6}}, false},
		"all at once, out of":        {node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{4, 5, 6}}, voters(4, 5, 6), false},
		"out of a joint one, beside": {isJoint, voters(3, 4, 5), true},
		"learners do not count":      {voters(1, 2, 3), learns, false},
	} {
		t.Run(name, func(t *testing.T) {
			one, other, apart := disjoint(c.a, c.b)
			require.Equal(t, c.apart, apart, "%v %v", one, other)
			if apart {
				require.True(t, isQuorum(c.a, one) && isQuorum(c.b, other))
			}
		})
	}
}

func TestI10QuorumsOfAChangingCluster(t *testing.T) {
	t.Run("both halves count while they are joint", func(t *testing.T) {
		for _, holders := range [][]uint64{{1, 2}, {1, 3}} {
			s := society(t, 3, 2)
			// n4 and n5 replace n2 and n3.
			learn := node.Voters{Now: []uint64{1, 2, 3}, Learners: []uint64{4, 5}}
			both := node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{1, 4, 5}}
			s.configure(change(1, learn), 1, 2, 3)
			s.commit(2, 1, 2, 3)
			s.catchUp(4)
			s.catchUp(5)
			s.configure(change(1, both), holders...)
			s.n[1].Commit, s.n[1].Applied = 3, 3
			s.breaks(1, "I10")
			s.configure(change(1, both), 4)
			s.fine(1)
		}
	})
	t.Run("a learner does not count", func(t *testing.T) {
		s := society(t, 3, 1)
		s.configure(change(1, learns), 1)
		s.catchUp(4)
		s.n[1].Commit, s.n[1].Applied = 2, 2
		s.breaks(1, "I10")
	})
	t.Run("a leader that is to go does not count itself", func(t *testing.T) {
		for _, enough := range []bool{false, true} {
			s := society(t, 3, 1)
			s.configure(change(1, learns), 1, 2, 3)
			s.commit(2, 1, 2, 3)
			s.catchUp(4)
			s.configure(change(1, node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{2, 3, 4}}), 1, 2, 3)
			s.commit(3, 1)
			s.configure(change(1, voters(2, 3, 4)), 1, 2)
			if enough {
				s.configure(change(1, voters(2, 3, 4)), 3)
			}
			s.n[1].Commit, s.n[1].Applied = 4, 4
			if !enough {
				s.breaks(1, "I10")
				continue
			}
			// It transfers its leadership in the same step.
			s.n[1].Role = node.Follower
			s.fine(1, 1)
			require.Equal(t, 1, s.c.Counters().LeadersRemoved)
		}
	})
	t.Run("what was in force when it counted", func(t *testing.T) {
		// In one flush a leader commits by the old configuration and appends the
		// joint one.
		s := society(t, 3, 1)
		s.configure(change(1, learns), 1, 2)
		s.take(change(1, isJoint), 1)
		s.n[1].Commit, s.n[1].Applied = 2, 2
		s.fine(1)
	})
}

func TestI11UsesTheNewestCommittedConfiguration(t *testing.T) {
	s := replace3by4(t, stable)
	// n4 loses its disk, and only n1 of n1, n2 and n4 has the last entry.
	s.n[4].log = s.n[4].log[:2]
	s.n[4].Config = learns
	s.n[4].Commit, s.n[4].Applied = 0, 0
	s.c.Stopped(4, true)
	s.c.Started(4)
	s.breaks(4, "I11")
}

func TestI1ALeaderHasTheVotesOfAQuorum(t *testing.T) {
	win := func(s *stage, voters ...uint64) error {
		s.follow(2, 2, voters...)
		s.n[2].Term, s.n[2].Vote, s.n[2].Role = 2, 2, node.Leader
		return s.look(2)
	}
	t.Run("of both halves", func(t *testing.T) {
		s := replace3by4(t, joint)
		s.broken(win(s, 3), "I1")
	})
	t.Run("of both halves, and it has them", func(t *testing.T) {
		s := replace3by4(t, joint)
		require.NoError(t, win(s, 1))
	})
	t.Run("not of those who learn", func(t *testing.T) {
		s := replace3by4(t, learning)
		s.broken(win(s, 4), "I1")
	})
	t.Run("in a cluster whose members are fixed", func(t *testing.T) {
		s := newStage(t, 3)
		p := s.n[1]
		p.Role, p.Term, p.Vote, p.Votes = node.Candidate, 1, 1, []uint64{1}
		s.fine(1)
		s.crown(1, 1)
		s.breaks(1, "I1")
	})
}

func TestI17WhoMayBeACandidate(t *testing.T) {
	stand := func(s *stage, id uint64) {
		p := s.n[id]
		p.Role, p.Term, p.Vote, p.Votes = node.Candidate, 2, id, []uint64{id}
	}
	t.Run("not a server without a configuration", func(t *testing.T) {
		s := society(t, 3, 1)
		stand(s, 4)
		s.breaks(4, "I17")
	})
	t.Run("not a learner", func(t *testing.T) {
		s := replace3by4(t, learning)
		stand(s, 4)
		s.breaks(4, "I17")
	})
	t.Run("not a removed server", func(t *testing.T) {
		s := replace3by4(t, stable)
		s.n[3].log = append(s.n[3].log, s.n[1].log[2:]...)
		s.n[3].Config = replaced
		s.commit(4, 3)
		stand(s, 3)
		s.breaks(3, "I17")
	})
	t.Run("but a leaving server that may be needed", func(t *testing.T) {
		s := replace3by4(t, stable)
		s.n[3].log = append(s.n[3].log, s.n[1].log[2:]...)
		s.n[3].Config = replaced
		s.commit(3, 3)
		stand(s, 3)
		s.fine(3)
	})
}

// A leader that goes down during a flush may have taken unobserved steps. Its
// followers continue from there.
func TestALeaderThatCrashesDuringAChange(t *testing.T) {
	s := replace3by4(t, learning)
	s.configure(change(1, isJoint), 1, 2, 4)
	s.c.Stopped(1, true)
	s.configure(change(1, replaced), 2, 4)
	s.n[2].Commit, s.n[2].Applied = 4, 4
	s.fine(2)
	require.Equal(t, 1, s.c.Counters().Changed)
}

func TestCountersOfAChangingCluster(t *testing.T) {
	s := replace3by4(t, learning)
	s.write(entry(1, "x"), 1, 2)
	s.commit(3, 1, 2)
	p := s.n[4]
	p.SnapIndex, p.SnapTerm, p.Base, p.Config, p.log = 3, 1, learns, learns, nil
	p.Commit, p.Applied = 3, 3
	s.fine(4)
	require.Equal(t, 1, s.c.Counters().LearnersInstalled)
	var sum InvariantCounters
	sum.Add(s.c.Counters())
	sum.Add(s.c.Counters())
	require.Equal(t, 2, sum.LearnersInstalled)
	require.Equal(t, 2, sum.Changes)
}
