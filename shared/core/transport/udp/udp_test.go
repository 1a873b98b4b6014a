package udp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/version"
)

// A stranger gets no answer, whatever it sends: nothing that is not complete and
// genuine in every bit.
func TestStrangersGetNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		var hello, message parcel
		for _, p := range n.record() {
			switch {
			case p.b[0] == kindHello && p.to == place(2):
				hello = p
			case p.b[0] == kindMessage && p.to == place(2) && len(p.b) < 100:
				message = p
			}
		}
		a.end()
		stranger := n.socket(place(99))
		send := func(bytes []byte) { _, _ = stranger.WriteToUDPAddrPort(bytes, place(2)) }
		for _, p := range []parcel{hello, message} {
			for i := range p.b {
				for bit := range 8 {
					forged := bytes.Clone(p.b)
					forged[i] ^= 1 << bit
					send(forged)
				}
				send(p.b[:i])
			}
			send(append(bytes.Clone(p.b), 0))
		}
		rng := rand.New(rand.NewPCG(1, 1))
		for range 2000 {
			junk := make([]byte, rng.IntN(1500))
			for i := range junk {
				junk[i] = byte(rng.Uint32())
			}
			if len(junk) > 0 {
				junk[0] = byte(1 + rng.IntN(5))
			}
			send(junk)
		}
		b.connect() // it has nothing to say by itself
		pass(time.Second)
		for _, p := range n.record() {
			require.NotEqual(t, place(99), p.to, "an answer to a stranger: % x", p.b)
		}
		require.Len(t, stranger.in, 0)
		require.Empty(t, b.took())
		in, _ := b.sessions()
		require.Equal(t, 1, in)
		b.look(func() { require.Len(t, b.peers, 1) })
		require.Contains(t, b.log.String(), "its sender does not know the secret of this cluster")
		b.end()
	})
}

// Nobody but the peer can answer a hello, and no other hello can be answered with a
// recorded answer.
func TestForgedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		var first []byte // a genuine answer to another hello
		replace, bit := false, 0
		n.whenever(func(b []byte, _, to netip.AddrPort) bool {
			switch {
			case b[0] != kindAnswer || to != place(1):
			case first == nil:
				first = bytes.Clone(b)
				return false
			case replace:
				copy(b[headLen:], first[headLen:])
			default:
				b[bit/8%len(b)] ^= 1 << (bit % 8)
				bit += 11
			}
			return true
		})
		a, b := n.start(t, 1, nil).run(2), n.start(t, 2, nil).run()
		pass(10 * time.Minute)
		require.True(t, a.out(2) == nil)
		n.mu.Lock()
		require.Greater(t, bit, 8*answerLen)
		replace = true
		n.mu.Unlock()
		pass(10 * time.Second)
		require.True(t, a.out(2) == nil)
		n.whenever(nil)
		pass(5 * time.Second)
		require.True(t, a.out(2) != nil)
		a.end()
		b.end()
	})
}

// An old hello is not answered, and even one who knows the secret cannot make a
// server hold many sessions.
func TestManyHellos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil).run()
		a.rekey = 20
		a.run(2)
		for i := range 100 {
			a.Send(2, fmt.Append(nil, i))
			pass(10 * time.Millisecond)
		}
		all := n.record()
		require.Greater(t, count(all, kindHello), 3)
		for _, p := range all[:len(all)-100] { // the present hello may be answered again
			if p.b[0] == kindHello && p.to == place(2) {
				n.deliver(p)
			}
		}
		pass(100 * time.Millisecond)
		require.Zero(t, count(n.record(), kindAnswer))

		stranger := n.socket(place(9))
		for i := range uint64(100) {
			h := hello{can: a.can, from: 1, to: 2, start: 77, number: i, cluster: a.cluster}
			_, _ = stranger.WriteToUDPAddrPort(h.encode(a.keys), place(2))
		}
		pass(time.Second)
		in, _ := b.sessions()
		require.LessOrEqual(t, in, 2+maxPending)
		require.Equal(t, 100, count(n.record(), kindAnswer))
		a.Send(2, []byte("hello"))
		pass(time.Second)
		got := b.took()
		require.Equal(t, "n1 hello", got[len(got)-1])
		a.end()
		b.end()
	})
}

