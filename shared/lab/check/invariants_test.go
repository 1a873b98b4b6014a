package check

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
)

// puppet is a server that does what a test tells it.
type puppet struct {
	node.State
	log  []node.Entry
	hash uint64
}

func (p *puppet) Inspect(s *node.State) {
	p.Last = p.SnapIndex + uint64(len(p.log))
	*s = p.State
}

func (p *puppet) Entry(index uint64) node.Entry { return p.log[index-p.SnapIndex-1] }
func (p *puppet) StateHash() uint64             { return p.hash }

// stage is a cluster of puppets that the checker watches.
type stage struct {
	t *testing.T
	c *Invariants
	n map[uint64]*puppet
}

func newStage(t *testing.T, servers int) *stage {
	s := &stage{t: t, c: NewInvariants(), n: make(map[uint64]*puppet)}
	for i := range servers {
		id := uint64(i + 1)
		p := &puppet{State: node.State{ID: id, Role: node.Follower}}
		for j := range servers {
			p.Config.Now = append(p.Config.Now, uint64(j+1))
		}
		s.n[id] = p
		s.c.Started(id)
		require.NoError(t, s.c.Look(id, p, true))
	}
	return s
}

// look checks a server after a flushed step.
func (s *stage) look(id uint64) error { return s.c.Look(id, s.n[id], true) }

// fine takes steps that must not violate an invariant.
func (s *stage) fine(ids ...uint64) {
	s.t.Helper()
	for _, id := range ids {
		require.NoError(s.t, s.look(id))
	}
}

// breaks takes a step that must violate an invariant.
func (s *stage) breaks(id uint64, invariant string) {
	s.t.Helper()
	s.broken(s.look(id), invariant)
}

func (s *stage) broken(err error, invariant string) {
	s.t.Helper()
	var v *Violation
	require.ErrorAs(s.t, err, &v)
	require.Equal(s.t, invariant, v.Invariant, v.Error())
	require.Contains(s.t, v.Error(), v.Name)
}

// restart restarts a server with its present state.
func (s *stage) restart(id uint64) {
	s.c.Stopped(id, false)
	s.c.Started(id)
}

// follow makes servers followers of a term, with a vote.
func (s *stage) follow(term, vote uint64, ids ...uint64) {
	s.t.Helper()
	for _, id := range ids {
		p := s.n[id]
		p.Role, p.Term, p.Vote, p.Votes, p.Progress = node.Follower, term, vote, nil, nil
		s.fine(id)
	}
}

// elect makes a server the leader of a term with the votes of others.
func (s *stage) elect(id, term uint64, voters ...uint64) {
	s.t.Helper()
	p := s.n[id]
	p.Role, p.Term, p.Vote, p.Votes = node.Candidate, term, id, []uint64{id}
	s.fine(id)
	s.follow(term, id, voters...)
	p.Votes = append(p.Votes, voters...)
	s.fine(id)
	s.crown(id, term)
	s.fine(id)
}

// crown makes a server a leader without a check.
func (s *stage) crown(id, term uint64) {
	p := s.n[id]
	p.Role, p.Term, p.Vote, p.Votes = node.Leader, term, id, nil
}

func entry(term uint64, data string) node.Entry {
	return node.Entry{Term: term, Data: []byte(data)}
}

// write appends entries to the logs of servers, the leader first.
func (s *stage) write(e node.Entry, ids ...uint64) {
	s.t.Helper()
	for _, id := range ids {
		s.n[id].log = append(s.n[id].log, entry(e.Term, string(e.Data)))
		s.fine(id)
	}
}

// commit moves commit and applied of servers.
func (s *stage) commit(k uint64, ids ...uint64) {
	s.t.Helper()
	for _, id := range ids {
		s.n[id].Commit, s.n[id].Applied = k, k
		s.fine(id)
	}
}

