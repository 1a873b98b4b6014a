package access

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

func entry(name string, role Role, token string) Token {
	return Token{Name: name, Role: role, Hash: Hash(token)}
}

// policy has a token of each role, whose name is the role and whose text is the
// role and "-token".
func policy(anonymous Role) *Policy {
	p := &Policy{Anonymous: anonymous}
	for r := Read; r <= Operate; r++ {
		p.Tokens = append(p.Tokens, entry(r.String(), r, r.String()+"-token"))
	}
	return p
}

// Every operation in packages api and kv has a role. A new one must be given one.
func TestEveryOperationHasARole(t *testing.T) {
	require.Empty(t, Unlisted(api.Commands()))
	listed := 0
	for _, in := range []struct{ file, comment string }{
		{"../api/api.go", "Operations that are not commands"},
		{"../kv/kv.go", "commands"},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), in.file, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST || !strings.Contains(g.Doc.Text(), in.comment) {
				continue
			}
			for _, s := range g.Specs {
				value, ok := s.(*ast.ValueSpec).Values[0].(*ast.BasicLit)
				require.True(t, ok)
				op, err := strconv.Unquote(value.Value)
				require.NoError(t, err)
				require.Contains(t, needs, op, "give the operation %s a role in access.go", op)
				listed++
			}
		}
	}
	require.Equal(t, len(needs), listed, "the table has an operation that is no longer there")
	require.Equal(t, []string{"a", "z"}, Unlisted(api.Ops{"z": {}, kv.Get: {}, "a": {}}))
	require.Equal(t, Operate, Needs("unheard of"))
}

