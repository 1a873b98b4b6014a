package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/version"
)

const secret = "the secret of the cluster"

// received records what a server got from its peers.
type received struct {
	mu    sync.Mutex
	lines []string

	// meetings are the calls of Met and Left.
	meetings []string
}

func (r *received) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meetings = append(r.meetings, fmt.Sprintf(format, args...))
}

func (r *received) met() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.meetings...)
}

func (r *received) take(from uint64, line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("n%d %s", from, line))
}

func (r *received) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// logged is a log that a test can read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// member1 is server n1 of cluster "north", whose members are n1 to n3.
func member1(got *received, log *logged) *Server {
	return &Server{Ops: api.Commands(), Handler: store(), Log: log.logger(), Peers: &Peers{
		Self:    Identity{Cluster: "north", Secret: secret, ID: 1},
		Receive: got.take,
		Met:     func(id uint64, address string) { got.note("met n%d at %s", id, address) },
		Left:    func(id uint64) { got.note("left n%d", id) },
	}}
}

// fromN2 is a hello that n1 accepts.
func fromN2() hello {
	return hello{version: protocol, agreed: protocol, cluster: "north", from: 2, to: 1, address: "n2:7", nonce: bytes.Repeat([]byte{7}, 32)}
}

// greet sends a hello and returns the nonce of n1.
func (e *peerEnd) greet(h hello) (nonce []byte) {
	e.t.Helper()
	e.send(string(h.appendJSON(nil)) + "\n")
	answer, err := decodeChallenge(e.answer().Data)
	require.NoError(e.t, err)
	return answer.nonce
}

// answer reads a line of the handshake that is not an error.
func (e *peerEnd) answer() api.Response {
	e.t.Helper()
	a, err := api.DecodeResponse([]byte(e.line()))
	require.NoError(e.t, err)
	require.Nil(e.t, a.Error)
	return a
}

func (e *peerEnd) prove(proof []byte) {
	e.t.Helper()
	e.send(fmt.Sprintf(`{"proof":"%x"}`+"\n", proof))
}

// becomePeer completes a handshake that begins with h, and asserts that n1
// accepts it.
func (e *peerEnd) becomePeer(h hello) {
	e.t.Helper()
	nonce := e.greet(h)
	e.prove(h.proof(dialer, secret, nonce, welcome{}))
	require.Empty(e.t, e.welcomed(h, nonce).refused)
	e.seal = sealOf(e.t, h, nonce)
}

// welcomed reads n1's proof, which must be right.
func (e *peerEnd) welcomed(h hello, nonce []byte) welcome {
	e.t.Helper()
	w, proof, err := decodeWelcome(e.answer().Data)
	require.NoError(e.t, err)
	require.Equal(e.t, h.proof(acceptor, secret, nonce, w), proof)
	return w
}

func sealOf(t testing.TB, h hello, nonce []byte) *seal {
	s, err := h.seal(secret, nonce)
	require.NoError(t, err)
	return s
}

// message sends a message of the peer.
func (e *peerEnd) message(text string) {
	e.t.Helper()
	e.send(string(e.seal.append(nil, []byte(text))))
}

// refused asserts that the server gives this reason and closes the connection.
func (e *peerEnd) refused(reason string) {
	e.t.Helper()
	a, err := api.DecodeResponse([]byte(e.line()))
	require.NoError(e.t, err)
	require.Equal(e.t, &api.Error{Code: api.BadRequest, Message: reason, Definite: true}, a.Error)
	e.over()
}

func TestPeerIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		r := serve(t, member1(&got, &logged{}), newPipes())
		c := r.dial()
		c.becomePeer(fromN2())
		first, second := c.seal.append(nil, []byte(`{"a":1}`)), c.seal.append(nil, []byte(`{"b":2}`))
		c.send(string(first) + "\n" + string(second))
		synctest.Wait()
		require.Equal(t, []string{`n2 {"a":1}`, `n2 {"b":2}`}, got.all())
		require.Equal(t, []string{"met n2 at n2:7"}, got.met())
		require.NoError(t, c.c.Close())
		synctest.Wait()
		require.Equal(t, []string{"met n2 at n2:7", "left n2"}, got.met())
		require.NoError(t, r.end())
	})
}

