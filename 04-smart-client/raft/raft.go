// Package raft holds the rules of Raft, and nothing else: no disk, no network,
// no clock, no goroutine, no randomness of its own. Read it with Figure 2 of
// the paper (Ongaro and Ousterhout, "In Search of an Understandable Consensus
// Algorithm", extended version) next to it; names and sections are the paper's.
//
// A Raft is a value that takes inputs: Step for a message, Tick for time,
// Propose for clients, Lead for the operator. Inputs change the value and collect what must
// be done; Take returns it. The driver carries it out in the order of Output's
// fields before it gives the next input. Several inputs may come before one
// Take: that is the group commit.
//
// Messages are datagrams. The network may lose, repeat, delay and reorder
// them, so a reply carries what its receiver needs, and nobody remembers what
// is in flight.
//
// A Raft is not safe for concurrent use.
package raft

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ID names a server; the first is 1, and 0 is nobody.
type ID uint64

// Term numbers the terms of leaders; 0 is before the first.
type Term uint64

// Index is a place in the log; the first is 1, and 0 is none.
type Index uint64

// Role is what a server is in the current term.
type Role string

// The roles (§5.1).
const (
	// Follower answers leaders.
	Follower Role = "follower"

	// Leader takes proposals and replicates them.
	Leader Role = "leader"
)

// Message is what one server sends to another.
type Message struct {
	From ID
	To   ID

	// Term is the sender's current term.
	Term Term

	// Body is one of the message types in the files of this package.
	Body Body
}

// Body is a request or a reply of one of the RPCs. step gives it to its handler.
type Body interface{ step(r *Raft, from ID) }

// State is what a server must remember in addition to its log.
type State struct {
	// CurrentTerm is the latest term the server has seen.
	CurrentTerm Term
}

// Output is what must now be done, in the order of the fields.
type Output struct {
	// Early are messages that promise nothing about this server's disk, so that
	// its fsync and those of its followers run side by side (thesis §10.2.1).
	Early []Message

	// State must be saved if it is not nil.
	State *State

	// Truncate, if not 0, is the first index of the saved log to remove.
	Truncate Index

	// Append are entries to save, after the truncation.
	Append []Entry

	// Messages must be sent after all of that is saved: they promise it.
	Messages []Message

	// Committed are entries for the state machine, in this order.
	Committed []Entry

	// Reasons say why, if Options.Explain is set.
	Reasons []Reason
}

// Empty reports whether there is nothing to do.
func (o Output) Empty() bool {
	return o.Early == nil && o.State == nil && o.Truncate == 0 && o.Append == nil &&
		o.Messages == nil && o.Committed == nil && o.Reasons == nil
}

// Options are what a server is told when it starts.
type Options struct {
	// ID is the server's own.
	ID ID

	// Config is who decides.
	Config Config

	// State and Log are what it saved in an earlier life.
	State State
	Log   []Entry

	// HeartbeatTicks is how many ticks a leader may be silent.
	HeartbeatTicks int

	// MaxBatch is how many bytes of commands one AppendEntries carries; a
	// single command may be larger.
	MaxBatch int

	// Explain asks for reasons in the output.
	Explain bool
}

// Raft is the state of one server, as in Figure 2.
type Raft struct {
	options Options

	// Persistent state on all servers: in an Output before any promise that
	// rests on it. Only setTerm, append and truncate write it.

	// currentTerm is the latest term the server has seen.
	currentTerm Term

	// log holds the entries, each with the term in which a leader received it.
	log log

	// Volatile state on all servers.

	// commitIndex is the highest entry known to be committed.
	commitIndex Index

	// lastApplied is the highest entry handed to the state machine.
	lastApplied Index

	// saved is the highest entry that is on this server's disk.
	saved Index

	// role and leader are what the server is, and which server it follows, in
	// currentTerm; leader is 0 while unknown.
	role   Role
	leader ID

	// elapsed counts ticks since the last heartbeat that a leader sent.
	elapsed int

	// denied is true if the leader of the term contradicts what is committed.
	// This server accepts nothing from it.
	denied bool

	// Volatile state on leaders, reinitialized after an appointment.
	progress map[ID]*progress

	// out collects what the next Take returns.
	out Output
}

// New returns a server with what it saved. Every server starts as a follower.
func New(o Options) *Raft {
	r := &Raft{options: o, currentTerm: o.State.CurrentTerm, log: newLog(o.Log), role: Follower}
	r.saved = r.log.lastIndex()
	return r
}

// ErrNotLeader is returned by Propose: nothing was proposed. Leader names the
// server to ask instead.
var ErrNotLeader = errors.New("this server is not the leader")

// Propose appends a command to the leader's log (§5.3). The entry is committed
// when Output.Committed has it with the same index and the same term; another
// term at that index means that it was lost.
func (r *Raft) Propose(command []byte) (Index, Term, error) {
	if r.role != Leader {
		return 0, 0, ErrNotLeader
	}
	e := Entry{Index: r.log.lastIndex() + 1, Term: r.currentTerm, Command: command}
	r.append(e)
	return e.Index, e.Term, nil
}

