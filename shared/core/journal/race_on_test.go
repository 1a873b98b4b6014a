//go:build race

package journal

// stride thins the exhaustive tests out under the race detector: it makes them
// ten times slower and finds nothing in code that has no second goroutine.
const stride = 5
