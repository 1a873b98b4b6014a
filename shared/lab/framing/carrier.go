package framing

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing/synctest"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/lab/sim"
)

// carrier is a sim.Carrier. Its fields and methods belong to the world's goroutine,
// except for what mu guards. A transport's goroutine does nothing to the world or to
// the carrier by itself: it posts what is to be done (see post).
type carrier struct {
	w    *sim.World
	name string
	seed uint64
	log  tail

	// ledger checks the lines; counts is what happened.
	ledger *ledger
	counts counts

	// fierce is true if no kind of fault is left out while there are any.
	fierce bool

	// servers are the running ones, by ID; lives counts those before.
	servers map[uint64]*server
	lives   map[uint64]uint64

	// waiting are servers whose transports have not begun.
	waiting []*server
	tasks   sync.WaitGroup

	// rands decide about what is sent from one machine to another.
	rands map[[2]uint64]*rand.Rand

	// arriving is what has arrived last. All lines that transports deliver are due
	// to it, because it is processed completely before something else arrives.
	arriving arriving

	// met has the pairs of servers that have had a session, and seen those
	// sessions in which a line was delivered.
	met  map[pair]bool
	seen map[session]bool

	// began is when the world began, in the time of the bubble. stirred is true if
	// goroutines may have something to do now. timer and wake end a rest.
	began   time.Time
	stirred bool
	timer   *time.Timer
	wake    chan struct{}

	// datagrams is the network of UDP, and connections is how many of TCP there were.
	datagrams
	connections uint64

	mu     sync.Mutex
	posted []func()
}

// arriving is a datagram or a piece of a connection.
type arriving struct {
	session session

	// stream is its connection; nil with UDP.
	stream *stream

	// damaged is true for a datagram that must be refused.
	damaged bool
}

// server is one life of a server: its transport.
type server struct {
	c        *carrier
	id, life uint64

	transport transport.Transport
	run       func(ctx context.Context)
	cancel    context.CancelFunc

	// kill ends what the transport cannot end by itself.
	kill func()

	socket   *socket   // of UDP
	listener *listener // of TCP
	streams  []*stream
	disks    *disks

	// dead is true once the server is down. Nothing that its goroutines do then
	// leaves the machine. c.mu guards it.
	dead bool
}

func newCarrier(name string, seed uint64) *carrier {
	c := &carrier{name: name, seed: seed, ledger: newLedger(), counts: make(counts), fierce: seed%2 == 1,
		servers: make(map[uint64]*server), lives: make(map[uint64]uint64), rands: make(map[[2]uint64]*rand.Rand),
		met: make(map[pair]bool), seen: make(map[session]bool),
		began: time.Now(), timer: time.NewTimer(time.Hour), wake: make(chan struct{}, 1)}
	c.datagrams.init(rand.New(rand.NewPCG(seed, 8)))
	return c
}

// post leaves to the world's goroutine something that a server's goroutine has done.
// It returns false if the server is down.
func (c *carrier) post(s *server, f func()) bool {
	c.mu.Lock()
	if s.dead {
		c.mu.Unlock()
		return false
	}
	c.posted = append(c.posted, f)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// Started is sim.Carrier.Started.
func (c *carrier) Started(id uint64) {
	c.lives[id]++
	s := &server{c: c, id: id, life: c.lives[id]}
	c.servers[id] = s
	log := slog.New(slog.NewTextHandler(&c.log, &slog.HandlerOptions{Level: slog.LevelInfo})).With("server", node.Name(id))
	if c.name == transport.TCP {
		c.startTCP(s, log)
	} else {
		c.startUDP(s, log)
	}
	// It begins once the server is there: the handshake says which disk it has.
	c.waiting = append(c.waiting, s)
}

// secret is the secret of the cluster.
const secret = "the secret of the cluster"

// begin starts the transport.
func (c *carrier) begin(s *server) {
	if s.disks != nil {
		s.disks.own = node.IncarnationOf(c.w.Server(s.id))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	c.tasks.Go(func() { s.run(ctx) })
}

// failed says that a transport has ended by itself.
func (c *carrier) failed(s *server, err error) {
	c.post(s, func() { c.w.Fail(fmt.Errorf("the transport of %s has ended: %w", node.Name(s.id), err)) })
}

// Linked is sim.Carrier.Linked.
func (c *carrier) Linked(id uint64, members []node.Member) {
	if s := c.servers[id]; s != nil {
		s.transport.Connect(members)
		c.stirred = true
	}
}

// Stopped is sim.Carrier.Stopped.
func (c *carrier) Stopped(id uint64) {
	s := c.servers[id]
	if s == nil {
		return
	}
	delete(c.servers, id)
	c.mu.Lock()
	s.dead = true
	c.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
	s.kill()
	c.stirred = true
}

// close ends all servers, and waits for their goroutines.
func (c *carrier) close() {
	for id := range c.servers {
		c.Stopped(id)
	}
	c.tasks.Wait()
	c.timer.Stop()
}

// Send is sim.Carrier.Send.
func (c *carrier) Send(from, to, number uint64, line []byte) {
	s := c.servers[from]
	if s == nil {
		return
	}
	c.counts[lines]++
	s.transport.Send(to, c.ledger.send(place{from, s.life, to, number}, line, c.padding(c.rand(from, to))))
	c.stirred = true
}

// padding returns the length that a line gets at least. Most messages of a chaos are
// short, so some are made longer. There are few such lengths: if a transport mixed up
// parts of two messages, it could not notice from their lengths.
func (c *carrier) padding(rng *rand.Rand) int {
	if rng.IntN(16) > 0 {
		return 0
	}
	return []int{2_000, 2_000, 5_000, 5_000, 5_000, 20_000}[rng.IntN(6)]
}

// Rest is sim.Carrier.Rest.
func (c *carrier) Rest(until time.Duration) time.Duration {
	for _, s := range c.waiting {
		if c.servers[s.id] == s {
			c.begin(s)
			c.stirred = true
		}
	}
	c.waiting = c.waiting[:0]
	now := time.Since(c.began)
	if until <= now && !c.stirred {
		return now
	}
	if c.stirred { // what is to be done now comes before what is to be done later
		synctest.Wait()
		c.stirred = false
	}
	if until > now && !c.hasPosted() {
		c.timer.Reset(until - now)
		select {
		case <-c.timer.C:
		case <-c.wake:
		}
		synctest.Wait()
	}
	select {
	case <-c.wake:
	default:
	}
	return time.Since(c.began)
}

func (c *carrier) hasPosted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.posted) > 0
}

