package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/tour"
)

var tours = tour.NewFlags()

func TestTours(t *testing.T) { tour.Test(t, scenarios, tours) }
