package grpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/version"
	"example.com/raftsteps/shared/core/wire"
)

// secret is the cluster's secret.
const secret = "s3cret"

// slow is how long something may take that should happen at once.
const slow = 20 * time.Second

// server is a server of a cluster: a transport behind a shared port.
type server struct {
	*Transport
	id      uint64
	address string
	log     *lines

	// got are the messages that arrived, as "from line".
	got chan string

	// refused counts the messages that could not be sent as they were.
	refused atomic.Int64

	stop func()
}

// start starts a server of cluster c. change may change its options.
func start(t *testing.T, id uint64, change func(*transport.Options)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return startOn(t, id, ln, change)
}

func startOn(t *testing.T, id uint64, ln net.Listener, change func(*transport.Options)) *server {
	t.Helper()
	s := &server{id: id, address: ln.Addr().String(), log: &lines{}, got: make(chan string, 1000)}
	o := transport.Options{ID: id, Cluster: "c", Secret: secret, Address: s.address, Listen: s.address, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	if change != nil {
		change(&o)
	}
	var err error
	s.Transport, err = New(o)
	require.NoError(t, err)
	s.OnLoss(func(_ uint64, why peers.Loss, count int) {
		if why == peers.LostRefused {
			s.refused.Add(int64(count))
		}
	})
	port := wire.Server{Shared: s.Transport, TLS: o.Keys, Log: o.Log, Handler: func(_ api.Request, reply func(api.Response)) { reply(api.Response{}) }}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = port.Serve(ctx, ln) })
	tasks.Go(func() {
		_ = s.Run(ctx, func(from uint64, line []byte) { s.got <- fmt.Sprintf("n%d %s", from, line) })
	})
	s.stop = func() { cancel(); tasks.Wait() }
	t.Cleanup(s.stop)
	return s
}

func (s *server) member() node.Member { return node.Member{ID: s.id, Address: s.address} }

// receives waits for a message, which is sent again and again: a transport may lose
// what is sent while there is no link.
func (s *server) receives(t *testing.T, from *server, n int) {
	t.Helper()
	want := fmt.Sprintf("n%d %s", from.id, message(n))
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	end := time.After(slow)
	for {
		from.Send(s.id, message(n))
		select {
		case got := <-s.got:
			if got == want {
				return
			}
		case <-again.C:
		case <-end:
			require.Fail(t, "no message", "n%d does not receive %s; log of the receiver:\n%s\nof the sender:\n%s", s.id, want, s.log, from.log)
		}
	}
}

// message is a message with a number.
func message(n int) []byte { return fmt.Appendf(nil, `{"term":%d,"timeoutNow":{}}`, n) }

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

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) has(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return bytes.Contains([]byte(l.String()), []byte(text)) }, slow, 5*time.Millisecond, "the log lacks %q", text)
}

func TestMessagesGoBothWays(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	a.Connect([]node.Member{a.member(), b.member()})
	b.receives(t, a, 1)
	// a is not named in b, and answers reach it all the same.
	a.receives(t, b, 2)
	b.Connect([]node.Member{a.member(), b.member()})
	a.receives(t, b, 3)
	b.receives(t, a, 4)
	// Each golden message arrives as it was sent.
	for i, line := range golden(t) {
		line = slices.Concat([]byte(disksOf), line)
		require.True(t, a.Send(2, line))
		for got := ""; got != "n1 "+string(line); {
			select {
			case got = <-b.got:
			case <-time.After(slow):
				require.Fail(t, "no message", "line %d", i)
			}
		}
	}
	require.False(t, a.Send(3, message(1)), "nobody has named n3")
}

func TestALineThatCannotBeExpressedIsNotSent(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	a.Connect([]node.Member{b.member()})
	b.receives(t, a, 1)
	a.Send(2, []byte(`{"term":1,"launchMissiles":{}}`))
	a.log.has(t, "raft.proto cannot express")
	require.EqualValues(t, 1, a.refused.Load())
	b.receives(t, a, 2) // the link is still there
	require.False(t, a.Send(2, make([]byte, transport.DefaultLimits().Message+1)))
	a.log.has(t, "too long")
}

