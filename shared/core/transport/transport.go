// Package transport is the interface between a server and what carries its
// messages to the other servers of its cluster.
//
// Raft asks for little: a message may be lost, repeated, delayed or overtaken.
// TCP (package tcp) is the default. Others register themselves under a name, as
// the drivers of database/sql do, and cluster.json chooses one: "transport":
// "udp". A program contains only the transports that it imports.
//
// # Another transport
//
// It must do what the methods of Transport say, and:
//
//   - It delivers a message whole and unchanged, or not at all. Messages of up to
//     Limits.Message bytes must get through.
//   - It delivers only messages of servers that have proved, with the cluster's
//     secret, who they are. Somebody on the way must not be able to add, change or
//     repeat a message, also not one of an earlier run.
//   - Without TLS, it says in its documentation who can read the messages. In a server
//     that speaks TLS, it uses the server's keys (see Certified) and has forward
//     secrecy, or the server refuses to start with it.
//   - It finds a peer again by itself: after a break, after the peer has started
//     again, and at another address, if the peer proves itself there.
//   - It bounds what it holds in bytes: for each peer, and for everybody who is
//     not a peer yet. A stranger must not be able to keep peers out.
//   - It notices when two processes run as one server, on copies of one folder, and
//     logs it (see peers.Lives).
//   - It says which messages it loses, and why, as far as it knows (see Counted).
//   - It uses the address of the server that clients use, too: the same TCP port
//     (see Sharer), or the same port number of another protocol.
//
// Package conform checks this for every transport.
package transport

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trust"
)

// Transport carries messages between this server and its peers. It guarantees as
// little as node.World.Send does: a message may be lost, repeated, delayed or
// overtaken. But it must verify that the sender of a message is the server that
// it claims to be.
//
// A line is opaque to it. The host adds to each line what the servers must know
// about each other's disks, so that a server that came back without its data is
// refused. (With TCP, this is part of the handshake.)
//
// The host closes a Transport that a Factory has created, if it is an io.Closer,
// when the server cannot start, so that Run is never called.
type Transport interface {
	// Run carries messages until ctx is done, and then returns nil; any other end
	// is an error and ends the server. It gives each message that arrives to
	// receive, which may be called from many goroutines, waits while the server
	// has too much to do, and keeps line. Run is called once.
	Run(ctx context.Context, receive func(from uint64, line []byte)) error

	// Connect says to which servers this server may send from now on; the list
	// may include itself. A peer that is not named may still connect to this
	// server, and answers to it should arrive. Connect may be called before Run.
	// It must not wait.
	Connect(members []node.Member)

	// Send sends a line. It must not wait, and returns false if it knows that
	// something was lost. If there is no room for all messages to a peer, the
	// oldest are dropped: the newest have the latest term and commit index. line
	// must not be changed. Send may be called before Run, and after it.
	Send(to uint64, line []byte) bool
}

// Sharer is a Transport that receives its connections on the server's own TCP
// port, which it shares with the clients. The server gives it each connection
// that begins with its preface.
type Sharer interface {
	Transport

	// Preface returns the bytes with which the other side begins. No line of
	// JSON and no request of HTTP/1 may begin with them.
	Preface() []byte

	// ALPN returns the names of its protocol under TLS (RFC 7301); none if it has
	// no name.
	ALPN() []string

	// Serve serves one connection, from the preface on, until it ends. It is
	// called on a goroutine of the connection's own; the server closes c when
	// Serve returns, and at the latest when the server stops. Until Serve calls
	// proved, the connection counts as a client's. Once the other side has
	// proved that it is a peer, Serve must call proved, so that clients cannot
	// take its place.
	//
	// c has a method NetConn, which returns the connection below it, such as a
	// *tls.Conn.
	Serve(c net.Conn, proved func())
}

// Certified is a Transport that uses Options.Keys: its messages are encrypted, and
// both sides check each other's certificate. Someone who records the messages and
// learns the secret and all private keys later cannot read them (forward secrecy). A
// server that speaks TLS starts no other, because cluster.json says that its traffic is
// protected.
type Certified interface {
	Transport

	// UsesKeys does nothing.
	UsesKeys()
}

