package grpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
)

// dialer keeps a link to one peer at one address. gRPC connects again by itself; a
// link that has ended is opened again by the dialer.
type dialer struct {
	t       *Transport
	peer    *peer
	address string
	log     *slog.Logger

	// agreed is the version of the latest link; before the first one, the newest that
	// this server can use.
	agreed uint64

	// failure is why the last attempt to connect has failed; nil if it has not.
	failure atomic.Pointer[error]
}

// patience is how long a peer may be away before the dialer logs it: servers that
// start together do not find each other at once, and servers that stop together do
// not end at the same moment.
const patience = time.Second

// hopeless is an error after which the next attempt will probably fail in the same
// way.
type hopeless struct{ error }

// errEnded says that the peer has closed a link, or that the connection has broken.
var errEnded = errors.New("the link has ended")

// run keeps the link until ctx is done.
func (d *dialer) run(ctx context.Context) {
	conn, err := d.client()
	if err != nil {
		d.log.Error("a peer cannot be called; correct its address", "error", err)
		return
	}
	defer func() { _ = conn.Close() }()
	defer d.peer.clear()
	limits := d.t.o.Limits
	var told string // the last error that was logged, so that it is not repeated
	began, pause := time.Now(), limits.Backoff[0]
	for ctx.Err() == nil {
		linked, err := d.link(ctx, raftpb.NewRaftClient(conn))
		if ctx.Err() != nil {
			return
		}
		if !linked {
			d.peer.clear()
		} else {
			told, began, pause = "", time.Now(), limits.Backoff[0]
		}
		if errors.As(err, new(hopeless)) {
			pause = limits.Backoff[1]
		}
		level := slog.LevelWarn
		if away(err) {
			level = slog.LevelInfo
		}
		if text := err.Error(); text != told && !(away(err) && time.Since(began) < patience) {
			told = text
			d.log.Log(ctx, level, "no link to a peer; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)): // jitter: servers that start together do not call in step
		}
		pause = min(2*pause, limits.Backoff[1])
	}
}

// client returns the gRPC client of the peer. It connects at the first call.
func (d *dialer) client() (*grpc.ClientConn, error) {
	limits := d.t.o.Limits
	return grpc.NewClient("passthrough:///"+d.address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(d.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: limits.Backoff[0], Multiplier: 2, Jitter: 0.5, MaxDelay: limits.Backoff[1]},
			MinConnectTimeout: limits.Dial,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: alive, Timeout: alive}),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(limits.Message+frameRoom)),
	)
}

// dial opens a connection. The queue is emptied if that fails: a call waits for a
// connection, and does not notice.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil && d.t.o.Keys != nil {
		c, err = d.secure(ctx, c)
	}
	if err != nil {
		d.failure.Store(&err)
		d.peer.clear()
		return nil, err
	}
	d.failure.Store(nil)
	return c, nil
}

// secure speaks TLS on a connection, in which the peer must show its own certificate.
func (d *dialer) secure(ctx context.Context, below net.Conn) (net.Conn, error) {
	config := d.t.o.Keys.Dial(d.peer.id)
	config.NextProtos = []string{alpn}
	c := tls.Client(below, config)
	err := c.HandshakeContext(ctx)
	if err == nil {
		return c, nil
	}
	_ = below.Close() // the error of the handshake says more
	switch {
	case errors.As(err, new(tls.RecordHeaderError)):
		err = errors.New(`the peer speaks no TLS: write the same "tls" into the cluster.json of every server`)
	case refusesProtocol(err):
		err = fmt.Errorf("the peer does not speak gRPC: write \"transport\": %q into the cluster.json of every server", Name)
	}
	return nil, err
}

// refusesProtocol reports whether the other side of a TLS handshake has sent the alert
// no_application_protocol (RFC 7301). The type of such an error is not exported, but
// tls.AlertError has the same texts.
func refusesProtocol(err error) bool {
	const noProtocol = tls.AlertError(120)
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Err.Error() == noProtocol.Error()
}

// link opens a link and carries messages until it ends. linked is true if the
// handshake has succeeded.
func (d *dialer) link(ctx context.Context, client raftpb.RaftClient) (linked bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	late := time.AfterFunc(d.t.o.Limits.Dial, end)
	defer late.Stop()
	s, err := client.Link(ctx)
	if err != nil {
		return false, d.explain(ctx, err)
	}
	agreed, out, in, err := greet(s, d.t.identity(), d.peer.id)
	if err == nil && !late.Stop() {
		err = ctx.Err()
	}
	if err != nil {
		return false, d.explain(ctx, err)
	}
	level := slog.LevelDebug
	if agreed != d.agreed { // one of the two was upgraded, or is still to be
		level = slog.LevelInfo
	}
	d.agreed = agreed
	d.log.Log(ctx, level, "connected to a peer", "version", agreed)
	l := newLink(s, out, in, end)
	d.peer.set(&d.peer.called, l) // the older link has ended
	defer d.t.ended(d.peer, &d.peer.called, l)
	err = d.peer.carry(ctx, l, d.t.receive)
	if s, ok := status.FromError(err); ok {
		err = fmt.Errorf("%w: %s", errEnded, s.Message())
	}
	return true, err
}

// explain returns why there is no link.
func (d *dialer) explain(ctx context.Context, err error) error {
	failure := d.failure.Load()
	s, fromGRPC := status.FromError(err)
	switch {
	case fromGRPC && (s.Code() == codes.FailedPrecondition || s.Code() == codes.Unauthenticated):
		return hopeless{fmt.Errorf("the peer refuses: %s", s.Message())}
	case failure != nil:
		return *failure
	case ctx.Err() != nil:
		return fmt.Errorf("there is no answer over gRPC, so check that each server has \"transport\": %q in its cluster.json (%s)", Name, s.Message())
	case fromGRPC:
		return errors.New(s.Message())
	}
	return hopeless{err} // the handshake has failed on this side
}

// away reports whether an error only means that the peer is not running.
func away(err error) bool {
	return errors.Is(err, errEnded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}
