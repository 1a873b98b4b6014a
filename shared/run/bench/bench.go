// Package bench is the load generator behind the command bench.
//
// It is a closed loop: each client sends a request, waits for the answer and
// sends the next one. So a slow server gets fewer requests, and latency and
// throughput are related: clients = throughput × mean latency (Little's law).
// Compare two servers only at the same number of clients.
//
//	o := bench.Defaults()
//	o.Dial = func() (bench.Client, error) { return client.New(endpoints), nil }
//	report, err := bench.Run(ctx, o)
//
// Generator and server often share one machine. The generator takes processor
// time from the server, so one operation costs it only one look at the clock, a
// random number and two uncontended atomic writes: no lock, no allocation, no
// formatting. Keys and values are made before the clock starts. All other costs
// of an operation are the Client's.
//
// An operation counts if it started in the measured time, however late it
// ended. Latencies are those of operations that were answered; "the key has no
// value" is also an answer. Every other result is an error, counted by its code.
//
// With Options.Verify, the clients append unique tokens instead and read them
// back at the end: see verify.go for what is checked.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// Client is a connection to the servers. Several goroutines call Do at once if
// Options.Conns is set, otherwise only one. Errors of Do should be *api.Error;
// any other counts as api.Unknown.
type Client interface {
	Do(ctx context.Context, r api.Request) (api.Response, error)
	Close() error
}

// Options describes a run. The comment of a field names its command-line flag.
type Options struct {
	// Dial returns a new client. It is called Clients times, or Conns times if
	// that is set, and need not connect before the first Do.
	Dial func() (Client, error)

	// Clients is the number of operations in progress at once (--clients).
	Clients int

	// Conns is the number of connections that the clients share (--conns). 0
	// gives each client its own.
	Conns int

	// Duration is the measured time (--duration).
	Duration time.Duration

	// Warmup is the time before Duration, which is not measured (--warmup).
	Warmup time.Duration

	// Timeout is how long to wait for one operation (--timeout). The wait may
	// be up to a twentieth longer.
	Timeout time.Duration

	// Pause is how long a client waits after each answer (--pause). With it, the
	// load leaves the machine time for other things; it no longer shows how fast
	// the servers are.
	Pause time.Duration

	// ValueSize is the length of the values written, in bytes (--value-size).
	ValueSize int

	// Keys is the number of different keys; each operation uses a random one
	// (--keys).
	Keys int

	// Mix is what to do, in parts: "put=90,get=10", or "put" (--mix). It may
	// name put, create, get, append, cas and delete. cas expects the value that
	// put writes. If append fails because the value would be too long, the
	// client deletes the key.
	Mix string

	// Verify appends tokens and reads them back instead of running Mix
	// (--verify). ValueSize, Keys and Mix are then ignored.
	Verify bool

	// Fill writes every key once before the clients start (--fill).
	Fill bool

	// Seed is the seed of the random choice of keys and operations (--seed).
	Seed uint64

	// Progress receives a line each second while the clients run; nil for none.
	Progress io.Writer

	// Enough, if not nil, is closed at a second interrupt. If the first
	// interrupt ended the load, this one ends the reading of Verify.
	Enough <-chan struct{}
}

// Defaults returns the default options.
func Defaults() Options {
	return Options{
		Clients:   64,
		Duration:  10 * time.Second,
		Warmup:    time.Second,
		Timeout:   5 * time.Second,
		ValueSize: 64,
		Keys:      10_000,
		Mix:       "put=90,get=10",
		Seed:      1,
	}
}

// Bounds of the options: far above useful values, but low enough that a typing
// error does not exhaust the machine.
const (
	maxClients = 10_000
	maxKeys    = 10_000_000

	// A client that waits notices only afterwards that the run has ended.
	maxPause = time.Second
)

