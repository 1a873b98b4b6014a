// Package server is one server of a cluster: the rules of Raft, a journal on
// disk, a store, and the clients that wait for an answer.
//
// It is single-threaded. Everything happens inside one of the four methods of
// node.Server, and the world outside is a disk, a function to send with and
// the ticks of a clock. So the same code runs on sockets and in the simulator.
package server

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"example.com/raftsteps/03-log-replication/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Stage is the stage's name in the journal: the journal of another stage is
// refused.
const Stage = "03-log-replication"

// journalName is the file of the journal.
const journalName = "journal"

// Ops is what a client can ask.
var Ops = func() api.Ops {
	ops := api.Commands()
	ops[api.Status] = api.Op{}
	ops[api.Hash] = api.Op{}
	ops[api.Log] = api.Op{May: api.From}
	ops[api.Lead] = api.Op{Needs: api.Term}
	return ops
}()

// maxBatch is how many bytes of commands one message carries.
const maxBatch = 1 << 20

// Server is one server. It is not safe for concurrent use.
type Server struct {
	world   node.World
	rules   *raft.Raft
	journal *journal.Journal
	store   *kv.Store

	// broken is a contradiction that the rules have found; then the server does
	// nothing more.
	broken error

	// announced is what was last said about the role and the leader.
	announced announcement

	// waiting are the clients that wait for their commands, by index.
	waiting map[raft.Index]waiter

	// hashes are those of the state machine, for an operator who compares servers.
	hashes node.Hashes

	// quota bounds what the store may hold, as the leader sees it.
	quota api.Quota

	// ticks counts the time, and firstTerm is the term when it began.
	ticks     uint64
	firstTerm raft.Term

	// refusals keep a peer that sends nonsense from filling the log.
	refusals refusals
}

// waiter is a client that waits for its command. The term distinguishes its
// entry from another that a later leader may put at the same index.
type waiter struct {
	term    raft.Term
	request api.Request
	reply   func(api.Response)
}

