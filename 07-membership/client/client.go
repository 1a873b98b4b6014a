// Package client asks a cluster of key-value servers over TCP.
//
//	c := client.New([]string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"})
//	defer c.Close()
//	err := c.Put(ctx, "x", "1")
//
// # Where a request goes
//
// A write goes to the leader. The client finds it: a follower names the leader, a
// server that is dead is skipped, and the server that took the last write is asked
// first for the next. A read goes to any server, and the client stays with that
// server as long as it answers. The servers tell the client which members have
// joined.
//
// A server that cannot help is not the end of a request. The client goes to the
// next one, waits a little longer each time, and gives up when the context does.
// Package route makes these decisions; this package has the connections.
//
// # Why asking twice is safe
//
// A write whose answer was lost may have been done or not. The client sends it
// again, and the servers see to it that it is done once: each write has a place
// in a session (§8), by which they know it again and answer it with what it
// gave the first time. The session begins with the first write.
//
// # One connection per server, many requests
//
// Any number of goroutines may ask at once: each request carries an id, the
// answers come in any order, and the id says whose an answer is. A connection
// that broke is replaced when the next request comes.
//
// # What an error says
//
// Every error of this package is an *api.Error (errors.As finds it):
//
//	a server refused it for good        its own code    Definite
//	no server could be asked            unavailable     Definite
//	sent, and no answer in time         unknown         not Definite
//	the same, but a read                unavailable     Definite: a read changes nothing
//
// # Time
//
// The context comes first and ends every wait. Without a deadline in it, a
// request goes on until a server has carried it out.
package client

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"example.com/raftsteps/07-membership/client/route"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// Client asks a cluster. It is safe for use by many goroutines.
type Client struct {
	// how says how to connect.
	how []wire.DialOption

	mu sync.Mutex

	// servers are the connections, by address.
	servers map[string]*connection

	// route decides what to do next; nil if no server was named.
	route node.Route

	// calls are those under way, each with the channel for its steps. begun is the
	// number of the last.
	calls map[uint64]chan node.Step
	begun uint64

	// own are the goroutines that carry out the route's own calls.
	own sync.WaitGroup

	// life ends when the client is closed.
	life context.Context
	end  context.CancelFunc
}

// New returns a client for the servers at the endpoints (host:port).
// how says how to connect to them. New does not connect yet, so it cannot fail.
func New(endpoints []string, how ...wire.DialOption) *Client {
	c := &Client{how: how, servers: make(map[string]*connection), calls: make(map[uint64]chan node.Step)}
	c.life, c.end = context.WithCancel(context.Background())
	if len(endpoints) > 0 {
		c.route = route.New(endpoints, rand.Uint64N)
	}
	return c
}

// Close ends the client. Requests in progress end with an error, later ones are
// refused. All goroutines of the client have ended when it returns.
func (c *Client) Close() error {
	c.mu.Lock()
	c.end() // from now on no call begins by itself
	c.mu.Unlock()
	c.own.Wait()
	c.mu.Lock()
	servers := slices.Collect(maps.Values(c.servers))
	c.mu.Unlock()
	var err error
	for _, s := range servers {
		err = errors.Join(err, s.close())
	}
	return err
}

// Do carries out one request: a read at any server, a command at the leader.
// Requests about the members go to the leader, too.
// Anything else goes to the first of the endpoints, once. It sets the ID and
// the session itself. The error is an *api.Error; it is nil only if the
// operation was done.
func (c *Client) Do(ctx context.Context, r api.Request) (api.Response, error) {
	if err := check(r); err != nil {
		return api.Response{}, err
	}
	if c.route == nil {
		return api.Response{}, &api.Error{Code: api.BadRequest, Message: "no server was named", Definite: true}
	}
	return c.carry(ctx, r)
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
