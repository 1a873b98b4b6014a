package httpapi

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// ops are the operations of a stage that has every feature except changes of the
// members.
var ops = func() api.Ops {
	ops := api.Commands()
	ops[kv.Put] = api.Op{Needs: api.Key | api.Value, May: api.Session | api.Since | api.Seq | api.Ack}
	ops[kv.Get] = api.Op{Needs: api.Key, May: api.Consistency}
	ops[api.Open] = api.Op{}
	ops[api.Status] = api.Op{}
	ops[api.Log] = api.Op{May: api.From}
	return ops
}()

// backend is a server that carries out every request, or fails as the test tells
// it.
type backend struct {
	mu    sync.Mutex
	store *kv.Store
	asked []api.Request

	// fails is the error with which every request fails; nil for none.
	fails *api.Error

	// status is the answer to a status request.
	status string
}

func newBackend() *backend {
	return &backend{store: kv.NewStore(), status: `{"id":2,"role":"leader","term":7,"leader":2,"keys":3,"snapshot":5,"ready":true}`}
}

func (b *backend) ask(r api.Request, reply func(api.Response)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, r)
	switch {
	case b.fails != nil:
		reply(api.Failed(r.ID, b.fails))
	case r.Op == api.Status:
		reply(api.Response{ID: r.ID, Data: []byte(b.status)})
	case r.Op == api.Log:
		reply(api.Response{ID: r.ID, Data: []byte(`{"last":0,"commit":0,"entries":[]}`)})
	case r.Op == api.Open:
		reply(api.Response{ID: r.ID, Index: 9})
	case r.Op == api.List:
		reply(api.Read(r, b.store))
	default:
		reply(api.Result(r.ID, r.Op, b.store.Apply(r.Command())))
	}
}

func (b *backend) handler() http.Handler { return New(Options{Ops: ops, Ask: b.ask}) }

// newRequest makes a request to localhost.
func newRequest(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost"
	return r
}

// request carries out one request without a network.
func request(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, newRequest(method, target, body))
	return w
}

func TestEveryRoute(t *testing.T) {
	h := newBackend().handler()
	for _, step := range []struct {
		method, target, body string
		status               int
		want                 string
	}{
		{"GET", "/v1/kv/x", "", 404, `{"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}` + "\n"},
		{"PUT", "/v1/kv/x", "1", 200, `{"ok":true}` + "\n"},
		{"GET", "/v1/kv/x", "", 200, "1"},
		{"PUT", "/v1/kv/x", "", 200, `{"ok":true}` + "\n"},
		{"GET", "/v1/kv/x?consistency=stale", "", 200, ""},
		{"POST", "/v1/command", `{"op":"create","key":"x","value":"2"}`, 412, `{"ok":false,"error":{"code":"exists","message":"the key already has a value","definite":true}}` + "\n"},
		{"DELETE", "/v1/kv/x", "", 200, `{"ok":true}` + "\n"},
		{"DELETE", "/v1/kv/x", "", 404, `{"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}` + "\n"},
		{"POST", "/v1/command", `{"id":7,"op":"append","key":"x","value":"ab"}`, 200, `{"id":7,"ok":true,"length":2}` + "\n"},
		{"POST", "/v1/command", ` {"op":"cas","key":"x","old":"no","value":""} `, 409, `{"ok":false,"error":{"code":"mismatch","message":"the value is \"ab\", not the old one given","definite":true}}` + "\n"},
		{"POST", "/v1/command", `{"op":"open"}`, 200, `{"ok":true,"index":9}` + "\n"},
		{"GET", "/v1/status", "", 200, `{"id":2,"role":"leader","term":7,"leader":2,"keys":3,"snapshot":5,"ready":true}` + "\n"},
		{"GET", "/v1/log?from=3", "", 200, `{"last":0,"commit":0,"entries":[]}` + "\n"},
		{"GET", "/livez", "", 200, "ok\n"},
		{"GET", "/readyz", "", 200, "ok\n"},
	} {
		w := request(h, step.method, step.target, step.body)
		require.Equal(t, step.status, w.Code, "%s %s", step.method, step.target)
		require.Equal(t, step.want, w.Body.String(), "%s %s", step.method, step.target)
	}
}

