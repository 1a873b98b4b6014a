//go:build race

package journal

// stride reduces the exhaustive tests under the race detector: it makes them ten
// times slower and finds nothing in code that has no second goroutine.
const stride = 5
