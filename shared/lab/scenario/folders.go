// In the browser there are no tests, and testing would be linked in vain.

//go:build !js

package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/lab/sim"
)

// TestFolders starts a cluster of three on the folders n1, n2 and n3 that an
// earlier version of the stage has left in dir, and checks that x is 2 there, as
// it was, that writes are accepted, and that all of it survives a power cut.
//
// To record folders in a new format, start a cluster of three (with a small
// compact_bytes, if the stage compacts), put x 1 and then 2 with other writes in
// between, restart a server, change the members if the stage can, stop the cluster, and
// copy its folder without the lock files. Give cluster.json each field that there is.
func TestFolders(t *testing.T, s Stage, dir string) {
	t.Helper()
	disks := make(map[uint64]*disk.Sim)
	config := node.Config{}
	for id := uint64(1); id <= 3; id++ {
		disks[id] = loadDisk(t, dir, node.Name(id))
		saved, err := journal.Read(disks[id], "journal")
		must(t, err)
		config.Cluster = saved.Header.Cluster
	}
	w, err := sim.New(sim.Options{Seed: 1, Servers: 3, New: s.New, Ops: s.Ops, Config: config,
		Disk: func(id uint64) *disk.Sim { return disks[id] }})
	must(t, err)
	lead(t, s, w, 10)
	expect(t, w, "x", "2")
	insist(t, w, api.Request{Op: "put", Key: "x", Value: "3"})

	w.PowerCut(w.IDs()...)
	for _, id := range w.IDs() {
		must(t, w.Restart(id))
	}
	lead(t, s, w, 20)
	expect(t, w, "x", "3")
	must(t, errors.Join(w.Stops()...))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// loadDisk returns a simulated disk with the files of a folder.
func loadDisk(t *testing.T, dir, name string) *disk.Sim {
	t.Helper()
	d := disk.NewSim(name)
	files, err := os.ReadDir(filepath.Join(dir, name))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, name, file.Name()))
		must(t, err)
		f, err := disk.Replace(d, file.Name(), text)
		must(t, err)
		must(t, f.Close())
	}
	d.Kill() // no file is open
	return d
}

// lead appoints n1 in stages where the operator appoints the leader. Its first
// write commits the older entries (§5.4.2).
func lead(t *testing.T, s Stage, w *sim.World, term uint64) {
	t.Helper()
	if s.Appointed {
		_, err := w.Client(someClient).Do(1, api.Request{Op: api.Lead, Term: term})
		must(t, err)
	}
	insist(t, w, api.Request{Op: "put", Key: "first", Value: "write"})
}

// expect waits until a key has a value on the leader.
func expect(t *testing.T, w *sim.World, key, value string) {
	t.Helper()
	for range 100 {
		w.RunFor(100 * time.Millisecond)
		if answer, err := ask(w, api.Request{Op: "get", Key: key}); err == nil && answer.Value == value {
			return
		}
	}
	t.Fatalf("%s does not become %s", key, value)
}

// insist repeats a request until it succeeds.
func insist(t *testing.T, w *sim.World, q api.Request) {
	t.Helper()
	_, err := ask(w, q)
	must(t, err)
}

func ask(w *sim.World, q api.Request) (api.Response, error) {
	c := w.Client(firstAsker)
	c.Follow, c.Timeout, c.Patience = true, 500*time.Millisecond, leaderTime
	return c.Do(1, q)
}
