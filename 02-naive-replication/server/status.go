package server

import "example.com/raftsteps/shared/core/api"

// status describes this server.
func (s *Server) status() api.ServerStatus {
	return api.ServerStatus{ID: s.world.ID, Role: s.role(), Leader: uint64(s.rules.Leader()), Keys: new(s.store.Len())}
}
