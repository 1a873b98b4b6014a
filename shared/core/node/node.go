// Package node is the contract between a server and its world.
//
// A server is single-threaded: everything it does happens inside one of its four
// methods, and it reaches the world only through the fields of World: a disk, a
// way to send, time that arrives as ticks, and randomness.
//
// Two worlds can drive it. Package host has sockets, goroutines and a real clock;
// package sim has a seed. Neither knows which stage it drives, and the server
// cannot tell in which world it runs.
package node

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/trace"
)

// TickInterval is the time between two Ticks.
const TickInterval = 10 * time.Millisecond

// Server is one server of a cluster. Its methods are called by one goroutine, one
// at a time.
//
// A driver may step any number of inputs (Tick, Receive, Request) and then
// calls Flush once. That is the group commit: however many writes wait, one
// Flush saves them with one fsync.
type Server interface {
	// Tick says that TickInterval has passed.
	Tick()

	// Receive processes one message of a peer: a line of JSON without its
	// newline. from is the member that proved to be the sender. The server may
	// keep line. An invalid message is dropped and logged; it never harms the
	// server.
	Receive(from uint64, line []byte)

	// Request processes one request of a client, which was decoded and checked.
	// The server calls reply exactly once, at any later time, from within one of
	// its methods.
	Request(r api.Request, reply func(api.Response))

	// Flush carries out what the inputs since the last Flush have caused: save,
	// send, apply, answer. An error means that the server's disk cannot be
	// trusted any longer: no further request may be answered, and the driver must
	// end the server.
	Flush() error
}

// Factory creates a server in its world. The server recovers from its disk, so an
// error says what is wrong with the disk or with the configuration.
type Factory func(World) (Server, error)

// World is everything that a server can use outside itself.
type World struct {
	// ID is the server's ID.
	ID uint64

	// Config is the cluster's configuration.
	Config Config

	// Send sends a line (without newline) to a member. It never blocks, never
	// fails, and promises nothing: a message may be lost, repeated, delayed or
	// overtaken. The line must not be changed afterwards.
	Send func(to uint64, line []byte)

	// Connect says to which servers this server may send from now on; the list
	// may include itself. A server whose members never change need not call it:
	// it can reach the members that Config names. The server calls it within its
	// methods, and while it is created. It is nil in a world in which every
	// server can reach every other.
	Connect func(members []Member)

	// Disk keeps its content through a crash; nil in stages that store nothing.
	Disk disk.Disk

	// Work runs work alongside the server. When work has returned, done is called
	// with its error as one more input: a Flush follows. work must use nothing
	// that the server changes. A crash ends it like everything else.
	Work func(work func() error, done func(error))

	// Rand is the server's only source of randomness.
	Rand *rand.Rand

	// Log receives the few events that an operator should see, traced or not; nil
	// if there is no log. A trace.Drop is a warning: a message that no correct
	// server sends was refused. A trace.Decide is an error: a rule has refused
	// such a message.
	Log trace.Sink

	// Trace receives events; nil if nothing is traced. The world fills in At and
	// Node.
	Trace trace.Sink
}

// Config is what the members of a cluster agree on before they start.
type Config struct {
	// Cluster is the cluster's name: a server of another cluster is refused.
	Cluster string

	// Secret proves to a peer that a server belongs to the cluster.
	Secret string

	// Members are the servers, in the order of their IDs.
	Members []Member

	// Joiners are servers that were started later, in the order of their IDs.
	// They join by a change of the members: a server that is named here is not a
	// member because of that.
	Joiners []Member

	// Listen has the addresses of servers that listen on another address than
	// their own: behind a forwarded port, or on every address of a machine.
	Listen map[uint64]string

	// HTTPHosts are names by which HTTP clients may call the servers, in addition
	// to those in their addresses.
	HTTPHosts []string

	// Transport is the name of what carries messages between the servers; "" means
	// TCP. See package transport.
	Transport string

	// Access says who may do what; nil if it was not said. Then everyone who can
	// connect may do everything.
	Access *access.Policy

	// Leader is the server that leads at first, in the stages in which an
	// operator appoints it; 0 elsewhere.
	Leader uint64

	// ElectionTimeout is the range from which a timeout is drawn.
	ElectionTimeout [2]time.Duration

	// Heartbeat is how long a leader may be silent.
	Heartbeat time.Duration

	// CompactBytes is how large the journal may grow before the server takes a
	// snapshot, in the stages that do; 0 is their default. A negative number, for
	// tests, makes it take one whenever it has applied an entry.
	CompactBytes int64

	// StoreBytes is how many bytes of keys and values the store may hold; 0 is the
	// default. The servers need not agree on it: only that of the leader counts.
	StoreBytes int64

	// ChunkBytes is how many bytes of a snapshot one message carries; 0 is the
	// default. It is for tests: cluster.json does not have it.
	ChunkBytes int

	// Fsync is false only to show what a server without fsync loses.
	Fsync bool
}

// Member is one server of a cluster.
type Member = api.Member

// Address returns the address of a member or a joiner, or "".
func (c Config) Address(id uint64) string {
	for _, members := range [][]Member{c.Members, c.Joiners} {
		for _, m := range members {
			if m.ID == id {
				return m.Address
			}
		}
	}
	return ""
}

// ListenAddress returns the address on which a server listens, or "".
func (c Config) ListenAddress(id uint64) string { return cmp.Or(c.Listen[id], c.Address(id)) }

// Name returns the name of a server for people and logs, such as "n1".
func Name(id uint64) string { return fmt.Sprintf("n%d", id) }

// Ticks converts a duration to ticks, at least one.
func Ticks(d time.Duration) int { return int(max(1, d/TickInterval)) }