// leaderOfThree is a cluster of three in which n1 leads term 1 and all servers
// have committed entries 1 and 2.
func leaderOfThree(t *testing.T) *stage {
	s := newStage(t, 3)
	s.elect(1, 1, 2, 3)
	s.write(entry(1, "a"), 1, 2, 3)
	s.write(entry(1, "b"), 1, 2, 3)
	s.commit(2, 1, 2, 3)
	return s
}

func TestALegalRunViolatesNothing(t *testing.T) {
	s := leaderOfThree(t)
	s.n[1].Progress = []node.Progress{{ID: 2, Next: 3, Match: 2}, {ID: 3, Next: 3, Match: 0}}
	s.fine(1)

	// n1 is cut off with an entry of its own; n2 takes over and overwrites it.
	s.write(entry(1, "lost"), 1)
	s.elect(2, 2, 3)
	s.write(entry(2, ""), 2, 3)
	s.commit(3, 2, 3)
	s.follow(2, 0, 1)
	s.n[1].log[2] = entry(2, "")
	s.fine(1)
	s.commit(3, 1)

	// n3 restarts, n2 takes a snapshot, n1 gets it.
	s.n[3].Commit, s.n[3].Applied = 0, 0
	s.restart(3)
	s.fine(3)
	s.commit(3, 3)
	for _, id := range []uint64{2, 1} {
		s.n[id].SnapIndex, s.n[id].SnapTerm, s.n[id].log = 2, 1, s.n[id].log[2:]
		s.fine(id)
	}
	s.write(entry(2, "c"), 2, 1, 3)
	s.commit(4, 2)

	// Many checks, so that whole logs are read too.
	for range 3 * fullLook {
		s.fine(1, 2, 3)
	}
	require.Equal(t, 2, s.c.Counters().Leaders)
	require.Equal(t, 4, s.c.Counters().Committed)
	require.Equal(t, 1, s.c.Counters().Truncated)
	require.Equal(t, 2, s.c.Counters().Snapshots)
}

func TestI1ElectionSafety(t *testing.T) {
	s := leaderOfThree(t)
	s.follow(1, 1, 1)
	s.crown(2, 1)
	s.n[2].Vote = 1
	s.breaks(2, "I1")
}

func TestI1HoldsAcrossARestart(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.n[1].Role = node.Follower
	s.restart(1)
	s.fine(1)
	s.crown(3, 1)
	s.breaks(3, "I1")
}

// A server that is its own majority may lose its power between electing itself
// and saving its vote. If it has sent nothing, another server may lead that
// term.
func TestI1ALeaderThatSentNothingDoesNotCount(t *testing.T) {
	for _, c := range []struct {
		name  string
		after func(s *stage)
		fine  bool
	}{
		{"its vote was lost", func(*stage) {}, true},
		{"it was saved", func(s *stage) { s.fine(1) }, false},
		{"it has sent something", func(s *stage) { require.NoError(s.t, s.c.Sent(1, 2, []byte(`{"term":1,"appendEntries":{}}`))) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, 3)
			p := s.n[1]
			p.Role, p.Term, p.Vote = node.Leader, 1, 1
			require.NoError(t, s.c.Look(1, p, false))
			c.after(s)
			s.c.Stopped(1, true)
			s.crown(3, 1)
			if c.fine {
				s.fine(3)
			} else {
				s.breaks(3, "I1")
			}
		})
	}
}

func TestI2AVoteNeverChanges(t *testing.T) {
	s := newStage(t, 3)
	s.follow(1, 2, 1)
	s.n[1].Vote = 3
	s.breaks(1, "I2")
}

func TestI2AVoteSurvivesARestart(t *testing.T) {
	s := newStage(t, 3)
	s.follow(1, 2, 1)
	s.n[1].Vote = 0
	s.restart(1)
	s.breaks(1, "I2")
}

func TestI2AVoteThatWasNeverSavedMayBeForgotten(t *testing.T) {
	s := newStage(t, 3)
	s.n[1].Term, s.n[1].Vote = 1, 2
	require.NoError(t, s.c.Look(1, s.n[1], false))
	s.n[1].Term, s.n[1].Vote = 0, 0
	s.restart(1)
	s.fine(1)
	s.follow(1, 3, 1)
}