func TestUnknownPaths(t *testing.T) {
	h := newBackend().handler()
	for _, target := range []string{"GET /", "GET /v1", "GET //v1/kv/x", "GET /v1//kv/x", "GET /v1/status/", "GET /v1/./status", "POST /v1/change", "GET /v2/kv/x"} {
		method, path, _ := strings.Cut(target, " ")
		w := request(h, method, path, "")
		require.Equal(t, 404, w.Code, target)
		require.Contains(t, w.Body.String(), `"code":"bad_request"`, target)
		require.Contains(t, w.Body.String(), "there is no "+target+" here", target)
	}
}

// For a method that a path does not accept, the answer lists those that it does.
func TestWrongMethods(t *testing.T) {
	h := newBackend().handler()
	for target, takes := range map[string]string{"POST /v1/kv/x": "GET, PUT, DELETE", "PATCH /v1/kv/x": "GET, PUT, DELETE", "GET /v1/command": "POST",
		"PUT /v1/status": "GET", "DELETE /v1/log": "GET", "POST /livez": "GET", "POST /readyz": "GET", "POST /metrics": "GET"} {
		method, path, _ := strings.Cut(target, " ")
		w := request(h, method, path, "")
		require.Equal(t, 405, w.Code, target)
		require.Equal(t, takes, w.Header().Get("Allow"), target)
		require.Equal(t, `{"ok":false,"error":{"code":"bad_request","message":"`+path+" takes "+takes+", not "+method+`","definite":true}}`+"\n", w.Body.String())
	}
	require.Equal(t, 200, request(h, "HEAD", "/v1/status", "").Code)
}

// If the members can change, /v1/members lists them, and changes are commands
// like any other.
func TestMembers(t *testing.T) {
	const members = `{"id":2,"role":"leader","phase":"stable","members":[{"id":2,"address":"127.0.0.1:7072","voter":true}]}`
	changing := maps.Clone(ops)
	changing[api.Members] = api.Op{}
	changing[api.Change] = api.Op{May: api.Add | api.Remove}
	changing[api.Cancel] = api.Op{}
	changing[api.Transfer] = api.Op{Needs: api.To}
	var asked []api.Request
	h := New(Options{Ops: changing, Ask: func(r api.Request, reply func(api.Response)) {
		asked = append(asked, r)
		switch r.Op {
		case api.Members:
			reply(api.Response{ID: r.ID, Data: []byte(members)})
		case api.Cancel:
			reply(api.Failed(r.ID, &api.Error{Code: api.Refused, Message: "there is nothing to cancel", Definite: true}))
		case api.Transfer:
			reply(api.Failed(r.ID, &api.Error{Code: api.NotLeader, Message: "n2 leads", Leader: "127.0.0.1:7072", Definite: true}))
		default:
			reply(api.Response{ID: r.ID, Index: 118})
		}
	}})
	for _, step := range []struct {
		method, target, body string
		status               int
		want                 string
	}{
		{"GET", "/v1/members", "", 200, members},
		{"POST", "/v1/command", `{"id":3,"op":"members"}`, 200, `{"id":3,"ok":true,"data":` + members + `}`},
		{"POST", "/v1/command", `{"id":4,"op":"change","add":[{"id":4,"address":"127.0.0.1:7074"}],"remove":[1]}`, 200, `{"id":4,"ok":true,"index":118}`},
		{"POST", "/v1/command", `{"id":5,"op":"change","add":[{"id":4}]}`, 400,
			`{"id":5,"ok":false,"error":{"code":"bad_request","message":"field \"add[0].address\": \"\" is not host:port, such as \"127.0.0.1:7021\"","definite":true}}`},
		{"POST", "/v1/command", `{"id":6,"op":"cancel"}`, 409, `{"id":6,"ok":false,"error":{"code":"refused","message":"there is nothing to cancel","definite":true}}`},
		{"POST", "/v1/command", `{"id":7,"op":"transfer","to":1}`, 307,
			`{"id":7,"ok":false,"error":{"code":"not_leader","message":"n2 leads","leader":"127.0.0.1:7072","definite":true}}`},
		{"PUT", "/v1/members", "", 405, `{"ok":false,"error":{"code":"bad_request","message":"/v1/members takes GET, not PUT; ` +
			`a change of the members is a POST to /v1/command, such as {\"op\":\"change\",\"remove\":[1]}","definite":true}}`},
		{"GET", "/v1/member", "", 404, `{"ok":false,"error":{"code":"bad_request","message":"there is no GET /v1/member here; ` +
			`see /v1/kv/{key}, /v1/command, /v1/status, /v1/log, /v1/members, /livez, /readyz, /metrics","definite":true}}`},
	} {
		w := request(h, step.method, step.target, step.body)
		require.Equal(t, step.status, w.Code, "%s %s", step.method, step.body)
		require.Equal(t, step.want+"\n", w.Body.String())
		if step.status == 307 {
			require.Equal(t, "http://127.0.0.1:7072/v1/command", w.Header().Get("Location"))
		}
	}
	require.Len(t, asked, 5)
	require.Equal(t, api.Request{ID: 4, Op: api.Change, Add: []api.Member{{ID: 4, Address: "127.0.0.1:7074"}}, Remove: []uint64{1}}, asked[2])
	w := request(newBackend().handler(), "GET", "/v1/members", "")
	require.Equal(t, 404, w.Code, "a server without changes of the members has no such path")
}

