package readme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// copyTree copies the repository into the folder in which commands run: the files
// at the top, and the folders that the commands name. A command can change only
// the copy. The reader's own files are not copied.
func (w *world) copyTree(ctx context.Context, commands string) error {
	for _, dir := range []string{w.current(), filepath.Join(w.dir, "home")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	files, err := tracked(ctx, w.Root)
	if err != nil {
		return err
	}
	named := make(map[string]bool)
	for _, name := range files {
		folder, _, below := strings.Cut(name, "/")
		if _, known := named[folder]; !known {
			named[folder] = !below || regexp.MustCompile(`\b`+regexp.QuoteMeta(folder)+`\b`).MatchString(commands)
		}
		if !named[folder] {
			continue
		}
		if err := copyFile(filepath.Join(w.Root, name), filepath.Join(w.current(), name)); err != nil {
			return fmt.Errorf("copying the repository: %w", err)
		}
	}
	return nil
}

// tracked lists the files of the repository: those that git tracks or, without
// git, those in the usual places.
func tracked(ctx context.Context, root string) ([]string, error) {
	git := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z")
	for _, v := range os.Environ() {
		// A git hook sets variables that name its repository.
		if !strings.HasPrefix(v, "GIT_") {
			git.Env = append(git.Env, v)
		}
	}
	if out, err := git.Output(); err == nil && strings.Contains("\x00"+string(out), "\x00go.work\x00") {
		return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), nil
	}
	return untracked(root)
}

// workModule is a line of go.work that names a module's folder.
var workModule = regexp.MustCompile(`(?m)^(?:use)?\s+\./([\w.-]+)\s*$`)

// untracked lists the files of a repository without git: at the top only those
// with a known name, and all files in the modules of go.work.
func untracked(root string) ([]string, error) {
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		return nil, err
	}
	files := []string{"go.work", "README.md", "LICENSE", ".gitignore"}
	for _, m := range workModule.FindAllStringSubmatch(string(work), -1) {
		err := filepath.WalkDir(filepath.Join(root, m[1]), func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir() && strings.HasPrefix(e.Name(), "."):
				return filepath.SkipDir
			case e.Type().IsRegular():
				name, err := filepath.Rel(root, path)
				files = append(files, name)
				return err
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// copyFile copies one file. A missing file was deleted, but git still tracks
// it.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}
