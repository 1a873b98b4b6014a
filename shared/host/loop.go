package host

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/node"
	"example.com/raftsteps/shared/trace"
)

// Limits of the inbox.
const (
	// maxRequests is how many requests may wait for the loop; further ones are
	// told that the server is busy.
	maxRequests = 16 << 10

	// maxBytes is how many bytes of peers' messages may wait; beyond that the
	// goroutines that read the peers' connections wait.
	maxBytes = 64 << 20
)

// input is one thing that waits for the loop: a peer's message, a client's
// request, or a change of who is cut off.
type input struct {
	from    uint64
	line    []byte
	request api.Request
	reply   func(api.Response)
	control func()
}

// answer is one that waits for the end of its batch.
type answer struct {
	reply    func(api.Response)
	response api.Response
}

// loop is the goroutine that owns a node.Server.
type loop struct {
	node node.Server
	log  *slog.Logger

	// push calls a function that gives many answers.
	push func(func())

	// link sends to a peer and reports whether nothing had to be dropped.
	link func(to uint64, line []byte) bool

	id    uint64
	trace trace.Sink
	start time.Time

	// isCut are the peers whose messages are dropped. Only the loop uses it.
	isCut map[uint64]bool

	// workers run what the server wants done beside it.
	workers errgroup.Group

	metrics metrics

	// answers of the present batch.
	answers []answer

	// wake says that the inbox is not empty.
	wake chan struct{}

	mu       sync.Mutex
	room     sync.Cond
	inbox    []input
	spare    []input
	requests int
	bytes    int
	closed   bool

	// ended is closed once nothing will be answered any more.
	ended chan struct{}
}

func newLoop(id uint64, log *slog.Logger, sink trace.Sink) *loop {
	l := &loop{id: id, log: log, trace: sink, start: time.Now(), isCut: make(map[uint64]bool), wake: make(chan struct{}, 1), metrics: newMetrics(), ended: make(chan struct{})}
	l.room.L = &l.mu
	return l
}

// request is the wire.Handler.
func (l *loop) request(r api.Request, reply func(api.Response)) {
	l.mu.Lock()
	full, closed := l.requests >= maxRequests, l.closed
	if !full && !closed {
		l.requests++
		l.inbox = append(l.inbox, input{request: r, reply: reply})
	}
	l.mu.Unlock()
	switch {
	case closed:
		reply(api.Failed(r.ID, stopping()))
	case full:
		reply(api.Failed(r.ID, &api.Error{Code: api.Busy, Definite: true,
			Message: fmt.Sprintf("%d requests wait for this server already; this one was not begun; try again later", maxRequests)}))
	default:
		l.awake()
	}
}

// receive takes a peer's message. It waits while too much waits for the loop.
func (l *loop) receive(from uint64, line []byte) {
	l.mu.Lock()
	for l.bytes > maxBytes && !l.closed {
		l.room.Wait()
	}
	if !l.closed {
		l.bytes += len(line)
		l.inbox = append(l.inbox, input{from: from, line: line})
	}
	l.mu.Unlock()
	l.awake()
}

func (l *loop) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (l *loop) take() []input {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.inbox
	l.inbox, l.spare = l.spare[:0], nil
	l.requests, l.bytes = 0, 0
	l.room.Broadcast()
	return in
}

// giveBack lets the memory of a batch be used again.
func (l *loop) giveBack(in []input) {
	clear(in)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = in[:0]
}

// run owns the server until ctx is done or its disk fails.
func (l *loop) run(ctx context.Context) error {
	defer l.close()
	ticker := time.NewTicker(node.TickInterval)
	defer ticker.Stop()
	c := clock{last: time.Now()}
	for {
		ticks := 0
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case now := <-ticker.C:
			ticks = c.due(now)
		}
		if err := l.round(ticks); err != nil {
			return fmt.Errorf("%s stops, for what it saved cannot be trusted: %w", node.Name(l.id), err)
		}
	}
}

