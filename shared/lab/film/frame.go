package film

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
	"example.com/raftsteps/shared/lab/sim"
)

// Frame says how a server has changed.
type Frame struct {
	// Step is the step that changed it, Server which server.
	Step   uint64
	Server uint64

	// JSON is an object with the fields that differ from the server's previous
	// frame, and step and server:
	//
	//	up, paused               is it running
	//	clock                    the speed of its clock in percent; 100 at first
	//	role, term, vote         Figure 2, as far as the stage has them
	//	snapshot                 [index, term] that its snapshot covers
	//	commit, applied          indexes
	//	config                   {"now":[…],"next":[…],"learners":[…]}
	//	votes                    the servers that voted for a candidate
	//	progress                 [[server, nextIndex, matchIndex], …] of a leader
	//	timer                    [at, elapsed, timeout]: the ticks of the election
	//	                         timeout that had passed at this virtual time, and
	//	                         all of them; 0 and 0 on a leader. They pass as the
	//	                         server's clock runs, unless it is paused, until a
	//	                         frame says otherwise
	//	unsynced                 [index, state]: the first entry that is only in
	//	                         memory, 0 if all are on disk; and 1 if the term or
	//	                         the vote is only in memory
	//	store                    {"key":"value",…}: null for a key that is gone
	//	keys                     how many keys the store has, if it has more than
	//	                         frames show
	//	sessions                 {"number":[ack,last,"answer"],…}: null for one that
	//	                         is gone
	//	log                      {"from":i,"entries":[[term,"content"],…]}: the
	//	                         entries from i on are now these
	JSON []byte
}

// Limits of what frames show of a state machine. The values are cut, and beyond
// mostKeys and mostSessions nothing is added.
const (
	mostValue    = 200
	mostKeys     = 300
	mostSessions = 100
)

// recorder gathers a film while it is played. It is a trace.Sink and a
// sim.Watcher.
type recorder struct {
	film    *Film
	servers map[uint64]*known

	// clocks are the speeds of the clocks that were changed, in percent. A machine
	// keeps its clock when its server starts again.
	clocks map[uint64]uint64

	// world is nil until the servers have started for the first time.
	world *sim.World

	// step is the present step, size the bytes gathered so far, and full is true
	// once there may be no more.
	step uint64
	size int
	full bool

	// text is memory for the next frame.
	text []byte
}

// known is what the frames so far say about a server.
type known struct {
	up, paused bool
	clock      uint64
	changes    node.Changes
	timer      timer

	// synced is what is on disk, unsynced what the frames say is not.
	synced   synced
	unsynced [2]uint64

	store    map[string]string
	sessions map[uint64]node.Session

	// touched are the commands applied since the last frame; all is true if more
	// has changed.
	touched []touch
	all     bool
}

// timer is an election timer as it was at a moment.
type timer struct {
	at               time.Duration
	elapsed, timeout uint64
}

// synced is what a server has on disk: the entries up to an index, a term and a
// vote.
type synced struct{ last, term, vote uint64 }

// touch is what a command may have changed.
type touch struct {
	key     string
	session uint64
}

func newRecorder(f *Film) *recorder {
	return &recorder{film: f, servers: make(map[uint64]*known), clocks: make(map[uint64]uint64)}
}

// now is the virtual time.
func (r *recorder) now() time.Duration {
	if r.world == nil {
		return 0
	}
	return r.world.Now()
}

// perEvent is roughly how many bytes an event takes in memory, apart from its
// texts.
const perEvent = 300

func (r *recorder) event(e trace.Event) {
	if r.full {
		return
	}
	r.film.Events = append(r.film.Events, e)
	r.grow(perEvent + len(e.Message) + len(e.Text))
	k := r.servers[e.Node]
	if k == nil {
		return
	}
	switch e.Kind {
	case trace.Pause, trace.Resume:
		k.paused = e.Kind == trace.Pause
		b := strconv.AppendBool(strict.AppendName(r.begin(e.Node), "paused"), k.paused)
		r.add(e.Node, append(k.election(b, r.now(), true), '}'))
	case trace.Apply:
		if c, session, _, ok := check.DecodeCommand([]byte(e.Message)); ok {
			k.touched = append(k.touched, touch{c.Key, session})
		} else {
			k.all = true
		}
	}
}

