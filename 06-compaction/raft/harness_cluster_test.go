package raft

import (
	"fmt"
	"slices"
)

// disk is what a server has saved: what a crash leaves.
type disk struct {
	state State

	// base is the place before the first entry of log.
	base Position
	log  []Entry

	// snapshot are the entries that the snapshot stands for.
	snapshot []Entry

	// whole is what all returns; nil until something was saved.
	whole []Entry
}

// all returns all entries that the server has after a crash: those of its
// snapshot, and those that follow in its log if it goes on from there.
func (d *disk) all() []Entry {
	if d.whole == nil {
		return d.join()
	}
	return d.whole
}

func (d *disk) join() []Entry {
	k := len(d.snapshot)
	if k == 0 && d.base.Index == 0 {
		return d.log
	}
	all := make([]Entry, max(k, int(d.base.Index)), int(d.base.Index)+len(d.log)+k)
	copy(all, d.snapshot)
	at := k - int(d.base.Index) // entries of the log that the snapshot covers
	if at <= 0 {
		return append(all, d.log...)
	}
	if at <= len(d.log) && d.log[at-1].Term == d.snapshot[k-1].Term {
		all = append(all, d.log[at:]...)
	}
	return all
}

// save writes an output, record by record: the state, the truncation, each
// entry. After limit records the power fails; a limit below 0 is none. A log that
// replaces the old one is one record.
func (d *disk) save(r *Raft, out Output, limit int) {
	if out.Rewrite {
		if limit != 0 {
			d.state = r.Status().State
			d.base, d.log = r.Saved()
			d.log = slices.Clone(d.log)
			d.whole = d.join()
		}
		return
	}
	defer func() { d.whole = d.join() }()
	if out.State != nil && limit != 0 {
		d.state = *out.State
		limit--
	}
	if out.Truncate != 0 && limit != 0 {
		// Others may hold the old log, so the next entry moves to fresh memory.
		i := int(out.Truncate-d.base.Index) - 1
		d.log = d.log[:i:i]
		limit--
	}
	for _, e := range out.Append {
		if limit == 0 {
			return
		}
		d.log = append(d.log, e)
		limit--
	}
}

func (d *disk) last() Position {
	all := d.all()
	if len(all) == 0 {
		return Position{}
	}
	e := all[len(all)-1]
	return Position{e.Term, e.Index}
}

// server is one server of a test: its rules, its disk, its state machine.
type server struct {
	id   ID
	disk disk

	// raft is nil while the server is down.
	raft *Raft

	// held is true while inputs gather before one Take: the group commit.
	held bool

	// powerFails says that the next save ends after so many records, and the
	// server with it; below 0 it does not.
	powerFails int

	// applied are the entries that the state machine received in this life.
	applied []Entry

	// copy is a backup of the disk. replaced says that the disk was emptied, or
	// that the backup took its place: then it may lack what it had promised.
	copy     disk
	replaced bool

	// seen is what the invariants remember of this server.
	seen seen

	// stage is what this stage's part of the tests remembers of it.
	stage stage
}

// cluster is some servers and the network between them. It carries outputs out
// as a driver must, and checks the invariants after each.
type cluster struct {
	servers []*server

	// network holds the messages in flight, the oldest first.
	network []Message

	// cut reports whether messages from one server to another get lost.
	cut func(from, to ID) bool

	// options completes the options of a server that starts.
	options func(s *server, o Options) Options

	// tell receives the trace, line by line, unless it is nil.
	tell func(line string)

	// broken receives the invariants that do not hold, by name.
	broken func(name, format string, args ...any)

	// counts is how often something happened: decisions by their code, and what
	// the cluster itself does.
	counts map[string]int

	ghost ghost
}

// newCluster returns a cluster whose servers have not started.
func newCluster(n int) *cluster {
	c := &cluster{
		cut:     func(ID, ID) bool { return false },
		options: func(_ *server, o Options) Options { return o },
		broken:  func(name, format string, args ...any) { panic(name + ": " + fmt.Sprintf(format, args...)) },
		counts:  map[string]int{},
		ghost:   newGhost(),
	}
	for i := range n {
		c.servers = append(c.servers, &server{id: ID(i + 1), powerFails: -1})
	}
	return c
}

func (c *cluster) server(id ID) *server { return c.servers[id-1] }

