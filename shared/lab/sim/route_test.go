package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
)

// asks is a route that asks one server after the other, and says of itself what it
// was told. It lets only one call ask at a time, and asks for the status once.
type asks struct {
	servers []string
	told    *[]string
	queue   []uint64
	calls   map[uint64]api.Request
	tries   int
}

func (a *asks) Begin(call uint64, q api.Request) (steps []node.Step) {
	a.calls[call] = q
	if call == 1 {
		steps = append(steps, node.Step{Call: node.Own, To: a.servers[0], Timeout: time.Second, Request: api.Request{Op: api.Status}})
	}
	if a.queue = append(a.queue, call); len(a.queue) == 1 {
		steps = append(steps, a.ask(0))
	}
	return steps
}

func (a *asks) ask(after time.Duration) node.Step {
	a.tries++
	call := a.queue[0]
	return node.Step{Call: call, To: a.servers[(a.tries-1)%len(a.servers)], After: after, Timeout: 100 * time.Millisecond, Request: a.calls[call]}
}

func (a *asks) Answered(call uint64, r api.Response, e *api.Error) []node.Step {
	switch {
	case call >= node.Own:
		*a.told = append(*a.told, fmt.Sprintf("status: %v", len(r.Data) > 0))
		return nil
	case e != nil:
		*a.told = append(*a.told, fmt.Sprintf("%d: %s", call, e.Code))
		return []node.Step{a.ask(50 * time.Millisecond)}
	}
	*a.told = append(*a.told, fmt.Sprintf("%d: done", call))
	return a.end(call, r, nil)
}

func (a *asks) GaveUp(call uint64, e *api.Error, how string) []node.Step {
	*a.told = append(*a.told, fmt.Sprintf("%d: gives up %v, asking %v", call, how, e != nil))
	return a.end(call, api.Response{}, &api.Error{Code: api.Unavailable, Message: how, Definite: true})
}

func (a *asks) end(call uint64, r api.Response, e *api.Error) []node.Step {
	steps := []node.Step{{Call: call, Ended: true, Response: r, Err: e}}
	for i, waiting := range a.queue {
		if waiting == call {
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			if i == 0 && len(a.queue) > 0 {
				steps = append(steps, a.ask(0))
			}
			break
		}
	}
	return steps
}

// The client of a stage is asked what to do, and told what came of it.
func TestARoutedClient(t *testing.T) {
	var told []string
	var named []string
	w, err := New(Options{Seed: 1, Servers: 3, New: toy.New(toy.Flaws{}), Ops: toy.Ops, Config: node.Config{Leader: 1},
		Route: func(endpoints []string, draw func(uint64) uint64) node.Route {
			named = endpoints
			return &asks{servers: endpoints, told: &told, calls: make(map[uint64]api.Request)}
		}})
	require.NoError(t, err)
	c := w.Client(1)
	c.Routed, c.Patience = true, time.Second
	c.Knows = func() []uint64 { return []uint64{3, 1} }
	put := api.Request{Op: kv.Put, Key: "x", Value: "1"}
	first, second := c.Begin(0, put), c.Begin(0, put)
	require.True(t, w.RunUntil(func() bool { return second.Done }, time.Second))
	require.True(t, first.Done)
	require.Equal(t, []string{Address(3), Address(1)}, named)
	require.ElementsMatch(t, []string{"status: true", "1: not_leader", "1: done", "2: not_leader", "2: done"}, told)
	require.Equal(t, []int{2, 2}, []int{w.History()[0].Attempts, w.History()[1].Attempts})
	require.Len(t, w.History(), 2, "what a route asks by itself is no operation of the client")

	// A call that waits for others, or for a pause, times out too.
	w.Crash(1)
	w.Crash(3)
	told = nil
	before := w.Now()
	second = c.Begin(0, put)
	c.Patience = time.Second / 2
	third := c.Begin(0, put)
	require.True(t, w.RunUntil(func() bool { return third.Done }, time.Second))
	require.InDelta(t, time.Second/2, w.Now()-before, float64(time.Millisecond))
	require.Equal(t, "in time", third.Response.Error.Message)
	require.Equal(t, "4: gives up in time, asking false", told[len(told)-1])
	require.True(t, w.RunUntil(func() bool { return second.Done }, time.Second))
	require.InDelta(t, time.Second, w.Now()-before, float64(200*time.Millisecond))
	require.NoError(t, w.Err())
}
