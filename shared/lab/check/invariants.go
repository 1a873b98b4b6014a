package check

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"

	"example.com/raftsteps/shared/core/node"
)

// Invariants watches the servers of one run and holds, after every step, what
// must always be true of Raft. Figure 3 of the paper has five of these rules;
// the others are what its proof and public bugs have taught.
//
// Some rules compare a server with what it was, or with all that ever was:
// who led a term, what was committed, which server a server voted for. That memory is
// the checker's own and never the servers'.
//
//	I1   Election Safety               checkLeader, checkElected
//	I2   one vote a term, forever     checkPromises, checkRecovered
//	I3   what never decreases          checkMonotone
//	I4   the shape of a log            checkNewEntry
//	I5   Log Matching                  checkNewEntry
//	I6   Leader Append-Only            checkChanged
//	I7   Leader Completeness           checkLeader
//	I8   State Machine Safety          checkCommitted, checkHash
//	I9   snapshot ≤ applied ≤ commit ≤ last, and only a leader commits   checkOrder, checkCommitted
//	I10  the commit rule               checkCommitRule
//	I11  a committed entry is on a disk of every quorum   checkDurable
//	I12  what was saved is there after a restart          checkRecovered
//	I13  nextIndex and matchIndex      checkProgress
//	I14  no entry of a term beyond its leader's last      checkNewEntry
//	I15  what is committed stays       checkChanged
//	I16  the terms of messages         Sent
//	I17  a candidate and its votes     checkCandidate
//	I18  an up-to-date log has what is committed          checkUpToDate
//	I19  a snapshot covers what is committed              compact
//	I20  a server's configuration, and how it may change  checkConfig, readBase
//	I21  quorums of neighbouring configurations overlap   checkChange
//	I22  exactly once, I23 reads, I24 answers             AgainstLog
//
// "On a disk" means: in the log when the server's Flush returned without an
// error. That it really was there shows at the next restart (I12).
//
// It is not safe for concurrent use.
type Invariants struct {
	servers []*watched
	seed    maphash.Seed

	// leaders says who led a term, forever.
	leaders map[uint64]uint64

	// votes says which server a server voted for in a term, forever.
	votes map[ballot]uint64

	// created are the entries that were ever seen: one index and term name one
	// entry, and all that stands before it.
	created map[position]origin

	// committed are the committed entries from index 1 on.
	committed []commitment

	// quorum is the configuration of the leader that committed last, for
	// clusters whose members do not change.
	quorum node.Voters

	// first is what a cluster whose members change began with, configs are the
	// configurations that were committed since, in order.
	first   configuration
	configs []configuration

	// outside is the newest term whose leader had removed itself.
	outside uint64

	counters InvariantCounters

	// died are the leaders that went down in the middle of a flush, and so may
	// have done what nobody saw.
	died []death
}

// death is a leader that went down in the middle of a flush.
type death struct {
	term uint64

	// config is what was last seen to be in force there.
	config node.Voters
}

// ballot is a server's vote in a term.
type ballot struct{ server, term uint64 }

// position names an entry.
type position struct{ index, term uint64 }

// origin is an entry where it was first seen.
type origin struct {
	chain  uint64
	server uint64
}

// commitment is a committed entry.
type commitment struct {
	// term is the entry's own, chain sums up the entry and all before it.
	term  uint64
	chain uint64
	data  []byte

	// in is the term in which a server first took it for committed, by is that
	// server.
	in uint64
	by uint64

	// hash is the state machine's after the entry; 0 while nobody told.
	hash   uint64
	hashBy uint64
}

