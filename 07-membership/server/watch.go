package server

import (
	"fmt"
	"time"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/watch"
)

// watchPatience is how long a watch waits for a change. Then it is answered without
// any, so that the client knows that the server is alive, and asks again.
const watchPatience = 500 * time.Millisecond

// watches are the recent changes of the store, and the clients that wait for the next
// ones.
type watches struct {
	watch.Changes

	// waiting are the clients, in the order in which they came.
	waiting []watcher

	// applied is the last entry that was applied, and tick the present tick, when
	// they were last looked at.
	applied raft.Index
	tick    uint64
}

// watcher is a client that waits for a change from an index on.
type watcher struct {
	// from is the first index that has not been looked at; since is the tick at
	// which the client came.
	from    uint64
	since   uint64
	request api.Request
	reply   func(api.Response)
}

// applying says that a command is about to be applied.
func (s *Server) applying(e raft.Entry) {
	s.follow()
	s.watches.At(uint64(e.Index))
}

// follow follows the present store.
func (s *Server) follow() {
	s.watches.Follow(s.machine.held(), uint64(s.rules.Status().Snapshot.Index))
}

// watch answers a watch at once if there is something to tell, and otherwise lets it
// wait.
func (s *Server) watch(r api.Request, reply func(api.Response)) {
	status := s.rules.Status()
	if status.Removed {
		reply(api.Failed(r.ID, s.gone()))
		return
	}
	w := watcher{from: r.From, since: s.ticks, request: r, reply: reply}
	if w.from == 0 {
		w.from = uint64(status.Applied) + 1
	}
	if !s.tell(&w) {
		s.watches.waiting = append(s.watches.waiting, w)
	}
}

// tell answers a client if there is something to tell.
func (s *Server) tell(w *watcher) bool {
	s.follow()
	events, next, refusal := s.watches.Since(w.from, uint64(s.rules.Status().Applied), w.request.Prefix)
	late := s.ticks-w.since >= uint64(node.Ticks(watchPatience))
	switch {
	case refusal != nil:
		w.reply(api.Failed(w.request.ID, refusal))
	case len(events) == 0 && late && s.rules.Status().Leader == 0:
		// Perhaps this server is cut off, and the others go on without it.
		w.reply(api.Failed(w.request.ID, &api.Error{Code: api.Unavailable, Definite: true,
			Message: fmt.Sprintf("%s knows no leader, so there may be changes that it has not heard of; ask another server", node.Name(s.world.ID))}))
	case len(events) > 0 || late:
		w.reply(api.Events{Events: events, Next: next}.Response(w.request.ID))
	default:
		w.from = next
		return false
	}
	return true
}

// serveWatches answers the clients that have waited for what was applied now, or
// for long enough.
func (s *Server) serveWatches() {
	applied := s.rules.Status().Applied
	if applied == s.watches.applied && s.ticks == s.watches.tick {
		return
	}
	s.watches.applied, s.watches.tick = applied, s.ticks
	left := s.watches.waiting[:0]
	for _, w := range s.watches.waiting {
		if !s.tell(&w) {
			left = append(left, w)
		}
	}
	clear(s.watches.waiting[len(left):])
	s.watches.waiting = left
}