// No answer is longer than what it answers.
func TestNoAmplification(t *testing.T) {
	k, err := newKeys("s")
	require.NoError(t, err)
	one := version.Between(1, 1)
	hello := hello{can: one, from: 1, to: 2}.encode(k)
	require.Len(t, hello, helloLen)
	require.LessOrEqual(t, len(answer{}.encode(k, hello)), len(hello))
	r := refusal{can: one, reason: otherCluster, name: strings.Repeat("x", 500)}.encode(k, hello)
	require.LessOrEqual(t, len(r), len(hello))
	require.True(t, genuine(k.answer, hello, r))
	got, ok := decodeRefusal(r)
	require.True(t, ok)
	require.Len(t, got.name, maxName)
}

// A recording cannot be used: no message is accepted twice, also not
// after its receiver has started again, and a hello that comes again changes
// nothing.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		for i := range 100 {
			require.True(t, a.Send(2, fmt.Append(nil, "message ", i)))
		}
		pass(time.Second)
		require.Len(t, b.took(), 100)
		recorded := n.record()
		replay := func() {
			for _, p := range recorded {
				n.deliver(p)
			}
			pass(100 * time.Millisecond)
		}
		before := a.out(2)
		replay()
		require.Empty(t, b.took())
		require.Empty(t, a.took())
		require.Equal(t, before.index, a.out(2).index, "the session goes on")
		require.True(t, a.Send(2, []byte("more")))
		pass(time.Second)
		require.Equal(t, []string{"n1 more"}, b.took())

		b.end()
		b = n.start(t, 2, nil).run() // it does not know n1
		replay()
		require.Empty(t, b.took())
		_, _, opened := b.in(1)
		require.False(t, opened, "the recorded hello opens no session that counts")
		for range 20 {
			replay()
		}
		sessions, _ := b.sessions()
		require.LessOrEqual(t, sessions, maxPending+2)
		pass(5 * time.Second)
		require.True(t, a.Send(2, []byte("again")))
		pass(time.Second)
		require.Contains(t, b.took(), "n1 again")
		a.end()
		b.end()
	})
}

// Somebody who has recorded the hellos of many starts of a server, and repeats all of
// them all the time, does not keep it out.
func TestOldHellosKeepNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		var recorded []parcel
		for range 3 * maxPending {
			a := n.start(t, 1, nil).run(2)
			pass(20 * time.Millisecond)
			a.end()
			for _, p := range n.record() {
				if p.b[0] == kindHello {
					recorded = append(recorded, p)
				}
			}
		}
		require.GreaterOrEqual(t, len(recorded), 3*maxPending)
		a, b := n.start(t, 1, nil), n.start(t, 2, nil).run()
		n.whenever(func(b []byte, from, to netip.AddrPort) bool {
			if to == place(2) && from == place(1) { // the repeated ones arrive first
				for _, p := range recorded {
					n.arrive(p)
				}
			}
			return true
		})
		a.run(2)
		pass(time.Second)
		for i := range 5 {
			a.Send(2, fmt.Append(nil, "message ", i))
			pass(time.Second)
		}
		require.Contains(t, b.took(), "n1 message 4")
		a.end()
		b.end()
	})
}

// What a hello has opened is forgotten if nothing follows.
func TestOpenedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil).run()
		for i := range uint64(3) {
			h := hello{can: a.can, from: 1, to: 2, start: 1 << 63, number: i + 1, cluster: a.cluster}
			n.deliver(parcel{h.encode(a.keys), place(9), place(2)})
		}
		pass(time.Millisecond)
		in, _ := b.sessions()
		require.Equal(t, 3, in)
		pass(pendingTime + 2*time.Second)
		in, _ = b.sessions()
		require.Zero(t, in)
		b.look(func() { require.Empty(t, b.peers[1].pending) })
		b.end()
	})
}

