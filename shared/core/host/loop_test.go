package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/core/wire"
)

// recorder is a node.Server that records the calls of its methods. It answers
// every request at the next Flush.
type recorder struct {
	mu      sync.Mutex
	did     []string
	waiting []func()

	// flush is called by Flush, before the answers.
	flush func() error
}

func (s *recorder) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, what)
}

func (s *recorder) Tick() { s.note("tick") }

func (s *recorder) Receive(from uint64, line []byte) {
	s.note(fmt.Sprintf("n%d %.20s", from, line))
}

func (s *recorder) Request(r api.Request, reply func(api.Response)) {
	s.note("request " + r.Key)
	s.waiting = append(s.waiting, func() { reply(api.Response{Value: r.Key, HasValue: true}) })
}

func (s *recorder) Flush() error {
	s.note("flush")
	if s.flush != nil {
		if err := s.flush(); err != nil {
			return err
		}
	}
	for _, f := range s.waiting {
		f()
	}
	s.waiting = nil
	return nil
}

// count returns how often a method was called.
func (s *recorder) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.did {
		if d == what {
			n++
		}
	}
	return n
}

// world is a loop without sockets.
type world struct {
	*loop
	server recorder
	sent   []string

	mu   sync.Mutex
	said []string
	end  context.CancelFunc
	done chan error
}

func newWorld(sink trace.Sink) *world {
	w := &world{loop: newLoop(1, slog.New(slog.DiscardHandler), sink), done: make(chan error, 1)}
	w.push = func(f func()) { f() }
	w.link = func(to uint64, line []byte) bool {
		w.sent = append(w.sent, fmt.Sprintf("n%d %s", to, line))
		return to != 9
	}
	w.node = &w.server
	return w
}

func (w *world) start(t *testing.T) *world {
	var ctx context.Context
	ctx, w.end = context.WithCancel(t.Context())
	go func() { w.done <- w.run(ctx) }()
	return w
}

func (w *world) stop(t *testing.T) {
	w.end()
	require.NoError(t, <-w.done)
}

// ask puts a request into the inbox; its answer goes to said.
func (w *world) ask(key string) {
	w.request(api.Request{ID: 7, Op: kv.Get, Key: key}, func(r api.Response) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.said = append(w.said, string(r.AppendJSON(nil)))
	})
}

// All inputs that wait share one flush, and the answers leave after it. Messages
// of peers come first.
func TestInputsThatWaitShareAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		var early int
		w.server.flush = func() error {
			early += len(w.said)
			return nil
		}
		w.ask("a")
		w.receive(2, []byte("m"))
		w.ask("b")
		w.start(t)
		synctest.Wait()
		require.Equal(t, []string{"n2 m", "request a", "request b", "flush"}, w.server.did)
		require.Equal(t, []string{`{"id":7,"ok":true,"value":"a"}`, `{"id":7,"ok":true,"value":"b"}`}, w.said)
		require.Zero(t, early)
		w.stop(t)
	})
}

// Inputs that arrive during a slow flush wait, and share the next one.
func TestASlowDiskMakesLargeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.server.flush = func() error {
			time.Sleep(5 * time.Millisecond)
			return nil
		}
		w.start(t)
		for i := range 100 {
			w.ask(fmt.Sprint(i))
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		w.stop(t)
		require.Len(t, w.said, 100)
		require.Less(t, w.server.count("flush"), 10)
	})
}

// The answers that Flush gives are pushed together.
func TestAnswersOfABatchAreOnePush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		pushes := 0
		w.push = func(f func()) {
			pushes++
			f()
		}
		for range 10 {
			w.ask("a")
		}
		w.start(t)
		synctest.Wait()
		require.Len(t, w.said, 10)
		require.Equal(t, 1, pushes)
		time.Sleep(time.Second) // ticks without answers push nothing
		synctest.Wait()
		require.Equal(t, 1, pushes)
		w.stop(t)
	})
}

func TestTicksFollowTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil).start(t)
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		ticks, flushes := w.server.count("tick"), w.server.count("flush")
		w.stop(t)
		require.Equal(t, 1000, ticks)
		require.Equal(t, 1000, flushes)
	})
}

// A disk that takes 25 ms per round does not slow the server's clock down.
func TestTicksAreMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.server.flush = func() error {
			time.Sleep(25 * time.Millisecond)
			return nil
		}
		w.start(t)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		ticks := w.server.count("tick") // the loop may begin another round before it notices that it must stop
		w.stop(t)
		require.InDelta(t, 1000, ticks, 5)
	})
}

