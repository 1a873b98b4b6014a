package explore

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

const (
	maxServers  = 5
	maxInFlight = 250
	maxBudget   = 250
)

// naming is a way to name the servers: the server at place i gets name to[i].
type naming struct {
	to [maxServers]uint8

	// name is the same as a function from old names to new ones.
	name func(id uint64) uint64
}

// namings holds all ways to name n servers.
type namings struct {
	n   int
	all []naming

	// byCode finds the place in all by the naming's code.
	byCode []uint8

	// orders[ties] are the orders that sort servers by a key, as places in the
	// sorted list: bit i of ties is set if the keys at i and i+1 are equal.
	orders [][][]uint8
}

func newNamings(n int) *namings {
	ns := &namings{n: n, byCode: make([]uint8, 1<<(3*n)), orders: make([][][]uint8, 1<<(n-1))}
	permute(n, func(order []uint8) {
		var x naming
		copy(x.to[:], order)
		for i := range n {
			x.to[i]++
		}
		x.name = func(id uint64) uint64 {
			if id > uint64(n) {
				return id
			}
			return uint64(x.to[id-1])
		}
		ns.byCode[x.code(n)] = uint8(len(ns.all))
		ns.all = append(ns.all, x)
		for ties := range ns.orders {
			if keepsOrder(order, ties) {
				ns.orders[ties] = append(ns.orders[ties], append([]uint8(nil), order...))
			}
		}
	})
	return ns
}

func (x naming) code(n int) int {
	c := 0
	for i := range n {
		c |= int(x.to[i]-1) << (3 * i)
	}
	return c
}

// permute calls yield with every order of 0 … n-1, the identity first.
func permute(n int, yield func(order []uint8)) {
	order := make([]uint8, 0, n)
	var next func(left int)
	next = func(left int) {
		if left == 0 {
			yield(order)
			return
		}
		for i := range uint8(n) {
			if indexOf(order, i) < 0 {
				order = append(order, i)
				next(left - 1)
				order = order[:len(order)-1]
			}
		}
	}
	next(n)
}

func indexOf(list []uint8, x uint8) int {
	for i, y := range list {
		if x == y {
			return i
		}
	}
	return -1
}

// keepsOrder reports whether an order moves places only among ties.
func keepsOrder(order []uint8, ties int) bool {
	for at, from := range order {
		low, high := min(at, int(from)), max(at, int(from))
		for i := low; i < high; i++ {
			if ties&(1<<i) == 0 {
				return false
			}
		}
	}
	return true
}

// parts numbers the different values of one part of a state: the servers, the
// messages or the histories. A number never changes its meaning, and reading a
// part takes no lock.
type parts[T any] struct {
	tag     byte
	encoder *Encoder
	namings *namings

	mu     sync.Mutex
	ids    map[[16]byte]uint32
	chunks [1 << 12]atomic.Pointer[[chunk]part[T]]
}

const chunk = 1 << 12

// part is a value and its fingerprints.
type part[T any] struct {
	value T

	// key is the same however the servers are named: it knows only "this server"
	// and "another".
	key uint64

	// prints has the fingerprint under each naming, in two words, made when it
	// is first asked for; until then the first word is 0.
	prints []atomic.Uint64
}

func newParts[T any](tag byte, e *Encoder, ns *namings) *parts[T] {
	return &parts[T]{tag: tag, encoder: e, namings: ns, ids: make(map[[16]byte]uint32)}
}

// id returns the number of a value. self is the name of the server that it is
// the state of, or 0.
func (p *parts[T]) id(value T, self int) uint32 {
	sum := p.sum(value, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.ids[sum]; ok {
		return id
	}
	n := len(p.ids)
	if n == len(p.chunks)*chunk {
		panic("explore: more different parts of states than can be numbered; choose smaller bounds")
	}
	c := p.chunks[n/chunk].Load()
	if c == nil {
		c = new([chunk]part[T])
		p.chunks[n/chunk].Store(c)
	}
	c[n%chunk] = part[T]{value: value, key: p.key(value, self), prints: make([]atomic.Uint64, 2*len(p.namings.all))}
	p.ids[sum] = uint32(n)
	return uint32(n)
}

func (p *parts[T]) at(id uint32) *part[T] { return &p.chunks[id/chunk].Load()[id%chunk] }

func (p *parts[T]) len() int { return len(p.ids) }

func (p *parts[T]) key(value T, self int) uint64 {
	if self == 0 {
		return 0
	}
	sum := p.sum(value, func(id uint64) uint64 {
		if id == uint64(self) {
			return 1
		}
		return 2
	})
	return binary.LittleEndian.Uint64(sum[:])
}

func (p *parts[T]) sum(value T, name func(uint64) uint64) [16]byte {
	var room [512]byte
	s := sha256.Sum256(p.encoder.Append(append(room[:0], p.tag), value, name))
	return [16]byte(s[:16])
}

// print returns a part's fingerprint under a naming. Two workers that make it
// at the same time make the same.
func (p *parts[T]) print(x *part[T], naming int) fingerprint {
	lo, hi := &x.prints[2*naming], &x.prints[2*naming+1]
	if f := (fingerprint{lo.Load(), hi.Load()}); f.lo != 0 && f.hi != 0 {
		return f
	}
	sum := p.sum(x.value, p.namings.all[naming].name)
	f := fingerprint{binary.LittleEndian.Uint64(sum[:8]) | 1, binary.LittleEndian.Uint64(sum[8:]) | 1}
	lo.Store(f.lo)
	hi.Store(f.hi)
	return f
}
