package explore

import "sync"

// fingerprint stands for a state, or for a part of one: two sums of 64 bits.
type fingerprint struct{ lo, hi uint64 }

func (f fingerprint) plus(g fingerprint) fingerprint {
	return fingerprint{f.lo + g.lo, f.hi + g.hi}
}

func (f fingerprint) less(g fingerprint) bool {
	return f.lo < g.lo || f.lo == g.lo && f.hi < g.hi
}

// depthBits are the low bits of hi, in which the table keeps a state's depth.
const depthBits = 0xff

// maxDepth is the longest path the table can tell apart.
const maxDepth = depthBits

// visited is the set of known states, each with its depth and with the state
// before it on a shortest path. It is split into shards by the low bits of the
// fingerprint, so that workers rarely wait for each other.
type visited struct {
	shards [256]shard
}

type shard struct {
	mu    sync.Mutex
	slots []slot
	count int

	_ [64]byte // keeps the locks of two shards out of one cache line
}

// slot holds a state: its fingerprint, with the depth in the low bits of hi,
// and the lo of its parent. An empty slot has lo 0.
type slot struct{ lo, hi, parent uint64 }

func newVisited() *visited {
	v := &visited{}
	for i := range v.shards {
		v.shards[i].slots = make([]slot, 64)
	}
	return v
}

// add puts a state into the set and reports whether it was new. A state that
// was reached twice at the same depth keeps the lesser parent, so that the path
// to it does not depend on which worker came first.
func (v *visited) add(f fingerprint, parent uint64, depth int) bool {
	f = f.clean()
	s := &v.shards[f.lo&255]
	s.mu.Lock()
	defer s.mu.Unlock()
	if 4*s.count >= 3*len(s.slots) {
		s.grow()
	}
	at := s.find(f)
	if at.lo == 0 {
		*at = slot{f.lo, f.hi | uint64(depth), parent}
		s.count++
		return true
	}
	if at.hi&depthBits == uint64(depth) && parent < at.parent {
		at.parent = parent
	}
	return false
}

// clean makes room for the depth, and keeps clear of the empty slot's mark.
func (f fingerprint) clean() fingerprint {
	return fingerprint{max(f.lo, 1), f.hi &^ depthBits}
}

// find returns the slot of f, or the empty one where it belongs.
func (s *shard) find(f fingerprint) *slot {
	mask := uint64(len(s.slots) - 1)
	for i := (f.lo >> 8) & mask; ; i = (i + 1) & mask {
		if at := &s.slots[i]; at.lo == 0 || at.lo == f.lo && at.hi&^depthBits == f.hi {
			return at
		}
	}
}

func (s *shard) grow() {
	old := s.slots
	s.slots = make([]slot, 2*len(old))
	for _, x := range old {
		if x.lo != 0 {
			*s.find(fingerprint{x.lo, x.hi &^ depthBits}) = x
		}
	}
}

// path returns the states from the start to the one with that lo.
func (v *visited) path(lo uint64) []uint64 {
	var back []uint64
	for lo != 0 {
		back = append(back, lo)
		lo = v.parent(lo)
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}

func (v *visited) parent(lo uint64) uint64 {
	s := &v.shards[lo&255]
	mask := uint64(len(s.slots) - 1)
	for i := (lo >> 8) & mask; ; i = (i + 1) & mask {
		switch s.slots[i].lo {
		case lo:
			return s.slots[i].parent
		case 0:
			return 0
		}
	}
}

// len returns the number of states. No worker may be adding any.
func (v *visited) len() int {
	n := 0
	for i := range v.shards {
		n += v.shards[i].count
	}
	return n
}
