// Package toy is a small replicated store for the tests of the simulator and its
// checkers: one permanent leader, which sends its log to all. It is correct as
// long as no election is needed, and it can be broken in several ways, to see
// whether a checker notices.
package toy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Flaws are the errors that it can have. With the zero value it is correct.
type Flaws struct {
	// Forgets makes it store nothing on the disk.
	Forgets bool

	// Hasty makes the leader apply and answer before any other server has the
	// write.
	Hasty bool

	// Eager makes a follower apply whatever it receives, when it receives it.
	Eager bool

	// Disordered makes it send to the others in the order of a map.
	Disordered bool

	// Twice makes it answer every request twice.
	Twice bool

	// Garbled makes it add something to every tenth line it sends.
	Garbled bool

	// Stale makes followers answer reads from their own state.
	Stale bool
}

// Ops are the operations that it understands.
var Ops = func() api.Ops {
	ops := api.Commands()
	ops[api.Status] = api.Op{}
	return ops
}()

// New returns a factory of servers with these flaws.
func New(f Flaws) node.Factory {
	return func(w node.World) (node.Server, error) {
		s := &Server{world: w, flaws: f, store: kv.NewStore(), have: make(map[uint64]int)}
		for _, m := range w.Config.Members {
			s.have[m.ID] = 0
		}
		return s, s.recover()
	}
}

// Server is one server.
type Server struct {
	world node.World
	flaws Flaws
	store *kv.Store

	log    []json.RawMessage
	commit int
	dirty  bool

	// acks are the servers that must be told how much of the log is here.
	acks []uint64

	// file holds the first saved entries of the log.
	file  disk.File
	size  int64
	saved int

	// have is how much of the log each server is known to have.
	have map[uint64]int

	// old is how much of the log from before a restart must still be committed.
	old int

	waiting []waiter
	ticks   int
}

type waiter struct {
	index   int
	request api.Request
	reply   func(api.Response)
}

// message is a message of the leader, or the answer to it.
type message struct {
	From   int               `json:"from,omitempty"`
	Log    []json.RawMessage `json:"log,omitempty"`
	Commit int               `json:"commit,omitempty"`
	Have   int               `json:"have,omitempty"`
	Ask    bool              `json:"ask,omitempty"`
}

const name = "log"

// recover reads the log, one entry per line, up to the first incomplete one.
func (s *Server) recover() error {
	data, err := disk.ReadFile(s.world.Disk, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole || !json.Valid(line) {
			break
		}
		s.log, data = append(s.log, line), rest
	}
	s.old = len(s.log)
	// What follows the last whole line must go: into a new file, in one step.
	content := s.unsaved()
	if s.file, err = disk.Replace(s.world.Disk, name, content); err != nil {
		return err
	}
	s.size = int64(len(content))
	return nil
}

// unsaved returns the entries that are not in the file yet.
func (s *Server) unsaved() []byte {
	var b []byte
	for ; s.saved < len(s.log); s.saved++ {
		b = append(append(b, s.log[s.saved]...), '\n')
	}
	return b
}

// save appends the entries that are not in the file yet.
func (s *Server) save() error {
	b := s.unsaved()
	if len(b) == 0 {
		return nil
	}
	n, err := s.file.WriteAt(b, s.size)
	if err != nil {
		return err
	}
	s.size += int64(n)
	return s.file.Sync()
}

func (s *Server) leads() bool { return s.world.ID == s.world.Config.Leader }

// Tick sends the log from time to time.
func (s *Server) Tick() {
	if s.ticks++; s.ticks%5 == 0 && s.leads() {
		s.broadcast()
	}
}

// Receive processes the leader's log, or a follower's answer.
func (s *Server) Receive(from uint64, line []byte) {
	var m message
	if json.Unmarshal(line, &m) != nil {
		return
	}
	switch {
	case !m.Ask:
		s.have[from] = max(s.have[from], m.Have)
	case m.From < 0 || m.From > len(s.log):
		s.acks = append(s.acks, from)
	case m.From+len(m.Log) > len(s.log):
		s.log, s.dirty = append(s.log, m.Log[len(s.log)-m.From:]...), true
		fallthrough
	default:
		if s.flaws.Eager {
			s.applyNow(m.Log)
		} else {
			s.apply(min(m.Commit, len(s.log)))
		}
		s.acks = append(s.acks, from)
	}
}

