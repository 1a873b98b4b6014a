package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAServerThatHadDataDoesNotStartWithoutIt(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, CheckStarted(dir, 2, false), "nothing is known of it")
	require.NoError(t, NoteStarted(dir, 2))
	require.NoError(t, NoteStarted(dir, 22))
	require.NoError(t, NoteStarted(dir, 2), "again")
	text, err := os.ReadFile(filepath.Join(dir, startedName))
	require.NoError(t, err)
	require.Equal(t, "n2\nn22\n", string(text))

	journal := filepath.Join(dir, "n2", "journal")
	const lost = "n2 has lost its data: there is no "
	require.EqualError(t, CheckStarted(dir, 2, false), lost+journal+" any longer; put its old folder back: the members are fixed, so nothing else brings n2 back")
	require.NoError(t, os.Mkdir(filepath.Dir(journal), 0o700))
	require.EqualError(t, CheckStarted(dir, 2, true), lost+journal+" any longer; put its old folder back, or remove n2 and add a new server with a new number")
	require.NoError(t, os.WriteFile(journal, nil, 0o600))
	require.NoError(t, CheckStarted(dir, 2, false))
	require.NoError(t, CheckStarted(dir, 1, false))

	require.NoError(t, forgetStarted(dir, 2))
	require.NoError(t, forgetStarted(dir, 3))
	text, err = os.ReadFile(filepath.Join(dir, startedName))
	require.NoError(t, err)
	require.Equal(t, "n22\n", string(text))
}

// A supervisor starts the servers that have their data, and not the one that has
// lost it; a command does not either, and what runs goes on.
func TestASupervisorDoesNotStartAServerWithoutItsData(t *testing.T) {
	c := startCluster(t, "good", nil)
	for _, id := range []uint64{1, 2} {
		require.NoError(t, os.MkdirAll(filepath.Join(c.dir, "n1"), 0o700))
		require.NoError(t, NoteStarted(c.dir, id))
	}
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "n1", "journal"), nil, 0o600))
	servers, err := c.do(Command{Do: Restart, IDs: []uint64{1, 2}})
	require.ErrorContains(t, err, "n2 has lost its data: there is no ")
	require.Equal(t, []Server{{ID: 1, State: Running}, {ID: 2, State: Running}}, servers)
	c.must(Kill, 2)
	_, err = c.do(Command{Do: Restart, IDs: []uint64{2}})
	require.ErrorContains(t, err, "n2 has lost its data: there is no ")
	require.Equal(t, Server{ID: 2, State: Killed}, c.must(List)[1])
	require.NoError(t, c.stop())
}

// The others start without it. Without all of them there is nothing to run.
func TestAClusterStartsWithoutAServerThatHasLostItsData(t *testing.T) {
	c := startCluster(t, "good", func(o *Options) { require.NoError(t, NoteStarted(o.Folder.Dir, 2)) })
	require.Equal(t, []Server{{ID: 1, State: Running}, {ID: 2, State: Stopped}, {ID: 3, State: Running}}, c.must(List))
	c.shows("-- | n2 has lost its data: there is no ")
	_, err := c.do(Command{Do: Kill, IDs: []uint64{2}})
	require.EqualError(t, err, "n2 is not running (stopped); bring it back with: kv restart 2")
	_, err = c.do(Command{Do: Cut, IDs: []uint64{2}, Others: []uint64{3}})
	require.NoError(t, err)
	require.NoError(t, c.stop())

	c = startCluster(t, "good", func(o *Options) {
		for id := range uint64(3) {
			require.NoError(t, NoteStarted(o.Folder.Dir, id+1))
		}
	})
	require.ErrorContains(t, <-c.result, "n3 has lost its data")
}
