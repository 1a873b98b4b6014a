package wire

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

func TestBudget(t *testing.T) {
	b := NewBudget(10)
	require.True(t, b.Take(7))
	require.False(t, b.Take(4))
	require.True(t, b.Take(3))
	b.Add(5)
	require.EqualValues(t, 15, b.Used())
	b.Give(6)
	require.False(t, b.Take(2))
	require.True(t, b.Take(1))
}

// A client that requests long values and does not read them makes the server hold
// at most ConnBytes. When it reads, it gets all answers.
func TestUnreadGetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gets = 1024
		ln := newPipes()
		s := &Server{Ops: api.Commands(), Limits: Limits{ConnBytes: 1 << 20, ServerBytes: 4 << 20}}
		value := strings.Repeat("v", kv.MaxValue)
		var asked atomic.Int64
		s.Handler = func(r api.Request, reply func(api.Response)) {
			asked.Add(1)
			go reply(api.Response{Value: value, HasValue: true})
		}
		r := serve(t, s, ln)
		c := r.dial()
		go func() {
			for i := range gets {
				fmt.Fprintf(c.c, `{"id":%d,"op":"get","key":"x"}`+"\n", i+1)
			}
		}()
		synctest.Wait()
		// There are fewer if the reader has begun to write an answer.
		require.LessOrEqual(t, asked.Load(), int64(1<<20/kv.MaxValue)-1, "a request counts with its own bytes and with room for its answer")
		require.NotZero(t, asked.Load())
		require.LessOrEqual(t, s.Budget.Used(), int64(1<<20))
		for range gets {
			require.Contains(t, c.line(), value)
		}
		synctest.Wait()
		require.Zero(t, s.Budget.Used())
		require.NoError(t, r.end())
	})
}

// The goroutine that answers does not encode the answer.
func TestAnswersAreEncodedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPending()
		s := &Server{Ops: api.Commands(), Handler: p.handle}
		r := serve(t, s, newPipes())
		c := r.dial()
		c.send(get2)
		synctest.Wait()
		_, reply := p.next()
		answering := true
		s.Batch(func() {
			reply(api.Response{Later: func(b []byte) []byte {
				require.False(t, answering)
				return append(b, `[1,2]`...)
			}})
			synctest.Wait()
			answering = false
		})
		require.Equal(t, `{"id":2,"ok":true,"data":[1,2]}`, c.line())
		require.NoError(t, r.end())
	})
}

// While more than half of ServerBytes is used, a connection may use only an
// eighth of ConnBytes. Further requests wait, and are not refused.
func TestShareOfAConnectionShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 10 << 10
		p := newPending()
		s := &Server{Ops: api.Commands(), Handler: p.handle, Limits: Limits{ConnBytes: 800 << 10, ServerBytes: 8 << 20}}
		r := serve(t, s, newPipes())
		fill := func() (begun int) {
			c, before := r.dial(), len(p.requests)
			go func() {
				for i := range 200 {
					fmt.Fprintf(c.c, `{"id":%d,"op":"put","key":"x","value":"%s"}`+"\n", i+1, strings.Repeat("v", each))
				}
			}()
			synctest.Wait()
			return len(p.requests) - before
		}
		require.Equal(t, (800<<10)/(each+257), fill())
		s.Budget.Add(4<<20 + 1)
		require.Equal(t, (100<<10)/(each+257), fill())
		require.NoError(t, r.end())
	})
}