// Step takes a message that has arrived. The rules about terms stand here,
// once (§5.1): handlers can rely on the message being of the current term.
func (r *Raft) Step(m Message) {
	if m.Term > r.currentTerm {
		r.explain(Reason{Rule: NewerTerm, Peer: m.From, Term: m.Term})
		r.becomeFollower(m.Term)
	}
	if m.Term < r.currentTerm {
		r.answerStale(m)
		return
	}
	m.Body.step(r, m.From)
}

// answerStale refuses a request of an older term, so that its sender learns of
// the newer one. A stale reply is dropped.
func (r *Raft) answerStale(m Message) {
	r.explain(Reason{Rule: OlderTerm, Peer: m.From, Term: m.Term})
	switch m.Body.(type) {
	case AppendEntries:
		r.send(m.From, AppendEntriesReply{})
	}
}

// Tick says that a unit of time has passed.
func (r *Raft) Tick() {
	r.elapsed++
	if r.role == Leader && r.elapsed >= r.options.HeartbeatTicks {
		r.broadcast()
	}
}

// Take returns what must now be done, and forgets it. It assumes that the
// previous output has been carried out. So the driver calls Take until nothing
// comes, and what it saved may then be committed.
func (r *Raft) Take() Output {
	if r.role == Leader {
		r.advanceCommitIndex()
		r.replicate()
	}
	if r.commitIndex > r.lastApplied {
		r.out.Committed = r.log.slice(r.lastApplied+1, r.commitIndex)
		r.lastApplied = r.commitIndex
	}
	out := r.out
	if out.State != nil {
		// A term that is not on disk yet may be forgotten, so no message may
		// speak of it.
		out.Messages, out.Early = append(out.Early, out.Messages...), nil
	}
	r.out, r.saved = Output{}, r.log.lastIndex()
	return out
}

// becomeFollower makes this server a follower in a term whose leader it does
// not know yet.
func (r *Raft) becomeFollower(term Term) {
	if r.role != Follower {
		r.explain(Reason{Rule: SteppedDown, Term: term})
	}
	r.role, r.leader, r.progress = Follower, 0, nil
	r.setTerm(term)
}

// becomeLeader takes over the current term.
func (r *Raft) becomeLeader() {
	r.role, r.leader, r.progress = Leader, r.options.ID, make(map[ID]*progress)
	for _, id := range r.config().Members() {
		r.progress[id] = &progress{nextIndex: r.log.lastIndex() + 1, probing: true}
	}
	r.broadcast()
}

// setTerm writes the persistent term, which never goes back.
func (r *Raft) setTerm(term Term) {
	if term == r.currentTerm {
		return
	}
	r.currentTerm, r.denied = term, false
	r.out.State = &State{CurrentTerm: term}
}

// append writes entries to the end of the log.
func (r *Raft) append(entries ...Entry) {
	r.log.append(entries)
	r.out.Append = append(r.out.Append, entries...)
}

// truncate removes the entries from index on.
func (r *Raft) truncate(index Index) {
	if index <= r.commitIndex {
		panic(Contradiction{Text: fmt.Sprintf("%v is told to remove entry %d, but all up to %d are committed", r.options.ID, index, r.commitIndex)})
	}
	r.log.truncate(index)
	r.out.Append = slices.DeleteFunc(r.out.Append, func(e Entry) bool { return e.Index >= index })
	if index <= r.saved {
		r.out.Truncate, r.saved = index, index-1
	}
}

// Contradiction is the value with which a rule panics when this server is told
// something that contradicts what it knows: it can neither obey nor continue.
type Contradiction struct {
	// Forgot is true if this server's own disk has lost entries. No other
	// contradiction comes from a message of a correct server.
	Forgot bool

	// Text says what contradicts what.
	Text string
}

func (c Contradiction) Error() string { return c.Text }

func (r *Raft) send(to ID, body Body) { r.out.Messages = append(r.out.Messages, r.message(to, body)) }

func (r *Raft) sendEarly(to ID, body Body) { r.out.Early = append(r.out.Early, r.message(to, body)) }

func (r *Raft) message(to ID, body Body) Message {
	return Message{From: r.options.ID, To: to, Term: r.currentTerm, Body: body}
}

// Status is what a server can tell about itself.
type Status struct {
	State

	// Role and Leader are what it is in its term, and which server it follows.
	Role   Role
	Leader ID

	// Last is the index of its last entry; Commit and Applied are those of
	// Figure 2.
	Last, Commit, Applied Index
}

// Status returns the server's state.
func (r *Raft) Status() Status {
	return Status{State{r.currentTerm}, r.role, r.leader, r.log.lastIndex(), r.commitIndex, r.lastApplied}
}

// Progress returns what a leader knows of a server: the highest entry known to
// be on its disk, and the next to send. Others know nothing.
func (r *Raft) Progress(of ID) (matchIndex, nextIndex Index) {
	p := cmp.Or(r.progress[of], &progress{})
	return p.matchIndex, p.nextIndex
}

// Entry returns an entry of the log. Its command must not be changed.
func (r *Raft) Entry(index Index) Entry { return r.log.entries[r.log.place(index)] }

// config returns the configuration that is in force.
func (r *Raft) config() Config { return r.options.Config }
