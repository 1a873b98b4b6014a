package grpc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"example.com/raftsteps/shared/core/loglimit"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/transport"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
	"example.com/raftsteps/shared/core/version"
)

// Name is the name of the transport.
const Name = "grpc"

func init() {
	transport.Register(Name, func(o transport.Options) (transport.Transport, error) { return New(o) })
}

// window is how many bytes may be on their way to a server that does not read them,
// and alive how long a connection may be silent until gRPC asks whether the other
// side is still there, and then how long it may take to answer.
const (
	window = 1 << 20
	alive  = 10 * time.Second
)

// frameRoom is how much longer a frame may be than the line that it carries. Most are
// shorter.
const frameRoom = 64 << 10

// Transport is a transport.Sharer, a transport.Certified and a transport.Counted.
type Transport struct {
	raftpb.UnimplementedRaftServer

	o    transport.Options
	log  *slog.Logger
	door *door

	// can are the versions of the protocol that this server can use. Tests have others.
	can version.Range

	// start is drawn when the server starts.
	start uint64

	// receive receives the peers' messages. It is set before there is a link.
	receive func(from uint64, line []byte)

	// lost learns which messages are lost.
	lost func(peer uint64, why peers.Loss, count int)

	calls errgroup.Group

	// refused keeps the log short.
	refused loglimit.Limit

	mu sync.Mutex

	// ctx is the context of Run while it runs; nil before and after.
	ctx   context.Context
	peers map[uint64]*peer
}

// New returns the transport of a server.
func New(o transport.Options) (*Transport, error) {
	if o.Secret == "" {
		return nil, fmt.Errorf("cluster %q has no secret, so its servers cannot trust each other; set one in the configuration", o.Cluster)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Limits = o.Limits.Filled()
	return &Transport{o: o, log: o.Log, can: version.Between(oldestProtocol, protocol), start: rand.Uint64(), lost: func(uint64, peers.Loss, int) {},
		door: newDoor(o.Listen), peers: make(map[uint64]*peer)}, nil
}

// identity returns this server as a handshake needs it.
func (t *Transport) identity() identity { return identity{Options: t.o, can: t.can, start: t.start} }

// Preface is transport.Sharer.Preface.
func (t *Transport) Preface() []byte { return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }

// alpn is the name of HTTP/2 in a TLS handshake.
const alpn = "h2"

// ALPN is transport.Sharer.ALPN.
func (t *Transport) ALPN() []string { return []string{alpn} }

// UsesKeys is transport.Certified.UsesKeys.
func (t *Transport) UsesKeys() {}

// OnLoss is transport.Counted.OnLoss.
func (t *Transport) OnLoss(lost func(peer uint64, why peers.Loss, count int)) { t.lost = lost }

// Serve is transport.Sharer.Serve.
func (t *Transport) Serve(c net.Conn, proved func()) { t.door.serve(c, proved) }

// Close lets no connection in any longer. It is for a transport that does not run.
func (t *Transport) Close() error { return t.door.Close() }

// Run is transport.Transport.Run.
func (t *Transport) Run(ctx context.Context, receive func(from uint64, line []byte)) error {
	t.receive = receive
	s := t.server()
	var ended error
	served := make(chan struct{})
	go func() {
		defer close(served)
		ended = s.Serve(t.door)
	}()
	t.mu.Lock()
	t.ctx = ctx
	for _, p := range t.peers {
		t.call(p)
	}
	t.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-served:
	}
	t.mu.Lock()
	t.ctx = nil // nobody is called from here on
	for _, p := range t.peers {
		p.end()
	}
	t.mu.Unlock()
	s.Stop()
	<-served
	_ = t.calls.Wait() // they return nil
	return ended
}

// server returns the gRPC server.
func (t *Transport) server() *grpc.Server {
	s := grpc.NewServer(
		grpc.Creds(introduce{insecure.NewCredentials()}),
		grpc.ConnectionTimeout(t.o.Limits.Dial),
		grpc.MaxConcurrentStreams(8),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxRecvMsgSize(t.o.Limits.Message+frameRoom),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: t.o.Limits.Idle, Time: alive, Timeout: alive}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: alive / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
	raftpb.RegisterRaftServer(s, t)
	reflection.Register(s)
	return s
}

