package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/film"
)

func TestFilms(t *testing.T) { film.Test(t, scenarios) }
