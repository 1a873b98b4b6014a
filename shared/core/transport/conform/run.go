package conform

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/wire"
)

// Main is TestMain for a package that calls Run: it lets all tests that wait do so at the
// same time, however few processors there are.
func Main(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// Run tests a transport. Tests that mostly wait run at the same time, after the others.
func Run(t *testing.T, s Subject) {
	for _, test := range []struct {
		name       string
		run        func(*testing.T, Subject)
		far, waits bool
	}{
		{"messages arrive whole", testMessages, false, false},
		{"ten thousand messages", testMany, false, false},
		{"long messages", testLong, false, false},
		{"a snapshot in chunks", testStream, false, false},
		{"a peer starts again", testRestart, false, false},
		{"a peer moves", testMove, false, false},
		{"members join and leave", testMembers, false, false},
		{"a slow peer delays nobody", testSlow, false, false},
		{"a wrong secret or certificate", testSecret, false, true},
		{"lost messages are counted", testLosses, true, true},
		{"a server runs twice", testTwice, true, true},
		{"a bad network", testFaults, true, true},
	} {
		if test.far && s.Network == "" {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			if test.waits {
				t.Parallel()
			}
			test.run(t, s)
		})
	}
}

// Every server can send to every other, at any length, as soon as it runs.
func testMessages(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2, 3)
	for _, pair := range [][2]uint64{{1, 2}, {2, 1}, {1, 3}, {3, 2}} {
		g.reaches(pair[0], pair[1], 20)
	}
	for _, size := range []int{30, 1100, 1142, 1143, 1200, 1500, 4000, 9000, 16_000, 16_400, 70_000} {
		g.reaches(1, 2, size)
		g.reaches(2, 3, size)
	}
	g.end()
}

// figure prints a figure, if that was asked for.
func figure(t *testing.T, s Subject, format string, args ...any) {
	if *figures {
		_, test, _ := strings.Cut(t.Name(), "/")
		fmt.Printf("%-10s %s: %s\n", s.Name, test, fmt.Sprintf(format, args...))
	}
}

// Ten thousand small messages a second get through, and almost all of them arrive.
func testMany(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	g.reaches(1, 2, 20)
	const batch = 50
	batches := 20
	if longtest.On() || *figures {
		batches = 1000
	}
	first := number(batch * batches)
	before := g.servers[2].count(1)
	begun := time.Now()
	for i := range batches {
		g.servers[1].send(2, first+i*batch, batch, 150)
		if wait := time.Until(begun.Add(time.Duration(i) * batch * time.Second / 10_000)); wait > 0 {
			time.Sleep(wait)
		}
	}
	sent := time.Since(begun)
	least := batch * batches
	if s.Loses {
		least -= least / 20
	}
	g.eventually(func() bool { return g.servers[2].count(1)-before >= least }, "too few of %d messages have arrived", batch*batches)
	figure(t, s, "%d messages sent within %v; %d have arrived", batch*batches, sent.Round(time.Millisecond), g.servers[2].count(1)-before)
	if *figures {
		burst(g)
		pingPong(g)
	}
	g.end()
}

// burst measures how many messages a second get through if more are sent whenever
// some have arrived.
func burst(g *group) {
	const count, open = 200_000, 2000
	a, b := g.servers[1], g.servers[2]
	first := number(count)
	lines := make([][]byte, count)
	for i := range lines {
		lines[i] = g.subject.sealed(1, first+i, 150)
	}
	before, begun, got := b.count(1), time.Now(), 0
	for sent := 0; sent < count; {
		got = b.count(1) - before
		n := min(open-(sent-got), count-sent)
		if n <= 0 {
			time.Sleep(100 * time.Microsecond)
			if time.Since(begun) > patient {
				break
			}
			continue
		}
		batch := lines[sent : sent+n]
		a.do(func() {
			for _, line := range batch {
				a.world.Send(2, line)
			}
		})
		sent += n
	}
	figure(g.t, g.subject, "%.0f messages of 150 bytes a second at most", float64(b.count(1)-before)/time.Since(begun).Seconds())
}

// pingPong measures the time from a message to its answer.
func pingPong(g *group) {
	a, b := g.servers[1], g.servers[2]
	var times []time.Duration
	back := make(chan int, 1)
	b.whenever(func(from uint64, n int) { b.world.Send(from, g.subject.sealed(2, n, 100)) })
	a.whenever(func(_ uint64, n int) {
		select {
		case back <- n:
		default: // the answer to an earlier one
		}
	})
	for range 2000 {
		n, begun, late := number(1), time.Now(), time.After(time.Second)
		a.send(2, n, 1, 100)
		for got := 0; got != n; {
			select {
			case got = <-back:
			case <-late:
				got = n
			}
		}
		times = append(times, time.Since(begun))
	}
	a.whenever(nil)
	b.whenever(nil)
	slices.Sort(times)
	figure(g.t, g.subject, "answer to a message after %v, 99 %% after %v", times[len(times)/2], times[len(times)*99/100])
}

