package raft

// A leader can transfer its leadership (thesis §3.10): it takes no more proposals,
// brings the successor up to date, and tells it to start an election at once.

// TimeoutNow tells a server to start an election at once (thesis §3.10).
type TimeoutNow struct{}

// Transfer moves the leadership to a voter as soon as it has the leader's whole log.
// Until then the leader takes no proposals; if that takes longer than an election
// timeout, it goes on as before.
func (r *Raft) Transfer(to ID) error {
	switch {
	case r.role != Leader:
		return ErrNotLeader
	case !r.config().IsVoter(to):
		return ErrNotVoter
	case to != r.options.ID:
		r.successor, r.timeout = to, r.options.ElectionTicks[1]
	}
	return nil
}

// step starts an election without asking first whether that may succeed: the
// leader wants it.
func (m TimeoutNow) step(r *Raft, from ID) {
	if r.role == Follower && r.mayCampaign() {
		r.startElection(true)
	}
}
