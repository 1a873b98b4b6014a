package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// log gives commands to a machine as a log would.
type log struct {
	*machine
	index uint64
}

func (l *log) do(c command) api.Response {
	l.index++
	decoded, err := decodeCommand(c.appendJSON(nil))
	if err != nil {
		panic(err)
	}
	return l.apply(l.index, decoded).response(api.Request{Op: c.Op})
}

// open returns the number of a new session, which is also the index since which it
// can be used.
func (l *log) open() uint64 {
	l.index++
	return l.index
}

// begin returns the number of a new session with one command.
func (l *log) begin() uint64 {
	s := l.open()
	l.do(add("", s, 1, 0))
	return s
}

// add is a command of a session whose number is also the index since which it can
// be used.
func add(value string, session, seq, ack uint64) command {
	return command{Command: kv.Command{Op: kv.Append, Key: "x", Value: value}, session: session, since: session, seq: seq, ack: ack}
}

func TestADuplicateCommandIsAppliedOnce(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	first := l.do(add("a", s, 1, 0))
	require.Equal(t, api.Response{Length: 1, HasLength: true, Index: 2}, first)
	require.EqualValues(t, 2, l.do(add("b", s, 2, 0)).Length)
	require.Equal(t, first, l.do(add("a", s, 1, 0)), "with the answer of the first time")
	require.Equal(t, "ab", l.store.Get("x").Value)
}

func TestRefusalsAreRememberedToo(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	cas := command{Command: kv.Command{Op: kv.Cas, Key: "x", Old: "1", Value: "2"}, session: s, since: s, seq: 1}
	require.Equal(t, api.NotFound, l.do(cas).Error.Code)
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: "1"}})
	require.Equal(t, api.NotFound, l.do(cas).Error.Code, "it must not happen now")
}

// A create that comes twice has made the key: the second time is not told that the
// key exists.
func TestADuplicateCreateIsAppliedOnce(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	create := command{Command: kv.Command{Op: kv.Create, Key: "x", Value: "1"}, session: s, since: s, seq: 1}
	require.Nil(t, l.do(create).Error)
	require.Nil(t, l.do(create).Error)
	create.seq = 2
	require.Equal(t, api.Exists, l.do(create).Error.Code)
}

func TestDuplicateCommandsOutsideASessionAreRepeated(t *testing.T) {
	l := &log{machine: newMachine()}
	l.do(add("a", 0, 0, 0))
	require.EqualValues(t, 2, l.do(add("a", 0, 0, 0)).Length)
}

func TestCommandsOfASessionMayOvertakeEachOther(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	l.do(add("b", s, 2, 0))
	l.do(add("a", s, 1, 0))
	l.do(add("b", s, 2, 0))
	require.Equal(t, "ba", l.store.Get("x").Value)
}

func TestAnAcknowledgedAnswerIsForgottenAndItsCommandNotRepeated(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	l.do(add("a", s, 1, 0))
	l.do(add("b", s, 2, 1))
	e := l.do(add("a", s, 1, 0)).Error
	require.Equal(t, api.NoSession, e.Code)
	require.True(t, e.Definite)
	require.Equal(t, "ab", l.store.Get("x").Value)
}

// A client may acknowledge what it likes; the servers must not count up to it.
func TestAckCanJump(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	l.do(add("a", s, 1, 0))
	l.do(add("b", s, 1<<63, 1<<63-1))
	require.Len(t, l.sessions[s].Value.(*session).results, 1)
	require.Equal(t, l.counted(), l.remembered)
	require.Equal(t, api.NoSession, l.do(add("a", s, 1, 0)).Error.Code)
}

// A session costs no entry of its own.
func TestTheFirstCommandBeginsTheSession(t *testing.T) {
	l := &log{machine: newMachine()}
	require.EqualValues(t, 1, l.do(add("a", 77, 5, 4)).Length)
	require.EqualValues(t, 1, l.do(add("a", 77, 5, 4)).Length)
	require.Len(t, l.sessions, 1)
}

