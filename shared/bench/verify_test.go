package bench_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/bench"
	"example.com/raftsteps/shared/kv"
)

// verify runs clients that append tokens for two virtual seconds.
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
			return api.Response{Value: r.Value, HasValue: true}
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
			older, _, _ := strings.Cut(response.Value, ";")
			r.Op, r.Value = kv.Put, token+strings.TrimSuffix(response.Value, token)
			if older+";" == token {
				panic("the test needs a token with another before it")
			}
			apply()
			return response
		},
		"answer": func(r *api.Request, apply func() api.Response) api.Response {
			apply()
			return api.Response{Value: "old", HasValue: true}
		},
		"foreign": func(r *api.Request, apply func() api.Response) api.Response {
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
			require.EqualError(t, report.Err(), "the server broke its promise: 1 violation")
			require.Len(t, report.Verify.Violations, 1)
			require.Equal(t, kind, report.Verify.Violations[0].Kind, "%v", report.Verify.Violations)
			require.Contains(t, report.String(), "violation    "+kind+": verify-")
		})
	}
}

func TestATokenWithoutItsEndIsForeign(t *testing.T) {
	report := verify(t, honest(func(n int, r *api.Request, apply func() api.Response) api.Response {
		if n == 500 {
			r.Value = strings.TrimSuffix(r.Value, ";")
			apply()
			return api.Response{Value: r.Value + ";", HasValue: true}
		}
		return apply()
	}))
	// It merges with the token behind it, which is then lost too.
	require.Greater(t, report.Verify.Broken, int64(1))
	require.Contains(t, report.String(), "foreign")
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
	require.Error(t, report.Err())
	require.Greater(t, report.Verify.Broken, int64(20))
	require.Len(t, report.Verify.Violations, 20)
	require.Equal(t, "unread", report.Verify.Violations[0].Kind)
	require.Contains(t, report.String(), "more\n")
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

func TestTheJSONOfAVerificationHasNoNull(t *testing.T) {
	text, err := json.Marshal(verify(t, honest(nil)))
	require.NoError(t, err)
	require.Contains(t, string(text), `"broken":0,"violations":[]`)
	require.NotContains(t, string(text), "null")
}