// A server that was suspended for long gets at most a few ticks at once, and the
// inputs that waited come before them.
func TestTicksAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		still := true
		w.server.flush = func() error {
			if still {
				still = false
				time.Sleep(time.Minute)
			}
			return nil
		}
		w.start(t)
		time.Sleep(30 * time.Second)
		w.receive(2, []byte("heartbeat"))
		time.Sleep(30*time.Second + 15*time.Millisecond)
		synctest.Wait()
		at := len(w.server.did)
		w.stop(t)
		did := strings.Join(w.server.did[:at], " ")
		require.True(t, strings.HasPrefix(did, "tick flush n2 heartbeat "), did)
		require.LessOrEqual(t, w.server.count("tick"), 1+1+most+1, did)
	})
}

func TestClock(t *testing.T) {
	start := time.Unix(1000, 0)
	c := clock{last: start}
	for _, s := range []struct {
		at   time.Duration
		want int
	}{
		{9 * time.Millisecond, 0},
		{10 * time.Millisecond, 1},
		{19 * time.Millisecond, 0},
		{35 * time.Millisecond, 2},
		{40 * time.Millisecond, 1},
		{79 * time.Millisecond, 3},
		{80 * time.Millisecond, 1},
		{time.Hour, 3},
		{time.Hour + 9*time.Millisecond, 0},
		{time.Hour + 10*time.Millisecond, 1},
	} {
		require.Equal(t, s.want, c.due(start.Add(s.at)), "%v", s.at)
	}
}

// If the disk fails, the loop answers no more requests, and goroutines that wait
// for the loop continue.
func TestFlushFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.server.flush = func() error {
			go func() {
				for range 3 { // the third waits for room, until the loop ends
					w.receive(2, make([]byte, maxBytes))
				}
			}()
			time.Sleep(time.Second)
			return errors.New("input/output error")
		}
		w.ask("a")
		w.start(t)
		err := <-w.done
		require.EqualError(t, err, "n1 stops, because its saved data cannot be trusted: input/output error")
		require.Empty(t, w.said)
		w.ask("b")
		require.Equal(t, []string{`{"id":7,"ok":false,"error":{"code":"unavailable","message":"the server is stopping; ` +
			`the request was not begun","definite":true}}`}, w.said)
		for range 3 {
			w.receive(2, make([]byte, maxBytes))
		}
		w.end()
	})
}

// A server whose file is deleted stops within a second, and it does not answer
// the requests of the round that notices this.
func TestAMissingFileStopsTheServer(t *testing.T) {
	d, err := disk.OpenFolder(t.TempDir(), disk.Options{})
	require.NoError(t, err)
	defer d.Close()
	f, err := d.Create("journal")
	require.NoError(t, err)
	defer f.Close()
	const what = "journal was deleted, moved or replaced while the server was running"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.disk = d
		w.start(t)
		time.Sleep(10*checkInterval + time.Millisecond)
		require.NoError(t, os.Remove(f.Name()))
		gone := time.Now()
		require.ErrorContains(t, <-w.done, what)
		require.Less(t, time.Since(gone), time.Second)
		w.end()
	})

	w := newWorld(nil)
	w.disk = d
	w.ask("a")
	require.ErrorContains(t, w.round(0), what)
	require.Equal(t, 1, w.server.count("flush"))
	require.Empty(t, w.said)
}

// A sync that is longer than the election timeout is logged, but not every time.
// A sync of work alongside the server is not logged, because it delays no
// heartbeat.
func TestASlowDiskIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w := newWorld(nil)
		w.syncs.log = textLog(&out)
		w.syncs.limit = 150 * time.Millisecond
		var wait, beside time.Duration
		w.server.flush = func() error {
			time.Sleep(wait)
			w.syncs.took("n1/journal", wait)
			w.syncs.took("n1/snapshot.written", beside)
			return nil
		}
		rounds := func(n int) int {
			out.Reset()
			for range n {
				require.NoError(t, w.round(1))
			}
			return strings.Count(out.String(), "fsync took longer than the election timeout")
		}
		wait, beside = 149*time.Millisecond, time.Second
		require.Zero(t, rounds(100))
		wait, beside = 600*time.Millisecond, time.Millisecond
		require.Equal(t, 1, rounds(10))
		require.Contains(t, out.String(), "file=n1/journal took=600ms election_timeout=150ms")
		require.Equal(t, 1, rounds(10), "after 10 seconds the next slow sync must be logged")
		w.syncs.limit = 0
		require.Zero(t, rounds(100), "without elections a slow sync must not be logged")
	})
}

