package host

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// slow answers nothing in its first minute.
type slow struct {
	recorder
	ticks int
}

func (s *slow) Tick() { s.ticks++ }

func (s *slow) Flush() error {
	if s.ticks < int(time.Minute/node.TickInterval) && s.flush == nil {
		return nil
	}
	return s.recorder.Flush()
}

// alone is a host of one server without sockets.
func alone(t *testing.T, s node.Server) *Host {
	var net memory
	h, err := New(Options{ID: 1, Config: node.Config{Members: []node.Member{{ID: 1, Address: "n1"}}}, NoClients: true, Transport: net.of(1),
		Ops: api.Commands(), New: func(node.World) (node.Server, error) { return s, nil }})
	require.NoError(t, err)
	return h
}

var getX = api.Request{Op: kv.Get, Key: "x"}

func requireError(t *testing.T, err error, code api.Code, definite bool, text string) {
	t.Helper()
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code)
	require.Equal(t, definite, e.Definite)
	require.Contains(t, e.Message, text)
}

// Do refuses the same requests that a client would be refused.
func TestDoRefuses(t *testing.T) {
	h := alone(t, &recorder{})
	_, err := h.Do(t.Context(), api.Request{Op: "inc"})
	requireError(t, err, api.BadRequest, true, `unknown op "inc"`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Do(ctx, getX)
	requireError(t, err, api.Unavailable, true, "the request was not begun: context canceled")
}

// A request may come before Run, and waits.
func TestDoBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := alone(t, &recorder{})
		done := make(chan error, 1)
		go func() {
			_, err := h.Do(t.Context(), getX)
			done <- err
		}()
		time.Sleep(time.Hour)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		require.NoError(t, <-done)
		stop()
		require.NoError(t, <-ended)
		_, err := h.Do(t.Context(), getX)
		requireError(t, err, api.Unavailable, true, "the server is stopping; the request was not begun")
	})
}

// DoThen calls then on the goroutine of the server, before DoThen returns.
func TestDoThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &recorder{}
		h := alone(t, server)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		for i := range 100 {
			seen := 0 // two goroutines use this without a lock, so the race detector checks their order
			a, err := h.DoThen(t.Context(), getX, func(a api.Response) {
				require.Equal(t, "x", a.Value)
				require.Nil(t, server.waiting)
				seen = i + 1
			})
			require.NoError(t, err)
			require.Equal(t, "x", a.Value)
			require.Equal(t, i+1, seen)
		}
		stop()
		require.NoError(t, <-ended)
		_, err := h.DoThen(t.Context(), getX, func(api.Response) { t.Error("there is no answer") })
		requireError(t, err, api.Unavailable, true, "the server is stopping")
	})
}

// refusing is a server that refuses everything.
type refusing struct{ silent }

func (refusing) Request(_ api.Request, reply func(api.Response)) {
	reply(api.Failed(0, &api.Error{Code: api.Refused, Definite: true, Message: "not now"}))
}

// DoThen does not call then if the request is refused.
func TestDoThenIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := alone(t, refusing{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		_, err := h.DoThen(t.Context(), getX, func(api.Response) { t.Error("it was refused") })
		requireError(t, err, api.Refused, true, "not now")
		stop()
		require.NoError(t, <-ended)
	})
}

// After DoThen has timed out, then is not called. If then is running when the
// time is up, DoThen waits for it.
func TestDoThenAndAnEndOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := alone(t, &slow{})
		run, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(run) }()
		late, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		_, err := h.DoThen(late, getX, func(api.Response) { t.Error("called although DoThen has returned") })
		requireError(t, err, api.Unknown, false, "no answer in time")

		ctx, cancel := context.WithCancel(t.Context())
		done := false
		_, err = h.DoThen(ctx, getX, func(api.Response) {
			cancel()
			time.Sleep(time.Second)
			done = true
		})
		require.NoError(t, err)
		require.True(t, done)
		stop()
		require.NoError(t, <-ended)
	})
}

// A stopping server first answers the calls of Do that it has begun, for a
// bounded time.
func TestStopWaitsForDo(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration
		fine  bool
	}{
		{"in time", 58 * time.Second, true},
		{"too late", 50 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := alone(t, &slow{})
				ctx, stop := context.WithCancel(t.Context())
				ended, done := make(chan error, 1), make(chan error, 1)
				go func() { ended <- h.Run(ctx) }()
				go func() {
					_, err := h.Do(t.Context(), getX)
					done <- err
				}()
				time.Sleep(c.after)
				stop()
				synctest.Wait()
				_, err := h.Do(t.Context(), getX)
				requireError(t, err, api.Unavailable, true, "the server is stopping")
				if err := <-done; c.fine {
					require.NoError(t, err)
				} else {
					requireError(t, err, api.Unknown, false, "the server stopped before the outcome was known")
				}
				require.NoError(t, <-ended)
			})
		})
	}
}

// If the disk fails, the outcome of a call of Do is unknown.
func TestDoAndADiskThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := alone(t, &slow{recorder: recorder{flush: func() error { return errors.New("input/output error") }}})
		ended := make(chan error, 1)
		done := make(chan error, 1)
		go func() {
			_, err := h.Do(t.Context(), getX)
			done <- err
		}()
		synctest.Wait()
		go func() { ended <- h.Run(t.Context()) }()
		requireError(t, <-done, api.Unknown, false, "the server stopped before the outcome was known")
		require.ErrorContains(t, <-ended, "input/output error")
	})
}
