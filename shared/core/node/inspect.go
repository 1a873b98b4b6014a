package node

import "example.com/raftsteps/shared/core/kv"

// Inspector is a server that lets others look inside it. The servers of the stages
// that keep a log implement it. The simulator's checker asks after every step, and
// the metrics of a server in production after every round.
type Inspector interface {
	// Inspect describes the server as it is now. It overwrites *s and should
	// reuse its slices, so that an inspection allocates no memory. The result
	// stays valid until the server's next method is called, and must not be
	// changed.
	Inspect(s *State)

	// Entry returns the log entry at an index in (SnapIndex, Last]. Its Data
	// must not be changed.
	Entry(index uint64) Entry
}

// Hasher is an Inspector that can hash its state machine. Two servers that have
// applied the same log up to the same index must give the same hash; different
// contents should give different hashes. The checker asks when State.Applied has
// moved.
type Hasher interface {
	StateHash() uint64
}

// StoreHolder is a server that shows its store. The film of a run asks: for
// everything when a server starts or takes a snapshot, and otherwise for the key of
// each command that the server has applied.
type StoreHolder interface {
	// Store returns the store, which must not be changed; nil if the state machine
	// is something else.
	Store() *kv.Store
}

// SessionHolder is a StoreHolder that remembers the sessions of its clients.
type SessionHolder interface {
	// Session returns what is remembered about a session; false if there is none
	// with this number.
	Session(id uint64) (Session, bool)

	// Sessions returns the numbers of all sessions, in no fixed order.
	Sessions() []uint64
}

// Session is what a state machine remembers about a client, so that a request that
// comes again is not carried out twice.
type Session struct {
	// Ack is the last request whose answer the client has; the answers up to it are
	// forgotten.
	Ack uint64

	// Last is the last request that was carried out, Ack if its answer is
	// forgotten.
	Last uint64

	// Answer is the answer to Last; empty if it is forgotten.
	Answer kv.Result
}

// Role is what a server is in its term.
type Role string

// The roles.
const (
	Follower  Role = "follower"
	Candidate Role = "candidate"
	Leader    Role = "leader"
)

// State is what a checker sees of a server: the fields of Figure 2, in plain
// types, so that it fits every stage.
type State struct {
	// ID is the server's ID.
	ID uint64

	// Role is the server's role in Term.
	Role Role

	// Term is currentTerm; 0 before the first.
	Term uint64

	// Leader is the leader of Term; 0 if the server does not know it.
	Leader uint64

	// Vote is votedFor in Term; 0 if it has not voted.
	Vote uint64

	// SnapIndex and SnapTerm are the last index and term that the snapshot
	// covers; 0 if there is none. The log begins after SnapIndex.
	SnapIndex uint64
	SnapTerm  uint64

	// Base is the configuration in force at SnapIndex, in the stages whose
	// members change; empty elsewhere.
	Base Voters

	// Last is the index of the last entry, or SnapIndex if the log is empty.
	Last uint64

	// Commit is commitIndex, Applied is lastApplied.
	Commit  uint64
	Applied uint64

	// Config says who may vote now. It is empty while the server knows of no
	// configuration.
	Config Voters

	// Elapsed and Timeout are the server's election timer, in ticks: it starts an
	// election when Elapsed reaches Timeout. Both are 0 on a leader, and in the
	// stages without elections.
	Elapsed, Timeout uint64

	// Votes are the servers whose votes a candidate has, itself included, in
	// the order of their IDs. Empty for the other roles.
	Votes []uint64

	// Progress is what a leader knows about the other servers, in the order of
	// their IDs. Empty for the other roles.
	Progress []Progress
}

// Voters is a configuration: a quorum is a majority of Now and, while the
// members change, a majority of Next too.
type Voters struct {
	// Now are the voters, in the order of their IDs.
	Now []uint64

	// Next are the voters of the new configuration while both count (§6), in
	// the order of their IDs; empty otherwise.
	Next []uint64

	// Learners receive the log and do not vote.
	Learners []uint64
}

// Progress is one line of a leader's nextIndex[] and matchIndex[].
type Progress struct {
	// ID is the other server.
	ID uint64

	// Next is the index of the next entry to send.
	Next uint64

	// Match is the highest index known to be on that server's disk.
	Match uint64
}

// Entry is an entry of a log.
type Entry struct {
	// Term is the term in which a leader created it; 1 or more.
	Term uint64

	// Data is its content: a command, a configuration, or nothing. Two entries
	// are the same if Term and Data are.
	Data []byte

	// Config is the configuration that the entry carries; nil for all others.
	Config *Voters
}