// A key is any text: the server takes no key for another key, or for a path.
func TestKeysOfAllKinds(t *testing.T) {
	b := newBackend()
	s := httptest.NewServer(b.handler())
	defer s.Close()
	keys := []string{"a/b", "a//b", "a///b", "/", "/a", "a/", ".", "..", "a/../b", "a/./b", "../../etc", "a b", "a+b", "a%2Fb", "?", "#", "größe 數 😀", "a\nb", "'\"\\", ";", "a&b=c"}
	for i, key := range keys {
		escaped := url.PathEscape(key)
		if key == "." || key == ".." {
			escaped = strings.ReplaceAll(key, ".", "%2E") // Go's client would resolve them as path segments
		}
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL+"/v1/kv/"+escaped, strings.NewReader(string(rune('A'+i))))
		require.NoError(t, err)
		a, err := s.Client().Do(r)
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		require.Equal(t, 200, a.StatusCode, "%q", key)
	}
	require.Equal(t, len(keys), b.store.Len())
	for i, key := range keys {
		require.Equal(t, string(rune('A'+i)), b.store.Get(key).Value, "%q", key)
	}
}

// The slashes in a key need not be escaped.
func TestSlashesInAKeyAsTheyAre(t *testing.T) {
	b := newBackend()
	h := b.handler()
	for _, key := range []string{"a/b", "a//b", "a/../b", "/", "a/."} {
		require.Equal(t, 200, request(h, "PUT", "/v1/kv/"+key, "the value of "+key).Code, key)
		require.Equal(t, "the value of "+key, request(h, "GET", "/v1/kv/"+key, "").Body.String(), key)
	}
	require.Equal(t, 5, b.store.Len())
}

// Text that JSON would silently change, or that the store does not accept, is
// refused.
func TestBadRequests(t *testing.T) {
	b := newBackend()
	h := b.handler()
	for _, c := range []struct {
		method, target, body string
		why                  string
	}{
		{"PUT", "/v1/kv/", "1", "the key is empty"},
		{"GET", "/v1/kv/", "", "the key is empty"},
		{"POST", "/v1/command", `{"op":"get","key":"x","key_b64":"eA=="}`, "this field appears as text too"},
		{"GET", "/v1/log?from=-1", "", "the number of an entry"},
		{"GET", "/v1/log?from=1e3", "", "the number of an entry"},
		{"POST", "/v1/command", "", "JSON object"},
		{"POST", "/v1/command", "put x 1", "JSON object"},
		{"POST", "/v1/command", `{"op":"put"}`, "needs the field"},
		{"POST", "/v1/command", `{"op":"drop","key":"x"}`, "unknown op"},
		{"POST", "/v1/command", `{"op":"get","op":"put","key":"x"}`, "twice"},
		{"POST", "/v1/command", `{"op":"get","key":"x"}{"op":"get","key":"y"}`, "follows the end"},
		{"POST", "/v1/command", `{"op":"put","key":"x","value":"` + "\xff" + `"}`, "UTF-8"},
		{"POST", "/v1/command", `{"op":"put","key":"x","value":1}`, "value"},
		{"POST", "/v1/command", strings.Repeat("[", 1000), "JSON object"},
	} {
		w := request(h, c.method, c.target, c.body)
		require.Equal(t, 400, w.Code, "%s %.40s %.60s", c.method, c.target, c.body)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		e := errorOf(t, w.Body.Bytes())
		require.Equal(t, api.BadRequest, e.Code)
		require.True(t, e.Definite)
		require.Contains(t, e.Message, c.why, "%s %.40s %.60s", c.method, c.target, c.body)
	}
	require.Empty(t, b.asked, "none of these requests may reach the server")
}

