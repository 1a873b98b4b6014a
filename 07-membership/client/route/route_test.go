package route

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// client is a route whose draws are all 0: it reads at a first, and its sessions
// have the number 1.
func client() *Route {
	return New([]string{"a", "b", "c"}, func(uint64) uint64 { return 0 }).(*Route)
}

// tell describes steps in words, but not those of the route's own calls.
func tell(steps []node.Step) (lines []string) {
	for _, s := range steps {
		q := s.Request
		switch {
		case s.Call >= node.Own:
		case s.Err != nil:
			lines = append(lines, fmt.Sprintf("%d ends: %s, definite %v", s.Call, s.Err.Code, s.Err.Definite))
		case s.Ended:
			lines = append(lines, fmt.Sprintf("%d ends: index %d", s.Call, s.Response.Index))
		case q.Session == 0:
			lines = append(lines, fmt.Sprintf("%d asks %s after %v: %s", s.Call, s.To, s.After, q.Op))
		default:
			lines = append(lines, fmt.Sprintf("%d asks %s after %v: %s %d/%d/%d ack %d", s.Call, s.To, s.After, q.Op, q.Session, q.Since, q.Seq, q.Ack))
		}
	}
	return lines
}

var (
	put     = api.Request{Op: kv.Put, Key: "x", Value: "1"}
	get     = api.Request{Op: kv.Get, Key: "x"}
	status  = api.Request{Op: api.Status}
	lost    = api.Lost("no answer")
	down    = &api.Error{Code: api.Unavailable, Definite: true}
	busy    = &api.Error{Code: api.Busy, Definite: true}
	full    = &api.Error{Code: api.Full, Definite: true}
	unknown = &api.Error{Code: api.NoSession, Definite: true}
	denied  = &api.Error{Code: api.Denied, Definite: true}
	bad     = &api.Error{Code: api.Handshake, Definite: true, Message: "a bad certificate"}
	absent  = &api.Error{Code: api.NotFound, Definite: true}
)

func leads(address string) *api.Error {
	return &api.Error{Code: api.NotLeader, Leader: address, Definite: true}
}

// opened is a client whose session is open, and whose first command is done; a
// leads.
func opened() *Route {
	r := client()
	r.Begin(99, put)
	r.Answered(99, api.Response{Index: 5}, nil)
	r.Answered(99, api.Response{Index: 6}, nil)
	return r
}

