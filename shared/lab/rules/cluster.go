package rules

import (
	"fmt"
	"slices"
)

// Server is one server of a test: its rules, its disk, its state machine.
type Server[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	ID   ID
	Disk Disk[E]

	// Raft is nil while the server is down.
	Raft R

	// Held is true while inputs gather before one output: the group commit.
	Held bool

	// PowerFails says that the next save ends after so many records, and the
	// server with it; below 0 it does not.
	PowerFails int

	// Applied are the entries that the state machine received in this life.
	Applied []E

	// backup is a copy of the disk. Replaced says that the disk was emptied, or
	// that the backup took its place: then it may lack what it had promised.
	backup   Disk[E]
	Replaced bool

	// seen is what the invariants remember of this server.
	seen seen[E]

	// reads are those that wait: for each, how much was committed when it began.
	reads map[uint64]uint64

	// Draws are the random numbers that Draw returns next.
	Draws []uint64

	// Stage is what the stage's part of the tests remembers of it.
	Stage S
}

// Up reports whether the server runs.
func (s *Server[R, E, M, S]) Up() bool {
	var down R
	return s.Raft != down
}

// view returns what the server believes if it runs.
func (s *Server[R, E, M, S]) view() (v View, up bool) {
	if !s.Up() {
		return View{}, false
	}
	return s.Raft.View(), true
}

// Leads reports whether the server runs and leads.
func (s *Server[R, E, M, S]) Leads() bool {
	v, _ := s.view()
	return v.Leads
}

// Cluster is some servers and the network between them. It carries outputs out
// as a driver must, and checks the invariants after each.
type Cluster[R Raft[E, M], E Entry[E], M Message[E], S any] struct {
	Servers []*Server[R, E, M, S]

	// Network holds the messages in flight, the oldest first.
	Network []M

	// MaxBatch is the size limit of an AppendEntries; Random draws the random
	// numbers of the servers, if it is not nil. New respects both.
	MaxBatch int
	Random   func(n uint64) uint64

	// Broken receives the invariants that do not hold, by name.
	Broken func(name, format string, args ...any)

	// Counts is how often something happened: decisions by their code, and what
	// the cluster itself does.
	Counts map[string]int

	Ghost Ghost[E]

	stage *Stage[R, E, M, S]

	// cut reports whether messages from one server to another get lost.
	cut func(from, to ID) bool

	// tell receives the trace, line by line, unless it is nil.
	tell func(line string)
}

// newCluster returns a cluster whose servers have not started.
func newCluster[R Raft[E, M], E Entry[E], M Message[E], S any](stage *Stage[R, E, M, S], n int) *Cluster[R, E, M, S] {
	c := &Cluster[R, E, M, S]{
		MaxBatch: 1000,
		cut:      func(ID, ID) bool { return false },
		Counts:   map[string]int{},
		Ghost:    newGhost[E](),
		stage:    stage,
	}
	for i := range n {
		c.Servers = append(c.Servers, &Server[R, E, M, S]{ID: ID(i + 1), PowerFails: -1})
	}
	return c
}

// Server returns a server by its name.
func (c *Cluster[R, E, M, S]) Server(id ID) *Server[R, E, M, S] { return c.Servers[id-1] }

// Start starts a server with what is on its disk.
func (c *Cluster[R, E, M, S]) Start(s *Server[R, E, M, S]) {
	s.reads = map[uint64]uint64{}
	s.Raft = c.stage.New(c, s)
	s.Applied, s.Held, s.PowerFails = slices.Clip(s.Disk.Snapshot), false, -1
	s.seen.restart()
	if s.Raft.View().Rewrites {
		c.Counts["snapshot ahead of its log"]++
	}
	c.flush(s)
}

// Crash ends a server. What it has not saved is lost.
func (c *Cluster[R, E, M, S]) Crash(s *Server[R, E, M, S]) {
	c.Counts["crash"]++
	var down R
	s.Raft, s.Held, s.PowerFails = down, false, -1
}

// replaceDisk puts another disk into a server that is down.
func (c *Cluster[R, E, M, S]) replaceDisk(s *Server[R, E, M, S], d Disk[E]) {
	s.Disk, s.seen, s.Replaced = d, seen[E]{}, true
}