func errorOf(t *testing.T, body []byte) *api.Error {
	t.Helper()
	a, err := api.DecodeResponse(bytes.TrimSuffix(body, []byte("\n")))
	require.NoError(t, err, "%s", body)
	require.NotNil(t, a.Error)
	return a.Error
}

// A stage without stale reads, log and status refuses them by name.
func TestAStageWithFewerFeatures(t *testing.T) {
	h := New(Options{Ops: api.Commands(), Ask: newBackend().ask})
	for target, why := range map[string]string{
		"/v1/kv/x?consistency=stale": "takes no consistency",
		"/v1/log":                    "does not know log",
		"/v1/status":                 "does not know status",
	} {
		w := request(h, "GET", target, "")
		require.Equal(t, 400, w.Code, target)
		require.Contains(t, w.Body.String(), why, target)
	}
	require.Equal(t, 503, request(New(Options{Ops: api.Commands(), Ask: (&backend{fails: &api.Error{Code: api.BadRequest}}).ask}), "GET", "/readyz", "").Code)
}

func TestBodiesOverTheLimit(t *testing.T) {
	b := newBackend()
	h := b.handler()
	require.Equal(t, 200, request(h, "PUT", "/v1/kv/x", strings.Repeat("v", kv.MaxValue)).Code)
	w := request(h, "PUT", "/v1/kv/x", strings.Repeat("v", kv.MaxValue+1))
	require.Equal(t, 413, w.Code)
	require.Equal(t, api.TooLarge, errorOf(t, w.Body.Bytes()).Code)
	w = request(h, "POST", "/v1/command", `{"op":"get","key":"x"}`+strings.Repeat(" ", maxBody))
	require.Equal(t, 413, w.Code)
	require.Equal(t, api.TooLarge, errorOf(t, w.Body.Bytes()).Code)
	w = request(h, "POST", "/v1/command", `{"op":"put","key":"x","value":"`+strings.Repeat("v", kv.MaxValue+1)+`"}`)
	require.Equal(t, 413, w.Code)
	require.Equal(t, api.TooLarge, errorOf(t, w.Body.Bytes()).Code)
	w = request(h, "PUT", "/v1/kv/"+strings.Repeat("k", kv.MaxKey+1), "1")
	require.Equal(t, 413, w.Code)
	require.Equal(t, api.TooLarge, errorOf(t, w.Body.Bytes()).Code)
	require.Len(t, b.asked, 1)
}

// brokenBody ends in the middle, as the body of a client that has left does.
type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestAnIncompleteBodyIsRefused(t *testing.T) {
	b := newBackend()
	for _, target := range []string{"PUT /v1/kv/x", "POST /v1/command"} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		r := newRequest(method, path, "")
		r.Body = io.NopCloser(brokenBody{})
		b.handler().ServeHTTP(w, r)
		require.Equal(t, 400, w.Code, target)
		require.Contains(t, errorOf(t, w.Body.Bytes()).Message, "could not be read")
	}
	require.Empty(t, b.asked, "half a value must not be written")
}

