package kv

// What a store may hold.
const (
	// KeyBytes is what a key counts for in addition to its bytes and those of its
	// value.
	KeyBytes = 64

	// StoreBytes is how many bytes a store may hold where nothing else is said.
	StoreBytes = 1 << 30
)

// Bytes is how much the store holds: the bytes of keys and values, and KeyBytes
// for each key.
func (s *Store) Bytes() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.bytes
}

// Growth is by how many bytes a command would make the store larger as it is
// now; 0 if not at all. A cas counts as if it found what it expects.
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
