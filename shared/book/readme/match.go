package readme

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

var (
	// notice is what only an interactive shell says about jobs.
	notice = regexp.MustCompile(`^\[[0-9]+\][+-]?\s`)

	// report is what a shell that is not interactive says about them.
	report = regexp.MustCompile(`^(\S+: line [0-9]+: +[0-9]+ (Terminated|Killed|Interrupt|Hangup|Done)|(Terminated|Killed)$)`)
)

// matchLine says whether a line is what the README shows, where an ellipsis
// stands for any text. Space at the ends of lines does not count.
func matchLine(want, got string) bool {
	want, got = strings.TrimRight(want, " \t"), strings.TrimRight(got, " \t")
	parts := strings.Split(want, ellipsis)
	if len(parts) == 1 {
		return want == got
	}
	first, last := parts[0], parts[len(parts)-1]
	got, ok := strings.CutPrefix(got, first)
	if !ok {
		return false
	}
	got, ok = strings.CutSuffix(got, last)
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, ok := strings.Cut(got, part)
		if !ok {
			return false
		}
		got = after
	}
	return true
}

// anything says whether a line of the README stands for any number of lines.
func anything(want string) bool { return strings.TrimSpace(want) == ellipsis }

// prefix returns the length of the shortest beginning of got that is what the
// README shows.
func prefix(want, got []string) (int, bool) {
	at := ends(want, got)
	i := slices.Index(at, true)
	return i, i >= 0
}

// match says whether all of got is what the README shows.
func match(want, got []string) bool { return ends(want, got)[len(got)] }

// hopeless says that got is not even the beginning of what the README shows:
// whatever follows, it will not match.
func hopeless(want, got []string) bool {
	for n := range len(want) + 1 {
		if match(want[:n], got) {
			return false
		}
	}
	return true
}

// ends says for each beginning of got whether it is what the README shows.
func ends(want, got []string) []bool {
	at := make([]bool, len(got)+1)
	at[0] = true
	passReports(at, got)
	for _, w := range want {
		if notice.MatchString(w) {
			continue
		}
		next := make([]bool, len(got)+1)
		open := false
		for i := range at {
			open = open || at[i]
			switch {
			case anything(w):
				next[i] = open
			case i < len(got):
				next[i+1] = at[i] && matchLine(w, got[i])
			}
		}
		at = next
		passReports(at, got)
	}
	return at
}

// passReports skips what a shell reports about jobs, which may stand anywhere.
func passReports(at []bool, got []string) {
	for i, g := range got {
		at[i+1] = at[i+1] || at[i] && report.MatchString(g)
	}
}

// rewrite returns got as the README should show it: what it shows already stays
// where it still matches, ellipses included, and the rest is as in got.
func rewrite(want, got []string) []string {
	got = slices.DeleteFunc(slices.Clone(got), report.MatchString)
	table := align(want, got)
	var out []string
	for i, j := 0, 0; i < len(want) || j < len(got); {
		m := table[i][j]
		switch {
		case m.keeps:
			out = append(out, want[i])
		case m.got == 1 && !m.swallows:
			out = append(out, got[j])
		}
		i, j = i+m.want, j+m.got
	}
	return out
}

// move is the best way to go on with making a text out of what the README shows.
type move struct {
	// cost is that of all that follows. A line that stays costs nothing; one
	// that is replaced, taken out or put in costs much; one that an ellipsis
	// swallows costs a little, so that it does not swallow what could stand
	// there as before.
	cost int

	// want and got are how many lines it uses up of each.
	want, got int

	// keeps says that the README's line stays, swallows that an ellipsis
	// stands for the line of the text.
	keeps, swallows bool
}

// The costs of one line.
const (
	changes = 100
	swallow = 1
)

// align finds the best moves: at [i][j] the one for want[i:] and got[j:].
func align(want, got []string) [][]move {
	table := make([][]move, len(want)+1)
	for i := len(want); i >= 0; i-- {
		table[i] = make([]move, len(got)+1)
		for j := len(got); j >= 0; j-- {
			if i < len(want) || j < len(got) {
				table[i][j] = cheapest(want, got, table, i, j)
			}
		}
	}
	return table
}

// cheapest picks the best move at one place; the places behind it are done.
func cheapest(want, got []string, table [][]move, i, j int) move {
	var moves []move
	if i < len(want) && (anything(want[i]) || notice.MatchString(want[i])) {
		moves = append(moves, move{want: 1, keeps: true})
		if j < len(got) && anything(want[i]) {
			moves = append(moves, move{cost: swallow, got: 1, swallows: true})
		}
	} else if i < len(want) {
		if j < len(got) && matchLine(want[i], got[j]) {
			moves = append(moves, move{want: 1, got: 1, keeps: true})
		}
		if j < len(got) {
			moves = append(moves, move{cost: changes, want: 1, got: 1})
		}
		moves = append(moves, move{cost: changes, want: 1})
	}
	if j < len(got) {
		moves = append(moves, move{cost: changes, got: 1})
	}
	for n := range moves {
		moves[n].cost += table[i+moves[n].want][j+moves[n].got].cost
	}
	return slices.MinFunc(moves, func(a, b move) int { return cmp.Compare(a.cost, b.cost) })
}