func TestI3Monotone(t *testing.T) {
	for name, back := range map[string]func(*puppet){
		"term":           func(p *puppet) { p.Term = 0 },
		"commit index":   func(p *puppet) { p.Commit, p.Applied = 1, 1 },
		"applied index":  func(p *puppet) { p.Applied = 1 },
		"snapshot index": func(p *puppet) { p.SnapIndex, p.SnapTerm = 0, 0 },
	} {
		s := leaderOfThree(t)
		s.n[2].SnapIndex, s.n[2].SnapTerm, s.n[2].log = 1, 1, s.n[2].log[1:]
		s.fine(2)
		back(s.n[2])
		err := s.look(2)
		s.broken(err, "I3")
		require.ErrorContains(t, err, name)
	}
}

func TestI3ARestartKeepsTheTerm(t *testing.T) {
	s := leaderOfThree(t)
	s.n[2].State = node.State{ID: 2, Role: node.Follower}
	s.restart(2)
	s.breaks(2, "I3")
}

func TestI4TheShapeOfALog(t *testing.T) {
	for name, bad := range map[string]node.Entry{
		"term 0":                   entry(0, "x"),
		"a term below the last":    entry(1, "x"),
		"a term above the present": entry(9, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			s := leaderOfThree(t)
			s.elect(2, 2, 3)
			s.write(entry(2, ""), 2)
			s.n[2].log = append(s.n[2].log, bad)
			s.breaks(2, "I4")
		})
	}
}

func TestI4TheFirstEntryFitsTheSnapshot(t *testing.T) {
	s := leaderOfThree(t)
	s.elect(2, 2, 3)
	s.write(entry(2, ""), 2, 3)
	s.commit(3, 2, 3)
	s.n[3].SnapIndex, s.n[3].SnapTerm = 3, 2
	s.n[3].log = []node.Entry{entry(1, "old")}
	s.breaks(3, "I4")
}

func TestI5LogMatching(t *testing.T) {
	t.Run("another content", func(t *testing.T) {
		s := newStage(t, 3)
		s.elect(1, 1, 2)
		s.write(entry(1, "a"), 1)
		s.n[2].log = []node.Entry{entry(1, "b")}
		s.breaks(2, "I5")
	})
	t.Run("another past", func(t *testing.T) {
		s := newStage(t, 3)
		s.elect(1, 1, 2)
		s.write(entry(1, "a"), 1, 2)
		s.write(entry(1, "b"), 1)
		s.elect(2, 2, 3)
		s.write(entry(2, "c"), 2)
		s.follow(2, 2, 3)
		s.n[3].log = []node.Entry{entry(1, "b"), entry(2, "c")}
		s.breaks(3, "I5")
	})
}

func TestI6ALeaderOnlyAppends(t *testing.T) {
	t.Run("removes", func(t *testing.T) {
		s := newStage(t, 3)
		s.elect(1, 1, 2)
		s.write(entry(1, "a"), 1)
		s.n[1].log = nil
		s.breaks(1, "I6")
	})
	t.Run("changes the bytes in place", func(t *testing.T) {
		s := newStage(t, 3)
		s.elect(1, 1, 2)
		for range 10 {
			s.write(entry(1, "a"), 1)
		}
		s.n[1].log[2].Data[0] = 'z'
		var err error
		for range fullLook {
			if err = s.look(1); err != nil {
				break
			}
		}
		s.broken(err, "I6")
	})
}

func TestI7ALeaderHasAllCommittedEntries(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1, 2)
	s.commit(1, 1)
	s.follow(2, 0, 3)
	s.crown(3, 2)
	s.n[3].Vote = 3
	s.breaks(3, "I7")
}

// An entry may be committed after a newer term has begun: a leader that was
// elected for an older term need not have it.
func TestI7CountsTheTermOfTheCommit(t *testing.T) {
	s := newStage(t, 5)
	s.elect(1, 5, 2, 3)
	s.write(entry(5, "a"), 1, 2, 3)
	s.commit(1, 1)
	s.crown(4, 4)
	s.fine(4)
}

