package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/diagram"
	"example.com/raftsteps/shared/lab/scenario"
)

func TestScenarios(t *testing.T) { scenario.Test(t, scenarios) }

func TestStory(t *testing.T) { diagram.Test(t, scenarios, "missed-message", "testdata/story.svg") }
