// Package host is the real world of a server: sockets, goroutines and a clock.
//
// A node.Server is single-threaded. Host runs one goroutine, with one select,
// that owns it and wakes up for a tick, or for inputs that wait. It steps the
// waiting inputs, then calls Flush once, then sends the answers. However many
// clients write at once, they share one Flush and so one fsync: the slower the
// disk, the larger the batches, up to a limit in bytes, so that heartbeats are
// sent between them. Messages of peers wait in their own queue, before the
// clients' requests.
//
// The other goroutines are those of package wire: one for each connection, which
// reads, decodes and puts its inputs into the inbox; and the links to the peers,
// which another Transport may replace. A program with a server in its own process
// sends requests with Do.
package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/loglimit"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
)

// Options are the options of a Host.
type Options struct {
	// ID is the server's ID; Config has its address, its peers and the secret.
	ID     uint64
	Config node.Config

	// New creates the server.
	New node.Factory

	// Ops are the operations that clients and Do may request.
	Ops api.Ops

	// NoClients is true if only Do may send requests: clients that connect are
	// refused. With a Transport the server then opens no address at all.
	NoClients bool

	// Transport carries messages to and from the peers; nil means the one that
	// Config names, on the addresses that clients use, too.
	Transport Transport

	// TLS are the keys of a server that speaks TLS, to its clients and to its peers;
	// nil for one that does not.
	TLS *trust.Keys

	// HTTP returns what answers HTTP requests, on the same address; nil if the
	// server does not speak HTTP. See package httpapi.
	HTTP func(HTTP) http.Handler

	// Meter receives what the server does, as numbers; nil means that nothing is
	// measured. See package metrics.
	Meter Meter

	// Listener accepts connections; nil means to listen on the server's own
	// address.
	Listener net.Listener

	// Disk is where the server stores its data; nil in stages that store nothing.
	Disk disk.Disk

	// Log receives what an operator should know; nil means that nothing is
	// logged.
	Log *slog.Logger

	// Limits bound connections; zero fields have their defaults.
	Limits wire.Limits

	// Trace receives events; nil means that nothing is traced.
	Trace trace.Sink

	// Seed makes the server's randomness repeatable; with 0 it is not repeatable.
	Seed uint64
}

// HTTP is what a host gives to those who answer HTTP requests.
type HTTP struct {
	// Ask passes a request to the server, which calls reply once, at any time,
	// from any goroutine.
	Ask func(r api.Request, reply func(api.Response))

	// Access says what clients may do.
	Access *guard.Guard

	// Hosts are the names, without a port, by which clients may call the server.
	Hosts []string

	// Bodies limits the bytes of bodies that are still arriving and of answers
	// that are still leaving.
	Bodies *wire.Budget
}

// Host runs one server of a cluster.
type Host struct {
	o         Options
	log       *slog.Logger
	transport Transport
	disks     *disks

	// created is the transport that a transport.Factory has created, or nil.
	created Transport

	loop  *loop
	asked asked

	// guard says what clients may do. Do is not restricted.
	guard *guard.Guard

	// listen and server are for connections from outside; listen is nil if there
	// are none.
	listen net.Listener
	server wire.Server

	// refusals keeps the log short, however many messages a peer sends that the server
	// refuses.
	refusals loglimit.Limit
}

