package main

import (
	"testing"

	"example.com/raftsteps/shared/run/cli"
)

func TestMain(m *testing.M) { cli.RunTests(m, stage) }

func TestDemo(t *testing.T) { cli.TestDemo(t, stage) }

func TestLab(t *testing.T) { cli.TestLab(t, stage) }