// New starts a server with what its disk holds.
func New(w node.World) (node.Server, error) {
	header := journal.Header{Stage: Stage, Cluster: w.Config.Cluster, ID: w.ID, Incarnation: disk.Draw(w.Rand)}
	j, saved, err := journal.Open(w.Disk, journalName, header)
	if err != nil {
		return nil, err
	}
	s := &Server{
		world:   w,
		journal: j,
		store:   kv.NewStore(),
		waiting: make(map[raft.Index]waiter),
		quota:   api.Quota{Limit: w.Config.StoreBytes},
	}
	o, err := s.options(saved)
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	s.rules, s.firstTerm = raft.New(o), o.State.CurrentTerm
	s.announced = announcement{role: raft.Follower, term: s.rules.Status().CurrentTerm}
	s.emit(trace.Event{Kind: trace.Start, Text: describe(saved)})
	if w.Config.Leader == w.ID && saved.State.Term == 0 {
		// The first leader of a new cluster is in its configuration. Later ones
		// are appointed.
		if err := s.rules.Lead(1); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) options(saved journal.Recovered) (o raft.Options, err error) {
	o = raft.Options{
		ID:             raft.ID(s.world.ID),
		State:          raft.State{CurrentTerm: raft.Term(saved.State.Term)},
		HeartbeatTicks: node.Ticks(s.world.Config.Heartbeat),
		MaxBatch:       maxBatch,
		Explain:        s.world.Trace != nil,
	}
	for _, m := range s.world.Config.Members {
		o.Config.Voters = append(o.Config.Voters, raft.ID(m.ID))
	}
	o.Log = make([]raft.Entry, len(saved.Entries))
	for i, e := range saved.Entries {
		if o.Log[i], err = fromJournal(e); err != nil {
			return o, err
		}
	}
	return o, nil
}

// describe says what a server comes back with.
func describe(saved journal.Recovered) string {
	text := fmt.Sprintf("with term %d and a log of length %d from its disk", saved.State.Term, len(saved.Entries))
	if saved.Torn != "" {
		text += "; " + saved.Torn
	}
	return text
}

// Close releases the journal, once the server is no longer used.
func (s *Server) Close() error { return s.journal.Close() }

// Incarnation returns the incarnation of the disk; see node.Keeper.
func (s *Server) Incarnation() disk.Incarnation { return s.journal.Incarnation() }

// Tick tells the rules that time has passed.
func (s *Server) Tick() {
	s.ticks++
	s.journal.Tick()
	s.rules.Tick()
}

// Receive takes a message of a peer.
func (s *Server) Receive(from uint64, line []byte) {
	m, err := decodeMessage(line)
	if err == nil {
		err = s.unfit(from, m)
	}
	if err != nil {
		s.refuse(from, fmt.Sprintf("%T", m.Body), trace.Event{Kind: trace.Drop, From: from, To: s.world.ID, Text: err.Error()})
		return
	}
	m.From, m.To = raft.ID(from), raft.ID(s.world.ID)
	defer s.stopOnContradiction()
	s.rules.Step(m)
}

// unfitBody says what is wrong with the body of a message, given what this server
// has, or returns nil. A command that cannot be applied must not enter the log, and
// only the state machine knows which. Answers to what was never sent are ignored by
// the rules as well; here they are refused aloud.
func (s *Server) unfitBody(term raft.Term, body raft.Body) error {
	status := s.rules.Status()
	switch body := body.(type) {
	case raft.AppendEntries:
		for _, e := range body.Entries {
			if _, err := kv.Decode(e.Command); err != nil {
				return fmt.Errorf("entry %d: %w", e.Index, err)
			}
		}
	case raft.AppendEntriesReply:
		leads := status.Role == raft.Leader && term == status.CurrentTerm
		if leads && max(body.MatchIndex, body.Refused) > status.Last {
			return fmt.Errorf("it answers what %s has never sent: entry %d of %d", node.Name(s.world.ID), max(body.MatchIndex, body.Refused), status.Last)
		}
	}
	return nil
}

// stopOnContradiction turns a contradiction that the rules have found, such as a
// leader that lacks a committed entry, into the error that ends this server.
func (s *Server) stopOnContradiction() {
	p := recover()
	if c, ok := p.(raft.Contradiction); ok {
		s.broken = c
	} else if p != nil {
		panic(p)
	}
}

// Request takes a request of a client. A read is answered at once, from this
// server's own store.
func (s *Server) Request(r api.Request, reply func(api.Response)) {
	switch r.Op {
	case api.Status:
		reply(api.Response{ID: r.ID, Data: s.status().AppendJSON(nil)})
	case api.Hash:
		reply(api.Response{ID: r.ID, Data: s.hashes.Answer(s.world.ID, uint64(s.rules.Status().Applied), s.ticks, s)})
	case api.Log:
		reply(s.log(r))
	case api.Lead:
		reply(s.lead(r))
	case kv.Get, api.List:
		reply(api.Read(r, s.store))
	default:
		s.propose(r, reply)
	}
}

// propose gives a command to the rules; the client is answered when the command
// has been applied.
func (s *Server) propose(r api.Request, reply func(api.Response)) {
	reply, full := s.quota.Take(s.store, r.Command(), reply)
	if full != nil && s.rules.Status().Role == raft.Leader {
		reply(api.Failed(r.ID, full))
		return
	}
	index, term, err := s.rules.Propose(r.Command().AppendJSON(nil))
	if err != nil {
		reply(api.Failed(r.ID, s.notLeader()))
		return
	}
	s.waiting[index] = waiter{term: term, request: r, reply: reply}
}

// lead appoints this server. The operator chooses the term: a new one, above
// that of every server.
func (s *Server) lead(r api.Request) api.Response {
	term := s.rules.Status().CurrentTerm
	if raft.Term(r.Term) > s.maxTerm() {
		return api.Failed(r.ID, &api.Error{Code: api.BadRequest, Definite: true,
			Message: fmt.Sprintf("term %d is implausibly high: %s is in term %d", r.Term, node.Name(s.world.ID), term)})
	}
	s.abandon() // what waits since an earlier term must not be taken for what comes
	if err := s.rules.Lead(raft.Term(r.Term)); err != nil {
		return api.Failed(r.ID, &api.Error{Code: api.BadRequest, Definite: true,
			Message: fmt.Sprintf("%v: it is in term %d", err, term)})
	}
	return api.Response{ID: r.ID, Data: s.status().AppendJSON(nil)}
}

// Flush carries out what the rules have decided, in the order of Output.
func (s *Server) Flush() error {
	for s.broken == nil {
		out := s.rules.Take()
		if out.Empty() {
			s.abandon()
			s.announce()
			return nil
		}
		s.explain(out.Reasons)
		s.send(out.Early)
		if err := s.save(out); err != nil {
			return err
		}
		s.send(out.Messages)
		for _, e := range out.Committed {
			if err := s.apply(e); err != nil {
				return err
			}
			s.hashes.Note(uint64(e.Index), s.ticks, s)
		}
	}
	return s.broken
}

// save puts on disk what the later messages and answers promise, with one fsync
// for all of it.
func (s *Server) save(out raft.Output) error {
	if out.State != nil {
		s.journal.SetState(toState(*out.State))
	}
	if out.Truncate != 0 {
		s.journal.Truncate(uint64(out.Truncate))
	}
	for _, e := range out.Append {
		s.journal.Append(toJournal(e))
	}
	before := s.journal.Size()
	err := s.journal.Sync()
	if s.journal.Size() > before {
		s.emit(trace.Event{Kind: trace.Save})
	}
	return err
}

func (s *Server) send(messages []raft.Message) {
	for _, m := range messages {
		s.world.Send(uint64(m.To), appendMessage(nil, m))
	}
}

// apply gives a committed command to the state machine, and answers the client
// of this server that waits for it.
func (s *Server) apply(e raft.Entry) error {
	command, err := kv.Decode(e.Command)
	if err != nil {
		return s.cannotApply(e, err)
	}
	result := s.store.Apply(command)
	if s.world.Trace != nil {
		s.emit(trace.Event{Kind: trace.Apply, Index: uint64(e.Index), Message: string(e.Command)})
	}
	s.answer(e, result)
	return nil
}

// answer tells the client that waits for an entry what it gave.
func (s *Server) answer(e raft.Entry, result kv.Result) {
	w, ok := s.waiting[e.Index]
	if !ok {
		return
	}
	delete(s.waiting, e.Index)
	if w.term != e.Term {
		w.reply(api.Failed(w.request.ID, s.overwritten(e)))
		return
	}
	response := api.Result(w.request.ID, w.request.Op, result)
	response.Index = uint64(e.Index)
	w.reply(response)
}

// abandon answers the clients whose commands now depend on another leader.
func (s *Server) abandon() {
	if len(s.waiting) == 0 || s.rules.Status().Role == raft.Leader {
		return
	}
	for _, index := range slices.Sorted(maps.Keys(s.waiting)) {
		w := s.waiting[index]
		w.reply(api.Failed(w.request.ID, s.deposed()))
	}
	clear(s.waiting)
}

func (s *Server) explain(reasons []raft.Reason) {
	for _, r := range reasons {
		e := trace.Event{Kind: trace.Decide, Index: uint64(r.Index), Reason: &trace.Reason{Code: r.Rule.Code, Section: r.Rule.Section, Text: r.String()}}
		if r.Alarm {
			s.refuse(uint64(r.Peer), r.Rule.Code, e)
		} else {
			s.emit(e)
		}
	}
}

// announcement is what a server says about itself to the other servers and the
// operator.
type announcement struct {
	role   raft.Role
	term   raft.Term
	leader raft.ID
}

// announce logs a change of this server's role, term or leader.
func (s *Server) announce() {
	status := s.rules.Status()
	now := announcement{status.Role, status.CurrentTerm, status.Leader}
	if now == s.announced {
		return
	}
	quiet := now.leader == 0 && now.role == raft.Follower && s.announced.role == raft.Follower
	s.announced = now
	if quiet {
		return // a newer term, and nobody leads it yet
	}
	text := "knows no leader"
	switch {
	case now.role == raft.Leader:
		text = "leads"
	case now.leader != 0:
		text = "follows " + now.leader.String()
	}
	s.emit(trace.Event{Kind: trace.Role, Text: text})
}

// emit sends an event to the trace, and to the log if it is important.
func (s *Server) emit(e trace.Event) {
	important := s.world.Log != nil && (e.Kind == trace.Start || e.Kind == trace.Role)
	if s.world.Trace == nil && !important {
		return
	}
	e = s.stamp(e)
	if important {
		s.world.Log(e)
	}
	if s.world.Trace != nil {
		s.world.Trace(e)
	}
}

// stamp adds this server's role and term to an event.
func (s *Server) stamp(e trace.Event) trace.Event {
	status := s.rules.Status()
	e.Role, e.Term = string(status.Role), uint64(status.CurrentTerm)
	return e
}
