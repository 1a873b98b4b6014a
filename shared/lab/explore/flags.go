package explore

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// long is the flag of that name.
var long = flag.Bool("explore.long", false, "explore: search the long rungs of the ladder too; they take minutes")

// Flags registers the flags of one search, -explore.servers and so on, which set b.
// A test package calls it once, before the flags are parsed.
func Flags(b *Bounds) {
	number := func(name, what string, p *int) { flag.IntVar(p, "explore."+name, *p, "explore: "+what) }
	number("servers", "the number of servers", &b.Servers)
	number("flight", "how many messages may be in flight at once", &b.InFlight)
	number("restarts", "how many restarts", &b.Restarts)
	number("duplicates", "how many messages may arrive twice", &b.Duplicates)
	number("reads", "how many reads", &b.Reads)
	number("states", "end the search at that many states; 0 is no limit", &b.States)
}

// Given reports whether the flags ask for one search in the place of the ladder.
func Given() (given bool) {
	flag.Visit(func(f *flag.Flag) {
		given = given || strings.HasPrefix(f.Name, "explore.") && f.Name != "explore.long"
	})
	return given
}

// Skip says why a rung of the ladder is left out of this run, or returns "".
func Skip(longRung bool) string {
	switch {
	case !longRung:
		return ""
	case Race:
		return "left out of runs with the race detector"
	case !*long:
		return "-explore.long searches this one too"
	}
	return ""
}

// Progress tells a person who waits how far a search is.
func Progress(depth, states, frontier int) {
	if depth%5 == 0 {
		fmt.Fprintf(os.Stderr, "depth %d: %d states, %d of them new\n", depth, states, frontier)
	}
}
