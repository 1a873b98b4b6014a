package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// machine is the computer that a server runs on. It survives a crash of the
// server.
type machine struct {
	id uint64

	// server is nil while the machine is down.
	server node.Server

	// life counts the servers that ran here. It identifies events that were
	// meant for an earlier one.
	life uint64

	// random draws how long the disk takes at each moment.
	random messages

	// disk keeps its content across restarts.
	disk *disk.Sim

	// peers is what the server remembers on its disk about the others.
	peers *node.Peers

	// ended is the error with which the last server ended itself; nil if it did
	// not.
	ended error

	// retired is true if the machine was removed forever.
	retired bool

	// linked has the servers that this one has a link to: the members from its
	// configuration, or those that it has named since. met has the servers that
	// have reached it. Both are indexed by ID.
	linked []bool
	met    []bool

	// tick is the time between two ticks; the clock may be stopped.
	tick    time.Duration
	stopped bool

	// paused is true while the server handles nothing; inbox holds what has
	// arrived.
	paused bool
	inbox  []*event

	// awaited is true if a round is already scheduled.
	awaited bool

	// latency is the range of the time from an arrival to its round. It models
	// a disk that is busy with the previous round.
	latency [2]time.Duration

	// answers wait for the end of the Flush.
	answers []answer

	// open has the unanswered requests, in order.
	open []*attempt

	// mute is how many of the next answers are lost together with their
	// connections.
	mute int
}

// answer is an answer that a server gave during a round.
type answer struct {
	attempt  *attempt
	response api.Response
}

// DefaultLatency is how long a server takes to handle an arrival.
var DefaultLatency = [2]time.Duration{0, 300 * time.Microsecond}

func (w *World) newMachine(id uint64) *machine {
	m := &machine{id: id, tick: node.TickInterval, latency: DefaultLatency}
	m.random.init(streamSeed(w.options.Seed, "machine", id))
	if w.options.Disk != nil {
		m.disk = w.options.Disk(id)
	} else {
		m.disk = disk.NewSim(node.Name(id))
	}
	return m
}

// connect is node.World.Connect: as in package host, a server can reach those
// that it names, and those that have reached it.
func (w *World) connect(m *machine, members []node.Member) {
	m.linked = make([]bool, len(w.machines)+1)
	for _, member := range members {
		if member.ID < uint64(len(m.linked)) {
			m.linked[member.ID] = true
		}
	}
	if w.carrier != nil {
		w.carrier.Linked(m.id, members)
	}
}

