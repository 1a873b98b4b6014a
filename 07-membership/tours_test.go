package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/tour"
)

var tours = tour.Flag()

func TestTours(t *testing.T) { tour.Test(t, scenarios, *tours) }
