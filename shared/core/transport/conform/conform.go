// Package conform tests what every transport must do. Run checks one, with servers
// that package host runs, so that nothing is left out: the registry, the port that
// the transport shares, and what the servers tell each other about their disks.
//
// With the flag -conform.figures it also prints how fast the transport is.
package conform

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

var figures = flag.Bool("conform.figures", false, "print how fast a transport is")

// Subject is a transport to test.
type Subject struct {
	// Name is its name in cluster.json.
	Name string

	// Network is what carries it, "tcp" or "udp"; "" if it needs no network.
	Network string

	// Loses is true if messages may be lost while nothing breaks.
	Loses bool

	// TLS is true if the servers speak TLS.
	TLS bool

	// Before and After stand around the text of each message, for a transport that
	// carries only what a server of a stage would send.
	Before, After string
}

// patient is longer than anything takes that works.
const patient = 30 * time.Second

// secret is the secret of the servers, except where it is wrong.
const secret = "5eed5eed5eed5eed"

// group are servers that use one transport.
type group struct {
	t       *testing.T
	subject Subject
	name    string
	ports   *freeport.Block
	used    int
	servers map[uint64]*server

	// ca is nil if the servers do not speak TLS.
	ca *authority
}

// server is one server: it counts the messages that it receives.
type server struct {
	g     *group
	id    uint64
	host  *host.Host
	world node.World
	stop  context.CancelFunc
	done  chan error

	// listen is where it listens, and address where the others reach it.
	listen, address string

	mu sync.Mutex

	// seen has the messages by sender and number, and bytes is the sum of their
	// lengths. wrong are those that nobody has sent.
	seen  map[uint64]map[int]int
	bytes int
	wrong []string

	// todo are functions to call on the goroutine that owns the server.
	todo []func()

	// arrived is called for each message, on that goroutine; see whenever.
	arrived func(from uint64, number int)
}

func (s *server) Tick()        {}
func (s *server) Flush() error { return nil }

func (s *server) Receive(from uint64, line []byte) {
	number, ok := s.g.subject.opened(from, line)
	s.mu.Lock()
	if !ok {
		s.wrong = append(s.wrong, fmt.Sprintf("%d bytes from n%d: %.60q", len(line), from, line))
	}
	if s.seen[from] == nil {
		s.seen[from] = make(map[int]int)
	}
	s.seen[from][number]++
	s.bytes += len(line)
	arrived := s.arrived
	s.mu.Unlock()
	if arrived != nil {
		arrived(from, number)
	}
}

func (s *server) Request(r api.Request, reply func(api.Response)) {
	s.mu.Lock()
	todo := s.todo
	s.todo = nil
	s.mu.Unlock()
	for _, f := range todo {
		f()
	}
	reply(api.Response{ID: r.ID})
}

// whenever calls f for each message that arrives from now on, on the goroutine that
// owns the server; nil calls nothing.
func (s *server) whenever(f func(from uint64, number int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived = f
}

// do calls f on the goroutine that owns the server.
func (s *server) do(f func()) {
	s.mu.Lock()
	s.todo = append(s.todo, f)
	s.mu.Unlock()
	_, err := s.host.Do(context.Background(), api.Request{Op: kv.Get, Key: "x"})
	require.NoError(s.g.t, err)
}

// send sends messages of a size with the numbers from first on.
func (s *server) send(to uint64, first, count, size int) {
	lines := make([][]byte, count)
	for i := range lines {
		lines[i] = s.g.subject.sealed(s.id, first+i, size)
	}
	s.do(func() {
		for _, line := range lines {
			s.world.Send(to, line)
		}
	})
}

// has reports whether a message has arrived.
func (s *server) has(from uint64, number int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[from][number] > 0
}

// count returns how many different messages of a sender have arrived.
func (s *server) count(from uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen[from])
}

// sealed returns a message: its sender, its number, something of the right length,
// and a checksum.
func (s Subject) sealed(from uint64, number, size int) []byte {
	b := fmt.Appendf(make([]byte, 0, size), "%s%d %d ", s.Before, from, number)
	head := len(b)
	end := size - 9 - len(s.After)
	for rng := rand.New(rand.NewPCG(from, uint64(number))); len(b) < end; {
		b = strconv.AppendUint(b, rng.Uint64()|1<<63, 36)
	}
	b = b[:max(min(len(b), end), head)]
	return fmt.Appendf(b, " %08x%s", crc32.ChecksumIEEE(b[len(s.Before):]), s.After)
}

