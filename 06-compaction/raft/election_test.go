package raft

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// requests returns the servers that an output asks for their votes.
func (o Output) requests() (asked []ID) {
	for _, m := range o.sent() {
		if _, is := m.Body.(RequestVote); is {
			asked = append(asked, m.To)
		}
	}
	return asked
}

// granted reports what an output answers to one request for a vote.
func (o Output) granted(t *testing.T) bool {
	require.Len(t, o.Messages, 1)
	require.IsType(t, RequestVoteReply{}, o.Messages[0].Body)
	return o.Messages[0].Body.(RequestVoteReply).Granted
}

// candidate returns n1 as a candidate of term, its output taken.
func candidate(t *testing.T, term Term, terms ...Term) *Raft {
	r := boot(term-1, terms...)
	forceElection(r)
	require.Equal(t, Candidate, r.role)
	takeAll(r)
	return r
}

// "If votedFor is null or candidateId, and candidate's log is at least as
// up-to-date as receiver's log, grant vote" (Figure 2, RequestVote, 2; §5.2, §5.4).
func TestGrantVote(t *testing.T) {
	for _, c := range []struct {
		votedFor ID
		theirs   Position
		want     bool
	}{
		{0, Position{2, 3}, true}, {2, Position{2, 3}, true}, {3, Position{2, 3}, false}, {1, Position{2, 3}, false},
		{0, Position{2, 2}, false}, {0, Position{2, 4}, true}, {0, Position{3, 1}, true}, {0, Position{1, 9}, false},
		{2, Position{2, 2}, false}, {3, Position{9, 9}, false}, {0, Position{0, 0}, false},
	} {
		r := New(startOptions(1, []ID{1, 2, 3}, State{CurrentTerm: 4, VotedFor: c.votedFor}, entries(1, 1, 2)))
		r.Step(from(r, 2, RequestVote{LastLogIndex: c.theirs.Index, LastLogTerm: c.theirs.Term}))
		out := r.Take()
		require.Equal(t, c.want, out.granted(t), "%+v", c)
		if c.want && c.votedFor == 0 {
			require.Equal(t, &State{CurrentTerm: 4, VotedFor: 2}, out.State, "the vote is saved before it leaves")
		} else {
			require.Nil(t, out.State)
		}
		require.Empty(t, out.Early)
	}
}

// "Raft determines which of two logs is more up-to-date by comparing the index and
// term of the last entries in the logs": the later term, and in the same term the
// longer log (§5.4.1).
func TestPositionBefore(t *testing.T) {
	for _, c := range []struct {
		p, q Position
		want bool
	}{
		{Position{0, 0}, Position{0, 0}, false}, {Position{0, 0}, Position{1, 1}, true}, {Position{1, 1}, Position{0, 0}, false},
		{Position{1, 1}, Position{1, 1}, false}, {Position{1, 1}, Position{1, 2}, true}, {Position{1, 2}, Position{1, 1}, false},
		{Position{1, 9}, Position{2, 2}, true}, {Position{2, 2}, Position{1, 9}, false},
	} {
		require.Equal(t, c.want, c.p.before(c.q), "%v before %v", c.p, c.q)
	}
}

// "Each server will vote for at most one candidate in a given term, on a
// first-come-first-served basis" (§5.2), also after a restart.
func TestOneVoteInATerm(t *testing.T) {
	r := boot(4)
	r.Step(from(r, 2, RequestVote{}))
	out := r.Take()
	require.True(t, out.granted(t))
	for _, r := range []*Raft{r, New(startOptions(1, []ID{1, 2, 3}, *out.State, nil))} {
		r.Step(from(r, 3, RequestVote{LastLogIndex: 9, LastLogTerm: 4}))
		require.False(t, takeAll(r).granted(t))
		r.Step(from(r, 2, RequestVote{}))
		require.True(t, takeAll(r).granted(t), "the same candidate may ask again")
	}
}

// A vote holds for its term only: a newer term begins with none (§5.1, §5.2).
func TestNewTermNewVote(t *testing.T) {
	r := boot(4)
	r.Step(from(r, 2, RequestVote{}))
	takeAll(r)
	r.Step(Message{From: 3, To: 1, Term: 5, Body: RequestVote{}})
	out := r.Take()
	require.True(t, out.granted(t))
	require.Equal(t, &State{CurrentTerm: 5, VotedFor: 3}, out.State)
}

