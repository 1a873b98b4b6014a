package bench

import (
	"context"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/raftsteps/shared/core/api"
)

// tally is the result of a period of a run. One goroutine at a time owns it.
type tally struct {
	// latency is the histogram of the latencies of answered operations, in
	// nanoseconds, with an error of one percent; longest is exact.
	latency *hdrhistogram.Histogram
	longest time.Duration

	// ended counts the operations that ended with an error, by code. Example is
	// the first message with that code.
	ended map[api.Code]Ended

	// ok counts the operations that were done.
	ok int64
}

// Ended is how many operations ended with a code, and the first message with that
// code.
type Ended struct {
	Count   int64  `json:"count"`
	Example string `json:"example,omitempty"`
}

// longestTracked is the end of the histogram. Longer latencies count as
// longestTracked; tally.longest has the true value.
const longestTracked = time.Hour

func newTally() *tally {
	return &tally{
		// Two digits, from a microsecond on: 25 KiB, so that the histograms of
		// many clients stay in the processor's cache.
		latency: hdrhistogram.New(int64(time.Microsecond), int64(longestTracked), 2),
		ended:   make(map[api.Code]Ended),
	}
}

func (t *tally) reset() {
	t.latency.Reset()
	t.longest = 0
	t.ok = 0
	clear(t.ended)
}

func (t *tally) note(latency time.Duration, err *api.Error) {
	if err != nil {
		e := t.ended[err.Code]
		if e.Count++; e.Count == 1 {
			e.Example = err.Message
		}
		t.ended[err.Code] = e
		if !err.Code.FromStore() {
			return
		}
	} else {
		t.ok++
	}
	t.longest = max(t.longest, latency)
	// A latency is never negative and, after min, never out of range.
	_ = t.latency.RecordValue(int64(min(latency, longestTracked)))
}

func (t *tally) add(other *tally) {
	t.latency.Merge(other.latency)
	t.longest = max(t.longest, other.longest)
	t.ok += other.ok
	for code, e := range other.ended {
		sum := t.ended[code]
		if sum.Count == 0 {
			sum.Example = e.Example
		}
		sum.Count += e.Count
		t.ended[code] = sum
	}
}

// answered returns how many operations were answered, failed how many were not.
func (t *tally) answered() int64 { return t.latency.TotalCount() }

func (t *tally) failed() (n int64) {
	for code, e := range t.ended {
		if !code.FromStore() {
			n += e.Count
		}
	}
	return n
}

func (t *tally) percentile(p float64) time.Duration {
	return min(time.Duration(t.latency.ValueAtPercentile(p)), t.longest)
}

// recorder has the tally of one client. The client writes it after each
// operation, and the goroutine of Run reads it once a second.
//
// A slot makes this work without a lock. The client takes its tally out
// of the slot, writes, and puts it back. The reader exchanges the tally in the
// slot for an empty one; if the slot is empty, the client is writing at that
// moment, and the reader tries again.
type recorder struct {
	slot atomic.Pointer[tally]

	// Each recorder has a cache line of its own: the clients run on several
	// processors.
	_ [56]byte
}

func (r *recorder) note(latency time.Duration, err *api.Error) {
	t := r.slot.Swap(nil)
	t.note(latency, err)
	r.slot.Store(t)
}

// exchange returns the recorder's tally and replaces it by an empty one.
func (r *recorder) exchange(empty *tally) *tally {
	for {
		if t := r.slot.Load(); t != nil && r.slot.CompareAndSwap(t, empty) {
			return t
		}
		runtime.Gosched()
	}
}

// gap finds the longest time without an answer to any client. It is safe for
// concurrent use.
type gap struct {
	// last is when the latest success was seen, in nanoseconds.
	last atomic.Int64

	// longest packs the longest gap so far (upper half) and when it ended
	// (lower half), both in units of fine, so that one write changes both.
	longest atomic.Uint64
}

// fine is the resolution of a gap. Successes that follow each other faster are
// skipped, so that the clients do not compete for a cache line at full load.
const fine = 100 * time.Microsecond

func (g *gap) open(at time.Duration) { g.last.Store(int64(at)) }

// success records that an operation was answered at this time.
func (g *gap) success(at time.Duration) {
	last := g.last.Load()
	if at-time.Duration(last) < fine || !g.last.CompareAndSwap(last, int64(at)) {
		return
	}
	packed := units(at-time.Duration(last))<<32 | units(at)
	for {
		old := g.longest.Load()
		if packed <= old || g.longest.CompareAndSwap(old, packed) {
			return
		}
	}
}

func units(d time.Duration) uint64 { return uint64(min(d/fine, math.MaxUint32)) }

// longestUntil returns the longest gap of a run that ended at end, and when the
// gap began.
func (g *gap) longestUntil(end time.Duration) (length, began time.Duration) {
	g.success(end)
	packed := g.longest.Load()
	length = time.Duration(packed>>32) * fine
	return length, time.Duration(packed&math.MaxUint32)*fine - length
}

// patience returns the context of each operation of one client. A timer for
// each operation would cost more than the rest of the operation, so operations
// that start within a twentieth of the timeout share one context.
type patience struct {
	timeout time.Duration
	made    time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
}

// context returns a context for an operation that starts at this time. It
// lasts timeout, or up to a twentieth more.
func (p *patience) context(at time.Duration) context.Context {
	slack := p.timeout / 20
	if p.ctx == nil || at-p.made > slack || p.ctx.Err() != nil {
		p.end()
		p.made = at
		p.ctx, p.cancel = context.WithTimeout(context.Background(), p.timeout+slack)
	}
	return p.ctx
}

func (p *patience) end() {
	if p.cancel != nil {
		p.cancel()
	}
}