func TestWrongSecretsAreRefused(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, func(o *transport.Options) { o.Secret = "other" })
	a.Connect([]node.Member{b.member()})
	b.log.has(t, `n1 does not know the secret of cluster \"c\"`)
	a.log.has(t, `the peer refuses: n1 does not know the secret of cluster \"c\"`)
	require.Empty(t, b.got)
	_, err := New(transport.Options{ID: 1, Cluster: "c"})
	require.ErrorContains(t, err, `cluster "c" has no secret`)
}

// client is a client of a server, without a secret.
func client(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ours is a server of this program in a handshake.
func ours(o transport.Options) identity {
	return identity{Options: o, can: version.Between(oldestProtocol, protocol)}
}

func challenge(nonce []byte) *raftpb.Challenge { return &raftpb.Challenge{Nonce: nonce} }

func challengeFrame(c *raftpb.Challenge) *raftpb.Frame {
	return &raftpb.Frame{Content: &raftpb.Frame_Challenge{Challenge: c}}
}

func hello(change func(*raftpb.Hello)) *raftpb.Frame {
	h := &raftpb.Hello{Version: protocol, Cluster: "c", From: 2, To: 1, Nonce: make([]byte, nonceBytes)}
	if change != nil {
		change(h)
	}
	return &raftpb.Frame{Content: &raftpb.Frame_Hello{Hello: h}}
}

// A stranger is told what is wrong, and gets no proof from which the secret could be
// guessed.
func TestHellosThatAreRefused(t *testing.T) {
	a := start(t, 1, nil)
	conn := client(t, a.address)
	for _, c := range []struct {
		first *raftpb.Frame
		why   string
	}{
		{&raftpb.Frame{}, "begins with a hello"},
		{proofFrame(nil), "begins with a hello"},
		{hello(func(h *raftpb.Hello) { h.Nonce = nil }), "a nonce of 32 bytes"},
		{hello(func(h *raftpb.Hello) { h.Version = 7 }), "n2 uses version 7 of the protocol over gRPC, this server versions 1 to 2: run programs on both"},
		{hello(func(h *raftpb.Hello) { h.Cluster = "d" }), `n2 belongs to cluster "d", this server to cluster "c"`},
		{hello(func(h *raftpb.Hello) { h.To = 3 }), "n2 wants to reach n3, but this is n1: correct the address that n2 has for n3"},
		{hello(func(h *raftpb.Hello) { h.From = 1 }), "two servers run under one ID"},
		{hello(func(h *raftpb.Hello) { h.From = 0 }), "not a server's ID"},
	} {
		s, err := raftpb.NewRaftClient(conn).Link(t.Context(), grpc.WaitForReady(true))
		require.NoError(t, err)
		require.NoError(t, s.Send(c.first))
		_, err = s.Recv()
		require.ErrorContains(t, err, c.why)
	}
	for _, second := range []*raftpb.Frame{nil, proofFrame(make([]byte, sha256.Size)), hello(nil)} {
		s, err := raftpb.NewRaftClient(conn).Link(t.Context(), grpc.WaitForReady(true))
		require.NoError(t, err)
		require.NoError(t, s.Send(hello(nil)))
		challenge, err := s.Recv()
		require.NoError(t, err)
		require.Len(t, challenge.GetChallenge().GetNonce(), nonceBytes)
		if second == nil {
			require.NoError(t, s.CloseSend())
		} else {
			require.NoError(t, s.Send(second))
		}
		_, err = s.Recv()
		require.Equal(t, codes.Unauthenticated, status.Code(err), "%v", err)
	}
}

// A server proves itself too: the one that calls sends nothing to another one.
func TestTheServerThatIsCalledProvesItself(t *testing.T) {
	for name, second := range map[string]func(h *raftpb.Hello, nonce, proof []byte) *raftpb.Frame{
		"nothing":      func(*raftpb.Hello, []byte, []byte) *raftpb.Frame { return proofFrame(nil) },
		"caller's own": func(_ *raftpb.Hello, _, proof []byte) *raftpb.Frame { return proofFrame(proof) },
		"another secret": func(h *raftpb.Hello, n, _ []byte) *raftpb.Frame {
			return proofFrame(prove(answerer, "other", h, challenge(n)))
		},
		"another cluster": func(h *raftpb.Hello, n, _ []byte) *raftpb.Frame {
			h = proto.CloneOf(h)
			h.Cluster = "d"
			return proofFrame(prove(answerer, secret, h, challenge(n)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			self := transport.Options{ID: 1, Cluster: "c", Secret: secret}
			near, far := pipe()
			done := make(chan error, 1)
			go func() {
				_, _, _, err := greet(near, ours(self), 2)
				done <- err
			}()
			first := <-far.in
			nonce := newNonce()
			far.out <- challengeFrame(challenge(nonce))
			proof := (<-far.in).GetProof().GetHmac()
			require.Equal(t, prove(caller, self.Secret, first.GetHello(), challenge(nonce)), proof)
			far.out <- second(first.GetHello(), nonce, proof)
			require.ErrorContains(t, <-done, `the server that should be n2 does not know the secret of cluster "c"`)
		})
	}
}

// half is one end of a pipe of frames.
type half struct{ in, out chan *raftpb.Frame }

func pipe() (a, b half) {
	x, y := make(chan *raftpb.Frame, 100), make(chan *raftpb.Frame, 100)
	return half{x, y}, half{y, x}
}

func (h half) Send(f *raftpb.Frame) error { h.out <- f; return nil }

func (h half) Recv() (*raftpb.Frame, error) {
	f, ok := <-h.in
	if !ok {
		return nil, io.EOF
	}
	return f, nil
}

// A man in the middle can relay a handshake between two servers. From then on he can
// read, but nothing that he does to the messages is accepted.
func TestNothingIsAcceptedFromAManInTheMiddle(t *testing.T) {
	frames := func(s *seal, numbers ...int) (all []*raftpb.Frame) {
		for _, n := range numbers {
			m, err := FromLine(message(n))
			require.NoError(t, err)
			all = append(all, s.close(m, message(n)))
		}
		return all
	}
	type change = func(sent, back []*raftpb.Frame) []*raftpb.Frame
	first := func(f func(*raftpb.Frame)) change {
		return func(sent, _ []*raftpb.Frame) []*raftpb.Frame {
			f(sent[0])
			return sent
		}
	}
	none, one, both := 0, 1, 2
	for name, c := range map[string]struct {
		change   change
		accepted int
	}{
		"nothing":       {first(func(*raftpb.Frame) {}), both},
		"another term":  {first(func(f *raftpb.Frame) { f.GetMessage().Term = 9 }), none},
		"another body":  {first(func(f *raftpb.Frame) { f.GetMessage().Body = &raftpb.Message_ReadIndex{ReadIndex: &raftpb.ReadIndex{}} }), none},
		"disks added":   {first(func(f *raftpb.Frame) { f.GetMessage().Disks = &raftpb.Disks{Own: 1} }), none},
		"a field added": {first(func(f *raftpb.Frame) { f.GetMessage().ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 0x01}) }), none},
		"no MAC":        {first(func(f *raftpb.Frame) { f.Mac = nil }), none},
		"half a MAC":    {first(func(f *raftpb.Frame) { f.Mac = f.Mac[:8] }), none},
		"no message":    {first(func(f *raftpb.Frame) { f.Content = nil }), none},
		"left out":      {func(sent, _ []*raftpb.Frame) []*raftpb.Frame { return sent[1:] }, none},
		"exchanged":     {func(sent, _ []*raftpb.Frame) []*raftpb.Frame { return []*raftpb.Frame{sent[1], sent[0]} }, none},
		"repeated":      {func(sent, _ []*raftpb.Frame) []*raftpb.Frame { return []*raftpb.Frame{sent[0], sent[0]} }, one},
		"sent back":     {func(_, back []*raftpb.Frame) []*raftpb.Frame { return back }, none},
		"another hello": {func(sent, _ []*raftpb.Frame) []*raftpb.Frame { return append([]*raftpb.Frame{hello(nil)}, sent...) }, none},
		"an older link": {func(_, _ []*raftpb.Frame) []*raftpb.Frame { return frames(sealOf(t, caller, newNonce()), 1, 2) }, none},
	} {
		t.Run(name, func(t *testing.T) {
			nonce := newNonce()
			_, in, err := seals(answerer, secret, hello(nil).GetHello(), challenge(nonce))
			require.NoError(t, err)
			accepted := 0
			for _, f := range c.change(frames(sealOf(t, caller, nonce), 1, 2), frames(sealOf(t, answerer, nonce), 1, 2)) {
				line, err := in.open(f)
				if err != nil {
					break
				}
				accepted++
				require.Equal(t, string(message(accepted)), string(line))
			}
			require.Equal(t, c.accepted, accepted)
		})
	}
}

