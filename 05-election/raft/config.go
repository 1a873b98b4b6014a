package raft

import "slices"

// Config is a configuration: the servers that decide.
type Config struct {
	// Voters decide, by a majority. They are in the order of their IDs.
	Voters []ID
}

// Majority reports whether the servers for which has is true are a majority
// (§5.2). Every rule that needs one asks here.
func (c Config) Majority(has func(ID) bool) bool {
	n := 0
	for _, id := range c.Voters {
		if has(id) {
			n++
		}
	}
	return 2*n > len(c.Voters)
}

// Members returns all servers, in the order of their IDs.
func (c Config) Members() []ID { return slices.Clone(c.Voters) }