// A message that was changed on its way is dropped.
func TestChangedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		i := 0
		n.whenever(func(b []byte, _, to netip.AddrPort) bool {
			if b[0] == kindMessage && to == place(2) {
				b[i%len(b)] ^= 1 << (i % 8)
				i++
			}
			return true
		})
		for i := range 200 {
			a.Send(2, fmt.Append(nil, "message ", i))
			pass(time.Millisecond)
		}
		require.Empty(t, b.took())
		n.whenever(nil)
		pass(5 * time.Second)
		a.Send(2, []byte("hello"))
		pass(time.Second)
		got := b.took() // with some that waited meanwhile
		for _, m := range got[:len(got)-1] {
			require.Regexp(t, `^n1 message [0-9]+$`, m)
		}
		require.Equal(t, "n1 hello", got[len(got)-1])
		a.end()
		b.end()
	})
}

// A session ends after an hour, or after so many datagrams. No message is lost, and
// no key is used longer.
func TestNewKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil).run(1)
		a.rekey = 50
		a.run(2)
		pass(time.Second)
		sessions := map[uint32]bool{}
		for i := range 500 {
			a.Send(2, fmt.Append(nil, i))
			pass(5 * time.Millisecond)
			sessions[a.out(2).index] = true
			require.Less(t, a.out(2).sent, uint64(50+10))
		}
		require.Len(t, b.took(), 500)
		require.Greater(t, len(sessions), 8)

		first := b.out(1)
		pass(rekeyAge + time.Minute)
		require.NotEqual(t, first.index, b.out(1).index)
		b.Send(1, []byte("hello"))
		pass(time.Second)
		require.Equal(t, []string{"n2 hello"}, a.took())
		in, out := b.sessions()
		require.LessOrEqual(t, in, 2+maxPending)
		require.Equal(t, 1, out)
		a.end()
		b.end()
	})
}

// A long message is sent in datagrams of 1,200 bytes until longer ones have proved
// to arrive, and in shorter ones again when they no longer do.
func TestSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		n.longest = 1472 // Ethernet
		long := bytes.Repeat([]byte("x"), 100_000)
		// longest returns the longest datagram that was sent more often than one that
		// only tries a length.
		longest := func() (most int) {
			times := map[int]int{}
			for _, p := range n.record() {
				if p.b[0] == kindMessage && p.from == place(1) {
					if times[len(p.b)]++; times[len(p.b)] > probeTries {
						most = max(most, len(p.b))
					}
				}
			}
			return most
		}
		a, b := n.start(t, 1, nil).run(2), n.start(t, 2, nil).run(1)
		pass(3 * time.Millisecond) // hello, answer, the first ask
		a.Send(2, long)
		pass(time.Millisecond)
		require.LessOrEqual(t, longest(), baseSize)
		pass(2 * time.Second)
		require.Len(t, b.took(), 1)
		require.Equal(t, 1452, a.out(2).size)
		longest()
		a.Send(2, long)
		pass(time.Second)
		require.Len(t, b.took(), 1)
		require.InDelta(t, 1452, longest(), 5)

		n.mu.Lock()
		n.longest = 1300 // a tunnel
		n.mu.Unlock()
		for range 10 {
			a.Send(2, long)
			pass(time.Second)
		}
		require.NotEmpty(t, b.took())
		require.Equal(t, baseSize, a.out(2).size)
		a.end()
		b.end()
	})
}

// If the system says that a datagram is too long, no longer one is tried.
func TestSizesThatTheSystemRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		n.longest, n.tells = 8972, true
		a, b := pair(t, n)
		pass(time.Second)
		require.Equal(t, 8952, a.out(2).size)
		l := a.linkTo(2)
		l.mu.Lock()
		require.Zero(t, l.losses.share())
		l.mu.Unlock()
		n.mu.Lock()
		n.longest = 1472
		n.mu.Unlock()
		for range 3 {
			a.Send(2, bytes.Repeat([]byte("x"), 100_000))
			pass(time.Second)
		}
		require.Len(t, b.took(), 2, "the first shows that the datagrams are too long")
		require.Equal(t, baseSize, a.out(2).size)
		a.end()
		b.end()
	})
}