// sealOf returns the seal of what one side sends.
func sealOf(t *testing.T, by side, nonce []byte) *seal {
	out, _, err := seals(by, secret, hello(nil).GetHello(), challenge(nonce))
	require.NoError(t, err)
	return out
}

// A message that is not genuine ends the link, and the servers link again.
func TestALinkEndsAfterAForgedMessage(t *testing.T) {
	a := start(t, 1, nil)
	s, err := raftpb.NewRaftClient(client(t, a.address)).Link(t.Context(), grpc.WaitForReady(true))
	require.NoError(t, err)
	self := transport.Options{ID: 2, Cluster: "c", Secret: secret}
	_, out, in, err := greet(s, ours(self), 1)
	require.NoError(t, err)
	m, err := FromLine(message(1))
	require.NoError(t, err)
	require.NoError(t, s.Send(out.close(m, message(1))))
	require.Equal(t, "n2 "+string(message(1)), <-a.got)
	require.True(t, a.Send(2, message(7)), "the one that called gets answers")
	f, err := s.Recv()
	require.NoError(t, err)
	line, err := in.open(f)
	require.NoError(t, err)
	require.Equal(t, string(message(7)), string(line))
	require.NoError(t, s.Send(&raftpb.Frame{Content: &raftpb.Frame_Message{Message: m}, Mac: make([]byte, 16)}))
	_, err = s.Recv()
	require.Error(t, err)
	a.log.has(t, "not genuine")
	require.Empty(t, a.got)
	require.Eventually(t, func() bool { return !a.Send(2, message(8)) }, slow, time.Millisecond, "n2 has no link and no name")
}