func TestI8ServersCommitTheSameEntries(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1)
	s.elect(2, 2, 3)
	s.write(entry(2, "b"), 2, 3)
	s.commit(1, 2)
	s.follow(2, 0, 1)
	s.n[1].Commit, s.n[1].Applied = 1, 1
	s.breaks(1, "I8")
}

func TestI8TheSameEntriesGiveTheSameState(t *testing.T) {
	s := leaderOfThree(t)
	s.write(entry(1, "c"), 1, 2)
	s.n[1].hash = 7
	s.commit(3, 1)
	s.n[2].hash = 8
	s.n[2].Commit, s.n[2].Applied = 3, 3
	s.breaks(2, "I8")
}

func TestI9Order(t *testing.T) {
	t.Run("applied beyond commit", func(t *testing.T) {
		s := leaderOfThree(t)
		s.write(entry(1, "c"), 1)
		s.n[1].Applied = 3
		s.breaks(1, "I9")
	})
	t.Run("commit beyond the log", func(t *testing.T) {
		s := leaderOfThree(t)
		s.n[2].Commit = 3
		s.breaks(2, "I9")
	})
	t.Run("applied below the snapshot", func(t *testing.T) {
		s := leaderOfThree(t)
		s.n[2].SnapIndex, s.n[2].SnapTerm, s.n[2].log = 2, 1, nil
		s.n[2].Applied = 2
		s.fine(2)
		s.n[2].Applied, s.n[2].Commit = 0, 2
		s.restart(2)
		s.breaks(2, "I9")
	})
	t.Run("a follower commits first", func(t *testing.T) {
		s := leaderOfThree(t)
		s.write(entry(1, "c"), 1, 2)
		s.n[2].Commit = 3
		s.breaks(2, "I9")
	})
}

func TestI10ALeaderCommitsByCountingItsOwnTermOnly(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1, 2)
	s.elect(1, 2, 2)
	s.n[1].Commit = 1
	s.breaks(1, "I10")
}

func TestI10AQuorumHoldsACommittedEntry(t *testing.T) {
	s := newStage(t, 5)
	s.elect(1, 1, 2, 3)
	s.write(entry(1, "a"), 1, 2)
	s.n[3].log = []node.Entry{entry(1, "a")}
	require.NoError(t, s.c.Look(3, s.n[3], false), "in memory only")
	s.n[1].Commit = 1
	s.breaks(1, "I10")
}

func TestI10EveryHalfOfAJointConfigurationCounts(t *testing.T) {
	s := newStage(t, 5)
	s.elect(1, 1, 2, 3)
	s.write(entry(1, "a"), 1, 2)
	s.n[1].Config = node.Voters{Now: []uint64{1, 2, 3}, Next: []uint64{3, 4, 5}}
	s.n[1].Commit = 1
	s.breaks(1, "I10")
}

func TestI11ACommittedEntryStaysOnAQuorumOfDisks(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1, 2)
	s.n[1].Commit, s.n[1].Applied = 1, 1
	s.fine(1)
	// n2 loses its disk but keeps its term, and a torn flush hides it from I12.
	s.n[2].log = nil
	s.c.Stopped(2, true)
	s.c.Started(2)
	s.breaks(2, "I11")
}

func TestI12SavedEntriesSurviveARestart(t *testing.T) {
	s := leaderOfThree(t)
	s.n[3].log = s.n[3].log[:1]
	s.n[3].Commit, s.n[3].Applied = 0, 0
	s.restart(3)
	s.breaks(3, "I12")
}