func (r *recorder) grow(n int) {
	r.size += n
	r.full = r.full || r.size > MaxBytes
}

// begin begins a frame; add ends it.
func (r *recorder) begin(id uint64) []byte {
	b := strconv.AppendUint(append(r.text[:0], `{"step":`...), r.step, 10)
	return strict.AppendNumber(b, "server", id)
}

func (r *recorder) add(id uint64, text []byte) {
	r.text = text
	if !r.full {
		r.film.Frames = append(r.film.Frames, Frame{Step: r.step, Server: id, JSON: bytes.Clone(text)})
		r.grow(len(text))
	}
}

// Clocked implements sim.ClockWatcher. A story may change a clock too.
func (r *recorder) Clocked(id, percent uint64) {
	r.clocks[id] = percent
	if k := r.servers[id]; k != nil && k.clock != percent {
		k.clock = percent
		if !k.up {
			return
		}
		b := appendClock(r.begin(id), percent)
		// The timer went at the old speed until now.
		r.add(id, append(k.election(b, r.now(), true), '}'))
	}
}

func appendClock(b []byte, percent uint64) []byte {
	return strconv.AppendUint(strict.AppendName(b, "clock"), percent, 10)
}

// Started, Stopped and Stepped implement sim.Watcher.
func (r *recorder) Started(id uint64) {
	k := &known{all: true, clock: rightClock}
	if percent, ok := r.clocks[id]; ok {
		k.clock = percent
	}
	r.servers[id] = k
}

func (r *recorder) Stopped(id uint64, _ bool) {
	if k := r.servers[id]; k != nil && k.up {
		r.add(id, append(r.begin(id), `,"up":false}`...))
	}
	delete(r.servers, id)
}

func (r *recorder) Stepped(id uint64, s node.Server, flushed bool) error {
	k := r.servers[id]
	if k == nil || r.full {
		return nil
	}
	b := r.begin(id)
	empty := len(b)
	if !k.up {
		b = append(b, `,"up":true`...)
		if k.clock != rightClock {
			b = appendClock(b, k.clock)
		}
	}
	if in, ok := s.(node.Inspector); ok {
		b = k.differences(b, in, flushed || !k.up)
		b = k.election(b, r.now(), false)
	}
	if h, ok := s.(node.StoreHolder); ok && (k.all || len(k.touched) > 0) {
		b = k.machine(b, h)
	}
	k.up = true
	if len(b) > empty {
		b = append(b, '}')
		r.add(id, b)
	}
	r.text = b
	return nil
}

// differences appends the fields in which a server differs from what is known.
// saved is true if everything is on disk by now.
func (k *known) differences(b []byte, in node.Inspector, saved bool) []byte {
	applied := k.changes.State().Applied
	b, from, _ := k.changes.Append(b, in)
	k.all = k.all || k.changes.State().SnapIndex > applied // a snapshot came
	return k.disk(b, from, saved)
}

// disk appends what is only in memory. from is the first entry that was not there
// before. A server has on disk what it had when its Flush returned, and what it
// started with.
func (k *known) disk(b []byte, from uint64, saved bool) []byte {
	now := k.changes.State()
	k.synced.last = min(k.synced.last, from-1)
	if saved {
		k.synced = synced{now.Last, now.Term, now.Vote}
	}
	var un [2]uint64
	if k.synced.last < now.Last {
		un[0] = max(k.synced.last, now.SnapIndex) + 1
	}
	if k.synced.term != now.Term || k.synced.vote != now.Vote {
		un[1] = 1
	}
	if un != k.unsynced {
		k.unsynced = un
		b = fmt.Appendf(strict.AppendName(b, "unsynced"), "[%d,%d]", un[0], un[1])
	}
	return b
}

// rightClock is the speed of a clock that is right, in percent.
const rightClock = 100

// drift is by how many ticks the election timer may differ from what follows from
// the last frame that has it.
const drift = 2

