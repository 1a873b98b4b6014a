// Package longtest says how much the tests try.
//
// go test work tries enough to notice that something is broken, and takes less
// than two minutes. With RAFTSTEPS_LONG=1 in the environment, the same tests try
// more: more seeds, every byte instead of every third. It is a variable and not a
// flag, because go test fails in each package that does not define a flag.
package longtest

import (
	"fmt"
	"os"
	"strconv"
)

// variable is the name of the variable.
const variable = "RAFTSTEPS_LONG"

// On reports whether the tests try more than usual.
func On() bool {
	text := os.Getenv(variable)
	on, err := strconv.ParseBool(text)
	if err != nil && text != "" {
		panic(fmt.Sprintf("%s=%q: set it to 1 for long tests, or not at all", variable, text))
	}
	return on
}

// Pick returns what usual or long tests try.
func Pick[T any](usual, long T) T {
	if On() {
		return long
	}
	return usual
}
