package host

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// Transport carries messages between this server and its peers. It promises
// as little as node.World.Send does: a message may be lost, repeated, delayed
// or overtaken. What it must promise is that the sender is who it says.
//
// A line is opaque to it. It begins with what the servers have to know of each
// other's disks, so that one that came back without its data is refused: TCP has
// this in its handshake, and a Transport need not do anything for it.
type Transport interface {
	// Run carries messages until ctx is done, and returns nil then; any other
	// end is an error and ends the server. It hands each message that arrives to
	// receive, which may be called from many goroutines, waits while the server
	// has too much to do, and keeps line. Run is called once.
	Run(ctx context.Context, receive func(from uint64, line []byte)) error

	// Connect says whom the server may send to from now on, this server perhaps
	// among them. A peer that is not named may still reach this server, and what
	// is sent to it in answer should arrive. Connect may be called before Run. It
	// must not wait.
	Connect(members []node.Member)

	// Send sends a line. It must not wait, and returns false if it knows that
	// something was lost. line must not be changed. It may be called before Run,
	// and after.
	Send(to uint64, line []byte) bool
}

// tcp is the Transport of a server that has no other: a wire.Link to each
// peer, and for what comes in, the address on which clients come as well.
type tcp struct {
	self   wire.Identity
	limits wire.Limits
	log    *slog.Logger

	// receive takes the peers' messages.
	receive func(from uint64, line []byte)

	tasks errgroup.Group

	mu sync.Mutex

	// ctx is that of Run while it runs; nil before, and after.
	ctx context.Context

	// named are the addresses of the peers that Connect named last.
	named map[uint64]string

	// met are the peers that are connected to this server.
	met map[uint64]*meeting

	// moved are the addresses of peers of which the log has told that the cluster
	// knows others.
	moved map[uint64]string

	// links are those there are.
	links map[uint64]*link
}

// meeting is a peer that is connected to this server.
type meeting struct {
	// address is where it listens.
	address string

	// conns is how many connections it has: two while a new one takes the place
	// of an old one.
	conns int
}

// link is a wire.Link and a way to end it.
type link struct {
	*wire.Link
	address, also string
	end           context.CancelFunc
}

func newTCP(self wire.Identity, limits wire.Limits, log *slog.Logger, receive func(uint64, []byte)) *tcp {
	return &tcp{self: self, limits: limits, log: log, receive: receive,
		named: make(map[uint64]string), met: make(map[uint64]*meeting), moved: make(map[uint64]string), links: make(map[uint64]*link)}
}

// peers is what the server that shares the address needs to know.
func (t *tcp) peers() *wire.Peers {
	return &wire.Peers{Self: t.self, Met: t.meet, Left: t.left, Receive: t.receive}
}

// Run keeps the links connected. What arrives goes to t.receive already.
func (t *tcp) Run(ctx context.Context, _ func(uint64, []byte)) error {
	t.mu.Lock()
	t.ctx = ctx
	for _, l := range t.links {
		t.start(l)
	}
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.ctx = nil // nothing is started from here on
	t.mu.Unlock()
	return t.tasks.Wait()
}

// Connect is Transport.Connect.
func (t *tcp) Connect(members []node.Member) {
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

// meet is told that a peer has connected. It gets a link back: anyone who sends
// something waits for an answer.
func (t *tcp) meet(id uint64, address string) {
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
		t.log.Warn("a peer listens elsewhere than the cluster knows; it is looked for at both addresses", "peer", id, "known", named, "proved", address)
	}
	t.settle(id)
}

// left is told that a peer's connection has ended.
func (t *tcp) left(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.met[id]
	if m.conns--; m.conns == 0 {
		delete(t.met, id)
		t.settle(id)
	}
}

// settle makes, ends or replaces the link to a peer: there is one to each peer
// that was named, at that address, and to each that is connected. One that is
// connected has proved where it listens, so it is looked for there first: its
// address may have changed, and the cluster not know yet. t.mu is held.
func (t *tcp) settle(id uint64) {
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
	l.Link = wire.NewLink(wire.LinkOptions{Self: t.self, To: id, Address: address, Also: also, Limits: t.limits, Log: t.log})
	t.links[id] = l
	if t.ctx != nil {
		t.start(l)
	}
}

// start runs a link. t.mu is held, and t.ctx is set.
func (t *tcp) start(l *link) {
	ctx, end := context.WithCancel(t.ctx)
	l.end = end
	t.tasks.Go(func() error {
		defer end()
		return l.Run(ctx)
	})
}

// Send is Transport.Send.
func (t *tcp) Send(to uint64, line []byte) bool {
	t.mu.Lock()
	l := t.links[to]
	t.mu.Unlock()
	return l != nil && l.Send(line)
}
