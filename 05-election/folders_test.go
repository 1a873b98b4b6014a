package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/run/cli"
)

// The folders in testdata are those of three servers: folders as they were before
// disks had incarnations, folders-2 with incarnations, the peers that a server has met,
// and all fields of cluster.json. A change of a format adds folders.
func TestOldFolders(t *testing.T) {
	for _, dir := range []string{"testdata/folders", "testdata/folders-2"} {
		t.Run(dir, func(t *testing.T) {
			cli.TestOldFolder(t, stage, dir)
			scenario.TestFolders(t, scenarios, dir)
		})
	}
}