// When the answers that clients do not read reach ServerBytes, the server refuses
// reads and still answers writes. After those clients have left, it holds nothing
// for them.
func TestUnreadAnswersOfAllClientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		s := &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{ServerBytes: 1 << 20, Write: time.Hour}}
		r := serve(t, s, ln)
		writer := r.dial()
		writer.send(`{"op":"put","key":"x","value":"` + strings.Repeat("v", kv.MaxValue) + `"}` + "\n")
		writer.line()
		var silent []*peerEnd
		for range 20 {
			c := r.dial()
			c.send(get2)
			silent = append(silent, c)
		}
		synctest.Wait()
		require.Less(t, s.Budget.Used(), int64(1<<20+kv.MaxValue+100_000))
		writer.send(get2)
		require.Contains(t, writer.line(), `{"id":2,"ok":false,"error":{"code":"busy","message":"requests and unread answers of all clients hold 1048576 bytes`)
		writer.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, writer.line())
		for _, c := range silent {
			require.NoError(t, c.c.Close())
		}
		synctest.Wait()
		require.Zero(t, s.Budget.Used())
		require.NoError(t, r.end())
	})
}

// Long lines that are still arriving may hold ServerBytes; one more is refused.
func TestLongLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{ServerBytes: 1 << 20}}
		r := serve(t, s, newPipes())
		start := `{"op":"put","key":"x","value":"` + strings.Repeat("v", kv.MaxValue)
		var open []*peerEnd
		for range 5 {
			c := r.dial()
			c.send(start)
			open = append(open, c)
		}
		require.LessOrEqual(t, s.long.Used(), int64(1<<20))
		late := r.dial()
		go func() { _, _ = io.WriteString(late.c, start) }()
		require.Contains(t, late.line(), `{"ok":false,"error":{"code":"busy","message":"long lines that are still arriving hold 1048576 bytes`)
		for _, c := range open[1:] {
			require.NoError(t, c.c.Close())
		}
		open[0].send(`"}` + "\n")
		require.Equal(t, `{"ok":true}`, open[0].line())
		require.NoError(t, open[0].c.Close())
		synctest.Wait()
		require.Zero(t, s.long.Used())
		require.NoError(t, r.end())
	})
}

// A client beyond PerAddress is refused and learns why, and there is still room
// for clients from other addresses.
func TestShareOfAnAddress(t *testing.T) {
	var log logged
	s := &Server{Ops: api.Commands(), Handler: store(), Limits: Limits{Conns: 4, PerAddress: 2}, Log: log.logger()}
	r := serve(t, s, listen(t))
	from := func(ip string) (string, *peerEnd) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", r.ln.Addr().String())
		if err != nil {
			t.Skipf("this machine has no address %s: %v", ip, err)
		}
		t.Cleanup(func() { c.Close() })
		e := &peerEnd{t: t, c: c, in: bufReader(c)}
		e.send(put1)
		return e.line(), e
	}
	const ok = `{"id":1,"ok":true}`
	first, e := from("127.0.0.1")
	require.Equal(t, ok, first)
	second, _ := from("127.0.0.1")
	require.Equal(t, ok, second)
	for range 50 {
		third, _ := from("127.0.0.1")
		require.Contains(t, third, "this server accepts 4 clients, at most 2 from one address, and cannot accept this one now")
	}
	other, _ := from("127.0.0.2")
	require.Equal(t, ok, other)
	require.NoError(t, e.c.Close())
	require.Eventually(t, func() bool {
		line, _ := from("127.0.0.1")
		return line == ok
	}, 5*time.Second, time.Millisecond, "a client that leaves must make room for another")
	require.LessOrEqual(t, strings.Count(log.String(), "further clients are refused"), 2, "one line per second")
	require.NoError(t, r.end())
}

func TestAddressOf(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1:5":                 "10.0.0.1",
		"[::ffff:10.0.0.1]:5":        "10.0.0.1",
		"[2001:db8:1:2:3:4:5:6]:5":   "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1]:77":  "2001:db8:1:2::/64",
		"[fe80::1:2:3:4%eth0]:10000": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		require.NoError(t, err)
		require.Equal(t, want, addressOf(a), address)
	}
	require.Empty(t, addressOf(&net.UnixAddr{}))
}

