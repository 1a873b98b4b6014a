package raft

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/rules"
)

// What the tests have of changes of the members: invariants, words, commands of
// scripts, and random steps.

// configs returns the configurations that a server starts with: the one at the
// beginning of its log, and the one at the end of its snapshot. A server that is
// to join knows none.
func configs(c *cluster, s *server) (config, covers Config) {
	if !s.Stage.joins {
		config.Voters = firstMembers(c)
	}
	covers = config
	if s.Disk.Base.Index > 0 {
		config = s.Disk.Config.(Config)
	}
	if len(s.Disk.Snapshot) > 0 {
		covers = s.Disk.Covers.(Config)
	}
	return config, covers
}

// firstMembers returns the servers of the first configuration.
func firstMembers(c *cluster) []ID {
	var ids []ID
	for _, s := range c.Servers {
		if !s.Stage.joins {
			ids = append(ids, ID(s.ID))
		}
	}
	return ids
}

// configAt returns the configuration that is in force behind some entries.
func configAt(c *cluster, entries []Entry) Config {
	for _, e := range slices.Backward(entries) {
		if e.Config != nil {
			return *e.Config
		}
	}
	return Config{Voters: firstMembers(c)}
}

func committedConfig(c *cluster, at Index) Config {
	for _, k := range slices.Backward(c.Ghost.Committed[:at]) {
		if k.Entry.Config != nil {
			return *k.Entry.Config
		}
	}
	return Config{Voters: firstMembers(c)}
}

func sameConfig(a, b *Config) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return slices.Equal(a.Voters, b.Voters) && slices.Equal(a.Next, b.Next) && a.Joint == b.Joint && a.Index == b.Index && maps.Equal(a.Addresses, b.Addresses)
}

// changes is what the tests remember of a server's configurations.
type changes struct {
	// base and last are where the log began and ended when it was last looked at.
	base, last Position

	// newest is the index of the configuration that was in force then, and removed
	// is true if a leader had said that the server is no member.
	newest  Index
	removed bool
}

// checkConfig: in force is the newest configuration in the log, committed or not,
// else that of the snapshot (Configuration). At most one is not committed, and
// each follows from the one before it (Configuration Step), so that any two
// quorums of neighbours share a server (Configuration Overlap).
func checkConfig(c *cluster, s *server) {
	r, seen := s.Raft, &s.Stage.changes
	if r.removed && !seen.removed {
		c.Counts["told of its removal"]++
	}
	seen.removed = r.removed
	base := r.Position(r.log.base())
	if seen.base == base && seen.last == r.last() {
		return
	}
	in := r.config()
	if in.Index < seen.newest {
		c.Counts["change rolled back"]++
	}
	seen.base, seen.last, seen.newest = base, r.last(), in.Index
	want := in
	before, has := newestConfig(s, r.log.base())
	configs := []Config{}
	if has {
		want, configs = before, append(configs, before)
	}
	open := 0
	for _, e := range r.log.entries[1:] {
		if e.Config == nil {
			continue
		}
		want, has, configs = *e.Config, true, append(configs, *e.Config)
		if i := int(e.Index) - 1; i >= len(c.Ghost.Committed) || !c.Ghost.Committed[i].Entry.Same(e) {
			open++
		}
	}
	if !has && !(s.Stage.joins && len(in.Voters) == 0) {
		want = Config{Voters: firstMembers(c)}
	}
	if !sameConfig(&in, &want) {
		c.Broken(configTrue, "%v goes by %s, and its log says %s", s.ID, configWords(in), configWords(want))
	}
	if open > 1 {
		c.Broken(configStep, "the log of %v has %d configurations that are not committed", s.ID, open)
	}
	for i := 1; i < len(configs); i++ {
		checkStep(c, configs[i-1], configs[i])
	}
	checkKnown(c, s)
}