// applyNow applies entries as they arrive, in any order.
func (s *Server) applyNow(log []json.RawMessage) {
	for _, text := range log {
		s.applyOne(text, 0)
	}
}

// Request reads, or appends to the log.
func (s *Server) Request(r api.Request, reply func(api.Response)) {
	if s.flaws.Twice {
		once := reply
		reply = func(r api.Response) { once(r); once(r) }
	}
	switch {
	case r.Op == api.Status:
		role := map[bool]string{true: "leader", false: "follower"}[s.leads()]
		reply(api.Response{ID: r.ID, Data: fmt.Appendf(nil, `{"id":%d,"role":%q,"term":1,"leader":%d}`, s.world.ID, role, s.world.Config.Leader)})
	case api.OnlyReads(r.Op) && (s.leads() || s.flaws.Stale):
		if s.commit < s.old && s.leads() {
			reply(api.Failed(r.ID, &api.Error{Code: api.Unavailable, Message: "not ready", Definite: true}))
			return
		}
		reply(api.Read(r, s.store))
	case !s.leads():
		reply(api.Failed(r.ID, &api.Error{Code: api.NotLeader, Message: "a follower", Leader: s.world.Config.Address(s.world.Config.Leader), Definite: true}))
	default:
		s.log, s.dirty = append(s.log, r.Command().AppendJSON(nil)), true
		s.waiting = append(s.waiting, waiter{len(s.log), r, reply})
	}
}

// Flush saves, sends, applies and answers.
func (s *Server) Flush() error {
	if s.dirty && !s.flaws.Forgets {
		if err := s.save(); err != nil {
			return err
		}
	}
	if s.dirty && s.leads() {
		s.broadcast()
	}
	s.dirty = false
	// An answer says what is on the disk, so it comes after the save.
	for _, to := range s.acks {
		s.send(to, message{Have: len(s.log)})
	}
	s.acks = s.acks[:0]
	s.advance()
	return nil
}

// advance commits the entries that a majority has.
func (s *Server) advance() {
	if !s.leads() {
		return
	}
	s.have[s.world.ID] = len(s.log)
	for k := len(s.log); k > s.commit; k-- {
		n := 0
		for _, m := range s.world.Config.Members {
			if s.have[m.ID] >= k {
				n++
			}
		}
		if 2*n > len(s.world.Config.Members) || s.flaws.Hasty {
			s.apply(k)
			break
		}
	}
}

func (s *Server) apply(k int) {
	for s.commit < k {
		s.commit++
		result := s.applyOne(s.log[s.commit-1], s.commit)
		if len(s.waiting) > 0 && s.waiting[0].index == s.commit {
			w := s.waiting[0]
			s.waiting = s.waiting[1:]
			r := api.Result(w.request.ID, w.request.Op, result)
			r.Index = uint64(s.commit)
			w.reply(r)
		}
	}
}

func (s *Server) applyOne(text json.RawMessage, index int) kv.Result {
	c, err := kv.Decode(text)
	if err != nil {
		panic(err)
	}
	if s.world.Trace != nil {
		s.world.Trace(trace.Event{Kind: trace.Apply, Index: uint64(index), Message: string(text)})
	}
	return s.store.Apply(c)
}

func (s *Server) broadcast() {
	if s.flaws.Disordered {
		for id := range s.have {
			s.update(id)
		}
		return
	}
	for _, member := range s.world.Config.Members {
		s.update(member.ID)
	}
}

// most is the largest number of entries in a message.
const most = 50

// update sends a server the entries that it is not known to have.
func (s *Server) update(id uint64) {
	if id != s.world.ID {
		from := min(s.have[id], len(s.log))
		to := min(from+most, len(s.log))
		s.send(id, message{From: from, Log: s.log[from:to], Commit: min(s.commit, to), Ask: true})
	}
}

func (s *Server) send(to uint64, m message) {
	line, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	if s.flaws.Garbled && s.world.Rand.IntN(10) == 0 {
		line = append(line, " {"...)
	}
	s.world.Send(to, line)
}
