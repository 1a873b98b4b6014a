package server

import (
	"fmt"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// notLeader is the error for a command that was not proposed. The rules refuse it with
// one error; a leader gets that only while it transfers its leadership.
func (s *Server) notLeader() *api.Error {
	status := s.rules.Status()
	switch {
	case status.Role == raft.Leader:
		return &api.Error{Code: api.Busy, Definite: true,
			Message: fmt.Sprintf("%s is transferring its leadership to another server", node.Name(s.world.ID))}
	case status.Removed:
		return s.gone()
	case s.joinsLater():
		return s.notJoined()
	case status.Leader == 0:
		return &api.Error{Code: api.NotLeader, Definite: true,
			Message: fmt.Sprintf("%s does not lead and has heard of no leader in term %d", node.Name(s.world.ID), status.CurrentTerm)}
	case s.leader() == "":
		return &api.Error{Code: api.NotLeader, Definite: true,
			Message: fmt.Sprintf("%s is a follower; %v leads term %d, and this server has not heard yet at which address", node.Name(s.world.ID), status.Leader, status.CurrentTerm)}
	}
	address := s.leader()
	return &api.Error{Code: api.NotLeader, Leader: address, Definite: true,
		Message: fmt.Sprintf("%s is a follower; %v at %s leads term %d and takes the writes", node.Name(s.world.ID), status.Leader, address, status.CurrentTerm)}
}

// gone is the error for requests to a server that is no longer a member.
func (s *Server) gone() *api.Error {
	return &api.Error{Code: api.NotLeader, Definite: true,
		Message: fmt.Sprintf("%s is no longer a member of the cluster; ask another server", node.Name(s.world.ID))}
}

// joinsLater reports whether this server was started to join a cluster, knows
// no member yet and hears from no leader: it cannot ask any server.
func (s *Server) joinsLater() bool {
	return len(s.config().Voters) == 0 && s.rules.Status().Leader == 0
}

// notJoined is the error for requests to a server that is not a member yet.
func (s *Server) notJoined() *api.Error {
	return &api.Error{Code: api.NotLeader, Definite: true,
		Message: fmt.Sprintf("%s is not a member of a cluster yet; add it to one, or ask a member", node.Name(s.world.ID))}
}

// overwritten is definite: another entry was committed at the command's index.
func (s *Server) overwritten(e raft.Entry) *api.Error {
	return &api.Error{Code: api.NotLeader, Leader: s.leader(), Definite: true,
		Message: fmt.Sprintf("the leader of term %d has put another command in its place", e.Term)}
}

// deposed is not definite: other servers may hold the command, and the next
// leader may commit it.
func (s *Server) deposed() *api.Error {
	return &api.Error{Code: api.Unknown, Leader: s.leader(),
		Message: fmt.Sprintf("%s lost its leadership before a majority had the command", node.Name(s.world.ID))}
}

// leader returns the address of the leader, or "".
func (s *Server) leader() string {
	c := s.config()
	return c.Addresses[s.rules.Status().Leader]
}

// cannotApply is fatal: other servers may have carried the command out. No server
// takes such an entry from a peer, so an older version has written it.
func (s *Server) cannotApply(e raft.Entry, why error) error {
	return fmt.Errorf("%s cannot apply entry %d, which is committed, and stops at it after every restart: %w; start the version of the program that wrote it, or replace this server by a new one",
		node.Name(s.world.ID), e.Index, why)
}
