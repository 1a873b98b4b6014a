package main

import (
	"testing"

	"example.com/raftsteps/shared/lab/film"
)

func TestFilms(t *testing.T) { film.Test(t, scenarios) }

func BenchmarkFilm(b *testing.B) { film.Benchmark(b, scenarios) }
