package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// start runs a server; stop ends it and returns what Serve returned.
func start(t *testing.T) (address string, stop func() error) {
	ln, err := wire.Listen("127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return New().Serve(ctx, ln, slog.New(slog.DiscardHandler)) })
	stop = func() error {
		cancel()
		return g.Wait()
	}
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

// What a person sees who talks to it through nc.
func TestConversation(t *testing.T) {
	address, stop := start(t)
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	in := bufio.NewReader(c)
	for _, l := range []struct{ say, hear string }{
		{`{"op":"get","key":"x"}`, `{"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}`},
		{`{"id":1,"op":"put","key":"x","value":"1"}`, `{"id":1,"ok":true}`},
		{`{"id":2,"op":"append","key":"x","value":"2"}`, `{"id":2,"ok":true,"length":2}`},
		{`{"id":3,"op":"cas","key":"x","old":"1","value":"3"}`,
			`{"id":3,"ok":false,"error":{"code":"mismatch","message":"the value is \"12\", not the old one given","definite":true}}`},
		{`{"id":4,"op":"cas","key":"x","old":"12","value":"3"}`, `{"id":4,"ok":true}`},
		{`{"id":5,"op":"get","key":"x"}`, `{"id":5,"ok":true,"value":"3"}`},
		{`{"id":6,"op":"delete","key":"x"}`, `{"id":6,"ok":true}`},
		{`{"id":7,"op":"delete","key":"x"}`, `{"id":7,"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}`},
		{`{"id":9,"op":"create","key":"x","value":"4"}`, `{"id":9,"ok":true}`},
		{`{"id":10,"op":"create","key":"x","value":"5"}`, `{"id":10,"ok":false,"error":{"code":"exists","message":"the key already has a value","definite":true}}`},
		{`{"id":8,"op":"status"}`, `{"id":8,"ok":false,"error":{"code":"bad_request","message":"unknown op \"status\"; this server knows append, cas, create, delete, get, list, put","definite":true}}`},
	} {
		_, err := io.WriteString(c, l.say+"\n")
		require.NoError(t, err)
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, l.hear, strings.TrimSpace(line))
	}
	require.NoError(t, c.Close())
	require.NoError(t, stop())
}

// Many clients at once: no write is lost, and each key's value is a whole one.
func TestManyClients(t *testing.T) {
	const clients, each = 16, 100
	address, stop := start(t)
	var g errgroup.Group
	for n := range clients {
		g.Go(func() error {
			c, err := wire.Dial(t.Context(), address, wire.Limits{})
			if err != nil {
				return err
			}
			defer c.Close()
			for i := range each {
				r := api.Request{Op: kv.Append, Key: "log", Value: fmt.Sprintf("<%d.%d>", n, i)}
				if _, err := c.Do(t.Context(), r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	c, err := wire.Dial(t.Context(), address, wire.Limits{})
	require.NoError(t, err)
	a, err := c.Do(t.Context(), api.Request{Op: kv.Get, Key: "log"})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for n := range clients {
		last := -1
		for i := range each {
			at := strings.Index(a.Value, fmt.Sprintf("<%d.%d>", n, i))
			require.Greater(t, at, last)
			last = at
		}
	}
	require.NoError(t, stop())
}

// What this stage cannot survive: a restart.
func TestRestartLosesEverything(t *testing.T) {
	address, stop := start(t)
	c, err := wire.Dial(t.Context(), address, wire.Limits{})
	require.NoError(t, err)
	_, err = c.Do(t.Context(), api.Request{Op: kv.Put, Key: "x", Value: "1"})
	require.NoError(t, err)
	require.NoError(t, stop())
	require.NoError(t, c.Close())

	address, _ = start(t)
	c, err = wire.Dial(t.Context(), address, wire.Limits{})
	require.NoError(t, err)
	_, err = c.Do(t.Context(), api.Request{Op: kv.Get, Key: "x"})
	require.ErrorContains(t, err, "not_found")
	require.NoError(t, c.Close())
}

// A write for which the store has no room is refused; deletes still work.
func TestAFullStore(t *testing.T) {
	s := New()
	s.quota.Limit = 200
	ask := func(r api.Request) (answer string) {
		s.handle(r, func(a api.Response) { answer = string(a.AppendJSON(nil)) })
		return answer
	}
	long := strings.Repeat("v", 100)
	require.Equal(t, `{"ok":true}`, ask(api.Request{Op: kv.Put, Key: "a", Value: long}))
	require.Equal(t, `{"ok":false,"error":{"code":"full","message":"the store holds 165 bytes and may hold 200; delete something first","definite":true}}`,
		ask(api.Request{Op: kv.Put, Key: "b", Value: long}))
	require.Equal(t, `{"ok":true}`, ask(api.Request{Op: kv.Put, Key: "a", Value: "1"}))
	require.Equal(t, `{"ok":true}`, ask(api.Request{Op: kv.Delete, Key: "a"}))
	require.Equal(t, `{"ok":true}`, ask(api.Request{Op: kv.Put, Key: "b", Value: long}))
}