// A newer link of a peer takes the place of the older one.
func TestTheNewerLinkWins(t *testing.T) {
	a := start(t, 1, nil)
	self := transport.Options{ID: 2, Cluster: "c", Secret: secret}
	var streams []grpc.BidiStreamingClient[raftpb.Frame, raftpb.Frame]
	for range 3 {
		s, err := raftpb.NewRaftClient(client(t, a.address)).Link(t.Context(), grpc.WaitForReady(true))
		require.NoError(t, err)
		_, _, _, err = greet(s, ours(self), 1)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	for _, s := range streams[:2] {
		_, err := s.Recv()
		require.Error(t, err)
	}
	require.True(t, a.Send(2, message(1)))
	f, err := streams[2].Recv()
	require.NoError(t, err)
	require.NotNil(t, f.GetMessage())
}

// A server that starts again is found again, and one that has moved too.
func TestServersAreFoundAgain(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	a.Connect([]node.Member{b.member()})
	b.receives(t, a, 1)
	b.stop()
	ln, err := net.Listen("tcp", b.address)
	require.NoError(t, err)
	b = startOn(t, 2, ln, nil)
	b.receives(t, a, 2)
	b.stop()
	b = start(t, 2, nil) // at another address, which a does not know
	b.Connect([]node.Member{a.member()})
	b.receives(t, a, 3)
	a.receives(t, b, 4)
}

func TestAFullQueueDropsTheOldestMessages(t *testing.T) {
	tr, err := New(transport.Options{ID: 1, Cluster: "c", Secret: "s", Limits: transport.Limits{QueueLines: 3, QueueBytes: 4 * len(message(1))}})
	require.NoError(t, err)
	tr.Connect([]node.Member{{ID: 2, Address: "127.0.0.1:1"}})
	for n := range 3 {
		require.True(t, tr.Send(2, message(n+1)))
	}
	require.False(t, tr.Send(2, message(4)), "more than QueueLines")
	long := append(message(5), bytes.Repeat([]byte{' '}, 2*len(message(5)))...)
	require.False(t, tr.Send(2, long), "more than QueueBytes")
	p := tr.peers[2]
	require.Equal(t, [][]byte{message(4), long}, p.queue)
	require.Equal(t, len(message(4))+len(long), p.bytes)
}

// Everybody may ask what the server offers.
func TestReflection(t *testing.T) {
	a := start(t, 1, nil)
	s, err := reflectionpb.NewServerReflectionClient(client(t, a.address)).ServerReflectionInfo(t.Context(), grpc.WaitForReady(true))
	require.NoError(t, err)
	require.NoError(t, s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}))
	answer, err := s.Recv()
	require.NoError(t, err)
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	require.Contains(t, names, "raftsteps.raft.v1.Raft")
	require.NoError(t, s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "raftsteps.raft.v1.AppendEntries"}}))
	answer, err = s.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, answer.GetFileDescriptorResponse().GetFileDescriptorProto())
}