// "If election timeout elapses without receiving AppendEntries RPC from current
// leader or granting vote to candidate: convert to candidate" (Figure 2,
// followers; §5.2).
func TestTimeoutConvertsToCandidate(t *testing.T) {
	for what, c := range map[string]struct {
		body   Body
		resets bool
	}{
		"nothing":                   {nil, false},
		"an AppendEntries":          {AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1}, true},
		"a refused AppendEntries":   {AppendEntries{PrevLogIndex: 9, PrevLogTerm: 3}, true},
		"a granted vote":            {RequestVote{LastLogIndex: 1, LastLogTerm: 1}, true},
		"a refused vote":            {RequestVote{}, false},
		"a reply":                   {AppendEntriesReply{}, false},
		"a read that it cannot ask": {ReadIndex{ID: 1}, false},
	} {
		r := boot(3, 1)
		for range 9 {
			r.Tick()
		}
		if c.body != nil {
			r.Step(from(r, 2, c.body))
		}
		r.Tick()
		require.Equal(t, c.resets, r.role == Follower, what)
		for range 9 {
			r.Tick()
		}
		require.Equal(t, Candidate, r.role, what)
	}
	// An older leader's word does not count.
	r := boot(3, 1)
	for range 9 {
		r.Tick()
	}
	r.Step(Message{From: 2, To: 1, Term: 2, Body: AppendEntries{}})
	r.Tick()
	require.Equal(t, Candidate, r.role)
}

// "On conversion to candidate, start election: increment currentTerm, vote for
// self, reset election timer, send RequestVote RPCs to all other servers"
// (Figure 2, candidates; §5.2). The requests leave once the vote is saved.
func TestStartElection(t *testing.T) {
	r := boot(3, 1, 2)
	forceElection(r)
	out := r.Take()
	require.Equal(t, &State{CurrentTerm: 4, VotedFor: 1}, out.State)
	require.Empty(t, out.Early)
	require.Equal(t, []ID{2, 3}, out.requests())
	require.Equal(t, RequestVote{LastLogIndex: 2, LastLogTerm: 2}, out.Messages[0].Body)
	require.Equal(t, Term(4), out.Messages[0].Term)
	require.Zero(t, r.elapsed)
}

// "If election timeout elapses: start new election" (Figure 2, candidates; §5.2).
func TestCandidateStartsNewElection(t *testing.T) {
	r := New(startOptions(1, []ID{1, 2, 3, 4, 5}, State{CurrentTerm: 3}, nil))
	forceElection(r)
	takeAll(r)
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	require.Equal(t, []ID{1, 2}, r.Status().Votes)
	for range 10 {
		r.Tick()
	}
	out := takeAll(r)
	require.Equal(t, &State{CurrentTerm: 5, VotedFor: 1}, out.State)
	require.Equal(t, []ID{2, 3, 4, 5}, out.requests())
	require.Equal(t, []ID{1}, r.Status().Votes, "the votes of the term before are gone")
}

// "If votes received from majority of servers: become leader" (Figure 2,
// candidates; §5.2): "the full cluster for the same term", each server once.
func TestMajorityOfVotesMakesALeader(t *testing.T) {
	for _, c := range []struct {
		servers int
		votes   []ID
		want    Role
	}{
		{1, nil, Leader},
		{2, nil, Candidate}, {2, []ID{2}, Leader},
		{3, nil, Candidate}, {3, []ID{2}, Leader}, {3, []ID{3}, Leader}, {3, []ID{1, 1}, Candidate},
		{4, []ID{2}, Candidate}, {4, []ID{2, 3}, Leader},
		{5, []ID{2}, Candidate}, {5, []ID{2, 2, 2}, Candidate}, {5, []ID{2, 4}, Leader}, {5, []ID{2, 2, 5}, Leader},
		{5, []ID{2, 9, 8}, Candidate},
	} {
		var members []ID
		for i := range c.servers {
			members = append(members, ID(i+1))
		}
		r := New(startOptions(1, members, State{}, nil))
		forceElection(r)
		takeAll(r)
		for _, id := range c.votes {
			r.Step(from(r, id, RequestVoteReply{Granted: true}))
		}
		r.Step(from(r, 2, RequestVoteReply{}))
		require.Equal(t, c.want, r.role, "%+v", c)
	}
}

// Votes count for candidates only: a leader that hears one more does not begin
// again, and a follower does not begin at all.
func TestVotesCountForCandidatesOnly(t *testing.T) {
	r := leader(t, 4, 1)
	before := r.Status()
	r.Step(from(r, 3, RequestVoteReply{Granted: true}))
	require.Empty(t, takeAll(r).sent())
	require.Equal(t, before, r.Status())

	f := boot(4, 1)
	f.Step(from(f, 2, RequestVoteReply{Granted: true}))
	f.Step(from(f, 3, RequestVoteReply{Granted: true}))
	require.Equal(t, Follower, f.role)
}