// However much several peers have to send at once, and however slow the receiver
// is, its socket's buffer does not overflow.
func TestBurstsFitTheBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		n.room = 128 << 10
		b := n.start(t, 1, nil).run(2, 3, 4)
		b.slow = 5 * time.Millisecond
		var others []*station
		for id := range uint64(3) {
			others = append(others, n.start(t, id+2, nil).run(1))
		}
		pass(time.Second)
		for i := range 200 {
			for _, o := range others {
				o.Send(1, bytes.Repeat([]byte{byte(i)}, 10+i*100))
			}
		}
		pass(time.Minute)
		n.mu.Lock()
		require.Zero(t, n.overflows)
		n.mu.Unlock()
		require.Len(t, b.took(), 600)
		for _, s := range append(others, b) {
			s.end()
		}
	})
}

// A long message of which a part is missing is dropped, and others arrive.
func TestMissingPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		n.longest = baseSize
		a, b := pair(t, n)
		lost := 0
		n.whenever(func(b []byte, _, to netip.AddrPort) bool {
			if b[0] == kindMessage && to == place(2) && len(b) > 1000 && lost == 0 {
				lost++
				return false
			}
			return true
		})
		a.Send(2, bytes.Repeat([]byte("x"), 50_000))
		a.Send(2, []byte("short"))
		pass(time.Second)
		n.mu.Lock()
		require.Equal(t, 1, lost)
		n.mu.Unlock()
		require.Equal(t, []string{"n1 short"}, b.took())
		messages, _, _ := b.in(1)
		require.Equal(t, 1, messages)
		pass(maxAge + 2*time.Second)
		messages, held, _ := b.in(1)
		require.Zero(t, messages+held)
		a.Send(2, bytes.Repeat([]byte("x"), 50_000))
		pass(time.Second)
		require.Len(t, b.took(), 1)
		a.end()
		b.end()
	})
}

// While many datagrams are lost, long messages arrive in spite of that.
func TestLongMessagesThroughLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		n.longest = baseSize
		a, b := pair(t, n)
		rng := rand.New(rand.NewPCG(1, 2))
		n.whenever(func([]byte, netip.AddrPort, netip.AddrPort) bool { return rng.Float64() >= 0.2 })
		arrived := 0
		for range 40 {
			a.Send(2, bytes.Repeat([]byte("x"), 100_000))
			pass(3 * time.Second)
			arrived += len(b.took())
		}
		require.Greater(t, arrived, 32)
		a.end()
		b.end()
	})
}

// A part is sent as often as it takes, but not more than maxCopies times.
func TestCopies(t *testing.T) {
	for _, c := range []struct {
		loss        float64
		bytes, want int
	}{{0, 8 << 20, 1}, {0.001, 10_000, 1}, {0.001, 1 << 20, 2}, {0.01, 5_000, 1}, {0.01, 20_000, 2}, {0.2, 5_000, 3}, {0.2, 1 << 20, 6}, {0.9, 1 << 20, 6}} {
		l := &link{losses: losses{sent: 1000, got: 1000 * (1 - c.loss)}}
		p := l.split(make([]byte, c.bytes), &outbound{size: baseSize})
		require.Equal(t, c.want, p.copies, "%+v", c)
		require.Less(t, (p.count-1)*p.size, c.bytes)
		require.GreaterOrEqual(t, p.count*p.size, c.bytes)
		require.LessOrEqual(t, p.size, baseSize-sealLen-1-fragmentHead)
	}
}

