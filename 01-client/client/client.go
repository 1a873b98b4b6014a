// Package client asks a key-value server over TCP.
//
//	c := client.New([]string{"127.0.0.1:7000"})
//	defer c.Close()
//	err := c.Put(ctx, "x", "1")
//
// # One connection, many requests
//
// A Client keeps one connection. It connects at the first request, and any
// number of goroutines may ask over it at once: each request carries an id, the
// answers come in any order, and the id says whose an answer is. A connection
// that broke is replaced when the next request comes.
//
// # What an error says
//
// Between a client and a server lies a network, so there are three ends to a
// request, not two: it was done, it was not done, and nobody on this side can
// know. Every error of this package is an *api.Error (errors.As finds it) and
// Definite tells the last two apart:
//
//	the server refused it           its own code    Definite
//	it was never sent               unavailable     Definite
//	sent, and no answer came        unknown         not Definite
//	the same, but a read            unavailable     Definite: a read changes nothing
//
// The third line is the hard one. The request may have died on its way to the
// server, or the answer on its way back, and both look the same from here. The
// write may even happen later, when a server that stood still goes on. Anyone who
// then asks again may do it twice. So this package never does: a request is
// sent once or not at all, and what to do about an unknown end is for the
// caller, who knows what the write means.
//
// # Time
//
// The context comes first and ends every wait. Without a deadline in it, a
// request waits as long as its connection lives, which can be forever.
package client

import (
	"context"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// Client asks a server. It is safe for use by many goroutines.
type Client struct {
	// server is the first of the endpoints; nil if there is none.
	server *connection

	// end ends the life of the connection.
	end context.CancelFunc
}

// New returns a client of the server at the first of the endpoints (host:port).
// how says how to connect to it. New does not connect yet, so it cannot fail.
func New(endpoints []string, how ...wire.DialOption) *Client {
	c := &Client{}
	life, end := context.WithCancel(context.Background())
	c.end = end
	if len(endpoints) > 0 {
		c.server = newConnection(life, endpoints[0], how)
	}
	return c
}

// Close ends the client. Requests in progress end with an error, later ones are
// refused. All goroutines of the client have ended when it returns.
func (c *Client) Close() error {
	c.end()
	if c.server == nil {
		return nil
	}
	return c.server.close()
}

// Do sends one request and waits for its answer. It sets r.ID itself. The error
// is an *api.Error; it is nil only if the operation was done.
func (c *Client) Do(ctx context.Context, r api.Request) (api.Response, error) {
	if err := check(r); err != nil {
		return api.Response{}, err
	}
	if c.server == nil {
		return api.Response{}, &api.Error{Code: api.BadRequest, Message: "no server was named", Definite: true}
	}
	return c.server.do(ctx, r)
}

// Get returns the value of key. A key without a value is the error not_found.
func (c *Client) Get(ctx context.Context, key string) (string, error) {
	response, err := c.Do(ctx, api.Request{Op: kv.Get, Key: key})
	return response.Value, err
}

// List returns keys in the order of their bytes, with their values: those that begin
// with prefix and come after the key after, as many as fit into one answer. If there
// are more, they follow after the last key.
func (c *Client) List(ctx context.Context, prefix, after string) (api.Listing, error) {
	response, err := c.Do(ctx, api.Request{Op: api.List, Prefix: prefix, After: after})
	if err != nil {
		return api.Listing{}, err
	}
	return api.DecodeListing(response.Data)
}

// Put sets the value of key.
func (c *Client) Put(ctx context.Context, key, value string) error {
	_, err := c.Do(ctx, api.Request{Op: kv.Put, Key: key, Value: value})
	return err
}

// Create sets the value of key if it has none. If it has one, the error is
// exists.
func (c *Client) Create(ctx context.Context, key, value string) error {
	_, err := c.Do(ctx, api.Request{Op: kv.Create, Key: key, Value: value})
	return err
}

// Append adds value to the end of key's value and returns how many bytes it has
// then. A key without a value counts as empty.
func (c *Client) Append(ctx context.Context, key, value string) (int, error) {
	response, err := c.Do(ctx, api.Request{Op: kv.Append, Key: key, Value: value})
	return int(response.Length), err
}

// Cas sets the value of key if it is old. If the key has another value, the
// error is mismatch; if it has none, not_found.
func (c *Client) Cas(ctx context.Context, key, old, value string) error {
	_, err := c.Do(ctx, api.Request{Op: kv.Cas, Key: key, Old: old, Value: value})
	return err
}

// Delete removes key. A key without a value is the error not_found.
func (c *Client) Delete(ctx context.Context, key string) error {
	_, err := c.Do(ctx, api.Request{Op: kv.Delete, Key: key})
	return err
}
