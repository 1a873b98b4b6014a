package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"example.com/raftsteps/shared/core/transport"
	"github.com/stretchr/testify/require"
)

func open(t *testing.T, o OpenOptions) (*Folder, error) {
	t.Helper()
	if o.Stage == "" {
		o.Stage = "02-test"
	}
	if o.BasePort == 0 {
		o.BasePort = 7020
	}
	f, err := Open(o)
	if err == nil {
		t.Cleanup(func() { f.Close() })
	}
	return f, err
}

// leave makes a data folder with a cluster in it that does not run.
func leave(t *testing.T, o OpenOptions) string {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "data")
	f, err := open(t, o)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return o.Dir
}

func TestOpenMakesANewCluster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f, err := open(t, OpenOptions{Dir: dir, Needs: Needs{Appointed: true}})
	require.NoError(t, err)
	require.True(t, f.Created)
	require.Len(t, f.File.Config.Members, 5)
	require.Equal(t, "127.0.0.1:7025", f.File.Config.Address(5))
	require.EqualValues(t, 1, f.File.Config.Leader)
	loaded, err := Load(f.ConfigPath())
	require.NoError(t, err)
	require.Equal(t, f.File, loaded)
}

func TestOpenGoesOnWithWhatIsThere(t *testing.T) {
	dir := leave(t, OpenOptions{Servers: 3})
	before, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	f, err := open(t, OpenOptions{Dir: dir, BasePort: 9999})
	require.NoError(t, err, "a base port that nobody asked for changes nothing")
	require.False(t, f.Created)
	require.Equal(t, before, f.File)
}

// Who has lost the cluster.json has not lost the data: no other cluster takes its
// place.
func TestOpenMakesNoNewClusterOverTheDataOfAnother(t *testing.T) {
	dir := leave(t, OpenOptions{Servers: 3})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "n2"), 0o755))
	config, kept := filepath.Join(dir, ConfigName), filepath.Join(t.TempDir(), "kept.json")
	require.NoError(t, os.Rename(config, kept))
	_, err := open(t, OpenOptions{Dir: dir})
	require.EqualError(t, err, dir+" holds the data of a cluster (n2), but its cluster.json is missing: put it back, name a copy with --config, "+
		"name another folder with --data, or delete the data with --fresh")
	require.NoFileExists(t, config)

	f, err := open(t, OpenOptions{Dir: dir, Config: kept})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.Remove(config))
	f, err = open(t, OpenOptions{Dir: dir, Fresh: true})
	require.NoError(t, err)
	require.True(t, f.Created)
}

func TestOpenRefusesToChangeWhatIsThere(t *testing.T) {
	dir := leave(t, OpenOptions{Servers: 3})
	_, err := open(t, OpenOptions{Dir: dir, Servers: 5})
	require.ErrorContains(t, err, "has 3 servers, not 5; leave -n out to continue with it, or delete it with --fresh")
	_, err = open(t, OpenOptions{Dir: dir, BasePort: 8000, PortGiven: true})
	require.ErrorContains(t, err, "already has its ports (n1 (127.0.0.1:7021)")
	_, err = open(t, OpenOptions{Dir: dir, PortGiven: true})
	require.NoError(t, err, "the same port is no change")
}

func TestOpenRefusesAnotherStagesData(t *testing.T) {
	dir := leave(t, OpenOptions{})
	for _, fresh := range []bool{false, true} {
		_, err := open(t, OpenOptions{Dir: dir, Stage: "05-election", Fresh: fresh})
		require.ErrorContains(t, err, "holds the data of stage 02-test, but this is 05-election; name another folder with --data")
	}
}

func TestOpenRefusesAnotherClustersData(t *testing.T) {
	dir := leave(t, OpenOptions{})
	present, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	config := writeConfig(t, members(`{"id":1,"address":"127.0.0.1:7099"}`))

	_, err = open(t, OpenOptions{Dir: dir, Config: config})
	require.ErrorContains(t, err, `holds the data of cluster "`+present.Config.Cluster+`"`)
	require.ErrorContains(t, err, `describes cluster "c"; name another folder with --data, or delete the data with --fresh`)

	f, err := open(t, OpenOptions{Dir: dir, Config: config, Fresh: true})
	require.NoError(t, err)
	require.Equal(t, "c", f.File.Config.Cluster)
}

