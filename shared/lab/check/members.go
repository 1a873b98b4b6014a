package check

import (
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/node"
)

// phase is the phase of a membership change (§6). A change has three entries:
// the first names the servers that join, the second makes the configuration
// joint, the third ends the change. After the first, the change can be canceled
// by an entry with the previous configuration.
type phase string

const (
	stable   phase = "stable"
	learning phase = "learning"
	joint    phase = "joint"
)

// configuration is a configuration and its place in a log.
type configuration struct {
	// index and term are those of its entry; 0 for the cluster's first
	// configuration.
	index uint64
	term  uint64

	voters node.Voters
	phase  phase
}

// known reports whether there is a configuration. A server that joins has none
// until it has received the log.
func (f configuration) known() bool { return len(f.voters.Now) > 0 }

// follow returns the configuration in an entry, which follows f.
func (f configuration) follow(index uint64, e node.Entry) configuration {
	next := configuration{index: index, term: e.Term, voters: cloneVoters(*e.Config)}
	switch {
	case len(e.Config.Next) > 0:
		next.phase = joint
	case f.phase == stable:
		next.phase = learning
	default:
		next.phase = stable
	}
	return next
}

func cloneVoters(v node.Voters) node.Voters {
	return node.Voters{Now: slices.Clone(v.Now), Next: slices.Clone(v.Next), Learners: slices.Clone(v.Learners)}
}

func sameVoters(a, b node.Voters) bool {
	return slices.Equal(a.Now, b.Now) && slices.Equal(a.Next, b.Next) && slices.Equal(a.Learners, b.Learners)
}

// votesIn reports whether a server is a voter of a configuration.
func votesIn(v node.Voters, id uint64) bool {
	return slices.Contains(v.Now, id) || slices.Contains(v.Next, id)
}

// wordsOf writes a configuration as "n1 n2 n3 → n2 n3 n4".
func wordsOf(v node.Voters) string {
	list := func(ids []uint64) string {
		names := make([]string, len(ids))
		for i, id := range ids {
			names[i] = node.Name(id)
		}
		return strings.Join(names, " ")
	}
	text := list(v.Now)
	if text == "" {
		text = "nobody"
	}
	if len(v.Next) > 0 {
		text += " → " + list(v.Next)
	}
	if len(v.Learners) > 0 {
		text += ", and " + list(v.Learners) + " to learn"
	}
	return text
}

// Members returns the newest committed configuration, and whether a change is
// in progress. It is empty until a server has shown a configuration, and in
// stages with fixed members. The caller must not modify it.
func (c *Invariants) Members() (v node.Voters, changing bool) {
	newest := c.committedConfig(uint64(len(c.committed)))
	return newest.voters, newest.known() && newest.phase != stable
}

// committedConfig is the configuration that is in force at a committed index.
func (c *Invariants) committedConfig(index uint64) configuration {
	for i := len(c.configs) - 1; i >= 0; i-- {
		if c.configs[i].index <= index {
			return c.configs[i]
		}
	}
	return c.first
}

// configOf is the configuration in force at the end of a server's log.
func (w *watched) configOf() configuration {
	if n := len(w.configs); n > 0 {
		return w.configs[n-1]
	}
	return w.base
}

// before returns the configuration before the i-th one in a server's log.
func (c *Invariants) before(w *watched, i int) configuration {
	switch {
	case i > 0:
		return w.configs[i-1]
	case w.base.known():
		return w.base
	default:
		return c.first
	}
}

// readBase: the configuration that a server has at the beginning of its log is
// the one that was in force there: the cluster's first configuration, or that
// of the snapshot. No entry contains the first one, so a server that joins
// later may not know it.
func (c *Invariants) readBase(w *watched) error {
	said := w.now.Base
	switch {
	case w.log.start > 0:
		w.base = c.committedConfig(w.log.start)
		if w.base.index == 0 && len(said.Now) == 0 && !votesIn(w.base.voters, w.id) {
			w.base = configuration{}
		}
	case len(said.Now) == 0:
		w.base = configuration{}
	case !c.first.known():
		c.first = configuration{voters: cloneVoters(said), phase: stable}
		w.base = c.first
	default:
		w.base = c.first
	}
	if !sameVoters(said, w.base.voters) {
		return violated("I20", "Configuration", "%s has the configuration (%s) at entry %d, where its log begins; in force there is (%s)",
			node.Name(w.id), wordsOf(said), w.log.start, wordsOf(w.base.voters))
	}
	return nil
}

