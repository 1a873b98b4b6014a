package steps

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// goMod is the content of go.mod, as the go command prints it.
type goMod struct {
	Module    struct{ Path string }
	Go        string
	Toolchain string
	Require   []struct{ Path, Version string }
	Exclude   []struct{ Path, Version string }
	Replace   []struct {
		Old, New struct{ Path, Version string }
	}
}

// mod reads the go.mod of a folder, once.
func (k *checker) mod(dir string) (goMod, error) {
	mod, ok := k.mods[dir]
	if ok {
		return mod, nil
	}
	err := goJSON(dir, &mod, "mod", "edit", "-json", filepath.Join(dir, "go.mod"))
	k.mods[dir] = mod
	return mod, err
}

// replaces returns the replacements, each as one text.
func (m goMod) replaces() []string {
	var out []string
	for _, r := range m.Replace {
		out = append(out, strings.Join(strings.Fields(fmt.Sprintf("%s %s => %s %s", r.Old.Path, r.Old.Version, r.New.Path, r.New.Version)), " "))
	}
	slices.Sort(out)
	return out
}

// excludes returns the exclusions, each as one text.
func (m goMod) excludes() []string {
	var out []string
	for _, e := range m.Exclude {
		out = append(out, e.Path+" "+e.Version)
	}
	slices.Sort(out)
	return out
}

// work is the content of go.work.
type work struct {
	// uses are its folders, as it names them: "./shared".
	uses []string
}

func goWork(root string) (work, error) {
	var w struct {
		Use []struct{ DiskPath string }
	}
	if err := goJSON(root, &w, "work", "edit", "-json", filepath.Join(root, "go.work")); err != nil {
		return work{}, err
	}
	var out work
	for _, u := range w.Use {
		out.uses = append(out.uses, "./"+path.Clean(filepath.ToSlash(u.DiskPath)))
	}
	return out, nil
}

// goJSON runs the go command in a folder and decodes its output.
func goJSON(dir string, into any, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// goMod describes how the go.mod files of two stages differ, or returns "". The
// module's own path does not count. Modules that are required indirectly or
// only by tests do not count either: they follow from the imports. But if both
// stages require a module, they must require the same version.
func (k *checker) goMod(from, to Stage) (string, error) {
	a, err := k.mod(from.Dir)
	if err != nil {
		return "", err
	}
	b, err := k.mod(to.Dir)
	if err != nil {
		return "", err
	}
	olds, err := from.needs(a)
	if err != nil {
		return "", err
	}
	news, err := to.needs(b)
	if err != nil {
		return "", err
	}
	var differ []string
	versions := make(map[string]string)
	for _, r := range a.Require {
		versions[r.Path] = r.Version
	}
	for _, r := range b.Require {
		if v, ok := versions[r.Path]; ok && v != r.Version {
			differ = append(differ, fmt.Sprintf("it requires %s %s instead of %s", r.Path, r.Version, v))
		}
	}
	for _, path := range news {
		if !slices.Contains(olds, path) {
			differ = append(differ, "it requires "+path)
		}
	}
	for _, path := range olds {
		if !slices.Contains(news, path) {
			differ = append(differ, "it does not require "+path)
		}
	}
	if !slices.Equal(a.replaces(), b.replaces()) {
		differ = append(differ, "it replaces other modules")
	}
	if !slices.Equal(a.excludes(), b.excludes()) {
		differ = append(differ, "it excludes other modules")
	}
	return strings.Join(differ, ", "), nil
}

// needs returns the modules that a stage's go.mod requires and its code imports
// by itself, tests left aside.
func (s Stage) needs(mod goMod) ([]string, error) {
	files, err := s.Files()
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for path, f := range files {
		if !f.Go() || f.Test() {
			continue
		}
		set, tree, err := parse(path, f.Data)
		if err != nil {
			// The stage's own check reports it.
			continue
		}
		for to := range imported(set, tree) {
			for _, r := range mod.Require {
				if within(to, r.Path) {
					used[r.Path] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(used)), nil
}
