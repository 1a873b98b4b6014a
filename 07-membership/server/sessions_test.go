package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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

func (l *log) open() uint64 { return l.do(command{Command: kv.Command{Op: api.Open}}).Index }

func add(value string, session, seq, ack uint64) command {
	return command{Command: kv.Command{Op: kv.Append, Key: "x", Value: value}, session: session, seq: seq, ack: ack}
}

func TestCommandThatComesTwiceIsDoneOnce(t *testing.T) {
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
	cas := command{Command: kv.Command{Op: kv.Cas, Key: "x", Old: "1", Value: "2"}, session: s, seq: 1}
	require.Equal(t, api.NotFound, l.do(cas).Error.Code)
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: "1"}})
	require.Equal(t, api.NotFound, l.do(cas).Error.Code, "it must not happen now")
}

// A create that comes twice has made the key: the second time is not told that the
// key exists.
func TestACreateThatComesTwiceIsDoneOnce(t *testing.T) {
	l := &log{machine: newMachine()}
	s := l.open()
	create := command{Command: kv.Command{Op: kv.Create, Key: "x", Value: "1"}, session: s, seq: 1}
	require.Nil(t, l.do(create).Error)
	require.Nil(t, l.do(create).Error)
	create.seq = 2
	require.Equal(t, api.Exists, l.do(create).Error.Code)
}

func TestCommandsOutsideASessionAreDoneAsOftenAsTheyCome(t *testing.T) {
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

func TestAcknowledgedAnswerIsForgottenAndTheCommandNotDoneAgain(t *testing.T) {
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

func TestUnknownSessionIsAnErrorAndNoNewSession(t *testing.T) {
	l := &log{machine: newMachine()}
	e := l.do(add("a", 77, 1, 0)).Error
	require.Equal(t, api.NoSession, e.Code)
	require.True(t, e.Definite)
	require.Equal(t, kv.NotFound, l.store.Get("x").Outcome)
	require.Empty(t, l.sessions)
}

func TestOldestSessionMakesRoom(t *testing.T) {
	l := &log{machine: newMachine()}
	first, second := l.open(), l.open()
	for range maxSessions - 2 {
		l.open()
	}
	l.do(add("a", first, 1, 0)) // now the second was used longest ago
	l.open()
	require.Len(t, l.sessions, maxSessions)
	require.EqualValues(t, 2, l.do(add("b", first, 2, 0)).Length)
	require.Equal(t, api.NoSession, l.do(add("c", second, 1, 0)).Error.Code)
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
	return command{Command: kv.Command{Op: kv.Cas, Key: "x", Old: "1", Value: "2"}, session: session, seq: seq, ack: ack}
}

// A refusal that is remembered says what it said the first time, and that is no
// more than the beginning of what it found.
func TestAMismatchIsRememberedInShort(t *testing.T) {
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
		require.Equal(t, l.counted(), l.remembered)
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
		if rng.IntN(50) == 0 {
			c = command{Command: kv.Command{Op: api.Open}}
		} else if rng.IntN(9) == 0 {
			c = command{Command: kv.Command{Op: kv.Delete, Key: "x"}}
		}
		require.Equal(t, a.do(c), b.do(c))
	}
}

func TestRequestMustSayWhereInItsSessionItIs(t *testing.T) {
	for _, r := range []api.Request{{Session: 1}, {Seq: 1}, {Ack: 1}, {Session: 1, Seq: 1, Ack: 1}, {Session: 1, Seq: 2, Ack: 5}} {
		require.NotNil(t, checkSession(r), "%+v", r)
	}
	for _, r := range []api.Request{{}, {Session: 1, Seq: 1}, {Session: 3, Seq: 9, Ack: 8}} {
		require.Nil(t, checkSession(r), "%+v", r)
	}
}
