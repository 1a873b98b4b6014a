package readme

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnHosts(t *testing.T) {
	hosts := []Host{{Name: "kv1"}, {Name: "admin"}}
	for _, c := range []struct {
		line  string
		hosts []Host
		wrong string
	}{
		{"# on kv1", hosts, ""},
		{"# on admin, second terminal", hosts, ""},
		{"# second terminal", nil, ""},
		{"# on kv1", nil, `line 1: "# on kv1" names a machine, and this README has only one`},
		{"# on kv2", hosts, `line 1: the block does not say on which machine it is typed; begin it with "# on NAME", where NAME is one of kv1, admin`},
		{"# second terminal", hosts, `line 1: the block does not say on which machine it is typed; begin it with "# on NAME", where NAME is one of kv1, admin`},
	} {
		blocks, err := parse("```console\n" + c.line + "\n$ true\n```\n")
		require.NoError(t, err)
		require.Equal(t, c.line, blocks[0].terminal)
		if err := onHosts(blocks, c.hosts); c.wrong != "" {
			require.EqualError(t, err, c.wrong)
		} else {
			require.NoError(t, err)
		}
	}
}

func TestCopyTo(t *testing.T) {
	dir := t.TempDir()
	w := &world{dir: dir, Folders: map[string]string{"kv1": filepath.Join(dir, "kv1")}}
	require.NoError(t, os.MkdirAll(w.Folders["kv1"], 0o755))
	text, err := json.Marshal(w)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.file(), text, 0o644))
	t.Setenv(worldVariable, w.file())
	from := func(name string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
		return path
	}
	a, b := from("a"), from("b")
	require.NoError(t, copyTo([]string{a, b, "kv1:"}))
	require.NoError(t, copyTo([]string{a, "kv1:c"}))
	for name, want := range map[string]string{"a": "a", "b": "b", "c": "a"} {
		got, err := os.ReadFile(filepath.Join(dir, "kv1", name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.EqualError(t, copyTo([]string{a, "kv2:"}), "kv2:: there is no machine of this name")
	require.EqualError(t, copyTo([]string{a, b, "kv1:c"}), "kv1:c: is not a folder")
	require.ErrorIs(t, copyTo([]string{filepath.Join(dir, "missing"), "kv1:"}), os.ErrNotExist)
	require.Error(t, copyTo([]string{a}))
}

func TestRoot(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "07-stage", "deploy")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	require.Equal(t, filepath.Join(dir, "07-stage"), root(deep))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.work"), nil, 0o644))
	require.Equal(t, dir, root(deep))
	require.Equal(t, dir, root(dir))
}
