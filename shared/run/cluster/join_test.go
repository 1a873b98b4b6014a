//go:build unix

package cluster

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
)

func TestAddressFor(t *testing.T) {
	at := func(addresses ...string) File {
		var f File
		for i, a := range addresses {
			f.Config.Members = append(f.Config.Members, node.Member{ID: uint64(i + 1), Address: a})
		}
		return f
	}
	for _, c := range []struct {
		file File
		id   uint64
		want string
	}{
		{at("127.0.0.1:7071", "127.0.0.1:7072", "127.0.0.1:7073"), 4, "127.0.0.1:7074"},
		{at("[::1]:7071"), 9, "[::1]:7079"},
		{at("127.0.0.1:7071", "127.0.0.1:7073"), 4, ""},
		{at("a:7071", "b:7072"), 4, ""},
		{at("127.0.0.1:65535"), 2, ""},
		{at("127.0.0.1:7071"), 1 << 40, ""},
	} {
		have, err := c.file.AddressFor(c.id)
		require.Equal(t, c.want, have)
		if c.want == "" {
			require.ErrorContains(t, err, "name its address, host:port")
		} else {
			require.NoError(t, err)
		}
	}
}

// A joiner is written down, and what is not new is refused.
func TestJoin(t *testing.T) {
	f, err := open(t, OpenOptions{Dir: t.TempDir(), Servers: 3, Needs: Needs{Changes: true}})
	require.NoError(t, err)
	require.NoError(t, f.Join(node.Member{ID: 5, Address: "h:5"}))
	require.NoError(t, f.Join(node.Member{ID: 4, Address: "h:4"}))
	require.NoError(t, os.Mkdir(filepath.Join(f.Dir, "n7"), 0o755))
	for _, c := range []struct {
		m    node.Member
		want string
	}{
		{node.Member{ID: 1, Address: "h:1"}, "there is already a server n1, at 127.0.0.1:7021; give the new server a number that no server has had"},
		{node.Member{ID: 5, Address: "h:6"}, "there is already a server n5, at h:5"},
		{node.Member{ID: 6, Address: "h:5"}, "the address h:5 is taken by n5; each server has its own"},
		{node.Member{ID: 6, Address: "127.0.0.1:7022"}, "the address 127.0.0.1:7022 is taken by n2"},
		{node.Member{ID: 6, Address: "7026"}, `"7026" is not host:port`},
		{node.Member{ID: 7, Address: "h:7"}, "n7 already exists, but a new server begins with an empty folder"},
	} {
		require.ErrorContains(t, f.Join(c.m), c.want)
	}
	want := []node.Member{{ID: 4, Address: "h:4"}, {ID: 5, Address: "h:5"}}
	require.Equal(t, want, f.File.Config.Joiners)
	loaded, err := Load(f.ConfigPath())
	require.NoError(t, err)
	require.Equal(t, want, loaded.Config.Joiners)

	require.NoError(t, os.Mkdir(filepath.Join(f.Dir, "n4"), 0o755))
	require.NoError(t, f.Unjoin(4))
	require.NoDirExists(t, filepath.Join(f.Dir, "n4"))
	loaded, err = Load(f.ConfigPath())
	require.NoError(t, err)
	require.Equal(t, want[1:], loaded.Config.Joiners)
}

// A second run knows the joiners, whether it is given a file without them or
// none; a stage whose members are fixed refuses them.
func TestOpenKeepsJoiners(t *testing.T) {
	changes := Needs{Changes: true}
	config := writeConfig(t, members(`{"id":1,"address":"127.0.0.1:7099"}`))
	dir := t.TempDir()
	f, err := open(t, OpenOptions{Dir: dir, Config: config, Needs: changes})
	require.NoError(t, err)
	joiner := node.Member{ID: 2, Address: "127.0.0.1:7098"}
	require.NoError(t, f.Join(joiner))
	require.NoError(t, f.Close())
	for _, given := range []string{config, ""} {
		f, err := open(t, OpenOptions{Dir: dir, Config: given, Needs: changes})
		require.NoError(t, err)
		require.Equal(t, []node.Member{joiner}, f.File.Config.Joiners)
		require.NoError(t, f.Close())
	}
	_, err = open(t, OpenOptions{Dir: dir})
	require.ErrorContains(t, err, `field "joiners": in this stage the members are fixed`)
	clash := writeConfig(t, members(`{"id":1,"address":"127.0.0.1:7099"},{"id":3,"address":"127.0.0.1:7098"}`))
	_, err = open(t, OpenOptions{Dir: dir, Config: clash, Needs: changes})
	require.ErrorContains(t, err, "the address 127.0.0.1:7098 is taken by n3")
	f, err = open(t, OpenOptions{Dir: dir, Needs: changes, Fresh: true})
	require.NoError(t, err)
	require.Empty(t, f.File.Config.Joiners)
}

