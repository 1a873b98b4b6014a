package raft

import (
	"cmp"
	"errors"
	"maps"
	"slices"
)

// A change of the members is three entries (§6). The first names the voters to
// come: the new ones among them are sent the log, but count nowhere until they
// have caught up. The second is C_old,new: every decision needs a majority of
// the old voters and one of the new. The third is C_new. A leader appends each
// once the one before it is committed, so a change that its leader does not
// finish is finished by the next.
//
// A configuration is in force as soon as it is in the log, committed or not,
// until it is removed from there.

// ErrTooEarly is a reason why a change is not begun: the leader does not know yet
// what is committed, and so not whether the change that it finds in its log is done.
// A leader that continued could act on a configuration that another leader has left.
var ErrTooEarly = errors.New("the leader has not committed an entry of its term yet")

// ErrChanging is the other reason: there is one change at a time.
var ErrChanging = errors.New("a change of the members is under way")

// Config returns the configuration in force at an index from the base on.
func (r *Raft) Config(at Index) Config { return r.log.config(at) }

// Change begins a change of the voters, and returns the place of its first
// entry; it continues by itself. next is in the order of the IDs, and addresses
// has those of all servers. To change to the voters there are calls off a
// change whose new servers do not count yet; if there is none, it is one entry
// with new addresses. An error says why nothing was begun.
func (r *Raft) Change(next []ID, addresses map[ID]string) (Index, Term, error) {
	c := r.config()
	switch err := r.mayChange(); {
	case err != nil:
		return 0, 0, err
	case slices.Equal(next, c.Voters) && len(c.Next) == 0:
		return r.addConfig(Moved, Config{Voters: c.Voters, Addresses: addresses})
	case slices.Equal(next, c.Voters) && !c.Joint:
		return r.addConfig(CalledOff, Config{Voters: c.Voters, Addresses: addresses})
	case len(c.Next) > 0:
		return 0, 0, ErrChanging
	}
	return r.addConfig(Learning, Config{Voters: c.Voters, Next: next, Addresses: addresses})
}

// mayChange says why no configuration may be appended now: the one before must
// be committed, and so must an entry of the leader's own term.
func (r *Raft) mayChange() error {
	switch {
	case r.role != Leader || r.successor != 0:
		return ErrNotLeader
	case r.log.term(r.commitIndex) != r.currentTerm:
		return ErrTooEarly
	case r.config().Index > r.commitIndex:
		return ErrChanging
	}
	return nil
}

func (r *Raft) addConfig(why *Rule, c Config) (Index, Term, error) {
	c.Index = r.log.lastIndex() + 1
	// A server that comes back may have another disk, with nothing on it.
	maps.DeleteFunc(r.progress, func(id ID, _ *progress) bool { return id != r.options.ID && !slices.Contains(r.others(), id) })
	r.watch(c.Members()...)
	r.explain(Reason{Rule: why, Index: c.Index, Votes: c.Members()})
	return r.add(Entry{Kind: ConfigEntry, Config: &c})
}

// advanceChange takes the next step of a change when the one before is committed. A
// leader that is no longer a member then has one duty left: it transfers its
// leadership to the voter that has most of its log and was heard from lately.
func (r *Raft) advanceChange() {
	c, next := r.config(), r.progress[r.successor]
	switch {
	case next != nil && next.silent <= 2 && next.matchIndex == r.log.lastIndex():
		r.explain(Reason{Rule: HandsOver, Peer: r.successor, Mine: r.last()})
		r.send(r.successor, TimeoutNow{})
		r.becomeFollower(r.currentTerm)
	case r.mayChange() != nil:
	case c.Joint:
		r.addConfig(Final, Config{Voters: c.Next, Addresses: c.Addresses})
	case len(c.Next) > 0 && r.caughtUp(c):
		r.addConfig(Jointly, Config{Voters: c.Voters, Next: c.Next, Joint: true, Addresses: c.Addresses})
	case len(c.Next) == 0 && !c.IsVoter(r.options.ID):
		r.Transfer(slices.MaxFunc(c.Voters, func(a, b ID) int {
			return cmp.Or(cmp.Compare(r.progress[b].silent/3, r.progress[a].silent/3), cmp.Compare(r.progress[a].matchIndex, r.progress[b].matchIndex))
		}))
	}
}

// caughtUp reports whether those who join, and a majority of the voters to come,
// have what was in the log when the change began, and are no further behind now
// than a follower may be. It does not wait for all voters, who may be down; but
// with too many down C_old,new could never be committed, nor be called off.
func (r *Raft) caughtUp(c Config) bool {
	least := max(c.Index+maxInFlight, r.log.lastIndex())
	has := func(id ID) bool { return r.progress[id].matchIndex+maxInFlight >= least }
	return majority(c.Next, has) && !slices.ContainsFunc(c.Next, func(id ID) bool { return !c.IsVoter(id) && !has(id) })
}

// mayCampaign reports whether this server can be a candidate: a voter, or one that
// will be removed and does not know yet that C_new is committed. Nobody else may have
// that in its log, and then nobody else can win (thesis §4.2.2).
func (r *Raft) mayCampaign() bool {
	c := r.config()
	return !r.removed && (c.IsVoter(r.options.ID) || len(c.Next) == 0 && c.Index > r.commitIndex)
}

// watch begins to track servers.
func (r *Raft) watch(servers ...ID) {
	for _, id := range servers {
		r.progress[id] = cmp.Or(r.progress[id], &progress{nextIndex: r.log.lastIndex() + 1, probing: true})
	}
}

// hearRemoval takes the word of a leader that this server was removed. What is
// committed stays so in later terms; but a leader that was deposed and has not
// heard of it may not know who has joined since. So what it knows must not be older
// than this server's own configuration, which may be one that was never committed.
func (r *Raft) hearRemoval(m RequestVoteReply) {
	r.removed = r.removed || m.Removed && !m.Committed.before(r.Position(max(r.config().Index, r.log.base())))
}
