package server

import (
	"fmt"

	"example.com/raftsteps/02-naive-replication/naive"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// notLeader is the error for a command that was not proposed.
func (s *Server) notLeader() *api.Error {
	leader := uint64(s.rules.Leader())
	address := s.world.Config.Address(leader)
	return &api.Error{Code: api.NotLeader, Leader: address, Definite: true,
		Message: fmt.Sprintf("%s is a follower; %s at %s leads and takes the writes", node.Name(s.world.ID), node.Name(leader), address)}
}

// noMajority is not definite: the followers that did answer have applied the
// write, and the leader has no way to take it back.
func (s *Server) noMajority(r naive.Refusal) *api.Error {
	return &api.Error{Code: api.Unknown,
		Message: fmt.Sprintf("only %d of %d followers have written it within %v, too few for a majority",
			r.Answers, len(s.world.Config.Members)-1, Patience)}
}
