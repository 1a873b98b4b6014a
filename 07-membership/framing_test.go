package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/framing"
)

// The messages between the servers go through the real transports, whose frames the
// simulator loses, repeats, reorders and changes.
func TestFraming(t *testing.T) { framing.Test(t, scenarios) }
