package readme

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// After git pull, go build gives the reader the next release.
func TestPull(t *testing.T) {
	dir := t.TempDir()
	w := &world{dir: dir, Pulled: filepath.Join(dir, "pulled"), Stages: map[string]stage{"07-x": {Built: "/built/07-x", Next: "/next/07-x", BasePort: 7070}}}
	build := func() string {
		out := filepath.Join(dir, "kv")
		done, err := w.playGoBuild([]string{"-o", out, "./07-x"})
		require.NoError(t, err)
		require.True(t, done)
		text, err := os.ReadFile(out)
		require.NoError(t, err)
		return string(text)
	}
	save := func() {
		text, err := json.Marshal(w)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(w.file(), text, 0o644))
	}
	t.Setenv(worldVariable, w.file())
	save()
	require.Contains(t, build(), "/built/07-x")
	require.Equal(t, 1, playGit([]string{"pull"}), "there is no other release")
	w.Next = "overlay.json"
	save()
	for _, args := range [][]string{nil, {"push"}, {"pull", "--rebase"}, {"pull", "--quiet", "more"}} {
		require.Equal(t, 2, playGit(args), args)
	}
	require.Contains(t, build(), "/built/07-x")
	require.Zero(t, playGit([]string{"pull", "--quiet"}))
	require.Contains(t, build(), "/next/07-x")
}