// Each error code of the wire has an HTTP status. Only errors after which the
// client may retry have the header Retry-After.
func TestStatusCodes(t *testing.T) {
	for _, c := range []struct {
		err    api.Error
		status int
		header http.Header
	}{
		{api.Error{Code: api.BadRequest}, 400, nil},
		{api.Error{Code: api.NotFound}, 404, nil},
		{api.Error{Code: api.Mismatch}, 409, nil},
		{api.Error{Code: api.Exists}, 412, nil},
		{api.Error{Code: api.NoSession}, 410, nil},
		{api.Error{Code: api.Compacted}, 410, nil},
		{api.Error{Code: api.TooLarge}, 413, nil},
		{api.Error{Code: api.Full}, 507, nil},
		{api.Error{Code: api.NotLeader, Leader: "10.0.0.2:7052"}, 307, http.Header{"Location": {"http://10.0.0.2:7052/v1/kv/a%2Fb%20c"}}},
		{api.Error{Code: api.NotLeader}, 503, http.Header{"Retry-After": {"1"}}},
		{api.Error{Code: api.Busy}, 503, http.Header{"Retry-After": {"1"}}},
		{api.Error{Code: api.Unavailable}, 503, http.Header{"Retry-After": {"1"}}},
		{api.Error{Code: api.Unknown}, 504, nil},
		{api.Error{Code: "a new one"}, 503, http.Header{"Retry-After": {"1"}}},
	} {
		c.err.Message, c.err.Definite = "why", c.err.Code != api.Unknown
		b := &backend{fails: &c.err}
		w := request(b.handler(), "PUT", "/v1/kv/a%2Fb%20c", "1")
		require.Equal(t, c.status, w.Code, "%v", c.err)
		require.Equal(t, &c.err, errorOf(t, w.Body.Bytes()))
		for _, name := range []string{"Location", "Retry-After"} {
			require.Equal(t, c.header.Get(name), w.Header().Get(name), "%v", c.err)
		}
	}
}

// A client that follows the redirect, as curl -L does, ends at the leader with
// the same method, key and body.
func TestARedirectIsFollowed(t *testing.T) {
	leads := newBackend()
	leader := httptest.NewServer(leads.handler())
	defer leader.Close()
	address := strings.TrimPrefix(leader.URL, "http://")
	follower := httptest.NewServer((&backend{fails: &api.Error{Code: api.NotLeader, Leader: address, Definite: true}}).handler())
	defer follower.Close()
	for target, body := range map[string]string{"PUT /v1/kv/a%2F%2Fb": "1", "POST /v1/command": `{"op":"put","key":"y","value":"2"}`} {
		method, path, _ := strings.Cut(target, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, follower.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		a, err := follower.Client().Do(r)
		require.NoError(t, err)
		require.NoError(t, a.Body.Close())
		require.Equal(t, 200, a.StatusCode)
	}
	require.Equal(t, "1", leads.store.Get("a//b").Value)
	require.Equal(t, "2", leads.store.Get("y").Value)
}

// A server that is not ready says why.
func TestReadiness(t *testing.T) {
	b := newBackend()
	for _, c := range []struct {
		status string
		code   int
		body   string
	}{
		{`{"id":2,"leader":2,"ready":true}`, 200, "ok\n"},
		{`{"id":2,"leader":1,"ready":false,"unready":"n2 has applied 0 of the 505 entries"}`, 503, "not ready: n2 has applied 0 of the 505 entries\n"},
		{`{"id":2,"leader":1}`, 503, "not ready: \n"},
		{`[]`, 503, "not ready: the server's status is malformed\n"},
	} {
		b.status = c.status
		w := request(b.handler(), "GET", "/readyz", "")
		require.Equal(t, c.code, w.Code)
		require.Equal(t, c.body, w.Body.String())
		require.Equal(t, c.code == 503, w.Header().Get("Retry-After") == "1")
		require.Equal(t, 200, request(b.handler(), "GET", "/livez", "").Code, "a server that is not ready is still alive")
	}
	b.fails = &api.Error{Code: api.Busy, Message: "it is stopping", Definite: true}
	require.Equal(t, "not ready: it is stopping\n", request(b.handler(), "GET", "/readyz", "").Body.String())
}

// Keys and values are any bytes.
func TestAnyBytes(t *testing.T) {
	h := newBackend().handler()
	require.Equal(t, 200, request(h, "PUT", "/v1/kv/%ff%00", "\xfe\x00").Code)
	w := request(h, "GET", "/v1/kv/%ff%00", "")
	require.Equal(t, "\xfe\x00", w.Body.String())
	require.Equal(t, "application/octet-stream", w.Header().Get("Content-Type"))
	w = request(h, "POST", "/v1/command", `{"op":"get","key_b64":"/wA="}`)
	require.Contains(t, w.Body.String(), `"value_b64":"/gA="`)
	require.Equal(t, 200, request(h, "PUT", "/v1/kv/x", "text").Code)
	require.Equal(t, "text/plain; charset=utf-8", request(h, "GET", "/v1/kv/x", "").Header().Get("Content-Type"))
}

// A GET with a prefix lists keys.
func TestListOverHTTP(t *testing.T) {
	h := newBackend().handler()
	for _, key := range []string{"a/1", "a/2", "b", "%ff"} {
		require.Equal(t, 200, request(h, "PUT", "/v1/kv/"+key, key).Code)
	}
	for target, want := range map[string]string{
		"/v1/kv?prefix=a/":                        `{"keys":[{"key":"a/1","value":"a/1"},{"key":"a/2","value":"a/2"}]}`,
		"/v1/kv?prefix=a/&limit=1":                `{"keys":[{"key":"a/1","value":"a/1"}],"more":true}`,
		"/v1/kv?prefix=&after=a/2&keys_only=true": `{"keys":[{"key":"b"},{"key_b64":"/w=="}]}`,
		"/v1/kv?prefix=%ff&keys_only=false":       `{"keys":[{"key_b64":"/w==","value":"%ff"}]}`,
		"/v1/kv?prefix=c":                         `{"keys":[]}`,
	} {
		w := request(h, "GET", target, "")
		require.Equal(t, 200, w.Code, target)
		require.Equal(t, want+"\n", w.Body.String(), target)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	}
	for target, why := range map[string]string{
		"/v1/kv?prefix=a&key=a":      "a key and a prefix are in the query",
		"/v1/kv?key=a&limit=1":       "is for a list",
		"/v1/kv?limit=1":             "the key is missing",
		"/v1/kv?prefix=&limit=0":     "at least 1",
		"/v1/kv?prefix=&keys_only=1": "true or false",
		"/v1/kv?prefix=&prefix=":     "given 2 times",
		"/v1/kv?prefix=&after=":      "is empty",
		"/v1/kv/?prefix=a":           "unknown query parameter",
	} {
		w := request(h, "GET", target, "")
		require.Equal(t, 400, w.Code, target)
		require.Contains(t, w.Body.String(), why, target)
	}
	require.Equal(t, 400, request(h, "DELETE", "/v1/kv?prefix=a", "").Code)
}

// If the server does not answer, the outcome is unknown, and the metrics lack
// those of the status.
func TestAServerThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Ops: ops, Ask: func(api.Request, func(api.Response)) {}})
		w := request(h, "PUT", "/v1/kv/x", "1")
		require.Equal(t, 504, w.Code)
		e := errorOf(t, w.Body.Bytes())
		require.Equal(t, api.Unknown, e.Code)
		require.False(t, e.Definite)
		require.Equal(t, 200, request(h, "GET", "/metrics", "").Code)
	})
}

