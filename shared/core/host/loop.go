package host

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/peers"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/core/wire"
)

// Limits on the inputs that wait for the loop, and on those of one round.
const (
	// maxRequests is how many requests may wait for the loop; further ones are
	// answered with busy.
	maxRequests = 16 << 10

	// maxBytes is how many bytes of peers' messages may wait; beyond that the
	// goroutines that read the peers' connections wait.
	maxBytes = 16 << 20

	// roundRequests and roundBytes limit the requests of clients in one round,
	// and roundMessages limits the bytes of peers' messages in it. A round ends
	// with one write to the disk, so the limits bound how long it takes, and
	// heartbeats are sent on time.
	roundRequests = 4 << 10
	roundBytes    = 1 << 20
	roundMessages = 4 << 20

	// stateBytes is how many bytes of log entries one line of a trace may have.
	stateBytes = 256 << 10

	// checkInterval is how often the loop checks that the files of its disk are
	// still where they were. If they were removed, data that is written to them
	// is lost.
	checkInterval = time.Second / 2
)

// input is an input that waits for the loop: a peer's message, a client's
// request, or a function to call.
type input struct {
	bytes   int
	from    uint64
	line    []byte
	request api.Request
	reply   func(api.Response)
	control func()

	// since is when a request came.
	since time.Time
}

// queue holds the inputs that wait for the loop, the oldest first.
type queue struct {
	inputs []input
	bytes  int
}

func (q *queue) add(in input) {
	q.inputs = append(q.inputs, in)
	q.bytes += in.bytes
}

// take moves the oldest inputs to batch: one if there is any, and further ones
// within a limit on their number and their bytes.
func (q *queue) take(batch []input, count, bytes int) []input {
	n := 0
	for n < len(q.inputs) && n < count && (n == 0 || q.inputs[n].bytes <= bytes) {
		bytes -= q.inputs[n].bytes
		q.bytes -= q.inputs[n].bytes
		n++
	}
	batch = append(batch, q.inputs[:n]...)
	rest := copy(q.inputs, q.inputs[n:])
	clear(q.inputs[rest:])
	q.inputs = q.inputs[:rest]
	return batch
}

// answer is an answer that waits for the end of its batch.
type answer struct {
	reply    func(api.Response)
	response api.Response

	// op is what was asked, and since when the request came.
	op    string
	since time.Time

	// bytes is what the request counted for in the budget.
	bytes int
}

// loop is the goroutine that owns a node.Server.
type loop struct {
	node node.Server
	log  *slog.Logger

	// push calls a function that gives many answers.
	push func(func())

	// link sends a line to a peer, and returns false if something had to be
	// dropped.
	link func(to uint64, line []byte) bool

	// counted is true if the transport tells the meter what it loses.
	counted bool

	id    uint64
	trace trace.Sink
	start time.Time

	// rounds counts the rounds, and changes is what the trace says about the
	// server's state; both only if there is a trace.
	rounds  uint64
	changes node.Changes

	// isCut are the peers whose messages are dropped. Only the loop uses it.
	isCut map[uint64]bool

	// disk is where the server stores its data, or nil; checked is the time of
	// the last check.
	disk    disk.Disk
	checked time.Time

	// workers run the server's work that goes on alongside it.
	workers errgroup.Group

	meter Meter
	syncs syncs

	// state is the server's state after the last round, for the meter.
	state node.State

	// batch holds the inputs of the present round, answers its answers.
	batch   []input
	answers []answer

	// budget counts the requests that have not been answered.
	budget *wire.Budget

	// wake signals that an input waits.
	wake chan struct{}

	mu   sync.Mutex
	room sync.Cond

	// peers are messages and finished work of the server, clients are requests:
	// peers never wait behind clients.
	peers   queue
	clients queue
	closed  bool

	// ended is closed once the loop answers no more requests.
	ended chan struct{}
}

func newLoop(id uint64, log *slog.Logger, sink trace.Sink) *loop {
	l := &loop{id: id, log: log, trace: sink, start: time.Now(), changes: node.Changes{Most: stateBytes}, isCut: make(map[uint64]bool), wake: make(chan struct{}, 1), meter: noMeter{}, ended: make(chan struct{})}
	l.room.L = &l.mu
	l.syncs.log, l.syncs.meter = log, l.meter
	return l
}

