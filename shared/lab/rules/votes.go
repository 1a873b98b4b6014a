package rules

import "slices"

// The invariants of stages with votes and reads.
const (
	OneVote          = "One Vote"
	CandidateVotes   = "Candidate"
	LinearizableRead = "Linearizable Read"
)

// CheckVotes: a vote, once on disk, holds for the whole term. A candidate has its
// own vote, and no vote that was not given. votes are those that a server counts.
func (c *Cluster[R, E, M, S]) CheckVotes(s *Server[R, E, M, S], votes []ID) {
	v := s.Raft.View()
	c.checkVote(s, s.Disk.State.CurrentTerm, s.Disk.State.VotedFor)
	if v.Role != "candidate" {
		return
	}
	if v.State.VotedFor != s.ID || !slices.Contains(votes, s.ID) {
		c.Broken(CandidateVotes, "%v starts an election in term %d without its own vote", s.ID, v.State.CurrentTerm)
	}
	for i, of := range votes {
		if c.Ghost.Votes[Vote{of, v.State.CurrentTerm}] != s.ID || slices.Contains(votes[:i], of) {
			c.Broken(CandidateVotes, "%v counts a vote of %v in term %d that it did not get", s.ID, of, v.State.CurrentTerm)
		}
	}
}

// CheckGiven: a server that asks for a vote or gives one has it on disk, and
// gives one in a term at most, crash or no crash. A server that has moved to a
// newer term cannot give the old vote again.
func (c *Cluster[R, E, M, S]) CheckGiven(s *Server[R, E, M, S], term uint64, to ID) {
	if d := s.Disk.State; d.CurrentTerm == term && d.VotedFor != to {
		c.Broken(SavedFirst, "%v gives its vote in term %d to %v, and its disk says %v", s.ID, term, to, d.VotedFor)
	}
	c.checkVote(s, term, to)
}

func (c *Cluster[R, E, M, S]) checkVote(s *Server[R, E, M, S], term uint64, to ID) {
	before, given := c.Ghost.Votes[Vote{s.ID, term}]
	if given && before != to {
		c.Broken(OneVote, "%v gave its vote in term %d to %v, and now it is %v's", s.ID, term, before, to)
	}
	if to != 0 {
		c.Ghost.Votes[Vote{s.ID, term}] = to
	}
}

// ReadBegins notes a read.
func (c *Cluster[R, E, M, S]) ReadBegins(s *Server[R, E, M, S], id uint64) {
	s.reads[id] = uint64(len(c.Ghost.Committed))
}

// ReadsAnswered: a read sees all that was committed when it began.
func (c *Cluster[R, E, M, S]) ReadsAnswered(s *Server[R, E, M, S], upTo, index uint64) {
	for id, least := range s.reads {
		if id > upTo {
			continue
		}
		if index < least {
			c.Broken(LinearizableRead, "%v answers read %d at %d, and when it began %d was committed", s.ID, id, index, least)
		}
		delete(s.reads, id)
		c.Counts["read answered"]++
	}
}

// ReadsWait reports whether a client still waits for an answer.
func (s *Server[R, E, M, S]) ReadsWait() bool { return len(s.reads) > 0 }

// Draw returns the next of the numbers that a script gives to a server; then 0.
func (s *Server[R, E, M, S]) Draw(n uint64) uint64 {
	if len(s.Draws) == 0 {
		return 0
	}
	x := s.Draws[0]
	s.Draws = s.Draws[1:]
	return x % n
}