// InvariantCounters say how much a run has shown.
type InvariantCounters struct {
	// Looks is how often a server was looked at.
	Looks int `json:"looks"`

	// Leaders is the number of terms that had a leader.
	Leaders int `json:"leaders"`

	// Committed is the number of entries that were committed.
	Committed int `json:"committed"`

	// Truncated is how often a log lost entries.
	Truncated int `json:"truncated"`

	// Snapshots is how often a snapshot's index moved.
	Snapshots int `json:"snapshots"`

	// Installed is how often it moved beyond what the server knew to be
	// committed: the snapshot was another's.
	Installed int `json:"installed"`

	// Joint is how often a server entered a joint configuration.
	Joint int `json:"joint"`

	// Changes is how many changes of the members were begun, Changed how many
	// were done, Cancelled how many were called off.
	Changes   int `json:"changes_begun"`
	Changed   int `json:"changes_done"`
	Cancelled int `json:"changes_cancelled"`

	// RolledBack is how often a server lost a configuration with the end of its
	// log.
	RolledBack int `json:"configurations_rolled_back"`

	// LearnersInstalled is how often a snapshot was installed by a server that
	// did not vote.
	LearnersInstalled int `json:"learners_installed"`

	// LeadersRemoved is how many leaders had removed themselves.
	LeadersRemoved int `json:"leaders_removed"`
}

// Add adds the counters of another run.
func (n *InvariantCounters) Add(o InvariantCounters) {
	n.Looks += o.Looks
	n.Leaders += o.Leaders
	n.Committed += o.Committed
	n.Truncated += o.Truncated
	n.Snapshots += o.Snapshots
	n.Installed += o.Installed
	n.Joint += o.Joint
	n.Changes += o.Changes
	n.Changed += o.Changed
	n.Cancelled += o.Cancelled
	n.RolledBack += o.RolledBack
	n.LearnersInstalled += o.LearnersInstalled
	n.LeadersRemoved += o.LeadersRemoved
}

// Violation says which invariant does not hold.
type Violation struct {
	// Invariant is its number, such as "I5".
	Invariant string

	// Name is what the paper or the proof calls it.
	Name string

	// Text gives the facts.
	Text string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s (%s) is broken: %s", v.Invariant, v.Name, v.Text)
}

func violated(invariant, name, format string, args ...any) error {
	return &Violation{Invariant: invariant, Name: name, Text: fmt.Sprintf(format, args...)}
}

// watched is what the checker remembers of one server.
type watched struct {
	id uint64
	up bool

	// fresh is set until the first look at an incarnation.
	fresh bool

	// now and before are the last two looks.
	now, before node.State

	// log is the log as last seen.
	log cachedLog

	// base is the configuration in force where the log begins, configs are those
	// that it has, in order. The last unjudged ones are new to everybody.
	base     configuration
	configs  []configuration
	unjudged int

	// saved is the log as of the last flush, and savedTerm, savedVote what
	// stood next to it.
	saved     cachedLog
	savedTerm uint64
	savedVote uint64
	savedSnap uint64

	// spoke is the highest term in which it has sent a message.
	spoke uint64

	// dirty is the lowest index whose entry may have changed since the last
	// flush; noIndex if none has.
	dirty uint64

	// replaced is set once its disk has lost what it had saved.
	replaced bool

	// torn is set if the last flush failed: some of it may be on the disk.
	torn bool

	looks int
}

const noIndex = ^uint64(0)

// cachedLog remembers a log by its sums.
type cachedLog struct {
	// start is the index before the first link, and chain sums up all up to it.
	start uint64
	chain uint64

	links []link
}

// link is one entry.
type link struct {
	term  uint64
	chain uint64
	sum   uint64
	data  []byte
}

func (l *cachedLog) last() uint64 { return l.start + uint64(len(l.links)) }

// at returns the link of an index in (start, last].
func (l *cachedLog) at(index uint64) *link { return &l.links[index-l.start-1] }

// chainAt returns the sum of all entries up to an index, if it is known.
func (l *cachedLog) chainAt(index uint64) (uint64, bool) {
	switch {
	case index == l.start:
		return l.chain, true
	case index < l.start || index > l.last():
		return 0, false
	}
	return l.at(index).chain, true
}