// request is the wire.Handler.
func (l *loop) request(r api.Request, reply func(api.Response)) {
	in := input{bytes: r.Size(), request: r, reply: reply, since: time.Now()}
	if r.Op == api.Log || r.Op == api.List {
		in.bytes += api.LongData // for the answer; that of a watch comes much later, if at all
	}
	if refusal := l.admit(in); refusal != nil {
		reply(api.Failed(r.ID, refusal))
		return
	}
	l.awake()
}

// admit puts a request into the queue, or returns why there is no room for it.
func (l *loop) admit(in input) *api.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return stopping()
	case len(l.clients.inputs) >= maxRequests:
		return busy("%d requests wait for this server already", maxRequests)
	case !l.budget.Take(in.bytes):
		return busy("requests and unread answers of all clients hold %d bytes, which is the limit", l.budget.Limit())
	}
	l.clients.add(in)
	return nil
}

func busy(format string, args ...any) *api.Error {
	return &api.Error{Code: api.Busy, Definite: true, Message: fmt.Sprintf(format, args...) + "; this request was not begun"}
}

// receive queues a peer's message. It waits while too many inputs wait for the
// loop.
func (l *loop) receive(from uint64, line []byte) {
	l.mu.Lock()
	for l.peers.bytes > maxBytes && !l.closed {
		l.room.Wait()
	}
	if !l.closed {
		l.peers.add(input{bytes: len(line), from: from, line: line})
	}
	l.mu.Unlock()
	l.awake()
}

// do makes the loop call f.
func (l *loop) do(f func()) {
	l.mu.Lock()
	l.peers.add(input{control: f})
	l.mu.Unlock()
	l.awake()
}

func (l *loop) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take fills l.batch with the inputs of one round, and wakes the loop again if
// inputs are left.
func (l *loop) take() {
	l.mu.Lock()
	l.batch = l.peers.take(l.batch[:0], roundRequests, roundMessages)
	l.batch = l.clients.take(l.batch, roundRequests, roundBytes)
	left := len(l.peers.inputs)+len(l.clients.inputs) > 0
	l.room.Broadcast()
	l.mu.Unlock()
	if left {
		l.awake()
	}
}

// run owns the server until ctx is done or its disk fails.
func (l *loop) run(ctx context.Context) error {
	defer l.close()
	ticker := time.NewTicker(node.TickInterval)
	defer ticker.Stop()
	if l.trace != nil {
		l.traceState() // the state that the server has recovered
	}
	c := clock{last: time.Now()}
	for {
		select {
		case <-ctx.Done():
			l.emit(trace.Stop, func(e *trace.Event) { e.Text = "it was asked to" })
			return nil
		case <-l.wake:
		case <-ticker.C:
		}
		// Each round counts the ticks, because under load the loop may wake up
		// for inputs only.
		if err := l.round(c.due(time.Now())); err != nil {
			l.emit(trace.Stop, func(e *trace.Event) { e.Text = err.Error() })
			return fmt.Errorf("%s stops, because its saved data cannot be trusted: %w", node.Name(l.id), err)
		}
	}
}

// close ends the waiting of every goroutine that waits for the loop.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	close(l.ended)
	l.room.Broadcast()
	l.mu.Unlock()
}

// round steps the waiting inputs, as many as one round may have, flushes once and
// sends the answers. These inputs come before the ticks: a message that was
// received in time should count before a timeout does.
func (l *loop) round(ticks int) error {
	l.take()
	l.rounds++
	for i := range l.batch {
		l.step(&l.batch[i])
	}
	clear(l.batch)
	for range ticks {
		l.node.Tick()
	}
	begun := time.Now()
	l.syncs.begin()
	if err := l.node.Flush(); err != nil {
		return err
	}
	now := time.Now()
	l.measure(Round{At: now, Took: now.Sub(begun), Synced: l.syncs.end(now.Sub(begun), now)})
	if l.trace != nil {
		l.traceState()
	}
	if err := l.checkDisk(now); err != nil {
		return err
	}
	if len(l.answers) == 0 {
		return nil
	}
	l.push(func() {
		for _, a := range l.answers {
			l.budget.Give(a.bytes)
			l.meter.Answered(a.op, codeOf(a.response), now.Sub(a.since))
			a.reply(a.response)
		}
	})
	clear(l.answers)
	l.answers = l.answers[:0]
	return nil
}

