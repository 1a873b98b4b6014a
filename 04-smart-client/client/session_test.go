package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

func begin(t *testing.T, s *session) api.Request {
	t.Helper()
	var r api.Request
	require.NoError(t, s.begin(t.Context(), &r))
	return r
}

func TestASessionNumbersItsCommands(t *testing.T) {
	s := newSession(9, 4)
	for seq := range uint64(5) {
		r := begin(t, s)
		require.Equal(t, api.Request{Session: 9, Since: 4, Seq: seq + 1}, r)
	}
}

// Ack names the last command before which all have ended.
func TestAcksAdvance(t *testing.T) {
	s := newSession(9, 4)
	for range 4 {
		begin(t, s)
	}
	for _, step := range []struct{ end, ack uint64 }{{2, 0}, {4, 0}, {1, 2}, {3, 4}} {
		s.end(step.end)
		require.Equal(t, step.ack, begin(t, s).Ack, "after the end of %d", step.end)
	}
	require.Empty(t, s.ended, "nothing is kept of what ended")
}

// The window bounds the commands from the oldest without an answer on, for the
// servers must keep the answers of all of them.
func TestTheWindowBoundsTheCommandsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(9, 4)
		for range window {
			begin(t, s)
		}
		begun := make(chan api.Request, 1)
		go func() { begun <- begin(t, s) }()
		for seq := uint64(2); seq <= window; seq++ {
			s.end(seq)
		}
		synctest.Wait()
		require.Empty(t, begun, "the oldest has no answer yet")
		s.end(1)
		r := <-begun
		require.EqualValues(t, window+1, r.Seq)
		require.EqualValues(t, window, r.Ack)
	})
}

func TestWaitingForTheWindowEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(9, 4)
		for range window {
			begin(t, s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var r api.Request
		requireError(t, s.begin(ctx, &r), api.Unavailable, "512 commands")
		require.Zero(t, r.Seq, "it has no place in the session")
	})
}

// While one goroutine opens the session, another waits no longer than its own
// context allows.
func TestWaitingForASessionEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New([]string{"127.0.0.1:1"})
		c.opening <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "the request was not sent")
		require.NoError(t, c.Close())
	})
}

// The pauses grow, stay apart by chance, and are never long.
func TestPausesBetweenTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New([]string{"a:1", "b:1", "c:1"})
		defer c.Close()
		a := attempt{c: c}
		a.start(c.first())
		for i := range 100 {
			start := time.Now()
			at := a.at
			a.move(&api.Error{Code: api.Unavailable})
			require.Equal(t, c.after(at), a.at, "the next server")
			require.NoError(t, a.rest(t.Context(), nil))
			pause := min(minPause<<min(i, 10), maxPause)
			require.GreaterOrEqual(t, time.Since(start), pause/2)
			require.Less(t, time.Since(start), pause/2+pause)
		}
	})
}

// Only the first redirect is followed without a pause.
func TestOnlyTheFirstRedirectIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New([]string{"a:1", "b:1"})
		defer c.Close()
		a := attempt{c: c}
		a.start(c.first())
		a.move(&api.Error{Code: api.NotLeader, Leader: "z:1"})
		require.Equal(t, "z:1", a.at.address)
		require.Zero(t, a.wait)
		for range 20 {
			a.move(&api.Error{Code: api.NotLeader, Leader: "b:1"})
			require.NotZero(t, a.wait)
			a.move(&api.Error{Code: api.NotLeader, Leader: "z:1"})
			require.NotZero(t, a.wait)
		}
		require.Len(t, c.servers, 3, "a leader that is named again is not another server")
	})
}

// A pause ends with the client, and with the context.
func TestAPauseEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New([]string{"a:1"})
		a := attempt{c: c, wait: time.Hour}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		requireError(t, a.rest(ctx, nil), api.Unavailable)
		require.Equal(t, time.Second, time.Since(start))
		a.sent = true
		require.NoError(t, c.Close())
		requireError(t, a.rest(t.Context(), nil), api.Unknown)
	})
}