// checkKnown: a server whose vote counts knows the voters, so none refuses its
// vote because it does not.
func checkKnown(c *cluster, s *server) {
	in := s.Raft.config()
	for _, id := range in.Members() {
		voter := c.Server(rules.ID(id))
		knows := !voter.Stage.joins || slices.ContainsFunc(voter.Disk.All(), func(e Entry) bool { return e.Config != nil })
		if in.IsVoter(id) && !knows {
			c.Broken(votersKnown, "%v goes by %s, and %v knows no voters", s.ID, configWords(in), id)
		}
	}
}

// newestConfig returns the configuration that the entries before a server's log
// leave, if one of them has any.
func newestConfig(s *server, base Index) (Config, bool) {
	for _, e := range slices.Backward(s.Disk.Snapshot[:min(int(base), len(s.Disk.Snapshot))]) {
		if e.Config != nil {
			return *e.Config, true
		}
	}
	return Config{}, false
}

// checkStep looks at two configurations that follow each other.
func checkStep(c *cluster, a, b Config) {
	if !follows(a, b) {
		c.Broken(configStep, "%s follows %s", configWords(b), configWords(a))
	}
	key := configWords(a) + configWords(b)
	if !c.Ghost.Neighbours[key] && !overlap(a, b) {
		c.Broken(configOverlap, "%s and %s can decide without each other", configWords(a), configWords(b))
	}
	c.Ghost.Neighbours[key] = true
}

// follows reports whether one configuration may follow the other.
func follows(a, b Config) bool {
	same, next := slices.Equal(a.Voters, b.Voters), slices.Equal(a.Next, b.Next)
	switch {
	case b.Joint:
		return same && next && !a.Joint && len(a.Next) > 0
	case len(b.Next) > 0:
		return same && len(a.Next) == 0
	case a.Joint:
		return slices.Equal(a.Next, b.Voters)
	}
	return same
}

// overlap tries all sets of servers that can decide in one configuration: the
// others must not be able to in the other one.
func overlap(a, b Config) bool {
	all := slices.Concat(a.Members(), b.Members())
	slices.Sort(all)
	all = slices.Compact(all)
	for mask := range 1 << len(all) {
		in := func(id ID) bool { return mask>>slices.Index(all, id)&1 == 1 }
		if quorum(a, in) && quorum(b, func(id ID) bool { return !in(id) }) {
			return false
		}
	}
	return true
}

// checkAppended: a leader appends a configuration when the one before is
// committed, and an entry of its own term. A server that is elected has the votes of a
// quorum.
func checkAppended(c *cluster, s *server, out Output) {
	r := s.Raft
	for _, e := range out.Append {
		if e.Config == nil || e.Term != r.currentTerm || c.Ghost.Leaders[uint64(e.Term)] != s.ID {
			continue
		}
		before := r.log.config(e.Index - 1)
		if before.Index > r.commitIndex || r.log.term(r.commitIndex) != e.Term {
			c.Broken(configStep, "%v appends %s to %s when %v is committed", s.ID, rules.EntryWords(e), configWords(before), r.Position(r.commitIndex))
		}
	}
	for _, why := range out.Reasons {
		if why.Rule == Elected && why.Term == r.currentTerm && !quorum(r.config(), func(id ID) bool { return slices.Contains(why.Votes, id) }) {
			c.Broken(rules.CandidateVotes, "%v is elected in %s by %v", s.ID, configWords(r.config()), why.Votes)
		}
	}
	for _, m := range out.Messages {
		if _, is := m.Body.(TimeoutNow); is && !r.config().IsVoter(ID(s.ID)) {
			c.Counts["leader left"]++
		}
	}
}

// change asks a server to change the voters, or to call a change off. It may take
// that on if it leads and knows what is committed, its last configuration among
// it, and no other change is under way.
func change(c *cluster, s *server, next []ID) {
	c.Input(s, func(r *Raft) {
		now := r.config()
		known := r.role == Leader && now.Index <= r.commitIndex && r.log.term(r.commitIndex) == r.currentTerm
		idle := len(now.Next) == 0 || !now.Joint && slices.Equal(next, now.Voters)
		index, term, err := r.Change(next, nil)
		switch {
		case err == nil && !(known && idle):
			c.Broken(configStep, "%v begins a change by entry %d when %v is committed, and it goes by %s", s.ID, index, r.Position(r.commitIndex), configWords(now))
		case err == nil && term != r.currentTerm:
			c.Broken(configStep, "%v leads term %d and changes the members in term %d", s.ID, r.currentTerm, term)
		case err != nil:
			c.Counts["change refused"]++
			c.Say(func() string { return fmt.Sprintf(rules.Effect+"%v does not change the members: %v", s.ID, err) })
		}
	})
}

