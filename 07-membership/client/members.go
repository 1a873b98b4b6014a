package client

import (
	"context"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// askAlongside carries out a step of one of the route's own calls, unless the client
// is closed. The caller holds the lock.
func (c *Client) askAlongside(s node.Step) {
	if c.life.Err() != nil {
		return
	}
	c.own.Go(func() {
		if c.rest(c.life, s.After) {
			c.ask(c.life, s)
		}
	})
}

// Members returns the members as one server knows them: the leader, if it can
// be reached.
func (c *Client) Members(ctx context.Context) (api.Membership, error) {
	response, err := c.Do(ctx, api.Request{Op: api.Members})
	if err != nil {
		return api.Membership{}, err
	}
	return api.DecodeMembership(response.Data)
}

// Change begins a membership change, which adds and removes servers at once. It
// returns when a majority has the change, which then continues by itself;
// Members shows its progress.
func (c *Client) Change(ctx context.Context, add []api.Member, remove []uint64) error {
	_, err := c.Do(ctx, api.Request{Op: api.Change, Add: add, Remove: remove})
	return err
}

// Transfer transfers leadership to a member and returns when that member leads.
func (c *Client) Transfer(ctx context.Context, to uint64) error {
	_, err := c.Do(ctx, api.Request{Op: api.Transfer, To: to})
	return err
}
