// Package rules runs the rules of a stage, its package raft, without a program
// around them: a cluster with a network and disks in memory that carries outputs
// out as a driver must (cluster.go), the invariants, checked after each output
// (invariants.go), the trace (trace.go), scripts (script.go) and random runs
// (random.go).
//
// Each stage has types of its own. What this package must know of them, the
// stage's tests add to them as the methods of Raft, Entry and Message; what only
// the stage does is in its Stage.
package rules

import "fmt"

// ID names a server, as raft.ID does in each stage.
type ID uint64

func (id ID) String() string { return fmt.Sprintf("n%d", uint64(id)) }

// Position is an entry: its term and its index.
type Position struct{ Term, Index uint64 }

func (p Position) String() string { return fmt.Sprintf("%d@%d", p.Term, p.Index) }

// State is what a server saves next to its log. A stage without votes leaves
// VotedFor 0.
type State struct {
	CurrentTerm uint64
	VotedFor    ID
}

func (s State) String() string {
	if s.VotedFor == 0 {
		return fmt.Sprintf("term %d", s.CurrentTerm)
	}
	return fmt.Sprintf("term %d and its vote for %v", s.CurrentTerm, s.VotedFor)
}

// Raft is a stage's *Raft.
type Raft[E, M any] interface {
	comparable
	Step(M)
	Tick()

	// View returns what the server believes.
	View() View

	// LogEntries returns the log after View's Base, and Believed what the server
	// would have on disk if all was saved.
	LogEntries() []E
	Believed() (base Position, log []E)

	// ConfigAt returns the configuration in force at an entry, or nil in a stage
	// without changes of the members.
	ConfigAt(index uint64) any

	// Followers returns the servers that a leader sends its log to, itself
	// included, and NextFor what it believes of one.
	Followers() []ID
	NextFor(ID) (match, next uint64)

	// NextOutput takes an output. It reports false if there is nothing to do.
	NextOutput() (Output[E, M], bool)

	// ProposeCommand proposes a command of a client.
	ProposeCommand(command []byte) error
}

// View is what a server believes.
type View struct {
	ID     ID
	Role   string
	Leads  bool
	Leader ID
	State  State

	Commit, Applied uint64

	// Base is the place before the log, Snapshot the last entry that the snapshot
	// covers, Last the end of the log. The first two stay zero in a stage without
	// snapshots.
	Base, Snapshot, Last Position

	// Rewrites says that the log is to be put in place of the old one.
	Rewrites bool
}

// Entry is a stage's Entry.
type Entry[E any] interface {
	Place() Position
	Payload() []byte

	// KindWords describes what is not a command; else it is empty.
	KindWords() string
	Same(E) bool
}

// Message is a stage's Message.
type Message[E any] interface {
	Head() Head

	// Append and AppendReply return the body if it is of that kind.
	Append() (Append[E], bool)
	AppendReply() (AppendReply, bool)

	// BodyWords describes the body. Append and AppendReply have words for those.
	BodyWords() string
}

// Head is what each message says.
type Head struct {
	From, To ID
	Term     uint64

	// Body is the stage's.
	Body any
}

// Append is an AppendEntries.
type Append[E any] struct {
	Prev    Position
	Entries []E
	Commit  uint64
}

// AppendReply is an AppendEntriesReply.
type AppendReply struct {
	Success       bool
	MatchIndex    uint64
	Refused       uint64
	ConflictIndex uint64
	ConflictTerm  uint64
}

// Output is a stage's Output.
type Output[E, M any] struct {
	Early     []M
	State     *State
	Truncate  uint64
	Append    []E
	Rewrite   bool
	Messages  []M
	Committed []E
	Reasons   []Reason

	// Stage is the stage's own Output.
	Stage any
}

// Reason is a decision of the rules.
type Reason struct {
	Code, Section string
	Words         fmt.Stringer
}

func (r Reason) String() string { return fmt.Sprintf("%v (%s)", r.Words, r.Section) }

// Contradiction is the value with which a stage's rules panic if they can neither
// obey nor continue. It reports whether the server's own disk has lost entries.
type Contradiction interface {
	Contradiction() (forgot bool, text string)
}

// Stage is what only a stage does. S is what its tests remember of a server. A
// nil function does nothing; those marked "must" may not be nil.
type Stage[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	// New starts the rules with what is on the server's disk (must).
	New func(c *Cluster[R, E, M, S], s *Server[R, E, M, S]) R

	// NewEntry returns an entry with a command, and Forge an AppendEntries (must).
	NewEntry func(at Position, command []byte) E
	Forge    func(head Head, body Append[E]) M

	// Decides reports whether the servers for which has is true can decide, by
	// what is committed; if by is a server, by the newest configuration on its
	// disk. The checks count for themselves: without Decides, a majority of all
	// servers does.
	Decides func(c *Cluster[R, E, M, S], by *Server[R, E, M, S], has func(ID) bool) bool

	// Fill completes a message that leaves.
	Fill func(c *Cluster[R, E, M, S], s *Server[R, E, M, S], m *M)

	// Output carries out what only this stage has in an output; Words describes
	// it.
	Output func(c *Cluster[R, E, M, S], s *Server[R, E, M, S], out Output[E, M])
	Words  func(out Output[E, M]) []string

	// Check and CheckMessage check this stage's own invariants: of a server that
	// has carried out an output, and of a message that leaves.
	Check        func(c *Cluster[R, E, M, S], s *Server[R, E, M, S])
	CheckMessage func(c *Cluster[R, E, M, S], s *Server[R, E, M, S], m M)

	// Command carries out a command of a script that only this stage has. It
	// reports false if there is no such command.
	Command func(s *Script[R, E, M, S], name string, args []string) (bool, error)

	Random Random[R, E, M, S]
}
