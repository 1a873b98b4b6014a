package server

import (
	"fmt"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// heard is what a server knows of its leader's log.
type heard struct {
	// commit is what was committed when the server first heard the leader; known is
	// false until then.
	commit raft.Index
	known  bool
}

// hear notes how much was committed when this server first heard its leader. A
// leader that it has lost and finds again counts as a new one.
func (s *Server) hear(m raft.Message) {
	status := s.rules.Status()
	if m.From != status.Leader {
		return
	}
	if s.announced.leader != status.Leader || s.announced.term != status.CurrentTerm {
		s.heard = heard{}
	}
	if a, ok := m.Body.(raft.AppendEntries); ok && !s.heard.known {
		s.heard = heard{a.LeaderCommit, true}
	}
}

// unready says why clients should use another server, or "": this one knows no
// leader, or has not applied all that was committed when it first heard its
// leader. A leader knows what is committed only once an entry of its own term
// is (§8). A server that does not vote is not ready either.
func (s *Server) unready() string {
	status, name := s.rules.Status(), node.Name(s.world.ID)
	switch {
	case status.Leader == 0:
		return name + " knows no leader"
	case !s.config().IsVoter(raft.ID(s.world.ID)):
		return name + " is not a voter"
	case status.Role != raft.Leader && !s.heard.known:
		return fmt.Sprintf("%s has not heard from %s how much is committed", name, status.Leader)
	case status.Role != raft.Leader && status.Applied < s.heard.commit:
		return fmt.Sprintf("%s has applied %d of the %d entries that were committed when it first heard %s", name, status.Applied, s.heard.commit, status.Leader)
	case s.rules.Entry(status.Applied).Term < status.CurrentTerm:
		return fmt.Sprintf("%s has applied %d entries, and waits for the first committed entry of term %d", name, status.Applied, status.CurrentTerm)
	}
	return ""
}

// addReady adds to a status whether clients should come here.
func (s *Server) addReady(to *api.ServerStatus) {
	to.Unready = s.unready()
	to.Ready = new(to.Unready == "")
}
