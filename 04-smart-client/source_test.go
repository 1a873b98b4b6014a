package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/source"
)

func TestSource(t *testing.T) { source.Test(t, scenarios) }
