package replica

import (
	"fmt"
	"strconv"

	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
)

// A replica that does not lead passes commands on to the leader, as messages between
// servers that the rules do not see. A command travels as one message, and its
// outcome as another:
//
//	{"term":4,"forward":{"session":17,"seq":3,"command":"pay 30"}}
//	{"term":4,"forwardReply":{"session":17,"seq":3,"index":118,"result":"\"done\""}}
//	{"term":4,"forwardReply":{"session":17,"seq":3,"code":"busy","message":"…","definite":true}}
//
// A message may be lost, so a command is sent once and its outcome is unknown if no
// reply comes. A message may be repeated or come very late, so a server must not
// propose a command that it may have proposed before. It remembers the commands that
// were sent to it in one term. What was sent in an earlier term, or before the server
// was last started, may have been proposed then, and is ignored.

const (
	// forwardPatience is how long a command may be without a reply, and
	// afterLeader how long if another leader has been elected meanwhile: then most
	// often none comes.
	forwardPatience = 500
	afterLeader     = 50

	// window is how many commands of one sender may overtake an earlier one.
	window = 1024

	// maxSenders is how many senders a server remembers in one term. A replica that
	// is restarted is another sender.
	maxSenders = 1000

	// maxForwarded is how many bytes of commands from other servers a leader keeps
	// until they are applied.
	maxForwarded = 16 << 20

	// maxResult is how long the result of a forwarded command may be, in bytes. As
	// a string it still fits into a message.
	maxResult = 3 << 20

	// complaint is the number of ticks between two lines in the log about invalid
	// messages.
	complaint = 6000
)

// forwards are the commands that a server passes on, and those that others pass on
// to it.
type forwards struct {
	world node.World

	// asked is true if commands should be passed on.
	asked bool

	// session distinguishes this run of the server from others; sent is the number
	// of the last command that it has passed on.
	session uint64
	sent    uint64

	// waiting are the commands without an outcome, by their numbers.
	waiting map[uint64]*forwarded

	// ticks counts the time. started is the term at the start.
	ticks   uint64
	started uint64

	// term is the highest term in which others have sent commands, and senders has
	// what each of them has sent since.
	term    uint64
	senders map[sender]*received

	// bytes is how much of others' commands is not applied yet.
	bytes int

	// quiet is the tick until which invalid messages are not logged.
	quiet uint64
}

// forwarded is a command that was passed on and has no outcome yet.
type forwarded struct {
	id    uint64
	reply func(api.Response)

	// to is the server to which it was sent; leader and term are the leader that
	// this server has known since, and its term.
	to     uint64
	leader uint64
	term   uint64

	// until is the tick at which the outcome counts as unknown.
	until uint64
}

// sender is one run of a server.
type sender struct{ server, session uint64 }

// received says which commands have come from one sender: bit i%window of seen is
// that of the command i, for the last ones up to newest.
type received struct {
	newest uint64
	seen   [window / 64]uint64
}

// first reports whether a command comes for the first time, and notes it. It is false
// for one that is too old to be known.
func (r *received) first(seq uint64) bool {
	if seq == 0 || seq+window <= r.newest {
		return false
	}
	if seq >= r.newest+window {
		r.seen = [window / 64]uint64{}
		r.newest = seq
	}
	for ; r.newest < seq; r.newest++ {
		at := (r.newest + 1) % window
		r.seen[at/64] &^= 1 << (at % 64)
	}
	at := seq % window
	known := r.seen[at/64]&(1<<(at%64)) != 0
	r.seen[at/64] |= 1 << (at % 64)
	return !known
}

// newForwards returns the forwards of a server that has recovered in a term.
func newForwards(w node.World, asked bool, term uint64) *forwards {
	return &forwards{world: w, asked: asked, session: 1 + w.Rand.Uint64N(1<<53), started: term, waiting: make(map[uint64]*forwarded)}
}