func TestOpenTakesTheConfigurationGiven(t *testing.T) {
	config := writeConfig(t, members(`{"id":4,"address":"127.0.0.1:7099"}`))
	dir := t.TempDir()
	f, err := open(t, OpenOptions{Dir: dir, Config: config})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	loaded, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:7099", loaded.Config.Address(4), "clients look into the folder")

	_, err = open(t, OpenOptions{Dir: dir, Config: config, Servers: 3})
	require.ErrorContains(t, err, "has 1 servers, not 3; leave the number out")
	_, err = open(t, OpenOptions{Dir: dir, Config: config, PortGiven: true})
	require.ErrorContains(t, err, "leave --base-port out")
	_, err = open(t, OpenOptions{Dir: dir, Config: config, Needs: Needs{Appointed: true}})
	require.ErrorContains(t, err, `field "leader" is missing`)
	_, err = open(t, OpenOptions{Dir: dir, Config: filepath.Join(dir, "none.json")})
	require.ErrorContains(t, err, "there is no file")
}

func TestOpenFreshThrowsAwayWhatIsOursAndNothingElse(t *testing.T) {
	dir := leave(t, OpenOptions{})
	before, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	for _, name := range []string{"n1", "n12", "n0", "notes"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "n3"), nil, 0o600))

	f, err := open(t, OpenOptions{Dir: dir, Fresh: true, Servers: 3})
	require.NoError(t, err)
	require.NotEqual(t, before.Config.Cluster, f.File.Config.Cluster)
	require.Len(t, f.File.Config.Members, 3)
	for name, kept := range map[string]bool{"n1": false, "n12": false, "n0": true, "notes": true, "n3": true} {
		if kept {
			_, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err, name)
		} else {
			require.NoDirExists(t, filepath.Join(dir, name))
		}
	}
}

func TestOpenFreshDeletesNothingIfTheNewClusterIsRefused(t *testing.T) {
	dir := leave(t, OpenOptions{})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "n1"), 0o755))
	before, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	_, err = open(t, OpenOptions{Dir: dir, Fresh: true, Servers: MaxServers + 1})
	require.ErrorContains(t, err, "a cluster has 1 to ")
	require.DirExists(t, filepath.Join(dir, "n1"))
	after, err := Load(filepath.Join(dir, ConfigName))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestOpenFreshKeepsTheConfigurationGivenEvenIfItStandsInTheFolder(t *testing.T) {
	dir := leave(t, OpenOptions{})
	path := filepath.Join(dir, ConfigName)
	before, err := Load(path)
	require.NoError(t, err)
	f, err := open(t, OpenOptions{Dir: dir, Config: path, Fresh: true})
	require.NoError(t, err)
	require.Equal(t, before, f.File)
}

func TestOpenRefusesABadConfigurationInTheFolderUnlessFresh(t *testing.T) {
	dir := leave(t, OpenOptions{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, ConfigName), []byte(`{"nonsense":1}`), 0o600))
	_, err := open(t, OpenOptions{Dir: dir})
	require.ErrorContains(t, err, `field "nonsense": unknown field`)
	_, err = open(t, OpenOptions{Dir: dir, Fresh: true})
	require.NoError(t, err)
}

func TestOpenIsForOneAtATime(t *testing.T) {
	dir := t.TempDir()
	f, err := open(t, OpenOptions{Dir: dir})
	require.NoError(t, err)
	_, err = open(t, OpenOptions{Dir: dir, Fresh: true})
	require.ErrorContains(t, err, "a cluster is already running on "+dir)
	require.ErrorContains(t, err, "stop it with ^C in its terminal")
	require.NoError(t, f.Close())
	_, err = open(t, OpenOptions{Dir: dir})
	require.NoError(t, err)
}

