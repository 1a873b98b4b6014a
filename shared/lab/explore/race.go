//go:build race

package explore

// Race is true in a binary that looks for data races, in which a search takes
// ten times as long.
const Race = true
