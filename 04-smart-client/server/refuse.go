package server

import (
	"fmt"
	"time"

	"example.com/raftsteps/04-smart-client/raft"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// A message that no correct server sends changes nothing and stops nothing. It
// is refused here, or by the rules with an alarm, and it is logged.

const (
	// maxTermJump is how far a term may lie above the one that this server has
	// started with: no cluster holds that many elections, and a term near the
	// end of its range would be the last. termsPerTick is how much more is
	// accepted with each tick. So the others cannot follow a server that was
	// led far ahead for a few seconds only, and the range of terms lasts for a
	// century of such attacks.
	maxTermJump  = 1 << 32
	termsPerTick = 1 << 24

	// refusalInterval is how long a peer's later messages of a kind are refused
	// without a line in the log, and maxRefusals how many kinds of all peers
	// are remembered.
	refusalInterval = time.Minute
	maxRefusals     = 100
)

// refusals are what was logged since a tick.
type refusals struct {
	since  uint64
	logged map[refusal]bool
}

// refusal is a message that was refused: whose, and of which kind.
type refusal struct {
	from uint64
	kind string
}

// maxTerm is the highest term that this server accepts now.
func (s *Server) maxTerm() raft.Term {
	return s.firstTerm + maxTermJump + raft.Term(s.ticks)*termsPerTick
}

// unfit says why no correct server has sent a message, or returns nil. What the
// message says by itself was checked when it was decoded. The limit of the terms is
// no rule of Raft, which takes any higher term.
func (s *Server) unfit(from uint64, m raft.Message) error {
	status := s.rules.Status()
	switch limit := s.maxTerm(); {
	case from == s.world.ID:
		return fmt.Errorf("it comes from %s itself: another server runs under this number; stop that one", node.Name(from))
	case s.world.Config.Address(from) == "":
		return fmt.Errorf("it comes from %s, which is no member of this cluster", node.Name(from))
	case m.Term > limit:
		return fmt.Errorf("its term %d is implausibly high: %s is in term %d and accepts at most %d now; unless %s is stopped, %[2]s follows it in %[6]v",
			m.Term, node.Name(s.world.ID), status.CurrentTerm, limit, node.Name(from), wait(m.Term-limit))
	}
	return s.unfitBody(m.Term, m.Body)
}

// wait is how long it takes until a term so far above the limit is accepted.
func wait(above raft.Term) time.Duration {
	seconds := above/termsPerTick/raft.Term(time.Second/node.TickInterval) + 1
	return time.Duration(min(seconds, 1<<32)) * time.Second
}

// refuse says that a message was refused: in the trace, and in the log, there once
// for each peer and kind in a while.
func (s *Server) refuse(from uint64, kind string, e trace.Event) {
	if s.world.Trace != nil {
		s.world.Trace(s.stamp(e))
	}
	if s.ticks-s.refusals.since >= uint64(node.Ticks(refusalInterval)) || s.refusals.logged == nil {
		s.refusals = refusals{since: s.ticks, logged: make(map[refusal]bool)}
	}
	key := refusal{from, kind}
	if s.world.Log == nil || s.refusals.logged[key] || len(s.refusals.logged) >= maxRefusals {
		return
	}
	s.refusals.logged[key] = true
	s.world.Log(s.stamp(e))
}
