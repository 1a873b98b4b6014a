//go:build race

package journal

// stride reduces the exhaustive tests under the race detector, which makes them
// ten times slower and can find nothing in code with one goroutine.
const stride = 5