// Collect is sim.Carrier.Collect.
func (c *carrier) Collect() bool {
	c.mu.Lock()
	all := c.posted
	c.posted = nil
	c.mu.Unlock()
	for _, f := range all {
		f()
	}
	return len(all) > 0
}

// receive is called by the transport of a server for each line.
func (c *carrier) receive(s *server, from uint64, b []byte) {
	c.post(s, func() { c.received(s, from, b) })
}

func (c *carrier) received(s *server, from uint64, b []byte) {
	if c.servers[s.id] != s {
		return
	}
	a := c.arriving
	if a.damaged {
		c.w.Fail(fmt.Errorf("%s accepts a damaged datagram from %s: %.200q", node.Name(s.id), node.Name(from), b))
		return
	}
	if a.session.to != s.id {
		c.w.Fail(fmt.Errorf("%s receives a line from %s, and nothing has arrived there: %.200q", node.Name(s.id), node.Name(from), b))
		return
	}
	p, line, err := c.ledger.arrive(a.session, from, b, a.stream != nil)
	if err == nil && a.stream != nil {
		err = a.stream.accepted(b)
	}
	if err != nil {
		c.w.Fail(err)
		return
	}
	c.counts[delivered]++
	if a.stream != nil && a.stream.inPieces() || a.stream == nil && len(b) > c.longest {
		c.counts[long]++
	}
	if !c.seen[a.session] {
		c.seen[a.session] = true
		c.counts[sessions]++
		lives := pair{from, p.life, s.id, s.life}
		if c.met[lives] {
			c.counts[renewed]++
		}
		c.met[lives] = true
	}
	c.w.Arrived(from, s.id, p.number, line)
}

// rand returns the random numbers for what is sent from one machine to another.
func (c *carrier) rand(from, to uint64) *rand.Rand {
	key := [2]uint64{from, to}
	if c.rands[key] == nil {
		c.rands[key] = rand.New(rand.NewPCG(c.seed, from<<32|to))
	}
	return c.rands[key]
}

// least are the probabilities of a fierce network while there are faults.
const least = 0.02

// path returns how the network is between two machines.
func (c *carrier) path(from, to uint64) (n sim.Network, passes bool) {
	n, passes = c.w.Path(from, to)
	if c.fierce && c.w.Unleashed() {
		n.Loss, n.Duplicate, n.Reorder = max(n.Loss, least), max(n.Duplicate, least), max(n.Reorder, least)
	}
	return n, passes
}

// chance is true with probability p.
func chance(rng *rand.Rand, p float64) bool { return rng.Float64() < p }

// between draws a duration from a range.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(rng.Int64N(int64(high-low)+1))
}

// idAt returns the machine at an address of the simulator.
func (c *carrier) idAt(address string) uint64 {
	for _, id := range c.w.IDs() {
		if sim.Address(id) == address {
			return id
		}
	}
	return 0
}

// hostOf returns the IP address and the port of a machine.
func hostOf(id uint64) netip.AddrPort { return netip.MustParseAddrPort(sim.Address(id)) }

func addressOf(id uint64) net.Addr { return net.TCPAddrFromAddrPort(hostOf(id)) }
