package server

import (
	"container/list"
	"maps"
	"slices"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// A client that hears no answer sends its command again, so the log may hold a
// command twice. Sessions make it happen once (§8, thesis §6.3): for each
// session, the state machine remembers the results of the commands that the
// client may still ask for, and answers a repeated command from memory.
//
// A client draws the number of its session itself. The first command that is
// applied in a session begins it, so a session costs no entry of its own. Then a
// session that has ended must not begin again, or its commands could happen
// twice: each command says since which index its session can have been used.
//
// Sessions are part of the state machine: they change only as the log is
// applied, so they are the same on every server at the same index. No clock may
// decide when one ends.

// maxSessions is how many sessions there are. A new one beyond it ends the one
// that was used longest ago, counted in log indexes.
const maxSessions = 10_000

// maxRemembered is how many bytes all sessions hold together. If it would be
// more, the sessions used longest ago end. The size of a session and of a
// result, without the text in it, is fixed, so that all servers end the same
// sessions.
const (
	maxRemembered = 16 << 20
	sessionBytes  = 256
	resultBytes   = 128
)

// maxResults is how many results a session holds. A client has no more commands
// in flight in one session.
const maxResults = 1024

// checkSession refuses a request that names a session but not its place in it,
// or the other way round.
func checkSession(r api.Request) *api.Error {
	none := r.Session == 0 && r.Since == 0 && r.Seq == 0 && r.Ack == 0
	if none || r.Session > 0 && r.Since > 0 && r.Seq > r.Ack {
		return nil
	}
	return &api.Error{Code: api.BadRequest, Message: "a command in a session needs the fields session, since and seq, and an ack below seq", Definite: true}
}

// openSession answers with an index from which on a new session can be used. It
// writes nothing: the session begins with its first command.
func (s *Server) openSession(r api.Request) api.Response {
	status := s.rules.Status()
	if status.Role != raft.Leader {
		return api.Failed(r.ID, s.notLeader())
	}
	return api.Response{ID: r.ID, Index: uint64(status.Commit) + 1}
}

// session is what the state machine remembers about one client.
type session struct {
	id      uint64
	ack     uint64
	results map[uint64]result

	// used is the index of its last command.
	used uint64

	// bytes is how many it holds.
	bytes int

	// shared is set while a snapshot may be reading it: then it must not change.
	shared bool
}

// apply carries out the command at an index, unless its session has the result
// already.
func (m *machine) apply(index uint64, c command) result {
	if c.Op == api.Open {
		// Older journals hold such entries: the session's number is the index.
		m.begin(index, index)
		return result{index: index}
	}
	if c.session == 0 {
		return result{Result: m.store.Apply(c.Command), index: index}
	}
	element, known := m.sessions[c.session]
	switch {
	case known:
	case c.since <= m.ended:
		return refuse(index, api.NoSession, "session %d has ended, or may have: sessions last used at index %d or before have ended, and this one may be in use since %d (at most %d are kept, with at most %d MiB)",
			c.session, m.ended, c.since, maxSessions, maxRemembered>>20)
	default:
		element = m.begin(c.session, index)
	}
	m.byUse.MoveToBack(element)
	s := element.Value.(*session)
	if s.shared {
		s = &session{id: s.id, ack: s.ack, results: maps.Clone(s.results), bytes: s.bytes}
		element.Value = s
	}
	s.used = index
	m.remembered -= s.acknowledge(c.ack)
	if done, ok := s.results[c.seq]; ok {
		return done
	}
	switch {
	case c.seq <= s.ack:
		return refuse(index, api.NoSession, "the client has acknowledged the answers up to %d of session %d, and asks for %d again", s.ack, c.session, c.seq)
	case len(s.results) >= maxResults:
		return refuse(index, api.Busy, "session %d has %d answers that the client has not acknowledged", c.session, maxResults)
	}
	return m.remember(s, c.seq, result{Result: m.store.Apply(c.Command), index: index})
}

// remember keeps the result of a command for the case that it comes again.
func (m *machine) remember(s *session, seq uint64, r result) result {
	s.results[seq] = r
	s.bytes += r.bytes()
	m.remembered += r.bytes()
	m.endOldest()
	return r
}

// endOldest ends the sessions used longest ago until the limits are kept. The
// session in use is never among them: it is the newest, and it alone cannot
// exceed the limits.
func (m *machine) endOldest() {
	for len(m.sessions) > maxSessions || m.remembered > maxRemembered {
		oldest := m.byUse.Remove(m.byUse.Front()).(*session)
		delete(m.sessions, oldest.id)
		m.remembered -= oldest.bytes
		m.ended = max(m.ended, oldest.used)
	}
}

// begin begins a session at an index.
func (m *machine) begin(id, index uint64) *list.Element {
	element := m.byUse.PushBack(&session{id: id, results: make(map[uint64]result), used: index, bytes: sessionBytes})
	m.sessions[id] = element
	m.remembered += sessionBytes
	m.endOldest()
	return element
}

// acknowledge forgets the results that the client has, and returns how many bytes
// they held.
func (s *session) acknowledge(ack uint64) (freed int) {
	if ack <= s.ack {
		return 0
	}
	if ack-s.ack > maxResults {
		// A client may skip numbers; the servers must not count through them.
		for seq := range s.results {
			if seq <= ack {
				freed += s.forget(seq)
			}
		}
	}
	for seq := s.ack + 1; seq <= min(ack, s.ack+maxResults); seq++ {
		freed += s.forget(seq)
	}
	s.ack = ack
	return freed
}

// forget drops a result, if it is there, and returns how many bytes it held.
func (s *session) forget(seq uint64) int {
	r, ok := s.results[seq]
	if !ok {
		return 0
	}
	delete(s.results, seq)
	s.bytes -= r.bytes()
	return r.bytes()
}

func (r result) bytes() int { return resultBytes + len(r.Value) }

// session describes a session; see node.SessionHolder.
func (m *machine) session(id uint64) (node.Session, bool) {
	element, ok := m.sessions[id]
	if !ok {
		return node.Session{}, false
	}
	s := element.Value.(*session)
	shown := node.Session{Ack: s.ack, Last: s.ack}
	for seq, r := range s.results {
		if seq > shown.Last {
			shown.Last, shown.Answer = seq, r.Result
		}
	}
	return shown, true
}

// numbers returns the numbers of all sessions.
func (m *machine) numbers() []uint64 { return slices.Collect(maps.Keys(m.sessions)) }
