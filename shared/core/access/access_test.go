package access

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

func entry(name string, role Role, token string) Token {
	return Token{Name: name, Role: role, Hash: sha256.Sum256([]byte(token))}
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

func TestForms(t *testing.T) {
	for token, good := range map[string]bool{
		"a": true, "aZ09._~+/-": true, "a=": true, "a==": true, strings.Repeat("x", MaxToken): true,
		"": false, "=": false, "=a": false, "a=b": false, "a b": false, "a\n": false, "ä": false, "a\"": false, strings.Repeat("x", MaxToken+1): false,
	} {
		require.Equal(t, good, CheckToken(token) == nil, "%q", token)
	}
	for name, good := range map[string]bool{
		"a": true, "A-z_0.9": true, strings.Repeat("x", 64): true,
		"": false, "a b": false, "a~": false, "a=": false, "a\n": false, strings.Repeat("x", 65): false,
	} {
		require.Equal(t, good, CheckName(name) == nil, "%q", name)
	}
}

func TestPolicyText(t *testing.T) {
	hash := sha256.Sum256([]byte("t"))
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
