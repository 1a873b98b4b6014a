package server

import (
	"slices"

	"example.com/raftsteps/05-election/raft"
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
	s.addReady(&to)
	s.machine.addStatus(&to)
	return to
}

// log answers with the entries from an index on, as many as fit on a page; 0 is the
// first that the log has. A client asks again from the index after the last it has.
func (s *Server) log(r api.Request) api.Response {
	from := raft.Index(r.From)
	status := s.rules.Status()
	p := journal.Page{First: 1, Last: uint64(status.Last), Commit: uint64(status.Commit)}
	for i := max(from, 1); i <= status.Last && p.Add(toJournal(s.rules.Entry(i))); i++ {
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
		Config:   node.Voters{Now: to.Config.Now[:0]},
		Votes:    to.Votes[:0],
		Progress: to.Progress[:0],
	}
	if status.Role != raft.Leader {
		to.Elapsed, to.Timeout = uint64(status.Elapsed), uint64(status.Timeout)
	}
	for _, id := range status.Votes {
		to.Votes = append(to.Votes, uint64(id))
	}
	slices.Sort(to.Votes)
	for _, m := range s.world.Config.Members {
		to.Config.Now = append(to.Config.Now, m.ID)
		if match, next := s.rules.Progress(raft.ID(m.ID)); next != 0 && m.ID != s.world.ID {
			to.Progress = append(to.Progress, node.Progress{ID: m.ID, Next: uint64(next), Match: uint64(match)})
		}
	}
}

// Entry returns an entry of the log; see node.Inspector.
func (s *Server) Entry(index uint64) node.Entry {
	e := s.rules.Entry(raft.Index(index))
	return node.Entry{Term: uint64(e.Term), Data: e.Command}
}

// StateHash sums up the state machine; see node.Hasher.
func (s *Server) StateHash() uint64 { return s.machine.hash() }

// Store returns the store; see node.StoreHolder.
func (s *Server) Store() *kv.Store { return s.machine.store }

// Session returns what is remembered about a session; see node.SessionHolder.
func (s *Server) Session(id uint64) (node.Session, bool) { return s.machine.session(id) }

// Sessions returns the numbers of all sessions; see node.SessionHolder.
func (s *Server) Sessions() []uint64 { return s.machine.numbers() }
