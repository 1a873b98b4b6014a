// Package server is one server of a cluster: the rules of replication, a
// store, and the clients that wait for an answer.
//
// It is single-threaded. Everything happens inside one of the four methods of
// node.Server, and the world outside is a function to send with and the ticks
// of a clock. So the same code runs on sockets and in the simulator.
package server

import (
	"fmt"
	"time"

	"example.com/raftsteps/02-naive-replication/naive"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// Patience is how long the leader waits for a majority.
const Patience = time.Second

// Ops is what a client can ask.
var Ops = func() api.Ops {
	ops := api.Commands()
	ops[api.Status] = api.Op{}
	return ops
}()

// Server is one server. It is not safe for concurrent use.
type Server struct {
	world node.World
	rules *naive.Naive
	store *kv.Store

	// waiting are the clients that wait for their commands, by number.
	waiting map[naive.Seq]waiter

	// quota bounds what the store may hold, as the leader sees it.
	quota api.Quota

	// refused are the senders of messages that make no sense.
	refused map[uint64]bool
}

// waiter is a client that waits for its command.
type waiter struct {
	request api.Request
	reply   func(api.Response)
}

// New starts a server. It remembers nothing of an earlier life.
func New(w node.World) (node.Server, error) {
	members := make([]naive.ID, len(w.Config.Members))
	for i, m := range w.Config.Members {
		members[i] = naive.ID(m.ID)
	}
	return &Server{
		world: w,
		rules: naive.New(naive.Options{
			ID:       naive.ID(w.ID),
			Leader:   naive.ID(w.Config.Leader),
			Members:  members,
			Patience: node.Ticks(Patience),
			Explain:  w.Trace != nil,
		}),
		store:   kv.NewStore(),
		waiting: make(map[naive.Seq]waiter),
		quota:   api.Quota{Limit: w.Config.StoreBytes},
		refused: make(map[uint64]bool),
	}, nil
}

// Tick tells the rules that time has passed.
func (s *Server) Tick() { s.rules.Tick() }

// Receive takes a message of a peer.
func (s *Server) Receive(from uint64, line []byte) {
	body, err := decodeMessage(line)
	if err == nil {
		err = s.unfit(from, body)
	}
	if err != nil {
		s.refuse(trace.Event{Kind: trace.Drop, From: from, To: s.world.ID, Text: err.Error()})
		return
	}
	s.rules.Step(naive.Message{From: naive.ID(from), To: naive.ID(s.world.ID), Body: body})
}

// Request takes a request of a client. A read is answered at once, from this
// server's own store.
func (s *Server) Request(r api.Request, reply func(api.Response)) {
	switch r.Op {
	case api.Status:
		reply(api.Response{ID: r.ID, Data: s.status().AppendJSON(nil)})
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
	if full != nil && s.rules.IsLeader() {
		reply(api.Failed(r.ID, full))
		return
	}
	seq, err := s.rules.Propose(r.Command().AppendJSON(nil))
	if err != nil {
		reply(api.Failed(r.ID, s.notLeader()))
		return
	}
	s.waiting[seq] = waiter{request: r, reply: reply}
}

// Flush sends, applies and answers.
func (s *Server) Flush() error {
	out := s.rules.Take()
	for _, r := range out.Reasons {
		s.emit(trace.Event{Kind: trace.Decide, Reason: &trace.Reason{Code: string(r.Code), Text: r.String()}})
	}
	for _, m := range out.Messages {
		s.world.Send(uint64(m.To), appendMessage(nil, m.Body))
	}
	for _, w := range out.Apply {
		if err := s.apply(w); err != nil {
			return err
		}
	}
	for _, r := range out.Refused {
		s.answer(r.Seq, func(q api.Request) api.Response { return api.Failed(q.ID, s.noMajority(r)) })
	}
	return nil
}

func (s *Server) apply(w naive.Write) error {
	command, err := kv.Decode(w.Command)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	result := s.store.Apply(command)
	if s.world.Trace != nil {
		s.emit(trace.Event{Kind: trace.Apply, Message: string(w.Command)})
	}
	s.answer(w.Seq, func(q api.Request) api.Response { return api.Result(q.ID, q.Op, result) })
	return nil
}

// answer tells the client that waits for a proposal, if it is this server's.
func (s *Server) answer(seq naive.Seq, response func(api.Request) api.Response) {
	if w, ok := s.waiting[seq]; ok {
		delete(s.waiting, seq)
		w.reply(response(w.request))
	}
}

func (s *Server) role() string {
	if s.rules.IsLeader() {
		return "leader"
	}
	return "follower"
}

// emit sends an event to the trace.
func (s *Server) emit(e trace.Event) {
	if s.world.Trace != nil {
		e.Role = s.role()
		s.world.Trace(e)
	}
}