// When a hello is refused, both its sender and the log get the reason.
func TestHelloIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *hello)
		want   string
	}{
		{"another cluster", func(h *hello) { h.cluster = "south" }, `n2 belongs to cluster "south", this server to cluster "north"`},
		{"another server", func(h *hello) { h.to = 3 }, `n2 wants to reach n3, but this is n1: correct the address that n2 has for n3`},
		{"this server's id", func(h *hello) { h.from = 1 }, `n1 is this server's own id: two servers run under one id, so stop one of them`},
		{"ID 0", func(h *hello) { h.from = 0 }, `n0 is not a server's ID: IDs go from 1 to 2^53`},
		{"an ID that is too high", func(h *hello) { h.from = api.MaxID + 1 }, `n9007199254740993 is not a server's ID: IDs go from 1 to 2^53`},
		{"another version", func(h *hello) { h.version, h.nonce = 1, nil }, `n2 uses version 1 of the peers' protocol, this server version 5: run programs on both that have a version in common; upgrade from one release to the next`},
		{"no address", func(h *hello) { h.address = "" }, `n2 sent no usable address in its hello: "" is not host:port, such as "127.0.0.1:7021"`},
		{"a bad address", func(h *hello) { h.address = "n2:0" }, `n2 sent no usable address in its hello: "n2:0" has no usable port; ports go from 1 to 65535`},
		{"a short nonce", func(h *hello) { h.nonce = h.nonce[:31] }, `a malformed hello: field "nonce": want 64 hexadecimal digits (at byte 145)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				var log logged
				r := serve(t, member1(&got, &log), newPipes())
				e, h := r.dial(), fromN2()
				c.change(&h)
				e.send(string(h.appendJSON(nil)) + "\n" + string(newSeal(nil).append(nil, []byte(`{"a":1}`))))
				e.refused(c.want)
				require.NoError(t, r.end())
				require.Contains(t, strings.ReplaceAll(log.String(), `\"`, `"`), c.want)
				require.Empty(t, got.all())
				require.Empty(t, got.met())
			})
		})
	}
}

// Two servers use the newest version that both can; so one can be upgraded before the
// other.
func TestVersionsMeet(t *testing.T) {
	for _, c := range []struct {
		n1, n2 version.Range
		agreed uint64
		why    string
	}{
		{version.Between(5, 5), version.Between(5, 5), 5, ""},
		{version.Between(5, 5), version.Between(5, 6), 5, ""},
		{version.Between(5, 6), version.Between(5, 5), 5, ""},
		{version.Between(5, 6), version.Between(5, 6), 6, ""},
		{version.Between(5, 7), version.Between(6, 9), 7, ""},
		{version.Between(5, 5), version.Between(6, 7), 0, "n2 uses versions 6 to 7 of the peers' protocol, this server version 5"},
		{version.Between(6, 7), version.Between(5, 5), 0, "n2 uses version 5 of the peers' protocol, this server versions 6 to 7"},
	} {
		t.Run(fmt.Sprint(c.n1, c.n2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				var log, there logged
				ln := newPipes()
				s := member1(&got, &there)
				s.Peers.Self.can = c.n1
				r := serve(t, s, ln)
				k := link(ln, &log, Limits{})
				k.o.Self.can = c.n2
				k.Send([]byte(`{"a":1}`))
				end := runLink(t, k)
				synctest.Wait()
				end()
				require.NoError(t, r.end())
				if c.why != "" {
					require.Empty(t, got.all())
					require.Contains(t, log.String(), c.why)
					return
				}
				require.Equal(t, []string{`n2 {"a":1}`}, got.all())
				require.Regexp(t, fmt.Sprintf(`level=%s msg="connected to a peer".* version=%d\n`, levelOf(c.agreed, c.n2), c.agreed), log.String())
				require.Regexp(t, fmt.Sprintf(`a peer has connected.* version=%d\n`, c.agreed), there.String())
			})
		})
	}
}

// levelOf is the level at which a server logs the version: what it can use best is not
// worth a line.
func levelOf(agreed uint64, can version.Range) string {
	if agreed == can.Newest {
		return "DEBUG"
	}
	return "INFO"
}

// The log says when a peer was upgraded, and when it was downgraded.
func TestTheLogSaysTheVersionWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		var now atomic.Pointer[pipes]
		now.Store(newPipes())
		k := link(nil, &log, Limits{})
		k.o.Self.can = version.Between(5, 6)
		k.dial = func(context.Context) (net.Conn, error) { return now.Load().dial() }
		end := runLink(t, k)
		for _, newest := range []uint64{5, 5, 6, 6, 5} {
			s := member1(&received{}, &logged{})
			s.Peers.Self.can = version.Between(5, newest)
			r := serve(t, s, now.Load())
			later(10 * time.Second)
			require.NoError(t, r.end())
			now.Store(newPipes())
		}
		end()
		var said []string
		for _, m := range regexp.MustCompile(`level=(\w+) msg="connected to a peer".* version=(\d)`).FindAllStringSubmatch(log.String(), -1) {
			said = append(said, m[1]+" "+m[2])
		}
		require.Equal(t, []string{"INFO 5", "DEBUG 5", "INFO 6", "DEBUG 6", "INFO 5"}, said, log.String())
	})
}

// A newer program may say more in its hello.
func TestAHelloOfANewerVersion(t *testing.T) {
	h, err := decodeHello([]byte(`{"hello":{"version":6,"oldest":5,"keys":["x25519",{}],"cluster":"north","from":2,"to":1,"address":"n2:7","nonce":"` + strings.Repeat("07", 32) + `"}}`))
	require.NoError(t, err)
	want := fromN2()
	want.version, want.oldest, want.agreed = 6, 5, 0
	require.Equal(t, want, h)
}

const noSecret = `n2 does not know the secret of cluster "north"`

// falseProofs are what an attacker may try who does not know the secret, but has
// seen other handshakes.
var falseProofs = map[string]func(e *peerEnd){
	"another secret": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		e.prove(h.proof(dialer, "another secret", nonce, welcome{}))
		e.refused(noSecret)
	},
	"the server's own proof": func(e *peerEnd) {
		// An attacker who wants n1's proof can only send what it has: n1 proves
		// itself second.
		h := fromN2()
		nonce := e.greet(h)
		e.prove(h.proof(acceptor, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof for another nonce": func(e *peerEnd) {
		h := fromN2()
		e.greet(h)
		e.prove(h.proof(dialer, secret, h.nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof of another server": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		h.from = 3
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof for another server": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		h.to = 3
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof for another address": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		h.address = "evil:7"
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a probe that becomes a peer": func(e *peerEnd) {
		h := fromN2()
		h.probe = true
		nonce := e.greet(h)
		h.probe = false
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof for another version": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		h.agreed = protocol - 1
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a proof for another cluster": func(e *peerEnd) {
		h := fromN2()
		nonce := e.greet(h)
		h.cluster = "south"
		e.prove(h.proof(dialer, secret, nonce, welcome{}))
		e.refused(noSecret)
	},
	"a message in place of the proof": func(e *peerEnd) {
		h := fromN2()
		e.seal = sealOf(e.t, h, e.greet(h))
		e.message(`{"a":1}`)
		line := e.line()
		require.Contains(e.t, line, `n2 did not prove who it is: want an object, found`)
		e.over()
	},
	"no proof": func(e *peerEnd) {
		e.greet(fromN2())
		e.send("{}\n")
		e.refused(`n2 did not prove who it is: the proof is missing`)
	},
	"a very long proof": func(e *peerEnd) {
		e.greet(fromN2())
		e.send(strings.Repeat("x", maxHello+2))
		e.refused(`n2 did not prove who it is: a line is longer than the limit`)
	},
	"silence": func(e *peerEnd) {
		e.greet(fromN2())
		start := time.Now()
		line := e.line()
		require.Contains(e.t, line, "n2 did not prove who it is: ")
		require.Equal(e.t, 3*time.Second, time.Since(start))
		e.over()
	},
}

func TestProofIsRefused(t *testing.T) {
	for name, f := range falseProofs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				r := serve(t, member1(&got, &logged{}), newPipes())
				f(r.dial())
				require.NoError(t, r.end())
				require.Empty(t, got.all())
				require.Empty(t, got.met())
			})
		})
	}
}

// A server without a secret accepts no peer.
func TestNoSecretNoPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := member1(&received{}, &logged{})
		s.Peers.Self.Secret = ""
		r := serve(t, s, newPipes())
		e := r.dial()
		e.send(string(fromN2().appendJSON(nil)) + "\n")
		e.refused("this server has no secret for its cluster, so it can trust no peer; set one in the cluster's configuration")
		require.NoError(t, r.end())
	})
}

// The server draws a new nonce for each handshake.
func TestNoncesDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serve(t, member1(&received{}, &logged{}), newPipes())
		seen := map[string]bool{}
		for range 20 {
			e := r.dial()
			nonce := e.greet(fromN2())
			seen[hex.EncodeToString(nonce)] = true
			require.NoError(t, e.c.Close())
		}
		require.Len(t, seen, 20)
		require.NoError(t, r.end())
	})
}

// A client cannot become a peer: neither a message nor a hello after its first
// line is accepted.
func TestClientCannotSendAPeersMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		r := serve(t, member1(&got, &logged{}), newPipes())
		e := r.dial()
		for _, line := range []string{
			`{"from":2,"to":1,"term":18446744073709551615}`,
			strings.TrimSuffix(string(newSeal(nil).append(nil, []byte(`{"a":1}`))), "\n"),
			string(fromN2().appendJSON(nil)),
		} {
			e.send(line + "\n")
			require.Contains(t, e.line(), `"code":"bad_request"`)
		}
		e.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, e.line())
		require.NoError(t, e.c.Close())
		require.NoError(t, r.end())
		require.Empty(t, got.all())
	})
}

// A message that is not what the peer has sent, in its place, ends the connection.
// The messages before it were received.
func TestForgedMessages(t *testing.T) {
	const notGenuine = "message 2 of this connection, with 7 bytes, is not what the sender sent"
	for name, c := range map[string]struct {
		// sent returns what arrives after the first message. first is that message
		// with its MAC, and next returns the MAC of the next one.
		sent func(first string, next func(text string) string) string
		want string
	}{
		"one bit": {func(_ string, next func(string) string) string {
			return strings.Replace(next(`{"b":1}`), "1}", "0}", 1)
		}, notGenuine},
		"the MAC":       {func(string, func(string) string) string { return strings.Repeat("0", 32) + " {\"b\":1}\n" }, notGenuine},
		"repeated":      {func(first string, _ func(string) string) string { return first }, notGenuine},
		"one left out":  {func(_ string, next func(string) string) string { next(`{"b":1}`); return next(`{"c":1}`) }, notGenuine},
		"another order": {func(_ string, next func(string) string) string { b := next(`{"b":1}`); return next(`{"c":1}`) + b }, notGenuine},
		"another's key": {func(string, func(string) string) string {
			return string(newSeal([]byte("guess")).append(nil, []byte(`{"b":1}`)))
		}, notGenuine},
		"a CRC":           {func(string, func(string) string) string { return "cff7d56a {\"a\":1}\n" }, "a message has no MAC"},
		"no MAC":          {func(string, func(string) string) string { return "{\"a\":1}\n" }, "a message has no MAC"},
		"not hexadecimal": {func(string, func(string) string) string { return strings.Repeat("x", 32) + " {}\n" }, "a message has no MAC"},
		"no space": {func(_ string, next func(string) string) string {
			return strings.Replace(next(`{"b":1}`), " ", "-", 1)
		}, "a message has no MAC"},
		"only a MAC": {func(string, func(string) string) string { return strings.Repeat("0", 32) + "\n" }, "a message has no MAC"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				var log logged
				r := serve(t, member1(&got, &log), newPipes())
				e := r.dial()
				e.becomePeer(fromN2())
				next := func(text string) string { return string(e.seal.append(nil, []byte(text))) }
				first := next(`{"a":1}`)
				e.send(first + c.sent(first, next) + next(`{"d":1}`))
				require.Contains(t, e.line(), c.want)
				e.over()
				require.NoError(t, r.end())
				require.Equal(t, []string{`n2 {"a":1}`}, got.all())
				require.Contains(t, log.String(), "a peer's message was not genuine")
			})
		})
	}
}

// Somebody between two servers relays their handshake, each line as it is. Both
// sides accept it, because it is theirs. What he then adds, repeats, changes or
// holds back is not accepted, and ends the connection; nor does a recording of
// everything serve him on a connection of his own.
func TestTheManInTheMiddle(t *testing.T) {
	relay := map[string]func(lines []string) []string{
		"adds an entry in the peer's name": func(l []string) []string {
			return append(l, string(newSeal(nil).append(nil, []byte(`{"from":2,"term":9,"append":{}}`))))
		},
		"repeats":    func(l []string) []string { return append(l, l[len(l)-1]) },
		"holds back": func(l []string) []string { return l[1:] },
		"changes": func(l []string) []string {
			return append(l[:len(l)-1], strings.Replace(l[len(l)-1], `"m":`, `"x":`, 1))
		},
		"exchanges":    func(l []string) []string { return append(l[:len(l)-2], l[len(l)-1], l[len(l)-2]) },
		"does nothing": func(l []string) []string { return l },
	}
	for name, f := range relay {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got received
				front, back := newPipes(), newPipes()
				r := serve(t, member1(&got, &logged{}), back)
				k := link(front, &logged{}, Limits{})
				end := runLink(t, k)
				near, err := front.Accept()
				require.NoError(t, err)
				far, err := back.dial()
				require.NoError(t, err)
				fromN2, fromN1 := bufReader(near), bufReader(far)
				pass := func(in *bufio.Reader, out net.Conn) string {
					line, err := in.ReadString('\n')
					require.NoError(t, err)
					_, err = out.Write([]byte(line))
					require.NoError(t, err)
					return line
				}
				recorded := pass(fromN2, far)
				pass(fromN1, near)
				recorded += pass(fromN2, far)
				pass(fromN1, near)
				synctest.Wait()
				require.Equal(t, []string{"met n2 at n2:7"}, got.met(), "the relayed handshake is genuine")

				var lines []string
				for i := range 3 {
					k.Send(fmt.Appendf(nil, `{"m":%d}`, i))
					line, err := fromN2.ReadString('\n')
					require.NoError(t, err)
					lines = append(lines, line)
					recorded += line
				}
				go func() { _, _ = far.Write([]byte(strings.Join(f(lines), ""))) }()
				synctest.Wait()
				for i, line := range got.all() {
					require.Equal(t, fmt.Sprintf(`n2 {"m":%d}`, i), line, "only what n2 has sent, in its order")
				}
				if name == "does nothing" {
					require.Len(t, got.all(), 3)
				} else {
					require.Contains(t, got.met(), "left n2", "the connection must end")
				}
				before := got.all()
				own, err := back.dial()
				require.NoError(t, err)
				go func() { _, _ = own.Write([]byte(recorded)) }()
				reply := bufReader(own)
				_, err = reply.ReadString('\n') // a new nonce, for which the recorded proof is wrong
				require.NoError(t, err)
				line, err := reply.ReadString('\n')
				require.NoError(t, err)
				require.Contains(t, line, "n2 does not know the secret")
				require.Equal(t, before, got.all())
				for _, c := range []net.Conn{near, far, own} {
					_ = c.Close()
				}
				end()
				require.NoError(t, r.end())
			})
		})
	}
}

// A stranger who connects gets nothing that depends on the secret.
func TestAStrangerLearnsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := member1(&received{}, &logged{})
		r := serve(t, s, newPipes())
		e := r.dial()
		e.greet(fromN2())
		e.prove(newNonce())
		e.refused(noSecret)
		require.NoError(t, r.end())
	})
}

// If a peer has two connections, the server keeps the newer one: the peer dials
// again when the old one has failed, which the server may not have noticed.
func TestNewerConnectionOfAPeerWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		r := serve(t, member1(&got, &logged{}), newPipes())
		old, other := r.dial(), r.dial()
		old.becomePeer(fromN2())
		n3 := fromN2()
		n3.from = 3
		other.becomePeer(n3)
		newer := r.dial()
		newer.becomePeer(fromN2())
		old.over()
		newer.message(`{"a":1}`)
		other.message(`{"b":1}`)
		synctest.Wait()
		require.ElementsMatch(t, []string{`n2 {"a":1}`, `n3 {"b":1}`}, got.all())
		require.ElementsMatch(t, []string{"met n2 at n2:7", "met n3 at n2:7", "met n2 at n2:7", "left n2"}, got.met())
		require.NoError(t, newer.c.Close())
		require.NoError(t, other.c.Close())
		require.NoError(t, r.end())
	})
}

// A connection that was accepted is older than one that the peer opens
// afterwards, even if the peer has not read yet that the first was accepted.
func TestNewerConnectionWinsOverAnUnreadWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		r := serve(t, member1(&got, &logged{}), newPipes())
		old := r.dial()
		nonce := old.greet(fromN2())
		old.prove(fromN2().proof(dialer, secret, nonce, welcome{}))
		synctest.Wait()
		newer := r.dial()
		newer.becomePeer(fromN2())
		synctest.Wait()
		old.over()
		newer.message(`{"a":1}`)
		synctest.Wait()
		require.Equal(t, []string{`n2 {"a":1}`}, got.all())
		require.NoError(t, newer.c.Close())
		require.NoError(t, r.end())
	})
}

// A peer's line may be longer than a client's: it has its own limit.
func TestPeerLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		s := member1(&got, &logged{})
		s.Limits = Limits{Line: 1000, PeerLine: 100_000}
		r := serve(t, s, newPipes())
		e := r.dial()
		e.becomePeer(fromN2())
		long := []byte(strings.Repeat("x", 100_000-sealed))
		e.message(string(long))
		synctest.Wait()
		require.Equal(t, []string{"n2 " + string(long)}, got.all())
		_, _ = e.c.Write(e.seal.append(nil, append(long, 'x')))
		require.Contains(t, e.line(), "a line is longer than 100000 bytes")
		e.over()
		require.NoError(t, r.end())
	})
}

// Clients cannot keep peers out: beyond the limit of clients there is room for a
// connection that begins with a hello.
func TestPeersAreAcceptedWhenClientsFillTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		s := member1(&got, &logged{})
		s.Limits = Limits{Conns: 1}
		r := serve(t, s, newPipes())
		client := r.dial()
		client.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, client.line())

		mute := r.dial()
		e := r.dial()
		e.becomePeer(fromN2())
		another := r.dial()
		another.send(put1)
		require.Contains(t, another.line(), `"code":"busy"`)
		another.over()
		start := time.Now()
		require.Contains(t, mute.line(), `"code":"busy"`)
		require.Equal(t, 3*time.Second, time.Since(start))
		mute.over()

		e.message(`{"a":1}`)
		client.send(put1)
		require.Equal(t, `{"id":1,"ok":true}`, client.line())
		synctest.Wait()
		require.Equal(t, []string{`n2 {"a":1}`}, got.all())
		require.NoError(t, e.c.Close())
		require.NoError(t, r.end())
	})
}

// A stopping server keeps its peers connected until its clients have their
// answers, because the answers may depend on the peers.
func TestStopKeepsPeersUntilClientsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPending()
		var got received
		s := member1(&got, &logged{})
		s.Handler = p.handle
		r := serve(t, s, newPipes())
		client, e := r.dial(), r.dial()
		e.becomePeer(fromN2())
		client.send(put1)
		_, reply := p.next()
		r.stop()
		later(time.Second)
		e.message(`{"a":1}`)
		synctest.Wait()
		require.Equal(t, []string{`n2 {"a":1}`}, got.all())
		reply(api.Response{})
		require.Equal(t, `{"id":1,"ok":true}`, client.line())
		require.Equal(t, stopNo, client.line())
		client.over()
		e.over()
		require.NoError(t, <-r.done)
	})
}

// link returns a Link from n2 to the server that listens on ln.
func link(ln *pipes, log *logged, l Limits) *Link {
	k := NewLink(LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7"}, To: 1, Address: "n1's address", Limits: l, Log: log.logger()})
	k.dial = func(context.Context) (c net.Conn, err error) { return ln.dial() }
	return k
}

// losses returns a map in which a link counts the messages that it loses.
func losses(k *Link) map[peers.Loss]int {
	lost := make(map[peers.Loss]int)
	k.o.Lost = func(why peers.Loss, count int) { lost[why] += count }
	return lost
}

// runLink runs a link. The returned function ends it and waits for that.
func runLink(t *testing.T, k *Link) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

// Messages arrive whole and in order. Messages that wait in the queue together
// leave with one write.
func TestLinkCarriesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		ln := newPipes()
		r := serve(t, member1(&got, &logged{}), ln)
		k := link(ln, &logged{}, Limits{})
		inner, counted := k.dial, newPipes()
		k.dial = func(ctx context.Context) (net.Conn, error) {
			c, err := inner(ctx)
			return countingConn{c, &counted.writes}, err
		}
		lost := losses(k)
		var want []string
		for i := range 100 {
			require.True(t, k.Send(fmt.Appendf(nil, `{"i":%d}`, i)))
			want = append(want, fmt.Sprintf(`n2 {"i":%d}`, i))
		}
		end := runLink(t, k)
		synctest.Wait()
		require.Equal(t, want, got.all())
		require.EqualValues(t, 3, counted.writes.Load(), "one write for the hello, one for the proof, one for all messages")
		require.True(t, k.Send([]byte(`{"last":1}`)))
		synctest.Wait()
		require.Equal(t, `n2 {"last":1}`, got.all()[100])
		end()
		require.NoError(t, r.end())
		require.Empty(t, lost)
	})
}

// A link connects again soon after its peer has started again, and does not send
// the messages that it could not send before.
func TestLinkReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		var log logged
		first := newPipes()
		k := link(first, &log, Limits{})
		lost := losses(k)
		var now atomic.Pointer[pipes]
		now.Store(first)
		k.dial = func(context.Context) (net.Conn, error) { return now.Load().dial() }
		r := serve(t, member1(&got, &logged{}), first)
		end := runLink(t, k)
		synctest.Wait()
		require.NoError(t, r.end()) // the peer stops
		later(time.Hour)
		k.Send([]byte(`{"old":1}`))
		later(3 * time.Second)
		second := newPipes()
		now.Store(second)
		r = serve(t, member1(&got, &logged{}), second)
		later(1500 * time.Millisecond) // the longest pause and its jitter
		k.Send([]byte(`{"new":1}`))
		synctest.Wait()
		require.Equal(t, []string{`n2 {"new":1}`}, got.all())
		require.Equal(t, map[peers.Loss]int{peers.LostUnreachable: 1}, lost)
		require.Equal(t, 1, strings.Count(log.String(), "connection refused"), "the same error must be logged only once")
		require.Equal(t, 1, strings.Count(log.String(), "level=INFO"), "a peer that is not running must be logged only once")
		require.NotContains(t, log.String(), "level=WARN")
		require.Equal(t, 2, strings.Count(log.String(), "connected to a peer"))
		end()
		require.NoError(t, r.end())
	})
}

// If a link ends shortly after its peer, it does not log that the peer is away.
func TestLinkThatEndsWithItsPeerIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		p := newPipes()
		r := serve(t, member1(&received{}, &logged{}), p)
		end := runLink(t, link(p, &log, Limits{}))
		synctest.Wait()
		require.NoError(t, r.end())
		later(patience / 2)
		end()
		require.Contains(t, log.String(), "connected to a peer")
		require.NotContains(t, log.String(), "level=INFO")
		require.NotContains(t, log.String(), "level=WARN")
	})
}

// If a peer accepts a connection and then is silent, at the first or at the
// second step of the handshake, the link dials again.
func TestLinkGivesUpASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		ln := newPipes()
		r := serve(t, member1(&got, &logged{}), ln)
		limits := Limits{Dial: time.Second, Backoff: [2]time.Duration{10 * time.Millisecond, 20 * time.Millisecond}}
		var log logged
		k := link(ln, &log, limits)
		var dials atomic.Int64
		k.dial = func(context.Context) (net.Conn, error) {
			dial := dials.Add(1)
			if dial > 2 {
				return ln.dial()
			}
			near, far := net.Pipe()
			go func() {
				// The peer reads everything, and with the second connection sends
				// a part of an answer to the hello.
				in := bufio.NewReader(far)
				for n := 0; ; n++ {
					if _, err := in.ReadBytes('\n'); err != nil {
						return
					}
					if dial == 2 && n == 0 {
						fmt.Fprintf(far, `{"ok":true,"data":{"nonce":"%x"`, newNonce())
					}
				}
			}()
			return near, nil
		}
		end := runLink(t, k)
		later(limits.Dial * 3 / 2)
		require.EqualValues(t, 2, dials.Load())
		later(limits.Dial)
		k.Send([]byte(`{"new":1}`))
		synctest.Wait()
		require.EqualValues(t, 3, dials.Load())
		require.Equal(t, []string{`n2 {"new":1}`}, got.all())
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "the same error must be logged only once")
		end()
		require.NoError(t, r.end())
	})
}

// The pauses between attempts grow from the shortest to the longest and have
// jitter.
func TestLinkBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := link(newPipes(), &logged{}, Limits{Backoff: [2]time.Duration{10 * time.Millisecond, 160 * time.Millisecond}})
		var attempts []time.Time
		k.dial = func(context.Context) (net.Conn, error) {
			attempts = append(attempts, time.Now())
			return nil, context.DeadlineExceeded
		}
		end := runLink(t, k)
		later(10 * time.Second)
		synctest.Wait()
		end()
		pause, different := 10*time.Millisecond, map[time.Duration]bool{}
		for i := range attempts[1:] {
			have := attempts[i+1].Sub(attempts[i])
			require.GreaterOrEqual(t, have, pause/2)
			require.Less(t, have, pause*3/2)
			different[have] = true
			pause = min(2*pause, 160*time.Millisecond)
		}
		require.Greater(t, len(different), 20)
	})
}

// A full queue drops its oldest messages.
func TestLinkQueueIsBounded(t *testing.T) {
	k := link(nil, &logged{}, Limits{QueueLines: 3, QueueBytes: 25, PeerLine: 31 + sealed})
	lost := losses(k)
	messages := newSeal(nil)
	for _, c := range []struct {
		send    string
		ok      bool
		dropped int
		queue   string
	}{
		{"aaaaaaaaaa", true, 0, "aaaaaaaaaa"},
		{"bbbbbbbbbb", true, 0, "aaaaaaaaaa bbbbbbbbbb"},
		{"ccccc", true, 0, "aaaaaaaaaa bbbbbbbbbb ccccc"},
		{"d", false, 1, "bbbbbbbbbb ccccc d"},
		{"eeeeeeeeeeeee", false, 2, "ccccc d eeeeeeeeeeeee"},
		{strings.Repeat("f", 31), false, 5, strings.Repeat("f", 31)},
		{strings.Repeat("g", 32), false, 6, strings.Repeat("f", 31)},
	} {
		require.Equal(t, c.ok, k.Send([]byte(c.send)), c.send)
		require.Equal(t, c.queue, string(bytes.Join(k.queue, []byte(" "))))
		require.Equal(t, c.dropped, lost[peers.LostFull]+lost[peers.LostTooLong], c.send)
	}
	require.Equal(t, map[peers.Loss]int{peers.LostFull: 5, peers.LostTooLong: 1}, lost)
	require.Equal(t, "", string(k.take(nil, 0, messages)))
	require.Equal(t, string(newSeal(nil).append(nil, bytes.Repeat([]byte("f"), 31))), string(k.take(nil, 1000, messages)))
	require.Zero(t, k.bytes)
	require.Empty(t, k.take(nil, 1000, messages))
}

// A link without messages keeps its connection: it sends an empty line from time
// to time.
func TestLinkKeepsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		var log logged
		ln := newPipes()
		r := serve(t, member1(&got, &logged{}), ln)
		end := runLink(t, link(ln, &log, Limits{}))
		later(24 * time.Hour)
		require.Equal(t, 1, strings.Count(log.String(), "connected to a peer"))
		require.NotContains(t, log.String(), "no connection")
		end()
		require.NoError(t, r.end())
		require.Empty(t, got.all())
	})
}

// A link that is refused logs the reason once, and so does the other side. It tries
// again after the longest pause.
func TestLinkThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var here, there logged
		ln := newPipes()
		r := serve(t, member1(&received{}, &there), ln)
		k := link(ln, &here, Limits{})
		k.o.Self.Cluster = "south"
		tries, dial := 0, k.dial
		k.dial = func(ctx context.Context) (net.Conn, error) {
			tries++
			return dial(ctx)
		}
		k.Send([]byte(`{"a":1}`))
		end := runLink(t, k)
		later(10 * time.Second)
		end()
		require.NoError(t, r.end())
		const why = `n2 belongs to cluster \"south\", this server to cluster \"north\"`
		require.Equal(t, 1, strings.Count(here.String(), why), here.String())
		require.Equal(t, 1, strings.Count(there.String(), "a peer was refused"), there.String())
		require.Greater(t, tries, 5)
		require.LessOrEqual(t, tries, 20)
	})
}

// The server at the peer's address must prove who it is before it gets a message.
func TestLinkVerifiesThePeersProof(t *testing.T) {
	good := func(nonce []byte) string { return fmt.Sprintf(`{"ok":true,"data":{"version":5,"nonce":"%x"}}`, nonce) }
	proof := func(by, secret string) func(h hello, nonce []byte) string {
		return func(h hello, nonce []byte) string {
			return fmt.Sprintf(`{"ok":true,"data":{"proof":"%x"}}`, h.proof(by, secret, nonce, welcome{}))
		}
	}
	for name, c := range map[string]struct {
		// first answers the hello, and second the link's proof; nil for nothing.
		first  func(nonce []byte) string
		second func(h hello, nonce []byte) string
	}{
		"another secret":     {good, proof(acceptor, "another")},
		"the dialer's proof": {good, proof(dialer, secret)},
		"no proof":           {good, func(hello, []byte) string { return `{"ok":true,"data":{}}` }},
		"only ok":            {good, func(hello, []byte) string { return `{"ok":true}` }},
		"a changed answer": {good, func(h hello, nonce []byte) string {
			w := welcome{disk: 3}
			return strings.Replace(string(api.Response{Data: w.appendJSON(nil, h.proof(acceptor, secret, nonce, w))}.AppendJSON(nil)), "3", "4", 1)
		}},
		"no nonce": {func([]byte) string { return `{"ok":true}` }, nil},
		"another version": {func(nonce []byte) string {
			return fmt.Sprintf(`{"ok":true,"data":{"version":6,"nonce":"%x"}}`, nonce)
		}, nil},
		"a short one":  {func(nonce []byte) string { return good(nonce[1:]) }, nil},
		"another port": {func([]byte) string { return "SSH-2.0-OpenSSH_9.9" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logged
				ln := newPipes()
				k := link(ln, &log, Limits{})
				k.Send([]byte(`{"a":1}`))
				end := runLink(t, k)
				nc, err := ln.Accept()
				require.NoError(t, err)
				e := &peerEnd{t: t, c: nc, in: bufReader(nc)}
				h, err := decodeHello([]byte(e.line()))
				require.NoError(t, err)
				h.agreed = protocol
				nonce := newNonce()
				e.send(c.first(nonce) + "\n")
				if c.second != nil {
					line := e.line()
					require.Equal(t, fmt.Sprintf(`{"proof":"%x"}`, h.proof(dialer, secret, nonce, welcome{})), line)
					e.send(c.second(h, nonce) + "\n")
				}
				e.over()
				synctest.Wait()
				end()
				require.Contains(t, log.String(), "no connection to a peer; trying again")
				require.NotContains(t, log.String(), "connected to a peer")
			})
		})
	}
}

