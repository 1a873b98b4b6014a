package main

import (
	"testing"

	"example.com/raftsteps/shared/cli"
)

func TestLostDisk(t *testing.T) { cli.TestLostDisk(t, stage) }
