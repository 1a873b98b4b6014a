package server

import (
	"slices"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// status describes this server.
func (s *Server) status() api.ServerStatus {
	status := s.rules.Status()
	to := api.ServerStatus{
		ID:      s.world.ID,
		Role:    string(status.Role),
		Term:    uint64(status.CurrentTerm),
		Leader:  uint64(status.Leader),
		Last:    uint64(status.Last),
		Commit:  uint64(status.Commit),
		Applied: uint64(status.Applied),
	}
	to.Snapshot = uint64(status.Snapshot.Index)
	s.addReady(&to)
	s.machine.addStatus(&to)
	s.addMembership(&to)
	return to
}

// log answers with the entries from an index on, as many as fit on a page; 0 is the
// first that the log has. A client asks again from the index after the last it has.
func (s *Server) log(r api.Request) api.Response {
	from := raft.Index(r.From)
	base, _ := s.rules.Saved()
	if from != 0 && from <= base.Index {
		return api.Failed(r.ID, api.CompactedLog(uint64(base.Index)))
	}
	status := s.rules.Status()
	p := journal.Page{First: uint64(base.Index) + 1, Last: uint64(status.Last), Commit: uint64(status.Commit)}
	for i := max(from, base.Index+1); i <= status.Last && p.Add(toJournal(s.rules.Entry(i))); i++ {
	}
	return api.Response{ID: r.ID, Later: p.AppendJSON}
}

// Inspect lets a checker look inside; see node.Inspector.
func (s *Server) Inspect(to *node.State) {
	status := s.rules.Status()
	*to = node.State{
		ID:       s.world.ID,
		Role:     node.Role(status.Role),
		Term:     uint64(status.CurrentTerm),
		Leader:   uint64(status.Leader),
		Vote:     uint64(status.VotedFor),
		Last:     uint64(status.Last),
		Commit:   uint64(status.Commit),
		Applied:  uint64(status.Applied),
		Config:   node.Voters{Now: to.Config.Now[:0], Next: to.Config.Next[:0], Learners: to.Config.Learners[:0]},
		Base:     node.Voters{Now: to.Base.Now[:0], Next: to.Base.Next[:0], Learners: to.Base.Learners[:0]},
		Votes:    to.Votes[:0],
		Progress: to.Progress[:0],
	}
	base, _ := s.rules.Saved()
	to.SnapIndex, to.SnapTerm = uint64(base.Index), uint64(base.Term)
	if status.Role != raft.Leader {
		to.Elapsed, to.Timeout = uint64(status.Elapsed), uint64(status.Timeout)
	}
	for _, id := range status.Votes {
		to.Votes = append(to.Votes, uint64(id))
	}
	slices.Sort(to.Votes)
	c := s.config()
	inspectConfig(c, &to.Config)
	for _, id := range c.Members() {
		if match, next := s.rules.Progress(id); next != 0 && uint64(id) != s.world.ID {
			to.Progress = append(to.Progress, node.Progress{ID: uint64(id), Next: uint64(next), Match: uint64(match)})
		}
	}
	inspectConfig(s.rules.Config(base.Index), &to.Base)
}

func inspectConfig(c raft.Config, to *node.Voters) {
	for _, id := range c.Voters {
		to.Now = append(to.Now, uint64(id))
	}
	for _, id := range c.Next {
		switch {
		case c.Joint:
			to.Next = append(to.Next, uint64(id))
		case !slices.Contains(c.Voters, id):
			to.Learners = append(to.Learners, uint64(id))
		}
	}
}

// Entry returns an entry of the log; see node.Inspector.
func (s *Server) Entry(index uint64) node.Entry {
	e := s.rules.Entry(raft.Index(index))
	if e.Config == nil {
		return node.Entry{Term: uint64(e.Term), Data: e.Command}
	}
	var voters node.Voters
	inspectConfig(*e.Config, &voters)
	return node.Entry{Term: uint64(e.Term), Data: toJournal(e).Command, Config: &voters}
}

// StateHash sums up the state machine; see node.Hasher.
func (s *Server) StateHash() uint64 { return s.machine.hash() }

// Store returns the store; see node.StoreHolder.
func (s *Server) Store() *kv.Store { return s.machine.held() }

// Session returns what is remembered about a session; see node.SessionHolder.
func (s *Server) Session(id uint64) (node.Session, bool) { return s.machine.session(id) }

// Sessions returns the numbers of all sessions; see node.SessionHolder.
func (s *Server) Sessions() []uint64 { return s.machine.numbers() }
