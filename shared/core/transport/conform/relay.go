package conform

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Faults are what a Relay does to datagrams. Each is a probability.
type Faults struct {
	// Lose, Repeat and Delay are how likely a datagram is lost, sent twice, or
	// delayed for up to Late, so that others overtake it.
	Lose, Repeat, Delay float64
	Late                time.Duration
}

// Relay stands between servers, and does to their messages what networks do. It
// passes on UDP and TCP.
type Relay struct {
	address, target string

	mu      sync.Mutex
	faults  Faults
	closers map[io.Closer]bool
	closed  bool
	tasks   sync.WaitGroup

	// passed and lost count datagrams.
	passed, lost int
}

// NewRelay starts a relay at an address, in front of a server at another. It ends
// with the test.
func NewRelay(t testing.TB, address, target string, f Faults) *Relay {
	r := &Relay{address: address, target: target, faults: f, closers: make(map[io.Closer]bool)}
	at, err := net.ResolveUDPAddr("udp", address)
	require.NoError(t, err)
	c, err := net.ListenUDP("udp", at)
	require.NoError(t, err)
	_ = c.SetReadBuffer(relayBuffer)
	r.keep(c)
	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	r.keep(ln)
	t.Cleanup(r.close)
	r.tasks.Go(func() { r.udp(c) })
	r.tasks.Go(func() { r.tcp(ln) })
	return r
}

// relayBuffer is how many bytes of datagrams may wait for a relay, so that it loses
// only what it should.
const relayBuffer = 4 << 20

// Address is where the relay listens.
func (r *Relay) Address() string { return r.address }

// Set changes the faults.
func (r *Relay) Set(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// Counts returns how many datagrams were passed on, and how many were lost.
func (r *Relay) Counts() (passed, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed, r.lost
}

// keep records what must be closed at the end. It returns false if that has come.
func (r *Relay) keep(c io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close()
		return false
	}
	r.closers[c] = true
	return true
}

func (r *Relay) drop(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.closers, c)
	_ = c.Close()
}

func (r *Relay) close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.closers {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.tasks.Wait()
}

// Break closes the connections of TCP. New ones may be opened at once.
func (r *Relay) Break() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.closers {
		if c, ok := c.(*net.TCPConn); ok {
			_ = c.Close()
		}
	}
}

func (r *Relay) tcp(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		d, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		if !r.keep(c) || !r.keep(d) {
			_, _ = c.Close(), d.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
			r.tasks.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				r.drop(c)
				r.drop(d)
			})
		}
	}
}

// udp passes datagrams to the target, from a port of its own for each sender, and
// answers back to the sender.
func (r *Relay) udp(c *net.UDPConn) {
	target, err := net.ResolveUDPAddr("udp", r.target)
	if err != nil {
		return
	}
	ways := make(map[netip.AddrPort]*net.UDPConn)
	b := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		way := ways[from]
		if way == nil {
			way, err = net.DialUDP("udp", nil, target)
			if err != nil || !r.keep(way) {
				return
			}
			_ = way.SetReadBuffer(relayBuffer)
			ways[from] = way
			r.tasks.Go(func() {
				b := make([]byte, 64<<10)
				for {
					n, err := way.Read(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil {
						r.pass(b[:n], func(b []byte) { _, _ = c.WriteToUDPAddrPort(b, from) })
					}
				}
			})
		}
		r.pass(b[:n], func(b []byte) { _, _ = way.Write(b) })
	}
}

// pass passes a datagram on, or not, or later, or twice.
func (r *Relay) pass(b []byte, write func([]byte)) {
	r.mu.Lock()
	f := r.faults
	lose := rand.Float64() < f.Lose
	if r.passed++; lose {
		r.lost++
	}
	r.mu.Unlock()
	if lose {
		return
	}
	for times := 1; ; times = 0 {
		if rand.Float64() < f.Delay {
			late := append([]byte(nil), b...)
			time.AfterFunc(rand.N(f.Late), func() { write(late) })
		} else {
			write(b)
		}
		if times == 0 || rand.Float64() >= f.Repeat {
			return
		}
	}
}
