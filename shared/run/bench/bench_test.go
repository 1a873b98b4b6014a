package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/run/bench"
)

// world is a server in memory. All times are virtual: the tests run inside
// testing/synctest.
type world struct {
	store *kv.Store
	start time.Time

	// takes is how long an operation takes on the server.
	takes time.Duration

	// fails returns the error at a time since the start; nil for none.
	fails func(at time.Duration, r api.Request) *api.Error

	mu     sync.Mutex
	dialed int
	closed int
	asked  map[string]int
}

func newWorld(takes time.Duration) *world {
	return &world{store: kv.NewStore(), start: time.Now(), takes: takes, asked: make(map[string]int)}
}

func (w *world) dial() (bench.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialed++
	return w, nil
}

func (w *world) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed++
	return nil
}

func (w *world) Do(ctx context.Context, r api.Request) (api.Response, error) {
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
		return api.Response{}, &api.Error{Code: api.Unknown, Message: "no answer in time"}
	}
	w.mu.Lock()
	w.asked[r.Op]++
	w.mu.Unlock()
	if w.fails != nil {
		if err := w.fails(time.Since(w.start), r); err != nil {
			return api.Response{}, err
		}
	}
	response := api.Result(0, r.Op, w.store.Apply(r.Command()))
	if response.Error != nil {
		return api.Response{}, response.Error
	}
	return response, nil
}

// options returns the options of a run of ten measured seconds, without a
// warm-up.
func options(w *world) bench.Options {
	o := bench.Defaults()
	o.Dial = w.dial
	o.Clients = 4
	o.Warmup = 0
	o.Keys = 100
	o.Mix = "put"
	return o
}

func TestAClosedLoopWaitsForEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10 * time.Millisecond)
		o := options(w)
		o.Warmup = time.Second
		var progress strings.Builder
		o.Progress = &progress
		report, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, report.Err())

		require.Equal(t, int64(4*1000), report.Ops, "4 clients, 10 s, 10 ms each; the warm-up does not count")
		require.Equal(t, 4*100+4*1000+1, w.asked[kv.Put]+w.asked[kv.Get], "the warm-up ran, and one get came first")
		require.InDelta(t, 400, report.OpsPerSecond, 0.001)
		require.InDelta(t, 10_000, report.Latency.P50, 100)
		require.InDelta(t, 10_000, report.Latency.P999, 100)
		require.InDelta(t, 10_000, report.Latency.Max, 0)
		require.InDelta(t, 0.010, report.Gap.Seconds, 0.0001)
		require.Empty(t, report.Errors)
		require.False(t, report.Interrupted)

		lines := strings.Split(strings.TrimSpace(progress.String()), "\n")
		require.Len(t, lines, 1+10)
		require.Equal(t, "warming up for 1s", lines[0])
		// At each full second, the line and the clients' answers happen at the
		// same moment.
		require.Regexp(t, `^   1 s  (39[6-9]|40[0-4]) ops/s  p99 10\.0 ms  0 errors$`, lines[1])
		require.Regexp(t, `^  10 s  (39[6-9]|40[0-4]) ops/s  p99 10\.0 ms  0 errors$`, lines[10])
	})
}

func TestAnOutageIsCountedByCodeAndShownAsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Millisecond)
		w.fails = func(at time.Duration, r api.Request) *api.Error {
			switch {
			case at < 3*time.Second || at >= 3500*time.Millisecond:
				return nil
			case at < 3250*time.Millisecond:
				return &api.Error{Code: api.Unknown, Message: "the connection broke"}
			}
			return &api.Error{Code: api.Unavailable, Message: "connection refused", Definite: true}
		}
		report, err := bench.Run(t.Context(), options(w))
		require.NoError(t, err)
		require.NoError(t, report.Err(), "some operations failed, the run did not")

		// A client that failed waits for 10 ms, then needs 1 ms more.
		require.InDelta(t, 0.5, report.Gap.Seconds, 0.015)
		require.InDelta(t, 3.0, report.Gap.Began, 0.015)
		require.Len(t, report.Errors, 2)
		require.InDelta(t, 4*250/11, report.Errors[api.Unknown].Count, 4)
		require.InDelta(t, 4*250/11, report.Errors[api.Unavailable].Count, 4)
		require.Equal(t, "connection refused", report.Errors[api.Unavailable].Example)
		require.InDelta(t, 1000, report.Latency.Max, 0.001, "an error is no latency")
	})
}

func TestNotFoundCountsAsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10 * time.Millisecond)
		o := options(w)
		o.Mix = "get=1,cas=1"
		report, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.Empty(t, report.Errors)
		require.Equal(t, report.Ops, report.Answers[api.NotFound].Count)
		require.Equal(t, int64(4*1000), report.Ops)
	})
}

func TestTheFirstInterruptEndsTheRunAndKeepsTheReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(30 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var progress strings.Builder
		o := options(w)
		o.Progress = &progress
		began := time.Now()
		report, err := bench.Run(ctx, o)
		require.NoError(t, err)
		require.True(t, report.Interrupted)
		// The run began when the probe had been answered, after 30 ms.
		require.InDelta(t, 2-0.030, report.Seconds, 1e-6)
		require.Equal(t, int64(4*66), report.Ops, "what was under way is waited for and counted")
		require.Empty(t, report.Errors, "the interrupt breaks no operation")
		require.Equal(t, 30*time.Millisecond+66*30*time.Millisecond, time.Since(began))
		require.Contains(t, progress.String(), "interrupted; waiting for the operations in progress")
		require.Contains(t, report.String(), "interrupted)")
	})
}

func TestAnInterruptInTheWarmUpMeasuresNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o := options(newWorld(time.Millisecond))
		o.Warmup = 10 * time.Second
		report, err := bench.Run(ctx, o)
		require.NoError(t, err)
		require.NoError(t, report.Err())
		require.Zero(t, report.Ops)
		require.Zero(t, report.Seconds)
		require.Contains(t, report.String(), "nothing measured")
		_, err = json.Marshal(report)
		require.NoError(t, err, "a rate over no time must not be NaN")
	})
}

func TestAnOperationTimesOutAtMostATwentiethLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(0)
		var mu sync.Mutex
		var least, most time.Duration = time.Hour, 0
		asked := 0
		o := options(w)
		o.Timeout = time.Second
		o.Dial = func() (bench.Client, error) {
			return doFunc(func(ctx context.Context, r api.Request) (api.Response, error) {
				if r.Op == kv.Get {
					return api.Response{}, nil
				}
				deadline, ok := ctx.Deadline()
				mu.Lock()
				least, most = min(least, time.Until(deadline)), max(most, time.Until(deadline))
				asked++
				stuck := ok && asked%100 == 0
				mu.Unlock()
				if stuck {
					<-ctx.Done()
					return api.Response{}, &api.Error{Code: api.Unknown, Message: "no answer in time"}
				}
				time.Sleep(7 * time.Millisecond)
				return api.Response{}, nil
			}), nil
		}
		report, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.NotZero(t, report.Errors[api.Unknown].Count)
		require.GreaterOrEqual(t, least, time.Second)
		require.LessOrEqual(t, most, 1050*time.Millisecond)
		require.Less(t, least, most, "contexts are shared")
	})
}

type doFunc func(ctx context.Context, r api.Request) (api.Response, error)

func (f doFunc) Do(ctx context.Context, r api.Request) (api.Response, error) { return f(ctx, r) }
func (f doFunc) Close() error                                                { return nil }

func TestConnectionsAreSharedAndClosed(t *testing.T) {
	for conns, want := range map[int]int{0: 4, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(10 * time.Millisecond)
			o := options(w)
			o.Conns = conns
			report, err := bench.Run(t.Context(), o)
			require.NoError(t, err)
			require.Equal(t, want, w.dialed)
			require.Equal(t, want, w.closed)
			require.Equal(t, int64(4*1000), report.Ops, "all four clients work, however few the connections")
		})
	}
}

func TestAConnectionThatCannotBeMadeEndsTheRunAndClosesTheOthers(t *testing.T) {
	w := newWorld(0)
	o := options(w)
	o.Dial = func() (bench.Client, error) {
		if w.dialed == 2 {
			return nil, errors.New("too many open files")
		}
		return w.dial()
	}
	_, err := bench.Run(t.Context(), o)
	require.EqualError(t, err, "connection 3 of 4: too many open files")
	require.Equal(t, 2, w.closed)
}

func TestNoServerEndsTheRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(0)
		w.fails = func(time.Duration, api.Request) *api.Error {
			return &api.Error{Code: api.Unavailable, Message: "cannot connect to 127.0.0.1:7010: connection refused", Definite: true}
		}
		began := time.Now()
		_, err := bench.Run(t.Context(), options(w))
		var e *api.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, api.Unavailable, e.Code)
		require.Zero(t, time.Since(began))
		require.Equal(t, w.dialed, w.closed)
	})
}

func TestARunWithoutAnAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Millisecond)
		w.fails = func(_ time.Duration, r api.Request) *api.Error {
			return &api.Error{Code: api.NotLeader, Message: "n1 leads", Definite: true}
		}
		report, err := bench.Run(t.Context(), options(w))
		require.NoError(t, err, "a server that refuses is there")
		var e *api.Error
		require.ErrorAs(t, report.Err(), &e)
		require.Equal(t, api.NotLeader, e.Code)
		require.ErrorContains(t, report.Err(), "not_leader: no operation was answered: n1 leads")
	})
}

// A value may have 128 KiB. With values of a tenth of that, a key is full after
// ten appends, and the run must continue.
func TestAValueThatIsFullIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(5 * time.Millisecond)
		o := options(w)
		o.Mix = "append"
		o.Keys = 1
		o.Clients = 1
		o.ValueSize = kv.MaxValue / 10
		report, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.Empty(t, report.Errors)
		full := report.Answers[api.TooLarge].Count
		require.Equal(t, int64(w.asked[kv.Delete]), full)
		require.Equal(t, int64(2000/12), full, "ten appends, one that is refused, one delete")
	})
}

func TestFillWritesEveryKeyBeforeTheClockStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Millisecond)
		w.fails = func(at time.Duration, _ api.Request) *api.Error {
			if at > 10*time.Millisecond && at < 500*time.Millisecond {
				return &api.Error{Code: api.Unknown, Message: "no leader"}
			}
			return nil
		}
		o := bench.Options{Dial: w.dial, Clients: 4, Duration: time.Second, Timeout: time.Second, ValueSize: 3, Keys: 100, Mix: "get", Fill: true, Seed: 1}
		var said strings.Builder
		o.Progress = &said
		report, err := bench.Run(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, 100, w.store.Len())
		require.Empty(t, report.Errors, "they were before the clock")
		require.Contains(t, said.String(), "filled 100 keys in 0.5 s")
	})
}

// Two clients that wait for 90 ms after each answer, which takes 10 ms, make 20
// operations per second; the latency does not include the pause.
func TestClientsPauseAfterEachAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(10 * time.Millisecond)
		report, err := bench.Run(t.Context(), bench.Options{Dial: w.dial, Clients: 2, Duration: time.Second, Timeout: time.Second, Keys: 100, Mix: "put", Pause: 90 * time.Millisecond})
		require.NoError(t, err)
		require.Equal(t, 20, w.asked[kv.Put])
		require.InDelta(t, 10_000, report.Latency.Max, 500) // in microseconds
	})
}

func TestFillStopsAtTheFirstKeyThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Millisecond)
		w.fails = func(at time.Duration, r api.Request) *api.Error {
			if r.Op == kv.Put && at > 10*time.Millisecond {
				return &api.Error{Code: api.Unavailable, Message: "nobody leads", Definite: true}
			}
			return nil
		}
		_, err := bench.Run(t.Context(), bench.Options{Dial: w.dial, Clients: 1, Duration: time.Second, Timeout: time.Second, Keys: 100, Mix: "get", Fill: true})
		require.ErrorContains(t, err, "unavailable: filling: 9 of 100 keys are written: nobody leads")
	})
}

