package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
)

// The members of a cluster change, and a client may outlive all that it was
// given. So it asks now and then who they are, and goes by what it hears.

const (
	// learnEvery is how often a client that is in use asks for the members. It
	// asks at once when another server leads: that is when they change.
	learnEvery = 2 * time.Second

	// learnSoon is how often it asks while servers fail it.
	learnSoon = 100 * time.Millisecond

	// learnTimeout is how long it waits for each of them.
	learnTimeout = 250 * time.Millisecond
)

// learn asks for the members, alongside the request that is under way, if the last
// time is that long ago.
func (c *Client) learn(every time.Duration) {
	now, last, leader := time.Now().UnixNano(), c.learned.Load(), c.leader.Load()
	moved := c.asked.Swap(leader) != leader
	if !moved && now-last < int64(every) || !c.learned.CompareAndSwap(last, now) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() == nil {
		c.learning.Go(c.askMembers)
	}
}

// askMembers asks one server after the other until one follows a leader. Anyone who
// follows none may have been removed; those that it knows may yet know more.
func (c *Client) askMembers() {
	c.mu.Lock()
	known := append([]*connection{c.leader.Load(), c.reader.Load()}, c.servers...)
	c.mu.Unlock()
	for i, at := range known {
		if slices.Contains(known[:i], at) {
			continue
		}
		ctx, cancel := context.WithTimeout(c.life, learnTimeout)
		response, err := at.do(ctx, api.Request{Op: api.Members})
		cancel()
		if err != nil {
			continue
		}
		m, err := api.DecodeMembership(response.Data)
		switch {
		case err != nil:
		case m.Leader != 0:
			c.adopt(m)
			return
		default:
			for _, member := range m.Members {
				c.connectionTo(member.Address)
			}
		}
	}
}

// adopt puts the members first in the order in which servers are asked. Those
// that were named to the client stay behind them, as a last resort.
func (c *Client) adopt(m api.Membership) {
	for _, member := range m.Members {
		c.connectionTo(member.Address)
	}
	isMember := func(s *connection) bool {
		return slices.ContainsFunc(m.Members, func(member api.MemberStatus) bool { return member.Address == s.address })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Config < c.config || len(m.Members) == 0 {
		return // it is older than what is known
	}
	c.config = m.Config
	slices.SortStableFunc(c.servers, func(a, b *connection) int {
		switch {
		case isMember(a) == isMember(b):
			return 0
		case isMember(a):
			return -1
		}
		return 1
	})
	if !isMember(c.reader.Load()) {
		c.reader.Store(c.servers[0])
	}
}

// ask carries out a request about the members, or about who leads, at any server
// that answers, or at the leader if it must be that. Such a request is not part
// of a session, so it is not sent again once it may have been done.
func (c *Client) ask(ctx context.Context, r api.Request) (api.Response, error) {
	a := attempt{c: c}
	a.start(c.leader.Load())
	for {
		response, err := a.once(ctx, r)
		var e *api.Error
		if !errors.As(err, &e) {
			c.leader.Store(a.at)
			return response, nil
		}
		again := e.Code == api.NotLeader || e.Code == api.Busy || e.Code == api.Unavailable
		switch {
		case !again || !e.Definite:
			return response, e
		case ctx.Err() != nil:
			return response, a.late(ctx, e)
		}
		a.move(e)
		if err := a.rest(ctx, e); err != nil {
			return api.Response{}, err
		}
	}
}

// once asks one server. It does not wait long for one that does not answer: a
// read can go to another. Anything else, once sent, may have been done, so the
// server must answer a read first.
func (a *attempt) once(ctx context.Context, r api.Request) (api.Response, error) {
	short, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if onlyReads(r.Op) {
		return a.at.do(short, r)
	}
	if response, err := a.at.do(short, api.Request{Op: api.Members}); err != nil {
		return response, err
	}
	return a.at.do(ctx, r)
}

// Members returns what a server knows of the members: the leader if it can be
// reached.
func (c *Client) Members(ctx context.Context) (api.Membership, error) {
	response, err := c.Do(ctx, api.Request{Op: api.Members})
	if err != nil {
		return api.Membership{}, err
	}
	return api.DecodeMembership(response.Data)
}

// Change begins a change of the members: some come, some go, all at once. It
// returns when a majority knows of the change, which then continues by itself;
// Members tells how far it is.
func (c *Client) Change(ctx context.Context, add []api.Member, remove []uint64) error {
	_, err := c.Do(ctx, api.Request{Op: api.Change, Add: add, Remove: remove})
	return err
}

// Transfer moves the leadership to a member, and returns when that leads.
func (c *Client) Transfer(ctx context.Context, to uint64) error {
	_, err := c.Do(ctx, api.Request{Op: api.Transfer, To: to})
	return err
}
