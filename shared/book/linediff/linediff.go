// Package linediff compares two texts line by line.
//
// It looks for the most readable difference, which is not always the shortest
// one. Lines that occur exactly once in both texts are anchors: they are
// matched first, as many as keep their order (Bram Cohen's patience diff).
// Between anchors the shortest edit is taken (Myers, "An O(ND) Difference
// Algorithm and Its Variations", 1986). At last a change that may stand at
// several places, as a function added between two that end alike, is moved to
// where it reads best.
package linediff

import (
	"sort"
	"strings"
)

// Op says what happens to a line.
type Op byte

// The operations.
const (
	// Equal: the line is in both texts.
	Equal Op = ' '

	// Delete: the line is only in the old text.
	Delete Op = '-'

	// Insert: the line is only in the new text.
	Insert Op = '+'
)

// Line is one line of a difference.
type Line struct {
	// Op says which of the texts have the line.
	Op Op

	// Old and New are the line's indexes, from 0. Old is meaningless for an
	// Insert, New for a Delete.
	Old, New int

	// Text is the line.
	Text string
}

// Diff returns all lines of both texts, in order. The lines that are Equal or
// Delete are old, those that are Equal or Insert are new. Within a change, the
// deleted lines come first.
func Diff(old, new []string) []Line {
	d := &differ{
		old: make([]int, len(old)),
		new: make([]int, len(new)),
		// One more element than there are lines; the last one is never marked.
		deleted:  make([]bool, len(old)+1),
		inserted: make([]bool, len(new)+1),
	}
	d.number(old, new)
	d.patience(0, len(old), 0, len(new))
	slide(d.deleted, old, gaps(d.inserted))
	slide(d.inserted, new, gaps(d.deleted))
	return d.lines(old, new)
}

// differ is the state of a comparison.
type differ struct {
	// old and new are the texts, each line replaced by a number: equal lines
	// have equal numbers.
	old, new []int

	// deleted and inserted mark the lines without a partner. Both texts have
	// the same number of unmarked lines, which are equal pair by pair.
	deleted, inserted []bool
}

// number replaces each line by a number.
func (d *differ) number(old, new []string) {
	numbers := make(map[string]int)
	for _, side := range []struct {
		text []string
		to   []int
	}{{old, d.old}, {new, d.new}} {
		for i, line := range side.text {
			n, ok := numbers[line]
			if !ok {
				n = len(numbers)
				numbers[line] = n
			}
			side.to[i] = n
		}
	}
}

// patience compares old[i:j] with new[k:l].
func (d *differ) patience(i, j, k, l int) {
	for i < j && k < l && d.old[i] == d.new[k] {
		i, k = i+1, k+1
	}
	for i < j && k < l && d.old[j-1] == d.new[l-1] {
		j, l = j-1, l-1
	}
	if i == j || k == l {
		d.mark(i, j, k, l)
		return
	}
	anchors := d.anchors(i, j, k, l)
	if len(anchors) == 0 {
		d.myers(i, j, k, l)
		return
	}
	for _, a := range anchors {
		d.patience(i, a.old, k, a.new)
		i, k = a.old+1, a.new+1
	}
	d.patience(i, j, k, l)
}

// mark marks all lines of old[i:j] and new[k:l].
func (d *differ) mark(i, j, k, l int) {
	for ; i < j; i++ {
		d.deleted[i] = true
	}
	for ; k < l; k++ {
		d.inserted[k] = true
	}
}

// pair is a line of the old text and its partner in the new one.
type pair struct{ old, new int }

// anchors returns the longest sequence of lines that are unique in old[i:j] and
// in new[k:l] and have the same order in both.
func (d *differ) anchors(i, j, k, l int) []pair {
	// The place of a line: its index, or many.
	const many = -1
	place := func(lines []int, from, to int) map[int]int {
		at := make(map[int]int, to-from)
		for n := from; n < to; n++ {
			if _, seen := at[lines[n]]; seen {
				at[lines[n]] = many
			} else {
				at[lines[n]] = n
			}
		}
		return at
	}
	inOld, inNew := place(d.old, i, j), place(d.new, k, l)
	var unique []pair
	for n := i; n < j; n++ {
		if m, ok := inNew[d.old[n]]; ok && m != many && inOld[d.old[n]] == n {
			unique = append(unique, pair{n, m})
		}
	}

	return increasing(unique)
}

// increasing returns the longest sequence of pairs whose new lines are in order,
// as the old ones are.
func increasing(unique []pair) []pair {
	// ends[n] is the pair with the smallest partner that ends a sequence of n+1
	// pairs; before[p] is the pair in front of p in the best sequence that ends
	// with p.
	var ends []int
	before := make([]int, len(unique))
	for p, u := range unique {
		low := sort.Search(len(ends), func(n int) bool { return unique[ends[n]].new >= u.new })
		before[p] = -1
		if low > 0 {
			before[p] = ends[low-1]
		}
		if low == len(ends) {
			ends = append(ends, p)
		} else {
			ends[low] = p
		}
	}
	if len(ends) == 0 {
		return nil
	}
	sequence := make([]pair, len(ends))
	for n, p := len(ends)-1, ends[len(ends)-1]; n >= 0; n, p = n-1, before[p] {
		sequence[n] = unique[p]
	}
	return sequence
}

// mostEdits bounds the search for a shortest edit between two anchors: its time
// and space grow with the square of the edits. Texts that differ more have so
// little in common that the old text followed by the new one is more readable.
const mostEdits = 2000

