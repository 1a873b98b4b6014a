package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// withHeaders carries out a request that has some headers, written as
// "Name: value".
func withHeaders(h http.Handler, target, body string, headers ...string) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(target, " ")
	r := newRequest(method, path, body)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A feature that the server does not have is refused by name, and nothing is
// written.
func TestUnsupportedRequestsAreRefused(t *testing.T) {
	b := newBackend()
	h := b.handler()
	for _, c := range []struct {
		target, body string
		headers      []string
		status       int
		why          string
	}{
		{"PUT /v1/kv/x", "1", []string{`If-Match: "5"`}, 400, `the header If-Match: "5" is not supported: values have no ETags`},
		{"PUT /v1/kv/x", "1", []string{"If-Match: *"}, 400, "If-Match"},
		{"DELETE /v1/kv/x", "", []string{"If-Match: *"}, 400, "If-Match"},
		{"POST /v1/command", `{"op":"put","key":"x","value":"1"}`, []string{"If-Match: *"}, 400, "If-Match"},
		{"PUT /v1/kv/x", "1", []string{`If-None-Match: "5"`}, 400, `the header If-None-Match: "5" is not supported: values have no ETags; a PUT with If-None-Match: * sets`},
		{"PUT /v1/kv/x", "1", []string{"If-None-Match: *", `If-None-Match: "5"`}, 400, `the header If-None-Match: *, "5" is not supported`},
		{"PUT /v1/kv/x", "1", []string{"If-None-Match: *, *"}, 400, "If-None-Match"},
		{"PUT /v1/kv/x", "1", []string{"If-None-Match: "}, 400, "If-None-Match"},
		{"GET /v1/kv/x", "", []string{"If-None-Match: *"}, 400, "If-None-Match"},
		{"DELETE /v1/kv/x", "", []string{"If-None-Match: *"}, 400, "If-None-Match"},
		{"POST /v1/command", `{"op":"put","key":"x","value":"1"}`, []string{"If-None-Match: *"}, 400, "If-None-Match"},
		{"PUT /v1/kv/x", "1", []string{"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT"}, 400, "If-Modified-Since"},
		{"PUT /v1/kv/x", "1", []string{"If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT"}, 400, "If-Unmodified-Since"},
		{"PUT /v1/kv/x", "1", []string{"If-Range: x"}, 400, "If-Range"},
		{"PUT /v1/kv/x", "1", []string{"Content-Range: bytes 0-0/2"}, 400, "Content-Range"},
		{"PUT /v1/kv/x", "1", []string{"Content-Encoding: gzip"}, 415, `Content-Encoding: gzip is not supported`},
		{"POST /v1/command", "1", []string{"Content-Encoding: gzip"}, 415, "Content-Encoding"},
		{"PUT /v1/kv/x", "1", []string{"Content-Type: multipart/form-data; boundary=a"}, 415, "multipart/form-data"},
		{"POST /v1/command", "1", []string{"Content-Type: multipart/form-data; boundary=a"}, 415, "multipart/form-data"},
		{"PUT /v1/kv/x", "1", []string{"Idempotency-Key: 7"}, 400, "Idempotency-Key"},
		{"PUT /v1/kv/x", "1", []string{"X-HTTP-Method-Override: DELETE"}, 400, "X-Http-Method-Override"},
		{"DELETE /v1/kv/x", "1", nil, 400, "DELETE /v1/kv/x takes no body"},
		{"GET /v1/kv/x", "1", nil, 400, "takes no body"},
		{"GET /v1/status", "1", nil, 400, "takes no body"},
		{"PUT /v1/kv/x?cas=5", "1", nil, 400, `unknown query parameter "cas"; PUT /v1/kv/x takes none`},
		{"PUT /v1/kv/x?consistency=stale", "1", nil, 400, `unknown query parameter "consistency"`},
		{"PUT /v1/kv/x?key=y", "1", nil, 400, `unknown query parameter "key"`},
		{"DELETE /v1/kv/x?recurse=true", "", nil, 400, `unknown query parameter "recurse"`},
		{"GET /v1/kv/x?consistancy=stale", "", nil, 400, `unknown query parameter "consistancy"; GET /v1/kv/x takes only consistency`},
		{"GET /v1/kv/x?consistency=stale&consistency=stale", "", nil, 400, `the query parameter "consistency" is given 2 times`},
		{"GET /v1/kv/x?consistency=", "", nil, 400, `the query parameter "consistency" is empty`},
		{"GET /v1/kv/x?consistency", "", nil, 400, `the query parameter "consistency" is empty`},
		{"GET /v1/kv/x?a;b", "", nil, 400, "the query is malformed"},
		{"GET /v1/kv/x?a=%zz", "", nil, 400, "the query is malformed"},
		{"PUT /v1/kv?key=x&cas=5", "1", nil, 400, `unknown query parameter "cas"; PUT /v1/kv takes only key`},
		{"PUT /v1/kv?key=x&key=y", "1", nil, 400, `the query parameter "key" is given 2 times`},
		{"PUT /v1/kv?key=", "1", nil, 400, `the query parameter "key" is empty`},
		{"PUT /v1/kv", "1", nil, 400, "the key is missing: write /v1/kv/{key}, or /v1/kv?key={key}"},
		{"POST /v1/command?op=put", `{"op":"put","key":"x","value":"1"}`, nil, 400, `unknown query parameter "op"`},
		{"GET /v1/log?form=5", "", nil, 400, `unknown query parameter "form"; GET /v1/log takes only from`},
		{"GET /v1/log?from=", "", nil, 400, `"from" is empty`},
		{"GET /v1/status?pretty", "", nil, 400, `unknown query parameter "pretty"`},
		{"GET /readyz?verbose", "", nil, 400, `unknown query parameter "verbose"; GET /readyz takes none`},
	} {
		w := withHeaders(h, c.target, c.body, c.headers...)
		require.Equal(t, c.status, w.Code, "%s %s", c.target, c.headers)
		require.Contains(t, errorOf(t, w.Body.Bytes()).Message, c.why, "%s %s", c.target, c.headers)
		require.Equal(t, api.BadRequest, errorOf(t, w.Body.Bytes()).Code)
		require.Equal(t, c.status == 415 && strings.Contains(c.why, "Encoding"), w.Header().Get("Accept-Encoding") != "", "%s %s", c.target, c.headers)
	}
	require.Empty(t, b.asked, "none of these requests may reach the server")
	require.Equal(t, 200, withHeaders(h, "PUT /v1/kv/x?", "1", "Content-Type: application/x-www-form-urlencoded").Code, "curl -d sends this Content-Type")
	require.Equal(t, "1", b.store.Get("x").Value)
}

