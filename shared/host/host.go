// Package host is the real world of a server: sockets, goroutines and a clock.
//
// A node.Server is single-threaded. Host gives it one goroutine, with one
// select, that owns it: a tick, or something in the inbox. Whatever waits is
// stepped, then comes one Flush, then the answers leave. However many clients
// write at once, they share one Flush and so one fsync: the slower the disk,
// the larger the batches.
//
// Around that goroutine there are those of package wire: one for each
// connection, which reads, decodes and puts what it got into the inbox; and
// the links to the peers.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/disk"
	"example.com/raftsteps/shared/httpapi"
	"example.com/raftsteps/shared/node"
	"example.com/raftsteps/shared/trace"
	"example.com/raftsteps/shared/wire"
)

// Options are what a Host needs to know.
type Options struct {
	// ID is the server's own; Config has its address, its peers and the secret.
	ID     uint64
	Config node.Config

	// New makes the server.
	New node.Factory

	// Ops are the operations that clients may ask for.
	Ops api.Ops

	// HTTP is true if the server speaks HTTP too, on the same address.
	HTTP bool

	// Listener takes connections; nil means to listen on the server's own
	// address.
	Listener net.Listener

	// Disk is what the server keeps; nil in stages that keep nothing.
	Disk disk.Disk

	// Log takes what an operator should know; nil means nobody reads it.
	Log *slog.Logger

	// Limits bound connections; zero fields have their defaults.
	Limits wire.Limits

	// Trace takes events; nil means that nobody listens.
	Trace trace.Sink

	// Seed makes the server's randomness repeatable; 0 means that it is not.
	Seed uint64
}

// Host runs one server of a cluster.
type Host struct {
	o      Options
	log    *slog.Logger
	listen net.Listener
	server wire.Server
	links  map[uint64]*wire.Link
	loop   *loop
}

// New opens the address and makes the server, which recovers what its disk
// holds. The address comes first: if it is in use, this server may already be
// running, and nobody else should touch its disk.
func New(o Options) (*Host, error) {
	h := &Host{o: o, log: o.Log, listen: o.Listener, links: make(map[uint64]*wire.Link)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	address := o.Config.Address(o.ID)
	switch {
	case address == "":
		return nil, fmt.Errorf("%s is not a member of cluster %q; its members are %s", node.Name(o.ID), o.Config.Cluster, names(o.Config.Members))
	case len(o.Config.Members) > 1 && o.Config.Secret == "":
		return nil, fmt.Errorf("cluster %q has no secret, so its servers cannot trust each other; set one in the configuration", o.Config.Cluster)
	}
	if h.listen == nil {
		ln, err := wire.Listen(address)
		if err != nil {
			return nil, err
		}
		h.listen = ln
	}
	if err := h.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s cannot start: %w", node.Name(o.ID), err), h.listen.Close())
	}
	return h, nil
}

func names(members []node.Member) string {
	s := ""
	for _, m := range members {
		if s != "" {
			s += ", "
		}
		s += node.Name(m.ID)
	}
	return s
}

func (h *Host) build() error {
	o := h.o
	self := wire.Identity{Cluster: o.Config.Cluster, Secret: o.Config.Secret, ID: o.ID}
	for _, m := range o.Config.Members {
		if m.ID != o.ID {
			h.links[m.ID] = wire.NewLink(wire.LinkOptions{Self: self, To: m.ID, Address: m.Address, Limits: o.Limits, Log: h.log})
		}
	}
	h.loop = newLoop(o.ID, h.log, o.Trace)
	h.loop.push = h.server.Batch
	h.loop.link = func(to uint64, line []byte) bool {
		l := h.links[to]
		return l != nil && l.Send(line)
	}
	h.server = wire.Server{
		Ops: o.Ops, Handler: h.loop.request, Limits: o.Limits, Log: h.log,
		Peers: &wire.Peers{Self: self, Member: h.member, Receive: h.loop.receive},
	}
	if o.HTTP {
		h.server.HTTP = httpapi.New(httpapi.Options{Ops: o.Ops, Ask: h.loop.request, Metrics: h.loop.metrics.all()})
	}
	seed := cmp.Or(o.Seed, rand.Uint64())
	s, err := o.New(node.World{
		ID: o.ID, Config: o.Config, Disk: o.Disk, Send: h.loop.send, Work: h.loop.work, Log: h.note, Trace: h.loop.sink(),
		Rand: rand.New(rand.NewPCG(seed, o.ID)),
	})
	h.loop.node = s
	return err
}

// note is node.World.Log.
func (h *Host) note(e trace.Event) {
	text := e.Text
	if e.Kind == trace.Start {
		text = "starts " + text
	}
	h.log.Info(text, "role", e.Role, "term", e.Term)
}

func (h *Host) member(id uint64) bool {
	_, found := h.links[id]
	return found
}

// Addr returns the address on which the server listens.
func (h *Host) Addr() net.Addr { return h.listen.Addr() }

// Run runs the server until ctx is done; then it takes no more requests, lets
// those in flight be answered for a bounded time, and returns nil. An error
// means that the server had to stop: its disk failed, or its listener did.
// Run can be called once.
func (h *Host) Run(ctx context.Context) error {
	// What clients wait for needs the loop and the peers, so these outlive ctx
	// until the last client is answered.
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	g.Go(func() error {
		defer end()
		if err := h.server.Serve(ctx, h.listen); inner.Err() == nil {
			return err
		}
		return nil // the loop ended first, and its error is the one that counts
	})
	g.Go(func() error {
		err := h.loop.run(inner)
		if err != nil {
			h.log.Error("the server stops at once", "error", err)
			end()
			h.server.Close()
		}
		return err
	})
	for _, l := range h.links {
		g.Go(func() error { return l.Run(inner) })
	}
	err := g.Wait()
	_ = h.loop.workers.Wait() // they return nil, and may use what is closed now
	if c, ok := h.loop.node.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Cut drops all messages to and from a peer, as a broken cable would, until
// Heal. Clients are not affected. It is safe for concurrent use.
func (h *Host) Cut(peer uint64) { h.loop.cut(peer, true) }

// Heal ends what Cut began.
func (h *Host) Heal(peer uint64) { h.loop.cut(peer, false) }

// clock is how far ticks have come.
type clock struct{ last time.Time }

// most is how many ticks are made up for after the loop was held up. A server
// that was stopped (by a debugger, a signal, a host that moves it) must not
// live through the lost time at once: its election timeout would run out
// before it had read the heartbeats that wait in its sockets. To a server that
// stood still, little time has passed.
const most = 3

// due returns how many ticks to give now.
func (c *clock) due(now time.Time) int {
	n := int(now.Sub(c.last) / node.TickInterval)
	if n > most {
		c.last = now
		return most
	}
	c.last = c.last.Add(time.Duration(n) * node.TickInterval)
	return n
}