// A connection that has not proved itself may send 64 KiB, in whatever form.
func TestAStrangerMaySendLittle(t *testing.T) {
	a := start(t, 1, nil)
	s, err := raftpb.NewRaftClient(client(t, a.address)).Link(t.Context(), grpc.WaitForReady(true))
	require.NoError(t, err)
	_ = s.Send(hello(func(h *raftpb.Hello) { h.Nonce = make([]byte, 10*strangerBytes) }))
	_, err = s.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
}

// A stranger who holds calls open without a proof is dropped after Limits.Dial.
func TestAStrangerWhoWaitsIsDropped(t *testing.T) {
	a := start(t, 1, func(o *transport.Options) { o.Limits.Dial = 50 * time.Millisecond })
	s, err := raftpb.NewRaftClient(client(t, a.address)).Link(t.Context(), grpc.WaitForReady(true))
	require.NoError(t, err)
	require.NoError(t, s.Send(hello(nil)))
	_, err = s.Recv()
	require.NoError(t, err)
	_, err = s.Recv()
	require.Error(t, err)
}

// However many strangers there are, a peer finds room: the oldest have to go.
func TestStrangersDoNotKeepPeersOut(t *testing.T) {
	a, b := start(t, 1, nil), start(t, 2, nil)
	const extra = 10
	var strangers []net.Conn
	for range maxStrangers + extra {
		c, err := net.Dial("tcp", a.address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write(a.Preface())
		require.NoError(t, err)
		strangers = append(strangers, c)
	}
	gone := make(chan error, len(strangers))
	for _, c := range strangers {
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(slow))
			_, err := io.Copy(io.Discard, c)
			gone <- err
		}()
	}
	for range extra {
		require.NotErrorIs(t, <-gone, os.ErrDeadlineExceeded, "the server has not closed the connection of a stranger")
	}
	a.door.mu.Lock()
	left := len(a.door.strangers)
	a.door.mu.Unlock()
	require.Equal(t, maxStrangers, left)
	b.Connect([]node.Member{a.member()})
	a.receives(t, b, 1)
}

// A peer that starts again should not have to read old messages first.
func TestMessagesDoNotWaitForAPeerThatIsAway(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	a := start(t, 1, nil)
	a.Connect([]node.Member{{ID: 2, Address: ln.Addr().String()}})
	require.True(t, a.Send(2, message(1)))
	p := a.peers[2]
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.queue) == 0 && p.bytes == 0
	}, slow, time.Millisecond)
}

// authority issues certificates for cluster c.
type authority struct {
	*trust.Authority
	ca  trust.Pair
	dir string
}

