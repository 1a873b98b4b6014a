package cli

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// memory is a cluster in memory. After some writes it fails, unless fails is 0.
type memory struct {
	mu    sync.Mutex
	store *kv.Store
	index uint64
	fails int
}

func (m *memory) Close() error { return nil }

func (m *memory) Do(_ context.Context, r api.Request) (api.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case r.Op == api.Watch:
		return api.Response{Data: api.Events{Next: m.index + 1}.AppendJSON(nil)}, nil
	case api.OnlyReads(r.Op):
		a := api.Read(r, m.store).WithData()
		a.Index = m.index
		if a.Error != nil {
			return a, a.Error
		}
		return a, nil
	}
	if m.fails == 1 {
		return api.Response{}, &api.Error{Code: api.Unavailable, Message: "no leader", Definite: true}
	}
	m.fails = max(0, m.fails-1)
	m.index++
	if a := api.Result(0, r.Op, m.store.Apply(r.Command())); a.Error != nil {
		return a, a.Error
	}
	return api.Response{}, nil
}

func TestBackupAndRestore(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(endpointsVariable, "127.0.0.1:1")
	ops := api.Commands()
	ops[api.Watch] = api.Op{May: api.Prefix | api.From}
	stageOf := func(m *memory) Stage {
		return Stage{Name: "96-backup", Ops: ops, Dial: func([]string, ...DialOption) Client { return m }}
	}
	full, empty := &memory{store: kv.NewStore()}, &memory{store: kv.NewStore()}
	for _, key := range []string{"a", "b\n", "\xff"} {
		_, err := full.Do(t.Context(), api.Request{Op: kv.Put, Key: key, Value: "value of " + key})
		require.NoError(t, err)
	}
	require.Equal(t, result{0, "", "3 keys saved to file, as of index 3\n"}, run(t, stageOf(full), "backup", "file"))
	got := run(t, stageOf(full), "backup", "file")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.errors, "file exists; name another file, or replace it with --force")
	require.Equal(t, result{0, `{"keys":3,"index":3}` + "\n", ""}, run(t, stageOf(full), "backup", "file", "--force", "-o", "json"))

	require.Equal(t, result{0, "", "3 keys restored, as of index 3\n"}, run(t, stageOf(empty), "restore", "file"))
	require.Equal(t, full.store.Hash(), empty.store.Hash())
	got = run(t, stageOf(empty), "restore", "file")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "the cluster has keys already, such as a: start a new one")

	// One that was interrupted is continued; a key that somebody has changed is named.
	half := &memory{store: kv.NewStore(), fails: 2}
	require.Equal(t, 5, run(t, stageOf(half), "restore", "file").code)
	half.fails = 0
	require.Equal(t, 1, half.store.Len())
	require.Equal(t, result{0, "", "3 keys restored, as of index 3\n"}, run(t, stageOf(half), "restore", "file", "--again"))
	require.Equal(t, full.store.Hash(), half.store.Hash())
	half.store.Apply(kv.Command{Op: kv.Put, Key: "a", Value: "other"})
	require.Contains(t, run(t, stageOf(half), "restore", "file", "--again").errors, "the key a has another value than in the backup")

	// Of a file that is not whole, nothing is written.
	text, err := os.ReadFile("file")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("part", text[:len(text)-20], 0o600))
	none := &memory{store: kv.NewStore()}
	got = run(t, stageOf(none), "restore", "part")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, "part is no backup that can be used: line 5 is damaged")
	require.Zero(t, none.store.Len())
	require.Contains(t, run(t, stageOf(none), "restore", "nothing").errors, "no such file")
	require.Contains(t, run(t, stageOf(full), "backup", filepath.Join("no", "file")).errors, "no such file or directory")
	left, err := filepath.Glob("*.*")
	require.NoError(t, err)
	require.Empty(t, left, "no file is left over")
}

// A program that uses recover learns what is certain, and how long the log is, as a
// person does.
func TestRecoverSaysWhatIsCertain(t *testing.T) {
	t.Chdir(t.TempDir())
	file, err := cluster.Load(configFor(t, 1, 1))
	require.NoError(t, err)
	config := filepath.Join("data", cluster.ConfigName)
	require.NoError(t, os.MkdirAll(filepath.Join(file.Data(config), "n1"), 0o700))
	require.NoError(t, os.MkdirAll("data", 0o700))
	require.NoError(t, file.Save(config))
	stage := stages["96-disk"]
	stage.Offline = func(node.World) (node.Saved, error) {
		store := kv.NewStore()
		store.Apply(kv.Command{Op: kv.Put, Key: "x", Value: "1"})
		return node.Saved{Store: store, Committed: 5, Last: 9, LastTerm: 3}, nil
	}
	got := run(t, stage, "recover", "1", "file", "--data", "data")
	require.Contains(t, got.errors, "1 key saved to file, as of index 9\nWhat is certain, and what is not:\n  entries 1 to 5 were committed.\n  entries 6 to 9 are in this log")
	require.Contains(t, got.errors, "after entry 9 (term 3) is lost")
	require.Equal(t, result{0, `{"keys":1,"index":9,"committed":5,"term":3}` + "\n", ""}, run(t, stage, "recover", "1", "file", "--force", "--data", "data", "-o", "json"))
}
