package main

import (
	"testing"

	"example.com/raftsteps/shared/run/cli"
)

func TestLostDisk(t *testing.T) { cli.TestLostDisk(t, stage) }
