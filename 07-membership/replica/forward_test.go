package replica_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
)

// tally counts how often each command was applied. It shows what a bank that knows its
// transfers again would hide.
type tally struct{ Count map[string]int }

func newTally() *tally { return &tally{make(map[string]int)} }

func (c *tally) Apply(_ uint64, command []byte) any {
	if size, found := strings.CutPrefix(string(command), "result "); found {
		var n int
		fmt.Sscan(size, &n)
		return strings.Repeat("x", n)
	}
	c.Count[string(command)]++
	return c.Count[string(command)]
}

func (c *tally) Snapshot() server.View {
	text, err := json.Marshal(c)
	return view{text, err}
}

func (c *tally) Restore(line []byte) error { return json.Unmarshal(line, c) }

// mail is a line to a server.
type mail struct {
	to   uint64
	line []byte
}

// lossy is a transport that loses, repeats, delays and reorders the messages of
// forwarded commands while its group is in disorder, and remembers them.
type lossy struct {
	host.Transport
	group *tallies
}

func (l lossy) Send(to uint64, line []byte) bool {
	if !bytes.Contains(line, []byte(`,"forward`)) {
		return l.Transport.Send(to, line)
	}
	g := l.group
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, mail{to, line})
	if !g.disorder {
		return l.Transport.Send(to, line)
	}
	for range []int{0, 1, 1, 1, 2, 2, 3}[g.random.IntN(7)] {
		delay := time.Duration(g.random.Int64N(int64(200 * time.Millisecond)))
		if g.random.IntN(10) == 0 {
			delay *= 20
		}
		time.AfterFunc(delay, func() { l.Transport.Send(to, line) })
	}
	return true
}

// tallies are three replicas of a tally in virtual time.
type tallies struct {
	t       *testing.T
	dir     string
	config  node.Config
	network replica.Network

	mu       sync.Mutex
	random   *rand.Rand
	disorder bool
	seen     []mail
	links    map[uint64]host.Transport
	replicas map[uint64]*replica.Replica[*tally]
}

func withTallies(t *testing.T, test func(t *testing.T, g *tallies)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := &tallies{t: t, dir: dir, random: rand.New(rand.NewPCG(1, 2)), links: make(map[uint64]host.Transport), replicas: make(map[uint64]*replica.Replica[*tally]),
			config: node.Config{Cluster: "tally", Members: []node.Member{at(1), at(2), at(3)}}}
		for id := uint64(1); id <= 3; id++ {
			g.start(id)
		}
		defer func() {
			for id := uint64(1); id <= 3; id++ {
				require.NoError(t, g.get(id).Close())
			}
		}()
		test(t, g)
	})
}

func (g *tallies) get(id uint64) *replica.Replica[*tally] {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.replicas[id]
}

func (g *tallies) start(id uint64) {
	g.t.Helper()
	link := lossy{g.network.Transport(id), g}
	r, err := replica.Start(replica.Options[*tally]{ID: id, Config: g.config, Machine: newTally, Forward: true,
		Dir: filepath.Join(g.dir, node.Name(id)), Transport: link})
	require.NoError(g.t, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.links[id], g.replicas[id] = link, r
}

func (g *tallies) restart(id uint64) {
	g.t.Helper()
	require.NoError(g.t, g.get(id).Close())
	g.start(id)
}

// lead waits until all replicas know that a server leads.
func (g *tallies) lead(id uint64) {
	g.t.Helper()
	for agree := 0; agree < 3; time.Sleep(20 * time.Millisecond) {
		agree = 0
		for other := uint64(1); other <= 3; other++ {
			leader, err := g.get(other).Leader(g.t.Context())
			require.NoError(g.t, err)
			if leader == id {
				agree++
				continue
			}
			_ = g.get(leader).Transfer(g.t.Context(), id) // if it fails, the next time may not
		}
	}
}

// counts reads the tally.
func (g *tallies) counts(id uint64) (counts map[string]int) {
	g.t.Helper()
	require.NoError(g.t, g.get(id).Read(g.t.Context(), func(c *tally) {
		counts = make(map[string]int)
		for name, n := range c.Count {
			counts[name] = n
		}
	}))
	return counts
}

// Every replica takes commands, and returns what the leader's machine has returned.
func TestForward(t *testing.T) {
	withTallies(t, func(t *testing.T, g *tallies) {
		g.lead(2)
		last := uint64(0)
		for i, command := range []string{"x", "", "\xff", `{"a":1}`} {
			for id := uint64(1); id <= 3; id++ {
				result, index, err := g.get(id).Propose(t.Context(), []byte(command))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(id), string(result), "command %d", i)
				require.Greater(t, index, last)
				last = index
			}
		}
		require.Equal(t, map[string]int{"x": 3, "": 3, "\xff": 3, `{"a":1}`: 3}, g.counts(1))

		long := strings.Repeat("\xff", 1<<20)
		_, last, err := g.get(3).Propose(t.Context(), []byte(long))
		require.NoError(t, err)
		_, _, err = g.get(1).Propose(t.Context(), []byte(long+"x"))
		requireError(t, err, api.TooLarge, true, "the command has 1048577 bytes")
		result, _, err := g.get(1).Propose(t.Context(), fmt.Appendf(nil, "result %d", 3<<20-2))
		require.NoError(t, err)
		require.Len(t, result, 3<<20)
		_, index, err := g.get(1).Propose(t.Context(), fmt.Appendf(nil, "result %d", 3<<20-1))
		requireError(t, err, api.Unknown, false, fmt.Sprintf("the command was applied as entry %d, and its result has 3145729 bytes", last+2))
		require.Zero(t, index)
	})
}

