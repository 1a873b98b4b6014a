// Package naive holds the rules of the simplest replication there is, and the
// reason why Raft exists.
//
// One server leads; which one is written in the configuration. It sends every
// command to all followers. A follower applies a command when it arrives and
// says so. When a majority of the servers, the leader counted, has it, the
// leader applies it too and tells the client that it is done. If no majority
// answers in time, the leader says that it failed.
//
// It looks right, and on a good day it is. But nobody remembers anything:
//
//   - A follower that misses a command misses it forever. No message says
//     what came before it, so nobody notices the gap.
//   - Two commands that overtake each other on the way are applied in two
//     orders. Nothing numbers them for the follower.
//   - A follower applies what the leader later gives up. Nobody takes it back.
//   - A server that restarts comes back empty, and stays so.
//
// Each of these is a scenario that a test plays: the replicas part, and never
// meet again.
//
// The package has no clock, no network, no goroutine and no randomness. Inputs
// go in by Step, Tick and Propose; what must be done comes out of Take. It is
// not safe for concurrent use.
package naive

import (
	"errors"
	"slices"
)

// ID names a server; the first is 1, and 0 is nobody.
type ID uint64

// Seq numbers the leader's proposals since it started; the first is 1.
type Seq uint64

// Message is what one server sends to another.
type Message struct {
	From ID
	To   ID
	Body Body
}

// Body is Replicate or ReplicateReply.
type Body interface{ body() }

// Replicate tells a follower to apply a command.
type Replicate struct {
	// Seq comes back in the reply.
	Seq Seq

	// Command is opaque to the rules.
	Command []byte
}

// ReplicateReply says that the sender has applied a command.
type ReplicateReply struct {
	// Seq is that of the Replicate.
	Seq Seq
}

func (Replicate) body()      {}
func (ReplicateReply) body() {}

// Output is what must now be done, in the order of the fields.
type Output struct {
	// Messages are to be sent.
	Messages []Message

	// Apply are the commands for this server's store, in this order.
	Apply []Write

	// Refused are the proposals that no majority answered in time. A minority
	// may have applied them all the same.
	Refused []Refusal

	// Reasons say why, if Options.Explain is set.
	Reasons []Reason
}

// Write is a command to apply.
type Write struct {
	// Seq is the proposal at the leader, and 0 at a follower.
	Seq Seq

	// Command is what was proposed.
	Command []byte
}

// Refusal is a proposal that the leader gave up.
type Refusal struct {
	// Seq is the proposal.
	Seq Seq

	// Answers is how many servers have it, the leader not counted.
	Answers int
}

// ErrNotLeader is returned by Propose at a follower: nothing was proposed.
var ErrNotLeader = errors.New("this server is a follower")

// Options are what a server is told when it starts.
type Options struct {
	// ID is the server's own.
	ID ID

	// Leader is the server that leads.
	Leader ID

	// Members are all servers, in the order of their IDs.
	Members []ID

	// Patience is how many ticks a proposal waits for a majority.
	Patience int

	// Explain asks for reasons in the output.
	Explain bool
}

// Naive is one server's rules and what it remembers.
type Naive struct {
	options Options

	// seq is the last proposal that this leader made.
	seq Seq

	// pending are the proposals that wait for a majority, in order.
	pending []proposal

	// out collects what the next Take returns.
	out Output
}

// proposal is a command on its way to the followers.
type proposal struct {
	seq     Seq
	command []byte

	// answered are the followers that have it. It is a set: an answer that the
	// network delivers twice counts once.
	answered []ID

	// age is how many ticks it has waited.
	age int
}

// New returns the rules of one server.
func New(o Options) *Naive {
	return &Naive{options: o}
}

// Leader returns the server that leads.
func (n *Naive) Leader() ID { return n.options.Leader }

// IsLeader reports whether this server leads.
func (n *Naive) IsLeader() bool { return n.options.ID == n.options.Leader }

// Propose asks for a command to be replicated. The number it returns comes
// back in Output.Apply, when a majority has it, or in Output.Refused.
func (n *Naive) Propose(command []byte) (Seq, error) {
	if !n.IsLeader() {
		return 0, ErrNotLeader
	}
	n.seq++
	n.pending = append(n.pending, proposal{seq: n.seq, command: command})
	for _, id := range n.options.Members {
		if id != n.options.ID {
			n.send(id, Replicate{Seq: n.seq, Command: command})
		}
	}
	n.acknowledge()
	return n.seq, nil
}

// Step takes a message that has arrived.
func (n *Naive) Step(m Message) {
	switch body := m.Body.(type) {
	case Replicate:
		n.handleReplicate(m.From, body)
	case ReplicateReply:
		n.handleReplicateReply(m.From, body)
	}
}

// handleReplicate applies at once. The follower cannot know whether this is the next
// command or whether some are missing before it.
func (n *Naive) handleReplicate(from ID, m Replicate) {
	if from != n.options.Leader {
		return
	}
	n.out.Apply = append(n.out.Apply, Write{Command: m.Command})
	n.explain(Reason{Code: AppliedOnArrival, Node: n.options.ID, Seq: m.Seq})
	n.send(from, ReplicateReply{Seq: m.Seq})
}

func (n *Naive) handleReplicateReply(from ID, m ReplicateReply) {
	for i := range n.pending {
		p := &n.pending[i]
		if p.seq == m.Seq && !slices.Contains(p.answered, from) {
			p.answered = append(p.answered, from)
		}
	}
	n.acknowledge()
}

// acknowledge applies every proposal that a majority has.
func (n *Naive) acknowledge() {
	n.pending = slices.DeleteFunc(n.pending, func(p proposal) bool {
		if !n.majority(1 + len(p.answered)) {
			return false
		}
		n.out.Apply = append(n.out.Apply, Write{Seq: p.seq, Command: p.command})
		n.explain(Reason{Code: MajorityAnswered, Node: n.options.ID, Seq: p.seq, Answers: len(p.answered), Members: len(n.options.Members)})
		return true
	})
}

func (n *Naive) majority(servers int) bool {
	return 2*servers > len(n.options.Members)
}

// Tick says that a unit of time has passed. The leader gives up the proposals
// that have waited too long.
func (n *Naive) Tick() {
	n.pending = slices.DeleteFunc(n.pending, func(p proposal) bool {
		if p.age < n.options.Patience {
			return false
		}
		n.out.Refused = append(n.out.Refused, Refusal{Seq: p.seq, Answers: len(p.answered)})
		n.explain(Reason{Code: NoMajority, Node: n.options.ID, Seq: p.seq, Answers: len(p.answered), Members: len(n.options.Members)})
		return true
	})
	for i := range n.pending {
		n.pending[i].age++
	}
}

// Take returns what must now be done, and forgets it.
func (n *Naive) Take() Output {
	out := n.out
	n.out = Output{}
	return out
}

func (n *Naive) send(to ID, body Body) {
	n.out.Messages = append(n.out.Messages, Message{From: n.options.ID, To: to, Body: body})
}
