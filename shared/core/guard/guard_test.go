package guard

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// policy has a token of each role, whose name is the role and whose text is the
// role and "-token".
func policy(anonymous access.Role) *access.Policy {
	p := &access.Policy{Anonymous: anonymous}
	for r := access.Read; r <= access.Operate; r++ {
		p.Tokens = append(p.Tokens, access.Token{Name: r.String(), Role: r, Hash: Hash(r.String() + "-token")})
	}
	return p
}

func TestWhoMayDoWhat(t *testing.T) {
	for _, test := range []struct {
		anonymous, certified access.Role
		token, op            string
		want                 string
	}{
		{access.None, access.None, "", kv.Get, "get needs the role read, and a client that shows no token may do nothing here"},
		{access.Read, access.None, "", kv.Get, ""},
		{access.Read, access.None, "", kv.Put, "put needs the role write, and a client that shows no token has the role read"},
		{access.Write, access.None, "", kv.Put, ""},
		{access.Read, access.None, "", api.Open, "a write needs the role write, and a client that shows no token has the role read"},
		{access.Write, access.None, "", api.Change, "change needs the role operate, and a client that shows no token has the role write"},
		{access.Operate, access.None, "", api.Change, ""},
		{access.None, access.None, "read-token", api.Log, ""},
		{access.None, access.None, "read-token", kv.Append, `append needs the role write, and the token "read" has the role read`},
		{access.None, access.None, "write-token", api.Open, ""},
		{access.None, access.None, "write-token", api.Transfer, `transfer needs the role operate, and the token "write" has the role write`},
		{access.None, access.None, "operate-token", api.Lead, ""},
		{access.None, access.None, "derived", api.Lead, ""},
		{access.Write, access.None, "read-token", kv.Put, ""},
		{access.None, access.Write, "", kv.Put, ""},
		{access.None, access.Write, "", api.Cancel, "cancel needs the role operate, and the client's certificate has the role write"},
		{access.None, access.Write, "read-token", api.Cancel, "cancel needs the role operate, and the client's certificate has the role write"},
		{access.None, access.Read, "operate-token", api.Cancel, ""},
	} {
		t.Run(fmt.Sprintln(test.anonymous, test.certified, test.token, test.op), func(t *testing.T) {
			c := New(policy(test.anonymous), "derived", nil).Client(test.certified)
			if test.token != "" {
				require.Nil(t, c.Show(test.token, ""))
			}
			require.Equal(t, test.token != "", c.Shown())
			e := c.Denied(test.op)
			if test.want == "" {
				require.Nil(t, e)
				return
			}
			require.Equal(t, &api.Error{Code: api.Denied, Definite: true, Message: test.want}, e)
		})
	}
}

func TestWrongTokens(t *testing.T) {
	g := New(policy(access.Operate), "", nil)
	for token, want := range map[string]string{
		"read-tokem":              "this server does not know the token that was shown",
		"":                        "the token is empty",
		"a b":                     "the token has a character that tokens do not have",
		strings.Repeat("x", 1000): "the token has 1000 characters; it has at most 256",
	} {
		c := g.Client(access.Operate)
		e := c.Show(token, "")
		require.NotNil(t, e)
		require.Equal(t, api.Denied, e.Code)
		require.True(t, e.Definite)
		require.Contains(t, e.Message, want)
		require.False(t, c.Shown())
	}
}

// Without a policy everyone may do everything, whatever they show.
func TestNoPolicy(t *testing.T) {
	var none *Guard
	for _, g := range []*Guard{none, New(nil, "derived", nil)} {
		c := g.Client(access.Read)
		require.Nil(t, c.Show("unheard of", ""))
		require.Nil(t, c.Denied(api.Change))
	}
	var c Client
	require.Nil(t, c.Denied(api.Change))
}

// A new policy counts for clients that are connected.
func TestATokenThatIsRemoved(t *testing.T) {
	g := New(policy(access.Read), "derived", nil)
	app, operator, anonymous := g.Client(access.None), g.Client(access.None), g.Client(access.None)
	require.Nil(t, app.Show("write-token", ""))
	require.Nil(t, operator.Show("derived", ""))
	require.Nil(t, app.Denied(kv.Put))
	g.Set(&access.Policy{Anonymous: access.Read})
	require.Equal(t, "this server no longer knows the token that was shown", app.Denied(kv.Put).Message)
	require.Nil(t, app.Denied(kv.Get))
	require.Nil(t, operator.Denied(api.Change))
	g.Set(policy(access.None))
	require.Nil(t, app.Denied(kv.Put))
	require.NotNil(t, anonymous.Denied(kv.Get))
	g.Set(nil)
	require.Nil(t, anonymous.Denied(api.Change))
}

// A client that guesses does not fill the log.
func TestGuessesAreLoggedOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := New(policy(access.None), "", slog.New(slog.NewTextHandler(&out, nil)))
		from := "192.0.2.7:9"
		guess := func() {
			c := g.Client(access.None)
			require.NotNil(t, c.Show("secret-guess", from))
		}
		for range 100 {
			guess()
		}
		require.Equal(t, 1, strings.Count(out.String(), "wrong token"))
		time.Sleep(time.Second)
		guess()
		require.Equal(t, 2, strings.Count(out.String(), "wrong token"))
		require.Contains(t, out.String(), "client=192.0.2.7:9 wrong_before=99")
		require.NotContains(t, out.String(), "guess")
	})
}

func TestTokens(t *testing.T) {
	one, two := NewToken(), NewToken()
	require.NotEqual(t, one, two)
	require.GreaterOrEqual(t, len(one), 26, "26 letters of base 32 have 130 bits")
	require.NoError(t, access.CheckToken(one))
	derived := OperatorToken("c", "s")
	require.NoError(t, access.CheckToken(derived))
	require.Len(t, derived, 64)
	require.NotEqual(t, derived, OperatorToken("c", "s2"))
	require.NotEqual(t, derived, OperatorToken("c2", "s"))
	require.Equal(t, derived, OperatorToken("c", "s"))
}
