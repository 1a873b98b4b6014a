package client

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/04-smart-client/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// cable is a proxy between a server and its clients and peers. When it is cut,
// all connections break.
type cable struct {
	ln net.Listener
	to string
	g  errgroup.Group

	mu    sync.Mutex
	conns map[net.Conn]bool
	over  bool
}

func newCable(t *testing.T, to string) *cable {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cable{ln: ln, to: to, conns: make(map[net.Conn]bool)}
	c.g.Go(func() error {
		for {
			near, err := ln.Accept()
			if err != nil {
				return nil
			}
			c.g.Go(func() error { return c.join(near) })
		}
	})
	return c
}

// join carries bytes in both directions until one side ends.
func (c *cable) join(near net.Conn) error {
	far, err := net.Dial("tcp", c.to)
	if err != nil {
		return near.Close()
	}
	c.mu.Lock()
	c.conns[near], c.conns[far] = true, true
	if c.over {
		near.Close()
	}
	c.mu.Unlock()
	var g errgroup.Group
	for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
		g.Go(func() error {
			_, _ = io.Copy(pair[0], pair[1]) // it ends with the connection
			near.Close()
			far.Close()
			return nil
		})
	}
	_ = g.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, near)
	delete(c.conns, far)
	return nil
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
}

func (c *cable) end() error {
	err := c.ln.Close()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.cut()
	_ = c.g.Wait()
	return err
}

// cluster is n real servers in this process, each with a cable in front of it.
type cluster struct {
	cables    []*cable
	endpoints []string
}

func startCluster(t *testing.T, n int) *cluster {
	c := &cluster{}
	config := node.Config{
		Cluster: "north", Secret: "s", Leader: 1, Fsync: false,
		Heartbeat: 50 * time.Millisecond, ElectionTimeout: [2]time.Duration{300 * time.Millisecond, 600 * time.Millisecond},
	}
	var listeners []net.Listener
	for id := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, ln)
		c.cables = append(c.cables, newCable(t, ln.Addr().String()))
		c.endpoints = append(c.endpoints, c.cables[id].ln.Addr().String())
		config.Members = append(config.Members, node.Member{ID: uint64(id + 1), Address: c.endpoints[id]})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for id, ln := range listeners {
		folder, err := disk.OpenFolder(t.TempDir(), disk.Options{NoSync: true})
		require.NoError(t, err)
		h, err := host.New(host.Options{ID: uint64(id + 1), Config: config, New: server.New, Ops: server.Ops, Listener: ln, Disk: folder})
		require.NoError(t, err)
		g.Go(func() error { return h.Run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		for _, cable := range c.cables {
			require.NoError(t, cable.end())
		}
		require.NoError(t, g.Wait())
	})
	return c
}

// A program that writes once costs the cluster one entry: its session needs none.
func TestTheFirstWriteOfAClientIsOneEntry(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	address := startServer(t)
	require.NoError(t, open(t, address).Put(ctx, "x", "1"))
	for range 3 {
		c := open(t, address)
		before, err := c.Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "2"})
		require.NoError(t, err)
		after, err := c.Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "3"})
		require.NoError(t, err)
		require.Equal(t, before.Index+1, after.Index)
		next, err := open(t, address).Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "4"})
		require.NoError(t, err)
		require.Equal(t, after.Index+1, next.Index)
	}
}

// All connections of the cluster are cut repeatedly while many goroutines
// append unique texts. Every append succeeds, and each text is there once.
func TestEveryAppendHappensOnceWhileConnectionsAreCut(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 16, 25
	ctx := testContext(t)
	cl := startCluster(t, 3)
	c := open(t, cl.endpoints...)
	var g errgroup.Group
	for i := range goroutines {
		g.Go(func() error {
			for n := range rounds {
				text := fmt.Sprintf("<%d.%d>", i, n)
				if length, err := c.Append(ctx, "all", text); err != nil || length < len(text) {
					return fmt.Errorf("append of %s gave %d bytes: %w", text, length, err)
				}
				if n%8 == 0 {
					cl.cables[(i+n)%len(cl.cables)].cut()
				}
				if _, err := c.Get(ctx, "all"); err != nil && !strings.Contains(err.Error(), "not_found") {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	length, err := c.Append(ctx, "all", "")
	require.NoError(t, err)
	var all string
	for len(all) < length { // the server that is asked may be behind
		all, err = c.Get(ctx, "all")
		require.NoError(t, err)
	}
	size := 0
	for i := range goroutines {
		for n := range rounds {
			text := fmt.Sprintf("<%d.%d>", i, n)
			require.Equal(t, 1, strings.Count(all, text), text)
			size += len(text)
		}
	}
	require.Len(t, all, size, "and nothing else is there")
}
