package steps

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// alike is how much of two files must be common to call one a copy of the
// other.
const alike = 0.6

// movedFiles finds files that are gone from one place and turn up, more or less,
// in another. It returns the paths, in the earlier stage, of those it found.
func (k *checker) movedFiles(from, to Stage, changes []Change) map[string]bool {
	moved := make(map[string]bool)
	for _, gone := range changes {
		if !gone.Removed() || !source(*gone.Old) {
			continue
		}
		best, at := alike, ""
		for _, fresh := range changes {
			if !fresh.Added() || !source(*fresh.New) {
				continue
			}
			if s := similarity(gone.Old.Data, fresh.New.Data); s >= best {
				best, at = s, fresh.Path
			}
		}
		if at != "" {
			moved[gone.Path] = true
			k.found(in(to, at), 0, "it is %s/%s at another place (%.0f %% alike): leave it where it was, or call it in %s what it is called here",
				from.Name, gone.Path, 100*best, from.Name)
		}
	}
	return moved
}

// source says whether a file can move in a way that hides a lesson.
func source(f File) bool {
	return !f.Testdata() && f.Path != "README.md" && f.Path != "go.sum" && !binary(f.Data)
}

// fewLines is how many lines a file must have to be alike another one by chance
// no more: what all small tests of a package share is not a copy.
const fewLines = 12

// similarity is the share of lines that two texts have in common, from 0 to 1,
// wherever they stand. Lines with next to nothing on them do not count: every
// Go file has those. Two small files are either the same or not alike.
func similarity(a, b []byte) float64 {
	if bytes.Equal(a, b) {
		return 1
	}
	x, y := telling(a), telling(b)
	if min(len(x), len(y)) < fewLines {
		return 0
	}
	count := make(map[string]int)
	for _, line := range x {
		count[line]++
	}
	common := 0
	for _, line := range y {
		if count[line] > 0 {
			count[line]--
			common++
		}
	}
	return float64(2*common) / float64(len(x)+len(y))
}

// telling returns the lines of a text that say something.
func telling(text []byte) []string {
	var out []string
	for _, line := range lines(text) {
		if line = strings.TrimSpace(line); len(line) > 3 {
			out = append(out, line)
		}
	}
	return out
}

// declared is a declaration at the top of a file.
type declared struct {
	// name tells it from all others of its package: "func (Raft) Step".
	name string

	// file is where it stands, line where in it.
	file string
	line int
}

// movedDeclarations finds functions, types, variables and constants that stand
// in another file of their folder than before, or in another order. Files in
// moved are known to have moved as a whole.
func (k *checker) movedDeclarations(from, to Stage, changes []Change, moved map[string]bool) {
	old, now := make(map[string][]declared), make(map[string][]declared)
	for _, c := range changes {
		if !c.file().Go() || moved[c.Path] {
			continue
		}
		dir := c.file().Dir()
		if c.Old != nil {
			old[dir] = append(old[dir], declarations(*c.Old)...)
		}
		if c.New != nil {
			now[dir] = append(now[dir], declarations(*c.New)...)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(old)) {
		was := make(map[string]declared)
		for _, d := range old[dir] {
			was[d.name] = d
		}
		// The declarations that stayed in their file, as the places they had.
		stayed := make(map[string][]kept)
		for _, d := range now[dir] {
			before, ok := was[d.name]
			switch {
			case !ok:
			case before.file != d.file:
				k.found(in(to, d.file), d.line, "%s stood in %s in %s: leave it there, or move it there too", d.name, before.file, from.Name)
			default:
				stayed[d.file] = append(stayed[d.file], kept{before.line, d})
			}
		}
		for _, file := range slices.Sorted(maps.Keys(stayed)) {
			for _, d := range outOfOrder(stayed[file]) {
				k.found(in(to, file), d.line, "%s stands elsewhere in the file than in %s: keep the order of what was there", d.name, from.Name)
			}
		}
	}
}

// kept is a declaration in both stages.
type kept struct {
	// was is its line in the earlier stage.
	was int

	// now is the declaration in the later one.
	now declared
}

// outOfOrder returns the fewest declarations without which the others have kept
// their order.
func outOfOrder(all []kept) []declared {
	// best[i] is the longest run in order that ends with all[i], before[i] the
	// one in front of it.
	best, before := make([]int, len(all)), make([]int, len(all))
	last := -1
	for i := range all {
		best[i], before[i] = 1, -1
		for j := range i {
			if all[j].was <= all[i].was && best[j] >= best[i] {
				best[i], before[i] = best[j]+1, j
			}
		}
		if last < 0 || best[i] > best[last] {
			last = i
		}
	}
	inOrder := make(map[int]bool)
	for i := last; i >= 0; i = before[i] {
		inOrder[i] = true
	}
	var out []declared
	for i, p := range all {
		if !inOrder[i] {
			out = append(out, p.now)
		}
	}
	return out
}

// declarations lists what a file declares; of a file that does not parse,
// nothing: the compiler complains about it.
func declarations(f File) []declared {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, f.Path, f.Data, parser.SkipObjectResolution)
	if err != nil {
		return nil
	}
	var out []declared
	add := func(at token.Pos, kind, name string) {
		if name != "_" && name != "init" {
			out = append(out, declared{kind + " " + name, f.Path, set.Position(at).Line})
		}
	}
	for _, d := range tree.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			add(d.Pos(), receiver(d), d.Name.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Pos(), "type", spec.Name.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						add(name.Pos(), d.Tok.String(), name.Name)
					}
				}
			}
		}
	}
	return out
}

// receiver is "func", with the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return "func"
	}
	typ := d.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return fmt.Sprintf("func (%s)", t.Name)
		default:
			return "func"
		}
	}
}
