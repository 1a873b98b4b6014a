package kv

// Limits on the size of a store.
const (
	// KeyBytes is what a key adds to the size of the store in addition to its own
	// bytes and those of its value.
	KeyBytes = 64

	// StoreBytes is how many bytes a store may hold by default.
	StoreBytes = 1 << 30
)

// Bytes returns the size of the store: the bytes of keys and values, and KeyBytes
// for each key.
func (s *Store) Bytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bytes
}

// Growth returns by how many bytes a command would make the store larger as it is
// now, or 0 if it would not. It assumes that a cas finds the value it expects.
func (s *Store) Growth(c Command) int64 {
	if !Writes(c.Op) || c.Op == Delete {
		return 0
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	old, found := s.lookup(c.Key)
	grows := len(c.Value)
	if c.Op != Append {
		grows -= len(old)
	}
	switch {
	case found && c.Op == Create, !found && c.Op == Cas:
		return 0
	case !found:
		grows += len(c.Key) + KeyBytes
	}
	return int64(max(0, grows))
}
