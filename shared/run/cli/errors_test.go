package cli

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// Every code that a server can answer has the exit code that help exit-codes
// gives it.
func TestEveryCodeHasItsExitCode(t *testing.T) {
	exits := map[api.Code]int{
		api.BadRequest: 1, api.TooLarge: 1, api.NotLeader: 1, api.Refused: 1, api.Denied: 1, api.Handshake: 1, api.NoSession: 1, api.Full: 1, api.Compacted: 1,
		api.NotFound: 3,
		api.Mismatch: 4, api.Exists: 4,
		api.Unavailable: 5, api.Busy: 5,
		api.Unknown: 6,
	}
	for _, code := range codes(t) {
		want, listed := exits[code]
		require.True(t, listed, "%s: what is its exit code?", code)
		err := fmt.Errorf("put: %w", &api.Error{Code: code, Message: "why", Definite: code != api.Unknown})
		require.Equal(t, want, exitCode(err), code)
		require.Equal(t, exitUnknown, exitCode(&api.Error{Code: code}), "%s, and it may have happened", code)
	}
	require.Equal(t, exitRefused, exitCode(errors.New("no server has said anything")))
}

// codes are the constants of type api.Code.
func codes(t *testing.T) (all []api.Code) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../core/api/errors.go", nil, 0)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := v.Type.(*ast.Ident); ok && name.Name == "Code" {
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			all = append(all, api.Code(text))
		}
		return true
	})
	require.NotEmpty(t, all)
	return all
}

// A wrong command line is an error in JSON too, wherever -o json stands.
func TestAUsageErrorIsJSONToo(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["92-cluster"]
	for _, tt := range []struct{ words, message string }{
		{"put x --foo -o json", "there is no flag --foo"},
		{"put x -y -o json", "there is no flag -y"},
		{"--output=json put x", "put takes KEY VALUE, but got 1 argument"},
		{"get x y -ojson", "get takes KEY; remove the argument \\\"y\\\""},
		{"gte x -o json", "there is no command \\\"gte\\\""},
		{"get x -o json --timeout", "--timeout needs a value; it must be a length of time, such as 500ms or 5s"},
		{"get x --timeout 5 -o json", "--timeout is \\\"5\\\"; it must be a length of time, such as 500ms or 5s"},
		{"get x --=5 -o json", "\\\"--=5\\\" is not a flag"},
		{"cluster -n 9999999999999999999 -o json", "--servers is \\\"9999999999999999999\\\", which is out of range"},
		{"completion bash more -o json", "bash takes no arguments, but got \\\"more\\\""},
		{"get x --log-level loud -o json", `--log-level: \"loud\" is not a level; the levels are debug, info, warn and error`},
		{"cluster -o json", "cluster has no results to write as JSON; leave -o out"},
	} {
		got := run(t, s, strings.Fields(tt.words)...)
		require.Equal(t, exitUsage, got.code, tt.words)
		require.Equal(t, `{"ok":false,"error":{"code":"usage","message":"`+tt.message+`","definite":true}}`+"\n", got.out, tt.words)
		require.Regexp(t, "^error: .*\n$", got.errors, tt.words)
	}
	for _, words := range []string{"put x --foo", "put x -- -o json more", "put x --foo -o text"} {
		got := run(t, s, strings.Fields(words)...)
		require.Equal(t, exitUsage, got.code, words)
		require.Empty(t, got.out, words)
	}
	got := runWith(t, s, "put \"\n", "shell", "-o", "json")
	require.Contains(t, got.out, `{"ok":false,"error":{"code":"usage"`)
}
