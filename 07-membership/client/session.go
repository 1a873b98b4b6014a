package client

import (
	"context"
	"sync"

	"example.com/raftsteps/shared/core/api"
)

// maxID bounds the numbers of sessions: JavaScript holds numbers below it
// exactly. A new session gets the number of another among ten thousand with a
// probability of one in a trillion.
const maxID = 1 << 53

// window is how far the commands of a session may run ahead of the oldest one
// without an answer. Servers keep the results in between.
const window = 512

// session numbers the commands of this client, so that the servers recognize
// one that they are sent twice.
type session struct {
	// id is its number, drawn at random; since is an index before which no command
	// of the session stands in the log.
	id, since uint64

	mu sync.Mutex

	// next is the number of the next command.
	next uint64

	// ack is such that all commands up to it have ended; ended are those beyond
	// it that have.
	ack   uint64
	ended map[uint64]bool

	// room is closed when ack has moved.
	room chan struct{}
}

func newSession(id, since uint64) *session {
	return &session{id: id, since: since, next: 1, ended: make(map[uint64]bool), room: make(chan struct{})}
}

// begin gives r the next place in the session. It waits while the oldest
// command is too far behind.
func (s *session) begin(ctx context.Context, r *api.Request) error {
	for {
		s.mu.Lock()
		if s.next-s.ack <= window {
			r.Session, r.Since, r.Seq, r.Ack = s.id, s.since, s.next, s.ack
			s.next++
			s.mu.Unlock()
			return nil
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return notSent("%d commands of this client wait for an answer (%v)", window, ctx.Err())
		}
	}
}

// end says that the client will not ask about that command again.
func (s *session) end(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[seq] = true
	for s.ended[s.ack+1] {
		s.ack++
		delete(s.ended, s.ack)
		if len(s.ended) == 0 || !s.ended[s.ack+1] {
			close(s.room)
			s.room = make(chan struct{})
		}
	}
}
