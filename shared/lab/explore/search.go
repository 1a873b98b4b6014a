package explore

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A state is a row of numbers: those of the servers' states, in the order of
// their names, the history's, what is spent of the budgets, and the messages in
// flight, in order.
type state []uint32

// search is one run of Search.
type search[S, M, G any] struct {
	protocol Protocol[S, M, G]
	bounds   Bounds
	limits   [budgets]uint32

	namings   *namings
	servers   *parts[S]
	messages  *parts[M]
	histories *parts[G]

	visited  *visited
	effects  memo[effects]
	observed memo[observed]

	// found is the state whose steps break an invariant, or 0; among those of a
	// level the least, whichever worker met it first.
	mu    sync.Mutex
	found uint64
}

// effects are what may come of an input to a server, in numbers.
type effects []effect

type effect struct {
	server   uint32
	messages []uint32
	spends   Budget
	beyond   bool
	counts   uint64
	err      error
}

// observed is a history after a look at a server.
type observed struct {
	history uint32
	err     error
}

// Search visits every state of a protocol within the bounds, or stops at the
// first violation, when its level is done. It fails only if the bounds make no
// sense; what it found is in the result.
func Search[S, M, G any](p Protocol[S, M, G], b Bounds) (Result[S, M], error) {
	if err := b.check(); err != nil {
		return Result[S, M]{}, err
	}
	if n := len(p.Counters()); n > 64 {
		return Result[S, M]{}, fmt.Errorf("the protocol has %d counters; 64 is the most", n)
	}
	began := time.Now()
	s := newSearch(p, b)
	r, err := s.run()
	if err != nil {
		return r, err
	}
	if s.found != 0 {
		r.Violation, err = replay(p, b, s.visited.path(s.found))
	}
	r.Elapsed = time.Since(began)
	return r, err
}

func newSearch[S, M, G any](p Protocol[S, M, G], b Bounds) *search[S, M, G] {
	ns := newNamings(b.Servers)
	return &search[S, M, G]{
		protocol: p, bounds: b, namings: ns,
		limits:    [budgets]uint32{Restart: uint32(b.Restarts), Read: uint32(b.Reads), Duplicate: uint32(b.Duplicates)},
		servers:   newParts[S]('s', p.Encoder(), ns),
		messages:  newParts[M]('m', p.Encoder(), ns),
		histories: newParts[G]('h', p.Encoder(), ns),
		visited:   newVisited(),
		effects:   newMemo[effects](),
		observed:  newMemo[observed](),
	}
}

// start returns the state in which the search begins.
func (s *search[S, M, G]) start() state {
	var st state
	for id := 1; id <= s.bounds.Servers; id++ {
		st = append(st, s.servers.id(s.protocol.Start(id), id))
	}
	return append(st, s.histories.id(s.protocol.History(), 0), 0)
}

// level is what a worker found: the states that come next, one after another,
// and where each begins.
type level struct {
	words  []uint32
	starts []int
}

func (l *level) add(st state) {
	l.starts = append(l.starts, len(l.words))
	l.words = append(l.words, st...)
}

func (l *level) at(i int) state {
	end := len(l.words)
	if i+1 < len(l.starts) {
		end = l.starts[i+1]
	}
	return l.words[l.starts[i]:end]
}

// run goes from level to level.
func (s *search[S, M, G]) run() (Result[S, M], error) {
	var workers []*worker[S, M, G]
	for range cmpOr(s.bounds.Workers, runtime.GOMAXPROCS(0)) {
		workers = append(workers, newWorker(s))
	}
	first := s.start()
	w := workers[0]
	w.load(first)
	s.visited.add(w.fingerprint(first), 0, 0)
	frontier := []level{{}}
	frontier[0].add(first)
	depth := 0
	if err := s.protocol.Check(w.world); err != nil {
		return Result[S, M]{}, fmt.Errorf("the start is no valid state: %w", err)
	}
	finished := false
	for s.found == 0 && !finished {
		if states := s.visited.len(); s.bounds.States > 0 && states >= s.bounds.States {
			break
		}
		if depth++; depth > maxDepth {
			return Result[S, M]{}, fmt.Errorf("a path is longer than %d steps; choose smaller bounds", maxDepth)
		}
		next, size := s.expand(workers, frontier, depth)
		frontier, finished = next, size == 0
		if s.bounds.Progress != nil {
			s.bounds.Progress(depth, s.visited.len(), size)
		}
	}
	return s.result(workers, depth, finished), nil
}

// cmpOr returns n, or the other if n is 0.
func cmpOr(n, other int) int {
	if n == 0 {
		return other
	}
	return n
}

// expand lets the workers share a level, a few states at a time, and returns
// the next one.
func (s *search[S, M, G]) expand(workers []*worker[S, M, G], frontier []level, depth int) ([]level, int) {
	const share = 64
	var group sync.WaitGroup
	taken := make([]atomic.Int64, len(frontier))
	for _, w := range workers {
		w.depth, w.next = depth, level{}
		group.Go(func() {
			for i := range frontier {
				l := &frontier[i]
				for from := int(taken[i].Add(share)) - share; from < len(l.starts); from = int(taken[i].Add(share)) - share {
					for j := from; j < min(from+share, len(l.starts)); j++ {
						w.expand(l.at(j))
					}
				}
			}
		})
	}
	group.Wait()
	var next []level
	size := 0
	for _, w := range workers {
		next = append(next, w.next)
		size += len(w.next.starts)
	}
	return next, size
}

func (s *search[S, M, G]) result(workers []*worker[S, M, G], depth int, finished bool) Result[S, M] {
	r := Result[S, M]{
		States: uint64(s.visited.len()), Depth: depth, Finished: finished && s.found == 0,
		Locals: s.servers.len(), Messages: s.messages.len(), Histories: s.histories.len(),
	}
	if r.Finished {
		r.Depth-- // the last level was empty
	}
	names := append(slices.Clone(s.protocol.Counters()), Delivered, Lost, Duplicated)
	for i, name := range names {
		c := Counter{Name: name}
		for _, w := range workers {
			c.Count += w.counters[i]
		}
		r.Counters = append(r.Counters, c)
	}
	for _, w := range workers {
		r.Steps += w.steps
		r.Beyond += w.beyond
	}
	return r
}

// report keeps the violation that comes first.
func (s *search[S, M, G]) report(parent uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == 0 || parent < s.found {
		s.found = parent
	}
}

// memo remembers what was worked out before. Each worker has one of its own in
// front of it, so that it is asked once for a key by each.
type memo[V any] struct {
	mu   *sync.Mutex
	have map[uint64]V
}

func newMemo[V any]() memo[V] { return memo[V]{mu: new(sync.Mutex), have: make(map[uint64]V)} }

func (m memo[V]) get(key uint64) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.have[key]
	return v, ok
}

func (m memo[V]) put(key uint64, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.have[key] = v
}