// A peer that is not named any longer, and is silent, is forgotten; one that is not
// named, but sends, is answered.
func TestPeersThatAreNotNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := n.start(t, 1, nil).run(), n.start(t, 2, nil).run(1)
		require.False(t, a.Send(2, []byte("nobody")))
		b.Send(1, []byte("question"))
		pass(time.Second)
		require.Equal(t, []string{"n2 question"}, a.took())
		require.True(t, a.Send(2, []byte("answer")))
		pass(time.Minute)
		require.Equal(t, []string{"n1 answer"}, b.took())
		require.True(t, a.out(2) != nil, "a connection that nobody uses stays open")
		b.end()
		pass(2 * quiet)
		require.False(t, a.Send(2, []byte("nobody")))
		a.look(func() { require.Zero(t, a.linked+a.connected) })
		_, out := a.sessions()
		require.Zero(t, out)
		n.record()
		pass(time.Hour)
		require.Empty(t, n.record())
		a.end()
	})
}

// A server notices within two seconds that a peer has started again that does not
// know it.
func TestPeerThatForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		b.end()
		b = n.start(t, 2, nil).run()
		a.Send(2, []byte("lost"))
		pass(2 * time.Second)
		b.took()
		a.Send(2, []byte("found"))
		pass(time.Second)
		require.Equal(t, []string{"n1 found"}, b.took())
		a.end()
		b.end()
	})
}

// A peer that starts again is found at once, because it says hello.
func TestPeerThatStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		b.end()
		b = n.start(t, 2, nil).run(1)
		pass(10 * time.Millisecond)
		a.Send(2, []byte("hello"))
		pass(5 * time.Millisecond)
		require.Equal(t, []string{"n1 hello"}, b.took())
		a.end()
		b.end()
	})
}

// A peer that does not read is sent no more than fits into its socket's buffer. It
// gets the newest messages when it reads again.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		b.slow = 10 * time.Minute
		a.Send(2, []byte("sleep"))
		pass(time.Millisecond)
		n.record()
		for i := range 100 {
			a.Send(2, fmt.Append(bytes.Repeat([]byte("x"), 50_000), i))
			pass(10 * time.Millisecond)
		}
		sent := 0
		for _, p := range n.record() {
			sent += weight(len(p.b))
		}
		require.Less(t, sent, n.room)
		n.mu.Lock()
		require.Zero(t, n.overflows)
		n.mu.Unlock()
		pass(time.Minute)
		for _, p := range n.record() {
			require.Less(t, len(p.b), 200)
		}
		a.end()
		b.end()
	})
}

// A peer that is away costs a hello a second, and no memory. When it is back, it
// does not have to read old messages.
func TestPeerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		b.end()
		n.record()
		for range 60 {
			a.Send(2, bytes.Repeat([]byte("x"), 100_000))
			pass(time.Second)
		}
		all := n.record()
		require.Less(t, count(all, kindHello), 120)
		require.Less(t, len(all), 400)
		l := a.linkTo(2)
		l.mu.Lock()
		require.Less(t, l.bytes, 1<<20)
		l.mu.Unlock()
		require.Equal(t, 1, strings.Count(a.log.String(), "no answer from a peer over UDP"))
		b = n.start(t, 2, nil).run(1)
		pass(time.Second)
		require.LessOrEqual(t, len(b.took()), 2)
		a.end()
		b.end()
	})
}

// Two processes with one ID are noticed, by their peers and by each other.
func TestOneIDTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := pair(t, n)
		twin := n.startAt(t, 2, place(22), nil).run(1)
		pass(time.Second)
		b.stop() // and starts again with what it remembers: the same start
		<-b.done
		again := n.start(t, 2, nil)
		again.Transport.start = b.Transport.start
		again.hellos.Store(1000)
		again.run(1)
		pass(time.Second)
		require.Equal(t, 1, strings.Count(a.log.String(), "a peer runs twice"), a.log.String())

		self := n.startAt(t, 1, place(11), nil).run()
		self.Connect(members(3, place(1).String()))
		other := n.startAt(t, 1, place(12), nil).run()
		other.Connect(members(2, place(1).String()))
		pass(time.Second)
		require.Contains(t, self.log.String(), "n1 wants to reach n3, but this is n1: correct the address that n1 has for n3")
		for _, s := range []*station{a, twin, again, self, other} {
			s.end()
		}
	})
}