// myers marks a shortest edit from old[i:j] to new[k:l].
//
// In the grid with the old lines to the right and the new ones down, a path
// from corner to corner is an edit: a step right deletes, a step down inserts,
// a diagonal step keeps a line. Diagonal number x-y. The paths with so many
// edits that get furthest on each diagonal follow from those with one edit less.
func (d *differ) myers(i, j, k, l int) {
	a, b := d.old[i:j], d.new[k:l]
	n, m := len(a), len(b)

	// reached[e] is how far right the paths of e edits get on the diagonals
	// -e, -e+2, …, e.
	var reached [][]int32
	for edits := 0; ; edits++ {
		if edits > mostEdits {
			d.mark(i, j, k, l)
			return
		}
		ends := make([]int32, edits+1)
		reached = append(reached, ends)
		for slot := range ends {
			x, _ := step(reached, edits, slot)
			y := x - (2*slot - edits)
			for x < n && y < m && a[x] == b[y] {
				x, y = x+1, y+1
			}
			ends[slot] = int32(x)
			if x >= n && y >= m {
				d.backtrack(reached, i, k, slot)
				return
			}
		}
	}
}

// step returns where a path of so many edits enters the diagonal of a slot, and
// whether it gets there by a deletion: from the left neighbour by a step to the
// right, or from the right neighbour by a step down.
func step(reached [][]int32, edits, slot int) (x int, deletes bool) {
	if edits == 0 {
		return 0, false
	}
	before := reached[edits-1]
	if slot == 0 || slot < edits && before[slot-1] < before[slot] {
		return int(before[slot]), false
	}
	return int(before[slot-1]) + 1, true
}

// backtrack marks the edits of the path that ends in the last reached slot.
func (d *differ) backtrack(reached [][]int32, i, k, slot int) {
	for edits := len(reached) - 1; edits > 0; edits-- {
		x, deletes := step(reached, edits, slot)
		y := x - (2*slot - edits)
		if deletes {
			d.deleted[i+x-1] = true
			slot--
		} else {
			d.inserted[k+y-1] = true
		}
	}
}

// gaps returns the places of the marked runs. A place is the number of unmarked
// lines above the run, which has the same meaning in both texts.
func gaps(marked []bool) map[int]bool {
	at, kept := make(map[int]bool), 0
	for _, m := range marked {
		if m {
			at[kept] = true
		} else {
			kept++
		}
	}
	return at
}

// slide moves runs of marked lines to the most readable place. A run may move
// up by one line if the line above it equals its last one, and down likewise:
// the text without the run stays the same. A run that replaces lines of the
// other text stays next to them; others has the places of those lines.
func slide(marked []bool, text []string, others map[int]bool) {
	kept := 0
	for from := 0; from < len(text); from++ {
		if !marked[from] {
			kept++
			continue
		}
		to := from
		for marked[to] {
			to++
		}
		if others[kept] {
			from = to - 1
			continue
		}
		best := bestPlace(marked, text, from, to)
		for n := from; n < to; n++ {
			marked[n] = false
		}
		for n := range to - from {
			marked[best+n] = true
		}
		// The lines that the run moved past are now unmarked.
		next := max(to, best+to-from)
		kept += next - to
		from = next - 1
	}
}

// bestPlace returns where the marked run text[from:to] should begin.
func bestPlace(marked []bool, text []string, from, to int) int {
	size := to - from
	at := from
	for at > 0 && !marked[at-1] && text[at-1] == text[at-1+size] {
		at--
	}
	best, least := from, cost(text, from, to)
	for {
		if c := cost(text, at, at+size); c < least {
			best, least = at, c
		}
		end := at + size
		if end >= len(text) || end >= to && marked[end] || text[at] != text[end] {
			return best
		}
		at++
	}
}

// cost measures how hard it is to read a change text[from:to]: best is one that
// begins and ends at the borders of a paragraph, with little indentation.
func cost(text []string, from, to int) int {
	return split(text, from) + split(text, to)
}

// split returns the cost of a border above text[at].
func split(text []string, at int) int {
	if at == 0 || at == len(text) {
		return 0
	}
	above, below := text[at-1], text[at]
	cost := 10 * indent(below)
	switch {
	case blank(below):
		cost = 10*indent(above) + 6
	case closes(below):
		cost += 8
	}
	if !blank(above) {
		cost += 3
	}
	return cost
}

// indent returns the width of a line's leading white space; 0 for a blank line.
func indent(line string) int {
	return len(line) - len(strings.TrimLeft(line, " \t"))
}

func blank(line string) bool { return strings.TrimSpace(line) == "" }

// closes reports whether a line begins with a closing bracket.
func closes(line string) bool {
	line = strings.TrimSpace(line)
	return line != "" && strings.ContainsRune(")]}", rune(line[0]))
}

// lines builds the difference.
func (d *differ) lines(old, new []string) []Line {
	out := make([]Line, 0, max(len(old), len(new)))
	for i, k := 0, 0; i < len(old) || k < len(new); {
		switch {
		case d.deleted[i]:
			out = append(out, Line{Delete, i, k, old[i]})
			i++
		case d.inserted[k]:
			out = append(out, Line{Insert, i, k, new[k]})
			k++
		default:
			out = append(out, Line{Equal, i, k, old[i]})
			i, k = i+1, k+1
		}
	}
	return out
}

// Hunks splits a difference into the parts with changes, each with up to
// context Equal lines around its changes. Changes that are closer share a hunk.
func Hunks(lines []Line, context int) [][]Line {
	var hunks [][]Line
	from, to := -1, 0
	for i, l := range lines {
		if l.Op == Equal {
			continue
		}
		if from < 0 || i-context > to {
			if from >= 0 {
				hunks = append(hunks, lines[from:to])
			}
			from = max(0, i-context)
		}
		to = min(len(lines), i+1+context)
	}
	if from >= 0 {
		hunks = append(hunks, lines[from:to])
	}
	return hunks
}