// Long messages arrive. One that is too long is dropped, and others still arrive.
func testLong(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	for _, size := range []int{1 << 20, 4 << 20} {
		g.reaches(1, 2, size)
	}
	g.reaches(2, 1, wire.DefaultLimits().PeerLine-100)
	g.servers[1].send(2, number(1), 1, wire.DefaultLimits().PeerLine+1)
	g.reaches(1, 2, 20)
	g.end()
}

// Chunks are sent one at a time, each after the answer to the one before, and once
// more if there is no answer: as InstallSnapshot does.
func testStream(t *testing.T, s Subject) {
	const size = 256 << 10
	chunks := 16
	if longtest.On() || *figures {
		chunks = 512
	}
	g := newGroup(t, s, 1, 2)
	g.reaches(1, 2, 20)
	g.reaches(2, 1, 20)
	a, b := g.servers[1], g.servers[2]
	first := number(2 * chunks * 100)
	var done atomic.Int64
	b.whenever(func(from uint64, n int) { b.world.Send(from, g.subject.sealed(2, n, 30)) })
	a.whenever(func(_ uint64, n int) { done.Store(int64((n-first)/100 + 1)) })
	begun, again := time.Now(), 0
	for i := range chunks {
		a.send(2, first+i*100, 1, size)
		for try, sent := 1, time.Now(); done.Load() <= int64(i); time.Sleep(20 * time.Microsecond) {
			if time.Since(sent) > 500*time.Millisecond {
				require.Less(t, try, 100, "chunk %d", i)
				a.send(2, first+i*100+try, 1, size)
				sent = time.Now()
				try++
				again++
			}
		}
	}
	took := time.Since(begun)
	figure(t, s, "%d MiB in chunks of %d KiB: %.0f MiB/s, %d chunks sent again", chunks*size>>20, size>>10, float64(chunks*size>>20)/took.Seconds(), again)
	g.end()
}

// A peer that starts again is found at once, whichever side sends first.
func testRestart(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	g.reaches(1, 2, 20)
	g.reaches(2, 1, 20)
	for i := range 2 {
		b := g.servers[2]
		b.end()
		g.servers[1].send(2, number(100), 100, 1000) // to nobody
		b.start(g.members(1, 2), nil)
		if i == 0 {
			g.reaches(1, 2, 2000)
		}
		g.reaches(2, 1, 2000)
		g.reaches(1, 2, 2000)
	}
	g.end()
}

// A peer comes back at another address, which the others do not know: it finds them,
// and their answers reach it.
func testMove(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	g.reaches(1, 2, 20)
	b := g.servers[2]
	b.end()
	b.listen = g.port()
	b.address = b.listen
	b.start(g.members(1), nil)
	g.reaches(2, 1, 20)
	g.reaches(1, 2, 20)
	g.end()
}

// A server that nobody names can send to those that it names, and is answered. Once
// it is named, it can be reached first. One that is named no more, and has stopped,
// costs nothing.
func testMembers(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	g.add(3).start(g.members(1), nil)
	g.reaches(3, 1, 20)
	g.reaches(1, 3, 20)
	g.add(4).start(g.members(4), nil)
	a := g.servers[1]
	a.do(func() { a.world.Connect(g.members(1, 2, 3, 4)) })
	g.reaches(1, 4, 20)
	g.reaches(4, 1, 20)
	g.servers[3].end()
	g.servers[3].stop = nil
	a.do(func() { a.world.Connect(g.members(1, 2, 4)) })
	a.send(3, number(1), 1, 20)
	g.reaches(1, 2, 20)
	g.reaches(1, 4, 20)
	g.end()
}

// A server without the secret, and one of another cluster, can neither send nor
// receive. In a cluster that uses TLS, neither can a server that knows the secret and
// has no certificate, or that of another server, or one of another CA.
func testSecret(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2)
	g.reaches(1, 2, 20)
	b := g.servers[2]
	b.end()
	changes := []func(*host.Options){
		func(o *host.Options) { o.Config.Secret = "another secret of another cluster" },
		func(o *host.Options) { o.Config.Cluster = "another cluster" },
	}
	if s.TLS {
		changes = append(changes,
			func(o *host.Options) { o.TLS = nil },
			func(o *host.Options) { o.TLS = g.ca.keys(t, g.name, 3) },
			func(o *host.Options) { o.TLS = newAuthority(t, g.name).keys(t, g.name, 2) })
	}
	for _, change := range changes {
		b.start(g.members(1, 2), change)
		toB, toA := number(10), number(10)
		for i := range 10 {
			g.servers[1].send(2, toB+i, 1, 100)
			b.send(1, toA+i, 1, 100)
			time.Sleep(5 * time.Millisecond)
		}
		b.end()
		for i := range 10 {
			require.False(t, b.has(1, toB+i))
			require.False(t, g.servers[1].has(2, toA+i))
		}
	}
	b.start(g.members(1, 2), nil)
	g.reaches(1, 2, 20)
	g.reaches(2, 1, 20)
	g.end()
}

