package raft

// config is the set of servers that decide.
type config struct {
	voters []ID
}

// Majority reports whether the servers for which has is true are a majority
// (§5.2). Elections, commits and reads all ask here.
func (c config) Majority(has func(ID) bool) bool {
	n := 0
	for _, id := range c.voters {
		if has(id) {
			n++
		}
	}
	return 2*n > len(c.voters)
}

// members returns all servers, in the order of their IDs.
func (c config) members() []ID { return c.voters }
