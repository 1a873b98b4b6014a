// Package server is the first stage: a hash map behind a TCP socket.
//
// Each connection has its own goroutine, and they all work on one store, which
// has a lock. That is all there is. Two clients that write one key at the same
// moment are put in some order by the lock; a client that reads sees the last
// write that was finished before. Nothing is kept: a restart loses everything.
package server

import (
	"context"
	"log/slog"
	"net"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// Ops is what a client can ask.
var Ops = api.Commands()

// Server is a key-value store that clients reach over TCP.
type Server struct {
	store *kv.Store

	// quota bounds what the store may hold.
	quota api.Quota
}

// New returns a server with an empty store.
func New() *Server { return &Server{store: kv.NewStore()} }

// Serve answers clients on ln until ctx is done, then ends in order and
// returns nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener, log *slog.Logger) error {
	w := wire.Server{Ops: Ops, Handler: s.handle, Log: log}
	return w.Serve(ctx, ln)
}

// handle carries out one command. It is called by many goroutines at once.
func (s *Server) handle(r api.Request, reply func(api.Response)) {
	if r.Op == api.List {
		reply(api.Read(r, s.store))
		return
	}
	reply, full := s.quota.Take(s.store, r.Command(), reply)
	if full != nil {
		reply(api.Failed(r.ID, full))
		return
	}
	reply(api.Result(r.ID, r.Op, s.store.Apply(r.Command())))
}
