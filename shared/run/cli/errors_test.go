package cli

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
)

// Every code that a server can answer has the exit code that help exit-codes
// gives it.
func TestEveryCodeHasItsExitCode(t *testing.T) {
	exits := map[api.Code]int{
		api.BadRequest: 1, api.TooLarge: 1, api.NotLeader: 1, api.Refused: 1, api.NoSession: 1, api.Full: 1, api.Compacted: 1,
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