func TestMetrics(t *testing.T) {
	rounds := prometheus.NewCounter(prometheus.CounterOpts{Name: "raft_rounds_total", Help: "Rounds."})
	rounds.Add(3)
	b := newBackend()
	w := request(New(Options{Ops: ops, Ask: b.ask, Metrics: []prometheus.Collector{rounds}}), "GET", "/metrics", "")
	require.Equal(t, 200, w.Code)
	got := make(map[string]float64)
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "#") {
			require.Regexp(t, `^# (HELP|TYPE) [a-z_]+ .+\n$`, line)
			continue
		}
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		value, err := strconv.ParseFloat(number, 64)
		require.NoError(t, err, line)
		got[name] = value
	}
	require.Equal(t, map[string]float64{
		"raft_id": 2, "raft_term": 7, "raft_is_leader": 1, "raft_leader": 2, "raft_keys": 3, "raft_snapshot": 5, "raft_ready": 1,
		"raft_last": 0, "raft_commit": 0, "raft_applied": 0, "raft_rounds_total": 3,
	}, got)

	b.status = `{"role":"follower"}`
	require.Contains(t, request(b.handler(), "GET", "/metrics", "").Body.String(), "raft_is_leader 0")
	b.fails = &api.Error{Code: api.Unavailable}
	require.Equal(t, 200, request(b.handler(), "GET", "/metrics", "").Code, "a server that is stopping has no status, but the metrics still answer")
}

