package raft

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every rule has its own code, a section of the paper, and a sentence that says who
// decided. The set is read from the source, so that none is left out.
func TestRulesAreComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	require.NoError(t, err)
	codes := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		literal, is := n.(*ast.CompositeLit)
		if !is || len(literal.Elts) != 3 {
			return true
		}
		var texts []string
		for _, e := range literal.Elts {
			if text, is := e.(*ast.BasicLit); is && text.Kind == token.STRING {
				texts = append(texts, strings.Trim(text.Value, `"`))
			}
		}
		if len(texts) == 3 {
			require.False(t, codes[texts[0]], "the code %s is there twice", texts[0])
			codes[texts[0]] = true
			require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, texts[0])
			require.Regexp(t, `^(thesis )?§\d+(\.\d+)*$`, texts[1])
			require.True(t, strings.HasPrefix(texts[2], "%[1]s "), texts[2])
		}
		return true
	})
	for _, rule := range mustHappen {
		require.True(t, codes[rule] || !strings.Contains(rule, "-") || rule == "read answered", rule)
	}
	require.GreaterOrEqual(t, len(codes), 9)
}

// No sentence has a verb without a value.
func TestReasonsReadWell(t *testing.T) {
	why := Reason{Rule: Truncated, Self: 3, Peer: 1, Mine: Position{2, 5}, Theirs: Position{3, 5}}
	require.Equal(t, "n3 removes its entries from 2@5 on: the leader n1 has 3@5 there", why.String())
	require.NotContains(t, why.String(), "%!")
}

// Reasons cost nothing when nobody listens: the same inputs make no garbage.
func TestReasonsCostNothingWhenOff(t *testing.T) {
	for _, c := range []struct {
		explain bool
		want    float64
	}{{false, 0}, {true, 1}} {
		r := boot(5, 1, 1)
		r.options.Explain = c.explain
		stale := Message{From: 2, To: 1, Term: 4, Body: AppendEntriesReply{}}
		got := testing.AllocsPerRun(100, func() {
			r.Step(stale)
			r.out.Reasons = nil
		})
		require.Equal(t, c.want, got, "explain: %v", c.explain)
	}
}

// Whether it explains or not, a server does the same.
func TestExplainingChangesNothing(t *testing.T) {
	quiet, loud := boot(5, 1, 1), boot(5, 1, 1)
	quiet.options.Explain = false
	makeLeader(t, quiet)
	makeLeader(t, loud)
	a, b := takeAll(quiet), takeAll(loud)
	require.Empty(t, a.Reasons)
	require.NotEmpty(t, b.Reasons)
	b.Reasons = nil
	require.Equal(t, a, b)
}
