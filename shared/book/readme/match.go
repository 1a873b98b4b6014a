package readme

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

var (
	// notice matches the message of an interactive shell about a job.
	notice = regexp.MustCompile(`^\[[0-9]+\][+-]?\s`)

	// report matches the message of a shell that is not interactive.
	report = regexp.MustCompile(`^(\S+: line [0-9]+: +[0-9]+ (Terminated|Killed|Interrupt|Hangup|Done)|(Terminated|Killed)$)`)
)

// matchLine reports whether a line matches the README, in which an ellipsis
// matches any text. Space at the ends of lines is ignored.
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

// anything reports whether a line of the README matches any number of lines.
func anything(want string) bool { return strings.TrimSpace(want) == ellipsis }

// prefix returns the length of the shortest prefix of got that matches the
// README.
func prefix(want, got []string) (int, bool) {
	at := ends(want, got)
	i := slices.Index(at, true)
	return i, i >= 0
}

// match reports whether all of got matches the README.
func match(want, got []string) bool { return ends(want, got)[len(got)] }

// hopeless reports whether got cannot match the README, whatever follows.
func hopeless(want, got []string) bool {
	for n := range len(want) + 1 {
		if match(want[:n], got) {
			return false
		}
	}
	return true
}

// ends says for each prefix of got whether it matches the README.
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

// passReports skips the shell's messages about jobs, which may be anywhere.
func passReports(at []bool, got []string) {
	for i, g := range got {
		at[i+1] = at[i+1] || at[i] && report.MatchString(g)
	}
}

// rewrite returns got as the README should show it: lines of the README that
// still match stay, ellipses included, and the rest comes from got.
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

// move is the next step of the best way to turn the README's lines into the new
// text.
type move struct {
	// cost is the cost of this and all later steps. A kept line costs nothing;
	// a replaced, removed or inserted line costs much; a line matched by an
	// ellipsis costs a little, so that lines that could be kept are not matched
	// by an ellipsis.
	cost int

	// want and got are the numbers of lines that the step consumes.
	want, got int

	// keeps is true if the README's line stays, swallows if an ellipsis matches
	// the line of the text.
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

// cheapest returns the best move at one place; the later places are already
// done.
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
