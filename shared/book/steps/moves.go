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

// alike is the similarity from which one file counts as a copy of another.
const alike = 0.6

// movedFiles finds files that disappear in one place and appear, almost
// unchanged, in another. It returns their paths in the earlier stage.
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

// source reports whether a moved file would make a diff hard to read.
func source(f File) bool {
	return !f.Testdata() && f.Path != "README.md" && f.Path != "go.sum" && !binary(f.Data)
}

// fewLines is the number of lines below which similar files are not copies: all
// small tests of a package have common lines.
const fewLines = 12

// similarity returns the share of common lines of two texts, from 0 to 1, in
// any order. Almost empty lines do not count: every Go file has them. Two small
// files are either equal or not similar.
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

// telling returns the lines of a text that are not almost empty.
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
	// name is unique in its package: "func (Raft) Step".
	name string

	// file and line are its place.
	file string
	line int
}

// movedDeclarations finds functions, types, variables and constants that are in
// another file of their folder than before, or in another order. Files in moved
// have moved as a whole.
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
				k.found(in(to, d.file), d.line, "%s was in %s in %s: leave it there, or move it there too", d.name, before.file, from.Name)
			default:
				stayed[d.file] = append(stayed[d.file], kept{before.line, d})
			}
		}
		for _, file := range slices.Sorted(maps.Keys(stayed)) {
			for _, d := range outOfOrder(stayed[file]) {
				k.found(in(to, file), d.line, "%s is at another place in the file than in %s: keep the order of the earlier stage", d.name, from.Name)
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
	// best[i] is the length of the longest ordered run that ends with all[i];
	// before[i] is the previous element of that run.
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

// declarations lists the declarations of a file. It returns none for a file
// with syntax errors, which the compiler reports.
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