// transfer asks a leader to transfer its leadership.
func transfer(c *cluster, s *server, to ID) {
	c.Input(s, func(r *Raft) {
		if err := r.Transfer(to); err != nil {
			c.Say(func() string { return fmt.Sprintf(rules.Effect+"%v does not transfer its leadership: %v", s.ID, err) })
			return
		}
		c.Counts["transfer begun"]++
	})
}

// ask lets time pass on a server until it asks who would vote for it.
func ask(c *cluster, s *server) error {
	before := c.Counts[Asks.Code]
	for range s.Raft.options.ElectionTicks[1] + 1 {
		c.Input(s, (*Raft).Tick)
		if c.Counts[Asks.Code] != before {
			return nil
		}
	}
	return fmt.Errorf("%v does not ask for votes", s.ID)
}

// silence lets a server have heard nothing for an election timeout: a leader of
// some servers, or of all; another server of its leader.
func (r *Raft) silence(of ...ID) {
	if r.role != Leader {
		r.elapsed = r.options.ElectionTicks[0]
		return
	}
	for id, p := range r.progress {
		if len(of) == 0 || slices.Contains(of, id) {
			p.silent = r.options.ElectionTicks[1]
		}
	}
}

func configWords(c Config) string {
	switch {
	case c.Joint:
		return fmt.Sprintf("%v and %v", c.Voters, c.Next)
	case len(c.Next) > 0:
		return fmt.Sprintf("%v, to be %v", c.Voters, c.Next)
	}
	return fmt.Sprint(c.Voters)
}

// snapshotWords is what the file of a snapshot says of the configuration, if that
// is not the first.
func snapshotWords(c Config) string {
	if c.Index == 0 {
		return ""
	}
	return fmt.Sprintf(" of %s since %d", configWords(c), c.Index)
}

func requestWords(m RequestVote) string {
	last := fmt.Sprintf("my log ends in %d@%d", m.LastLogTerm, m.LastLogIndex)
	switch {
	case m.PreVote:
		return "would you vote for me? " + last
	case m.Transfer:
		return last + ", and the leader wants it"
	}
	return last
}

func voteWords(m RequestVoteReply) string {
	switch {
	case m.Removed:
		return "you are no longer a member"
	case m.Granted && m.PreVote:
		return "I would"
	case m.Granted:
		return "yes"
	}
	return "no"
}

// changeCommand has the commands about the members:
//
//	first n1 n2 n3      begins again: those are the first members, the others may join
//	change n1 n2 n3 n4  n1 changes the members to n2, n3 and n4; to those there are calls a change off
//	transfer n1 n2      n1 should transfer its leadership to n2
//	silence n1 [n2]     n1 has heard nothing from its leader, or a leader from anybody, or from n2, for an election timeout
//	members             shows by which configuration each server goes
func changeCommand(s *script, name string, args []string) (bool, error) {
	if !slices.Contains([]string{"first", "change", "transfer", "silence", "members"}, name) {
		return false, nil
	}
	var named []*server
	var ids []ID
	for _, arg := range args {
		server, err := s.Named(arg)
		if err != nil {
			return true, err
		}
		named, ids = append(named, server), append(ids, ID(server.ID))
	}
	switch {
	case name == "first":
		for _, server := range s.Servers {
			server.Stage.joins = !slices.Contains(ids, ID(server.ID))
		}
		for _, server := range s.Servers {
			s.Start(server)
		}
	case name == "members":
		for _, server := range s.Servers {
			s.Print(rules.Effect + membersWords(s, server))
		}
	case len(named) == 0 || named[0].Raft == nil:
		return true, fmt.Errorf("no server is up that could do that")
	case name == "change":
		change(s.Cluster, named[0], ids[1:])
	case name == "transfer" && len(ids) == 2:
		transfer(s.Cluster, named[0], ids[1])
	case name == "silence":
		named[0].Raft.silence(ids[1:]...)
	default:
		return true, fmt.Errorf("%s %s is not understood", name, strings.Join(args, " "))
	}
	return true, nil
}