func TestOptionsAreCheckedByTheNameOfTheFlag(t *testing.T) {
	for want, change := range map[string]func(*bench.Options){
		"--clients is 0": func(o *bench.Options) { o.Clients = 0 },
		"--clients is 10001; it must be from 1 to 100":                     func(o *bench.Options) { o.Clients = 10_001 },
		"--conns is 5; it must be from 0 (one connection per client) to 4": func(o *bench.Options) { o.Conns = 5 },
		"--conns is -1":          func(o *bench.Options) { o.Conns = -1 },
		"--duration is 0s":       func(o *bench.Options) { o.Duration = 0 },
		"--warmup is -1s":        func(o *bench.Options) { o.Warmup = -time.Second },
		"--timeout is 0s":        func(o *bench.Options) { o.Timeout = 0 },
		"--pause is -1s":         func(o *bench.Options) { o.Pause = -time.Second },
		"--pause is 2s":          func(o *bench.Options) { o.Pause = 2 * time.Second },
		"--value-size is 131073": func(o *bench.Options) { o.ValueSize = kv.MaxValue + 1 },
		"--keys is 0":            func(o *bench.Options) { o.Keys = 0 },
		`unknown operation "sort"; the operations are put, create, get, append, cas and delete, as in "put=90,get=10"`: func(o *bench.Options) { o.Mix = "put=1,sort=2" },
		`unknown operation ""`:                    func(o *bench.Options) { o.Mix = "" },
		"--mix names put twice":                   func(o *bench.Options) { o.Mix = "put,get,put" },
		`"-1" is not a number of parts for put`:   func(o *bench.Options) { o.Mix = "put=-1" },
		`"9999" is not a number of parts for put`: func(o *bench.Options) { o.Mix = "put=9999" },
		`"" is not a number of parts for put`:     func(o *bench.Options) { o.Mix = "put=" },
		"has no operation":                        func(o *bench.Options) { o.Mix = "put=0" },
		"Options.Dial is nil":                     func(o *bench.Options) { o.Dial = nil },
	} {
		o := options(newWorld(0))
		require.NoError(t, o.Check())
		change(&o)
		_, err := bench.Run(t.Context(), o)
		require.ErrorContains(t, err, want)
	}
}

func TestTheMixIsKeptAndTheSeedRepeatsIt(t *testing.T) {
	run := func(seed uint64) map[string]int {
		var w *world
		synctest.Test(t, func(t *testing.T) {
			w = newWorld(5 * time.Millisecond)
			o := options(w)
			o.Mix = "put=50, get=30, append=10, cas=5, delete=5"
			o.ValueSize = 1
			o.Seed = seed
			_, err := bench.Run(t.Context(), o)
			require.NoError(t, err)
		})
		return w.asked
	}
	first := run(1)
	require.InDelta(t, 4_000, first[kv.Put], 250)
	require.InDelta(t, 2_400, first[kv.Get], 250)
	require.InDelta(t, 800, first[kv.Append], 150)
	require.InDelta(t, 400, first[kv.Cas], 100)
	require.InDelta(t, 400, first[kv.Delete], 100)
	require.Empty(t, cmp.Diff(first, run(1)))
	require.NotEmpty(t, cmp.Diff(first, run(2)))
}

func TestTheTextOfAReport(t *testing.T) {
	report := bench.Report{
		Clients: 64, Conns: 4, Mix: "put=90,get=10", ValueSize: 64, Keys: 10_000,
		Seconds: 10, Ops: 812_340, OpsPerSecond: 81_234,
		Latency: bench.Latency{P50: 712.4, P99: 1920, P999: 14_200, Max: 1_250_000},
		Answers: map[api.Code]bench.Ended{api.NotFound: {Count: 12, Example: "the key has no value"}},
		Errors:  map[api.Code]bench.Ended{api.Unavailable: {Count: 3, Example: "connection refused"}},
		Gap:     bench.Gap{Seconds: 0.3124, Began: 4.21},
	}
	require.Equal(t, strings.TrimLeft(`
load         64 clients over 4 connections, put=90,get=10, values of 64 bytes, 10000 keys
throughput   81234 ops/s (812340 operations in 10.0 s)
latency      p50 712 µs, p99 1.92 ms, p99.9 14.2 ms, max 1.25 s
answers      not_found: 12
errors       unavailable: 3, such as: connection refused
longest gap  312 ms without a success, 4.2 s after the start
`, "\n"), report.String())

	text, err := json.Marshal(report)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"clients": 64, "conns": 4, "mix": "put=90,get=10", "value_size": 64, "keys": 10000,
		"seconds": 10, "ops": 812340, "ops_per_second": 81234,
		"latency_us": {"p50": 712.4, "p99": 1920, "p999": 14200, "max": 1250000},
		"answers": {"not_found": {"count": 12, "example": "the key has no value"}},
		"errors": {"unavailable": {"count": 3, "example": "connection refused"}},
		"longest_gap": {"seconds": 0.3124, "began": 4.21}
	}`, string(text))
}
