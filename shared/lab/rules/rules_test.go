package rules

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// entry and message are the types of a stage that has nothing but a log.
type entry struct {
	at      Position
	command string
}

func (e entry) Place() Position   { return e.at }
func (e entry) Payload() []byte   { return []byte(e.command) }
func (e entry) KindWords() string { return "" }
func (e entry) Same(o entry) bool { return e == o }
func entries(terms ...uint64) []entry {
	var log []entry
	for i, t := range terms {
		log = append(log, entry{Position{t, uint64(i + 1)}, "x"})
	}
	return log
}

type message struct {
	head  Head
	body  *Append[entry]
	reply *AppendReply
}

func (m message) Head() Head        { return m.head }
func (m message) BodyWords() string { return "nothing" }
func (m message) Append() (a Append[entry], is bool) {
	if m.body != nil {
		a, is = *m.body, true
	}
	return a, is
}
func (m message) AppendReply() (a AppendReply, is bool) {
	if m.reply != nil {
		a, is = *m.reply, true
	}
	return a, is
}

// puppet is a server that believes what a test tells it.
type puppet struct {
	view        View
	log         []entry
	match, next map[ID]uint64
}

func (p *puppet) Step(message)                  {}
func (p *puppet) Tick()                         {}
func (p *puppet) View() View                    { return p.view }
func (p *puppet) LogEntries() []entry           { return p.log }
func (p *puppet) Believed() (Position, []entry) { return p.view.Base, p.log }
func (p *puppet) ConfigAt(uint64) any           { return nil }
func (p *puppet) Followers() []ID               { return []ID{1, 2, 3} }
func (p *puppet) NextFor(id ID) (match, next uint64) {
	return p.match[id], max(p.next[id], p.match[id]+1)
}
func (p *puppet) NextOutput() (o Output[entry, message], is bool) { return o, false }
func (p *puppet) ProposeCommand([]byte) error                     { return nil }

type puppets = Cluster[*puppet, entry, message, struct{}]