func TestTheOldestSessionIsEvicted(t *testing.T) {
	l := &log{machine: newMachine()}
	first, second := l.begin(), l.begin()
	for range maxSessions - 2 {
		l.begin()
	}
	l.do(add("a", first, 2, 0)) // now the second was used longest ago
	l.begin()
	require.Len(t, l.sessions, maxSessions)
	require.EqualValues(t, 2, l.do(add("b", first, 3, 0)).Length)
	require.Equal(t, api.NoSession, l.do(add("c", second, 2, 0)).Error.Code)
}

// A session that has ended cannot begin again: the results of its commands are
// gone, so one that comes again would happen twice. It does not matter how much
// later it comes.
func TestAnEndedSessionIsNotReopened(t *testing.T) {
	l := &log{machine: newMachine()}
	s, unused := l.open(), l.open()
	l.do(add("a", s, 1, 0))
	for range 2 * maxSessions {
		l.begin()
	}
	for range 2 {
		e := l.do(add("a", s, 1, 0)).Error
		require.Equal(t, api.NoSession, e.Code)
		require.True(t, e.Definite)
		require.Equal(t, "a", l.store.Get("x").Value)
		require.Equal(t, api.NoSession, l.do(add("a", unused, 1, 0)).Error.Code, "nobody knows any longer that it was not used")
	}
	require.EqualValues(t, 2, l.do(add("b", l.open(), 1, 0)).Length)
}

// The index of a session's last use decides, not that of its first.
func TestAnOldSessionInUseIsNotReopened(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	for seq := range uint64(maxSessions) {
		l.begin()
		require.Nil(t, l.do(add("a", s, seq+1, seq)).Error)
	}
	late := l.open()
	l.do(add("a", s, maxSessions+1, maxSessions))
	for range maxSessions {
		l.begin()
	}
	require.Equal(t, api.NoSession, l.do(add("a", s, maxSessions+1, maxSessions)).Error.Code)
	require.Equal(t, api.NoSession, l.do(add("a", late, 1, 0)).Error.Code)
}

// Journals of earlier versions open sessions with entries, and their commands do
// not say since when.
func TestSessionsThatEntriesOpen(t *testing.T) {
	l := &log{machine: newMachine()}
	open, err := decodeCommand([]byte(`{"op":"open"}`))
	require.NoError(t, err)
	require.Equal(t, api.Response{Index: 4}, l.apply(4, open).response(api.Request{Op: api.Open}))
	l.index = 4
	inSession := func(session uint64) command {
		c := add("a", session, 1, 0)
		c.since = 0
		return c
	}
	require.EqualValues(t, 1, l.do(inSession(4)).Length)
	require.EqualValues(t, 1, l.do(inSession(4)).Length)
	require.Equal(t, api.NoSession, l.do(inSession(3)).Error.Code)
}

func TestSessionHoldsABoundedNumberOfAnswers(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	for seq := range uint64(maxResults) {
		require.Nil(t, l.do(add("", s, seq+1, 0)).Error)
	}
	require.Equal(t, api.Busy, l.do(add("z", s, maxResults+1, 0)).Error.Code)
	require.Nil(t, l.do(add("z", s, maxResults+1, 1)).Error)
}

// longest is a value as long as one may be, of characters of two bytes.
var longest = strings.Repeat("ä", kv.MaxValue/2)

// swap is a cas that finds another value than it expects.
func swap(session, seq, ack uint64) command {
	return command{Command: kv.Command{Op: kv.Cas, Key: "x", Old: "1", Value: "2"}, session: session, since: session, seq: seq, ack: ack}
}

// A refusal that is remembered says what it said the first time, and that is no
// more than the beginning of what it found.
func TestAMismatchIsStoredWithoutItsValue(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: "a" + longest[:kv.MaxValue-2]}})
	first := l.do(swap(s, 1, 0))
	require.Equal(t, api.Mismatch, first.Error.Code)
	require.Equal(t, `the value is "a`+longest[:62]+`"…, not the old one given`, first.Error.Message)
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: "1"}})
	require.Equal(t, first, l.do(swap(s, 1, 0)))
}