func newAuthority(t *testing.T) authority {
	a, ca, err := trust.NewAuthority("c", time.Hour)
	require.NoError(t, err)
	return authority{a, ca, t.TempDir()}
}

// files writes a certificate, its key and the CA's certificate into files.
func (a authority) files(t *testing.T, who trust.Identity) (ca, cert, key string) {
	t.Helper()
	pair, err := a.Issue(who, []string{"127.0.0.1"}, time.Hour)
	require.NoError(t, err)
	dir, err := os.MkdirTemp(a.dir, "")
	require.NoError(t, err)
	ca, cert, key = filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for path, text := range map[string][]byte{ca: a.ca.Cert, cert: pair.Cert, key: pair.Key} {
		require.NoError(t, os.WriteFile(path, text, 0o600))
	}
	return ca, cert, key
}

// keys makes a server speak TLS with the certificate of a server.
func (a authority) keys(t *testing.T, id uint64) func(*transport.Options) {
	ca, cert, key := a.files(t, trust.Identity{Cluster: "c", Server: id})
	k, err := trust.Open(trust.Options{Cluster: "c", Server: id, CA: ca, Cert: cert, Key: key})
	require.NoError(t, err)
	return func(o *transport.Options) { o.Keys = k }
}

func TestMessagesOverTLS(t *testing.T) {
	ca := newAuthority(t)
	a, b := start(t, 1, ca.keys(t, 1)), start(t, 2, ca.keys(t, 2))
	a.Connect([]node.Member{b.member()})
	b.receives(t, a, 1)
	a.receives(t, b, 2)
	b.stop()
	ln, err := net.Listen("tcp", b.address)
	require.NoError(t, err)
	b = startOn(t, 2, ln, ca.keys(t, 2))
	b.receives(t, a, 3)
}

// With TLS, the secret is not enough: both sides must show the certificate of the
// server that they claim to be.
func TestCertificatesOfPeers(t *testing.T) {
	ca := newAuthority(t)
	keys := ca.keys(t, 1)
	a := start(t, 1, func(o *transport.Options) {
		keys(o)
		o.Limits.Dial = time.Second // the log tells then why there is no link
	})
	files, cert, key := ca.files(t, trust.Identity{Cluster: "c", Role: "operate"})
	for name, c := range map[string]struct {
		cert, key string
		why       string
	}{
		"none":        {why: "n2 has shown no certificate that says who it is; a server needs one"},
		"of a client": {cert, key, "n2 has shown the certificate of"},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := trust.Client(files, c.cert, c.key)
			require.NoError(t, err)
			config.NextProtos = []string{alpn}
			conn, err := grpc.NewClient("passthrough:///"+a.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			s, err := raftpb.NewRaftClient(conn).Link(t.Context(), grpc.WaitForReady(true))
			require.NoError(t, err)
			_, _, _, err = greet(s, ours(transport.Options{ID: 2, Cluster: "c", Secret: secret}), 1)
			require.ErrorContains(t, err, c.why)
		})
	}
	// n3 has the certificate of n2, and then n3 is not the server that is called.
	b := start(t, 3, ca.keys(t, 2))
	b.Connect([]node.Member{a.member()})
	b.log.has(t, "the peer refuses: n3 has shown the certificate of")
	a.Connect([]node.Member{{ID: 3, Address: b.address}})
	a.log.has(t, "the certificate of the server there cannot be accepted")
	// Only one side speaks TLS.
	plain := start(t, 4, nil)
	a.Connect([]node.Member{plain.member()})
	a.log.has(t, "the peer speaks no TLS")
	// One side does not speak gRPC.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var o transport.Options
	ca.keys(t, 5)(&o)
	port := wire.Server{TLS: o.Keys, Handler: func(_ api.Request, reply func(api.Response)) { reply(api.Response{}) }}
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { _ = port.Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); served.Wait() })
	a.Connect([]node.Member{{ID: 5, Address: ln.Addr().String()}})
	a.log.has(t, "the peer does not speak gRPC")
	require.Empty(t, a.got)
	require.Empty(t, b.got)
	require.Empty(t, plain.got)
}