// Request is node.Server.Request. It passes a command on if another server leads.
func (o *observed) Request(r api.Request, reply func(api.Response)) {
	f := o.forwards
	_, leader, term := o.Progress()
	if r.Op != api.Propose || !f.asked || leader == 0 || leader == f.world.ID || len(r.Value) > server.MaxText {
		o.Server.Request(r, reply)
		return
	}
	f.sent++
	f.waiting[f.sent] = &forwarded{id: r.ID, reply: reply, to: leader, leader: leader, term: term, until: f.ticks + forwardPatience}
	f.world.Send(leader, message{term: term, session: f.session, seq: f.sent, command: r.Value}.appendJSON(nil))
}

// Receive is node.Server.Receive.
func (o *observed) Receive(from uint64, line []byte) {
	if !isForward(line) {
		o.Server.Receive(from, line)
		return
	}
	m, err := decodeMessage(line)
	switch {
	case err != nil:
		o.forwards.complain(from, err)
	case m.reply:
		o.forwards.settle(from, m)
	default:
		o.propose(from, m)
	}
}

// Tick is node.Server.Tick.
func (o *observed) Tick() {
	o.Server.Tick()
	o.forwards.tick(o.Progress())
}

// tick gives up the commands whose outcome will most likely not come any longer.
func (f *forwards) tick(_, leader, term uint64) {
	f.ticks++
	for seq, w := range f.waiting {
		if w.leader != leader || w.term != term {
			w.until = min(w.until, f.ticks+afterLeader)
			w.leader, w.term = leader, term
		}
		if f.ticks >= w.until {
			delete(f.waiting, seq)
			w.reply(api.Failed(w.id, api.Lost("the leader to which the command was forwarded gave no answer")))
		}
	}
}

// settle takes the outcome of a command.
func (f *forwards) settle(from uint64, m message) {
	w := f.waiting[m.seq]
	if w == nil || w.to != from || m.session != f.session {
		return // it has been given up
	}
	delete(f.waiting, m.seq)
	if m.err != nil {
		w.reply(api.Failed(w.id, m.err))
		return
	}
	w.reply(api.Response{ID: w.id, Index: m.index, Data: []byte(m.result)})
}

// propose takes a command from another server.
func (o *observed) propose(from uint64, m message) {
	f := o.forwards
	_, _, term := o.Progress()
	if m.term > term || !f.first(from, m) {
		return
	}
	answer := func(a message) {
		_, _, a.term = o.Progress()
		a.reply, a.session, a.seq = true, m.session, m.seq
		f.world.Send(from, a.appendJSON(nil))
	}
	size := len(m.command) + 256
	if f.bytes+size > maxForwarded {
		answer(message{err: &api.Error{Code: api.Busy, Definite: true,
			Message: fmt.Sprintf("%s keeps %d bytes of forwarded commands, which is the limit; this one was not begun", node.Name(f.world.ID), maxForwarded)}})
		return
	}
	f.bytes += size
	o.Server.Request(api.Request{Op: api.Propose, Value: m.command}, func(a api.Response) {
		f.bytes -= size
		switch n := len(a.Data); {
		case a.Error != nil:
			answer(message{err: a.Error})
		case n > maxResult:
			answer(message{err: api.Lost(fmt.Sprintf("the command was applied as entry %d, and its result has %d bytes; a result of at most %d bytes is sent to another server", a.Index, n, maxResult))})
		default:
			answer(message{index: a.Index, result: string(a.Data)})
		}
	})
}

// first reports whether a command from another server comes for the first time for
// certain.
func (f *forwards) first(from uint64, m message) bool {
	switch {
	case m.term <= f.started || m.term < f.term:
		return false
	case m.term > f.term:
		f.term, f.senders = m.term, make(map[sender]*received)
	}
	s := sender{from, m.session}
	if f.senders[s] == nil {
		if len(f.senders) == maxSenders {
			return false
		}
		f.senders[s] = &received{}
	}
	return f.senders[s].first(m.seq)
}