// Input gives a server one input and carries out what follows. A server whose
// own checks fail stops, as its process would.
func (c *Cluster[R, E, M, S]) Input(s *Server[R, E, M, S], f func(r R)) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		why, is := p.(Contradiction)
		if !is {
			panic(p)
		}
		forgot, text := why.Contradiction()
		if forgot && s.Replaced {
			c.Say(func() string { return fmt.Sprintf(Effect+"%v stops: %s", s.ID, text) })
		} else {
			c.Broken(OwnCheck, "%s", text)
		}
		c.Crash(s)
	}()
	if !s.Up() {
		return
	}
	f(s.Raft)
	if !s.Held {
		c.flush(s)
	}
}

// flush carries out outputs until there is nothing more to do.
func (c *Cluster[R, E, M, S]) flush(s *Server[R, E, M, S]) {
	for s.Up() {
		out, is := s.Raft.NextOutput()
		if !is {
			return
		}
		c.carryOut(s, out)
	}
}

// carryOut does what a driver does with an output, in the order of its fields.
func (c *Cluster[R, E, M, S]) carryOut(s *Server[R, E, M, S], out Output[E, M]) {
	for _, why := range out.Reasons {
		c.Counts[why.Code]++
		c.Say(func() string { return Effect + why.String() })
	}
	grown := c.checkCommit(s)
	c.send(s, out.Early)
	limit := s.PowerFails
	if out.State == nil && out.Truncate == 0 && out.Append == nil && !out.Rewrite {
		limit = -1
	}
	c.Say(func() string { return Effect + c.words(s.ID, out, limit) })
	Save(&s.Disk, s.Raft, out, limit)
	if limit >= 0 {
		c.Counts["power cut in a save"]++
		c.Crash(s)
		c.CheckDisk(s)
		c.checkCompleteness()
		return
	}
	c.send(s, out.Messages)
	c.apply(s, out.Committed)
	if c.stage.Output != nil {
		c.stage.Output(c, s, out)
	}
	c.check(s, grown)
}

func (c *Cluster[R, E, M, S]) send(s *Server[R, E, M, S], messages []M) {
	for _, m := range messages {
		if c.stage.Fill != nil {
			c.stage.Fill(c, s, &m)
		}
		c.checkMessage(s, m)
		c.Network = append(c.Network, m)
	}
}

func (c *Cluster[R, E, M, S]) apply(s *Server[R, E, M, S], entries []E) {
	for _, e := range entries {
		c.checkApply(s, e)
		s.Applied = append(s.Applied, e)
	}
}

// Take removes a message from the network and returns it.
func (c *Cluster[R, E, M, S]) Take(i int) M {
	m := c.Network[i]
	c.Network = slices.Delete(c.Network, i, i+1)
	return m
}

// Arrive gives a message to its receiver, or loses it on the way.
func (c *Cluster[R, E, M, S]) Arrive(m M) {
	head := m.Head()
	to := c.Server(head.To)
	switch {
	case c.cut(head.From, head.To):
		c.Counts["lost"]++
		c.Say(func() string { return Describe[E](m) + " is lost" })
	case !to.Up():
		c.Counts["lost"]++
		c.Say(func() string { return fmt.Sprintf("%s is lost: %v is down", Describe[E](m), head.To) })
	default:
		c.Say(func() string { return Describe[E](m) })
		c.Input(to, func(r R) { r.Step(m) })
	}
}

// Settle delivers messages, the oldest first, until none is left.
func (c *Cluster[R, E, M, S]) Settle() {
	for range 10_000 {
		if len(c.Network) == 0 {
			return
		}
		c.Arrive(c.Take(0))
	}
	panic("the servers do not stop talking")
}

// Effect stands before a line of the trace that tells what an input caused.
const Effect = "    "

// Say adds a line to the trace.
func (c *Cluster[R, E, M, S]) Say(line func() string) {
	if c.tell == nil {
		return
	}
	if l := line(); l != Effect {
		c.tell(l)
	}
}