// A command whose reply is lost has an unknown outcome after a while, and its ctx ends
// the waiting earlier.
func TestALostReply(t *testing.T) {
	withTallies(t, func(t *testing.T, g *tallies) {
		g.lead(2)
		g.mu.Lock()
		g.disorder = true
		g.mu.Unlock()
		unknown := 0
		for i := range 40 {
			begin := time.Now()
			_, _, err := g.get(1).Propose(t.Context(), fmt.Append(nil, i))
			took := time.Since(begin)
			if err != nil {
				requireError(t, err, api.Unknown, false, "the leader to which the command was forwarded gave no answer")
				require.Equal(t, 5*time.Second, took.Round(100*time.Millisecond))
				unknown++
			}
		}
		require.NotZero(t, unknown)
		require.Less(t, unknown, 40)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, _, err := g.get(1).Propose(ctx, []byte("late"))
		requireError(t, err, api.Unknown, false, "no answer in time")
	})
}

// Whatever happens to messages and leaders, a command is applied once if it was done,
// never if it was refused, and at most once if its outcome is unknown.
func TestForwardedAtMostOnce(t *testing.T) {
	withTallies(t, func(t *testing.T, g *tallies) {
		g.lead(1)
		g.mu.Lock()
		g.disorder = true
		g.mu.Unlock()
		const workers, commands = 8, 30
		var outcomes [workers * commands]error
		var working errgroup.Group
		var left atomic.Int64
		left.Store(workers)
		for w := range workers {
			working.Go(func() error {
				defer left.Add(-1)
				for i := range commands {
					n := w*commands + i
					_, _, outcomes[n] = g.get(uint64(1+n%3)).Propose(t.Context(), fmt.Append(nil, n))
					time.Sleep(20 * time.Millisecond)
				}
				return nil
			})
		}
		for turn := uint64(0); left.Load() > 0; turn++ {
			time.Sleep(2 * time.Second)
			id := 1 + turn%3
			if turn%2 == 0 {
				id, _ = g.get(id).Leader(t.Context())
			}
			g.restart(id)
		}
		require.NoError(t, working.Wait())
		g.lead(2)
		time.Sleep(10 * time.Second) // what was delayed arrives
		counts := g.counts(1)
		done, refused, unknown := 0, 0, 0
		for n, err := range outcomes {
			times := counts[fmt.Sprint(n)]
			var e *api.Error
			switch {
			case err == nil:
				done++
				require.Equal(t, 1, times, "command %d was done", n)
			case errors.As(err, &e) && e.Definite:
				refused++
				require.Zero(t, times, "command %d: %v", n, err)
			default:
				unknown++
				require.LessOrEqual(t, times, 1, "command %d: %v", n, err)
			}
		}
		t.Log(done, "done,", refused, "refused,", unknown, "unknown")
		require.NotZero(t, done)
		require.NotZero(t, unknown)
	})
}

// A command arrives again when the leader has been restarted and leads again. It may
// have been applied before, so it is ignored.
func TestARepetitionAfterARestart(t *testing.T) {
	withTallies(t, func(t *testing.T, g *tallies) {
		g.lead(2)
		_, _, err := g.get(1).Propose(t.Context(), []byte("once"))
		require.NoError(t, err)
		again := g.seen[0]
		require.EqualValues(t, 2, again.to)
		for range 3 {
			require.True(t, g.links[1].Send(again.to, again.line))
			synctest.Wait()
			require.Equal(t, map[string]int{"once": 1}, g.counts(2))
			g.restart(2)
			g.lead(2)
		}
		require.Equal(t, map[string]int{"once": 1}, g.counts(3))
	})
}