func TestWhoMayDoWhat(t *testing.T) {
	for _, test := range []struct {
		anonymous, certified Role
		token, op            string
		want                 string
	}{
		{None, None, "", kv.Get, "get needs the role read, and a client that shows no token may do nothing here"},
		{Read, None, "", kv.Get, ""},
		{Read, None, "", kv.Put, "put needs the role write, and a client that shows no token has the role read"},
		{Write, None, "", kv.Put, ""},
		{Write, None, "", api.Change, "change needs the role operate, and a client that shows no token has the role write"},
		{Operate, None, "", api.Change, ""},
		{None, None, "read-token", api.Log, ""},
		{None, None, "read-token", kv.Append, `append needs the role write, and the token "read" has the role read`},
		{None, None, "write-token", api.Open, ""},
		{None, None, "write-token", api.Transfer, `transfer needs the role operate, and the token "write" has the role write`},
		{None, None, "operate-token", api.Lead, ""},
		{None, None, "derived", api.Lead, ""},
		{Write, None, "read-token", kv.Put, ""},
		{None, Write, "", kv.Put, ""},
		{None, Write, "", api.Cancel, "cancel needs the role operate, and the client's certificate has the role write"},
		{None, Write, "read-token", api.Cancel, "cancel needs the role operate, and the client's certificate has the role write"},
		{None, Read, "operate-token", api.Cancel, ""},
	} {
		t.Run(fmt.Sprintln(test.anonymous, test.certified, test.token, test.op), func(t *testing.T) {
			c := NewGuard(policy(test.anonymous), "derived", nil).Client(test.certified)
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
	g := NewGuard(policy(Operate), "", nil)
	for token, want := range map[string]string{
		"read-tokem":              "this server does not know the token that was shown",
		"":                        "the token is empty",
		"a b":                     "the token has a character that tokens do not have",
		strings.Repeat("x", 1000): "the token has 1000 characters; it has at most 256",
	} {
		c := g.Client(Operate)
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
	for _, g := range []*Guard{none, NewGuard(nil, "derived", nil)} {
		c := g.Client(Read)
		require.Nil(t, c.Show("unheard of", ""))
		require.Nil(t, c.Denied(api.Change))
	}
	var c Client
	require.Nil(t, c.Denied(api.Change))
}

// A new policy counts for clients that are connected.
func TestATokenThatIsRemoved(t *testing.T) {
	g := NewGuard(policy(Read), "derived", nil)
	app, operator, anonymous := g.Client(None), g.Client(None), g.Client(None)
	require.Nil(t, app.Show("write-token", ""))
	require.Nil(t, operator.Show("derived", ""))
	require.Nil(t, app.Denied(kv.Put))
	g.Set(&Policy{Anonymous: Read})
	require.Equal(t, "this server no longer knows the token that was shown", app.Denied(kv.Put).Message)
	require.Nil(t, app.Denied(kv.Get))
	require.Nil(t, operator.Denied(api.Change))
	g.Set(policy(None))
	require.Nil(t, app.Denied(kv.Put))
	require.NotNil(t, anonymous.Denied(kv.Get))
	g.Set(nil)
	require.Nil(t, anonymous.Denied(api.Change))
}

// A client that guesses does not fill the log.
func TestGuessesAreLoggedOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := NewGuard(policy(None), "", slog.New(slog.NewTextHandler(&out, nil)))
		from := "192.0.2.7:9"
		guess := func() {
			c := g.Client(None)
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
	require.NoError(t, CheckToken(one))
	derived := OperatorToken("c", "s")
	require.NoError(t, CheckToken(derived))
	require.Len(t, derived, 64)
	require.NotEqual(t, derived, OperatorToken("c", "s2"))
	require.NotEqual(t, derived, OperatorToken("c2", "s"))
	require.Equal(t, derived, OperatorToken("c", "s"))
}

func TestPolicyText(t *testing.T) {
	hash := Hash("t")
	text := fmt.Sprintf(`{"tokens":[{"name":"app","role":"write","sha256":"%x"}],"anonymous":"read"}`, hash)
	p, err := decode(text)
	require.NoError(t, err)
	require.Equal(t, &Policy{Tokens: []Token{entry("app", Write, "t")}, Anonymous: Read}, p)
	again, err := json.Marshal(p.Encoded())
	require.NoError(t, err)
	require.Equal(t, text, string(again))
	require.Nil(t, (*Policy)(nil).Encoded())

	p, err = decode(`{"anonymous":"none"}`)
	require.NoError(t, err)
	require.Equal(t, &Policy{}, p)

	good := hex.EncodeToString(hash[:])
	for text, want := range map[string]string{
		`{"anonymous":"root"}`:                                                `"root" is not a role; the roles are read, write and operate`,
		`{"users":[]}`:                                                        "unknown field; access has tokens, and anonymous",
		`{"tokens":[{"name":"a","role":"write"}]}`:                            "a token without sha256",
		`{"tokens":[{"name":"a","sha256":"` + good + `"}]}`:                   "the role of a token is read, write or operate",
		`{"tokens":[{"role":"read","sha256":"` + good + `"}]}`:                `"" is not a name for a token`,
		`{"tokens":[{"name":"a","role":"none","sha256":"` + good + `"}]}`:     `"none" is not a role`,
		`{"tokens":[{"name":"a","role":"read","sha256":"` + good[1:] + `"}]}`: "want the 64 hexadecimal digits",
		`{"tokens":[{"name":"a","role":"read","sha256":"` + good + `00"}]}`:   "want the 64 hexadecimal digits",
		`{"tokens":[{"name":"a","role":"read","token":"t"}]}`:                 "unknown field; a token has name, role and sha256",
		`{"tokens":[{"name":"a","role":"read","sha256":"` + good + `"},{"name":"b","role":"read","sha256":"` + good + `"}]}`:                    `the token "b" has the hash of another token`,
		`{"tokens":[{"name":"a","role":"read","sha256":"` + good + `"},{"name":"a","role":"read","sha256":"` + strings.Repeat("0", 64) + `"}]}`: `there is a token with the name "a" already`,
	} {
		_, err := decode(text)
		require.ErrorContains(t, err, want, text)
	}
	full := &Policy{Tokens: make([]Token, MaxTokens)}
	require.ErrorContains(t, full.Add(entry("a", Read, "t")), "there are 1000 tokens, which is the limit")
}

func decode(text string) (*Policy, error) {
	d := strict.NewDecoder([]byte(text))
	p := Decode(&d)
	return p, d.End()
}