// "If AppendEntries RPC received from new leader: convert to follower" (Figure 2,
// candidates): "if the leader's term is at least as large as the candidate's
// current term" (§5.2). In the same term the vote stays given.
func TestCandidateRecognizesTheLeader(t *testing.T) {
	for _, term := range []Term{4, 5} {
		r := candidate(t, 4)
		r.Step(Message{From: 2, To: 1, Term: term, Body: AppendEntries{}})
		require.Equal(t, Follower, r.role)
		require.Equal(t, ID(2), r.leader)
		require.Empty(t, r.votes)
		r.Step(Message{From: 3, To: 1, Term: term, Body: RequestVote{}})
		require.Equal(t, term == 5, takeAll(r).Messages[1].Body.(RequestVoteReply).Granted)
	}
}

// "If the term in the RPC is smaller than the candidate's current term, then the
// candidate rejects the RPC and continues in candidate state" (§5.2).
func TestCandidateRejectsAnOlderLeader(t *testing.T) {
	r := candidate(t, 4)
	r.Step(Message{From: 2, To: 1, Term: 3, Body: AppendEntries{}})
	require.Equal(t, Candidate, r.role)
	out := takeAll(r)
	require.False(t, out.reply(t).Success)
	require.Equal(t, Term(4), out.Messages[0].Term)
}

// "If a candidate or leader discovers that its term is out of date, it immediately
// reverts to follower state" (§5.1): also by a refused vote.
func TestCandidateRevertsToFollower(t *testing.T) {
	r := candidate(t, 4)
	r.Step(Message{From: 2, To: 1, Term: 6, Body: RequestVoteReply{}})
	require.Equal(t, Follower, r.role)
	require.Equal(t, &State{CurrentTerm: 6}, takeAll(r).State)
}

// "Election timeouts are chosen randomly from a fixed interval", and "each
// candidate restarts its randomized election timeout at the start of an election"
// (§5.2): every length in the interval occurs, none outside it.
func TestTimeoutsAreRandom(t *testing.T) {
	seen := map[int]bool{}
	draw := uint64(0)
	o := startOptions(1, []ID{1, 2, 3}, State{}, nil)
	o.Random = func(n uint64) uint64 { draw++; return draw * 7 % n }
	r := New(o)
	for range 200 {
		ticks := 0
		for len(takeAll(r).requests()) == 0 {
			r.Tick()
			ticks++
		}
		seen[ticks] = true
	}
	require.Len(t, seen, 10)
	for ticks := range seen {
		require.GreaterOrEqual(t, ticks, o.ElectionTicks[0])
		require.LessOrEqual(t, ticks, o.ElectionTicks[1])
	}
}

// A leader does not start an election against itself, however long it leads.
func TestLeaderDoesNotTimeOut(t *testing.T) {
	r := leader(t, 4, 1)
	for range 100 {
		r.Tick()
	}
	require.Equal(t, Leader, r.role)
	require.Equal(t, Term(4), r.currentTerm)
}

// "Each leader commits a blank no-op entry into the log at the start of its term"
// (§8): it is the first entry of the term, and commits what earlier leaders left
// (§5.4.2).
func TestLeaderBeginsWithANoOp(t *testing.T) {
	r := candidate(t, 4, 1, 2)
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	out := takeAll(r)
	noOp := Entry{Index: 3, Term: 4, Kind: NoOp}
	require.Equal(t, []Entry{noOp}, out.Append)
	require.Equal(t, []Entry{noOp}, out.to(2)[0].Entries)
	accept(r, 2, 3)
	require.Len(t, takeAll(r).Committed, 3)
}

// A whole election's decisions, as they are described: each with its section.
func TestReasonsOfAnElection(t *testing.T) {
	r := candidate(t, 4, 1, 2)
	r.Step(from(r, 2, RequestVoteReply{Granted: true}))
	r.Step(from(r, 3, RequestVote{LastLogIndex: 2, LastLogTerm: 2}))
	var decisions []string
	for _, why := range takeAll(r).Reasons {
		decisions = append(decisions, fmt.Sprintf("%v (%s)", why, why.Rule.Section))
	}
	require.Equal(t, []string{
		"n1 becomes the leader of term 4 with the votes of n1, n2 (§5.2)",
		"n1 refuses its vote to n3: n1 has voted for n1 in term 4 (§5.2)",
	}, decisions)
}

// A term has one leader. What another says as its leader changes nothing, and an
// operator hears of it.
func TestASecondLeaderOfATermIsRefused(t *testing.T) {
	follower := boot(4, 1)
	follower.Step(from(follower, 3, AppendEntries{}))
	takeAll(follower)
	for _, r := range []*Raft{leader(t, 4, 1), follower} {
		before := r.Status()
		second := Entry{Index: 2, Term: 4}
		for _, body := range secondLeader(second) {
			r.Step(from(r, 2, body))
			out := takeAll(r)
			require.Empty(t, out.sent())
			require.Len(t, out.Reasons, 1)
			require.Equal(t, Reason{Rule: TwoLeaders, Alarm: true, Self: 1, Peer: 2, Term: 4, Other: before.Leader}, out.Reasons[0])
			require.Equal(t, before, r.Status())
		}
	}
}
