package httpapi

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// specialKeys are keys that a client, a proxy or a ServeMux may turn into other
// keys.
var specialKeys = []string{
	"x", "a/b", "a//b", "a///b", "/", "//", "/a", "a/", "a/b/", ".", "..", "./", "../", "a/.", "a/..", "a/./b", "a/../b", "../b", "../../etc",
	"...", "a..b", ".hidden", "%2e", "%2E%2e", "a/%2e%2e/b", "a%2fb", "a%2Fb", "%", "100%", "%zz", "%25", `a\..\b`, `\`,
	"a b", " ", "a+b", "?", "a?b", "#", "a#b", "a&key=b", "key=b", "a=b", ";", "a;b", ":", "a:b", "http://h/v1/kv/b", "@", "*", "~", "kv", "v1/kv/b",
	"größe 數 😀", "a\nb", "a\r\nb", "\t", "\x7f", "'\"\\", "<script>", "b",
}

// leaderAndFollower starts two servers: a leader, which carries out every
// request, and a follower, which redirects every request to the leader.
func leaderAndFollower(t *testing.T) (leads *backend, leader, follower *httptest.Server) {
	leads = newBackend()
	leader = httptest.NewServer(leads.handler())
	t.Cleanup(leader.Close)
	address := strings.TrimPrefix(leader.URL, "http://")
	follower = httptest.NewServer((&backend{fails: &api.Error{Code: api.NotLeader, Leader: address, Definite: true}}).handler())
	t.Cleanup(follower.Close)
	return leads, leader, follower
}

// send carries out a request with Go's client, which follows redirects.
func send(t *testing.T, method, address, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	a, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	text, err := io.ReadAll(a.Body)
	require.NoError(t, err)
	require.NoError(t, a.Body.Close())
	return a.StatusCode, string(text)
}

// A request reaches exactly its key, whether it goes to the leader or is
// redirected by a follower, and whether the key is in the path or in the query.
func TestARedirectLeadsToTheSameKey(t *testing.T) {
	leads, leader, follower := leaderAndFollower(t)
	defer http.DefaultClient.CloseIdleConnections()
	want := make(map[string]string)
	check := func(key, how string) {
		t.Helper()
		got := make(map[string]string)
		leads.store.Each(func(k, v string) bool {
			got[k] = v
			return true
		})
		require.Equal(t, want, got, "%q %s", key, how)
	}
	for _, key := range specialKeys {
		want[key] = "the value of " + key
		require.Equal(t, kv.OK, leads.store.Apply(kv.Command{Op: kv.Put, Key: key, Value: want[key]}).Outcome)
	}
	for _, key := range specialKeys {
		inPath, inQuery := "/v1/kv/"+url.PathEscape(key), "/v1/kv?key="+url.QueryEscape(key)
		for _, server := range []string{leader.URL, follower.URL} {
			for _, target := range []string{inPath, inQuery} {
				how := server + target
				status, _ := send(t, "DELETE", how, "")
				require.Equal(t, 200, status, how)
				delete(want, key)
				check(key, "after DELETE "+how)
				want[key] = "new " + how
				status, _ = send(t, "PUT", how, want[key])
				require.Equal(t, 200, status, how)
				check(key, "after PUT "+how)
				status, value := send(t, "GET", how, "")
				require.Equal(t, 200, status, how)
				require.Equal(t, want[key], value, how)
			}
		}
	}
}

// The Location means the same after a client has resolved it by RFC 3986, even if
// the client decodes the path first.
func TestALocationKeepsTheKey(t *testing.T) {
	h := (&backend{fails: &api.Error{Code: api.NotLeader, Leader: "10.0.0.2:7052", Definite: true}}).handler()
	for _, key := range specialKeys {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			r := newRequest(method, "/v1/kv?key="+url.QueryEscape(key), "")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, 307, w.Code)
			to := w.Header().Get("Location")
			require.NotEmpty(t, to, "%s %q", method, key)
			u, err := url.Parse("http://127.0.0.1:1/v1/kv/x")
			require.NoError(t, err)
			resolved, err := u.Parse(to)
			require.NoError(t, err)
			require.Equal(t, to, resolved.String(), "%q", key)
			require.Equal(t, key, keyOf(&http.Request{URL: resolved}))
			decoded, err := url.PathUnescape(resolved.EscapedPath())
			require.NoError(t, err)
			if resolved.Path != keyQueryPath {
				require.Equal(t, kvPath+key, (&url.URL{Path: decoded}).JoinPath().Path, "%q is in the path, and a client that decodes it first would ask for another key", key)
			}
		}
	}
	for target, want := range map[string]string{
		"GET /v1/kv/x?consistency=linearizable":         "http://10.0.0.2:7052/v1/kv/x?consistency=linearizable",
		"GET /v1/kv?consistency=linearizable&key=a%2F.": "http://10.0.0.2:7052/v1/kv?consistency=linearizable&key=a%2F.",
		"GET /v1/kv/a/b":           "http://10.0.0.2:7052/v1/kv/a%2Fb",
		"DELETE /v1/kv/a/../b":     "http://10.0.0.2:7052/v1/kv?key=a%2F..%2Fb",
		"DELETE /v1/kv/a/%2e%2E/b": "http://10.0.0.2:7052/v1/kv?key=a%2F..%2Fb",
		"PUT /v1/kv/a/":            "http://10.0.0.2:7052/v1/kv?key=a%2F",
	} {
		method, path, _ := strings.Cut(target, " ")
		w := request(h, method, path, "")
		require.Equal(t, 307, w.Code, target)
		require.Equal(t, want, w.Header().Get("Location"), target)
	}
	secure := newRequest("GET", "/v1/kv/x", "")
	secure.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, secure)
	require.Equal(t, "https://10.0.0.2:7052/v1/kv/x", w.Header().Get("Location"))
}

// For any key, a client that resolves the Location asks for that key, even if the
// client decodes the path first.
func FuzzLocation(f *testing.F) {
	for _, key := range specialKeys {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if (kv.Command{Op: kv.Get, Key: key}).Check() != nil {
			return
		}
		to := location("10.0.0.2:7052", &http.Request{URL: &url.URL{Path: kvPath + key}})
		base, err := url.Parse("http://127.0.0.1:1/v1/kv/x")
		require.NoError(t, err)
		u, err := base.Parse(to)
		require.NoError(t, err, "%q: %s", key, to)
		require.Equal(t, "10.0.0.2:7052", u.Host, to)
		require.Equal(t, key, keyOf(&http.Request{URL: u}), to)
		if u.Path != keyQueryPath {
			require.Equal(t, u.Path, (&url.URL{Path: "/"}).JoinPath(u.Path).Path, "%q: %s", key, to)
		}
	})
}