// Any body gets an answer in the form of the wire. If the wire would refuse the
// body, the answer is an error and nothing reaches the server; else the server
// gets the same request as over the wire.
func FuzzCommand(f *testing.F) {
	for _, body := range []string{
		`{"op":"put","key":"x","value":"1"}`,
		`{"id":7,"op":"cas","key":"x","old":"1","value":"2"}`,
		`{"op":"put","key":"x","value":"1","session":7,"since":4,"seq":2,"ack":1}`,
		`{"op":"get","key":"\ud800"}`,
		`{"op":"get","key":"x","consistency":"stale"}`,
		`{"op":"get","key":"x"} {}`,
		`[[[[`, "", "\xff", `{"op":"status"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newBackend()
		w := httptest.NewRecorder()
		b.handler().ServeHTTP(w, newRequest("POST", "/v1/command", string(body)))
		want, err := ops.Decode(body)
		a, bad := api.DecodeResponse(bytes.TrimSuffix(w.Body.Bytes(), []byte("\n")))
		require.NoError(t, bad, "%s", w.Body.Bytes())
		if err != nil {
			require.Equal(t, 400, w.Code)
			require.Empty(t, b.asked)
			return
		}
		require.Equal(t, []api.Request{want}, b.asked)
		require.Equal(t, w.Code == 200, a.Error == nil)
	})
}

// The bytes of bodies that are still arriving are bounded. A body that would
// exceed the bound is refused before any of it is read.
func TestBodiesAreBounded(t *testing.T) {
	room := wire.NewBudget(1000)
	h := New(Options{Ops: ops, Ask: newBackend().ask, Bodies: room})
	in, out := io.Pipe()
	slow := newRequest("PUT", "/v1/kv/slow", "")
	slow.Body, slow.ContentLength = in, 900
	done := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, slow)
		done <- w.Code
	}()
	_, err := io.WriteString(out, "begins")
	require.NoError(t, err)
	w := request(h, "PUT", "/v1/kv/x", strings.Repeat("v", 101))
	require.Equal(t, 503, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), `"code":"busy","message":"bodies that are still arriving or leaving hold 1000 bytes, which is the limit; this request changed nothing`)
	require.Equal(t, 503, request(h, "POST", "/v1/command", strings.Repeat(" ", 101)).Code)
	require.Equal(t, 200, request(h, "PUT", "/v1/kv/x", strings.Repeat("v", 100)).Code)
	require.NoError(t, out.Close())
	require.Equal(t, 200, <-done)
	require.Zero(t, room.Used())
	require.Equal(t, 200, request(h, "PUT", "/v1/kv/x", strings.Repeat("v", 1000)).Code)
}

// stuck is a client that does not read the answer to its request.
type stuck struct {
	*httptest.ResponseRecorder
	writing, goOn chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	select {
	case <-s.writing: // it is not the first time
	default:
		close(s.writing)
		<-s.goOn
	}
	return s.ResponseRecorder.Write(b)
}

// The same bound includes pages that clients have not read yet: of the log, of the
// keys and of changes.
func TestUnreadPagesAreBounded(t *testing.T) {
	with := api.Ops{api.Watch: {May: api.Prefix | api.From}}
	for name, op := range ops {
		with[name] = op
	}
	for target, bytes := range map[string]int{"/v1/log": 50, "/v1/kv?prefix=": 50, "/v1/watch": 60, "/v1/command": 50} {
		method, body := "GET", ""
		if target == "/v1/command" {
			method, body = "POST", `{"op":"list"}`
		}
		room, watches := wire.NewBudget(bytes), 0
		b := newBackend()
		b.store.Apply(kv.Command{Op: kv.Put, Key: "x", Value: "1"})
		ask := func(r api.Request, reply func(api.Response)) {
			switch watches++; {
			case r.Op != api.Watch:
				b.ask(r, reply)
			case watches%2 == 1:
				reply(api.Events{Events: []api.Event{{Index: 1, Key: "x", Value: "1"}}, Next: 2}.Response(0))
			default:
				reply(api.Failed(0, &api.Error{Code: api.Unavailable, Message: "it is stopping", Definite: true}))
			}
		}
		h := New(Options{Ops: with, Ask: ask, Bodies: room})
		client := stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
		done := make(chan struct{})
		go func() {
			h.ServeHTTP(client, newRequest(method, target, body))
			close(done)
		}()
		<-client.writing
		watches = 0
		w := request(h, method, target, body)
		require.Equal(t, 503, w.Code, target)
		require.Contains(t, w.Body.String(), `"code":"busy"`)
		close(client.goOn)
		<-done
		require.Equal(t, 200, client.Code)
		require.Zero(t, room.Used())
		watches = 0
		require.Equal(t, 200, request(h, method, target, body).Code)
		require.Zero(t, room.Used())
	}
}