// Each script is one call of a client, what the servers answer, and what the client
// does.
func TestACall(t *testing.T) {
	for _, test := range []struct {
		name    string
		q       api.Request
		answers []*api.Error
		want    []string
	}{
		{"a read goes from server to server, and waits longer each time", get, []*api.Error{lost, down, lost, nil}, []string{
			"1 asks a after 0s: get", "1 asks b after 2.5ms: get", "1 asks c after 5ms: get", "1 asks a after 10ms: get", "1 ends: index 7"}},
		{"a read ends with what the store says", get, []*api.Error{lost, absent}, []string{
			"1 asks a after 0s: get", "1 asks b after 2.5ms: get", "1 ends: not_found, definite true"}},
		{"a write keeps its number however often it is sent", put, []*api.Error{lost, down, nil}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 asks c after 5ms: put 1/5/2 ack 1", "1 ends: index 7"}},
		{"the first redirect costs no wait, and no more than two in a row are followed", put, []*api.Error{leads("b"), leads("d"), leads("a"), leads("b"), nil}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 0s: put 1/5/2 ack 1", "1 asks d after 5ms: put 1/5/2 ack 1",
			"1 asks b after 10ms: put 1/5/2 ack 1", "1 asks c after 20ms: put 1/5/2 ack 1", "1 ends: index 7"}},
		{"a busy server is asked again", put, []*api.Error{busy, nil}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks a after 2.5ms: put 1/5/2 ack 1", "1 ends: index 7"}},
		{"a write that was certainly not done goes into a new session", put, []*api.Error{unknown, nil, nil}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks a after 0s: open", "1 asks a after 0s: put 1/7/1 ack 0", "1 ends: index 7"}},
		{"a write that may have been done does not", put, []*api.Error{lost, unknown}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 ends: unknown, definite false"}},
		{"a write for which there is no room was not done", put, []*api.Error{full}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 ends: full, definite true"}},
		{"unless an earlier try did it", put, []*api.Error{lost, full}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 ends: unknown, definite false"}},
		{"a write that the client may not do is not tried again", put, []*api.Error{denied}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 ends: denied, definite true"}},
		{"but an earlier try may have done it", put, []*api.Error{lost, denied}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 ends: unknown, definite false"}},
		{"a read that the client may not do is not tried again", get, []*api.Error{lost, denied}, []string{
			"1 asks a after 0s: get", "1 asks b after 2.5ms: get", "1 ends: denied, definite true"}},
		{"a server that cannot talk to the client is passed over", put, []*api.Error{bad, nil}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 ends: index 7"}},
		{"if all of them cannot, nothing else is tried", get, []*api.Error{bad, bad, bad}, []string{
			"1 asks a after 0s: get", "1 asks b after 2.5ms: get", "1 asks c after 5ms: get", "1 ends: handshake, definite true"}},
		{"but an earlier try may have done it, although none can now", put, []*api.Error{lost, bad, bad, bad}, []string{
			"1 asks a after 0s: put 1/5/2 ack 1", "1 asks b after 2.5ms: put 1/5/2 ack 1", "1 asks c after 5ms: put 1/5/2 ack 1",
			"1 asks a after 10ms: put 1/5/2 ack 1", "1 ends: unknown, definite false"}},
		{"a server that cannot be reached may come back and do it", get, []*api.Error{bad, down, bad, bad, nil}, []string{
			"1 asks a after 0s: get", "1 asks b after 2.5ms: get", "1 asks c after 5ms: get", "1 asks a after 10ms: get",
			"1 asks b after 20ms: get", "1 ends: index 7"}},
		{"anything else goes to the first of the endpoints, once", status, []*api.Error{down}, []string{
			"1 asks a after 0s: status", "1 ends: unavailable, definite true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := opened()
			got := tell(r.Begin(1, test.q))
			for _, e := range test.answers {
				got = append(got, tell(r.Answered(1, api.Response{Index: 7}, e))...)
			}
			require.Equal(t, test.want, got)
			require.Empty(t, r.calls)
		})
	}
}

// What is certain after a timeout depends on all tries, not on the last.
func TestATimeout(t *testing.T) {
	for _, test := range []struct {
		q       api.Request
		answers []*api.Error
		want    string
	}{
		{put, []*api.Error{down, down}, "unavailable, definite true"},
		{put, []*api.Error{lost, down}, "unknown, definite false"},
		{put, []*api.Error{down, lost}, "unknown, definite false"},
		{put, []*api.Error{lost, nil}, "unknown, definite false"},
		{get, []*api.Error{lost, down}, "unavailable, definite true"},
		{get, []*api.Error{down, absent}, "not_found, definite true"},
	} {
		r := opened()
		r.Begin(1, test.q)
		r.Answered(1, api.Response{}, test.answers[0])
		require.Equal(t, []string{"1 ends: " + test.want}, tell(r.GaveUp(1, test.answers[1], "in time")))
		require.Equal(t, []string{"2 asks " + r.leader + " after 0s: put 1/5/" + map[string]string{kv.Put: "3 ack 2", kv.Get: "2 ack 1"}[test.q.Op]}, tell(r.Begin(2, put)))
	}
}

// Calls with short timeouts pass over a server that does not answer.
func TestATimeoutLeavesTheServer(t *testing.T) {
	for _, q := range []api.Request{put, get} {
		r := opened()
		for call := range uint64(6) {
			require.Equal(t, []string{"a", "b", "c"}[call%3], r.Begin(call+1, q)[0].To)
			r.GaveUp(call+1, lost, "in time")
		}
		r.Begin(7, q)
		r.GaveUp(7, leads("b"), "in time")
		require.Equal(t, "b", r.Begin(8, q)[0].To)
	}
}

// One call opens the session, and the others wait for it. If that call times out,
// the next one opens it.
func TestOneCallOpensTheSession(t *testing.T) {
	r := client()
	require.Equal(t, []string{"1 asks a after 0s: open"}, tell(r.Begin(1, put)))
	require.Empty(t, r.Begin(2, put))
	require.Empty(t, r.Begin(3, put))
	require.Equal(t, []string{"3 ends: unavailable, definite true"}, tell(r.GaveUp(3, nil, "in time")))
	require.Equal(t, []string{"1 ends: unavailable, definite true", "2 asks b after 0s: open"}, tell(r.GaveUp(1, lost, "in time")))
	require.Empty(t, tell(r.Begin(4, put)))
	require.Equal(t, []string{"2 asks c after 0s: open"}, tell(r.Answered(2, api.Response{}, leads("c"))))
	require.Equal(t, []string{"2 asks c after 0s: put 1/5/1 ack 0", "4 asks c after 0s: put 1/5/2 ack 0"}, tell(r.Answered(2, api.Response{Index: 5}, nil)))
}

// A client that may not write is told so, and not that no leader answered.
func TestADeniedClientOpensNoSession(t *testing.T) {
	r := client()
	r.Begin(1, put)
	require.Empty(t, tell(r.Begin(2, put)))
	require.Equal(t, []string{"1 ends: denied, definite true", "2 asks a after 0s: open"}, tell(r.Answered(1, api.Response{}, denied)))
	require.Equal(t, []string{"2 ends: denied, definite true"}, tell(r.Answered(2, api.Response{}, denied)))
}

// The error of a client that can talk to no server says what is wrong, also if it needs
// a session first, or if it times out before it has tried all servers.
func TestServersThatCannotTalkToTheClient(t *testing.T) {
	r := client()
	got := tell(r.Begin(1, put))
	var last []node.Step
	for range r.servers {
		last = r.Answered(1, api.Response{}, bad)
		got = append(got, tell(last)...)
	}
	require.Equal(t, []string{"1 asks a after 0s: open", "1 asks b after 2.5ms: open", "1 asks c after 5ms: open", "1 ends: handshake, definite true"}, got)
	require.Equal(t, "nothing was done: this client can use none of 3 servers; the last error was: a bad certificate", last[0].Err.Message)
	require.Equal(t, "a bad certificate", bad.Message)

	r.Begin(2, get)
	r.Answered(2, api.Response{}, bad)
	r.Answered(2, api.Response{}, down)
	last = r.GaveUp(2, nil, "in time")
	require.Equal(t, api.Unavailable, last[0].Err.Code)
	require.Equal(t, "no server carried it out in time; the last error was: ; an earlier one was: a bad certificate", last[0].Err.Message)

	r = client()
	r.Begin(1, put)
	r.Answered(1, api.Response{}, bad)
	r.Answered(1, api.Response{}, bad)
	require.Equal(t, []string{"1 asks c after 0s: put 1/7/1 ack 0"}, tell(r.Answered(1, api.Response{Index: 7}, nil)))
	require.Equal(t, []string{"1 asks a after 10ms: put 1/7/1 ack 0"}, tell(r.Answered(1, api.Response{}, bad)), "what failed for the session may succeed for the write")
}

// The calls of a session that the servers have forgotten share the next one.
func TestAForgottenSession(t *testing.T) {
	r := opened()
	r.Begin(1, put)
	r.Begin(2, put)
	require.Equal(t, []string{"2 asks a after 0s: open"}, tell(r.Answered(2, api.Response{}, unknown)))
	require.Empty(t, r.Answered(1, api.Response{}, unknown))
	require.Equal(t, []string{"2 asks a after 0s: put 1/9/1 ack 0", "1 asks a after 0s: put 1/9/2 ack 0"}, tell(r.Answered(2, api.Response{Index: 9}, nil)))
}

// Ack is such that all commands up to it have ended.
func TestAcksAdvance(t *testing.T) {
	s := newSession(9, 4)
	begin := func() (q api.Request) {
		require.True(t, s.begin(&q))
		return q
	}
	for range 4 {
		begin()
	}
	for _, step := range []struct{ end, ack uint64 }{{2, 0}, {4, 0}, {1, 2}, {3, 4}} {
		s.end(step.end)
		require.Equal(t, step.ack, begin().Ack, "after the end of %d", step.end)
	}
	require.Empty(t, s.ended, "nothing is kept of what ended")
}

// The window bounds the commands since the oldest one without an answer,
// because the servers must keep the answers of all of them.
func TestTheWindowBoundsTheCommandsInFlight(t *testing.T) {
	r := opened()
	for call := range uint64(Window) {
		require.Len(t, r.Begin(call+1000, put), 1)
	}
	require.Empty(t, r.Begin(1, put))
	require.Empty(t, r.Begin(2, put))
	require.Len(t, r.Answered(1001, api.Response{}, nil), 1, "the oldest has no answer yet")
	require.Equal(t, []string{"2 ends: unavailable, definite true"}, tell(r.GaveUp(2, nil, "in time")))
	require.Equal(t, []string{"1000 ends: index 0", "1 asks a after 0s: put 1/5/514 ack 3"}, tell(r.Answered(1000, api.Response{}, nil)))
}

// The pauses grow, are random, and are bounded.
func TestPausesBetweenTries(t *testing.T) {
	for _, most := range []bool{false, true} {
		r := New([]string{"a"}, func(n uint64) uint64 {
			if most {
				return n - 1
			}
			return 0
		})
		r.Begin(1, get)
		for i := range 100 {
			wait := r.Answered(1, api.Response{}, down)[0].After
			pause := min(minPause<<min(i, 10), maxPause)
			require.InDelta(t, map[bool]time.Duration{false: pause / 2, true: pause/2 + pause}[most], wait, 1)
		}
	}
}

// Only the first redirect is followed without a pause.
func TestOnlyTheFirstRedirectIsImmediate(t *testing.T) {
	r := opened()
	r.Begin(1, put)
	for i := range 20 {
		for _, address := range []string{"z", "b"} {
			s := r.Answered(1, api.Response{}, leads(address))[0]
			require.Equal(t, i == 0 && address == "z", s.After == 0)
		}
	}
	require.Len(t, r.servers, 4, "a leader that is named again is not another server")
}
