package client

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// says makes a handler answer requests for the members; it handles other
// requests as before.
func says(handle handler, config uint64, led bool, members ...*fake) handler {
	return func(conn *fakeConn, r api.Request) bool {
		if r.Op != api.Members {
			return handle(conn, r)
		}
		var list []string
		for i, m := range members {
			list = append(list, fmt.Sprintf(`{"id":%d,"address":%q,"voter":true}`, i+1, m.address))
		}
		leader := 0
		if led {
			leader = 1
		}
		return conn.answer(r, api.Response{Data: fmt.Appendf(nil, `{"id":1,"leader":%d,"config":%d,"phase":"stable","members":[%s]}`, leader, config, strings.Join(list, ","))})
	}
}

// A client learns about members that are not among its endpoints, and survives
// the loss of all endpoints. Another leader is the sign that they may have
// changed.
func TestAClientLearnsTheMembers(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var gone atomic.Bool
	late := startFake(t, leads)
	second := startFake(t, func(conn *fakeConn, r api.Request) bool {
		return !gone.Load() && says(leads, 9, true, late)(conn, r)
	})
	first := startFake(t, func(conn *fakeConn, r api.Request) bool {
		return !gone.Load() && names(&second.address)(conn, r)
	})
	c := open(t, first.address)
	require.NoError(t, c.Put(ctx, "x", "1")) // follows the word of the first
	require.NoError(t, c.Put(ctx, "x", "2"))
	require.Eventually(t, func() bool {
		_, err := c.Get(ctx, "x")
		require.NoError(t, err)
		return len(late.requests(kv.Get)) > 0 // reads go to members only
	}, patient, time.Millisecond)
	gone.Store(true)
	require.NoError(t, c.Put(ctx, "x", "3"))
	require.Len(t, late.requests(kv.Put), 1)
}

// A request in progress also learns about members, if necessary from removed
// servers that have no leader.
func TestARequestInProgressLearnsTheMembers(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var begun atomic.Bool
	late := startFake(t, func(conn *fakeConn, r api.Request) bool {
		return begun.Load() && leads(conn, r)
	})
	nobody := ""
	removed := startFake(t, says(names(&nobody), 5, false, late))
	c := open(t, removed.address)
	time.AfterFunc(50*time.Millisecond, func() { begun.Store(true) })
	require.NoError(t, c.Put(ctx, "x", "1"))
	require.Len(t, late.requests(kv.Put), 1)
}

// A change is not repeated if it may have begun.
func TestAChangeIsNotRepeated(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	breaks := startFake(t, says(func(*fakeConn, api.Request) bool { return false }, 5, true))
	other := startFake(t, leads)
	c := open(t, breaks.address, other.address)
	err := c.Change(ctx, []api.Member{{ID: 4, Address: "a:4"}}, nil)
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unknown, e.Code)
	require.Empty(t, other.requests(api.Change))
}

// The client does not wait for a paused server, and the outcome is not unknown,
// because a request for the members changes nothing.
func TestMembersFromAPausedServer(t *testing.T) {
	t.Parallel()
	stands := startFake(t, silent)
	c := open(t, stands.address, startFake(t, says(leads, 5, true)).address)
	m, err := c.Members(testContext(t))
	require.NoError(t, err)
	require.EqualValues(t, 5, m.Config)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = open(t, stands.address).Members(ctx)
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unavailable, e.Code)
	require.True(t, e.Definite)
}

// The client does not send a change to a server that does not answer, because
// the outcome would stay unknown.
func TestAChangePassesOverAPausedServer(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	stands := startFake(t, silent)
	leader := startFake(t, says(leads, 5, true))
	var g errgroup.Group
	for _, send := range []func(c *Client) error{
		func(c *Client) error { return c.Change(ctx, nil, []uint64{1}) },
		func(c *Client) error { return c.Transfer(ctx, 1) },
		func(c *Client) error { _, err := c.Do(ctx, api.Request{Op: api.Cancel}); return err },
	} {
		c := open(t, stands.address, leader.address)
		g.Go(func() error { return send(c) }) // each waits for a second
	}
	require.NoError(t, g.Wait())
	for _, op := range []string{api.Change, api.Transfer, api.Cancel} {
		require.Empty(t, stands.requests(op))
		require.Len(t, leader.requests(op), 1)
	}

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := open(t, stands.address).Change(short, nil, []uint64{1})
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unavailable, e.Code, "it was not sent, so it did not happen")
	require.True(t, e.Definite)
}

// A follower redirects the client to the leader, and the change arrives there
// unmodified.
func TestAChangeGoesToTheLeader(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	leader := startFake(t, says(leads, 5, true))
	follower := startFake(t, says(names(&leader.address), 5, true))
	c := open(t, follower.address)
	require.NoError(t, c.Change(ctx, []api.Member{{ID: 4, Address: "127.0.0.1:7074"}}, []uint64{1}))
	require.NoError(t, c.Transfer(ctx, 4))
	change := leader.requests(api.Change)
	require.Len(t, change, 1)
	require.Equal(t, []api.Member{{ID: 4, Address: "127.0.0.1:7074"}}, change[0].Add)
	require.Equal(t, []uint64{1}, change[0].Remove)
	require.Equal(t, uint64(4), leader.requests(api.Transfer)[0].To)
	require.Empty(t, follower.requests(api.Transfer), "by then it knows the leader")
}
