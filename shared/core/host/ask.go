package host

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"example.com/raftsteps/shared/core/api"
)

// Do sends a request to the server from within its process, and waits for the
// answer until ctx is done. The request waits in the same inbox as those of
// clients, and uses no socket. The error is always an *api.Error: the server's
// own error; BadRequest for a request that would also be refused from a client;
// Unavailable and definite if the request was not begun; Unknown if the answer is
// late, or the server ended first. A request that comes before Run waits for it.
// Do is safe for concurrent use.
func (h *Host) Do(ctx context.Context, r api.Request) (api.Response, error) {
	return h.DoThen(ctx, r, nil)
}

// DoThen is like Do, and calls then with the answer, if it comes and is not an
// error. It calls then on the goroutine that owns the server, between two of its
// inputs: then may read the server's state, and must not wait. After DoThen has
// returned, then is not called.
func (h *Host) DoThen(ctx context.Context, r api.Request, then func(api.Response)) (api.Response, error) {
	if err := h.o.Ops.Check(r); err != nil {
		return api.Response{}, err
	}
	if err := ctx.Err(); err != nil {
		return api.Response{}, &api.Error{Code: api.Unavailable, Definite: true, Message: fmt.Sprintf("the request was not begun: %v", err)}
	}
	if !h.asked.begin() {
		return api.Response{}, stopping()
	}
	defer h.asked.end()
	call := call{then: then, answer: make(chan api.Response, 1)}
	h.loop.request(r, call.reply)
	a, ok := call.wait(ctx.Done(), h.loop.ended)
	switch {
	case !ok && ctx.Err() != nil:
		return api.Response{}, api.Lost(fmt.Sprintf("no answer in time (%v)", ctx.Err()))
	case !ok:
		return api.Response{}, api.Lost("the server stopped before the outcome was known")
	case a.Error != nil:
		return a, a.Error
	}
	return a.WithData(), nil
}

// call is a request that waits for its answer.
type call struct {
	then   func(api.Response)
	answer chan api.Response

	// over is true once the answer has arrived, or the caller waits no longer.
	over atomic.Bool
}

// reply is called once, by the server.
func (c *call) reply(a api.Response) {
	if !c.over.CompareAndSwap(false, true) {
		return
	}
	if c.then != nil && a.Error == nil {
		c.then(a)
	}
	c.answer <- a
}

// wait returns the answer, or false if ctx or the server ended before it came.
func (c *call) wait(ctx, server <-chan struct{}) (api.Response, bool) {
	select {
	case a := <-c.answer:
		return a, true
	case <-ctx:
	case <-server:
	}
	if c.over.CompareAndSwap(false, true) {
		return api.Response{}, false
	}
	return <-c.answer, true // the answer has arrived at the same moment, or is about to
}

func stopping() *api.Error {
	return &api.Error{Code: api.Unavailable, Definite: true, Message: "the server is stopping; the request was not begun"}
}

// asked counts the calls of Do, so that a stopping server can answer them before
// it ends. Its zero value is ready for use.
type asked struct {
	mu      sync.Mutex
	n       int
	stopped bool
	idle    chan struct{}
}

// begin counts a call, or returns false if no more calls may begin.
func (a *asked) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false
	}
	a.n++
	return true
}

func (a *asked) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n--; a.n == 0 && a.stopped {
		close(a.idle)
	}
}

// stop refuses further calls, and returns a channel that is closed when none is
// left. It is called once.
func (a *asked) stop() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped, a.idle = true, make(chan struct{})
	if a.n == 0 {
		close(a.idle)
	}
	return a.idle
}
