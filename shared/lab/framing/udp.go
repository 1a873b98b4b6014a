package framing

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/udp"
	"example.com/raftsteps/shared/lab/sim"
)

// datagrams is a network of datagrams.
type datagrams struct {
	// longest is the longest datagram that the network carries; with tells, the
	// sender of a longer one gets an error. whole and rekey are for the transports.
	longest int
	tells   bool
	whole   bool
	rekey   uint64

	// latest is the number of the datagram that has arrived last, for each
	// direction, and sent that of the one sent last.
	sent, latest map[[2]uint64]uint64
}

// init draws the network of a run.
func (u *datagrams) init(rng *rand.Rand) {
	u.sent, u.latest = make(map[[2]uint64]uint64), make(map[[2]uint64]uint64)
	u.longest, u.whole, u.tells = 1200, rng.IntN(2) == 0, rng.IntN(2) == 0
	if rng.IntN(2) == 0 {
		u.longest = 1452
	}
	u.rekey = uint64(50 + rng.IntN(300))
}

// The sizes of a socket's buffers.
const (
	inBytes  = 256 << 10
	outBytes = 256 << 10
)

func (c *carrier) startUDP(s *server, log *slog.Logger) {
	s.socket = &socket{s: s, closed: make(chan struct{}), in: make(chan datagram, 1024)}
	t, err := udp.NewOver(transport.Options{ID: s.id, Cluster: "sim", Secret: secret, Address: sim.Address(s.id), Listen: sim.Address(s.id), Log: log},
		udp.Network{Socket: s.socket, In: inBytes, Out: outBytes, Whole: c.whole, Rekey: c.rekey})
	if err != nil {
		panic(err) // the options are right
	}
	s.transport = t
	s.kill = func() { _ = s.socket.Close() }
	s.run = func(ctx context.Context) {
		err := t.Run(ctx, func(from uint64, line []byte) { c.receive(s, from, line) })
		if ctx.Err() == nil {
			c.failed(s, err)
		}
	}
}

// datagram is one that is on its way.
type datagram struct {
	b    []byte
	from netip.AddrPort
}

// socket is a udp.Socket of a server.
type socket struct {
	s      *server
	closed chan struct{}
	once   sync.Once
	in     chan datagram
}

func (k *socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-k.in:
		return copy(b, d.b), d.from, nil
	case <-k.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (k *socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c := k.s.c
	if len(b) > c.longest && c.tells {
		return 0, syscall.EMSGSIZE
	}
	sent := bytes.Clone(b)
	if !c.post(k.s, func() { c.datagram(k.s.id, c.idAt(to.String()), sent) }) {
		return 0, net.ErrClosed
	}
	return len(b), nil
}

func (k *socket) SetWriteDeadline(time.Time) error { return nil }
func (k *socket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(hostOf(k.s.id)) }

func (k *socket) Close() error {
	k.once.Do(func() { close(k.closed) })
	return nil
}

// veryLate is how much later than the first a repeated datagram may come, if somebody
// has recorded it.
const veryLate = 8 * time.Second

// datagram is called when a machine has sent one.
func (c *carrier) datagram(from, to uint64, b []byte) {
	if to == 0 {
		c.w.Fail(fmt.Errorf("%s sends a datagram to no machine", node.Name(from)))
		return
	}
	way := [2]uint64{from, to}
	c.sent[way]++
	number := c.sent[way]
	c.counts[frames]++
	n, passes := c.path(from, to)
	rng := c.rand(from, to)
	if !passes || len(b) > c.longest || chance(rng, n.Loss) {
		c.counts[lost]++
		return
	}
	delay := between(rng, n.Delay[0], n.Delay[1])
	if chance(rng, n.Reorder) {
		delay += between(rng, 0, n.ReorderBy)
	}
	c.w.After(delay, func() { c.arrive(from, to, number, b, false) })
	if chance(rng, n.Duplicate) {
		again := delay + between(rng, 0, max(n.ReorderBy, 10*n.Delay[1]))
		if rng.IntN(4) == 0 {
			again += between(rng, 0, veryLate)
		}
		copied := bytes.Clone(b)
		damage := rng.IntN(3) == 0
		if damage {
			copied[rng.IntN(len(copied))] ^= 1 << rng.IntN(8)
		}
		c.w.After(again, func() { c.arrive(from, to, number, copied, damage) })
		c.counts[repeated]++
		if damage {
			c.counts[damaged]++
		}
	}
}

// pausedPoll is how often something that arrives at a paused server is tried again:
// its process reads nothing.
const pausedPoll = 20 * time.Millisecond

// arrive is called when a datagram arrives at a machine.
func (c *carrier) arrive(from, to, number uint64, b []byte, damage bool) {
	s, way := c.servers[to], [2]uint64{from, to}
	if s == nil || !c.w.Passes(from, to) {
		c.counts[lost]++
		return
	}
	if c.w.Paused(to) {
		c.w.After(pausedPoll, func() { c.arrive(from, to, number, b, damage) })
		return
	}
	if number < c.latest[way] {
		c.counts[late]++
	}
	c.latest[way] = max(c.latest[way], number)
	c.arriving = arriving{session: session{to, s.life, sessionOf(b)}, damaged: damage}
	select {
	case s.socket.in <- datagram{b, hostOf(from)}:
		c.stirred = true
	default: // the socket's buffer is full
		c.counts[lost]++
	}
}

// sessionOf returns the number of the session that a datagram with a message names.
func sessionOf(b []byte) uint64 {
	if len(b) < 5 {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(b[1:]))
}