// noteConfig records an entry that contains a configuration. isNew means that
// no server has shown it before.
func (c *Invariants) noteConfig(w *watched, index uint64, e node.Entry, isNew bool) {
	if e.Config == nil {
		return
	}
	w.configs = append(w.configs, c.before(w, len(w.configs)).follow(index, e))
	if isNew {
		w.unjudged++
	}
}

// forgetConfigs removes the configurations from an index on, after a
// truncation.
func (c *Invariants) forgetConfigs(w *watched, from uint64) {
	for n := len(w.configs); n > 0 && w.configs[n-1].index >= from; n-- {
		w.configs = w.configs[:n-1]
		c.counters.RolledBack++
	}
}

// checkConfig: a server's configuration is the last one in its log, committed
// or not, and each one that it appends is a legal change.
func (c *Invariants) checkConfig(w *watched, _ node.Inspector) error {
	if !c.first.known() {
		return nil
	}
	if want := w.configOf(); !sameVoters(w.now.Config, want.voters) {
		return violated("I20", "Configuration", "%s goes by the configuration (%s); the last in its log, at entry %d, is (%s)",
			node.Name(w.id), wordsOf(w.now.Config), want.index, wordsOf(want.voters))
	}
	for ; w.unjudged > 0; w.unjudged-- {
		if err := c.checkChange(w, len(w.configs)-w.unjudged); err != nil {
			return err
		}
	}
	c.countLeader(w)
	return nil
}

// checkChange checks the i-th configuration in a server's log, which no server
// has shown before: its leader has committed the configuration before it, and
// has committed an entry of its own term.
func (c *Invariants) checkChange(w *watched, i int) error {
	was, is := c.before(w, i), w.configs[i]
	if is.phase == learning {
		c.counters.Changes++
	}
	known := uint64(len(c.committed))
	if c.leaders[is.term] == w.id {
		known = min(known, w.now.Commit)
	}
	last := min(known, is.index-1)
	switch unseen := c.wentDown(is.term); {
	case was.index > known && !unseen:
		return violated("I20", "Configuration", "%s has the configuration (%s) at entry %d, and the one before it, (%s) at entry %d, is not committed",
			node.Name(w.id), wordsOf(is.voters), is.index, wordsOf(was.voters), was.index)
	case (last == 0 || c.committed[last-1].term != is.term) && !unseen:
		return violated("I20", "Configuration", "the leader of term %d has made the configuration (%s) at entry %d, and had committed no entry of its own term",
			is.term, wordsOf(is.voters), is.index)
	}
	if why := unlawful(was, is); why != "" {
		return violated("I20", "Configuration", "at entry %d of %s the configuration (%s), which is %s, is followed by (%s): %s",
			is.index, node.Name(w.id), wordsOf(was.voters), was.phase, wordsOf(is.voters), why)
	}
	if a, b, apart := disjoint(was.voters, is.voters); apart {
		return violated("I21", "Quorums overlap", "at entry %d of %s the configuration (%s) is followed by (%s): %v are a quorum of one and %v of the other",
			is.index, node.Name(w.id), wordsOf(was.voters), wordsOf(is.voters), a, b)
	}
	return nil
}

// wentDown reports whether the leader of a term went down during a flush, and
// so may have committed an entry unobserved.
func (c *Invariants) wentDown(term uint64) bool {
	return slices.ContainsFunc(c.died, func(d death) bool { return d.term == term })
}

// unlawful says why a configuration cannot follow another; "" if it can.
func unlawful(was, is configuration) string {
	a, b := was.voters, is.voters
	switch {
	case len(b.Now) == 0:
		return "it has no voters"
	case was.phase == joint && (len(b.Next) > 0 || !slices.Equal(b.Now, a.Next)):
		return "a joint configuration must be followed by its new half"
	case was.phase == joint:
		return ""
	case !slices.Equal(b.Now, a.Now):
		return "only a joint configuration may change the voters"
	case is.phase == joint && was.phase != learning:
		return "a change must begin with learners"
	case is.phase == joint:
		for _, id := range b.Next {
			if !slices.Contains(a.Now, id) && !slices.Contains(a.Learners, id) {
				return fmt.Sprintf("%s did not learn the log first", node.Name(id))
			}
		}
	case len(a.Learners) > 0 && len(b.Learners) > 0:
		return "another change is in progress"
	}
	return ""
}

