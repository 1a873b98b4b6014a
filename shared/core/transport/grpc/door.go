package grpc

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/raftsteps/shared/core/trust"
)

const (
	// maxStrangers is how many connections there may be that have not proved that
	// they belong to a peer.
	maxStrangers = 256

	// strangerTime is how long the oldest of them may stay if there are too many.
	strangerTime = 50 * time.Millisecond

	// strangerBytes is how much one of them may send.
	strangerBytes = 64 << 10
)

// door is a net.Listener of connections that the server on the shared port has
// accepted.
type door struct {
	addr  net.Addr
	conns chan *guest
	done  chan struct{}
	once  sync.Once

	mu sync.Mutex

	// strangers are the connections that are not a peer's, oldest first.
	strangers []*guest
}

func newDoor(address string) *door {
	return &door{addr: shared(address), conns: make(chan *guest), done: make(chan struct{})}
}

// shared is the address of the shared port.
type shared string

func (shared) Network() string  { return "tcp" }
func (s shared) String() string { return string(s) }

// Accept is net.Listener.Accept.
func (d *door) Accept() (net.Conn, error) {
	select {
	case g := <-d.conns:
		return g, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener.Close. It also ends the connections of strangers, for whose
// first bytes gRPC would wait.
func (d *door) Close() error {
	d.once.Do(func() { close(d.done) })
	d.mu.Lock()
	strangers := slices.Clone(d.strangers)
	d.mu.Unlock()
	for _, g := range strangers {
		_ = g.Close()
	}
	return nil
}

// Addr is net.Listener.Addr.
func (d *door) Addr() net.Addr { return d.addr }

// serve lets a connection in, and returns when it has ended.
func (d *door) serve(c net.Conn, proved func()) {
	g := &guest{Conn: c, door: d, proved: proved, since: time.Now(), left: strangerBytes, closed: make(chan struct{})}
	if below, ok := c.(interface{ NetConn() net.Conn }); ok {
		g.tls, _ = below.NetConn().(*tls.Conn)
	}
	defer func() { _ = g.Close() }()
	if !d.enter(g) {
		return
	}
	defer d.leave(g)
	select {
	case d.conns <- g:
		<-g.closed
	case <-d.done:
	}
}

// enter waits until there is room for another stranger. It returns false if the door
// is closed.
func (d *door) enter(g *guest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.strangers) >= maxStrangers {
		oldest := d.strangers[0]
		wait := strangerTime - time.Since(oldest.since)
		if wait <= 0 {
			d.strangers = d.strangers[1:]
			_ = oldest.Close()
			continue
		}
		d.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-d.done:
		}
		d.mu.Lock()
		select {
		case <-d.done:
			return false
		default:
		}
	}
	g.since = time.Now()
	d.strangers = append(d.strangers, g)
	return true
}

// leave takes a connection that has ended or proved itself out of the strangers.
func (d *door) leave(g *guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.strangers = slices.DeleteFunc(d.strangers, func(s *guest) bool { return s == g })
}

// guest is a connection that has come through the door.
type guest struct {
	net.Conn

	// tls is the connection if it speaks TLS; nil if it does not.
	tls    *tls.Conn
	door   *door
	proved func()
	since  time.Time
	closed chan struct{}
	once   sync.Once

	mu sync.Mutex

	// left is how much it may still send before it has proved itself.
	left int
	peer bool
}

// Read is net.Conn.Read.
func (g *guest) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left -= n; g.left < 0 && !g.peer {
		return 0, fmt.Errorf("a connection that has not proved that it belongs to a peer has sent more than %d bytes", strangerBytes)
	}
	return n, err
}

// Close is net.Conn.Close. It does not wait: TLS would have to send something.
func (g *guest) Close() error {
	g.once.Do(func() { close(g.closed) })
	if g.tls != nil {
		return g.tls.NetConn().Close()
	}
	return g.Conn.Close()
}

// vouched returns an error if the certificate of the connection does not belong to
// the server that has said hello. Without TLS, nothing is checked.
func (g *guest) vouched(from uint64, keys *trust.Keys) error {
	if keys == nil {
		return nil
	}
	if g.tls == nil {
		return fmt.Errorf("n%d speaks no TLS: write the same \"tls\" into the cluster.json of every server", from)
	}
	who, err := keys.Verify(g.tls.ConnectionState())
	switch {
	case err != nil:
		return err
	case who == (trust.Identity{}):
		return fmt.Errorf("n%d has shown no certificate that says who it is; a server needs one", from)
	case who.Server != from:
		return fmt.Errorf("n%d has shown the certificate of %s; give each server its own", from, who.URI())
	}
	return nil
}

// admit says that the connection belongs to a peer.
func (g *guest) admit() {
	g.mu.Lock()
	g.peer = true
	g.mu.Unlock()
	g.door.leave(g)
	g.proved()
}

// introduce makes a call know its guest: gRPC passes the AuthInfo of a connection to
// each call on it. The identity of a peer is proved within the call.
type introduce struct {
	credentials.TransportCredentials
}

// introduction is a credentials.AuthInfo.
type introduction struct {
	credentials.CommonAuthInfo
	guest *guest
}

// AuthType is credentials.AuthInfo.AuthType.
func (introduction) AuthType() string { return "guest" }

// ServerHandshake is credentials.TransportCredentials.ServerHandshake.
func (introduce) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	g, ok := c.(*guest)
	if !ok {
		return nil, nil, errors.New("a connection that did not come through the door")
	}
	return g, introduction{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, g}, nil
}

// Clone is credentials.TransportCredentials.Clone.
func (i introduce) Clone() credentials.TransportCredentials { return i }