// Check returns an error that names the flag if an option is wrong.
func (o Options) Check() error {
	_, err := parseMix(o.Mix)
	switch {
	case o.Dial == nil:
		return errors.New("bench: Options.Dial is nil")
	case o.Clients < 1 || o.Clients > maxClients:
		return fmt.Errorf("--clients is %d; it must be from 1 to %d", o.Clients, maxClients)
	case o.Conns < 0 || o.Conns > o.Clients:
		return fmt.Errorf("--conns is %d; it must be from 0 (one connection per client) to %d, the number of clients", o.Conns, o.Clients)
	case o.Duration <= 0:
		return fmt.Errorf("--duration is %v; it must be more than 0", o.Duration)
	case o.Warmup < 0:
		return fmt.Errorf("--warmup is %v; it must not be negative", o.Warmup)
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout is %v; it must be more than 0", o.Timeout)
	case o.Pause < 0 || o.Pause > maxPause:
		return fmt.Errorf("--pause is %v; it must be from 0 to %v", o.Pause, maxPause)
	case o.ValueSize < 0 || o.ValueSize > kv.MaxValue:
		return fmt.Errorf("--value-size is %d; it must be from 0 to %d", o.ValueSize, kv.MaxValue)
	case o.Fill && o.Verify:
		return errors.New("--fill writes the keys of --mix, but --verify uses its own keys; leave one of them out")
	case o.Keys < 1 || o.Keys > maxKeys:
		return fmt.Errorf("--keys is %d; it must be from 1 to %d", o.Keys, maxKeys)
	}
	return err
}

// source generates the requests of one client. It is used by one goroutine.
type source interface {
	// next returns the next request.
	next() api.Request

	// answered receives the result of the last request; err is nil if it was
	// done.
	answered(response api.Response, err *api.Error)
}

// Run runs the load until Duration has passed or ctx is done. It then waits for
// the operations in progress, for about Timeout at most. An error means that
// nothing was measured: an option is wrong, no server answers, or Fill could not
// write a key.
//
// If the end of ctx ends the load, the reading of Verify continues until it is
// done or Enough is closed. If ctx ends after the load, that ends the reading.
//
// Run starts goroutines and returns after all of them have ended.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.Check(); err != nil {
		return Report{}, err
	}
	clients, err := dialAll(o)
	defer closeAll(clients)
	if err != nil {
		return Report{}, err
	}
	if err := probe(ctx, o, clients[0]); err != nil {
		return Report{}, err
	}
	sources, judge := prepare(o)
	if o.Fill {
		if err := newRun(o).fill(ctx, clients); err != nil {
			return Report{}, err
		}
	}
	r := newRun(o)
	var g errgroup.Group
	for i, s := range sources {
		g.Go(func() error {
			r.work(clients[i%len(clients)], s, &r.recorders[i])
			return nil
		})
	}
	r.watch(ctx)
	_ = g.Wait()
	report := r.report()
	if judge != nil {
		r.say("reading the tokens back; an interrupt ends the reading")
		if r.interrupted {
			ctx = context.WithoutCancel(ctx)
		}
		report.Verify = judge.readBack(ctx, o.Enough, clients, o.Timeout)
	}
	return report, nil
}

// prepare returns one source per client, and the judge of a run with Verify.
func prepare(o Options) ([]source, *judge) {
	if o.Verify {
		j := newJudge(o.Clients)
		return j.sources(), j
	}
	return newMixSources(o), nil
}

func dialAll(o Options) ([]Client, error) {
	n := o.Conns
	if n == 0 {
		n = o.Clients
	}
	clients := make([]Client, 0, n)
	for range n {
		c, err := o.Dial()
		if err != nil {
			return clients, api.Wrap(fmt.Sprintf("connection %d of %d", len(clients)+1, n), err)
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func closeAll(clients []Client) {
	for _, c := range clients {
		// No operation is in progress, so an error of Close does not matter.
		_ = c.Close()
	}
}

// probe sends one request, so that a run ends at once, not after its whole duration, if
// there is no server or if the servers refuse this client. Any other answer is enough,
// even a refusal.
func probe(ctx context.Context, o Options, c Client) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	_, err := c.Do(ctx, api.Request{Op: kv.Get, Key: keyName(0)})
	if err == nil {
		return nil
	}
	switch e := apiError(err); e.Code {
	case api.Unavailable, api.Unknown, api.Handshake, api.Denied:
		return e
	}
	return nil
}

// apiError converts err to an *api.Error.
func apiError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: api.Unknown, Message: err.Error()}
}

