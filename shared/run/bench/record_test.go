package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
)

// The client writes as fast as it can while the reader keeps taking its tally:
// nothing may be lost or counted twice. Run with -race.
func TestNothingIsLostBetweenClientAndReader(t *testing.T) {
	const notes = 20_000
	var r recorder
	r.slot.Store(newTally())
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		for i := range notes {
			var err *api.Error
			if i%4 == 0 {
				err = &api.Error{Code: api.Busy, Message: "busy"}
			}
			r.note(time.Duration(i)*time.Microsecond, err)
		}
		return nil
	})
	sum, empty := newTally(), newTally()
	take := func() {
		full := r.exchange(empty)
		sum.add(full)
		full.reset()
		empty = full
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		take()
	}
	require.NoError(t, g.Wait())
	take()
	require.Equal(t, int64(notes*3/4), sum.answered())
	require.Equal(t, int64(notes*3/4), sum.ok)
	require.Equal(t, int64(notes/4), sum.failed())
	require.Equal(t, Ended{Count: notes / 4, Example: "busy"}, sum.ended[api.Busy])
	require.Equal(t, (notes-1)*time.Microsecond, sum.longest)
}

func TestALatencyBeyondTheHistogramStillCounts(t *testing.T) {
	tally := newTally()
	tally.note(3*time.Hour, nil)
	tally.note(0, nil)
	require.Equal(t, int64(2), tally.answered())
	require.Equal(t, 3*time.Hour, tally.longest)
	require.InDelta(t, float64(time.Hour), float64(tally.percentile(100)), float64(time.Minute))
}

func TestTheLongestGap(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		successes     []time.Duration
		length, began time.Duration
	}{
		"none at all":          {nil, 100 * ms, 0},
		"before the first":     {[]time.Duration{60 * ms, 90 * ms}, 60 * ms, 0},
		"between two":          {[]time.Duration{10 * ms, 55 * ms, 90 * ms}, 45 * ms, 10 * ms},
		"after the last":       {[]time.Duration{10 * ms, 30 * ms}, 70 * ms, 30 * ms},
		"out of order":         {[]time.Duration{50 * ms, 10 * ms, 90 * ms}, 50 * ms, 0},
		"the first of equals":  {[]time.Duration{50 * ms}, 50 * ms, 50 * ms},
		"below the resolution": {[]time.Duration{ms, ms + fine/2, 99 * ms}, 98 * ms, ms},
	} {
		t.Run(name, func(t *testing.T) {
			var g gap
			g.open(0)
			for _, at := range test.successes {
				g.success(at)
			}
			length, began := g.longestUntil(100 * ms)
			require.Equal(t, test.length, length)
			require.Equal(t, test.began, began)
		})
	}
}

// Apart from the client's Do, the generator must not allocate for an operation:
// that would slow down a server on the same machine.
func TestAnOperationAllocatesNothing(t *testing.T) {
	o := Defaults()
	o.Warmup = 0
	o.Mix = "put=50,get=30,append=10,cas=5,delete=5"
	r := newRun(o)
	s := newMixSources(o)[0]
	limit := patience{timeout: time.Hour}
	defer limit.end()
	failed := &api.Error{Code: api.NotFound, Message: "the key has no value", Definite: true}
	allocs := testing.AllocsPerRun(1000, func() {
		began := time.Since(r.start)
		_ = limit.context(began)
		_ = s.next()
		s.answered(api.Response{}, nil)
		r.note(&r.recorders[0], began, time.Since(r.start), nil)
		_ = s.next()
		s.answered(api.Response{}, failed)
		r.note(&r.recorders[0], began, time.Since(r.start), failed)
	})
	require.Zero(t, allocs)
	require.Equal(t, int64(2*1001), r.collect().answered(), "what was measured is what happened")
}