// stable is a cluster of three in term 2: n1 leads, all have the same two entries,
// and the second is committed.
func stable(t *testing.T) (c *puppets, broken func() []string) {
	c = newCluster(&Stage[*puppet, entry, message, struct{}]{}, 3)
	var names []string
	c.Broken = func(name, format string, args ...any) {
		t.Logf(name+": "+format, args...)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, s := range c.Servers {
		s.Raft = &puppet{match: map[ID]uint64{1: 2, 2: 2, 3: 2}, next: map[ID]uint64{}}
		s.Raft.view = View{ID: s.ID, Leads: s.ID == 1, Leader: 1, State: State{CurrentTerm: 2}, Commit: 2, Applied: 2}
		set(s, 1, 2)
		s.Applied = entries(1, 2)
	}
	c.Ghost.Leaders[2] = 1
	for _, e := range entries(1, 2) {
		c.Ghost.Committed = append(c.Ghost.Committed, Committed[entry]{e, 2})
	}
	return c, func() []string { return names }
}

// set gives a server a log, in memory and on its disk, and its term.
func set(s *Server[*puppet, entry, message, struct{}], terms ...uint64) {
	s.Raft.log = entries(terms...)
	s.Raft.view.Last = lastOf(s.Raft.log)
	s.Disk.State, s.Disk.Log = s.Raft.view.State, s.Raft.log
	s.Disk.Changed()
}

// look looks at all servers, as the cluster does after each output.
func look(c *puppets) {
	for _, s := range c.Servers {
		c.check(s, c.checkCommit(s))
	}
}

// Each invariant objects to what it forbids. The explorer, the random runs and the
// scripts rest on them: one that never objects would let every mistake pass.
func TestInvariantsObject(t *testing.T) {
	tests := map[string]struct {
		plant func(c *puppets)
		want  []string
	}{
		"nothing is wrong": {func(*puppets) {}, nil},
		"two leaders in one term": {func(c *puppets) {
			c.Server(2).Raft.view.Leads = true
		}, []string{ElectionSafety}},
		"entries from somebody who does not lead": {func(c *puppets) {
			c.checkMessage(c.Server(3), message{head: Head{From: 3, To: 2, Term: 2}, body: &Append[entry]{}})
		}, []string{ElectionSafety}},
		"a leader that changes its log": {func(c *puppets) {
			look(c)
			set(c.Server(1), 1, 2, 2)
			look(c)
			set(c.Server(1), 1, 2)
		}, []string{LeaderAppendOnly}},
		"two logs that differ before an entry of the same term": {func(c *puppets) {
			c.Server(3).Raft.view.State.CurrentTerm = 3
			set(c.Server(3), 1, 2, 3)
			c.Server(2).Raft.view.State.CurrentTerm = 3
			set(c.Server(2), 1, 2, 3)
			c.Server(2).Disk.Log = slices.Clone(c.Server(2).Disk.Log)
			c.Server(2).Disk.Log[2].command = "y"
			c.Server(2).Disk.Changed()
			c.Server(2).Raft.log = c.Server(2).Disk.Log
		}, []string{LogMatching}},
		"a leader that lacks what is committed": {func(c *puppets) {
			c.Server(1).Raft.view.Leads = false
			c.Server(3).Raft.view = View{ID: 3, Leads: true, State: State{CurrentTerm: 3}}
			c.Server(3).Raft.match = map[ID]uint64{}
			c.Server(3).seen = seen[entry]{}
			set(c.Server(3), 1)
		}, []string{LeaderCompleteness}},
		"another entry is applied than was committed": {func(c *puppets) {
			c.Server(2).Applied = entries(1)
			c.checkApply(c.Server(2), entry{Position{2, 2}, "y"})
		}, []string{StateMachineSafety}},
		"an entry is left out": {func(c *puppets) {
			c.Server(2).Applied = nil
			c.checkApply(c.Server(2), entries(1, 2)[1])
		}, []string{StateMachineSafety}},
		"terms that fall": {func(c *puppets) {
			set(c.Server(3), 1, 2, 1)
		}, []string{LogShape}},
		"a term that goes back": {func(c *puppets) {
			look(c)
			c.Server(3).Raft.view.State.CurrentTerm = 1
			c.Server(3).Disk.State.CurrentTerm = 1
			c.Server(3).Raft.view.Commit, c.Server(3).Raft.view.Applied = 0, 0
			set(c.Server(3), 1)
		}, []string{Monotone}},
		"more applied than committed": {func(c *puppets) {
			c.Server(2).Raft.view.Applied = 3
		}, []string{Order}},
		"a commit that no leader has made": {func(c *puppets) {
			set(c.Server(1), 1, 2, 2)
			set(c.Server(2), 1, 2, 2)
			c.Server(2).Raft.view.Commit = 3
		}, []string{Order}},
		"a belief that is not on disk": {func(c *puppets) {
			c.Server(2).Raft.view.State.VotedFor = 1
		}, []string{AllSaved}},
		"an acknowledgment before the fsync": {func(c *puppets) {
			set(c.Server(1), 1, 2, 2)
			c.checkMessage(c.Server(2), message{head: Head{From: 2, To: 1, Term: 2}, reply: &AppendReply{Success: true, MatchIndex: 3}})
		}, []string{SavedFirst}},
		"a message of a term that is not on disk": {func(c *puppets) {
			c.checkMessage(c.Server(2), message{head: Head{From: 2, To: 1, Term: 3}, reply: &AppendReply{}})
		}, []string{SavedFirst}},
		"a commit that is on too few disks": {func(c *puppets) {
			set(c.Server(1), 1, 2, 2)
			c.Server(1).Raft.view.Commit = 3
		}, []string{CommitRule, QuorumLog}},
		"a commit of an older term by counting": {func(c *puppets) {
			c.Ghost.Committed, c.Ghost.Leaders[3] = nil, 1
			for _, s := range c.Servers {
				s.seen = seen[entry]{}
				s.Raft.view.State.CurrentTerm, s.Raft.view.Commit, s.Raft.view.Applied = 3, 0, 0
				set(s, 1, 2)
			}
			c.Server(1).Raft.view.Commit = 2
		}, []string{CommitRule}},
		"a majority lacks what is committed": {func(c *puppets) {
			for _, id := range []ID{2, 3} {
				c.Server(id).Raft.view.Commit, c.Server(id).Raft.view.Applied = 0, 0
				c.Server(id).seen = seen[entry]{log: entries(1, 2)}
				set(c.Server(id), 1)
				c.Server(1).Raft.match[id] = 1
			}
		}, []string{QuorumLog}},
		"a newer log without what is committed": {func(c *puppets) {
			c.Server(3).seen = seen[entry]{}
			c.Server(3).Raft.view = View{ID: 3, State: State{CurrentTerm: 3}}
			set(c.Server(3), 1, 3)
		}, []string{UpToDate}},
		"a leader that believes in entries that a follower lacks": {func(c *puppets) {
			set(c.Server(1), 1, 2, 2)
			c.Server(1).Raft.match[2] = 3
		}, []string{ProgressTrue}},
		"a follower that has more of the term than its leader": {func(c *puppets) {
			set(c.Server(2), 1, 2, 2)
		}, []string{LeaderHasLast}},
	}
	named := map[string]bool{}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, broken := stable(t)
			look(c)
			require.Empty(t, broken())
			tt.plant(c)
			look(c)
			require.ElementsMatch(t, tt.want, broken())
		})
		for _, w := range tt.want {
			named[w] = true
		}
	}
	for _, name := range []string{ElectionSafety, LeaderAppendOnly, LogMatching, LeaderCompleteness, StateMachineSafety, LogShape, Monotone, Order, AllSaved, SavedFirst, CommitRule, QuorumLog, UpToDate, ProgressTrue, LeaderHasLast} {
		require.True(t, named[name], "no case breaks %s", name)
	}
}
