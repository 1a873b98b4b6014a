package node

import "example.com/raftsteps/shared/core/kv"

// Saved is what a server that does not run has on its disk.
type Saved struct {
	// Store is the store with all entries of the log.
	Store *kv.Store

	// Committed is the last entry that is known to be committed, Last the last
	// entry of the log, and LastTerm its term.
	Committed uint64
	Last      uint64
	LastTerm  uint64
}