// NewInvariants returns a checker that has seen nothing.
func NewInvariants() *Invariants {
	return &Invariants{
		seed:    maphash.MakeSeed(),
		leaders: make(map[uint64]uint64),
		votes:   make(map[ballot]uint64),
		created: make(map[position]origin),
	}
}

// Counters returns what the run has shown so far.
func (c *Invariants) Counters() InvariantCounters {
	n := c.counters
	n.Leaders, n.Committed = len(c.leaders), len(c.committed)
	return n
}

// Started says that a server came up, with what its disk held.
func (c *Invariants) Started(id uint64) {
	w := c.server(id)
	w.up, w.fresh, w.dirty = true, true, 1
}

// Stopped says that a server is gone. torn means that it went in the middle of
// a flush, so that nobody knows how much of it was saved.
func (c *Invariants) Stopped(id uint64, torn bool) {
	w := c.server(id)
	w.up, w.torn = false, torn
	if torn && w.now.Role == node.Leader {
		c.died = append(c.died, death{w.now.Term, cloneVoters(w.now.Config)})
	}
	if unheard := max(w.savedTerm, w.spoke) < w.now.Term; torn && unheard && c.leaders[w.now.Term] == id {
		// The only voter elected itself, and its power was cut before its vote was
		// saved and before it had told anyone: it may vote for another in that term.
		delete(c.leaders, w.now.Term)
	}
}

// Replaced says that the disk of a server that is down was emptied, or gave way to
// an older copy. The log that was on it is not demanded any longer, nor is what a
// leader believes of it; a vote that it once gave still holds (I2).
func (c *Invariants) Replaced(id uint64) {
	w := c.server(id)
	w.savedTerm, w.savedVote, w.savedSnap, w.saved, w.replaced = 0, 0, 0, cachedLog{}, true
}

// server returns the memory of a server; they are kept in the order of IDs.
func (c *Invariants) server(id uint64) *watched {
	i, found := slices.BinarySearchFunc(c.servers, id, func(w *watched, id uint64) int {
		return int(int64(w.id) - int64(id))
	})
	if !found {
		c.servers = slices.Insert(c.servers, i, &watched{id: id, dirty: noIndex})
	}
	return c.servers[i]
}

// Look checks one server after a step of it. flushed means that the step ended
// with a Flush that succeeded: what the server holds is on its disk. The error
// is a *Violation.
func (c *Invariants) Look(id uint64, in node.Inspector, flushed bool) error {
	w := c.server(id)
	w.now, w.before = w.before, w.now
	in.Inspect(&w.now)
	w.looks++
	c.counters.Looks++
	for _, check := range [...]func(*watched, node.Inspector) error{
		c.checkMonotone, c.readLog, c.checkRecovered, c.checkLeader, c.checkCandidate, c.checkOrder,
		c.checkCommitRule, c.checkCommitted, c.checkConfig, c.checkHash, c.checkProgress, c.checkUpToDate,
	} {
		if err := check(w, in); err != nil {
			return err
		}
	}
	c.count(w)
	w.fresh = false
	if flushed {
		return c.flushed(w)
	}
	return nil
}

func (c *Invariants) count(w *watched) {
	if !w.fresh && w.now.SnapIndex != w.before.SnapIndex {
		c.counters.Snapshots++
		if w.now.SnapIndex > w.before.Commit {
			c.counters.Installed++
			if c.first.known() && !votesIn(w.before.Config, w.id) {
				c.counters.LearnersInstalled++
			}
		}
	}
	if len(w.now.Config.Next) > 0 && (w.fresh || len(w.before.Config.Next) == 0) {
		c.counters.Joint++
	}
}

// fullLook is how many looks may pass until a log is read as a whole again. In
// between it is read from its end down to the first entry that is as it was.
const fullLook = 256

