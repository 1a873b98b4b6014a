package client

import (
	"context"
	"fmt"
	"sync/atomic"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/wire"
)

// connection is a connection to one server. It connects at the first request,
// and again after the connection broke.
type connection struct {
	address string

	// how says how to connect.
	how []wire.DialOption

	// conn is the connection in use, which may be broken; nil before the first.
	conn atomic.Pointer[wire.Conn]

	// dialing holds a token while a goroutine connects; the others wait, each
	// no longer than its own context allows. A mutex could not do that.
	dialing chan struct{}

	// life ends when the client is closed.
	life context.Context
}

func newConnection(life context.Context, address string, how []wire.DialOption) *connection {
	return &connection{address: address, how: how, dialing: make(chan struct{}, 1), life: life}
}

// do sends one request and waits for its answer.
func (c *connection) do(ctx context.Context, r api.Request) (api.Response, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return api.Response{}, err
	}
	response, err := conn.Do(ctx, r)
	if err != nil {
		return api.Response{}, explain(r, err)
	}
	return response, nil
}

// close ends the connection, once life has ended.
func (c *connection) close() error {
	c.dialing <- struct{}{} // no other goroutine is connecting now
	defer func() { <-c.dialing }()
	if conn := c.conn.Load(); conn != nil {
		return conn.Close()
	}
	return nil
}

// connect returns the connection in use, after it has made a new one if there
// is none or it broke. It is called only before a request is sent.
func (c *connection) connect(ctx context.Context) (*wire.Conn, error) {
	if conn := c.conn.Load(); usable(conn) {
		return conn, nil
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, notSent("timed out before the connection was established (%v)", ctx.Err())
	}
	// Another goroutine may have connected while this one waited.
	if conn := c.conn.Load(); usable(conn) {
		return conn, nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if old := c.conn.Swap(conn); old != nil {
		_ = old.Close() // it is broken already; this waits for its goroutines
	}
	return conn, nil
}

func usable(conn *wire.Conn) bool { return conn != nil && !conn.Broken() }

// dial connects to the server. It ends with the context, and with the client.
func (c *connection) dial(ctx context.Context) (*wire.Conn, error) {
	closed := notSent("this client is closed")
	if c.life.Err() != nil {
		return nil, closed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	conn, err := wire.Dial(ctx, c.address, wire.DefaultLimits(), c.how...)
	switch {
	case c.life.Err() == nil:
		return conn, err
	case err == nil:
		_ = conn.Close()
	}
	return nil, closed
}

// notSent is the error of a request that never left this program.
func notSent(format string, args ...any) *api.Error {
	return &api.Error{Code: api.Unavailable, Message: "the request was not sent: " + fmt.Sprintf(format, args...), Definite: true}
}
