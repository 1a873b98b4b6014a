package explore

import (
	"cmp"
	"fmt"
	"slices"
)

// worker expands states. It belongs to one goroutine.
type worker[S, M, G any] struct {
	search *search[S, M, G]
	n      int

	// depth is that of the states it finds; next holds them.
	depth int
	next  level

	// world is the state at hand as the protocol sees it; print is its
	// fingerprint's lower half.
	world World[S, G]
	print uint64

	// found, if not nil, is told every step instead of the search: the replay of
	// a counterexample listens.
	found func(t taken, st state)

	// effects and observed stand before the search's.
	effects  map[uint64]effects
	observed map[uint64]observed

	counters []uint64
	steps    uint64
	beyond   uint64

	// Room that is used again for every state.
	inputs  []Input
	pool    []uint32
	picked  []uint32
	sibling state
}

// taken is a step as the worker takes it.
type taken struct {
	server  int
	input   Input
	message uint32
	kept    bool
	effect  int
	err     error
}

func newWorker[S, M, G any](s *search[S, M, G]) *worker[S, M, G] {
	return &worker[S, M, G]{
		search: s, n: s.bounds.Servers,
		world:    World[S, G]{Servers: make([]S, s.bounds.Servers)},
		effects:  make(map[uint64]effects),
		observed: make(map[uint64]observed),
		counters: make([]uint64, len(s.protocol.Counters())+3),
	}
}

// load makes st the state at hand.
func (w *worker[S, M, G]) load(st state) {
	for i := range w.n {
		w.world.Servers[i] = w.search.servers.at(st[i]).value
	}
	w.world.History = w.search.histories.at(st[w.n]).value
}

func (w *worker[S, M, G]) spent(st state) uint32       { return st[w.n+1] }
func (w *worker[S, M, G]) inFlight(st state) []uint32  { return st[w.n+2:] }
func (w *worker[S, M, G]) count(counter int, n uint64) { w.counters[counter] += n }

// The places of the search's own counters, behind the protocol's.
func (w *worker[S, M, G]) own() (delivered, lost, duplicated int) {
	n := len(w.counters)
	return n - 3, n - 2, n - 1
}

// expand tries all steps from st.
func (w *worker[S, M, G]) expand(st state) {
	w.load(st)
	w.print = w.fingerprint(st).clean().lo
	flight := w.inFlight(st)
	for i, m := range flight {
		if i > 0 && flight[i-1] == m {
			continue // the same message twice: the same step
		}
		to := w.search.protocol.To(w.search.messages.at(m).value)
		w.step(st, taken{server: to - 1, message: m}, i)
		if w.mayspend(st, Duplicate) {
			w.step(st, taken{server: to - 1, message: m, kept: true}, -1)
		}
	}
	for id := 1; id <= w.n; id++ {
		w.inputs = w.search.protocol.Inputs(w.inputs[:0], w.world, id)
		for i := 0; i < len(w.inputs); i++ {
			w.step(st, taken{server: id - 1, input: w.inputs[i]}, -1)
		}
	}
}

func (w *worker[S, M, G]) mayspend(st state, b Budget) bool {
	return b == Nothing || w.spent(st)>>(8*b)&0xff < w.search.limits[b]
}

// step tries one input to one server. consumed is the place of the message that
// leaves the flight by it, or -1.
func (w *worker[S, M, G]) step(st state, t taken, consumed int) {
	es := w.apply(st[t.server], t)
	for i := range es {
		e := &es[i]
		if !w.mayspend(st, e.spends) {
			continue
		}
		if consumed < 0 && len(e.messages) == 0 && e.server == st[t.server] && e.err == nil {
			continue // nothing changes
		}
		t.effect, t.err = i, e.err
		after := observed{history: st[w.n]}
		if e.server != st[t.server] && t.err == nil {
			after = w.observe(st[w.n], e.server)
			t.err = after.err
		}
		w.tally(t, e)
		if e.beyond && t.err == nil {
			w.beyond++
			continue
		}
		w.send(st, t, e, after.history, consumed)
	}
}