// If the inbox is full, a request is refused with busy and does not wait.
func TestFullInboxIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		for range maxRequests {
			w.ask("a")
		}
		require.Empty(t, w.said)
		w.ask("b")
		require.Len(t, w.said, 1)
		require.Contains(t, w.said[0], `"code":"busy"`)
		require.Contains(t, w.said[0], `"definite":true`)
		w.start(t)
		synctest.Wait()
		require.Len(t, w.said, 1+maxRequests)
		w.ask("c")
		synctest.Wait()
		require.Equal(t, `{"id":7,"ok":true,"value":"c"}`, w.said[1+maxRequests])
		w.stop(t)
	})
}

// put requests to write a value of this many bytes.
func (w *world) put(bytes int) {
	w.request(api.Request{ID: 7, Op: kv.Put, Key: "k", Value: strings.Repeat("v", bytes)}, func(r api.Response) {
		w.said = append(w.said, string(r.AppendJSON(nil)))
	})
}

// A round has a bounded number of clients' requests, however many there are.
// Ticks come between rounds, and a peer's message waits for at most one round.
func TestRoundsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.server.flush = func() error {
			time.Sleep(node.TickInterval)
			return nil
		}
		const each = roundBytes / 8
		for range 80 {
			w.put(each)
		}
		w.start(t)
		time.Sleep(node.TickInterval / 2)
		w.receive(2, []byte("vote"))
		time.Sleep(time.Second)
		synctest.Wait()
		w.stop(t)
		require.Len(t, w.said, 80)
		var rounds [][]string
		round := []string{}
		for _, did := range w.server.did {
			if round = append(round, did); did == "flush" {
				rounds, round = append(rounds, round), nil
			}
		}
		for i, r := range rounds[:11] {
			puts := 0
			for _, did := range r {
				if did == "request k" {
					puts++
				}
			}
			require.LessOrEqual(t, puts*each, roundBytes)
			require.Positive(t, puts)
			if i > 0 {
				require.Contains(t, r, "tick", "round %d", i)
			}
		}
		require.Equal(t, "n2 vote", rounds[1][0])
	})
}

// The requests without an answer hold at most ServerBytes. One more request is
// refused, until others are answered.
func TestRequestsOfAllClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.budget = wire.NewBudget(1 << 20)
		for range 1000 {
			w.put(100 << 10)
		}
		require.LessOrEqual(t, w.budget.Used(), int64(1<<20))
		require.Len(t, w.said, 990)
		require.Equal(t, `{"id":7,"ok":false,"error":{"code":"busy","message":"requests and unread answers of all clients hold 1048576 bytes, `+
			`which is the limit; this request was not begun","definite":true}}`, w.said[0])
		w.start(t)
		synctest.Wait()
		require.Zero(t, w.budget.Used())
		w.put(100 << 10)
		synctest.Wait()
		require.Equal(t, `{"id":7,"ok":true,"value":"k"}`, w.said[1000])
		w.stop(t)
	})
}

// If too many messages wait for the loop, the peers must wait, and no message is
// lost.
func TestFullInboxHoldsPeersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		delivered := 0
		go func() {
			for range 10 {
				w.receive(2, make([]byte, maxBytes/4))
				delivered++
			}
		}()
		synctest.Wait()
		require.Equal(t, 5, delivered)
		w.start(t)
		synctest.Wait()
		require.Equal(t, 10, delivered)
		w.stop(t)
		messages := 0
		for _, d := range w.server.did {
			if strings.HasPrefix(d, "n2 ") {
				messages++
			}
		}
		require.Equal(t, 10, messages)
	})
}

// A cut drops both directions, to and from that peer only.
func TestCutAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil).start(t)
		step := func(to uint64, line string) {
			l := []byte(line)
			w.work(func() error { return nil }, func(error) { w.send(to, l) })
			w.receive(to, l)
			synctest.Wait()
		}
		step(2, "a")
		w.cut(2, true)
		step(2, "b")
		step(3, "c")
		w.cut(2, false)
		w.cut(3, false)
		step(2, "d")
		w.stop(t)
		require.Equal(t, []string{"n2 a", "n3 c", "n2 d"}, w.sent)
		require.Equal(t, []int{1, 0, 1, 1}, []int{
			w.server.count("n2 a"), w.server.count("n2 b"), w.server.count("n3 c"), w.server.count("n2 d")})
	})
}