func (c *cluster) members() []ID {
	var ids []ID
	for _, s := range c.servers {
		ids = append(ids, s.id)
	}
	return ids
}

// start starts a server with what is on its disk.
func (c *cluster) start(s *server) {
	s.raft = New(c.options(s, s.startOptions(c.members())))
	s.applied, s.held, s.powerFails = slices.Clip(s.disk.snapshot), false, -1
	s.seen.restart()
	if s.raft.out.Rewrite {
		c.counts["snapshot ahead of its log"]++
	}
	c.flush(s)
}

// crash ends a server. What it has not saved is lost.
func (c *cluster) crash(s *server) {
	c.counts["crash"]++
	s.raft, s.held, s.powerFails = nil, false, -1
}

// replaceDisk puts another disk into a server that is down.
func (c *cluster) replaceDisk(s *server, d disk) {
	s.disk, s.seen, s.replaced = d, seen{}, true
}

// input gives a server one input and carries out what follows. A server whose
// own checks fail stops, as its process would.
func (c *cluster) input(s *server, f func(r *Raft)) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		why, is := p.(Contradiction)
		if !is {
			panic(p)
		}
		if why.Forgot && s.replaced {
			c.say(func() string { return fmt.Sprintf(effect+"%v stops: %s", s.id, why.Text) })
		} else {
			c.broken(ownCheck, "%s", why.Text)
		}
		c.crash(s)
	}()
	if s.raft == nil {
		return
	}
	f(s.raft)
	if !s.held {
		c.flush(s)
	}
}

// flush carries out outputs until there is nothing more to do.
func (c *cluster) flush(s *server) {
	for s.raft != nil {
		out := s.raft.Take()
		if out.Empty() {
			return
		}
		c.carryOut(s, out)
	}
}

// carryOut does what a driver does with an output, in the order of its fields.
func (c *cluster) carryOut(s *server, out Output) {
	for _, why := range out.Reasons {
		c.counts[why.Rule.Code]++
		c.say(func() string { return fmt.Sprintf(effect+"%v (%s)", why, why.Rule.Section) })
	}
	grown := c.checkCommit(s)
	c.send(s, out.Early)
	limit := s.powerFails
	if out.State == nil && out.Truncate == 0 && out.Append == nil && !out.Rewrite {
		limit = -1
	}
	c.say(func() string { return effect + words(s.id, out, limit) })
	s.disk.save(s.raft, out, limit)
	if limit >= 0 {
		c.counts["power cut in a save"]++
		c.crash(s)
		c.checkDisk(s)
		c.checkCompleteness()
		return
	}
	c.send(s, out.Messages)
	c.apply(s, out.Committed)
	c.stageOutput(s, out)
	c.check(s, grown)
}

func (c *cluster) send(s *server, messages []Message) {
	for _, m := range messages {
		if !s.fill(&m) {
			continue
		}
		c.checkMessage(s, m)
		c.network = append(c.network, m)
	}
}

func (c *cluster) apply(s *server, entries []Entry) {
	for _, e := range entries {
		c.checkApply(s, e)
		s.applied = append(s.applied, e)
	}
}

// take removes a message from the network and returns it.
func (c *cluster) take(i int) Message {
	m := c.network[i]
	c.network = slices.Delete(c.network, i, i+1)
	return m
}

// arrive gives a message to its receiver, or loses it on the way.
func (c *cluster) arrive(m Message) {
	to := c.server(m.To)
	switch {
	case c.cut(m.From, m.To):
		c.counts["lost"]++
		c.say(func() string { return describe(m) + " is lost" })
	case to.raft == nil:
		c.counts["lost"]++
		c.say(func() string { return fmt.Sprintf("%s is lost: %v is down", describe(m), m.To) })
	default:
		c.say(func() string { return describe(m) })
		c.input(to, func(r *Raft) { r.Step(m) })
	}
}

// settle delivers messages, the oldest first, until none is left.
func (c *cluster) settle() {
	for range 10_000 {
		if len(c.network) == 0 {
			return
		}
		c.arrive(c.take(0))
	}
	panic("the servers do not stop talking")
}

// effect stands before a line of the trace that tells what an input caused.
const effect = "    "

func (c *cluster) say(line func() string) {
	if c.tell == nil {
		return
	}
	if l := line(); l != effect {
		c.tell(l)
	}
}
