package server

import (
	"fmt"

	"example.com/raftsteps/04-smart-client/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// notLeader is the error for a command that was not proposed.
func (s *Server) notLeader() *api.Error {
	status := s.rules.Status()
	if status.Leader == 0 {
		return &api.Error{Code: api.NotLeader, Definite: true,
			Message: fmt.Sprintf("%s does not lead and has heard of no leader in term %d", node.Name(s.world.ID), status.CurrentTerm)}
	}
	address := s.leader()
	return &api.Error{Code: api.NotLeader, Leader: address, Definite: true,
		Message: fmt.Sprintf("%s is a follower; %v at %s leads term %d and takes the writes", node.Name(s.world.ID), status.Leader, address, status.CurrentTerm)}
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
	return s.world.Config.Address(uint64(s.rules.Status().Leader))
}

// cannotApply is fatal: other servers may have carried the command out. No server
// takes such an entry from a peer, so an older version has written it.
func (s *Server) cannotApply(e raft.Entry, why error) error {
	return fmt.Errorf("%s cannot apply entry %d, which is committed, and stops at it after every restart: %w; start the version of the program that wrote it",
		node.Name(s.world.ID), e.Index, why)
}