// A server that is busy receives late, or loses messages. Nobody waits for it.
func testSlow(t *testing.T, s Subject) {
	g := newGroup(t, s, 1, 2, 3)
	g.reaches(1, 2, 20)
	g.reaches(1, 3, 20)
	b, free := g.servers[2], make(chan struct{})
	held := make(chan struct{})
	go b.do(func() {
		close(held)
		<-free
	})
	<-held
	for range 48 { // more than all the queues on the way hold
		g.servers[1].send(2, number(1), 1, 1<<20)
	}
	g.reaches(1, 3, 20)
	g.reaches(3, 1, 20)
	close(free)
	g.reaches(1, 2, 20)
	g.end()
}

// Messages are counted, and those that are lost with the reason, each once: the oldest
// in a queue that is full, those to a peer that cannot be reached, and one that is too
// long.
func testLosses(t *testing.T, s Subject) {
	g := emptyGroup(t, s)
	a, b, m := g.add(1), g.add(2), newTally()
	a.start(g.members(1, 2), func(o *host.Options) { o.Meter, o.Limits.QueueLines = m, 1 })
	const count = 1000
	a.send(2, number(count), count, 100) // to nobody
	sent, _ := m.of(2)
	require.Equal(t, count, sent)
	g.eventually(func() bool {
		_, lost := m.of(2)
		return lost[peers.LostFull] > 0 && lost[peers.LostFull]+lost[peers.LostUnreachable] == count
	}, "%d messages were lost, and not as many are counted", count)
	a.send(9, number(1), 1, 100)
	sent, lost := m.of(9)
	require.Equal(t, 1, sent)
	require.Equal(t, map[peers.Loss]int{peers.LostUnreachable: 1}, lost)

	b.start(g.members(1, 2), nil)
	g.reaches(1, 2, 100)
	_, before := m.of(2)
	a.send(2, number(1), 1, wire.DefaultLimits().PeerLine+1)
	_, lost = m.of(2)
	before[peers.LostTooLong]++
	require.Equal(t, before, lost)

	b.end()
	b.stop = nil
	g.eventually(func() bool { // until the server notices, messages are lost on the way
		a.send(2, number(1), 1, 100)
		_, lost := m.of(2)
		return lost[peers.LostUnreachable] > before[peers.LostUnreachable]
	}, "messages to a server that has stopped are not counted as lost")
	g.end()
}

// Two programs use the ID and the keys of one server. A peer's log says so, once.
func testTwice(t *testing.T, s Subject) {
	g := emptyGroup(t, s)
	a, one, other := g.add(1), g.add(2), g.add(3)
	other.id = 2
	var log lines
	a.start(g.members(1, 2), func(o *host.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	one.start(g.members(1, 2), nil)
	g.reaches(2, 1, 100)
	require.Zero(t, log.count("runs twice"))
	other.start(g.members(1, 2), nil)
	g.eventually(func() bool {
		one.send(1, number(1), 1, 100)
		other.send(1, number(1), 1, 100)
		time.Sleep(10 * time.Millisecond)
		return log.count("runs twice") > 0
	}, "a server runs twice, and no log says so")
	g.end()
	require.Equal(t, 1, log.count("a peer runs twice, on copies of one folder; stop one of the two, and delete its folder"))
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// count returns how often a text is in the log.
func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// The network loses a fifth of the datagrams, repeats and reorders them, or breaks
// the connections, and something of any length still gets through.
func testFaults(t *testing.T, s Subject) {
	g := emptyGroup(t, s)
	faults := Faults{Lose: 0.2, Repeat: 0.1, Delay: 0.2, Late: 5 * time.Millisecond}
	var relays []*Relay
	for id := range uint64(2) {
		s := g.add(id + 1)
		r := NewRelay(t, g.port(), s.listen, faults)
		s.address = r.Address()
		relays = append(relays, r)
	}
	for _, s := range g.servers {
		s.start(g.members(1, 2), nil)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
			relays[0].Break()
			relays[1].Break()
		}
	}()
	sizes := []int{20, 1000, 3000, 20_000, 100_000}
	if longtest.On() {
		sizes = append(sizes, 1<<20) // what a leader sends at most, but for one entry
	}
	for _, size := range sizes {
		g.reaches(1, 2, size)
		g.reaches(2, 1, size)
	}
	stop()
	g.end()
}