// Connect is transport.Transport.Connect.
func (t *Transport) Connect(members []node.Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	named := make(map[uint64]string)
	for _, m := range members {
		if m.ID != t.o.ID {
			named[m.ID] = m.Address
			t.meet(m.ID)
		}
	}
	for id, p := range t.peers {
		address, ok := named[id]
		if p.named && ok && p.address == address {
			continue
		}
		p.end()
		p.named, p.address, p.end = ok, address, func() {}
		if t.ctx != nil {
			t.call(p)
		}
		t.forget(p)
	}
}

// meet returns the peer of an ID. t.mu must be held.
func (t *Transport) meet(id uint64) *peer {
	p := t.peers[id]
	if p == nil {
		p = &peer{id: id, limits: t.o.Limits, log: t.log.With("peer", id), end: func() {},
			lost: func(why peers.Loss, count int) { t.lost(id, why, count) }}
		t.peers[id] = p
	}
	return p
}

// forget drops a peer that is not named and has no link. t.mu must be held.
func (t *Transport) forget(p *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.named && p.link() == nil && t.peers[p.id] == p {
		delete(t.peers, p.id)
		p.drop()
	}
}

// Send is transport.Transport.Send.
func (t *Transport) Send(to uint64, line []byte) bool {
	t.mu.Lock()
	p := t.peers[to]
	t.mu.Unlock()
	if p == nil {
		t.lost(to, peers.LostUnreachable, 1)
		return false
	}
	return p.send(line)
}

// Link is raftpb.RaftServer.Link: a peer, or a stranger, has called.
func (t *Transport) Link(s grpc.BidiStreamingServer[raftpb.Frame, raftpb.Frame]) error {
	who, _ := grpcpeer.FromContext(s.Context())
	g := who.AuthInfo.(introduction).guest
	late := time.AfterFunc(t.o.Limits.Dial, func() { _ = g.Close() })
	w, err := welcome(s, t.identity(), func(from uint64) error { return g.vouched(from, t.o.Keys) })
	if !late.Stop() && err == nil {
		err = status.Error(codes.DeadlineExceeded, "the handshake has taken too long")
	}
	if err != nil {
		why := status.Convert(err).Message()
		t.refused.Say(why, func(before int) {
			t.log.Warn("a peer was refused", "address", g.RemoteAddr(), "error", why, "refused_before", before)
		})
		return err
	}
	// The link is in its place before the peer learns that it is accepted: a link
	// that the peer opens after that is newer than this one.
	l := newLink(s, w.out, w.in, func() { _ = g.Close() })
	p := t.answer(w.from, l)
	if other := p.saw(w.start, g.RemoteAddr()); other != "" {
		peers.LogTwice(t.log, w.from, other, g.RemoteAddr().String())
	}
	defer t.ended(p, &p.answered, l)
	g.admit()
	if err := s.Send(w.proof); err != nil {
		return err
	}
	t.log.Debug("a peer has connected", "peer", w.from, "address", g.RemoteAddr(), "version", w.agreed)
	err = p.carry(s.Context(), l, t.receive)
	t.log.Debug("a peer's link has ended", "peer", w.from, "error", err)
	return status.Error(codes.Aborted, "the link has ended")
}

// answer puts a link of a peer in its place.
func (t *Transport) answer(from uint64, l *link) *peer {
	t.mu.Lock()
	p := t.meet(from)
	old := p.set(&p.answered, l)
	t.mu.Unlock()
	if old != nil {
		old.close()
	}
	return p
}

// ended takes a link that has ended out of its place.
func (t *Transport) ended(p *peer, place **link, l *link) {
	p.unset(place, l)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(p)
}

// call keeps a link to a peer if it is named. t.mu must be held, and t.ctx set.
func (t *Transport) call(p *peer) {
	if !p.named {
		return
	}
	d := dialer{t: t, peer: p, address: p.address, agreed: t.can.Newest, log: p.log.With("address", p.address)}
	ctx, end := context.WithCancel(t.ctx)
	p.end = end
	t.calls.Go(func() error {
		defer end()
		d.run(ctx)
		return nil
	})
}