// complain logs that a message is invalid, at most once per minute.
func (f *forwards) complain(from uint64, err error) {
	if f.world.Log == nil || f.ticks < f.quiet {
		return
	}
	f.quiet = f.ticks + complaint
	f.world.Log(trace.Event{Kind: trace.Drop, From: from, To: f.world.ID, Text: err.Error()})
}

// message is a command that is passed on, or the reply to one.
type message struct {
	// term is the sender's current term.
	term  uint64
	reply bool

	// session and seq say which command it is.
	session, seq uint64

	command string

	// index and result are those of a command that was applied; err says why there
	// is none.
	index  uint64
	result string
	err    *api.Error
}

const (
	termName    = `{"term":`
	forwardName = `,"forward`
)

// isForward reports whether a line is meant for this package, and not for the rules.
func isForward(line []byte) bool {
	if len(line) < len(termName) || string(line[:len(termName)]) != termName {
		return false
	}
	i := len(termName)
	for i < len(line) && '0' <= line[i] && line[i] <= '9' {
		i++
	}
	return len(line)-i > len(forwardName) && string(line[i:i+len(forwardName)]) == forwardName
}

func (m message) appendJSON(b []byte) []byte {
	b = strconv.AppendUint(append(b, termName...), m.term, 10)
	b = append(b, forwardName...)
	if m.reply {
		b = append(b, "Reply"...)
	}
	b = append(b, `":{`...)
	b = strict.AppendNumber(b, "session", m.session)
	b = strict.AppendNumber(b, "seq", m.seq)
	b = appendBytes(b, "command", m.command)
	b = strict.AppendNumber(b, "index", m.index)
	b = appendBytes(b, "result", m.result)
	if m.err != nil {
		b = strict.AppendText(b, "code", m.err.Code)
		b = strict.AppendText(b, "message", m.err.Message)
		b = strict.AppendText(b, "leader", m.err.Leader)
		b = strict.AppendFlag(b, "definite", m.err.Definite)
	}
	return append(b, "}}"...)
}

func appendBytes(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return strict.AppendBytes(b, name, s)
}

func decodeMessage(line []byte) (m message, err error) {
	var e api.Error
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch {
		case string(field) == "term":
			m.term = d.Uint()
		case m.seq != 0:
			d.Fail("a second body")
		case string(field) == "forward":
			m.decodeCommand(&d)
		case string(field) == "forwardReply":
			m.reply = true
			m.decodeReply(&d, &e)
		default:
			d.Unknown()
		}
	})
	err = d.End()
	switch {
	case err == nil && (m.seq == 0 || m.session == 0):
		err = fmt.Errorf("it does not say which command it is about")
	case err == nil && m.reply && (m.index == 0) == (e.Code == ""):
		err = fmt.Errorf("it needs either an index or a code")
	}
	if err != nil {
		return m, fmt.Errorf("a forwarded command, or its reply: %w", err)
	}
	if e.Code != "" {
		m.err = &e
	}
	return m, nil
}

func (m *message) decodeCommand(d *strict.Decoder) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "session":
			m.session = d.Uint()
		case "seq":
			m.seq = d.Uint()
		case "command":
			m.command = d.String()
		case "command_b64":
			m.command = d.Base64()
		default:
			d.Unknown()
		}
	})
}

func (m *message) decodeReply(d *strict.Decoder, e *api.Error) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "session":
			m.session = d.Uint()
		case "seq":
			m.seq = d.Uint()
		case "index":
			m.index = d.Uint()
		case "result":
			m.result = d.String()
		case "result_b64":
			m.result = d.Base64()
		case "code":
			e.Code = api.Code(d.String())
		case "message":
			e.Message = d.String()
		case "leader":
			e.Leader = d.String()
		case "definite":
			e.Definite = d.Bool()
		default:
			d.Unknown()
		}
	})
}