// If a peer does not read, the link ends the connection, so that messages do not
// wait in the queue forever.
func TestLinkToAPeerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		ln := newPipes()
		block := make(chan struct{})
		s := member1(&received{}, &logged{})
		s.Peers.Receive = func(uint64, []byte) { <-block }
		r := serve(t, s, ln)
		k := link(ln, &log, Limits{})
		end := runLink(t, k)
		synctest.Wait()
		start := time.Now()
		for i := 0; !strings.Contains(log.String(), "no connection"); i++ {
			k.Send([]byte(`{"a":1}`))
			later(time.Second)
			require.Less(t, i, 30)
		}
		require.GreaterOrEqual(t, time.Since(start), 8*time.Second)
		close(block)
		end()
		require.NoError(t, r.end())
	})
}

// A server that knows the secret is accepted as a peer even if it is not in the
// configuration: the configuration may have changed without this server.
func TestAnUnknownPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		r := serve(t, member1(&got, &logged{}), newPipes())
		c, h := r.dial(), fromN2()
		h.from, h.address = 77, "n77:7"
		c.becomePeer(h)
		c.message(`{"a":1}`)
		synctest.Wait()
		require.Equal(t, []string{`n77 {"a":1}`}, got.all())
		require.Equal(t, []string{"met n77 at n77:7"}, got.met())
		require.NoError(t, c.c.Close())
		require.NoError(t, r.end())
	})
}

