package raft

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What the tests have of changes of the members: invariants, words, commands of
// scripts, and random steps.

// configs returns the configurations that a server starts with: the one at the
// beginning of its log, and the one at the end of its snapshot. A server that is
// to join knows none.
func (s *server) configs(members []ID) (config, covers Config) {
	if !s.stage.joins {
		config.Voters = members
	}
	covers = config
	if s.disk.base.Index > 0 {
		config = s.disk.config
	}
	if len(s.disk.snapshot) > 0 {
		covers = s.disk.covers
	}
	return config, covers
}

// configAt returns the configuration that is in force behind some entries.
func (c *cluster) configAt(entries []Entry) Config {
	for _, e := range slices.Backward(entries) {
		if e.Config != nil {
			return *e.Config
		}
	}
	return Config{Voters: c.members()}
}

func (c *cluster) committedConfig(at Index) Config {
	for _, k := range slices.Backward(c.ghost.committed[:at]) {
		if k.entry.Config != nil {
			return *k.entry.Config
		}
	}
	return Config{Voters: c.members()}
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
func (c *cluster) checkConfig(s *server) {
	r, seen := s.raft, &s.stage.changes
	if r.removed && !seen.removed {
		c.counts["told of its removal"]++
	}
	seen.removed = r.removed
	base := r.Position(r.log.base())
	if seen.base == base && seen.last == r.last() {
		return
	}
	in := r.config()
	if in.Index < seen.newest {
		c.counts["change rolled back"]++
	}
	seen.base, seen.last, seen.newest = base, r.last(), in.Index
	want := in
	before, has := s.newestConfig(r.log.base())
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
		if i := int(e.Index) - 1; i >= len(c.ghost.committed) || !sameEntry(c.ghost.committed[i].entry, e) {
			open++
		}
	}
	if !has && !(s.stage.joins && len(in.Voters) == 0) {
		want = Config{Voters: c.members()}
	}
	if !sameConfig(&in, &want) {
		c.broken(configTrue, "%v goes by %s, and its log says %s", s.id, configWords(in), configWords(want))
	}
	if open > 1 {
		c.broken(configStep, "the log of %v has %d configurations that are not committed", s.id, open)
	}
	for i := 1; i < len(configs); i++ {
		c.checkStep(configs[i-1], configs[i])
	}
	c.checkKnown(s)
}

// checkKnown: a server whose vote counts knows the voters, so none refuses its
// vote because it does not.
func (c *cluster) checkKnown(s *server) {
	in := s.raft.config()
	for _, id := range in.Members() {
		voter := c.server(id)
		knows := !voter.stage.joins || slices.ContainsFunc(voter.disk.all(), func(e Entry) bool { return e.Config != nil })
		if in.IsVoter(id) && !knows {
			c.broken(votersKnown, "%v goes by %s, and %v knows no voters", s.id, configWords(in), id)
		}
	}
}

// newestConfig returns the configuration that the entries before a server's log
// leave, if one of them has any.
func (s *server) newestConfig(base Index) (Config, bool) {
	for _, e := range slices.Backward(s.disk.snapshot[:min(int(base), len(s.disk.snapshot))]) {
		if e.Config != nil {
			return *e.Config, true
		}
	}
	return Config{}, false
}

