package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/run/bench"
)

// verify runs clients that append tokens for two seconds of virtual time.
func verify(t *testing.T, do doFunc) (report bench.Report) {
	synctest.Test(t, func(t *testing.T) {
		o := bench.Defaults()
		o.Dial = func() (bench.Client, error) { return do, nil }
		o.Clients = 3
		o.Warmup = 100 * time.Millisecond
		o.Duration = 2 * time.Second
		o.Verify = true
		var err error
		report, err = bench.Run(t.Context(), o)
		require.NoError(t, err)
	})
	return report
}

// honest is a server that does what it says, in two milliseconds. change may
// replace the command, and the response after it was applied.
func honest(change func(n int, r *api.Request, apply func() api.Response) api.Response) doFunc {
	store := kv.NewStore()
	var mu sync.Mutex
	appends := 0
	return func(_ context.Context, r api.Request) (api.Response, error) {
		time.Sleep(2 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		apply := func() api.Response { return api.Result(0, r.Op, store.Apply(r.Command())) }
		var response api.Response
		if r.Op == kv.Append && change != nil {
			appends++
			response = change(appends, &r, apply)
		} else {
			response = apply()
		}
		if response.Error != nil {
			return api.Response{}, response.Error
		}
		return response, nil
	}
}

var (
	errUnknown = api.Failed(0, &api.Error{Code: api.Unknown, Message: "the connection broke"})
	errRefused = api.Failed(0, &api.Error{Code: api.Busy, Message: "busy", Definite: true})
)

func TestAnHonestServerPasses(t *testing.T) {
	report := verify(t, honest(func(n int, _ *api.Request, apply func() api.Response) api.Response {
		switch n % 100 {
		case 10:
			return errRefused
		case 20:
			return errUnknown
		case 30:
			apply()
			return errUnknown
		}
		return apply()
	}))
	require.NoError(t, report.Err())
	v := report.Verify
	require.Zero(t, v.Broken, "%v", v.Violations)
	require.Greater(t, v.Acknowledged, int64(2500))
	require.NotZero(t, v.Refused)
	require.InDelta(t, v.Unknown, 2*v.UnknownFound, 1)
	require.Equal(t, "verify", report.Mix)
	require.Contains(t, report.String(), "3 clients, appending tokens\n")
	require.Contains(t, report.String(), "every promise was kept")
}

// Each lie is told once, at the 500th append, and must be found under its own
// name, and only there.
func TestEveryLieIsFound(t *testing.T) {
	for kind, lie := range map[string]func(r *api.Request, apply func() api.Response) api.Response{
		"lost": func(r *api.Request, apply func() api.Response) api.Response {
			return api.Response{Length: uint64(len(r.Value)), HasLength: true}
		},
		"twice": func(r *api.Request, apply func() api.Response) api.Response {
			apply()
			return apply()
		},
		"refused": func(r *api.Request, apply func() api.Response) api.Response {
			apply()
			return errRefused
		},
		"order": func(r *api.Request, apply func() api.Response) api.Response {
			token := r.Value
			response := apply()
			r.Op = kv.Get
			value := apply().Value
			if value == token {
				panic("the test needs a token with another before it")
			}
			r.Op, r.Value = kv.Put, token+strings.TrimSuffix(value, token)
			apply()
			return response
		},
		"answer": func(r *api.Request, apply func() api.Response) api.Response {
			apply()
			return api.Response{Length: 1, HasLength: true}
		},
		"unexpected": func(r *api.Request, apply func() api.Response) api.Response {
			r.Value = "9.9;" + r.Value
			return apply()
		},
	} {
		t.Run(kind, func(t *testing.T) {
			report := verify(t, honest(func(n int, r *api.Request, apply func() api.Response) api.Response {
				if n == 500 {
					return lie(r, apply)
				}
				return apply()
			}))
			require.EqualError(t, report.Err(), "the servers broke their promises: 1 violation")
			require.Len(t, report.Verify.Violations, 1)
			require.Equal(t, kind, report.Verify.Violations[0].Kind, "%v", report.Verify.Violations)
			require.Contains(t, report.String(), "violation    "+kind+": verify-")
		})
	}
}

func TestATokenWithoutItsEndIsUnexpected(t *testing.T) {
	report := verify(t, honest(func(n int, r *api.Request, apply func() api.Response) api.Response {
		if n == 500 {
			r.Value = strings.TrimSuffix(r.Value, ";")
			apply()
			return api.Response{Length: uint64(len(r.Value) + 1), HasLength: true}
		}
		return apply()
	}))
	// It merges with the token behind it, which is then lost too.
	require.Greater(t, report.Verify.Broken, int64(1))
	require.Contains(t, report.String(), "unexpected")
	require.Contains(t, report.String(), "lost")
}

func TestWhatCannotBeReadHasNotPassed(t *testing.T) {
	store := honest(nil)
	var mu sync.Mutex
	appending := false
	report := verify(t, func(ctx context.Context, r api.Request) (api.Response, error) {
		mu.Lock()
		appending = appending || r.Op == kv.Append
		dead := appending && r.Op == kv.Get
		mu.Unlock()
		if dead {
			return api.Response{}, &api.Error{Code: api.Unavailable, Message: "connection refused", Definite: true}
		}
		return store(ctx, r)
	})
	v := report.Verify
	require.Zero(t, v.Broken, "no promise is known to be broken")
	require.Equal(t, v.Acknowledged+v.Refused+v.Unknown, v.Unchecked)
	require.Contains(t, v.Unread, "connection refused")
	require.Contains(t, report.String(), "the servers stopped answering: 0 of ")
	require.NotContains(t, report.String(), "every promise was kept\n")
	var e *api.Error
	require.ErrorAs(t, report.Err(), &e)
	require.Equal(t, api.Unavailable, e.Code)
	require.ErrorContains(t, report.Err(), fmt.Sprintf("%d were not checked", v.Unchecked))
}

// A server that is just being restarted when the reading begins.
func TestTheReadingWaitsForTheServer(t *testing.T) {
	store := honest(nil)
	var back time.Time
	var mu sync.Mutex
	appending := false
	report := verify(t, func(ctx context.Context, r api.Request) (api.Response, error) {
		mu.Lock()
		appending = appending || r.Op == kv.Append
		if appending && r.Op == kv.Get && back.IsZero() {
			back = time.Now().Add(10 * time.Second)
		}
		dead := r.Op == kv.Get && time.Now().Before(back)
		mu.Unlock()
		if dead {
			return api.Response{}, &api.Error{Code: api.Unavailable, Message: "connection refused", Definite: true}
		}
		return store(ctx, r)
	})
	require.NoError(t, report.Err())
	require.NotZero(t, report.Verify.Acknowledged)
}

// interruptible is a run with Verify whose load takes two seconds, and in which
// a key takes a second to be read. interrupt runs alongside it.
func interruptible(t *testing.T, change func(n int, r *api.Request, apply func() api.Response) api.Response, interrupt func(stop, enough func())) (report bench.Report, took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		enough := make(chan struct{})
		store := honest(change)
		o := bench.Defaults()
		o.Clients, o.Warmup, o.Duration, o.Verify, o.Enough = 1, 0, 2*time.Second, true, enough
		o.Dial = func() (bench.Client, error) {
			return doFunc(func(ctx context.Context, r api.Request) (api.Response, error) {
				if r.Op == kv.Get && strings.HasPrefix(r.Key, "verify-") {
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
						return api.Response{}, &api.Error{Code: api.Unknown, Message: "no answer in time"}
					}
				}
				return store(ctx, r)
			}), nil
		}
		began := time.Now()
		go interrupt(cancel, func() { close(enough) })
		var err error
		report, err = bench.Run(ctx, o)
		require.NoError(t, err)
		took = time.Since(began)
	})
	return report, took
}

