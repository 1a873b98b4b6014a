package server

import (
	"fmt"
	"time"

	"example.com/raftsteps/06-compaction/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// The consistencies that a get can ask for.
const (
	// linearizable: the read sees every write that was acknowledged before it
	// began, whichever server is asked.
	linearizable = "linearizable"

	// stale: the server answers at once from what it has applied, which may be
	// old.
	stale = "stale"
)

// readPatience is how long a read waits for a leader.
const readPatience = 2 * time.Second

// read is a client that waits for a read.
type read struct {
	// id is what the rules called it, until they tell its index.
	id raft.ReadID

	// since is the tick at which it arrived.
	since uint64

	// index is what must be applied before it is answered; 0 while not known.
	index raft.Index

	request api.Request
	reply   func(api.Response)
}

// read answers a get: at once if the client accepts a stale value, else when
// the rules know at which index it may be answered.
func (s *Server) read(r api.Request, reply func(api.Response)) {
	switch consistency := r.Consistency; {
	case consistency == stale:
		reply(s.readNow(r))
	case consistency == linearizable, consistency == "":
		s.reads = append(s.reads, read{id: s.rules.Read(), since: s.ticks, request: r, reply: reply})
	default:
		reply(api.Failed(r.ID, &api.Error{Code: api.BadRequest, Definite: true,
			Message: fmt.Sprintf("unknown consistency %q; there are %s and %s", consistency, linearizable, stale)}))
	}
}

// readNow answers a read from what is applied. A list names the last entry in it.
func (s *Server) readNow(r api.Request) api.Response {
	a := s.machine.read(r)
	if r.Op == api.List {
		a.Index = uint64(s.rules.Status().Applied)
	}
	return a
}

// expireReads gives up the reads that no leader has confirmed in time, so that
// a server that is cut off does not keep clients waiting. A read changes
// nothing, so the error is definite.
func (s *Server) expireReads() {
	late := 0
	for _, r := range s.reads {
		if s.ticks-r.since < uint64(node.Ticks(readPatience)) {
			break
		}
		r.reply(api.Failed(r.request.ID, &api.Error{Code: api.Unavailable, Definite: true,
			Message: fmt.Sprintf("%s found no leader that a majority confirmed within %v; a stale read needs none", node.Name(s.world.ID), readPatience)}))
		late++
	}
	s.reads = append(s.reads[:0], s.reads[late:]...)
}

// serveReads answers the reads whose index is known and applied.
func (s *Server) serveReads(known []raft.ReadIndexReply) {
	for _, k := range known {
		for i := range s.reads {
			if r := &s.reads[i]; r.index == 0 && r.id <= k.ID {
				r.index = max(k.Index, 1)
			}
		}
	}
	applied := s.rules.Status().Applied
	served := 0
	for _, r := range s.reads {
		if r.index == 0 || r.index > applied {
			break
		}
		r.reply(s.readNow(r.request))
		served++
	}
	s.reads = append(s.reads[:0], s.reads[served:]...)
}
