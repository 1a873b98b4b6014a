package client

import (
	"context"
	"fmt"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/wire"
)

// connect returns the connection in use, after it has made a new one if there
// is none or it broke. It is called before a request is sent, never in the
// midst of one.
func (c *Client) connect(ctx context.Context) (*wire.Conn, error) {
	if conn := c.conn.Load(); usable(conn) {
		return conn, nil
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, notSent("its time was over before there was a connection (%v)", ctx.Err())
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

// dial connects to the first endpoint. It ends with the context, and with the
// client.
func (c *Client) dial(ctx context.Context) (*wire.Conn, error) {
	closed := notSent("this client is closed")
	switch {
	case c.life.Err() != nil:
		return nil, closed
	case len(c.endpoints) == 0:
		return nil, &api.Error{Code: api.BadRequest, Message: "no server was named", Definite: true}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	conn, err := wire.Dial(ctx, c.endpoints[0], wire.DefaultLimits())
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