// opened returns the number of a message, or false if its sender has not sent it.
func (s Subject) opened(from uint64, line []byte) (int, bool) {
	line, before := bytes.CutPrefix(line, []byte(s.Before))
	line, after := bytes.CutSuffix(line, []byte(s.After))
	if !before || !after || len(line) < 9 {
		return 0, false
	}
	text, check := line[:len(line)-9], string(line[len(line)-8:])
	fields := strings.SplitN(string(text[:min(len(text), 60)]), " ", 3)
	if len(fields) < 3 || fields[0] != strconv.FormatUint(from, 10) || check != fmt.Sprintf("%08x", crc32.ChecksumIEEE(text)) {
		return 0, false
	}
	number, err := strconv.Atoi(fields[1])
	return number, err == nil
}

// newGroup starts servers that know each other.
func newGroup(t *testing.T, s Subject, servers ...uint64) *group {
	g := emptyGroup(t, s)
	for _, id := range servers {
		g.add(id)
	}
	for _, s := range g.servers {
		s.start(g.members(servers...), nil)
	}
	return g
}

func emptyGroup(t *testing.T, s Subject) *group {
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	g := &group{t: t, subject: s, name: fmt.Sprintf("%s-%d", s.Name, ports.First()), ports: ports, servers: make(map[uint64]*server)}
	if s.TLS {
		g.ca = newAuthority(t, g.name)
	}
	return g
}

// add adds a server, which is not running yet.
func (g *group) add(id uint64) *server {
	s := &server{g: g, id: id, seen: make(map[uint64]map[int]int)}
	s.listen = g.port()
	s.address = s.listen
	g.servers[id] = s
	return s
}

// port returns an address that was not used yet.
func (g *group) port() string {
	g.used++
	return g.ports.Address(g.used - 1)
}

// members returns servers as members of a cluster.
func (g *group) members(ids ...uint64) []node.Member {
	var all []node.Member
	for _, id := range ids {
		all = append(all, node.Member{ID: id, Address: g.servers[id].address})
	}
	return all
}

// start starts a server that knows these members.
func (s *server) start(members []node.Member, change func(*host.Options)) {
	t := s.g.t
	ln, err := wire.Listen(s.listen)
	require.NoError(t, err)
	o := host.Options{ID: s.id, Ops: api.Commands(), Listener: ln,
		Config: node.Config{Cluster: s.g.name, Secret: secret, Members: members, Transport: s.g.subject.Name,
			Joiners: []node.Member{{ID: s.id, Address: s.address}}, ElectionTimeout: [2]time.Duration{time.Second, time.Second}},
		New: func(w node.World) (node.Server, error) {
			s.world = w
			return s, nil
		}}
	if g := s.g; g.ca != nil {
		o.TLS = g.ca.keys(t, g.name, s.id)
	}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", node.Name(s.id))
	}
	if change != nil {
		change(&o)
	}
	s.host, err = host.New(o)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan error, 1)
	done := s.done
	go func() { done <- s.host.Run(ctx) }()
	t.Cleanup(stop)
}

// end stops a server and waits for it.
func (s *server) end() {
	s.stop()
	select {
	case err := <-s.done:
		require.NoError(s.g.t, err)
	case <-time.After(patient):
		require.Fail(s.g.t, "a server does not stop", "n%d", s.id)
	}
}

// end stops the servers, and checks that they have received nothing that nobody has
// sent, and no message twice.
func (g *group) end() {
	for _, s := range g.servers {
		if s.stop != nil {
			s.end()
		}
	}
	for _, s := range g.servers {
		s.mu.Lock()
		require.Empty(g.t, s.wrong, "n%d", s.id)
		for from, numbers := range s.seen {
			for number, times := range numbers {
				require.Equal(g.t, 1, times, "n%d has received message %d of n%d so often", s.id, number, from)
			}
		}
		s.mu.Unlock()
	}
}

// numbers gives every message of a test another number.
var numbers struct {
	sync.Mutex
	next int
}

func number(count int) int {
	numbers.Lock()
	defer numbers.Unlock()
	numbers.next += count
	return numbers.next - count + 1
}

// reaches checks that messages get from one server to another: it sends until one
// has arrived.
func (g *group) reaches(from, to uint64, size int) {
	g.t.Helper()
	a, b := g.servers[from], g.servers[to]
	first := number(10_000)
	for n, end := first, time.Now().Add(patient); ; n++ {
		require.True(g.t, time.Now().Before(end), "no message of %d bytes has got from n%d to n%d", size, from, to)
		a.send(to, n, 1, size)
		for wait := time.Now().Add(50 * time.Millisecond); time.Now().Before(wait); time.Sleep(time.Millisecond) {
			if b.has(from, n) {
				return
			}
		}
		for i := first; i <= n; i++ {
			if b.has(from, i) {
				return
			}
		}
	}
}

// eventually waits until something is true.
func (g *group) eventually(is func() bool, format string, args ...any) {
	g.t.Helper()
	for end := time.Now().Add(patient); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			require.Fail(g.t, fmt.Sprintf(format, args...))
		}
	}
}