// Servers that cannot work together say why, on both sides.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a := n.start(t, 1, nil).run()
		b := n.start(t, 2, func(o *transport.Options) { o.Cluster = "south" }).run(1)
		pass(2 * time.Second)
		require.Contains(t, b.log.String(), `the peer refuses: n1 belongs to cluster \"north\", n2 to cluster \"south\"`)
		require.Equal(t, 1, strings.Count(b.log.String(), "refuses"))
		require.Contains(t, a.log.String(), `n2 belongs to another cluster, this server to cluster \"north\"`)
		b.end()
		b = n.start(t, 2, nil).run()
		b.Connect(members(3, place(1).String()))
		pass(2 * time.Second)
		require.Contains(t, b.log.String(), "n2 wants to reach n3, but this is n1")
		b.end()
		twin := n.startAt(t, 1, place(2), nil).run()
		twin.Connect(members(1, place(1).String())) // itself, so nobody
		twin.Connect(members(4, place(1).String()))
		pass(time.Second)
		a.end()
		twin.end()
	})
}

// Two servers use the newest version that both can; so one can be upgraded before the
// other. Servers without a common version say so once, on both sides.
func TestVersionsMeet(t *testing.T) {
	for _, c := range []struct {
		n1, n2 version.Range
		agreed uint64
		n1Says string
	}{
		{version.Between(1, 1), version.Between(1, 1), 1, ""},
		{version.Between(1, 1), version.Between(1, 2), 1, ""},
		{version.Between(1, 2), version.Between(1, 1), 1, ""},
		{version.Between(1, 2), version.Between(1, 2), 2, ""},
		{version.Between(1, 3), version.Between(2, 9), 3, ""},
		{version.Between(2, 2), version.Between(2, 2), 2, ""},
		{version.Between(1, 1), version.Between(2, 3), 0, "n2 uses versions 2 to 3 of the protocol over UDP, this server version 1: run programs on both"},
		{version.Between(1, 1), version.Between(2, 2), 0, "n2 uses version 2 of the protocol over UDP, this server version 1: run programs on both"},
		{version.Between(3, 4), version.Between(1, 2), 0, "n2 uses versions 1 to 2 of the protocol over UDP, this server versions 3 to 4: run programs on both"},
	} {
		t.Run(fmt.Sprint(c.n1, c.n2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newInternet()
				a, b := n.start(t, 1, nil), n.start(t, 2, nil)
				a.can, b.can = c.n1, c.n2
				a.run()
				b.run(1)
				pass(time.Minute)
				b.Send(1, []byte("hello"))
				pass(time.Second)
				if c.agreed == 0 {
					require.Empty(t, a.took())
					require.Equal(t, 1, strings.Count(a.log.String(), "a peer was refused"), a.log.String())
					require.Contains(t, a.log.String(), c.n1Says)
					n2Says := fmt.Sprintf("the peer refuses: n1 uses %v of the protocol over UDP, this server %v: run programs on both", c.n1, c.n2)
					require.Equal(t, 1, strings.Count(b.log.String(), n2Says), b.log.String())
				} else {
					require.Equal(t, []string{"n2 hello"}, a.took())
					level := "DEBUG" // what the server can use best is not worth a line
					if c.agreed != c.n2.Newest {
						level = "INFO"
					}
					require.Regexp(t, fmt.Sprintf(`level=%s msg="connected to a peer".* version=%d\n`, level, c.agreed), b.log.String())
				}
				a.end()
				b.end()
			})
		})
	}
}

