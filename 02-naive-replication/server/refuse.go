package server

import (
	"fmt"

	"example.com/raftsteps/02-naive-replication/naive"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// maxRefusals bounds the senders whose messages are refused with a line in the log.
const maxRefusals = 100

// unfit says why no correct server has sent a message, or returns nil.
func (s *Server) unfit(from uint64, body naive.Body) error {
	leader := uint64(s.rules.Leader())
	_, order := body.(naive.Replicate)
	switch {
	case from == s.world.ID:
		return fmt.Errorf("it comes from %s itself: another server runs under this number; stop that one", node.Name(from))
	case s.world.Config.Address(from) == "":
		return fmt.Errorf("it comes from %s, which is no member of this cluster", node.Name(from))
	case order && from != leader:
		return fmt.Errorf("%s gives an order, but %s leads", node.Name(from), node.Name(leader))
	case !order && s.world.ID != leader:
		return fmt.Errorf("%s answers %s, which does not lead", node.Name(from), node.Name(s.world.ID))
	}
	return nil
}

// refuse says that a message was refused: in the trace, and in the log, there once
// for each sender.
func (s *Server) refuse(e trace.Event) {
	s.emit(e)
	if s.world.Log != nil && !s.refused[e.From] && len(s.refused) < maxRefusals {
		s.refused[e.From] = true
		e.Role = s.role()
		s.world.Log(e)
	}
}