// New opens the address and creates the server, which recovers from its disk. The
// address comes first: if it is in use, this server may already be running, and a
// second process must not touch its disk.
func New(o Options) (*Host, error) {
	h := &Host{o: o, log: o.Log, listen: o.Listener}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	address := o.Config.Address(o.ID)
	switch {
	case address == "":
		return nil, fmt.Errorf("%s is not a member of cluster %q; its members are %s", node.Name(o.ID), o.Config.Cluster, names(o.Config.Members))
	case o.Transport == nil && o.Config.Secret == "" && slices.ContainsFunc(o.Config.Members, func(m node.Member) bool { return m.ID != o.ID }):
		return nil, fmt.Errorf("cluster %q has no secret, so its servers cannot trust each other; set one in the configuration", o.Config.Cluster)
	}
	if h.listen == nil && !(o.NoClients && o.Transport != nil) {
		ln, err := wire.Listen(o.Config.ListenAddress(o.ID))
		if err != nil {
			return nil, err
		}
		h.listen = ln
	}
	if err := h.protect(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if err := h.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s cannot start: %w", node.Name(o.ID), err), h.close())
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

// protect creates the guard. It refuses to serve clients on an address that other
// machines can reach if the configuration does not say what they may do.
func (h *Host) protect() error {
	c := h.o.Config
	operator := ""
	if c.Secret != "" {
		operator = guard.OperatorToken(c.Cluster, c.Secret)
	}
	h.guard = guard.New(c.Access, operator, h.log)
	if !h.public() {
		return nil
	}
	if err := access.CheckPublic(c.Access); err != nil {
		return fmt.Errorf("%s would listen on %v, which other machines can reach: %w", node.Name(h.o.ID), h.listen.Addr(), err)
	}
	switch c.Access.Anonymous {
	case access.Write:
		h.log.Warn("anyone who can reach this server may write: access.anonymous is write", "address", h.listen.Addr())
	case access.Operate:
		h.log.Warn("anyone who can reach this server may do anything: access.anonymous is operate", "address", h.listen.Addr())
	}
	return nil
}

// public reports whether the server serves clients on an address that other
// machines can reach.
func (h *Host) public() bool {
	return h.listen != nil && !h.o.NoClients && guard.Public(h.listen.Addr())
}

// SetAccess replaces Config.Access. It also counts for clients that are connected.
// The error says why the new policy is refused; then the old one stays in force. It
// is safe for concurrent use.
func (h *Host) SetAccess(p *access.Policy) error {
	if h.public() {
		if err := access.CheckPublic(p); err != nil {
			return err
		}
	}
	h.guard.Set(p)
	return nil
}

func (h *Host) build() error {
	o := h.o
	h.loop = newLoop(o.ID, h.log, o.Trace)
	h.loop.push, h.loop.disk = h.server.Batch, o.Disk
	if o.Meter != nil {
		h.loop.meter, h.loop.syncs.meter = o.Meter, o.Meter
	}
	h.loop.syncs.observe(o.Disk)
	if o.Config.Leader == 0 {
		h.loop.syncs.limit = o.Config.ElectionTimeout[0]
	}
	room := cmp.Or(o.Limits.ServerBytes, wire.DefaultLimits().ServerBytes)
	h.loop.budget = wire.NewBudget(room)
	h.server = wire.Server{Ops: o.Ops, Handler: h.loop.request, Access: h.guard, Limits: o.Limits, Budget: h.loop.budget, TLS: o.TLS, Log: h.log}
	_, changes := o.Ops[api.Change]
	h.disks = newDisks(o.ID, changes, h.log)
	if err := h.join(); err != nil {
		return err
	}
	h.loop.link = h.transport.Send
	h.connect(nil)
	switch {
	case o.NoClients:
		h.server.Handler = noClients
	case o.HTTP != nil:
		h.server.HTTP = o.HTTP(HTTP{Ask: h.loop.request, Access: h.guard, Hosts: hosts(o.Config), Bodies: wire.NewBudget(room)})
	}
	seed := cmp.Or(o.Seed, rand.Uint64())
	s, err := o.New(node.World{
		ID: o.ID, Config: o.Config, Disk: o.Disk, Send: h.loop.send, Connect: h.connect, Work: h.loop.work, Log: h.note,
		Trace: h.loop.sink(), Rand: rand.New(rand.NewPCG(seed, o.ID)),
	})
	if err != nil {
		return err
	}
	h.loop.node = s
	err = h.disks.open(o.Disk, node.IncarnationOf(s))
	if c, ok := s.(io.Closer); ok && err != nil {
		err = errors.Join(err, c.Close())
	}
	return err
}

// hosts returns the names by which HTTP clients may call the servers.
func hosts(c node.Config) []string {
	addresses := slices.Collect(maps.Values(c.Listen))
	for _, m := range slices.Concat(c.Members, c.Joiners) {
		addresses = append(addresses, m.Address)
	}
	names := slices.Clone(c.HTTPHosts)
	for _, address := range addresses {
		if name, _, err := net.SplitHostPort(address); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// connect is node.World.Connect. A server that knows no members yet connects to
// those in the configuration.
func (h *Host) connect(members []node.Member) {
	if len(members) == 0 {
		members = h.o.Config.Members
	}
	h.transport.Connect(members)
}

func noClients(r api.Request, reply func(api.Response)) {
	reply(api.Failed(r.ID, &api.Error{Code: api.Unavailable, Definite: true, Message: "this server accepts no requests over the network"}))
}

// note is node.World.Log.
func (h *Host) note(e trace.Event) {
	switch e.Kind {
	case trace.Decide:
		h.log.Error(e.Reason.Text, "role", e.Role, "term", e.Term)
	case trace.Drop:
		h.loop.meter.Lost(e.From, peers.LostRefused, 1)
		h.refusals.Say(node.Name(e.From)+e.Text, func(before int) {
			h.log.Warn("refuses a message", "peer", node.Name(e.From), "error", e.Text, "role", e.Role, "term", e.Term, "refused_before", before)
		})
	case trace.Trouble:
		h.log.Warn(e.Text, "role", e.Role, "term", e.Term)
	case trace.Start:
		h.log.Info("starts "+e.Text, "role", e.Role, "term", e.Term)
	default:
		h.log.Info(e.Text, "role", e.Role, "term", e.Term)
	}
}

// Addr returns the address on which the server listens, or nil if it does not.
func (h *Host) Addr() net.Addr {
	if h.listen == nil {
		return nil
	}
	return h.listen.Addr()
}

// Run runs the server until ctx is done; then it refuses further requests, waits
// a bounded time for the answers to those in flight, and returns nil. An error
// means that the server had to stop: its disk failed, or a peer remembers another
// disk, or its listener failed. Run can be called once.
func (h *Host) Run(ctx context.Context) error {
	// The answers to clients need the loop and the peers, so these outlive ctx
	// until the last client is answered.
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	g.Go(func() error {
		defer end()
		if err := h.serve(ctx, inner); inner.Err() == nil {
			return err
		}
		return nil // another part ended first, and Run returns the error of that one
	})
	g.Go(func() error { return h.orStop(end, h.loop.run(inner)) })
	g.Go(func() error { return h.orStop(end, h.disks.wait(inner)) })
	g.Go(func() error { return h.orStop(end, h.transport.Run(inner, h.loop.receive)) })
	err := g.Wait()
	_ = h.loop.workers.Wait() // they return nil, and may use the files that are closed next
	if c, ok := h.loop.node.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}

// orStop stops the server at once if there is an error.
func (h *Host) orStop(end context.CancelFunc, err error) error {
	if err != nil {
		h.log.Error("the server stops at once", "error", err)
		end()
		h.server.Close()
	}
	return err
}

// serve answers requests until ctx is done and all are answered, or inner is
// done.
func (h *Host) serve(ctx, inner context.Context) error {
	var err error
	if h.listen != nil {
		err = h.server.Serve(ctx, h.listen)
	} else {
		select {
		case <-ctx.Done():
		case <-inner.Done():
		}
	}
	limit := h.o.Limits.Drain
	if limit == 0 {
		limit = wire.DefaultLimits().Drain
	}
	select {
	case <-h.asked.stop():
	case <-inner.Done():
	case <-time.After(limit):
	}
	return err
}

// Cut drops all messages to and from a peer, like a broken cable, until Heal.
// Clients are not affected. It is safe for concurrent use.
func (h *Host) Cut(peer uint64) { h.loop.cut(peer, true) }

// Heal undoes Cut. It is safe for concurrent use.
func (h *Host) Heal(peer uint64) { h.loop.cut(peer, false) }

// clock computes how many ticks are due.
type clock struct{ last time.Time }

// most is the largest number of ticks that the server gets at once after the loop
// was delayed. A server that was stopped (by a debugger, a signal, a move of its
// virtual machine) must not get all the lost ticks at once: its election timeout
// would end before it had read the heartbeats that wait in its sockets. For a
// server that was stopped, little time has passed.
const most = 3

// due returns the number of ticks that are due now.
func (c *clock) due(now time.Time) int {
	n := int(now.Sub(c.last) / node.TickInterval)
	if n > most {
		c.last = now
		return most
	}
	c.last = c.last.Add(time.Duration(n) * node.TickInterval)
	return n
}
