package kv

import "math/bits"

// Hash returns a hash of the content of the store: two stores with the same content
// have the same hash, on all machines. It takes no time, because each change of the
// store changes the hash.
func (s *Store) Hash() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sum
}

// addHash changes the hash, because a pair has changed.
func (s *Store) addHash(key string, by uint64) {
	s.sum += by
	if c := s.recount; c != nil && key < c.next {
		c.sum += by
	}
}

// recount is the hash of the pairs whose keys are before next, from what is in memory.
type recount struct {
	next string
	sum  uint64
}

// Recount computes the hash again from what is in memory, and returns whether it is
// the one that all changes have led to; if not, the memory is damaged. A large store
// takes several calls, each for about this many bytes: done is true when the last of
// them has looked at the last key. begin begins with the first key again. Changes in
// between do no harm.
func (s *Store) Recount(begin bool, bytes int) (done, right bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recount == nil || begin {
		s.recount = &recount{}
	}
	c := s.recount
	done = true
	s.keys.AscendGreaterOrEqual(c.next, func(key string) bool {
		if bytes <= 0 {
			c.next, done = key, false
			return false
		}
		value, _ := s.lookup(key)
		c.sum += hashPair(key, value)
		bytes -= len(key) + len(value) + KeyBytes
		return true
	})
	if done {
		s.recount = nil
	}
	return done, c.sum == s.sum
}

// hashPair returns the hash of a key and its value.
func hashPair(key, value string) uint64 {
	return HashText(HashText(0, key), value)
}

// Two odd numbers with as many ones as zeros.
const (
	factor = 0x9e3779b97f4a7c15
	offset = 0xc3a5c85c97cb3127
)

// HashText adds a text to a hash. The same texts in the same order give the same
// hash, on all machines. It is fast, and it does not resist someone who looks for
// two texts with the same hash.
func HashText(h uint64, text string) uint64 {
	n := uint64(len(text))
	for ; len(text) >= 8; text = text[8:] {
		h = HashNumber(h, uint64(text[0])|uint64(text[1])<<8|uint64(text[2])<<16|uint64(text[3])<<24|
			uint64(text[4])<<32|uint64(text[5])<<40|uint64(text[6])<<48|uint64(text[7])<<56)
	}
	last := n << 56 // distinguishes texts that end with different numbers of zeros
	for i := range len(text) {
		last |= uint64(text[i]) << (8 * i)
	}
	return HashNumber(h, last)
}

// HashNumber adds a number to a hash, as HashText does with a text.
func HashNumber(h, n uint64) uint64 {
	high, low := bits.Mul64(h^n^offset, factor)
	return (high ^ low) + h
}
