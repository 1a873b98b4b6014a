package main

import (
	"testing"

	"example.com/raftsteps/shared/readme"
)

func TestREADME(t *testing.T) { readme.Test(t, "README.md") }