// Counted is a Transport that says which messages it loses. If it does not, the
// server counts a peers.LostFull whenever Send returns false.
type Counted interface {
	Transport

	// OnLoss makes the transport call lost for the messages to a peer of which it
	// knows that they are lost: once for each message, with the reason, as a
	// count. Messages that were on their way when a connection broke, or that a
	// network loses, are not known. OnLoss is called once, before any other
	// method. lost does not wait, and may be called from many goroutines.
	OnLoss(lost func(peer uint64, why peers.Loss, count int))
}

// Options describe the server to a transport.
type Options struct {
	// ID is the server's ID.
	ID uint64

	// Cluster is the cluster's name. Secret is known only to the members of the
	// cluster; it must never be sent.
	Cluster string
	Secret  string

	// Keys are the keys of a server that speaks TLS; nil if it does not. See
	// Certified.
	Keys *trust.Keys

	// Address is where the peers reach this server, and Listen is where it
	// listens for clients, which may be another address of the same machine.
	Address string
	Listen  string

	// Limits bound what the transport holds; zero fields have their defaults.
	Limits Limits

	// Log receives what an operator should know; nil means that nothing is
	// logged.
	Log *slog.Logger
}

// Limits bound what a transport holds and how long it waits. A field that is zero
// means its value in DefaultLimits.
type Limits struct {
	// Message is the longest message in bytes.
	Message int

	// QueueLines and QueueBytes limit the messages that wait for one peer.
	QueueLines int
	QueueBytes int

	// Dial is how long a handshake may take.
	Dial time.Duration

	// Idle is how long a connection may be silent before it is closed.
	Idle time.Duration

	// Backoff is the shortest and the longest pause between two attempts to reach
	// a peer.
	Backoff [2]time.Duration
}

// DefaultLimits returns limits that suit a server on one machine or in one data
// center.
func DefaultLimits() Limits {
	return Limits{
		Message:    8 << 20,
		QueueLines: 8192,
		QueueBytes: 32 << 20,
		Dial:       3 * time.Second,
		Idle:       5 * time.Minute,
		Backoff:    [2]time.Duration{20 * time.Millisecond, time.Second},
	}
}

// Filled returns l with the defaults in place of zeros.
func (l Limits) Filled() Limits {
	d := DefaultLimits()
	fill(&l.Message, d.Message)
	fill(&l.QueueLines, d.QueueLines)
	fill(&l.QueueBytes, d.QueueBytes)
	fill(&l.Dial, d.Dial)
	fill(&l.Idle, d.Idle)
	fill(&l.Backoff[0], d.Backoff[0])
	fill(&l.Backoff[1], d.Backoff[1])
	return l
}

func fill[T comparable](have *T, usual T) {
	var zero T
	if *have == zero {
		*have = usual
	}
}

// Factory creates the transport of a server. An error says why the server cannot
// start and what to do about it.
type Factory func(Options) (Transport, error)

// TCP is the name of the default transport, which every program has. It is not in
// the registry, because it needs the server's own connections.
const TCP = "tcp"

var registry struct {
	mu        sync.Mutex
	factories map[string]Factory
}

// Register makes a transport available under a name. A package calls it in its
// init. It panics if the name is taken.
func Register(name string, f Factory) {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if _, taken := registry.factories[name]; taken || name == TCP || name == "" {
		panic(fmt.Sprintf("transport: the name %q is taken", name))
	}
	if registry.factories == nil {
		registry.factories = make(map[string]Factory)
	}
	registry.factories[name] = f
}

// Names returns the names of the transports in this program, TCP first.
func Names() []string {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	return append([]string{TCP}, slices.Sorted(maps.Keys(registry.factories))...)
}

// New creates a registered transport.
func New(name string, o Options) (Transport, error) {
	registry.mu.Lock()
	f := registry.factories[name]
	registry.mu.Unlock()
	if f == nil {
		return nil, fmt.Errorf("this program has no transport %q; it has %s", name, strings.Join(Names(), ", "))
	}
	return f(o)
}
