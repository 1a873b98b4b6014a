package check

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"example.com/raftsteps/shared/core/node"
)

// Invariants watches the servers of one run and checks, after every step, what
// must always be true of Raft. Five of these rules are in Figure 3 of the
// paper; the others come from its proof and from public bugs.
//
// Some rules compare a server with its earlier state or with the whole history:
// who led a term, what was committed, which server a server voted for. The
// checker keeps this history itself; it never takes it from the servers.
//
//	I1   Election Safety               checkLeader, checkElected
//	I2   one vote per term             checkPromises, checkRecovered
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
//	I21  quorums of neighboring configurations overlap   checkChange
//	I22  exactly once, I23 reads, I24 answers             AgainstLog
//
// "On a disk" means: in the log when the server's Flush returned without an
// error. The next restart shows whether it really was there (I12).
//
// It is not safe for concurrent use.
type Invariants struct {
	without []string
	servers []*watched
	seed    maphash.Seed

	// leaders has the leader of each term, forever.
	leaders map[uint64]uint64

	// votes has each server's vote in each term, forever.
	votes map[ballot]uint64

	// created has all entries that were ever seen: an index and a term identify
	// one entry and all entries before it.
	created map[position]origin

	// committed has the committed entries from index 1 on.
	committed []commitment

	// quorum is the configuration of the leader that made the last commit, for
	// clusters with fixed members.
	quorum node.Voters

	// first is the first configuration of a cluster whose members can change;
	// configs has the configurations committed since, in order.
	first   configuration
	configs []configuration

	// outside is the newest term whose leader has removed itself.
	outside uint64

	counters InvariantCounters

	// died has the leaders that went down during a flush. Their last step was
	// not observed.
	died []death
}

// death is a leader that went down during a flush.
type death struct {
	term uint64

	// config is the last configuration that was seen in force on it.
	config node.Voters
}

// ballot is a server's vote in a term.
type ballot struct{ server, term uint64 }

// position names an entry.
type position struct{ index, term uint64 }

// origin is the server on which an entry was first seen.
type origin struct {
	chain  uint64
	server uint64
}

// commitment is a committed entry.
type commitment struct {
	// term is the entry's term; chain is a hash of the entry and all entries
	// before it.
	term  uint64
	chain uint64
	data  []byte

	// in is the term in which the entry was first known to be committed, by the
	// server that knew it.
	in uint64
	by uint64

	// hash is the hash of the state machine after the entry; 0 if it is not
	// known yet.
	hash   uint64
	hashBy uint64
}

