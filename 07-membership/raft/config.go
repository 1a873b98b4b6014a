package raft

import "slices"

// Config is a configuration: the servers that decide and, during a change,
// those that will decide after it (§6).
type Config struct {
	// Voters decide, by a majority. They are in the order of their IDs.
	Voters []ID

	// Next are the voters that a change will bring, in the same order; empty if
	// there is none under way.
	Next []ID

	// Joint says that Next decides already, together with Voters: C_old,new.
	// Before, those of Next that are no voters are learners: they are sent the
	// log, and count nowhere.
	Joint bool

	// Addresses say where each server is. They mean nothing to the rules.
	Addresses map[ID]string

	// Index is the entry that holds it, or 0 for the first one.
	Index Index
}

// Majority reports whether the servers for which has is true are a majority, or
// one of both halves in a joint configuration (§5.2, §6). Every rule that needs one
// asks here.
func (c Config) Majority(has func(ID) bool) bool {
	return majority(c.Voters, has) && (!c.Joint || majority(c.Next, has))
}

func majority(voters []ID, has func(ID) bool) bool {
	n := 0
	for _, id := range voters {
		if has(id) {
			n++
		}
	}
	return 2*n > len(voters)
}

// Members returns all servers that are sent the log, in the order of their IDs.
func (c Config) Members() []ID {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.Voters, c.Next))))
}

// IsVoter reports whether a server's vote counts.
func (c Config) IsVoter(id ID) bool {
	return slices.Contains(c.Voters, id) || c.Joint && slices.Contains(c.Next, id)
}