// The load appends a token each two milliseconds, and 64 of them stand under a
// key.
func TestAnInterruptEndsTheReading(t *testing.T) {
	report, took := interruptible(t, nil, func(stop, _ func()) {
		time.Sleep(4500 * time.Millisecond)
		stop()
	})
	require.Less(t, took, 4600*time.Millisecond)
	require.False(t, report.Interrupted, "the load was not")
	v := report.Verify
	require.Equal(t, int64(1000), v.Acknowledged)
	require.Equal(t, int64(1000-2*64), v.Unchecked)
	require.Zero(t, v.Broken, "%v", v.Violations)
	require.ErrorIs(t, report.Err(), bench.ErrInterrupted)
	require.EqualError(t, report.Err(), "interrupted: of 1000 tokens, 872 were not checked")
	text := report.String()
	require.Contains(t, text, "interrupted: 128 of 1000 tokens were checked, and the other 872 were not\n")
	require.Contains(t, text, "every promise about the checked tokens was kept\n")
	require.NotContains(t, text, "verify       every promise was kept")
	encoded, err := json.Marshal(report)
	require.NoError(t, err)
	require.Contains(t, string(encoded), `"unchecked":872,`)
}

func TestTheFirstInterruptEndsTheLoadAndTheSecondTheReading(t *testing.T) {
	first := func(stop, _ func()) {
		time.Sleep(1001 * time.Millisecond)
		stop()
	}
	report, _ := interruptible(t, nil, first)
	require.True(t, report.Interrupted)
	require.Equal(t, int64(500), report.Verify.Acknowledged)
	require.Zero(t, report.Verify.Unchecked, "the reading goes on")
	require.NoError(t, report.Err())
	require.Contains(t, report.String(), "verify       every promise was kept")

	report, took := interruptible(t, nil, func(stop, enough func()) {
		first(stop, enough)
		time.Sleep(3500 * time.Millisecond)
		enough()
	})
	require.Less(t, took, 4600*time.Millisecond)
	require.Equal(t, int64(500-3*64), report.Verify.Unchecked)
	require.ErrorIs(t, report.Err(), bench.ErrInterrupted)
}

// A lie that was found by then is one, whatever else there may be.
func TestAnInterruptHidesNoViolation(t *testing.T) {
	report, _ := interruptible(t, func(n int, r *api.Request, apply func() api.Response) api.Response {
		if n == 10 {
			return api.Response{Length: uint64(len(r.Value)), HasLength: true}
		}
		return apply()
	}, func(stop, _ func()) {
		time.Sleep(4500 * time.Millisecond)
		stop()
	})
	require.EqualError(t, report.Err(), "the servers broke their promises: 1 violation")
	require.NotContains(t, report.String(), "every promise")
	require.Contains(t, report.String(), "violation    lost: ")
	require.Contains(t, report.String(), "the other 872 were not\n")
}

func TestTheJSONOfAVerificationHasNoNull(t *testing.T) {
	text, err := json.Marshal(verify(t, honest(nil)))
	require.NoError(t, err)
	require.Contains(t, string(text), `"broken":0,"violations":[]`)
	require.NotContains(t, string(text), "null")
}
