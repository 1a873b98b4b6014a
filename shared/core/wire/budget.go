package wire

import "sync/atomic"

// Budget counts bytes against a limit. It is safe for concurrent use. A nil
// Budget has no limit.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns an unused budget with this limit in bytes.
func NewBudget(limit int) *Budget { return &Budget{limit: int64(limit)} }

// Take uses n bytes, or returns false if fewer are left.
func (b *Budget) Take(n int) bool {
	if b == nil {
		return true
	}
	if b.used.Add(int64(n)) <= b.limit {
		return true
	}
	b.used.Add(-int64(n))
	return false
}

// Add uses n bytes, even beyond the limit.
func (b *Budget) Add(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

// Give returns n bytes that were used.
func (b *Budget) Give(n int) { b.Add(-n) }

// Used returns how many bytes are used.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// Limit returns how many bytes may be used.
func (b *Budget) Limit() int64 { return b.limit }
