package cli

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// told is a client that answers each watch with the next of its answers, and then
// calls end.
type told struct {
	asked   []api.Request
	answers []any
	end     func()
}

func (c *told) Close() error { return nil }

func (c *told) Do(ctx context.Context, r api.Request) (api.Response, error) {
	c.asked = append(c.asked, r)
	if len(c.answers) == 0 {
		c.end()
		return api.Response{}, context.Cause(ctx)
	}
	next := c.answers[0]
	c.answers = c.answers[1:]
	if e, failed := next.(*api.Error); failed {
		return api.Response{}, e
	}
	return api.Response{Data: next.(api.Events).AppendJSON(nil)}, nil
}

func watched(t *testing.T, c *told, args ...string) result {
	t.Setenv(endpointsVariable, "127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	c.end = cancel
	s := Stage{Name: "96-watch", Ops: api.Ops{api.Watch: {May: api.Prefix | api.From}}, Dial: func([]string, ...DialOption) Client { return c }}
	var out, errors bytes.Buffer
	code := Run(ctx, s, append([]string{"watch"}, args...), nil, &out, &errors)
	return result{code, out.String(), errors.String()}
}

func TestWatchPrintsChanges(t *testing.T) {
	answers := []any{
		api.Events{Next: 5},
		api.Events{Events: []api.Event{{Index: 5, Key: "x", Value: "two words"}, {Index: 7, Key: "x", Deleted: true}}, Next: 9},
		api.Events{Events: []api.Event{{Index: 9, Key: "\xff", Value: "1\n"}}, Next: 10},
	}
	c := &told{answers: answers}
	require.Equal(t, result{0, "5\tx\t= two words\n7\tx\tdeleted\n9\t\"\\xff\"\t= \"1\\n\"\n", ""}, watched(t, c, "x"))
	var from []uint64
	for _, r := range c.asked {
		require.Equal(t, "x", r.Prefix)
		from = append(from, r.From)
	}
	require.Equal(t, []uint64{0, 5, 9, 10}, from)

	c = &told{answers: answers[1:]}
	require.Equal(t, result{0, `{"index":5,"key":"x","value":"two words"}` + "\n" + `{"index":7,"key":"x","deleted":true}` + "\n" + `{"index":9,"key_b64":"/w==","value":"1\n"}` + "\n", ""},
		watched(t, c, "--from", "3", "-o", "json"))
	require.EqualValues(t, 3, c.asked[0].From)
}

func TestWatchEndsWithAnError(t *testing.T) {
	gone := &api.Error{Code: api.Compacted, Message: "this server remembers the changes from 7 on", Definite: true}
	require.Equal(t, result{1, "", "error: this server remembers the changes from 7 on (compacted)\n"}, watched(t, &told{answers: []any{gone}}, "--from", "3"))
	got := watched(t, &told{answers: []any{api.Events{Next: 2}}}, "--from", "3")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "an earlier index")
}
