package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/scenario"
)

// The folders in testdata are those of three servers, as they were before disks
// had incarnations.
func TestOldFolders(t *testing.T) { scenario.TestFolders(t, scenarios, "testdata/folders") }
