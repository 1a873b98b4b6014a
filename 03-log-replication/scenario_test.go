package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/scenario"
)

func TestScenarios(t *testing.T) { scenario.Test(t, scenarios) }
