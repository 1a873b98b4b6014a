package raft

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/lab/rules"
)

// The tests in this package that are named after a sentence of the paper quote
// it and name its section. They look at one server, n1 of three; the scripts
// show how the servers play together.

// three is the configuration of n1, n2 and n3 that stands in no entry.
var three = Config{Voters: []ID{1, 2, 3}}

// boot returns n1 of three servers, which finds a term and a log on its disk.
func boot(term Term, terms ...Term) *Raft {
	return New(startOptions(1, []ID{1, 2, 3}, State{CurrentTerm: term}, entries(terms...)))
}

// entries returns a log with entries of these terms.
func entries(terms ...Term) []Entry {
	var log []Entry
	for i, term := range terms {
		log = append(log, Entry{Index: Index(i + 1), Term: term})
	}
	return log
}

// leader returns n1 as the leader of term, with a log that held entries of these
// terms before. All it has said so far is taken.
func leader(t *testing.T, term Term, terms ...Term) *Raft {
	r := boot(term-1, terms...)
	makeLeader(t, r)
	require.Equal(t, term, r.currentTerm)
	takeAll(r)
	return r
}

// takeAll takes all outputs, as if each were carried out, and joins them.
func takeAll(r *Raft) (all Output) {
	for {
		out := r.Take()
		if out.Empty() {
			return all
		}
		if out.State != nil {
			all.State = out.State
		}
		all.Early = append(all.Early, out.Early...)
		all.Append = append(all.Append, out.Append...)
		all.Rewrite = all.Rewrite || out.Rewrite
		all.Messages = append(all.Messages, out.Messages...)
		all.Committed = append(all.Committed, out.Committed...)
		all.Chunks = append(all.Chunks, out.Chunks...)
		all.Reasons = append(all.Reasons, out.Reasons...)
	}
}

// sent returns all messages of an output, early or not.
func (o Output) sent() []Message { return append(append([]Message(nil), o.Early...), o.Messages...) }

// from returns a message to n1 in its own term.
func from(r *Raft, id ID, body Body) Message {
	return Message{From: id, To: 1, Term: r.currentTerm, Body: body}
}

// terms returns the terms of the entries of a server's log.
func terms(r *Raft) (all []Term) {
	for _, e := range r.log.entries[1:] {
		all = append(all, e.Term)
	}
	return all
}

// "When servers start up, they begin as followers" (§5.2), whatever they were.
func TestServersBeginAsFollowers(t *testing.T) {
	r := leader(t, 4, 1, 2)
	state, log := r.Status().State, r.log.entries[1:]

	again := New(startOptions(1, []ID{1, 2, 3}, state, log))
	require.Equal(t, Follower, again.Status().Role)
	require.Zero(t, again.Status().Leader)
}

// "currentTerm: initialized to 0 on first boot"; "log: first index is 1";
// "commitIndex, lastApplied: initialized to 0" (Figure 2, State).
func TestStateOnFirstBoot(t *testing.T) {
	r := boot(0)
	status := r.Status()
	require.Equal(t, State{}, status.State)
	require.Zero(t, status.Last)
	require.Zero(t, status.Commit)
	require.Zero(t, status.Applied)
	require.True(t, r.Take().Empty(), "a server that starts has nothing to do")
}

// Persistent state survives a restart, volatile state does not: commitIndex
// begins at 0 again, and the leader's word raises it (Figure 2, State).
func TestPersistentAndVolatileState(t *testing.T) {
	r := boot(5, 1, 1, 3)
	require.Equal(t, Term(5), r.Status().CurrentTerm)
	require.Equal(t, []Term{1, 1, 3}, terms(r))
	require.Zero(t, r.Status().Commit)

	r.Step(from(r, 2, AppendEntries{PrevLogIndex: 3, PrevLogTerm: 3, LeaderCommit: 3}))
	require.Len(t, takeAll(r).Committed, 3, "the state machine starts empty, so all is applied again")
}