// readLog brings the memory of a log up to date, and checks what is new.
func (c *Invariants) readLog(w *watched, in node.Inspector) error {
	if w.fresh {
		w.log, w.configs, w.unjudged = cachedLog{}, w.configs[:0], 0
	}
	if err := c.compact(w); err != nil {
		return err
	}
	if err := c.readBase(w); err != nil {
		return err
	}
	changed := c.firstChange(w, in)
	if changed <= w.log.last() {
		if err := c.checkChanged(w, changed); err != nil {
			return err
		}
		w.log.links = w.log.links[:changed-w.log.start-1]
		c.forgetConfigs(w, changed)
		c.counters.Truncated++
	}
	for k := w.log.last() + 1; k <= w.now.Last; k++ {
		if err := c.checkNewEntry(w, k, in.Entry(k)); err != nil {
			return err
		}
	}
	return nil
}

// compact follows a snapshot: the log's memory begins where the log does.
func (c *Invariants) compact(w *watched) error {
	start := w.now.SnapIndex
	if start == w.log.start {
		return nil
	}
	if start > uint64(len(c.committed)) {
		return violated("I19", "Snapshot", "%s has a snapshot up to entry %d, but only %d entries are committed",
			node.Name(w.id), start, len(c.committed))
	}
	base := c.committed[start-1]
	if w.now.SnapTerm != base.term {
		return violated("I19", "Snapshot", "%s has a snapshot that ends in term %d at entry %d; the committed entry is of term %d",
			node.Name(w.id), w.now.SnapTerm, start, base.term)
	}
	covered := func(f configuration) bool { return f.index <= start }
	if chain, known := w.log.chainAt(start); known && chain == base.chain {
		w.log.links = append([]link(nil), w.log.links[start-w.log.start:]...)
	} else {
		w.log.links, covered = nil, func(configuration) bool { return true }
	}
	w.configs = slices.DeleteFunc(w.configs, covered)
	w.log.start, w.log.chain = start, base.chain
	w.dirty = min(w.dirty, start+1)
	return nil
}

// firstChange returns the first index at which the log is no longer as it was
// remembered, one past the shorter of the two if none differs.
func (c *Invariants) firstChange(w *watched, in node.Inspector) uint64 {
	end := min(w.log.last(), w.now.Last)
	full := w.looks%fullLook == 0 || w.now.Role != w.before.Role
	if full {
		for k := w.log.start + 1; k <= end; k++ {
			if !c.same(w.log.at(k), in.Entry(k), true) {
				return k
			}
		}
		return end + 1
	}
	for k := end; k > w.log.start; k-- {
		if c.same(w.log.at(k), in.Entry(k), false) {
			return k + 1
		}
	}
	return w.log.start + 1
}

// same compares an entry with its memory. deep looks at every byte, even of a
// slice that is the same.
func (c *Invariants) same(l *link, e node.Entry, deep bool) bool {
	if l.term != e.Term || len(l.data) != len(e.Data) {
		return false
	}
	if deep {
		return l.sum == maphash.Bytes(c.seed, e.Data)
	}
	return len(e.Data) == 0 || &l.data[0] == &e.Data[0] || bytes.Equal(l.data, e.Data)
}

// extend appends an entry to the memory of a log.
func (c *Invariants) extend(w *watched, e node.Entry) *link {
	chain := w.log.chain
	if n := len(w.log.links); n > 0 {
		chain = w.log.links[n-1].chain
	}
	sum := maphash.Bytes(c.seed, e.Data)
	w.log.links = append(w.log.links, link{term: e.Term, sum: sum, data: e.Data, chain: mix(mix(chain, e.Term), sum)})
	return &w.log.links[len(w.log.links)-1]
}

// mix folds a number into a sum (the finalizer of splitmix64).
func mix(sum, v uint64) uint64 {
	x := sum*0x9e3779b97f4a7c15 + v + 1
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Stepped checks a server if it can be looked into. It makes Invariants a
// watcher of the simulator.
func (c *Invariants) Stepped(id uint64, s node.Server, flushed bool) error {
	if in, ok := s.(node.Inspector); ok {
		return c.Look(id, in, flushed)
	}
	return nil
}