// The answer to a hello cannot be changed so that the servers use an older version.
func TestNobodyChoosesAnOlderVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a, b := n.start(t, 1, nil), n.start(t, 2, nil)
		a.can, b.can = version.Between(1, 2), version.Between(1, 2)
		n.whenever(func(b []byte, _, _ netip.AddrPort) bool {
			if b[0] == kindAnswer {
				b[1] = 1
			}
			return true
		})
		a.run(2)
		b.run(1)
		pass(10 * time.Second)
		require.Nil(t, a.out(2))
		require.Nil(t, b.out(1))
		a.end()
		b.end()
	})
}

// A newer program may say more in its hello; as long as it may be, it gets an answer in
// the version of this one.
func TestAHelloOfANewerVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		a := n.start(t, 1, nil).run()
		h := hello{can: version.Between(1, 2), index: 7, from: 2, to: 1, start: 1, number: 1, cluster: a.cluster}
		said := h.encode(a.keys)
		said = append(said[:len(said)-macLen], make([]byte, 500)...)
		said = sum(said, a.keys.hello, said)
		peer := n.socket(place(9))
		_, _ = peer.WriteToUDPAddrPort(said, place(1))
		pass(time.Second)
		answered := (<-peer.in).b
		require.True(t, genuine(a.keys.answer, said, answered))
		require.EqualValues(t, kindAnswer, answered[0])
		require.EqualValues(t, 1, decodeAnswer(answered).version)
		require.EqualValues(t, 7, decodeAnswer(answered).index)

		// If it can no longer use this version, the refusal says which there are.
		h = hello{can: version.Between(2, 3), index: 8, from: 2, to: 1, start: 1, number: 2, cluster: a.cluster}
		said = h.encode(a.keys)
		_, _ = peer.WriteToUDPAddrPort(said, place(1))
		pass(time.Second)
		answered = (<-peer.in).b
		require.True(t, genuine(a.keys.answer, said, answered))
		require.LessOrEqual(t, len(answered), len(said))
		r, ok := decodeRefusal(answered)
		require.True(t, ok)
		require.Equal(t, refusal{can: version.Between(1, 1), index: 8, reason: otherVersion, id: 1}, r)

		// A hello of version 1 that says more is none.
		long := append(hello{can: version.Between(1, 1), from: 2, to: 1, start: 1, number: 3, cluster: a.cluster}.encode(a.keys)[:helloEnd], 1)
		_, _ = peer.WriteToUDPAddrPort(sum(long, a.keys.hello, long), place(1))
		pass(time.Second)
		require.Empty(t, peer.in)
		a.end()
	})
}

// The queue of a link is bounded in messages and in bytes, and drops the oldest.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newInternet()
		limited := func(o *transport.Options) {
			o.Limits = transport.Limits{Message: 1000, QueueLines: 10, QueueBytes: 2000}
		}
		a := n.start(t, 1, limited)
		a.connect(2)
		require.False(t, a.Send(2, make([]byte, 1001)))
		for i := range 10 {
			require.True(t, a.Send(2, fmt.Append(nil, i)))
		}
		require.False(t, a.Send(2, []byte("last")))
		b := n.start(t, 2, limited).run()
		a.run(2)
		pass(time.Second)
		require.Equal(t, []string{"n1 1", "n1 2", "n1 3", "n1 4", "n1 5", "n1 6", "n1 7", "n1 8", "n1 9", "n1 last"}, b.took())
		l := a.linkTo(2)
		a.end()
		b.end()
		for i := range 10 { // nobody empties the queue
			require.Equal(t, i < 2, a.Send(2, make([]byte, 1000)))
			require.LessOrEqual(t, l.bytes, 2000)
		}
		require.False(t, a.Send(3, nil))
	})
}

// Numbers are accepted once, in any order, if they are not too old.
func TestReplays(t *testing.T) {
	var r replays
	seen := map[uint64]bool{}
	highest := uint64(0)
	rng := rand.New(rand.NewPCG(3, 3))
	for range 200_000 {
		n := highest + uint64(rng.IntN(3*replaySpan))
		n -= min(n, uint64(rng.IntN(3*replaySpan)))
		want := n != 0 && !seen[n] && n+replaySpan > highest
		require.Equal(t, want, r.fresh(n), "%d, the highest is %d", n, highest)
		if want {
			r.mark(n)
			seen[n] = true
			highest = max(highest, n)
		}
	}
}

