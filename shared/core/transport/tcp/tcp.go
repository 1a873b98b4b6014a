// Package tcp is the default transport: a wire.Link to each peer, and the server's
// own address, which clients use too, for messages that arrive.
package tcp

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/wire"
)

// Transport is a transport.Counted. The messages that arrive come from the
// wire.Server that has its Peers.
type Transport struct {
	// Dial opens a connection to an address; nil means a TCP connection. It must be
	// set before Connect is called.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	self   wire.Identity
	limits wire.Limits
	log    *slog.Logger

	// receive receives the peers' messages, and lost learns which messages are lost.
	receive func(from uint64, line []byte)
	lost    func(peer uint64, why peers.Loss, count int)

	tasks errgroup.Group

	mu sync.Mutex

	// ctx is the context of Run while it runs; nil before and after.
	ctx context.Context

	// named are the addresses of the peers in the last call of Connect.
	named map[uint64]string

	// met are the peers that are connected to this server.
	met map[uint64]*meeting

	// moved are the addresses of peers for which the log already says that the
	// cluster knows another one.
	moved map[uint64]string

	// links are the present links.
	links map[uint64]*link
}

// meeting is a peer that is connected to this server.
type meeting struct {
	// address is the address on which it listens.
	address string

	// conns is how many connections it has: two while a new one replaces an old
	// one.
	conns int
}

// link is a wire.Link and a way to end it.
type link struct {
	*wire.Link
	address, also string
	end           context.CancelFunc
}

// New returns a transport for a server. receive receives the messages of peers,
// also before Run is called.
func New(self wire.Identity, limits wire.Limits, log *slog.Logger, receive func(from uint64, line []byte)) *Transport {
	return &Transport{self: self, limits: limits, log: log, receive: receive, lost: func(uint64, peers.Loss, int) {},
		named: make(map[uint64]string), met: make(map[uint64]*meeting), moved: make(map[uint64]string), links: make(map[uint64]*link)}
}

// OnLoss is transport.Counted.OnLoss.
func (t *Transport) OnLoss(lost func(peer uint64, why peers.Loss, count int)) { t.lost = lost }

// Peers returns the wire.Peers for the server that shares the address.
func (t *Transport) Peers() *wire.Peers {
	return &wire.Peers{Self: t.self, Met: t.meet, Left: t.left, Receive: t.receive}
}

// Run keeps the links connected. Messages that arrive do not go to its receive,
// but to that of New.
func (t *Transport) Run(ctx context.Context, _ func(uint64, []byte)) error {
	t.mu.Lock()
	t.ctx = ctx
	for _, l := range t.links {
		t.start(l)
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.ctx = nil // no link is started from here on
	t.mu.Unlock()
	return t.tasks.Wait()
}

// Connect is transport.Transport.Connect.
func (t *Transport) Connect(members []node.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.named)
	for _, m := range members {
		if m.ID != t.self.ID {
			t.named[m.ID] = m.Address
		}
	}
	for id := range t.named {
		t.settle(id)
	}
	for id := range t.links {
		t.settle(id)
	}
}

// meet is called when a peer has connected. The peer gets a link back: a server
// that sends something waits for an answer.
func (t *Transport) meet(id uint64, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.met[id]
	if m == nil {
		m = &meeting{}
		t.met[id] = m
	}
	m.conns++
	m.address = address
	if named := t.named[id]; named != "" && named != address && t.moved[id] != address {
		t.moved[id] = address
		t.log.Warn("a peer listens at another address than the cluster knows; both are tried", "peer", id, "known", named, "proved", address)
	}
	t.settle(id)
}

// left is called when a peer's connection has ended.
func (t *Transport) left(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.met[id]
	if m.conns--; m.conns == 0 {
		delete(t.met, id)
		t.settle(id)
	}
}

// settle creates, ends or replaces the link to a peer. There is one link to each
// peer that was named, at that address, and to each that is connected. A
// connected peer has proved where it listens, so it is dialed there first: its
// address may have changed before the cluster knows. t.mu must be held.
func (t *Transport) settle(id uint64) {
	address, also := t.named[id], ""
	if m := t.met[id]; m != nil && address != m.address {
		address, also = m.address, address
	}
	old := t.links[id]
	if old != nil && old.address == address && old.also == also {
		return
	}
	if old != nil {
		old.end()
		delete(t.links, id)
	}
	if address == "" {
		return
	}
	l := &link{address: address, also: also, end: func() {}}
	l.Link = wire.NewLink(wire.LinkOptions{Self: t.self, To: id, Address: address, Also: also, Dial: t.Dial, Limits: t.limits, Log: t.log,
		Lost: func(why peers.Loss, count int) { t.lost(id, why, count) }})
	t.links[id] = l
	if t.ctx != nil {
		t.start(l)
	}
}

// start runs a link. t.mu must be held, and t.ctx set.
func (t *Transport) start(l *link) {
	ctx, end := context.WithCancel(t.ctx)
	l.end = end
	t.tasks.Go(func() error {
		defer end()
		return l.Run(ctx)
	})
}

// Send is transport.Transport.Send.
func (t *Transport) Send(to uint64, line []byte) bool {
	t.mu.Lock()
	l := t.links[to]
	t.mu.Unlock()
	if l == nil {
		t.lost(to, peers.LostUnreachable, 1)
		return false
	}
	return l.Send(line)
}

// Links returns the peers to which there is a link, with the address of each.
func (t *Transport) Links() map[uint64]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[uint64]string, len(t.links))
	for id, l := range t.links {
		all[id] = l.address
	}
	return all
}

// Met returns the peers that are connected to this server, in the order of their
// IDs.
func (t *Transport) Met() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.met))
}