// The checker does not expect old entries on a replaced disk, but it still
// counts the old vote.
func TestAReplacedDiskMayLackSavedEntries(t *testing.T) {
	s := leaderOfThree(t)
	s.c.Stopped(3, false)
	s.c.Replaced(3)
	s.n[3].log, s.n[3].Term, s.n[3].Vote = nil, 0, 0
	s.n[3].Commit, s.n[3].Applied = 0, 0
	s.c.Started(3)
	s.fine(3)
	s.fine(1)
	s.n[3].Term, s.n[3].Vote = s.n[1].Term, 2
	s.breaks(3, "I2")
}

func TestI12UnsavedEntriesMayBeLost(t *testing.T) {
	s := leaderOfThree(t)
	s.n[3].log = append(s.n[3].log, entry(1, "c"))
	s.write(entry(1, "c"), 1)
	require.NoError(t, s.c.Look(3, s.n[3], false))
	s.n[3].log = s.n[3].log[:2]
	s.n[3].Commit, s.n[3].Applied = 0, 0
	s.restart(3)
	s.fine(3)
}

func TestI13Progress(t *testing.T) {
	for name, bad := range map[string]node.Progress{
		"next not above match": {ID: 2, Next: 2, Match: 2},
		"next beyond the end":  {ID: 2, Next: 4, Match: 2},
		"nothing to send from": {ID: 2, Next: 0, Match: 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := leaderOfThree(t)
			s.n[1].Progress = []node.Progress{bad}
			s.breaks(1, "I13")
		})
	}
	t.Run("match is not true", func(t *testing.T) {
		s := leaderOfThree(t)
		s.write(entry(1, "c"), 1)
		s.n[1].Progress = []node.Progress{{ID: 2, Next: 4, Match: 3}}
		s.breaks(1, "I13")
	})
}

func TestI14TheLeaderHasTheLastEntryOfItsTerm(t *testing.T) {
	s := leaderOfThree(t)
	s.n[2].log = append(s.n[2].log, entry(1, "from nowhere"))
	s.breaks(2, "I14")
}

func TestI15CommittedEntriesStay(t *testing.T) {
	t.Run("by the server itself", func(t *testing.T) {
		s := leaderOfThree(t)
		s.n[2].Term, s.n[2].Vote = 2, 0
		s.n[2].log = []node.Entry{entry(1, "a"), entry(2, "z")}
		s.breaks(2, "I15")
	})
	t.Run("by others", func(t *testing.T) {
		s := newStage(t, 3)
		s.elect(1, 1, 2)
		s.write(entry(1, "a"), 1, 2)
		s.commit(1, 1)
		s.n[2].log = nil
		s.breaks(2, "I15")
	})
	// n1 was paused. Its entry is committed in term 3, without it. Then an old
	// message arrives from the leader of term 2, which has another entry at
	// that index.
	for term, fine := range map[uint64]bool{2: true, 3: false} {
		t.Run(fmt.Sprintf("by one that is in term %d", term), func(t *testing.T) {
			s := newStage(t, 5)
			s.elect(1, 1, 2, 3)
			s.write(entry(1, "a"), 1, 2)
			s.elect(5, 2, 3, 4)
			s.write(entry(2, "z"), 5)
			s.elect(2, 3, 3, 4)
			s.write(entry(1, "a"), 3, 4)
			s.write(entry(3, "b"), 2, 3, 4)
			s.commit(2, 2)
			p := s.n[1]
			p.Role, p.Term, p.Vote, p.Votes, p.Progress = node.Follower, term, 0, nil, nil
			p.log = []node.Entry{entry(2, "z")}
			if fine {
				s.fine(1)
			} else {
				s.breaks(1, "I15")
			}
		})
	}
}

func TestI16TheTermsOfMessages(t *testing.T) {
	s := leaderOfThree(t)
	for _, line := range []string{`{"term":1,"appendEntries":{}}`, `{"term":0,"appendEntriesReply":{}}`, `{"replicate":{}}`, ``} {
		require.NoError(t, s.c.Sent(1, 2, []byte(line)))
	}
	require.NoError(t, s.c.Sent(2, 1, []byte(`{"term":1,"appendEntriesReply":{}}`)))
	s.broken(s.c.Sent(1, 2, []byte(`{"term":2,"requestVote":{}}`)), "I16")
	s.broken(s.c.Sent(2, 1, []byte(`{"term":1,"appendEntries":{}}`)), "I16")
}