// election appends the election timer, unless it follows from what is known, or in
// any case.
func (k *known) election(b []byte, at time.Duration, always bool) []byte {
	t, now := &k.timer, k.changes.State()
	ticks := uint64((at - t.at) * time.Duration(k.clock) / 100 / node.TickInterval)
	follows := t.timeout == now.Timeout && (t.timeout == 0 || now.Elapsed >= t.elapsed && max(now.Elapsed, t.elapsed+ticks)-min(now.Elapsed, t.elapsed+ticks) < drift)
	if follows && (!always || now.Timeout == 0) {
		return b
	}
	*t = timer{at, now.Elapsed, now.Timeout}
	return fmt.Appendf(strict.AppendName(b, "timer"), "[%d,%d,%d]", at, now.Elapsed, now.Timeout)
}

// machine appends what has changed in the store and the sessions.
func (k *known) machine(b []byte, h node.StoreHolder) []byte {
	store := h.Store()
	sessions, _ := h.(node.SessionHolder)
	if store == nil {
		return b
	}
	if k.all {
		k.touched = everything(k, store, sessions)
	}
	slices.SortFunc(k.touched, func(a, b touch) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.session, b.session)) })
	open := false
	add := func(name, key string) {
		if !open {
			b = append(strict.AppendName(b, name), '{')
		}
		b = append(strict.AppendString(strict.AppendComma(b), key), ':')
		open = true
	}
	for i, t := range k.touched {
		if t.key == "" || i > 0 && k.touched[i-1].key == t.key {
			continue
		}
		old, shown := k.store[t.key]
		result := store.Get(t.key)
		value := clip(result.Value)
		switch {
		case result.Outcome == kv.NotFound && shown:
			add("store", t.key)
			b = append(b, "null"...)
			delete(k.store, t.key)
		case result.Outcome == kv.OK && (shown && old != value || !shown && len(k.store) < mostKeys):
			add("store", t.key)
			b = strict.AppendString(b, value)
			if k.store == nil {
				k.store = make(map[string]string)
			}
			k.store[t.key] = value
		}
	}
	if open {
		b = append(b, '}')
	}
	if n := uint64(store.Len()); n > mostKeys {
		b = strconv.AppendUint(strict.AppendName(b, "keys"), n, 10)
	}
	if sessions != nil {
		b = k.clients(b, sessions)
	}
	k.touched, k.all = k.touched[:0], false
	return b
}

// clients appends what has changed in the sessions.
func (k *known) clients(b []byte, h node.SessionHolder) []byte {
	open := false
	for _, t := range k.touched {
		if t.session == 0 {
			continue
		}
		old, shown := k.sessions[t.session]
		now, is := h.Session(t.session)
		if shown == is && old == now || !shown && len(k.sessions) >= mostSessions {
			continue
		}
		if !open {
			b = append(strict.AppendName(b, "sessions"), '{')
		}
		open = true
		// Numbers are drawn from 64 bits, more than a page can count.
		b = append(strict.AppendString(strict.AppendComma(b), strconv.FormatUint(t.session, 10)), ':')
		if !is {
			b = append(b, "null"...)
			delete(k.sessions, t.session)
			continue
		}
		b = fmt.Appendf(b, "[%d,%d,", now.Ack, now.Last)
		b = append(strict.AppendString(b, reply(now)), ']')
		if k.sessions == nil {
			k.sessions = make(map[uint64]node.Session)
		}
		k.sessions[t.session] = now
	}
	if open {
		b = append(b, '}')
	}
	return b
}

// everything returns what may differ between what is known of a state machine and
// what it is.
func everything(k *known, store *kv.Store, sessions node.SessionHolder) []touch {
	var all []touch
	for key := range k.store {
		all = append(all, touch{key: key})
	}
	store.Each(func(key, _ string) bool {
		all = append(all, touch{key: key})
		return true
	})
	for id := range k.sessions {
		all = append(all, touch{session: id})
	}
	if sessions != nil {
		for _, id := range sessions.Sessions() {
			all = append(all, touch{session: id})
		}
	}
	return all
}

// clip cuts a value to the length that a frame shows.
func clip(value string) string {
	if len(value) <= mostValue {
		return value
	}
	return strings.ToValidUTF8(value[:mostValue], "") + "…"
}

// reply describes the last answer of a session.
func reply(s node.Session) string {
	a := s.Answer
	switch {
	case s.Last == s.Ack:
		return ""
	case a.Outcome != kv.OK:
		return string(a.Outcome)
	case a.Value != "":
		return clip(a.Value)
	case a.Length != 0:
		return fmt.Sprintf("ok, %d bytes", a.Length)
	}
	return "ok"
}