// errorPause is how long a client waits after an error, so that it does not retry in
// a tight loop. It is short compared with an election.
const errorPause = 10 * time.Millisecond

// run is one run in progress.
type run struct {
	o     Options
	start time.Time

	// from and to bound the measured time, counted from start. An operation
	// counts if it starts in this interval. No operation starts after to, which
	// is set to the present when the run ends early.
	from        time.Duration
	to          atomic.Int64
	interrupted bool

	// The clients write gap and recorders; only the goroutine of Run writes the
	// other fields. total is the sum of what was collected from the recorders so
	// far; shown is the time up to which progress was printed.
	gap       gap
	recorders []recorder
	total     *tally
	shown     time.Duration
}

func newRun(o Options) *run {
	r := &run{o: o, start: time.Now(), from: o.Warmup, recorders: make([]recorder, o.Clients), total: newTally()}
	r.to.Store(int64(o.Warmup + o.Duration))
	r.gap.open(r.from)
	for i := range r.recorders {
		r.recorders[i].slot.Store(newTally())
	}
	return r
}

// work is one client: the closed loop.
func (r *run) work(c Client, s source, rec *recorder) {
	limit := patience{timeout: r.o.Timeout}
	defer limit.end()
	for began := time.Since(r.start); began < time.Duration(r.to.Load()); {
		response, err := c.Do(limit.context(began), s.next())
		if err == nil && response.Error != nil {
			err = response.Error
		}
		ended := time.Since(r.start)
		if err == nil {
			s.answered(response, nil)
			r.note(rec, began, ended, nil)
			if began = ended; r.o.Pause > 0 {
				time.Sleep(r.o.Pause)
				began = time.Since(r.start)
			}
			continue
		}
		e := apiError(err)
		s.answered(response, e)
		r.note(rec, began, ended, e)
		if !e.Code.FromStore() {
			time.Sleep(max(errorPause, r.o.Pause))
		}
		began = time.Since(r.start)
	}
}

func (r *run) note(rec *recorder, began, ended time.Duration, err *api.Error) {
	ok := err == nil || err.Code.FromStore()
	if ok && ended >= r.from && ended <= time.Duration(r.to.Load()) {
		r.gap.success(ended)
	}
	if began >= r.from {
		rec.note(ended-began, err)
	}
}

// watch prints the progress and returns when the run has ended or ctx is done.
func (r *run) watch(ctx context.Context) {
	if r.o.Warmup > 0 {
		r.say("warming up for %v", r.o.Warmup)
	}
	end := r.from + r.o.Duration
	for at := r.from; ; at = min(at+time.Second, end) {
		if !sleepUntil(ctx, r.start.Add(at)) {
			r.interrupted = true
			r.to.Store(int64(time.Since(r.start)))
			r.say("interrupted; waiting for the operations in progress, %v at most", r.o.Timeout)
			return
		}
		if at > r.from && r.o.Progress != nil {
			r.progress(at - r.from)
		}
		if at == end {
			return
		}
	}
}

// progress prints the results since the last line.
func (r *run) progress(at time.Duration) {
	t := r.collect()
	length := at - r.shown
	r.shown = at
	r.say("%4.0f s  %s ops/s  p99 %s  %s", at.Seconds(), rate(t.answered(), length), latency(t.percentile(99)), count(r.total.failed(), "error"))
}

func (r *run) say(format string, args ...any) {
	if r.o.Progress != nil {
		// Progress is optional: an error of the terminal does not end the run.
		_, _ = fmt.Fprintf(r.o.Progress, format+"\n", args...)
	}
}

// collect empties all recorders. It returns their content and adds it to the
// total.
func (r *run) collect() *tally {
	sum, empty := newTally(), newTally()
	for i := range r.recorders {
		full := r.recorders[i].exchange(empty)
		sum.add(full)
		full.reset()
		empty = full
	}
	r.total.add(sum)
	return sum
}

// sleepUntil reports false if ctx was done before t.
func sleepUntil(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