// InvariantCounters count what happened in a run.
type InvariantCounters struct {
	// Looks is how often a server was checked.
	Looks int `json:"looks"`

	// Leaders is the number of terms that had a leader.
	Leaders int `json:"leaders"`

	// Committed is the number of entries that were committed.
	Committed int `json:"committed"`

	// Truncated is how often a log was truncated.
	Truncated int `json:"truncated"`

	// Snapshots is how often a server's snapshot index moved.
	Snapshots int `json:"snapshots"`

	// Installed is how often it moved beyond the server's commit index: the
	// snapshot came from another server.
	Installed int `json:"installed"`

	// Joint is how often a server entered a joint configuration.
	Joint int `json:"joint"`

	// Changes is the number of membership changes that began, Changed of those
	// that were done, Cancelled of those that were canceled.
	Changes   int `json:"changes_begun"`
	Changed   int `json:"changes_done"`
	Cancelled int `json:"changes_cancelled"`

	// RolledBack is how often a server lost a configuration when its log was
	// truncated.
	RolledBack int `json:"configurations_rolled_back"`

	// LearnersInstalled is how often a server without a vote installed a
	// snapshot.
	LearnersInstalled int `json:"learners_installed"`

	// LeadersRemoved is the number of leaders that removed themselves.
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

// Violation is the error for an invariant that does not hold.
type Violation struct {
	// Invariant is its number, such as "I5".
	Invariant string

	// Name is its name in the paper or in the proof.
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

// watched is what the checker remembers about one server.
type watched struct {
	id uint64
	up bool

	// restarted is set until the first check after a start.
	restarted bool

	// now and before are the states at the last two checks.
	now, before node.State

	// log is the log at the last check.
	log cachedLog

	// base is the configuration in force where the log begins; configs has the
	// configurations in the log, in order. The last unjudged ones have not been
	// checked yet.
	base     configuration
	configs  []configuration
	unjudged int

	// saved is the log at the last flush; savedTerm and savedVote are the term
	// and the vote at the last flush.
	saved     cachedLog
	savedTerm uint64
	savedVote uint64
	savedSnap uint64

	// spoke is the highest term in which the server has sent a message.
	spoke uint64

	// dirty is the lowest index whose entry may have changed since the last
	// flush; noIndex if none has.
	dirty uint64

	// replaced is set once the server's disk has lost saved data.
	replaced bool

	// torn is set if the last flush failed: a part of it may be on the disk.
	torn bool

	looks int
}

const noIndex = ^uint64(0)

// cachedLog remembers a log by the hashes of its prefixes.
type cachedLog struct {
	// start is the index before the first link; chain is the hash of all
	// entries up to it.
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

// chainAt returns the hash of all entries up to an index, if it is known.
func (l *cachedLog) chainAt(index uint64) (uint64, bool) {
	switch {
	case index == l.start:
		return l.chain, true
	case index < l.start || index > l.last():
		return 0, false
	}
	return l.at(index).chain, true
}

// NewInvariants returns a checker for a new run. It leaves some invariants out, by
// their numbers: those that only say that a rule is followed, where the rule was
// taken out of the code to show what it is good for.
func NewInvariants(without ...string) *Invariants {
	return &Invariants{
		without: without,
		seed:    maphash.MakeSeed(),
		leaders: make(map[uint64]uint64),
		votes:   make(map[ballot]uint64),
		created: make(map[position]origin),
	}
}

// Counters returns the counters of the run so far.
func (c *Invariants) Counters() InvariantCounters {
	n := c.counters
	n.Leaders, n.Committed = len(c.leaders), len(c.committed)
	return n
}

// Started tells the checker that a server has started from its disk.
func (c *Invariants) Started(id uint64) {
	w := c.server(id)
	w.up, w.restarted, w.dirty = true, true, 1
}

// Stopped tells the checker that a server went down. torn means that it went
// down during a flush, so it is unknown how much of the flush was saved.
func (c *Invariants) Stopped(id uint64, torn bool) {
	w := c.server(id)
	w.up, w.torn = false, torn
	if torn && w.now.Role == node.Leader {
		c.died = append(c.died, death{w.now.Term, cloneVoters(w.now.Config)})
	}
	if unheard := max(w.savedTerm, w.spoke) < w.now.Term; torn && unheard && c.leaders[w.now.Term] == id {
		// The only voter elected itself, and its power was cut before it had
		// saved its vote and before it had sent anything. It may vote for
		// another server in that term.
		delete(c.leaders, w.now.Term)
	}
}

// Replaced tells the checker that the disk of a server that is down was emptied
// or replaced by an older copy. The checker then no longer expects the old log
// on that disk, nor what a leader believes about it. A vote of the server still
// counts (I2).
func (c *Invariants) Replaced(id uint64) {
	w := c.server(id)
	w.savedTerm, w.savedVote, w.savedSnap, w.saved, w.replaced = 0, 0, 0, cachedLog{}, true
}

// server returns what is remembered about a server. The servers are kept in the
// order of their IDs.
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
// with a Flush that succeeded: the server's state is on its disk. The error is
// a *Violation.
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
		if err := c.left(check(w, in)); err != nil {
			return err
		}
	}
	c.count(w)
	w.restarted = false
	if flushed {
		return c.left(c.flushed(w))
	}
	return nil
}

// left returns what is left of a violation: nothing if the invariant is left out.
func (c *Invariants) left(err error) error {
	if err == nil || len(c.without) == 0 {
		return err
	}
	var v *Violation
	if errors.As(err, &v) && slices.Contains(c.without, v.Invariant) {
		return nil
	}
	return err
}

func (c *Invariants) count(w *watched) {
	if !w.restarted && w.now.SnapIndex != w.before.SnapIndex {
		c.counters.Snapshots++
		if w.now.SnapIndex > w.before.Commit {
			c.counters.Installed++
			if c.first.known() && !votesIn(w.before.Config, w.id) {
				c.counters.LearnersInstalled++
			}
		}
	}
	if len(w.now.Config.Next) > 0 && (w.restarted || len(w.before.Config.Next) == 0) {
		c.counters.Joint++
	}
}

// fullLook is the number of checks after which a whole log is read again.
// Between them, a log is read from its end back to the first unchanged entry.
const fullLook = 256

// readLog updates the remembered log, and checks the new entries.
func (c *Invariants) readLog(w *watched, in node.Inspector) error {
	if w.restarted {
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

// compact follows a snapshot: it drops the remembered entries that the log no
// longer has.
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

// firstChange returns the first index at which the log differs from the
// remembered one. If none differs, it returns the index after the shorter of
// the two.
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

// same compares an entry with the remembered one. deep compares every byte,
// even if the slice is the same.
func (c *Invariants) same(l *link, e node.Entry, deep bool) bool {
	if l.term != e.Term || len(l.data) != len(e.Data) {
		return false
	}
	if deep {
		return l.sum == maphash.Bytes(c.seed, e.Data)
	}
	return len(e.Data) == 0 || &l.data[0] == &e.Data[0] || bytes.Equal(l.data, e.Data)
}

// extend appends an entry to the remembered log.
func (c *Invariants) extend(w *watched, e node.Entry) *link {
	chain := w.log.chain
	if n := len(w.log.links); n > 0 {
		chain = w.log.links[n-1].chain
	}
	sum := maphash.Bytes(c.seed, e.Data)
	w.log.links = append(w.log.links, link{term: e.Term, sum: sum, data: e.Data, chain: mix(mix(chain, e.Term), sum)})
	return &w.log.links[len(w.log.links)-1]
}

// mix adds a number to a hash (the finalizer of splitmix64).
func mix(sum, v uint64) uint64 {
	x := sum*0x9e3779b97f4a7c15 + v + 1
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Stepped checks a server that can be inspected. It makes Invariants a watcher
// of the simulator.
func (c *Invariants) Stepped(id uint64, s node.Server, flushed bool) error {
	if in, ok := s.(node.Inspector); ok {
		return c.Look(id, in, flushed)
	}
	return nil
}