func (w *worker[S, M, G]) tally(t taken, e *effect) {
	for bits, i := e.counts, 0; bits != 0; bits, i = bits>>1, i+1 {
		w.counters[i] += bits & 1
	}
	if t.input.Kind == Arrival {
		delivered, _, duplicated := w.own()
		w.count(delivered, 1)
		if t.kept {
			w.count(duplicated, 1)
		}
	}
}

// send forms the states that follow from an effect: one if there is room for
// all messages, else one for each choice of those that stay in flight.
func (w *worker[S, M, G]) send(st state, t taken, e *effect, history uint32, consumed int) {
	w.pool = w.pool[:0]
	for i, m := range w.inFlight(st) {
		if i != consumed {
			w.pool = append(w.pool, m)
		}
	}
	w.pool = append(w.pool, e.messages...)
	slices.Sort(w.pool)

	next := append(w.sibling[:0], st[:w.n+2]...)
	next[t.server], next[w.n] = e.server, history
	if e.spends != Nothing {
		next[w.n+1] += 1 << (8 * e.spends)
	}
	if t.kept {
		next[w.n+1] += 1 << (8 * Duplicate)
	}
	w.sibling = next
	room := w.search.bounds.InFlight
	if len(w.pool) > room {
		_, lost, _ := w.own()
		w.count(lost, uint64(len(w.pool)-room))
	}
	w.pick(t, w.pool, room)
}

// pick adds a choice of the pool's messages to the sibling at hand and settles
// each. As many as there is room for stay, since less is never more.
func (w *worker[S, M, G]) pick(t taken, pool []uint32, room int) {
	if len(pool) <= room {
		n := len(w.sibling)
		w.sibling = append(w.sibling, pool...)
		w.settle(t)
		w.sibling = w.sibling[:n]
		return
	}
	if room == 0 {
		w.settle(t)
		return
	}
	// Either the first of the pool stays, or all that are equal to it do not.
	w.sibling = append(w.sibling, pool[0])
	w.pick(t, pool[1:], room-1)
	w.sibling = w.sibling[:len(w.sibling)-1]
	rest := pool[1:]
	for len(rest) > 0 && rest[0] == pool[0] {
		rest = rest[1:]
	}
	w.pick(t, rest, room)
}

// settle is done with a step: the sibling at hand is the state after it.
func (w *worker[S, M, G]) settle(t taken) {
	st := w.sibling
	if len(w.inFlight(st)) < min(len(w.pool), w.search.bounds.InFlight) {
		return // more messages were left out than had to be
	}
	w.steps++
	if w.found != nil {
		w.found(t, st)
		return
	}
	if t.err != nil {
		w.search.report(w.print)
		return
	}
	if !w.search.visited.add(w.fingerprint(st), w.print, w.depth) {
		return
	}
	w.next.add(st)
	if w.check(st, t.server) != nil {
		w.search.report(w.print)
	}
}

// check judges the state that follows from the one at hand, in which only one
// server and the history are new.
func (w *worker[S, M, G]) check(st state, server int) error {
	was := World[S, G]{History: w.world.History}
	before := w.world.Servers[server]
	w.world.Servers[server] = w.search.servers.at(st[server]).value
	w.world.History = w.search.histories.at(st[w.n]).value
	err := w.search.protocol.Check(w.world)
	w.world.Servers[server], w.world.History = before, was.History
	return err
}

// apply returns what may come of an input to a server.
func (w *worker[S, M, G]) apply(server uint32, t taken) effects {
	key := uint64(server)<<32 | uint64(t.input.Kind)<<24 | uint64(t.input.Arg)
	if t.input.Kind == Arrival {
		key |= uint64(t.message)
	}
	if es, ok := w.effects[key]; ok {
		return es
	}
	es, ok := w.search.effects.get(key)
	if !ok {
		for _, e := range w.carryOut(server, t) {
			es = append(es, w.number(e, t.server+1))
		}
		w.search.effects.put(key, es)
	}
	w.effects[key] = es
	return es
}

