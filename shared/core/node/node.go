// Package node is the contract between a server and its world.
//
// A server is single-threaded: everything it does happens inside one of its
// four methods, and it reaches the world only through what World holds: a
// disk, a way to send, time that arrives as ticks, and randomness.
//
// Two worlds know how to drive it. Package host has sockets, goroutines and a
// real clock; package sim has a seed. Neither knows which stage it drives, and
// the server cannot tell which world it lives in.
package node

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/trace"
)

// TickInterval is the time that one Tick stands for.
const TickInterval = 10 * time.Millisecond

// Server is one server of a cluster. Its methods are called by one goroutine,
// one at a time.
//
// A driver may step any number of inputs (Tick, Receive, Request) and then
// calls Flush once. That is the group commit: however many writes wait, one
// Flush saves them with one fsync.
type Server interface {
	// Tick says that TickInterval has passed.
	Tick()

	// Receive takes one message of a peer: a line of JSON without its
	// newline. from is the member that proved to be the sender. The server may
	// keep line. A message that makes no sense is dropped and said so; it never
	// harms the server.
	Receive(from uint64, line []byte)

	// Request takes one request of a client, which was decoded and checked. The
	// server calls reply exactly once, at any later time, from within one of
	// its methods.
	Request(r api.Request, reply func(api.Response))

	// Flush carries out what the inputs since the last Flush have caused: save,
	// send, apply, answer. An error means that the server's disk cannot be
	// trusted any longer: nothing that was not answered may be answered, and the
	// driver must end the server.
	Flush() error
}

// Factory makes a server out of its world. It recovers what the disk holds, so
// an error says what is wrong with the disk or with the configuration.
type Factory func(World) (Server, error)

// World is all that a server knows of what is around it.
type World struct {
	// ID is the server's own.
	ID uint64

	// Config is the cluster's configuration.
	Config Config

	// Send sends a line (without newline) to a member. It never blocks, never
	// fails, and promises nothing: a message may be lost, repeated, delayed or
	// overtaken. The line must not be changed afterwards.
	Send func(to uint64, line []byte)

	// Connect says whom the server may send to from now on, itself perhaps among
	// them. A server whose members never change need not call it: it can reach
	// the members that Config names. The server calls it within its methods, and
	// while it is made. nil in a world in which everybody can reach everybody.
	Connect func(members []Member)

	// Disk is what outlives a crash; nil in stages that keep nothing.
	Disk disk.Disk

	// Work runs work alongside the server, and when it has returned, calls done
	// with its error as one more input: a Flush follows. work must touch nothing
	// that the server changes. A crash ends it like everything else.
	Work func(work func() error, done func(error))

	// Rand is the only randomness.
	Rand *rand.Rand

	// Log takes the few events that an operator should see, traced or not; nil if
	// there is none. A trace.Drop is a warning: a message that no correct server
	// sends was refused. A trace.Decide is an error: a rule has refused one.
	Log trace.Sink

	// Trace takes events; nil if nobody listens. The world fills in At and
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
	// They join by a change of the members: being named here makes nobody a
	// member.
	Joiners []Member

	// Listen are the addresses on which servers listen that do not listen on
	// their own: behind a forwarded port, or on every address of a machine.
	Listen map[uint64]string

	// HTTPHosts are further names by which HTTP clients may call the servers, next
	// to those in their addresses.
	HTTPHosts []string

	// Leader is the server that leads at first, in the stages in which a person
	// appoints it; 0 elsewhere.
	Leader uint64

	// ElectionTimeout is the range from which a timeout is drawn.
	ElectionTimeout [2]time.Duration

	// Heartbeat is how long a leader may be silent.
	Heartbeat time.Duration

	// CompactBytes is how far the journal may grow before the server takes a
	// snapshot, in the stages that do; 0 is their default. A negative number, for
	// tests, lets it take one whenever it has applied an entry.
	CompactBytes int64

	// StoreBytes is how many bytes of keys and values the store may hold; 0 is the
	// default. The servers need not agree on it: only that of the leader counts.
	StoreBytes int64

	// ChunkBytes is how much of a snapshot one message carries; 0 is the default.
	// It is for tests: cluster.json does not name it.
	ChunkBytes int

	// Fsync is false only to show what a disk without it is worth.
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

// Name is how people and logs call a server.
func Name(id uint64) string { return fmt.Sprintf("n%d", id) }

// Ticks converts a duration to ticks, at least one.
func Ticks(d time.Duration) int { return int(max(1, d/TickInterval)) }