// withChanges lets members change; the servers look their address up where the
// supervisor writes it.
func withChanges(t *testing.T) func(*Options) {
	return func(o *Options) {
		o.Changes = true
		t.Setenv("RAFTSTEPS_CLUSTER_TEST_CONFIG", o.Folder.ConfigPath())
	}
}

// start asks for a new server on a free port.
func (c *runningCluster) start(id uint64) error {
	_, err := c.do(Command{Do: Start, IDs: []uint64{id}, Address: freePorts(c.t).Address(0)})
	return err
}

// A new server is started, is one of the servers from then on, and so it is in
// the next run.
func TestStartANewServer(t *testing.T) {
	c := startCluster(t, "good", withChanges(t))
	require.NoError(t, c.start(10))
	c.shows("n10 | up with cuts []\n")
	c.shows("--  | n10 was started; it is not a member yet\n")
	require.Equal(t, []Server{{ID: 10, State: Killed}}, c.must(Kill, 10))
	require.Equal(t, []Server{{ID: 10, State: Running}}, c.must(Restart, 10))
	servers, err := c.do(Command{Do: Cut, IDs: []uint64{10}, Others: []uint64{1}})
	require.NoError(t, err)
	require.Equal(t, Server{ID: 10, State: Running, Cut: []uint64{1}}, servers[3])
	require.ErrorContains(t, c.start(10), "there is already a server n10, at 127.0.0.1:")
	_, err = c.do(Command{Do: Kill, IDs: []uint64{9}})
	require.ErrorContains(t, err, "n9 is not a server of this cluster; the servers are n1 (")
	require.ErrorContains(t, err, ", n10 (")
	require.NoError(t, c.stop())

	f, err := open(t, OpenOptions{Dir: c.dir, Needs: Needs{Changes: true}})
	require.ErrorContains(t, err, "a cluster is already running") // this process holds it still
	require.Nil(t, f)
	loaded, err := Load(filepath.Join(c.dir, ConfigName))
	require.NoError(t, err)
	require.Len(t, loaded.Config.Joiners, 1)
	require.Equal(t, uint64(10), loaded.Config.Joiners[0].ID)
}

// Whatever goes wrong with a start, nothing of it is left.
func TestStartThatFails(t *testing.T) {
	c := startCluster(t, "good n4:broken", withChanges(t))
	require.ErrorContains(t, c.start(4), "n4 did not come up: it ended with exit status 1 after it printed: the disk is full of beans")
	_, err := c.do(Command{Do: Start, IDs: []uint64{5}})
	require.ErrorContains(t, err, "the members' ports have no pattern that gives n5 a port; name its address")
	_, err = c.do(Command{Do: Start, IDs: []uint64{5}, Address: "nonsense"})
	require.ErrorContains(t, err, "nonsense")
	_, err = c.do(Command{Do: Start, IDs: []uint64{5, 6}})
	require.ErrorContains(t, err, "start takes the number of one server")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, err = c.do(Command{Do: Start, IDs: []uint64{5}, Address: l.Addr().String()})
	require.ErrorContains(t, err, "n5 cannot listen on "+l.Addr().String()+": another program uses that port; name another address")
	require.Len(t, c.must(List), 3)
	loaded, err := Load(filepath.Join(c.dir, ConfigName))
	require.NoError(t, err)
	require.Empty(t, loaded.Config.Joiners)
	require.NoDirExists(t, filepath.Join(c.dir, "n4"))
	require.NoError(t, c.stop())
}

func TestStartWhereMembersAreFixed(t *testing.T) {
	c := startCluster(t, "good", nil)
	require.EqualError(t, c.start(4), "in this stage the members are fixed: a new server could not join them")
	require.Len(t, c.must(List), 3)
}
