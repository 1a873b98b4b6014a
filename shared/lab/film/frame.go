package film

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
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
	//	role, term, vote         Figure 2, as far as the stage has them
	//	snapshot                 [index, term] that its snapshot covers
	//	commit, applied          indexes
	//	config                   {"now":[…],"next":[…],"learners":[…]}
	//	votes                    the servers that voted for a candidate
	//	progress                 [[server, nextIndex, matchIndex], …] of a leader
	//	log                      {"from":i,"entries":[[term,"content"],…]}: the
	//	                         entries from i on are now these
	JSON []byte
}

// recorder gathers a film while it is played. It is a trace.Sink and a
// sim.Watcher.
type recorder struct {
	film    *Film
	servers map[uint64]*known

	// step is the present step, size the bytes gathered so far, and full is true
	// once there may be no more.
	step uint64
	size int
	full bool
}

// known is what the frames so far say about a server.
type known struct {
	up, paused bool
	state      node.State
	entries    []node.Entry

	// now is memory for the next state.
	now node.State
}

func newRecorder(f *Film) *recorder { return &recorder{film: f, servers: make(map[uint64]*known)} }

// perEvent is roughly how many bytes an event takes in memory, apart from its
// texts.
const perEvent = 300

func (r *recorder) event(e trace.Event) {
	if r.full {
		return
	}
	r.film.Events = append(r.film.Events, e)
	r.grow(perEvent + len(e.Message) + len(e.Text))
	if e.Kind == trace.Pause || e.Kind == trace.Resume {
		if k := r.servers[e.Node]; k != nil {
			k.paused = e.Kind == trace.Pause
			r.add(e.Node, fmt.Appendf(r.begin(e.Node), `,"paused":%t}`, k.paused))
		}
	}
}

func (r *recorder) grow(n int) {
	r.size += n
	r.full = r.full || r.size > MaxBytes
}

// begin begins a frame; add ends it.
func (r *recorder) begin(id uint64) []byte {
	return fmt.Appendf(nil, `{"step":%d,"server":%d`, r.step, id)
}

func (r *recorder) add(id uint64, text []byte) {
	if !r.full {
		r.film.Frames = append(r.film.Frames, Frame{Step: r.step, Server: id, JSON: text})
		r.grow(len(text))
	}
}

// Started, Stopped and Stepped implement sim.Watcher.
func (r *recorder) Started(id uint64) { r.servers[id] = &known{} }

func (r *recorder) Stopped(id uint64, _ bool) {
	if k := r.servers[id]; k != nil && k.up {
		r.add(id, append(r.begin(id), `,"up":false}`...))
	}
	delete(r.servers, id)
}

func (r *recorder) Stepped(id uint64, s node.Server, _ bool) error {
	k := r.servers[id]
	if k == nil || r.full {
		return nil
	}
	b := r.begin(id)
	empty := len(b)
	if !k.up {
		k.up = true
		b = append(b, `,"up":true`...)
	}
	if in, ok := s.(node.Inspector); ok {
		in.Inspect(&k.now)
		b = k.differences(b, in)
	}
	if len(b) > empty {
		r.add(id, append(b, '}'))
	}
	return nil
}

// differences appends the fields in which a server differs from what is known.
func (k *known) differences(b []byte, in node.Inspector) []byte {
	was, now := &k.state, &k.now
	number := func(name string, a, b2 uint64) {
		if a != b2 {
			b = strconv.AppendUint(strict.AppendName(b, name), b2, 10)
		}
	}
	if was.Role != now.Role {
		b = strict.AppendString(strict.AppendName(b, "role"), now.Role)
	}
	number("term", was.Term, now.Term)
	number("vote", was.Vote, now.Vote)
	if was.SnapIndex != now.SnapIndex || was.SnapTerm != now.SnapTerm {
		b = fmt.Appendf(strict.AppendName(b, "snapshot"), "[%d,%d]", now.SnapIndex, now.SnapTerm)
	}
	number("commit", was.Commit, now.Commit)
	number("applied", was.Applied, now.Applied)
	if !sameVoters(was.Config, now.Config) {
		b = append(strict.AppendName(b, "config"), '{')
		b = strict.AppendNumbers(b, "now", now.Config.Now)
		b = strict.AppendNumbers(b, "next", now.Config.Next)
		b = append(strict.AppendNumbers(b, "learners", now.Config.Learners), '}')
	}
	if !slices.Equal(was.Votes, now.Votes) {
		b = strict.AppendNumbers(b, "votes", now.Votes)
	}
	if !slices.Equal(was.Progress, now.Progress) {
		b = strict.AppendArray(b, "progress", now.Progress, func(b []byte, p node.Progress) []byte {
			return fmt.Appendf(b, "[%d,%d,%d]", p.ID, p.Next, p.Match)
		})
	}
	b = k.log(b, in)
	was.Role, was.Term, was.Vote, was.SnapIndex, was.SnapTerm = now.Role, now.Term, now.Vote, now.SnapIndex, now.SnapTerm
	was.Commit, was.Applied, was.Last = now.Commit, now.Applied, now.Last
	was.Config = node.Voters{Now: slices.Clone(now.Config.Now), Next: slices.Clone(now.Config.Next), Learners: slices.Clone(now.Config.Learners)}
	was.Votes = append(was.Votes[:0], now.Votes...)
	was.Progress = append(was.Progress[:0], now.Progress...)
	return b
}

func sameVoters(a, b node.Voters) bool {
	return slices.Equal(a.Now, b.Now) && slices.Equal(a.Next, b.Next) && slices.Equal(a.Learners, b.Learners)
}

// log appends what is new in a log. entries[i] is the entry at SnapIndex+1+i of the
// state that is known.
func (k *known) log(b []byte, in node.Inspector) []byte {
	start, now := k.state.SnapIndex, &k.now
	if now.SnapIndex > start {
		k.entries = k.entries[min(now.SnapIndex-start, uint64(len(k.entries))):]
	} else if now.SnapIndex < start {
		k.entries = k.entries[:0] // it came back with an older snapshot
	}
	old := now.SnapIndex + uint64(len(k.entries))
	from := now.SnapIndex + 1
	for ; from <= min(old, now.Last); from++ {
		if a, e := k.entries[from-now.SnapIndex-1], in.Entry(from); a.Term != e.Term || !same(a.Data, e.Data) {
			break
		}
	}
	if from > now.Last && old <= now.Last {
		return b
	}
	k.entries = k.entries[:from-now.SnapIndex-1]
	b = fmt.Appendf(strict.AppendName(b, "log"), `{"from":%d,"entries":[`, from)
	for i := from; i <= now.Last; i++ {
		e := in.Entry(i)
		k.entries = append(k.entries, e)
		b = fmt.Appendf(strict.AppendComma(b), "[%d,", e.Term)
		b = append(strict.AppendString(b, string(bytes.ToValidUTF8(e.Data, []byte("�")))), ']')
	}
	return append(b, "]}"...)
}

// same reports whether two entries hold the same, without reading them if they
// share their memory.
func same(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}
