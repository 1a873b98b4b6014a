package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/wire"
)

// stream asks for a stream of events from a server that has these answers, and whose
// client leaves after them. It returns the answer and what the server was asked.
func stream(t *testing.T, target, last string, answers ...any) (*httptest.ResponseRecorder, []api.Request) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var asked []api.Request
	h := New(Options{Ops: api.Ops{api.Watch: {May: api.Prefix | api.From}}, Ask: func(r api.Request, reply func(api.Response)) {
		if len(answers) == 0 {
			leave()
			return
		}
		asked = append(asked, r)
		next := answers[0]
		answers = answers[1:]
		if e, failed := next.(*api.Error); failed {
			reply(api.Failed(0, e))
			return
		}
		reply(api.Response{Later: next.(api.Events).AppendJSON})
	}})
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	r.Host = "localhost"
	if last != "" {
		r.Header.Set(lastEventID, last)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w, asked
}

func TestWatchIsAStreamOfEvents(t *testing.T) {
	w, asked := stream(t, "/v1/watch?prefix=x&from=5", "",
		api.Events{Events: []api.Event{{Index: 5, Key: "x", Value: "1"}, {Index: 7, Key: "x\xff", Deleted: true}}, Next: 9},
		api.Events{Next: 12},
		&api.Error{Code: api.Unavailable, Message: "it is stopping", Definite: true})
	require.Equal(t, 200, w.Code)
	require.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
	require.Contains(t, w.Body.String(), "id: 5\ndata: {\"index\":5,\"key\":\"x\",\"value\":\"1\"}\n\nid: 7\ndata: {\"index\":7,\"key_b64\":\"eP8=\",\"deleted\":true}\n\n:\n\n")
	require.Equal(t, []api.Request{{Op: api.Watch, Prefix: "x", From: 5}, {Op: api.Watch, Prefix: "x", From: 9}, {Op: api.Watch, Prefix: "x", From: 12}}, asked)
}

// A browser that lost the connection goes on after the last event that it has.
func TestAStreamGoesOn(t *testing.T) {
	_, asked := stream(t, "/v1/watch?from=5", "7", api.Events{Next: 8})
	require.EqualValues(t, 8, asked[0].From)
	_, asked = stream(t, "/v1/watch", "", api.Events{Next: 8})
	require.EqualValues(t, 0, asked[0].From)
}

func TestAWatchThatIsRefused(t *testing.T) {
	w, _ := stream(t, "/v1/watch?from=1", "", &api.Error{Code: api.Compacted, Message: "gone", Definite: true})
	require.Equal(t, http.StatusGone, w.Code)
	h := New(Options{Ops: api.Ops{api.Watch: {May: api.Prefix | api.From}}})
	require.Equal(t, 400, request(h, "GET", "/v1/watch?from=x", "").Code)
	require.Equal(t, 400, request(h, "GET", "/v1/watch?key=x", "").Code)
	require.Equal(t, 405, request(h, "PUT", "/v1/watch", "1").Code)
	require.Equal(t, 404, request(New(Options{Ops: ops}), "GET", "/v1/watch", "").Code)
}

// A token that is removed while its client watches is worth nothing from then on.
func TestAStreamEndsWithItsToken(t *testing.T) {
	p := &access.Policy{Tokens: []access.Token{{Name: "r", Role: access.Read, Hash: guard.Hash("r")}}}
	g := guard.New(p, "", nil)
	asked := 0
	h := New(Options{Access: g, Ops: api.Ops{api.Watch: {May: api.Prefix | api.From}}, Ask: func(r api.Request, reply func(api.Response)) {
		switch asked++; asked {
		case 2:
			g.Set(&access.Policy{})
		case 3:
			reply(api.Failed(0, &api.Error{Code: api.Unavailable, Message: "it was asked once more"}))
			return
		}
		events := []api.Event{{Index: r.From + 1, Key: "x", Value: fmt.Sprintf("secret%d", asked)}}
		reply(api.Response{Later: api.Events{Events: events, Next: r.From + 2}.AppendJSON})
	}})
	w := do(h, "GET", "/v1/watch", "", "Bearer r")
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), "secret1")
	require.NotContains(t, w.Body.String(), "secret2")
	require.Contains(t, w.Body.String(), "event: error\ndata: "+`{"ok":false,"error":{"code":"denied"`)
	require.Equal(t, 2, asked)
	w = do(h, "GET", "/v1/watch", "", "")
	require.Equal(t, 401, w.Code)
	require.Equal(t, 2, asked, "nothing was done")
}

// A client that watches does not keep a server from stopping.
func TestAStreamEndsWithItsServer(t *testing.T) {
	ask := func(r api.Request, reply func(api.Response)) {
		time.AfterFunc(10*time.Millisecond, func() { reply(api.Events{Next: r.From + 1}.Response(0)) })
	}
	p := startPortOf(t, api.Ops{api.Watch: {May: api.Prefix | api.From}}, ask, wire.Limits{Drain: time.Hour})
	c := p.dial()
	require.Equal(t, "HTTP/1.1 200 OK", say(t, c, "GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	p.stop()
	require.NoError(t, <-p.ended)
	rest, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Contains(t, string(rest), `{"ok":false,"error":{"code":"unavailable","message":"the server is stopping`)
}
