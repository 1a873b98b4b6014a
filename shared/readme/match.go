package readme

import (
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
	// cost[i][j] is the least cost of making got[j:] out of want[i:]. A line
	// that stays costs nothing, one that is replaced, taken out or put in
	// costs; what an ellipsis swallows costs little, but so that it does not
	// swallow what could stand there as before.
	const change, swallow = 100, 1
	cost := make([][]int, len(want)+1)
	move := make([][]byte, len(want)+1)
	for i := len(want); i >= 0; i-- {
		cost[i], move[i] = make([]int, len(got)+1), make([]byte, len(got)+1)
		for j := len(got); j >= 0; j-- {
			best, how := int(^uint(0)>>1), byte(0)
			try := func(c int, m byte) {
				if c < best {
					best, how = c, m
				}
			}
			if i == len(want) && j == len(got) {
				best = 0
			}
			if i < len(want) {
				keeps := anything(want[i]) || notice.MatchString(want[i])
				if keeps {
					try(cost[i+1][j], 'k')
				}
				if keeps && anything(want[i]) && j < len(got) {
					try(cost[i][j+1]+swallow, 's')
				}
				if !keeps && j < len(got) && matchLine(want[i], got[j]) {
					try(cost[i+1][j+1], '=')
				}
				if !keeps && j < len(got) {
					try(cost[i+1][j+1]+change, 'r')
				}
				if !keeps {
					try(cost[i+1][j]+change, '-')
				}
			}
			if j < len(got) {
				try(cost[i][j+1]+change, '+')
			}
			cost[i][j], move[i][j] = best, how
		}
	}
	var out []string
	for i, j := 0, 0; i < len(want) || j < len(got); {
		switch move[i][j] {
		case 'k':
			out = append(out, want[i])
			i++
		case 's':
			j++
		case '=':
			out = append(out, want[i])
			i, j = i+1, j+1
		case 'r':
			out = append(out, got[j])
			i, j = i+1, j+1
		case '-':
			i++
		case '+':
			out = append(out, got[j])
			j++
		}
	}
	return out
}