func TestOpenRefusesAFolderThatIsAFile(t *testing.T) {
	_, err := open(t, OpenOptions{Dir: writeConfig(t, "")})
	require.ErrorContains(t, err, "the data folder: ")
}

// A folder with somebody else's files is left alone, whatever its names are.
func TestOpenRefusesAFolderThatIsNotOurs(t *testing.T) {
	otherFiles := func(names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			if serverFolder.MatchString(name) {
				require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			} else {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("theirs"), 0o644))
			}
		}
		return dir
	}
	for _, names := range [][]string{{"hosts"}, {"hosts", "n1"}, {"hosts", ConfigName}, {"hosts", "lock"}, {"hosts", controlName}, {".hidden"}} {
		for _, fresh := range []bool{false, true} {
			dir := otherFiles(names...)
			before, err := os.ReadDir(dir)
			require.NoError(t, err)
			_, err = open(t, OpenOptions{Dir: dir, Fresh: fresh})
			require.EqualError(t, err, dir+" is not a data folder: it holds "+names[0]+", which is not a file of a cluster; name another folder with --data")
			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, len(before), len(after), "nothing was changed")
		}
	}

	// What a start has left behind that did not succeed is ours.
	_, err := open(t, OpenOptions{Dir: otherFiles("lock", "cluster.json.tmp123")})
	require.NoError(t, err)
	// So is a folder that a cluster has used, whatever else lies there.
	dir := leave(t, OpenOptions{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes"), nil, 0o644))
	f, err := open(t, OpenOptions{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	// And one whose configuration says that the data is there.
	config := filepath.Join(otherFiles("notes"), "given.json")
	file, err := New("02-test", 1, 7020, 0)
	require.NoError(t, err)
	require.NoError(t, file.Save(config))
	_, err = open(t, OpenOptions{Dir: filepath.Dir(config), Config: config})
	require.NoError(t, err)
}

func TestOpenTakesCompactBytesForANewCluster(t *testing.T) {
	dir := leave(t, OpenOptions{CompactBytes: 65536, Needs: Needs{Compacts: true}})
	f, err := open(t, OpenOptions{Dir: dir, Needs: Needs{Compacts: true}, CompactBytes: 65536})
	require.NoError(t, err)
	require.EqualValues(t, 65536, f.File.Config.CompactBytes)
	require.NoError(t, f.Close())
	_, err = open(t, OpenOptions{Dir: dir, Needs: Needs{Compacts: true}, CompactBytes: 65537})
	require.EqualError(t, err, "the cluster in "+dir+" already has its compact_bytes (see cluster.json there); leave --compact-bytes out to continue with it, or delete it with --fresh")
	_, err = open(t, OpenOptions{Dir: t.TempDir(), Config: filepath.Join(dir, ConfigName), Needs: Needs{Compacts: true}, CompactBytes: 65536})
	require.EqualError(t, err, filepath.Join(dir, ConfigName)+" says when the servers compact their logs; leave --compact-bytes out")
}

func init() { transport.Register("drums", nil) }

func TestOpenTakesTheTransportForANewCluster(t *testing.T) {
	plain, err := Load(filepath.Join(leave(t, OpenOptions{Transport: "tcp"}), ConfigName))
	require.NoError(t, err)
	require.Empty(t, plain.Config.Transport, "tcp is the default, so the file need not say it")
	dir := leave(t, OpenOptions{Transport: "drums"})
	for _, again := range []string{"", "drums"} {
		f, err := open(t, OpenOptions{Dir: dir, Transport: again})
		require.NoError(t, err)
		require.Equal(t, "drums", f.File.Config.Transport)
		require.NoError(t, f.Close())
	}
	_, err = open(t, OpenOptions{Dir: dir, Transport: "tcp"})
	require.EqualError(t, err, "the servers of the cluster in "+dir+` use drums; leave --transport out to continue with it, change "transport" in its cluster.json, or delete it with --fresh`)
	_, err = open(t, OpenOptions{Dir: t.TempDir(), Config: filepath.Join(dir, ConfigName), Transport: "drums"})
	require.EqualError(t, err, filepath.Join(dir, ConfigName)+" says which transport the servers use; leave --transport out")
}