// Probe learns which server is at the other end, and that server does not count
// it as a peer.
func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *LinkOptions)
		want   string
	}{
		"the right server": {func(*LinkOptions) {}, ""},
		"another cluster":  {func(o *LinkOptions) { o.Self.Cluster = "south" }, `n2 belongs to cluster "south", this server to cluster "north"`},
		"another server":   {func(o *LinkOptions) { o.To = 3 }, `n2 wants to reach n3, but this is n1`},
		"another secret":   {func(o *LinkOptions) { o.Self.Secret = "guess" }, `does not know the secret of cluster "north"`},
		"no secret":        {func(o *LinkOptions) { o.Self.Secret = "" }, `this server has no secret`},
	} {
		t.Run(name, func(t *testing.T) {
			var got received
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			s := member1(&got, &logged{})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx, ln) }()
			o := LinkOptions{Self: Identity{Cluster: "north", Secret: secret, ID: 2, Address: "n2:7"}, To: 1, Address: ln.Addr().String()}
			c.change(&o)
			if err := Probe(t.Context(), o); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
			stop()
			require.NoError(t, <-done)
			require.Empty(t, got.met())
			require.Empty(t, s.Peers.lives, "a probe does not count as a start of the peer")
		})
	}
	require.ErrorContains(t, Probe(t.Context(), LinkOptions{Self: Identity{Secret: secret}, Address: "127.0.0.1:1"}), "connection refused")
}