// disjoint returns two quorums, one of each configuration, that have no server
// in common, if there are any. It tries all.
func disjoint(a, b node.Voters) (one, other []uint64, found bool) {
	all := slices.Concat(a.Now, a.Next, b.Now, b.Next)
	slices.Sort(all)
	all = slices.Compact(all)
	const most = 12
	if len(all) > most {
		return nil, nil, false
	}
	for set := range 1 << len(all) {
		one, other = one[:0], other[:0]
		for i, id := range all {
			if set>>i&1 == 1 {
				one = append(one, id)
			} else {
				other = append(other, id)
			}
		}
		if isQuorum(a, one) && isQuorum(b, other) {
			return one, other, true
		}
	}
	return nil, nil, false
}

// isQuorum reports whether some servers are a quorum of every half of a
// configuration.
func isQuorum(v node.Voters, ids []uint64) bool {
	half := func(of []uint64) bool {
		n := 0
		for _, id := range of {
			if slices.Contains(ids, id) {
				n++
			}
		}
		return 2*n > len(of)
	}
	return half(v.Now) && (len(v.Next) == 0 || half(v.Next))
}

// inForce returns the configurations by which a leader may have counted in its
// last step: the one before the step, and those that it appended in it.
func (w *watched) inForce() []node.Voters {
	all := []node.Voters{w.now.Config}
	if w.restarted {
		return all
	}
	for i, f := range w.configs {
		if f.index > w.before.Last {
			if i > 0 {
				all = append(all, w.configs[i-1].voters)
			} else {
				all = append(all, w.base.voters)
			}
		}
	}
	return all
}

// thenInForce returns the configurations by which a leader that went down
// during a flush may have counted. In that flush it may have moved from a joint
// configuration to its new half.
func (c *Invariants) thenInForce(w *watched, d death) []node.Voters {
	if !c.first.known() {
		return []node.Voters{w.now.Config}
	}
	var all []node.Voters
	newest, _ := c.Members()
	for _, v := range []node.Voters{w.now.Config, d.config, newest} {
		if len(v.Now) > 0 {
			all = append(all, v)
		}
		if len(v.Next) > 0 {
			all = append(all, node.Voters{Now: v.Next})
		}
	}
	return all
}

// commitConfig records the configurations that a commit includes, and counts
// the changes that are done.
func (c *Invariants) commitConfig(w *watched, k uint64) {
	i := slices.IndexFunc(w.configs, func(f configuration) bool { return f.index == k })
	if i < 0 {
		return
	}
	was, is := c.committedConfig(k-1), w.configs[i]
	c.configs = append(c.configs, is)
	switch {
	case was.phase == joint:
		c.counters.Changed++
	case was.phase == learning && is.phase == stable:
		c.counters.Cancelled++
	}
}

// countLeader counts a leader that has removed itself, once in its term.
func (c *Invariants) countLeader(w *watched) {
	newest := c.committedConfig(w.now.Commit)
	if !w.led() || newest.phase != stable || votesIn(newest.voters, w.id) || c.outside == w.now.Term {
		return
	}
	c.outside = w.now.Term
	c.counters.LeadersRemoved++
}

// checkMayBeCandidate: a server without a configuration does not start an election,
// nor does one that knows that it is no voter of the committed configuration.
// Before it knows that, the server that leaves may be the only one that can
// win.
func (c *Invariants) checkMayBeCandidate(w *watched) error {
	f := w.configOf()
	if !c.first.known() || votesIn(f.voters, w.id) || f.known() && f.index > w.now.Commit {
		return nil
	}
	return violated("I17", "Candidate", "%s is a candidate in term %d, but is no voter of its configuration (%s), which it knows to be committed",
		node.Name(w.id), w.now.Term, wordsOf(f.voters))
}
