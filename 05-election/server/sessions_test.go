package server

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/kv"
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
	require.Equal(t, api.Response{Value: "a", HasValue: true, Index: 2}, first)
	require.Equal(t, "ab", l.do(add("b", s, 2, 0)).Value)
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
	require.Equal(t, "aa", l.do(add("a", 0, 0, 0)).Value)
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
	require.Equal(t, "ab", l.do(add("b", first, 2, 0)).Value)
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
