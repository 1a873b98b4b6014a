package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/trust"
)

// guarded is a server with a store that knows a token of each role, whose text is
// the role. begun counts the requests that have reached the store.
func guarded(anonymous access.Role) (s *Server, g *guard.Guard, begun *atomic.Int64) {
	p := &access.Policy{Anonymous: anonymous}
	for r := access.Read; r <= access.Operate; r++ {
		p.Tokens = append(p.Tokens, access.Token{Name: r.String(), Role: r, Hash: guard.Hash(r.String())})
	}
	g, begun = guard.New(p, "", nil), new(atomic.Int64)
	do, ops := store(), api.Commands()
	ops[api.Change] = api.Op{May: api.Add | api.Remove}
	return &Server{Ops: ops, Access: g, Handler: func(r api.Request, reply func(api.Response)) {
		begun.Add(1)
		if r.Op == api.Change {
			reply(api.Response{})
			return
		}
		do(r, reply)
	}}, g, begun
}

const (
	putLine    = `{"id":1,"op":"put","key":"x","value":"1"}` + "\n"
	getLine    = `{"id":2,"op":"get","key":"x"}` + "\n"
	changeLine = `{"id":3,"op":"change","remove":[1]}` + "\n"
)

// A request above the client's role is refused before anything is done, and the
// connection stays open.
func TestRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, begun := guarded(access.None)
		r := serve(t, s, newPipes())
		defer r.end()
		denied := func(id int, op, need, who, has string) string {
			return fmt.Sprintf(`{"id":%d,"ok":false,"error":{"code":"denied","message":"%s needs the role %s, and %s %s","definite":true}}`, id, op, need, who, has)
		}
		for _, test := range []struct {
			token   string
			answers []string
			begun   int64
		}{
			{"", []string{
				denied(1, "put", "write", "a client that shows no token", "may do nothing here"),
				denied(2, "get", "read", "a client that shows no token", "may do nothing here"),
				denied(3, "change", "operate", "a client that shows no token", "may do nothing here"),
			}, 0},
			{"read", []string{
				denied(1, "put", "write", `the token \"read\"`, "has the role read"),
				`{"id":2,"ok":false,"error":{"code":"not_found","message":"the key has no value","definite":true}}`,
				denied(3, "change", "operate", `the token \"read\"`, "has the role read"),
			}, 1},
			{"write", []string{
				`{"id":1,"ok":true}`, `{"id":2,"ok":true,"value":"1"}`,
				denied(3, "change", "operate", `the token \"write\"`, "has the role write"),
			}, 2},
			{"operate", []string{`{"id":1,"ok":true}`, `{"id":2,"ok":true,"value":"1"}`, `{"id":3,"ok":true}`}, 3},
		} {
			begun.Store(0)
			c := r.dial()
			if test.token != "" {
				c.send(`{"token":"` + test.token + `"}` + "\n" + putLine)
			} else {
				c.send(putLine)
			}
			require.Equal(t, test.answers[0], c.line())
			c.send(getLine)
			require.Equal(t, test.answers[1], c.line())
			c.send(changeLine)
			require.Equal(t, test.answers[2], c.line())
			require.Equal(t, test.begun, begun.Load(), test.token)
			require.NoError(t, c.c.Close())
		}
	})
}