// close makes whoever waits for the loop go on without it.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	close(l.ended)
	l.room.Broadcast()
	l.mu.Unlock()
}

// round steps everything that waits, flushes once and lets the answers go. The
// inbox comes before the ticks: what was received in time should count before
// a timeout does.
func (l *loop) round(ticks int) error {
	in := l.take()
	l.metrics.inputs.Add(float64(len(in)))
	l.metrics.rounds.Inc()
	for i := range in {
		l.step(&in[i])
	}
	l.giveBack(in)
	for range ticks {
		l.node.Tick()
	}
	if err := l.node.Flush(); err != nil {
		return err
	}
	if len(l.answers) == 0 {
		return nil
	}
	l.metrics.answers.Add(float64(len(l.answers)))
	l.push(func() {
		for _, a := range l.answers {
			a.reply(a.response)
		}
	})
	clear(l.answers)
	l.answers = l.answers[:0]
	return nil
}

func (l *loop) step(in *input) {
	switch {
	case in.control != nil:
		in.control()
	case in.reply != nil:
		l.emit(trace.Request, func(e *trace.Event) { e.Message = string(in.request.AppendJSON(nil)) })
		reply, id := in.reply, in.request.ID
		l.node.Request(in.request, func(r api.Response) {
			r.ID = id
			l.emit(trace.Reply, func(e *trace.Event) { e.Message = string(r.AppendJSON(nil)) })
			l.answers = append(l.answers, answer{reply, r})
		})
	case l.isCut[in.from]:
		l.emit(trace.Drop, func(e *trace.Event) { e.From, e.To, e.Message, e.Text = in.from, l.id, string(in.line), "cut" })
	default:
		l.emit(trace.Deliver, func(e *trace.Event) { e.From, e.To, e.Message = in.from, l.id, string(in.line) })
		l.node.Receive(in.from, in.line)
	}
}

// send is node.World.Send.
func (l *loop) send(to uint64, line []byte) {
	if l.isCut[to] {
		l.emit(trace.Drop, func(e *trace.Event) { e.From, e.To, e.Message, e.Text = l.id, to, string(line), "cut" })
		return
	}
	l.emit(trace.Send, func(e *trace.Event) { e.From, e.To, e.Message = l.id, to, string(line) })
	if !l.link(to, line) {
		l.emit(trace.Drop, func(e *trace.Event) {
			e.From, e.To, e.Text = l.id, to, "the link's queue is full, or there is no such link"
		})
	}
}

// work is node.World.Work. What is still under way when the loop ends comes to
// its end, and nobody is told.
func (l *loop) work(work func() error, done func(error)) {
	l.workers.Go(func() error {
		err := work()
		l.mu.Lock()
		l.inbox = append(l.inbox, input{control: func() { done(err) }})
		l.mu.Unlock()
		l.awake()
		return nil
	})
}

// cut lets the loop drop, or pass, a peer's messages.
func (l *loop) cut(peer uint64, drop bool) {
	l.mu.Lock()
	l.inbox = append(l.inbox, input{control: func() {
		kind := trace.Heal
		if delete(l.isCut, peer); drop {
			kind, l.isCut[peer] = trace.Cut, true
		}
		l.emit(kind, func(e *trace.Event) { e.From, e.To = l.id, peer })
		l.log.Info("messages to and from a peer", "peer", peer, "dropped", drop)
	}})
	l.mu.Unlock()
	l.awake()
}

// sink is what the server traces to: nil if nobody listens.
func (l *loop) sink() trace.Sink {
	if l.trace == nil {
		return nil
	}
	return func(e trace.Event) {
		e.At, e.Node = time.Since(l.start), l.id
		l.trace(e)
	}
}

// emit traces what the host itself sees; it costs nothing if nobody listens.
func (l *loop) emit(kind trace.Kind, fill func(*trace.Event)) {
	if l.trace == nil {
		return
	}
	e := trace.Event{At: time.Since(l.start), Node: l.id, Kind: kind}
	fill(&e)
	l.trace(e)
}
