package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Repo is a work tree of the project.
type Repo struct {
	// Root is the folder of go.work.
	Root string

	// Module is the prefix of all module paths: "example.com/raftsteps".
	Module string
}

// Open finds the repository that contains dir: the nearest folder, from dir
// upwards, that contains a go.work. It must also contain shared/go.mod.
func Open(dir string) (*Repo, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for root := dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.work")); err == nil {
			module, err := modulePath(filepath.Join(root, "shared", "go.mod"))
			if err != nil {
				return nil, err
			}
			return &Repo{Root: root, Module: strings.TrimSuffix(module, "/shared")}, nil
		}
		if root == filepath.Dir(root) {
			return nil, fmt.Errorf("%s is not inside the repository: no folder above it contains a go.work", dir)
		}
	}
}

var moduleLine = regexp.MustCompile(`(?m)^module\s+(\S+)`)

func modulePath(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	m := moduleLine.FindSubmatch(data)
	if m == nil {
		return "", fmt.Errorf("%s has no module line", file)
	}
	return string(m[1]), nil
}

// Stage is one stage of the project.
type Stage struct {
	// Name is the folder: "04-smart-client".
	Name string

	// Dir is the folder's path on this machine.
	Dir string

	// Module is the path that the module must have: that of the repository and
	// the name.
	Module string
}

// Number returns the two digits at the beginning of the stage's name.
func (s Stage) Number() string { return s.Name[:2] }

var stageName = regexp.MustCompile(`^[0-9][0-9]-[a-z0-9-]+$`)

// Stages returns the stages in their order: the folders with a stage's name that
// contain a go.mod and a main.go. A stage that is still being written, and cannot
// be run, does not count.
func (r *Repo) Stages() ([]Stage, error) {
	entries, err := os.ReadDir(r.Root)
	if err != nil {
		return nil, err
	}
	var stages []Stage
	for _, e := range entries {
		dir := filepath.Join(r.Root, e.Name())
		if !e.IsDir() || !stageName.MatchString(e.Name()) {
			continue
		}
		if exists(dir, "go.mod") && exists(dir, "main.go") {
			stages = append(stages, Stage{Name: e.Name(), Dir: dir, Module: r.Module + "/" + e.Name()})
		}
	}
	return stages, nil
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// Stage finds a stage by what the user types: 04, 4, 04-smart-client, or the path
// of its folder, such as ./04-smart-client/.
func (r *Repo) Stage(typed string) (Stage, error) {
	stages, err := r.Stages()
	if err != nil {
		return Stage{}, err
	}
	var names []string
	for _, s := range stages {
		name := strings.Trim(strings.TrimPrefix(filepath.ToSlash(typed), "./"), "/")
		number, err := strconv.Atoi(name)
		if s.Name == name || err == nil && s.Number() == fmt.Sprintf("%02d", number) {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Stage{}, fmt.Errorf("there is no stage %q; there are %s", typed, strings.Join(names, ", "))
}

// File is one file of a stage.
type File struct {
	// Path is relative to the stage's folder, with slashes.
	Path string

	// Data is the content of the file.
	Data []byte
}

// Test reports whether the file is a Go test.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Go reports whether the file is Go source, tests included, outside of folders
// named testdata.
func (f File) Go() bool { return strings.HasSuffix(f.Path, ".go") && !f.Testdata() }

// Testdata reports whether the file is below a folder named testdata.
func (f File) Testdata() bool { return slices.Contains(strings.Split(f.Path, "/"), "testdata") }

// Dir returns the folder of the file, relative to the stage's folder; "." for the
// stage's folder itself.
func (f File) Dir() string { return path.Dir(f.Path) }

// Lesson reports whether the file must be the same in two neighboring stages
// unless the README of the later stage names it.
func (f File) Lesson() bool {
	switch f.Path {
	case "README.md", "go.mod", "go.sum":
		return false
	}
	return !f.Test() && !f.Testdata()
}

// Files returns all files of a stage by path, without hidden files and the files
// that go build and go test create.
func (s Stage) Files() (map[string]File, error) {
	files := make(map[string]File)
	err := filepath.WalkDir(s.Dir, func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if full != s.Dir && leftover(e.Name()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Dir, full)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files[rel] = File{Path: rel, Data: data}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the files of %s: %w", s.Name, err)
	}
	return files, nil
}

// leftover reports whether a file is hidden or is a file that go build and go
// test create.
func leftover(name string) bool {
	switch filepath.Ext(name) {
	case ".test", ".out", ".prof":
		return true
	}
	return strings.HasPrefix(name, ".")
}

// FilesAs returns the files of a stage with the import path of another stage in
// place of its own.
func (s Stage) FilesAs(other Stage) (map[string]File, error) {
	files, err := s.Files()
	if err != nil {
		return nil, err
	}
	for name, f := range files {
		f.Data = rename(f.Data, s.Module, other.Module)
		files[name] = f
	}
	return files, nil
}

// rename replaces a module path by another one, except where the path is only the
// beginning of a longer name.
func rename(data []byte, from, to string) []byte {
	if from == to {
		return data
	}
	var out []byte
	for {
		i := bytes.Index(data, []byte(from))
		if i < 0 {
			return append(out, data...)
		}
		end := i + len(from)
		out = append(out, data[:i]...)
		if end < len(data) && inName(data[end]) {
			out = append(out, from...)
		} else {
			out = append(out, to...)
		}
		data = data[end:]
	}
}

func inName(c byte) bool {
	return c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// README reads the README of a stage or of the repository. If there is none, it
// returns "".
func README(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}
