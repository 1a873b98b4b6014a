package server

import (
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// status describes this server.
func (s *Server) status() api.ServerStatus {
	return api.ServerStatus{ID: s.world.ID, Role: s.role(), Leader: uint64(s.rules.Leader()), Keys: new(s.store.Len())}
}

// Store returns the store; see node.StoreHolder.
func (s *Server) Store() *kv.Store { return s.store }
