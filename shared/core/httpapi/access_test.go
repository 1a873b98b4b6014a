package httpapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/trust"
)

// A client needs the role of what it asks for, before its body is read and before
// anything is done.
func TestRoles(t *testing.T) {
	const (
		challenge = `Bearer realm="raftsteps"`
		invalid   = challenge + `, error="invalid_token"`
		small     = challenge + `, error="insufficient_scope", scope=`
		append1   = `{"id":7,"op":"append","key":"x","value":"1"}`
		change    = `{"op":"change","remove":[1]}`
	)
	p := &access.Policy{}
	for r := access.Read; r <= access.Operate; r++ {
		p.Tokens = append(p.Tokens, access.Token{Name: r.String(), Role: r, Hash: guard.Hash(r.String())})
	}
	for _, step := range []struct {
		method, target, body string
		authorization        string
		status               int
		challenge            string
		want                 string
	}{
		{"GET", "/v1/kv/x", "", "", 401, challenge, "get needs the role read, and a client that shows no token may do nothing here"},
		{"PUT", "/v1/kv/x", "1", "", 401, challenge, "put needs the role write, and a client that shows no token may do nothing here"},
		{"PUT", "/v1/kv/x", "1", "Bearer read", 403, small + `"write"`, `put needs the role write, and the token \"read\" has the role read`},
		{"PUT", "/v1/kv/x", "1", "bearer  write", 200, "", ""},
		{"GET", "/v1/kv/x", "", "Bearer read", 200, "", ""},
		{"GET", "/v1/kv?key=x", "", "Bearer guess", 401, invalid, "this server does not know the token that was shown"},
		{"GET", "/v1/kv?key=x", "", "Basic cmVhZDpyZWFk", 401, challenge, "the header Authorization must be Bearer, a space and a token"},
		{"DELETE", "/v1/kv/x", "", "Bearer read", 403, small + `"write"`, "delete needs the role write"},
		{"POST", "/v1/command", append1, "", 401, challenge, "POST /v1/command needs the role read"},
		{"POST", "/v1/command", append1, "Bearer read", 403, small + `"write"`, `{"id":7,"ok":false,"error":{"code":"denied","message":"append needs the role write`},
		{"POST", "/v1/command", append1, "Bearer write", 200, "", ""},
		{"POST", "/v1/command", change, "Bearer write", 403, small + `"operate"`, "change needs the role operate"},
		{"POST", "/v1/command", change, "Bearer operate", 200, "", ""},
		{"GET", "/v1/status", "", "", 401, challenge, "status needs the role read"},
		{"GET", "/v1/log", "", "", 401, challenge, "log needs the role read"},
		{"GET", "/v1/members", "", "", 401, challenge, "members needs the role read"},
		{"GET", "/metrics", "", "", 401, challenge, "/metrics needs the role read"},
		{"GET", "/metrics", "", "Bearer read", 200, "", "raft_term"},
		{"GET", "/livez", "", "", 200, "", "ok"},
		{"GET", "/livez", "", "Bearer guess", 200, "", "ok"},
		{"GET", "/readyz", "", "", 200, "", "ok"},
	} {
		b := newBackend()
		b.store.Apply(api.Request{Op: "put", Key: "x"}.Command())
		with := api.Ops{api.Change: {May: api.Add | api.Remove}, api.Members: {}}
		for name, op := range ops {
			with[name] = op
		}
		ask := func(r api.Request, reply func(api.Response)) {
			if r.Op == api.Change {
				reply(api.Response{})
				return
			}
			b.ask(r, reply)
		}
		h := New(Options{Ops: with, Ask: ask, Access: guard.New(p, "", nil)})
		w := do(h, step.method, step.target, step.body, step.authorization)
		name := step.method + " " + step.target + " " + step.authorization
		require.Equal(t, step.status, w.Code, name)
		require.Equal(t, step.challenge, w.Header().Get("WWW-Authenticate"), name)
		require.Contains(t, w.Body.String(), step.want, name)
		if step.status != http.StatusOK {
			require.Equal(t, api.Denied, errorOf(t, w.Body.Bytes()).Code, name)
			require.Empty(t, b.asked, name)
		}
	}
}

// A client's certificate has a role, too.
func TestTheRoleOfACertificate(t *testing.T) {
	a, _, err := trust.NewAuthority("north", time.Hour)
	require.NoError(t, err)
	h := New(Options{Ops: ops, Ask: newBackend().ask, Access: guard.New(&access.Policy{}, "", nil)})
	for role, want := range map[string]int{"": 401, "read": 403, "write": 200} {
		r := newRequest("PUT", "/v1/kv/x", "1")
		r.TLS = &tls.ConnectionState{}
		if role != "" {
			pair, err := a.Issue(trust.Identity{Cluster: "north", Role: role}, nil, time.Hour)
			require.NoError(t, err)
			block, _ := pem.Decode(pair.Cert)
			certificate, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			r.TLS.PeerCertificates = []*x509.Certificate{certificate}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, want, w.Code, role)
	}
}

// Every path but those for load balancers needs a role.
func TestEveryPathNeedsARole(t *testing.T) {
	with := api.Ops{api.Members: {}, api.Watch: {}}
	for name, op := range ops {
		with[name] = op
	}
	h := New(Options{Ops: with}).(*handler)
	for path, actions := range h.routes {
		for method, a := range actions {
			open := path == "/livez" || path == "/readyz"
			require.Equal(t, open, a.role == access.None, "%s %s: which role does it need?", method, path)
			require.Equal(t, open, a.what == "", "%s %s", method, path)
		}
	}
}

func do(h http.Handler, method, target, body, authorization string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), newRequest(method, target, body)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	h.ServeHTTP(w, r)
	return w
}

// Everyone learns whether a server is ready, and only clients that may read learn
// why it is not.
func TestWhyAServerIsNotReadyIsNotForEveryone(t *testing.T) {
	b := newBackend()
	b.status = `{"id":2,"leader":1,"ready":false,"unready":"n2 has applied 0 of the 505 entries"}`
	p := &access.Policy{Tokens: []access.Token{{Name: "r", Role: access.Read, Hash: guard.Hash("r")}}}
	h := New(Options{Ops: ops, Ask: b.ask, Access: guard.New(p, "", nil)})
	for authorization, want := range map[string]string{
		"":         "not ready\n",
		"Bearer x": "not ready\n",
		"Bearer r": "not ready: n2 has applied 0 of the 505 entries\n",
	} {
		w := do(h, "GET", "/readyz", "", authorization)
		require.Equal(t, 503, w.Code)
		require.Equal(t, want, w.Body.String())
		require.Empty(t, w.Header().Get("WWW-Authenticate"))
	}
}

// A server that was not told who may do what ignores tokens.
func TestWithoutAPolicyNoTokenIsWrong(t *testing.T) {
	h := New(Options{Ops: ops, Ask: newBackend().ask, Access: guard.New(nil, "derived", nil)})
	require.Equal(t, 200, do(h, "PUT", "/v1/kv/x", "1", "Bearer guess").Code)
	require.Equal(t, 200, do(h, "PUT", "/v1/kv/x", "1", "Basic x").Code)
}
