package main

import (
	"testing"

	"example.com/raftsteps/shared/run/cli"
)

func TestSecureCluster(t *testing.T) { cli.TestSecureCluster(t, stage) }