// checkStep looks at two configurations that follow each other.
func (c *cluster) checkStep(a, b Config) {
	if !follows(a, b) {
		c.broken(configStep, "%s follows %s", configWords(b), configWords(a))
	}
	key := configWords(a) + configWords(b)
	if !c.ghost.neighbours[key] && !overlap(a, b) {
		c.broken(configOverlap, "%s and %s can decide without each other", configWords(a), configWords(b))
	}
	c.ghost.neighbours[key] = true
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
func (c *cluster) checkAppended(s *server, out Output) {
	r := s.raft
	for _, e := range out.Append {
		if e.Config == nil || e.Term != r.currentTerm || c.ghost.leaders[e.Term] != s.id {
			continue
		}
		before := r.log.config(e.Index - 1)
		if before.Index > r.commitIndex || r.log.term(r.commitIndex) != e.Term {
			c.broken(configStep, "%v appends %s to %s when %v is committed", s.id, entryWords(e), configWords(before), r.Position(r.commitIndex))
		}
	}
	for _, why := range out.Reasons {
		if why.Rule == Elected && why.Term == r.currentTerm && !quorum(r.config(), func(id ID) bool { return slices.Contains(why.Votes, id) }) {
			c.broken(candidateVotes, "%v is elected in %s by %v", s.id, configWords(r.config()), why.Votes)
		}
	}
	for _, m := range out.Messages {
		if _, is := m.Body.(TimeoutNow); is && !r.config().IsVoter(s.id) {
			c.counts["leader left"]++
		}
	}
}

// change asks a server to change the voters, or to call a change off. It may take
// that on if it leads and knows what is committed, its last configuration among
// it, and no other change is under way.
func (c *cluster) change(s *server, next []ID) {
	c.input(s, func(r *Raft) {
		now := r.config()
		known := r.role == Leader && now.Index <= r.commitIndex && r.log.term(r.commitIndex) == r.currentTerm
		idle := len(now.Next) == 0 || !now.Joint && slices.Equal(next, now.Voters)
		index, term, err := r.Change(next, nil)
		switch {
		case err == nil && !(known && idle):
			c.broken(configStep, "%v begins a change by entry %d when %v is committed, and it goes by %s", s.id, index, r.Position(r.commitIndex), configWords(now))
		case err == nil && term != r.currentTerm:
			c.broken(configStep, "%v leads term %d and changes the members in term %d", s.id, r.currentTerm, term)
		case err != nil:
			c.counts["change refused"]++
			c.say(func() string { return fmt.Sprintf(effect+"%v does not change the members: %v", s.id, err) })
		}
	})
}

// transfer asks a leader to transfer its leadership.
func (c *cluster) transfer(s *server, to ID) {
	c.input(s, func(r *Raft) {
		if err := r.Transfer(to); err != nil {
			c.say(func() string { return fmt.Sprintf(effect+"%v does not transfer its leadership: %v", s.id, err) })
			return
		}
		c.counts["transfer begun"]++
	})
}

// ask lets time pass on a server until it asks who would vote for it.
func (c *cluster) ask(s *server) error {
	before := c.counts[Asks.Code]
	for range s.raft.options.ElectionTicks[1] + 1 {
		c.input(s, (*Raft).Tick)
		if c.counts[Asks.Code] != before {
			return nil
		}
	}
	return fmt.Errorf("%v does not ask for votes", s.id)
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
func (s *script) changeCommand(name string, args []string) (bool, error) {
	if !slices.Contains([]string{"first", "change", "transfer", "silence", "members"}, name) {
		return false, nil
	}
	var named []*server
	var ids []ID
	for _, arg := range args {
		server, err := s.named(arg)
		if err != nil {
			return true, err
		}
		named, ids = append(named, server), append(ids, server.id)
	}
	switch {
	case name == "first":
		for _, server := range s.servers {
			server.stage.joins = !slices.Contains(ids, server.id)
		}
		for _, server := range s.servers {
			s.start(server)
		}
	case name == "members":
		for _, server := range s.servers {
			s.print(effect + s.membersWords(server))
		}
	case len(named) == 0 || named[0].raft == nil:
		return true, fmt.Errorf("no server is up that could do that")
	case name == "change":
		s.change(named[0], ids[1:])
	case name == "transfer" && len(ids) == 2:
		s.transfer(named[0], ids[1])
	case name == "silence":
		named[0].raft.silence(ids[1:]...)
	default:
		return true, fmt.Errorf("%s %s is not understood", name, strings.Join(args, " "))
	}
	return true, nil
}

func (s *script) membersWords(server *server) string {
	if server.raft == nil {
		return fmt.Sprintf("%v  is down", server.id)
	}
	c := server.raft.config()
	words := fmt.Sprintf("%v  %s", server.id, configWords(c))
	switch {
	case len(c.Voters) == 0:
		words = fmt.Sprintf("%v  knows of no members", server.id)
	case c.Index > server.raft.commitIndex:
		words += fmt.Sprintf(", by entry %d, which it does not know to be committed", c.Index)
	case c.Index > 0:
		words += fmt.Sprintf(", by entry %d", c.Index)
	}
	if server.raft.removed {
		words += "; a leader has said that it is no member"
	}
	return words
}

// changeStep is a random step about the members: a change, its end, or a transfer
// of leadership, usually at a leader. Or somebody starts an election that nobody needs
// and who does not ask first, so that logs part.
func (w *world) changeStep(s *server) {
	for _, l := range w.servers {
		if l.raft != nil && l.raft.role == Leader && w.rand.IntN(4) > 0 {
			s = l
		}
	}
	if s.raft == nil {
		return
	}
	switch x := w.rand.IntN(10); {
	case x < 3:
		w.transfer(s, w.servers[w.rand.IntN(len(w.servers))].id)
	case x < 4:
		w.change(s, s.raft.config().Voters)
	case x < 5:
		w.timeoutNow(w.servers[w.rand.IntN(len(w.servers))])
	default:
		var next []ID
		for _, other := range w.servers {
			if w.rand.IntN(2) == 0 {
				next = append(next, other.id)
			}
		}
		if len(next) > 0 {
			w.change(s, next)
		}
	}
}

// addJoiners says that the servers behind the first n may join later.
func (w *world) addJoiners(n int) {
	for _, s := range w.servers[n:] {
		s.stage.joins = true
	}
}

// deciding returns the members, as the newest leader sees them; nobody if there is
// none, or if a change is under way.
func (w *world) deciding() (members []*server) {
	var leader *Raft
	for _, s := range w.servers {
		if r := s.raft; r.role == Leader && (leader == nil || r.currentTerm > leader.currentTerm) {
			leader = r
		}
	}
	if leader == nil || len(leader.config().Next) > 0 || !leader.config().IsVoter(leader.options.ID) {
		return nil
	}
	for _, id := range leader.config().Voters {
		members = append(members, w.server(id))
	}
	return members
}

// nobodyDisturbs goes on for a while after all is well: the leader stays, though
// servers are there that are no members any longer. Those that could ask it have
// heard of it.
func (w *world) nobodyDisturbs() {
	before := w.deciding()
	var leader *Raft
	for _, s := range before {
		if s.raft.role == Leader {
			leader = s.raft
		}
	}
	term := leader.currentTerm
	for range 100 {
		for _, s := range w.servers {
			w.input(s, (*Raft).Tick)
		}
		w.settle()
	}
	if leader.role != Leader || leader.currentTerm != term {
		w.broken("Undisturbed", "%v led term %d undisturbed, and no longer does", leader.options.ID, term)
	}
	for _, s := range w.servers {
		if r := s.raft; !slices.Contains(before, s) && r.mayCampaign() && slices.Contains(r.config().Members(), leader.options.ID) {
			w.broken("Undisturbed", "%v is no member, and goes on asking", s.id)
		}
	}
}