// "If RPC request or response contains term T > currentTerm: set currentTerm = T,
// convert to follower" (Figure 2, all servers; §5.1), whatever the message and
// whatever the server was.
func TestNewerTermConvertsToFollower(t *testing.T) {
	for _, body := range append(stageBodies, AppendEntries{}, AppendEntriesReply{Success: true}, AppendEntriesReply{}) {
		follower := boot(3, 1)
		follower.Step(from(follower, 3, AppendEntries{}))
		for name, r := range map[string]*Raft{"follower": follower, "leader": leader(t, 3, 1)} {
			r.Step(Message{From: 2, To: 1, Term: 7, Body: body})
			require.Equal(t, Term(7), r.currentTerm, "%s hears %T", name, body)
			require.Equal(t, Follower, r.role, "%s hears %T", name, body)
			_, leads := body.(AppendEntries)
			require.Equal(t, leads, r.leader == 2, "%s hears %T", name, body)
			require.Equal(t, !leads, r.leader == 0, "%s hears %T: who leads the new term is not known", name, body)
			require.Equal(t, Term(7), takeAll(r).State.CurrentTerm, "%s saves the term of %T", name, body)
		}
	}
}

// "If a server receives a request with a stale term number, it rejects the
// request" (§5.1), and "reply false if term < currentTerm" (Figure 2). The
// message changes nothing, and the answer carries the newer term.
func TestReplyFalseIfTermIsOlder(t *testing.T) {
	for _, r := range []*Raft{boot(5, 1), leader(t, 5, 1)} {
		before := r.Status()
		r.Step(Message{From: 2, To: 1, Term: 4, Body: AppendEntries{PrevLogIndex: 1, PrevLogTerm: 1, Entries: []Entry{{Index: 2, Term: 4}}, LeaderCommit: 1}})
		require.Equal(t, []Message{{From: 1, To: 2, Term: 5, Body: AppendEntriesReply{}}}, r.Take().Messages)
		for request, reply := range staleRequests {
			r.Step(Message{From: 2, To: 1, Term: 4, Body: request})
			require.Equal(t, []Message{{From: 1, To: 2, Term: 5, Body: reply}}, r.Take().Messages)
		}
		require.Equal(t, before, r.Status())
	}
}

// A reply of an older term is dropped: neither vote nor acknowledgement counts in
// another term than its own (§5.1).
func TestStaleRepliesAreDropped(t *testing.T) {
	r := leader(t, 5, 1, 1, 1)
	before := r.Status()
	for _, body := range append(staleReplies, AppendEntriesReply{Success: true, MatchIndex: 3}, AppendEntriesReply{Refused: 3, ConflictIndex: 1}) {
		r.Step(Message{From: 2, To: 1, Term: 4, Body: body})
		out := takeAll(r)
		require.Empty(t, out.sent(), "%T", body)
		require.Equal(t, before, r.Status(), "%T", body)
	}
	match, _ := r.Progress(2)
	require.Zero(t, match)
}

// "Updated on stable storage before responding to RPCs" (Figure 2, State): where
// the term is new, no message leaves before it is saved; where it is not, what
// promises nothing about this disk leaves first (thesis §10.2.1).
func TestNothingIsSaidOfATermThatIsNotSaved(t *testing.T) {
	r := boot(3, 1)
	makeLeader(t, r)
	for out := r.Take(); !out.Empty(); out = r.Take() {
		if out.State != nil {
			require.Empty(t, out.Early)
		}
	}
	_, _, err := r.Propose([]byte("x"))
	require.NoError(t, err)
	out := r.Take()
	require.Nil(t, out.State)
	require.Empty(t, out.Messages)
}

// An output is empty if all its fields are: none may be forgotten.
func TestEmptyKnowsAllFields(t *testing.T) {
	require.True(t, Output{}.Empty())
	kind := reflect.TypeFor[Output]()
	for i := range kind.NumField() {
		var out Output
		switch field := reflect.ValueOf(&out).Elem().Field(i); field.Kind() {
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		default:
			field.SetUint(1)
		}
		require.False(t, out.Empty(), "with %s", kind.Field(i).Name)
	}
}