func membersWords(s *script, server *server) string {
	if server.Raft == nil {
		return fmt.Sprintf("%v  is down", server.ID)
	}
	c := server.Raft.config()
	words := fmt.Sprintf("%v  %s", server.ID, configWords(c))
	switch {
	case len(c.Voters) == 0:
		words = fmt.Sprintf("%v  knows of no members", server.ID)
	case c.Index > server.Raft.commitIndex:
		words += fmt.Sprintf(", by entry %d, which it does not know to be committed", c.Index)
	case c.Index > 0:
		words += fmt.Sprintf(", by entry %d", c.Index)
	}
	if server.Raft.removed {
		words += "; a leader has said that it is no member"
	}
	return words
}

// changeStep is a random step about the members: a change, its end, or a transfer
// of leadership, usually at a leader. Or somebody starts an election that nobody needs
// and who does not ask first, so that logs part.
func changeStep(w *world, s *server) {
	for _, l := range w.Servers {
		if l.Leads() && w.Rand.IntN(4) > 0 {
			s = l
		}
	}
	if s.Raft == nil {
		return
	}
	switch x := w.Rand.IntN(10); {
	case x < 3:
		transfer(w.Cluster, s, ID(w.Servers[w.Rand.IntN(len(w.Servers))].ID))
	case x < 4:
		change(w.Cluster, s, s.Raft.config().Voters)
	case x < 5:
		timeoutNow(w.Cluster, w.Servers[w.Rand.IntN(len(w.Servers))])
	default:
		var next []ID
		for _, other := range w.Servers {
			if w.Rand.IntN(2) == 0 {
				next = append(next, ID(other.ID))
			}
		}
		if len(next) > 0 {
			change(w.Cluster, s, next)
		}
	}
}

// addJoiners draws whether the members change, and says that the servers behind the
// first n may join later.
func addJoiners(w *world, n int) {
	w.Changes = w.Rand.IntN(3) > 0
	for _, s := range w.Servers[n:] {
		s.Stage.joins = true
	}
}

// deciding returns the members, as the newest leader sees them; nobody if there is
// none, or if a change is under way.
func deciding(w *world) (members []*server) {
	var leader *Raft
	for _, s := range w.Servers {
		if r := s.Raft; r.role == Leader && (leader == nil || r.currentTerm > leader.currentTerm) {
			leader = r
		}
	}
	if leader == nil || len(leader.config().Next) > 0 || !leader.config().IsVoter(leader.options.ID) {
		return nil
	}
	for _, id := range leader.config().Voters {
		members = append(members, w.Server(rules.ID(id)))
	}
	return members
}

// nobodyDisturbs goes on for a while after all is well: the leader stays, though
// servers are there that are no members any longer. Those that could ask it have
// heard of it.
func nobodyDisturbs(w *world) {
	before := deciding(w)
	var leader *Raft
	for _, s := range before {
		if s.Raft.role == Leader {
			leader = s.Raft
		}
	}
	term := leader.currentTerm
	for range 100 {
		for _, s := range w.Servers {
			w.Input(s, (*Raft).Tick)
		}
		w.Settle()
	}
	if leader.role != Leader || leader.currentTerm != term {
		w.Broken("Undisturbed", "%v led term %d undisturbed, and no longer does", leader.options.ID, term)
	}
	for _, s := range w.Servers {
		if r := s.Raft; !slices.Contains(before, s) && r.mayCampaign() && slices.Contains(r.config().Members(), leader.options.ID) {
			w.Broken("Undisturbed", "%v is no member, and goes on asking", s.ID)
		}
	}
}