// A wrong token ends the connection. The requests right behind it are not begun.
func TestAWrongToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, begun := guarded(access.Operate)
		r := serve(t, s, newPipes())
		defer r.end()
		for first, want := range map[string]string{
			`{"token":"secret-guess"}`: `{"ok":false,"error":{"code":"denied","message":"this server does not know the token that was shown","definite":true}}`,
			`{"token":""}`:             `{"ok":false,"error":{"code":"denied","message":"the token is empty","definite":true}}`,
			`{"token":"read","x":1}`:   `{"ok":false,"error":{"code":"bad_request","message":"a malformed token line: field \"x\": unknown field (at byte 20)","definite":true}}`,
			`{"token":1}`:              `{"ok":false,"error":{"code":"bad_request","message":"a malformed token line: field \"token\": want a string, found a number (at byte 9)","definite":true}}`,
		} {
			c := r.dial()
			c.send(first + "\n" + putLine + getLine)
			require.Equal(t, want, c.line())
			c.over()
		}
		c := r.dial()
		c.send(getLine + `{"token":"write"}` + "\n" + putLine)
		require.Contains(t, c.line(), `"code":"not_found"`)
		require.Equal(t, `{"ok":false,"error":{"code":"bad_request","message":"a token must be the first line of its connection; the connection is closed","definite":true}}`, c.line())
		c.over()
		require.EqualValues(t, 1, begun.Load())
	})
}

// A token that is no longer there counts no longer, on open connections either.
func TestATokenIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, guard, _ := guarded(access.Read)
		r := serve(t, s, newPipes())
		defer r.end()
		c := r.dial()
		c.send(`{"token":"write"}` + "\n" + putLine)
		require.Equal(t, `{"id":1,"ok":true}`, c.line())
		guard.Set(&access.Policy{Anonymous: access.Read})
		c.send(putLine)
		require.Contains(t, c.line(), "this server no longer knows the token that was shown")
		c.send(getLine)
		require.Equal(t, `{"id":2,"ok":true,"value":"1"}`, c.line())
	})
}

// A client's certificate has a role, and a token can only raise it. A server's
// certificate has none.
func TestTheRoleOfACertificate(t *testing.T) {
	a := newAuthority(t)
	a.issue("writer", trust.Identity{Cluster: "north", Role: "write"}, time.Hour)
	a.issue("reader", trust.Identity{Cluster: "north", Role: "read"}, time.Hour)
	a.issue("n2", trust.Identity{Cluster: "north", Server: 2}, time.Hour)
	s, _, _ := guarded(access.None)
	s.TLS = a.keys(1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := serve(t, s, ln)
	for _, test := range []struct{ certificate, token, want string }{
		{"writer", "", ""},
		{"writer", "read", ""},
		{"reader", "", "denied: put needs the role write, and the client's certificate has the role read"},
		{"reader", "write", ""},
		{"n2", "", "denied: put needs the role write, and a client that shows no token may do nothing here"},
		{"writer", "guess", "denied: this server does not know the token that was shown"},
	} {
		err := putOnce(t, ln.Addr().String(), WithTLS(a.client(test.certificate)), WithToken(test.token))
		if test.want == "" {
			require.NoError(t, err, test)
		} else {
			require.EqualError(t, err, test.want, test)
		}
	}
	require.NoError(t, r.end())
}

// A client shows its token with its first request. A wrong one is an error of its
// own for each request, and not a lost answer.
func TestDialWithToken(t *testing.T) {
	s, _, begun := guarded(access.None)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := serve(t, s, ln)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put := api.Request{Op: kv.Put, Key: "x", Value: "1"}
	dial := func(how ...DialOption) *Conn {
		c, err := Dial(ctx, ln.Addr().String(), Limits{}, how...)
		require.NoError(t, err)
		return c
	}
	right := dial(WithToken("write"))
	for range 3 {
		_, err = right.Do(ctx, put)
		require.NoError(t, err)
	}
	require.NoError(t, right.Close())

	wrong := dial(WithToken("guess"))
	for range 3 { // the last ones come when the connection has ended
		_, err = wrong.Do(ctx, put)
		var e *api.Error
		require.True(t, errors.As(err, &e))
		require.Equal(t, &api.Error{Code: api.Denied, Definite: true, Message: "this server does not know the token that was shown"}, e)
	}
	require.NoError(t, wrong.Close())

	none := dial(WithToken(""))
	_, err = none.Do(ctx, put)
	require.ErrorContains(t, err, "denied: put needs the role write")
	require.NoError(t, none.Close())
	require.EqualValues(t, 3, begun.Load())
	require.NoError(t, r.end())
}