// A PUT with If-None-Match: * sets only a key that has no value.
func TestAPutWithIfNoneMatch(t *testing.T) {
	b := newBackend()
	h := b.handler()
	require.Equal(t, 200, withHeaders(h, "PUT /v1/kv/x", "1", "If-None-Match: *").Code)
	for _, target := range []string{"PUT /v1/kv/x", "PUT /v1/kv?key=x"} {
		w := withHeaders(h, target, "2", "If-None-Match: *")
		require.Equal(t, 412, w.Code)
		require.Equal(t, api.Exists, errorOf(t, w.Body.Bytes()).Code)
	}
	require.Equal(t, "1", b.store.Get("x").Value)
	require.Equal(t, api.Request{Op: kv.Create, Key: "x", Value: "1"}, b.asked[0])
}

// A web page of another site can send requests to a server that only the reader's
// machine can reach, and must not write.
func TestPagesOfOtherSites(t *testing.T) {
	b := newBackend()
	h := New(Options{Ops: ops, Ask: b.ask, Hosts: []string{"kv.example.org"}})
	const put = `{"op":"put","key":"x","value":"1"}`
	for _, c := range []struct {
		target  string
		headers []string
		status  int
	}{
		// curl and other programs send neither Origin nor Sec-Fetch-Site.
		{"POST /v1/command", []string{"Content-Type: application/x-www-form-urlencoded"}, 200},
		{"POST /v1/command", nil, 200},
		// A browser sends a simple POST of a page without asking the server
		// first.
		{"POST /v1/command", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Content-Type: text/plain"}, 403},
		{"POST /v1/command", []string{"Origin: http://evil.example", "Content-Type: text/plain"}, 403},
		{"POST /v1/command", []string{"Origin: http://localhost:8080", "Sec-Fetch-Site: same-site", "Content-Type: application/json"}, 403},
		{"POST /v1/command", []string{"Origin: null", "Content-Type: application/json"}, 403},
		{"POST /v1/command", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"PUT /v1/kv/x", []string{"Origin: http://evil.example"}, 403},
		{"DELETE /v1/kv/x", []string{"Origin: http://evil.example"}, 403},
		// A page of the server's own site, such as one behind the same proxy.
		{"POST /v1/command", []string{"Origin: http://localhost", "Content-Type: text/plain"}, 415},
		{"POST /v1/command", []string{"Sec-Fetch-Site: same-origin"}, 415},
		{"POST /v1/command", []string{"Sec-Fetch-Site: same-origin", "Content-Type: application/x-www-form-urlencoded"}, 415},
		{"POST /v1/command", []string{"Sec-Fetch-Site: same-origin", "Content-Type: application/json; charset=utf-8"}, 200},
		{"PUT /v1/kv/x", []string{"Origin: http://localhost"}, 200},
		// A name of another site that resolves to the server's address (DNS
		// rebinding).
		{"POST /v1/command", []string{"Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: same-origin", "Content-Type: application/json"}, 421},
		{"PUT /v1/kv/x", []string{"Host: evil.example:7071"}, 421},
		{"DELETE /v1/kv/x", []string{"Host: localhost.evil.example"}, 421},
		{"POST /v1/command", []string{"Host: kv.example.org.evil.example"}, 421},
		{"POST /v1/command", []string{"Host: 127.0.0.1.evil.example"}, 421},
		{"POST /v1/command", []string{"Host: 127.0.0.1:7071"}, 200},
		{"POST /v1/command", []string{"Host: [::1]:7071"}, 200},
		{"POST /v1/command", []string{"Host: [fe80::1%25eth0]:7071"}, 200},
		{"POST /v1/command", []string{"Host: ::1"}, 200},
		{"POST /v1/command", []string{"Host: LocalHost.:7071"}, 200},
		{"POST /v1/command", []string{"Host: KV.example.org:7071"}, 200},
		{"POST /v1/command", []string{"Host: "}, 200},
	} {
		body := put
		if strings.HasPrefix(c.target, "DELETE") {
			body = ""
		}
		b.asked = nil
		w := withHeaders(h, c.target, body, c.headers...)
		require.Equal(t, c.status, w.Code, "%s %s: %s", c.target, c.headers, w.Body.String())
		require.Equal(t, c.status == 200, len(b.asked) == 1, "%s %s", c.target, c.headers)
		if c.status != 200 {
			require.True(t, errorOf(t, w.Body.Bytes()).Definite)
		}
	}
	for _, path := range []string{"/v1/kv/x", "/v1/status", "/v1/log", "/metrics", "/readyz", "/livez", "/nothing"} {
		w := withHeaders(h, "GET "+path, "", "Host: evil.example")
		require.Equal(t, 421, w.Code, path)
		require.Equal(t, `this server is not known as "evil.example"; use its IP address, or add the name to http_hosts in its cluster.json`, errorOf(t, w.Body.Bytes()).Message)
	}
	require.Equal(t, kv.OK, b.store.Get("x").Outcome)
}