// checkDisk returns an error if the files of the disk are no longer where they
// were. It looks only once per checkInterval. After an error, no answer that
// depends on the files may be sent.
func (l *loop) checkDisk(now time.Time) error {
	if l.disk == nil || now.Sub(l.checked) < checkInterval {
		return nil
	}
	l.checked = now
	return l.disk.Check()
}

func (l *loop) step(in *input) {
	switch {
	case in.control != nil:
		in.control()
	case in.reply != nil:
		l.meter.Input()
		l.emit(trace.Request, func(e *trace.Event) { e.Message = string(in.request.AppendJSON(nil)) })
		reply, id, a := in.reply, in.request.ID, answer{op: in.request.Op, since: in.since, bytes: in.bytes}
		l.node.Request(in.request, func(r api.Response) {
			r.ID = id
			l.emit(trace.Reply, func(e *trace.Event) { e.Message = string(r.AppendJSON(nil)) })
			a.reply, a.response = reply, r
			l.answers = append(l.answers, a)
		})
	case l.isCut[in.from]:
		l.meter.Lost(in.from, peers.LostCut, 1)
		l.emit(trace.Drop, func(e *trace.Event) { e.From, e.To, e.Message, e.Text = in.from, l.id, string(in.line), "cut" })
	default:
		l.meter.Input()
		l.meter.Received(in.from)
		l.emit(trace.Deliver, func(e *trace.Event) { e.From, e.To, e.Message = in.from, l.id, string(in.line) })
		l.node.Receive(in.from, in.line)
	}
}

// send is node.World.Send.
func (l *loop) send(to uint64, line []byte) {
	if l.isCut[to] {
		l.meter.Lost(to, peers.LostCut, 1)
		l.emit(trace.Drop, func(e *trace.Event) { e.From, e.To, e.Message, e.Text = l.id, to, string(line), "cut" })
		return
	}
	l.emit(trace.Send, func(e *trace.Event) { e.From, e.To, e.Message = l.id, to, string(line) })
	l.meter.Sent(to)
	if !l.link(to, line) {
		if !l.counted {
			l.meter.Lost(to, peers.LostFull, 1)
		}
		l.emit(trace.Drop, func(e *trace.Event) {
			e.From, e.To, e.Text = l.id, to, "the link's queue is full, or there is no such link"
		})
	}
}

// work is node.World.Work. Work that is still running when the loop ends runs to
// its end, but done is not called.
func (l *loop) work(work func() error, done func(error)) {
	l.workers.Go(func() error {
		err := work()
		l.do(func() { done(err) })
		return nil
	})
}

// cut makes the loop drop the messages to and from a peer, or pass them again.
func (l *loop) cut(peer uint64, drop bool) {
	l.do(func() {
		kind := trace.Heal
		if delete(l.isCut, peer); drop {
			kind, l.isCut[peer] = trace.Cut, true
		}
		l.emit(kind, func(e *trace.Event) { e.From, e.To = l.id, peer })
		l.log.Info("messages to and from a peer", "peer", peer, "dropped", drop)
	})
}

// sink returns the sink of the server's events, nil if nothing is traced.
func (l *loop) sink() trace.Sink {
	if l.trace == nil {
		return nil
	}
	return func(e trace.Event) {
		e.At, e.Step, e.Node = time.Since(l.start), l.rounds, l.id
		l.trace(e)
	}
}

// emit traces an event of the host itself; it does nothing if nothing is traced.
func (l *loop) emit(kind trace.Kind, fill func(*trace.Event)) {
	if l.trace == nil {
		return
	}
	e := trace.Event{At: time.Since(l.start), Step: l.rounds, Node: l.id, Kind: kind}
	fill(&e)
	l.trace(e)
}

// traceState traces how the server's state has changed in this round.
func (l *loop) traceState() {
	in, ok := l.node.(node.Inspector)
	for more := ok; more; {
		var text []byte
		if text, _, more = l.changes.Append([]byte{'{'}, in); len(text) > 1 {
			l.emit(trace.State, func(e *trace.Event) { e.State = trace.Raw(append(text, '}')) })
		}
	}
}

// codeOf returns the code of an answer's error; "" if there is none.
func codeOf(r api.Response) api.Code {
	if r.Error == nil {
		return ""
	}
	return r.Error.Code
}