// carryOut asks the protocol. A panic of the rules is a violation like any
// other.
func (w *worker[S, M, G]) carryOut(server uint32, t taken) (es []Effect[S, M]) {
	var m M
	if t.input.Kind == Arrival {
		m = w.search.messages.at(t.message).value
	}
	s := w.search.servers.at(server).value
	defer func() {
		if p := recover(); p != nil {
			es = []Effect[S, M]{{Server: s, Err: Panic{p}}}
		}
	}()
	return w.search.protocol.Do(s, t.input, m)
}

func (w *worker[S, M, G]) number(e Effect[S, M], id int) effect {
	x := effect{server: w.search.servers.id(e.Server, id), spends: e.Spends, beyond: e.Beyond, counts: e.Counts, err: e.Err}
	for _, m := range e.Messages {
		if to := w.search.protocol.To(m); to < 1 || to > w.n {
			x.err = cmp.Or(x.err, fmt.Errorf("a message is sent to server %d; there are %d servers", to, w.n))
			continue
		}
		x.messages = append(x.messages, w.search.messages.id(m, 0))
	}
	return x
}

func (w *worker[S, M, G]) observe(history, server uint32) observed {
	key := uint64(history)<<32 | uint64(server)
	if o, ok := w.observed[key]; ok {
		return o
	}
	o, ok := w.search.observed.get(key)
	if !ok {
		g, err := w.search.protocol.Observe(w.search.histories.at(history).value, w.search.servers.at(server).value)
		o = observed{history: w.search.histories.id(g, 0), err: err}
		w.search.observed.put(key, o)
	}
	w.observed[key] = o
	return o
}

// fingerprint is the least over all namings that order the servers by their
// keys. Since the keys do not depend on names, states that differ in names only
// have the same.
func (w *worker[S, M, G]) fingerprint(st state) fingerprint {
	if w.search.bounds.Named {
		return w.under(st, 0)
	}
	var keys [maxServers]uint64
	var places [maxServers]uint8
	for i := range w.n {
		key := w.search.servers.at(st[i]).key
		j := i
		for ; j > 0 && keys[j-1] > key; j-- {
			keys[j], places[j] = keys[j-1], places[j-1]
		}
		keys[j], places[j] = key, uint8(i)
	}
	ties := 0
	for i := 1; i < w.n; i++ {
		if keys[i-1] == keys[i] {
			ties |= 1 << (i - 1)
		}
	}
	var least fingerprint
	for i, order := range w.search.namings.orders[ties] {
		code := 0
		for name, rank := range order {
			code |= name << (3 * places[rank])
		}
		if f := w.under(st, int(w.search.namings.byCode[code])); i == 0 || f.less(least) {
			least = f
		}
	}
	return least
}

// under returns the fingerprint under one naming: the sum of those of its parts,
// each of which says whose it is.
func (w *worker[S, M, G]) under(st state, naming int) fingerprint {
	s := w.search
	f := s.histories.print(s.histories.at(st[w.n]), naming)
	f = f.plus(scatter(w.spent(st)))
	for i := range w.n {
		f = f.plus(s.servers.print(s.servers.at(st[i]), naming))
	}
	for _, m := range w.inFlight(st) {
		f = f.plus(s.messages.print(s.messages.at(m), naming))
	}
	return f
}

// scatter spreads a small number over a fingerprint (the finalizer of
// MurmurHash3).
func scatter(n uint32) fingerprint {
	mix := func(x uint64) uint64 {
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		return x ^ x>>33
	}
	x := uint64(n) + 0x9e3779b97f4a7c15
	return fingerprint{mix(x), mix(x ^ 0xd6e8feb86659fd93)}
}