// What all sessions hold is bounded, however many commands they leave without an
// acknowledgement: then the sessions used longest ago end.
func TestSessionsTogetherHoldABoundedNumberOfBytes(t *testing.T) {
	l := &log{machine: newMachine()}
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: longest}})
	var sessions []uint64
	for range maxRemembered / (maxResults * (resultBytes + kv.MaxQuoted)) * 2 {
		s := l.open()
		sessions = append(sessions, s)
		for seq := range uint64(maxResults) {
			require.Equal(t, api.Mismatch, l.apply(l.index, swap(s, seq+1, 0)).response(api.Request{}).Error.Code)
		}
		require.LessOrEqual(t, l.remembered, maxRemembered)
		if len(sessions)%16 == 0 { // it takes as long as there are sessions
			require.Equal(t, l.counted(), l.remembered)
		}
	}
	require.Greater(t, len(l.sessions), len(sessions)/3)
	require.Equal(t, api.NoSession, l.do(swap(sessions[0], maxResults, 0)).Error.Code)
	last := sessions[len(sessions)-1]
	require.Equal(t, api.Mismatch, l.do(swap(last, 1, 0)).Error.Code, "the newest is whole")
	l.do(swap(last, maxResults+1, maxResults))
	require.Equal(t, l.counted(), l.remembered, "an acknowledgement makes room")
}

// counted counts what the sessions hold; -1 if one of them has counted otherwise.
func (m *machine) counted() (bytes int) {
	for _, e := range m.sessions {
		s, own := e.Value.(*session), sessionBytes
		for _, r := range s.results {
			own += resultBytes + len(r.Value)
		}
		if own != s.bytes {
			return -1
		}
		bytes += own
	}
	return bytes
}

// Two servers that apply the same log agree, whatever it holds.
func TestSessionsAreTheSameOnAllServers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	a, b := &log{machine: newMachine()}, &log{machine: newMachine()}
	for range 5000 {
		c := add(fmt.Sprint(rng.IntN(3)), rng.Uint64N(40), 1+rng.Uint64N(20), rng.Uint64N(20))
		if rng.IntN(9) == 0 {
			c = command{Command: kv.Command{Op: kv.Delete, Key: "x"}}
		}
		require.Equal(t, a.do(c), b.do(c))
	}
}

func TestARequestMustHaveItsNumberInTheSession(t *testing.T) {
	for _, r := range []api.Request{
		{Session: 1}, {Since: 1}, {Seq: 1}, {Ack: 1}, {Session: 1, Seq: 1}, {Session: 1, Since: 1}, {Since: 1, Seq: 1},
		{Session: 1, Since: 1, Seq: 1, Ack: 1}, {Session: 1, Since: 1, Seq: 2, Ack: 5},
	} {
		require.NotNil(t, checkSession(r), "%+v", r)
	}
	for _, r := range []api.Request{{}, {Session: 1, Since: 1, Seq: 1}, {Session: 3, Since: 7, Seq: 9, Ack: 8}} {
		require.Nil(t, checkSession(r), "%+v", r)
	}
}

// A session costs no entry: a leader answers at once, with the first index that
// is not committed, and a follower names the leader.
func TestAskingForASessionWritesNothing(t *testing.T) {
	w := lead(t, 3)
	done := w.put("x", "1")
	w.commit()
	w.done(done)
	last := w.status().Last
	asked := w.ask(`{"op":"open"}`)
	w.done(asked)
	require.EqualValues(t, last+1, asked.responses[0].Index)
	w.flush()
	require.Equal(t, last, w.status().Last)
	first := w.ask(fmt.Sprintf(`{"op":"append","key":"x","value":"2","session":9,"since":%d,"seq":1}`, last+1))
	w.commit()
	w.done(first)

	w.receive(2, 90, raft.AppendEntries{})
	w.refused(w.ask(`{"op":"open"}`), api.NotLeader, "n2")
}

// An entry that is not committed may be replaced. A leader that counted it would
// name an index at which another session can have been used and ended.
func TestANewSessionDoesNotRelyOnUncommittedEntries(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.put("x", "2")
	w.flush()
	require.Less(t, w.status().Commit, w.status().Last)
	require.EqualValues(t, w.status().Commit+1, w.ask(`{"op":"open"}`).responses[0].Index)
}