// InUse are the machines that were started and have not been retired, in order.
func (w *World) InUse() []uint64 {
	var ids []uint64
	for _, m := range w.machines {
		if m.life > 0 && !m.retired {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// Retire removes a machine forever: it never runs again.
func (w *World) Retire(id uint64) {
	m := w.machine(id)
	if m.retired {
		return
	}
	m.retired = true
	w.counters.Retired++
	w.emit(trace.Event{Node: id, Kind: trace.Crash, Text: "its machine is lost forever"})
	if m.server != nil {
		w.down(m, false)
	}
	m.disk.Kill()
}

func (w *World) machine(id uint64) *machine { return w.machines[id-1] }

// Server returns a running server, or nil.
func (w *World) Server(id uint64) node.Server { return w.machine(id).server }

// Disk returns a machine's disk, to break it.
func (w *World) Disk(id uint64) *disk.Sim { return w.machine(id).disk }

// Up reports whether a server runs; one that is paused does.
func (w *World) Up(id uint64) bool { return w.machine(id).server != nil }

// Paused reports whether a server runs and is paused.
func (w *World) Paused(id uint64) bool { return w.machine(id).paused }

// Running are the servers that run and are not paused, in order.
func (w *World) Running() []uint64 {
	var ids []uint64
	for _, m := range w.machines {
		if m.server != nil && !m.paused {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// Ended returns the error with which a server ended itself; nil if it has not
// done so since its last start.
func (w *World) Ended(id uint64) error { return w.machine(id).ended }

// Stops returns the errors of all servers that ended themselves or did not
// start in this run, in order.
func (w *World) Stops() []error { return w.stops }

// start starts a server on a machine that is down.
func (w *World) start(m *machine) error {
	m.life++
	m.ended, m.paused, m.awaited = nil, false, false
	m.met = make([]bool, len(w.machines)+1)
	if w.carrier != nil {
		w.carrier.Started(m.id)
	}
	w.connect(m, w.config.Members)
	life, announced := m.life, false
	world := node.World{
		ID:      m.id,
		Config:  w.ConfigOf(m.id),
		Disk:    m.disk,
		Rand:    w.stream("server", m.id, m.life),
		Send:    func(to uint64, line []byte) { w.send(m, life, to, line) },
		Connect: func(members []node.Member) { w.connect(m, members) },
		Work:    func(work func() error, done func(error)) { w.work(m, life, work, done) },
	}
	if sink := w.options.Sink; sink != nil {
		world.Trace = func(e trace.Event) {
			e.At, e.Step, e.Node = w.now, w.step, m.id
			announced = announced || e.Kind == trace.Start
			sink(e)
		}
	}
	s, err := w.options.New(world)
	var peers *node.Peers
	if err == nil {
		peers, err = node.OpenPeers(m.disk, node.IncarnationOf(s))
	}
	if err != nil {
		w.end(m, err)
		return fmt.Errorf("%s does not start: %w", node.Name(m.id), err)
	}
	if !announced {
		w.emit(trace.Event{Node: m.id, Kind: trace.Start})
	}
	m.server, m.peers = s, peers
	for _, watcher := range w.options.Watchers {
		watcher.Started(m.id)
	}
	w.stepped(m, false)
	// Each server ticks at its own moments.
	e := w.queue.add(w.now+time.Duration(w.stream("tick", m.id, life).Int64N(int64(node.TickInterval))), evTick)
	e.id, e.life = m.id, life
	w.greet(m)
	return nil
}

// stepped tells the watchers that a server has changed.
func (w *World) stepped(m *machine, flushed bool) {
	for _, watcher := range w.options.Watchers {
		if err := watcher.Stepped(m.id, m.server, flushed); err != nil {
			w.fail(err)
		}
	}
}

// Restart starts a server again on its disk, or a spare for the first time. It
// returns an error if the server does not start from its disk. A retired
// machine stays down.
func (w *World) Restart(id uint64) error {
	m := w.machine(id)
	if m.server != nil || m.retired {
		return nil
	}
	w.counters.Restarts++
	return w.start(m)
}

// Crash ends a server as kill -9 does: its memory is lost, but its machine
// keeps running and keeps everything that was written.
func (w *World) Crash(id uint64) {
	m := w.machine(id)
	if m.server == nil {
		return
	}
	w.counters.Crashes++
	w.emit(trace.Event{Node: id, Kind: trace.Crash, Text: "its process is killed"})
	w.down(m, false)
	m.disk.Kill()
}

// PowerCut cuts the power of a machine: it loses its memory, and some or all of
// the data that its disk had not synced.
func (w *World) PowerCut(ids ...uint64) {
	for _, id := range ids {
		m := w.machine(id)
		w.counters.PowerCuts++
		w.emit(trace.Event{Node: id, Kind: trace.Crash, Text: "its power is cut"})
		if m.server != nil {
			w.down(m, false)
		}
		w.crashDisk(m)
	}
}

// ReplaceDisk puts another disk into a machine whose server is down: an empty one,
// or an older Clone of its own. Watchers that have a method Replaced are told.
func (w *World) ReplaceDisk(id uint64, d *disk.Sim) {
	w.machine(id).disk = d
	w.counters.Replaced++
	for _, watcher := range w.options.Watchers {
		if r, ok := watcher.(interface{ Replaced(id uint64) }); ok {
			r.Replaced(id)
		}
	}
}

// PowerCutAt cuts a machine's power in the middle of its nth operation on its
// disk from now; 1 is the next one.
func (w *World) PowerCutAt(id uint64, nth int) { w.machine(id).disk.CutPower(nth) }

func (w *World) crashDisk(m *machine) {
	torn := m.disk.Stats().Torn
	m.disk.Crash(w.stream("crash", m.id, m.life))
	w.counters.Torn += m.disk.Stats().Torn - torn
}

// end handles a server that ended itself or could not start.
func (w *World) end(m *machine, err error) {
	if errors.Is(err, disk.ErrPowerCut) {
		w.counters.PowerCuts++
		w.counters.PowerCutsInFlush++
		w.emit(trace.Event{Node: m.id, Kind: trace.Crash, Text: "its power is cut while it writes"})
		w.down(m, true)
		w.crashDisk(m)
		return
	}
	m.ended = err
	w.stops = append(w.stops, fmt.Errorf("%s at %v: %w", node.Name(m.id), w.now, err))
	w.counters.Stops++
	w.emit(trace.Event{Node: m.id, Kind: trace.Stop, Text: err.Error()})
	w.down(m, true)
	m.disk.Kill()
}

// down discards a server.
func (w *World) down(m *machine, torn bool) {
	m.server, m.paused, m.awaited = nil, false, false
	if w.carrier != nil {
		w.carrier.Stopped(m.id)
	}
	for _, e := range m.inbox {
		w.queue.free(e)
	}
	m.inbox, m.answers = m.inbox[:0], m.answers[:0]
	for _, a := range slices.Clone(m.open) {
		w.breakConnection(a, "because the server went down")
	}
	m.open = m.open[:0]
	for _, watcher := range w.options.Watchers {
		watcher.Stopped(m.id, torn)
	}
	w.revive(m)
}

// Pause pauses a server: its clock stops, and what arrives waits.
func (w *World) Pause(id uint64) {
	m := w.machine(id)
	if m.server == nil || m.paused {
		return
	}
	m.paused = true
	w.counters.Pauses++
	w.emit(trace.Event{Node: id, Kind: trace.Pause})
}

// madeUp is the largest number of ticks that a server gets for the time of its
// pause, as in package host: to the server, little time has passed.
const madeUp = 3

// Resume ends a pause. The server handles what has arrived before its clock
// ticks.
func (w *World) Resume(id uint64) {
	m := w.machine(id)
	if m.server == nil || !m.paused {
		return
	}
	m.paused = false
	w.emit(trace.Event{Node: id, Kind: trace.Resume})
	w.jump(m, madeUp)
}

// JumpClock moves a server's clock ahead by some ticks at once.
func (w *World) JumpClock(id uint64, ticks int) {
	m := w.machine(id)
	if m.server == nil || m.paused {
		return
	}
	w.counters.ClockJumps++
	w.jump(m, ticks)
}

func (w *World) jump(m *machine, ticks int) {
	w.handle(m)
	for range ticks {
		w.tickServer(m)
	}
	w.flush(m)
}

// SetClock sets the speed of a server's clock: 1 is right, 1.1 is a tenth too
// fast, 0 stops it.
func (w *World) SetClock(id uint64, speed float64) {
	m := w.machine(id)
	if m.stopped = speed <= 0; !m.stopped {
		m.tick = time.Duration(float64(node.TickInterval) / speed)
	}
	for _, watcher := range w.options.Watchers {
		if c, ok := watcher.(ClockWatcher); ok {
			c.Clocked(id, uint64(math.Round(max(speed, 0)*100)))
		}
	}
}

// SetLatency sets how long a server takes to handle an arrival: a slow disk
// leads to large rounds.
func (w *World) SetLatency(id uint64, r [2]time.Duration) { w.machine(id).latency = r }

// tick is one tick of a server's clock.
func (w *World) tick(e *event) {
	m := w.machine(e.id)
	if m.server == nil || m.life != e.life {
		return
	}
	next := w.queue.add(w.now+m.tick, evTick)
	next.id, next.life = m.id, m.life
	if m.paused || m.stopped {
		return
	}
	w.handle(m)
	w.tickServer(m)
	w.flush(m)
}

func (w *World) tickServer(m *machine) {
	if m.server == nil || w.err != nil {
		return
	}
	w.counters.Ticks++
	m.server.Tick()
	w.stepped(m, false)
}

// enqueue puts an event into a server's inbox, to be handled in a round.
func (w *World) enqueue(m *machine, e *event) {
	m.inbox = append(m.inbox, e)
	if m.paused || m.awaited {
		return
	}
	if wait := between(m.random.of(uint64(w.now)), m.latency); wait > 0 {
		m.awaited = true
		r := w.queue.add(w.now+wait, evRound)
		r.id, r.life = m.id, m.life
		return
	}
	w.round(m, m.life)
}

// round handles what has arrived and flushes once: the group commit.
func (w *World) round(m *machine, life uint64) {
	if m.server == nil || m.life != life {
		return
	}
	m.awaited = false
	if m.paused || len(m.inbox) == 0 {
		return
	}
	w.handle(m)
	w.flush(m)
}

// handle steps everything in a server's inbox.
func (w *World) handle(m *machine) {
	for i := 0; i < len(m.inbox) && w.err == nil; i++ {
		e := m.inbox[i]
		switch e.kind {
		case evDeliver:
			w.traceDelivery(e)
			m.server.Receive(e.from, e.line)
		case evRequest:
			w.handleRequest(m, e)
		}
		w.queue.free(e)
		w.stepped(m, false)
	}
	m.inbox = m.inbox[:0]
}

// flush ends a round. Answers leave only if the server has saved what they
// promise.
func (w *World) flush(m *machine) {
	if m.server == nil || w.err != nil {
		return
	}
	w.counters.Flushes++
	err := m.server.Flush()
	if err == nil && m.disk.PowerIsCut() {
		err = disk.ErrPowerCut // a server may continue after a failed operation, but not without power
	}
	if err != nil {
		w.end(m, err)
		return
	}
	w.stepped(m, true)
	for _, a := range m.answers {
		w.answer(m, a)
	}
	m.answers = m.answers[:0]
}