// Work runs alongside the server; its end is an input of the loop.
func TestWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil).start(t)
		w.work(func() error {
			time.Sleep(time.Second)
			return errors.New("no space")
		}, func(err error) { w.server.note("done: " + err.Error()) })
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		require.Zero(t, w.server.count("done: no space"))
		require.Equal(t, 99, w.server.count("tick"), "the server must continue meanwhile")
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, w.server.count("done: no space"))
		w.stop(t)
		require.Equal(t, "flush", w.server.did[len(w.server.did)-1])
	})
}

// The host traces the events of its own.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		w := newWorld(func(e trace.Event) {
			events = append(events, strings.TrimSpace(fmt.Sprintf("%v n%d %s %d>%d %s %s", e.At, e.Node, e.Kind, e.From, e.To, e.Message, e.Text)))
		})
		w.sink()(trace.Event{Kind: trace.Role, Text: "leader"})
		w.ask("x")
		w.receive(2, []byte("m"))
		w.cut(2, true)
		w.receive(2, []byte("lost"))
		w.work(func() error { return nil }, func(error) {
			w.send(2, []byte("lost too"))
			w.send(3, []byte("hello"))
			w.send(9, []byte("too much"))
		})
		synctest.Wait()
		w.cut(2, false)
		time.Sleep(time.Millisecond)
		w.start(t)
		synctest.Wait()
		w.stop(t)
		require.Equal(t, []string{
			`0s n1 role 0>0  leader`,
			`1ms n1 deliver 2>1 m`,
			`1ms n1 cut 1>2`,
			`1ms n1 drop 2>1 lost cut`,
			`1ms n1 drop 1>2 lost too cut`,
			`1ms n1 send 1>3 hello`,
			`1ms n1 send 1>9 too much`,
			`1ms n1 drop 1>9  the link's queue is full, or there is no such link`,
			`1ms n1 heal 1>2`,
			`1ms n1 request 0>0 {"id":7,"op":"get","key":"x"}`,
			`1ms n1 reply 0>0 {"id":7,"ok":true,"value":"x"}`,
			`1ms n1 stop 0>0  it was asked to`,
		}, events)
	})
}

// silent is a server that answers at once and stores nothing.
type silent struct{}

func (silent) Tick()                                           {}
func (silent) Receive(uint64, []byte)                          {}
func (silent) Request(r api.Request, reply func(api.Response)) { reply(api.Response{}) }
func (silent) Flush() error                                    { return nil }

var _ node.Server = silent{}

// BenchmarkRound measures the time that the loop adds to a request, in batches of
// 64.
func BenchmarkRound(b *testing.B) {
	w := newWorld(nil)
	w.node = silent{}
	answered := 0
	reply := func(api.Response) { answered++ }
	r := api.Request{ID: 7, Op: kv.Put, Key: "k1234", Value: "v"}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += 64 {
		for range 64 {
			w.request(r, reply)
		}
		if err := w.round(0); err != nil {
			b.Fatal(err)
		}
	}
	if answered < b.N {
		b.Fatal("not all were answered")
	}
}

// A cut also drops the messages that are on their way, in both directions.
func TestACutDropsMessagesInTransit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(nil)
		w.start(t)
		w.cut(2, true)
		synctest.Wait()
		w.receive(2, []byte("late"))
		w.receive(3, []byte("m"))
		synctest.Wait()
		require.Zero(t, w.server.count("n2 late"))
		require.Equal(t, 1, w.server.count("n3 m"))
		w.send(2, []byte("x"))
		w.send(3, []byte("x"))
		require.Equal(t, []string{"n3 x"}, w.sent)
		w.cut(2, false)
		synctest.Wait()
		w.receive(2, []byte("after"))
		synctest.Wait()
		require.Equal(t, 1, w.server.count("n2 after"))
		w.stop(t)
	})
}

// A watch waits for half a second or longer, and most of the time there is nothing to
// tell: hundreds of clients that watch must not keep the others out.
func TestWatchesThatWaitLeaveRoomForOthers(t *testing.T) {
	w := newWorld(nil)
	w.budget = wire.NewBudget(wire.DefaultLimits().ServerBytes)
	for range 5000 {
		w.request(api.Request{Op: api.Watch}, func(r api.Response) { require.Nil(t, r.Error) })
	}
	w.request(api.Request{Op: kv.Put, Key: "x"}, func(r api.Response) { require.Nil(t, r.Error) })
}