// Clients that refill every free place at once cannot keep peers out: a peer that
// starts still finds room.
func TestAFloodCannotKeepPeersOut(t *testing.T) {
	limits := Limits{Conns: 64, Newcomers: 16}
	var got received
	s := member1(&got, &logged{})
	s.Limits = limits
	r := serve(t, s, listen(t))
	address := r.ln.Addr().String()
	over := make(chan struct{})
	var full sync.WaitGroup
	var flood sync.WaitGroup
	full.Add(limits.Conns)
	for i := range limits.Conns + 4*limits.Newcomers {
		flood.Go(func() {
			for first := true; ; first = false {
				c, err := net.Dial("tcp", address)
				if err != nil {
					return
				}
				if first && i < limits.Conns {
					full.Done()
				}
				ended := make(chan struct{})
				go func() {
					_, _ = io.Copy(io.Discard, c)
					close(ended)
				}()
				select {
				case <-ended:
					c.Close()
				case <-over:
					c.Close()
					<-ended
					return
				}
			}
		})
	}
	full.Wait()
	const peers = 10
	for id := range uint64(peers) {
		k := NewLink(LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: id + 2, Address: "127.0.0.1:1"}, To: 1, Address: address, Log: slog.New(slog.DiscardHandler)})
		end := runLink(t, k)
		text := fmt.Sprintf(`{"hello":%d}`, id)
		require.Eventually(t, func() bool {
			// The test sends again, as a server does, because the messages that
			// wait while an attempt to connect fails are lost.
			k.Send([]byte(text))
			return strings.Contains(strings.Join(got.all(), "\n"), text)
		}, 10*time.Second, 5*time.Millisecond, "n%d was kept out", id+2)
		end()
	}
	close(over)
	flood.Wait()
	require.NoError(t, r.end())
}

// There are never more than Limits.Newcomers newcomers, however fast they
// connect: each one takes a file that the server may need elsewhere.
func TestUnidentifiedConnectionsAreBounded(t *testing.T) {
	const newcomers, all = 8, 100
	s := member1(&received{}, &logged{})
	s.Limits = Limits{Conns: 1, Newcomers: newcomers}
	r := serve(t, s, listen(t))
	var conns []*peerEnd
	for range all {
		conns = append(conns, r.dial())
	}
	for _, c := range conns[1 : all-newcomers] {
		require.Contains(t, c.line(), `"code":"busy"`)
		s.mu.Lock()
		require.LessOrEqual(t, len(s.newcomers), newcomers)
		require.LessOrEqual(t, len(s.conns), newcomers+1)
		s.mu.Unlock()
	}
	require.NoError(t, r.end())
}

// A client beyond Conns that speaks HTTP is refused in HTTP.
func TestHTTPConnectionsAreBounded(t *testing.T) {
	s := member1(&received{}, &logged{})
	s.Limits = Limits{Conns: 1}
	s.HTTP = http.NewServeMux()
	r := serve(t, s, listen(t))
	r.dial()
	require.Eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.count[client] == 1 }, 5*time.Second, time.Millisecond)
	a, err := http.Get("http://" + r.ln.Addr().String() + "/livez")
	require.NoError(t, err)
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	require.Contains(t, string(body), `"code":"busy"`)
	require.NoError(t, r.end())
}

func TestFilesAreKeptForDiskAndPeers(t *testing.T) {
	for _, x := range []struct{ files, conns, newcomers int }{
		{64, 24, 10}, {256, 160, 24}, {1024, 640, 96}, {4096, 3712, 96}, {4480, 4096, 96}, {1 << 20, 4096, 96}, {20, 1, 10},
	} {
		var log logged
		l := DefaultLimits()
		l.fitFiles(x.files, log.logger())
		require.Equal(t, []int{x.conns, x.newcomers, max(1, x.conns/2)}, []int{l.Conns, l.Newcomers, l.PerAddress}, x.files)
		require.Equal(t, x.conns < 4096, strings.Contains(log.String(), "may open only few files"), x.files)
	}
}
