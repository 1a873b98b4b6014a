package main

import (
	"testing"

	"example.com/raftsteps/shared/book/readme"
)

func TestREADME(t *testing.T) { readme.Test(t, "README.md") }
