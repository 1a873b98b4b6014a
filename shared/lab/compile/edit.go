package compile

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/film"
)

// editsFolder holds the edits: one file of JSON for each.
const editsFolder = "shared/book/edits"

// Edit is a named change to the source of some stages. It shows what a rule is good
// for: the same story, without the rule.
type Edit struct {
	// Name is the name of its file, without .json.
	Name string `json:"-"`

	// About says in one sentence what changes.
	About string `json:"about"`

	// Changes are carried out in order.
	Changes []Change `json:"changes"`

	// Unchecked are the invariants that are not checked, such as "I10": those that
	// only say that the rule is followed. So the film goes on to the consequence.
	Unchecked []string `json:"unchecked"`

	// Films show the consequence: for each stage that the edit fits, a script,
	// without the names of the stage and of the edit.
	Films map[string]json.RawMessage `json:"films"`
}

// Change replaces a text that a file contains once.
type Change struct {
	// File is the path of the file in the folder of the stage, with slashes.
	File string `json:"file"`

	// Old is replaced by New.
	Old string `json:"old"`
	New string `json:"new"`

	// Stages are the stages that need it; none means all that the edit fits.
	Stages []string `json:"stages"`
}

// Fits reports whether the edit is one for this stage.
func (e Edit) Fits(stage string) bool {
	_, ok := e.Films[stage]
	return ok
}

// Script returns the script of the film that shows the consequence in a stage.
func (e Edit) Script(stage string) (film.Script, error) {
	s, err := film.Decode(e.Films[stage])
	if err != nil {
		return s, fmt.Errorf("the edit %s: the film of %s: %w", e.Name, stage, err)
	}
	s.Stage, s.Edits = stage, []string{e.Name}
	return s, nil
}

var editName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,59}$`)

// Edit reads an edit by its name, which may come from anyone.
func (t Tree) Edit(name string) (Edit, error) {
	if !editName.MatchString(name) {
		return Edit{}, fmt.Errorf("%.70q is no name of an edit", name)
	}
	file := editsFolder + "/" + name + ".json"
	text, err := t.readFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Edit{}, t.noEdit(name)
	} else if err != nil {
		return Edit{}, err
	}
	e := Edit{Name: name}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return Edit{}, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Edit{}, fmt.Errorf("%s: something follows the edit", file)
	}
	if err := e.check(); err != nil {
		return Edit{}, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}

// noEdit says which edits there are instead of one.
func (t Tree) noEdit(name string) error {
	names, err := t.editNames()
	if err != nil {
		return err
	}
	return fmt.Errorf("there is no edit %q; %s holds %s", name, editsFolder, cmp.Or(strings.Join(names, ", "), "none"))
}

// editNames returns the names of all edits, sorted.
func (t Tree) editNames() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(string(t), filepath.FromSlash(editsFolder), "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return files, nil
}

func (e Edit) check() error {
	switch {
	case e.About == "":
		return errors.New("about is missing: say in one sentence what changes")
	case len(e.Changes) == 0:
		return errors.New("changes is missing")
	case len(e.Films) == 0:
		return errors.New("films is missing: give a script for each stage that the edit fits")
	}
	for _, c := range e.Changes {
		if path.Clean(c.File) != c.File || !strings.Contains(c.File, "/") || strings.HasPrefix(c.File, "/") || strings.HasPrefix(c.File, "..") || path.Ext(c.File) != ".go" {
			return fmt.Errorf("file is %q; it must be a file of Go in a folder of the stage, such as raft/raft.go", c.File)
		}
		if c.Old == "" || c.Old == c.New {
			return fmt.Errorf("%s: old is empty, or the same as new", c.File)
		}
	}
	return nil
}

// Edits reads all edits, sorted by name.
func (t Tree) Edits() ([]Edit, error) {
	names, err := t.editNames()
	if err != nil {
		return nil, err
	}
	var edits []Edit
	for _, name := range names {
		e, err := t.Edit(name)
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// Apply carries out edits of a stage, in order. It returns the new text of each file
// that changes, by its path in the tree.
func (t Tree) Apply(stage string, names []string) (map[string]string, error) {
	changed := make(map[string]string)
	for _, name := range names {
		e, err := t.Edit(name)
		if err != nil {
			return nil, err
		}
		if !e.Fits(stage) {
			return nil, fmt.Errorf("the edit %s does not fit %.70s; it fits %s", name, stage, strings.Join(slices.Sorted(maps.Keys(e.Films)), ", "))
		}
		for _, c := range e.Changes {
			if len(c.Stages) > 0 && !slices.Contains(c.Stages, stage) {
				continue
			}
			file := stage + "/" + c.File
			text, ok := changed[file]
			if !ok {
				if text, err = t.readFile(file); err != nil {
					return nil, fmt.Errorf("the edit %s: %w", name, err)
				}
			}
			if n := strings.Count(text, c.Old); n != 1 {
				return nil, fmt.Errorf("the edit %s: %s contains the text %.80q %d times; it must contain it once", name, file, c.Old, n)
			}
			changed[file] = strings.Replace(text, c.Old, c.New, 1)
		}
	}
	return changed, nil
}

// FS returns the files of a stage as they are with some edits.
func (t Tree) FS(stage string, names []string) (fs.FS, error) {
	stages, err := t.Stages()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(stages, stage) {
		return nil, noStage(stage, stages)
	}
	changed, err := t.Apply(stage, names)
	if err != nil {
		return nil, err
	}
	return editedFS{os.DirFS(filepath.Join(string(t), stage)), stage, changed}, nil
}

// editedFS is a folder in which some files have another text.
type editedFS struct {
	fs.FS
	stage   string
	changed map[string]string
}

func (e editedFS) ReadFile(name string) ([]byte, error) {
	if text, ok := e.changed[e.stage+"/"+name]; ok {
		return []byte(text), nil
	}
	return fs.ReadFile(e.FS, name)
}

// Arguments returns what the program of a stage needs after "lab" to be an engine
// that was built with these edits.
func (t Tree) Arguments(names []string) ([]string, error) {
	args := []string{"lab", "--engine"}
	for _, name := range names {
		e, err := t.Edit(name)
		if err != nil {
			return nil, err
		}
		args = append(args, "--edit", name)
		for _, invariant := range e.Unchecked {
			args = append(args, "--unchecked", invariant)
		}
	}
	return args, nil
}