// What several inputs save together is what they would have saved one by one,
// also where one takes back what another brought.
func TestInputsTogetherSaveWhatTheySaveOneByOne(t *testing.T) {
	type input struct {
		term  Term
		prev  Position
		terms []Term
	}
	for name, inputs := range map[string][]input{
		"entries after entries":               {{5, Position{3, 4}, []Term{5}}, {5, Position{5, 5}, []Term{5, 5}}},
		"a tail gives way":                    {{5, Position{1, 2}, []Term{5}}},
		"a saved and a new tail give way":     {{5, Position{3, 4}, []Term{5, 5}}, {6, Position{1, 2}, []Term{6}}},
		"only a new tail gives way":           {{5, Position{3, 4}, []Term{5, 5}}, {6, Position{5, 5}, []Term{6}}},
		"a tail gives way twice, shorter":     {{5, Position{1, 2}, []Term{5, 5}}, {6, Position{1, 1}, []Term{6}}},
		"a tail gives way twice, longer":      {{5, Position{1, 1}, []Term{5, 5}}, {6, Position{5, 2}, []Term{6, 6}}},
		"all gives way, three times":          {{5, Position{}, []Term{5}}, {6, Position{}, []Term{6, 6}}, {7, Position{}, []Term{7}}},
		"a tail gives way and nothing is new": {{5, Position{1, 1}, []Term{5}}, {6, Position{5, 2}, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			saved := rules.Disk[Entry]{State: rules.State{CurrentTerm: 4}, Log: entries(1, 1, 3, 3)}
			one, all := saved, saved
			a, b := boot(4, 1, 1, 3, 3), boot(4, 1, 1, 3, 3)
			for _, in := range inputs {
				body := AppendEntries{PrevLogIndex: in.prev.Index, PrevLogTerm: in.prev.Term}
				for i, term := range in.terms {
					body.Entries = append(body.Entries, Entry{Index: in.prev.Index + Index(i+1), Term: term})
				}
				m := Message{From: 2, To: 1, Term: in.term, Body: body}
				a.Step(m)
				rules.Save(&one, a, sharedOutput(a.Take()), -1)
				b.Step(m)
			}
			rules.Save(&all, b, sharedOutput(b.Take()), -1)
			require.Equal(t, one, all)
			require.Equal(t, a.log.entries[1:], all.Log)
		})
	}
}

// A committed entry is never removed (§5.4.3), whatever the leader has in its place.
// This server answers nothing and follows nobody, until an election timeout has
// passed.
func TestCommittedEntriesStay(t *testing.T) {
	for what, wrong := range map[string]AppendEntries{
		"another entry":      {PrevLogIndex: 1, PrevLogTerm: 1, Entries: []Entry{{Index: 2, Term: 2}}},
		"it follows another": {PrevLogIndex: 2, PrevLogTerm: 2, Entries: []Entry{{Index: 3, Term: 2}}},
	} {
		r := boot(2, 1, 1)
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 2, PrevLogTerm: 1, LeaderCommit: 2}))
		takeAll(r)
		r.Step(from(r, 2, wrong))
		r.Step(from(r, 2, AppendEntries{PrevLogIndex: 2, PrevLogTerm: 1}))
		out := takeAll(r)
		require.Empty(t, out.sent(), what)
		require.Len(t, out.Reasons, 1, what)
		require.True(t, out.Reasons[0].Alarm, what)
		require.Equal(t, "n1 refuses the leader n2 of term 2: n2 has 2@2 where 1@2 is committed, so its voters have lost entries", out.Reasons[0].String())
		require.Equal(t, ID(0), r.Status().Leader, what)
		require.Equal(t, Index(2), r.Status().Last, what)
		require.Panics(t, func() { r.truncate(2) }, "nor by a mistake of the rules")
	}
}

// An answer that is about more than the leader has sent counts for nothing.
func TestAnAnswerToWhatWasNeverSentIsIgnored(t *testing.T) {
	r := leader(t, 4, 1)
	for _, m := range neverSent(r.log.lastIndex()) {
		r.Step(from(r, 2, m))
		require.Empty(t, takeAll(r).sent())
		match, next := r.Progress(2)
		require.Equal(t, []Index{0, 2}, []Index{match, next})
	}
}

// Status, Progress and Entry show a server as it is.
func TestLookingInside(t *testing.T) {
	r := leader(t, 3, 1, 2)
	status := r.Status()
	require.Equal(t, Leader, status.Role)
	require.Equal(t, ID(1), status.Leader)
	require.Equal(t, Index(2+ownEntries), status.Last)
	require.Equal(t, Term(2), r.Entry(2).Term)

	match, next := r.Progress(2)
	require.Zero(t, match)
	require.Equal(t, Index(3), next)
	match, next = boot(1).Progress(2)
	require.Zero(t, match)
	require.Zero(t, next)
}
