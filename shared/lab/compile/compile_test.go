package compile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/raftsteps/shared/lab/film"
	"github.com/stretchr/testify/require"
)

const good = `{"about": "It does harm.", "films": {"05-a": {"seed": 1}}, "unchecked": ["I1"], "changes": [{"file": "raft/a.go", "old": "a < b", "new": "a > b"}, {"file": "raft/a.go", "old": "x", "new": "y", "stages": ["06-b"]}]}`

// tree writes a source tree.
func tree(t *testing.T, files map[string]string) Tree {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"go.work": "", "shared/go.mod": "", "05-a/main.go": "", "05-a/scenarios.go": "", "06-b/main.go": "", "x/main.go": "",
		"05-a/raft/a.go": "if a < b {\n", "shared/book/edits/harm.json": good,
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		file := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	return Tree(root)
}

func TestFind(t *testing.T) {
	want := tree(t, nil)
	got, err := Find(filepath.Join(string(want), "05-a", "raft"))
	require.NoError(t, err)
	require.Equal(t, want, got)
	stages, err := got.Stages()
	require.NoError(t, err)
	require.Equal(t, []string{"05-a"}, stages)
	_, err = Find(t.TempDir())
	require.ErrorContains(t, err, "is not inside the source tree of the stages")
}

func TestApply(t *testing.T) {
	changed, err := tree(t, nil).Apply("05-a", []string{"harm"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"05-a/raft/a.go": "if a > b {\n"}, changed)
	changed, err = tree(t, nil).Apply("05-a", nil)
	require.NoError(t, err)
	require.Empty(t, changed)
}

func TestScriptAndArguments(t *testing.T) {
	e, err := tree(t, nil).Edit("harm")
	require.NoError(t, err)
	s, err := e.Script("05-a")
	require.NoError(t, err)
	require.Equal(t, film.Script{Stage: "05-a", Seed: 1, Edits: []string{"harm"}}, s)
	args, err := tree(t, nil).Arguments(s.Edits)
	require.NoError(t, err)
	require.Equal(t, []string{"lab", "--engine", "--edit", "harm", "--unchecked", "I1"}, args)

	e, err = tree(t, map[string]string{"shared/book/edits/harm.json": strings.Replace(good, `"seed": 1`, `"sead": 1`, 1)}).Edit("harm")
	require.NoError(t, err)
	_, err = e.Script("05-a")
	require.ErrorContains(t, err, `the edit harm: the film of 05-a: the script: field "sead": unknown field`)
}

func TestFS(t *testing.T) {
	files, err := tree(t, map[string]string{"05-a/raft/b.go": "b"}).FS("05-a", []string{"harm"})
	require.NoError(t, err)
	names, err := fs.Glob(files, "*/*.go")
	require.NoError(t, err)
	require.Equal(t, []string{"raft/a.go", "raft/b.go"}, names)
	for name, want := range map[string]string{"raft/a.go": "if a > b {\n", "raft/b.go": "b"} {
		text, err := fs.ReadFile(files, name)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
	_, err = tree(t, nil).FS("../05-a", nil)
	require.ErrorContains(t, err, `there is no stage "../05-a"; there are 05-a`)
	_, err = tree(t, nil).FS("05-a", []string{"good"})
	require.ErrorContains(t, err, `there is no edit "good"`)
}

func TestApplyRefuses(t *testing.T) {
	edit := func(old, now string) map[string]string {
		require.Contains(t, good, old)
		return map[string]string{"shared/book/edits/harm.json": strings.Replace(good, old, now, 1)}
	}
	for name, c := range map[string]struct {
		files map[string]string
		edits []string
		why   string
	}{
		"no such edit":      {nil, []string{"good"}, `there is no edit "good"; shared/book/edits holds harm`},
		"a path":            {nil, []string{"../edits/harm"}, `"../edits/harm" is no name of an edit`},
		"no name":           {nil, []string{""}, `"" is no name of an edit`},
		"another stage":     {edit(`"05-a"`, `"06-b"`), []string{"harm"}, "the edit harm does not fit 05-a; it fits 06-b"},
		"text missing":      {map[string]string{"05-a/raft/a.go": "x"}, []string{"harm"}, `05-a/raft/a.go contains the text "a < b" 0 times; it must contain it once`},
		"text twice":        {map[string]string{"05-a/raft/a.go": "a < b || a < b"}, []string{"harm"}, "2 times"},
		"twice the same":    {nil, []string{"harm", "harm"}, "0 times"},
		"no file":           {edit("raft/a.go", "raft/b.go"), []string{"harm"}, "05-a/raft/b.go: no such file"},
		"out of the stage":  {edit("raft/a.go", "../raft/a.go"), []string{"harm"}, `file is "../raft/a.go"; it must be a file of Go in a folder of the stage`},
		"the program":       {edit("raft/a.go", "main.go"), []string{"harm"}, `file is "main.go"`},
		"not JSON":          {edit("{", ""), []string{"harm"}, "shared/book/edits/harm.json: "},
		"an unknown field":  {edit(`"about"`, `"abuot"`), []string{"harm"}, `unknown field "abuot"`},
		"something follows": {edit(`["06-b"]}]}`, `["06-b"]}]} x`), []string{"harm"}, "something follows the edit"},
		"no sentence":       {edit("It does harm.", ""), []string{"harm"}, "about is missing"},
		"no film":           {edit(`"05-a": {"seed": 1}`, ""), []string{"harm"}, "films is missing"},
		"nothing to find":   {edit(`"a < b"`, `""`), []string{"harm"}, "old is empty"},
	} {
		_, err := tree(t, c.files).Apply("05-a", c.edits)
		require.ErrorContains(t, err, c.why, name)
	}
}

func TestBuildRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "engine")
	require.ErrorContains(t, tree(t, nil).Build(t.Context(), Target{Stage: "../05-a"}, out), `there is no stage "../05-a"; there are 05-a`)
	require.ErrorContains(t, tree(t, nil).Build(t.Context(), Target{Stage: "05-a"}, out), "build 05-a: go build: ")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.True(t, errors.Is(tree(t, nil).Build(ctx, Target{Stage: "05-a"}, out), context.Canceled))
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, tree(t, nil).Build(t.Context(), Target{Stage: "05-a"}, out), "the command go is needed, and it is not in PATH")
}

// TestEdits applies every edit to every stage that it names. TestCarriers in
// shared/book/site compiles them, and plays the films that they break.
func TestEdits(t *testing.T) {
	tree, err := Find(".")
	require.NoError(t, err)
	edits, err := tree.Edits()
	require.NoError(t, err)
	require.NotEmpty(t, edits)
	for _, e := range edits {
		for stage := range e.Films {
			_, err := tree.Apply(stage, []string{e.Name})
			require.NoError(t, err)
			_, err = e.Script(stage)
			require.NoError(t, err)
		}
	}
}