// Parts of a peer that does not follow the rules use no more memory than a limit.
func FuzzAssemble(f *testing.F) {
	head := func(number, length uint32, part, parts uint16, rest string) []byte {
		b := binary.BigEndian.AppendUint32(nil, number)
		b = binary.BigEndian.AppendUint32(b, length)
		b = binary.BigEndian.AppendUint16(b, part)
		return append(binary.BigEndian.AppendUint16(b, parts), rest...)
	}
	f.Add(head(1, 6, 0, 2, "abc"), head(1, 6, 1, 2, "def"), uint8(0))
	f.Add(head(1, 5, 1, 2, "de"), head(1, 5, 0, 2, "abc"), uint8(1))
	f.Add(head(1, 5, 1, 2, "de"), head(1, 9, 0, 3, "abc"), uint8(2))
	f.Add(head(1, 1<<31, 1, 2, "de"), head(1, 0, 0, 0, ""), uint8(3))
	f.Add(head(1, 300, 0, 300, "d"), head(2, 900, 0, 900, "a"), uint8(200))
	f.Fuzz(func(t *testing.T, one, two []byte, n uint8) {
		const limit = 1000
		var s inbound
		now := time.Unix(0, 0)
		for i := range int(n%32) + 2 {
			for _, b := range [][]byte{one, two} {
				if m := s.assemble(b, now.Add(time.Duration(i)*maxAge/10), limit); m != nil {
					require.LessOrEqual(t, len(m), limit)
				}
				held := 0
				for _, p := range s.parts {
					held += len(p.data)
				}
				require.Equal(t, held, s.partBytes)
				require.LessOrEqual(t, held, limit)
			}
		}
	})
}

func TestAssemble(t *testing.T) {
	var s inbound
	part := func(number uint32, part int, all ...string) []byte {
		b := binary.BigEndian.AppendUint32(nil, number)
		b = binary.BigEndian.AppendUint32(b, uint32(len(strings.Join(all, ""))))
		b = binary.BigEndian.AppendUint16(b, uint16(part))
		return append(binary.BigEndian.AppendUint16(b, uint16(len(all))), all[part]...)
	}
	now := time.Unix(0, 0)
	add := func(b []byte) string { return string(s.assemble(b, now, 20)) }
	require.Empty(t, add(part(1, 2, "abc", "def", "g")))
	require.Empty(t, add(part(2, 0, "12", "3")))
	require.Empty(t, add(part(1, 0, "abc", "def", "g")))
	require.Empty(t, add(part(1, 0, "abc", "def", "g")), "a copy")
	require.Equal(t, "123", add(part(2, 1, "12", "3")))
	require.Equal(t, "abcdefg", add(part(1, 1, "abc", "def", "g")))
	require.Empty(t, add(part(1, 1, "abc", "def", "g")), "a copy of a message that was complete")
	require.Zero(t, s.partBytes)
	require.Empty(t, s.parts)
	// A message that needs the room of older ones gets it.
	require.Empty(t, add(part(3, 0, "0123456789", "012345678")))
	require.Empty(t, add(part(4, 0, "abc", "de")))
	require.Len(t, s.parts, 1)
	require.Equal(t, "abcde", add(part(4, 1, "abc", "de")))
	require.Empty(t, add(part(6, 0, "abc", "de")))
	require.Empty(t, s.assemble(part(6, 1, "abc", "de"), now.Add(maxAge+1), 20), "too late")
	s.forget(now.Add(time.Hour))
	require.Empty(t, add(part(5, 0, "0123456789", "0123456789+")), "the parts are not equally long")
	require.Empty(t, add(part(5, 0, "0123456789A", "0123456789")), "too long")
	require.Zero(t, s.partBytes)
}
