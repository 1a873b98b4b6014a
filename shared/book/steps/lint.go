package steps

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxLines is the length limit of a function of the rules, from its first line
// to its last: it must fit on a screen.
const maxLines = 40

// maxRules are the limits on the lines of code in raft/ of each stage, counted as
// steps list does: without tests, comments and blank lines.
var maxRules = map[string]int{
	"03": 440, // a log, terms and a commit index: the rules without an election
	"04": 440, // the same: the lesson is in the client and the server
	"05": 630, // and elections and linearizable reads
	"06": 770, // and snapshots
	"07": 960, // and joint consensus, learners and transfers: all the rules, which must be readable in one evening
}

// size checks that the rules of a stage are not longer than their limit.
func (k *checker) size(s Stage) error {
	most, limited := maxRules[s.Number()]
	rings, err := s.Rings()
	if err != nil {
		return err
	}
	for _, r := range rings {
		if r.Name == "raft" && limited && r.Lines > most {
			k.found(in(s, "raft"), 0, "it has %d lines of code, and the limit is %d: say it in fewer lines", r.Lines, most)
		}
	}
	return nil
}

// stage checks the rules for a single stage.
func (k *checker) stage(s Stage) error {
	files, err := s.Files()
	if err != nil {
		return err
	}
	if _, ok := files["README.md"]; !ok {
		k.found(in(s, "README.md"), 0, "the stage has no README")
	}
	var paths []string
	for path, f := range files {
		if f.Go() {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, byReading)
	for _, path := range paths {
		set, tree, err := parse(in(s, path), files[path].Data)
		if err != nil {
			k.found(in(s, path), 0, "it is not Go: %v", err)
			continue
		}
		k.imports(s, files[path], set, tree)
		if rules(path) && !files[path].Test() {
			k.lengths(in(s, path), set, tree)
		}
	}
	return k.size(s)
}

// rules reports whether a file belongs to the inner ring.
func rules(path string) bool {
	return strings.HasPrefix(path, "raft/") || strings.HasPrefix(path, "naive/")
}

func parse(path string, data []byte) (*token.FileSet, *ast.File, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, filepath.Base(path), data, parser.SkipObjectResolution)
	return set, tree, err
}

// imports checks the imports of a file of a stage. Tests may import more.
func (k *checker) imports(s Stage, f File, set *token.FileSet, tree *ast.File) {
	for path, line := range imported(set, tree) {
		shared, inShared := strings.CutPrefix(path, k.repo.Module+"/shared/")
		switch {
		case k.otherStage(path, s):
			k.found(in(s, f.Path), line, "it imports %s: a stage does not import another one", path)
		case f.Test():
		case rules(f.Path) && !standard(path):
			k.found(in(s, f.Path), line, "it imports %s: the rules import the standard library only", path)
		case s.Clustered() && strings.HasPrefix(f.Path, "server/") && inShared && (within(shared, "core/wire") || within(shared, "core/host")):
			k.found(in(s, f.Path), line, "it imports %s: a server does not know the network", path)
		}
	}
}

// imported returns the imports of a file in order, each with its line.
func imported(set *token.FileSet, tree *ast.File) func(func(string, int) bool) {
	return func(yield func(string, int) bool) {
		for _, spec := range tree.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err == nil && !yield(path, set.Position(spec.Pos()).Line) {
				return
			}
		}
	}
}

// standard reports whether an import path is in the standard library: such
// paths have no dot in their first element.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// within reports whether a path is a folder or below it.
func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// otherStage reports whether an import path is in another stage than own.
func (k *checker) otherStage(path string, own Stage) bool {
	below, ok := strings.CutPrefix(path, k.repo.Module+"/")
	name, _, _ := strings.Cut(below, "/")
	return ok && name != own.Name && stageName.MatchString(name)
}

// lengths finds functions that do not fit on a screen.
func (k *checker) lengths(path string, set *token.FileSet, tree *ast.File) {
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		first, last := set.Position(f.Pos()).Line, set.Position(f.End()).Line
		if n := last - first + 1; n > maxLines {
			k.found(path, first, "%s %s is %d lines long: a rule fits on a screen, %d lines", receiver(f), f.Name.Name, n, maxLines)
		}
	}
}

// wings has the folders of shared that contain packages, each with the wings
// that its packages may import. Imports point down only.
var wings = map[string][]string{
	"core": {"core"},
	"lab":  {"core", "lab"},
	"run":  {"core", "lab", "run"},
	"book": {"core", "book"},
	"cmd":  {"core", "lab", "run", "book"},

	// A site is made of what the lab is made of.
	"book/site": {"core", "lab", "book"},
}

// wingOf returns the key of wings for a file: its wing, or its package if that one
// has rules of its own.
func wingOf(path string) string {
	path = strings.TrimPrefix(path, "shared/")
	wing, rest, _ := strings.Cut(path, "/")
	name, _, _ := strings.Cut(rest, "/")
	if _, ok := wings[wing+"/"+name]; ok {
		return wing + "/" + name
	}
	return wing
}

// wing checks one import of a file in shared, tests included.
func (k *checker) wing(path string, line int, to string) {
	to, inShared := strings.CutPrefix(to, k.repo.Module+"/shared/")
	if !inShared {
		return
	}
	from := wingOf(path)
	wing, _, _ := strings.Cut(to, "/")
	if allowed := wings[from]; !slices.Contains(allowed, wing) {
		k.found(path, line, "it imports shared/%s: a package in shared/%s imports %s only", to, from, strings.Join(allowed, ", "))
	}
}

// outsideWings finds the Go files of shared that are in no wing.
func (k *checker) outsideWings(path string) {
	wing, _, below := strings.Cut(strings.TrimPrefix(path, "shared/"), "/")
	if _, ok := wings[wing]; !ok || !below {
		k.found(path, 0, "it is in none of the wings of shared: move it into core, lab, run or book")
	}
}

// shared checks that nothing in shared imports a stage, and that the imports
// between its wings point down.
func (k *checker) shared() error {
	root := filepath.Join(k.repo.Root, "shared")
	err := filepath.WalkDir(root, func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if full != root && (leftover(e.Name()) || e.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(full, ".go") {
			return nil
		}
		data, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(k.repo.Root, full)
		if err != nil {
			return err
		}
		path := filepath.ToSlash(rel)
		k.outsideWings(path)
		set, tree, err := parse(path, data)
		if err != nil {
			k.found(path, 0, "it is not Go: %v", err)
			return nil
		}
		for to, line := range imported(set, tree) {
			if k.otherStage(to, Stage{}) {
				k.found(path, line, "it imports %s: shared knows no stage", to)
			}
			k.wing(path, line, to)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading shared: %w", err)
	}
	return nil
}
