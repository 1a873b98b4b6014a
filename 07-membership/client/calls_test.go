package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// waits is a route that has each call wait: for others, or for a pause. It ends a
// call that timed out, and says how.
type waits struct{ pause time.Duration }

func (w waits) Begin(call uint64, _ api.Request) []node.Step {
	if w.pause == 0 {
		return nil
	}
	return []node.Step{{Call: call, To: "127.0.0.1:1", After: w.pause}}
}

func (w waits) Answered(uint64, api.Response, *api.Error) []node.Step { panic("nobody was asked") }

func (w waits) GaveUp(call uint64, _ *api.Error, how string) []node.Step {
	return []node.Step{{Call: call, Ended: true, Err: &api.Error{Code: api.Unavailable, Message: how, Definite: true}}}
}

// A call that waits ends with its context, and with the client.
func TestWaitingEndsEarly(t *testing.T) {
	for name, w := range map[string]waits{"for others": {}, "for a pause": {time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				c.route = w
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				requireError(t, c.Put(ctx, "x", "1"), api.Unavailable, "in time")
				require.Equal(t, time.Minute, time.Since(start))

				canceled, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				requireError(t, c.Put(canceled, "x", "1"), api.Unavailable, "before it was given up")

				time.AfterFunc(time.Second, func() { require.NoError(t, c.Close()) })
				requireError(t, c.Put(t.Context(), "x", "1"), api.Unavailable, "before it was given up")
				require.Empty(t, c.calls)
			})
		})
	}
}

// first has one call wait for the end of another.
type first struct{ waits }

func (first) GaveUp(call uint64, e *api.Error, how string) []node.Step {
	steps := waits{}.GaveUp(call, e, how)
	if call == 1 {
		steps = append(steps, node.Step{Call: 2, Ended: true, Response: api.Response{Value: "free"}})
	}
	return steps
}

// The end of one call may be what another has waited for.
func TestACallFreesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		c.route = first{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go c.Put(ctx, "x", "1")
		synctest.Wait()
		response, err := c.Do(t.Context(), api.Request{Op: kv.Get, Key: "x"})
		require.NoError(t, err)
		require.Equal(t, "free", response.Value)
		require.NoError(t, c.Close())
	})
}