func TestI17ACandidateAndItsVotes(t *testing.T) {
	for name, bad := range map[string]node.State{
		"votes for another": {Vote: 2, Votes: []uint64{1}},
		"not among them":    {Vote: 1, Votes: []uint64{2}},
		"never given":       {Vote: 1, Votes: []uint64{1, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, 3)
			s.follow(1, 1, 2)
			p := s.n[1]
			p.Role, p.Term, p.Vote, p.Votes = node.Candidate, 1, bad.Vote, bad.Votes
			s.breaks(1, "I17")
		})
	}
}

// A server that goes through two terms in one round saves only the later one.
// It can never vote in the earlier one again, so its vote there is safe.
func TestI17AVoteIsKeptByTheLaterTerm(t *testing.T) {
	s := newStage(t, 3)
	s.follow(1, 1, 2)
	s.n[3].Term = 2
	s.fine(3)
	p := s.n[1]
	p.Role, p.Term, p.Vote, p.Votes = node.Candidate, 1, 1, []uint64{1, 3}
	s.fine(1)
}

func TestI18AnUpToDateLogHasTheCommittedEntries(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1, 2)
	s.commit(1, 1)
	s.n[3].Term = 2
	s.n[3].log = []node.Entry{entry(2, "z")}
	s.breaks(3, "I18")
}

// Figure 8: an entry of term 1 is committed in term 3, while another server has
// an entry of term 2 at that index. That log is newer than the entry, and it is
// right that it does not have it.
func TestI18CountsTheTermOfTheCommit(t *testing.T) {
	s := newStage(t, 5)
	s.elect(1, 1, 2, 3, 4)
	s.write(entry(1, "a"), 1, 2, 4)
	s.elect(5, 2, 3, 4)
	s.write(entry(2, "z"), 5)
	s.elect(1, 3, 2, 3)
	s.write(entry(1, "a"), 3)
	s.write(entry(3, "b"), 1, 2, 3)
	s.commit(2, 1)
	s.n[4].Term, s.n[4].Vote = 3, 0
	s.commit(1, 4)
	s.fine(1, 2, 3, 4, 5)

	// After the term of the commit, the log must have the entry.
	s.n[5].Role, s.n[5].Term, s.n[5].Vote = node.Follower, 4, 0
	s.n[5].log = append(s.n[5].log, entry(4, "y"))
	s.breaks(5, "I18")
}

func TestI18ChecksAllServersAfterACommit(t *testing.T) {
	s := newStage(t, 3)
	s.elect(1, 1, 2)
	s.write(entry(1, "a"), 1, 2)
	s.n[3].Term = 2
	s.n[3].log = []node.Entry{entry(2, "z")}
	s.fine(3)
	s.n[1].Commit = 1
	s.breaks(1, "I18")
}

func TestI19ASnapshotCoversCommittedEntries(t *testing.T) {
	t.Run("too far", func(t *testing.T) {
		s := leaderOfThree(t)
		s.n[3].SnapIndex, s.n[3].SnapTerm, s.n[3].log = 3, 1, nil
		s.breaks(3, "I19")
	})
	t.Run("of another term", func(t *testing.T) {
		s := leaderOfThree(t)
		s.n[3].SnapIndex, s.n[3].SnapTerm, s.n[3].log = 2, 7, nil
		s.breaks(3, "I19")
	})
}

func BenchmarkLook(b *testing.B) {
	c := NewInvariants()
	p := &puppet{State: node.State{ID: 1, Role: node.Leader, Term: 1, Vote: 1}}
	for range 1000 {
		p.log = append(p.log, entry(1, `{"op":"put","key":"x","value":"1"}`))
	}
	c.Started(1)
	for b.Loop() {
		if err := c.Look(1, p, true); err != nil {
			b.Fatal(err)
		}
	}
}
