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

// copyTree copies the repository into the folder that commands are run in. A
// command can change only the copy. What the reader has built or left behind is
// not copied, so no command meets it.
func (w *world) copyTree(ctx context.Context) error {
	for _, dir := range []string{w.current(), filepath.Join(w.dir, "home")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	files, err := tracked(ctx, w.Root)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := copyFile(filepath.Join(w.Root, name), filepath.Join(w.current(), name)); err != nil {
			return fmt.Errorf("copying the repository: %w", err)
		}
	}
	return nil
}

// tracked lists the files of the repository: those that git knows, or without
// git, those in the places that a repository of stages has.
func tracked(ctx context.Context, root string) ([]string, error) {
	git := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z")
	for _, v := range os.Environ() {
		// A hook of git says which repository it runs for.
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

// untracked lists the files of a repository that git does not know: of the top
// only those with a known name, and all in the modules of go.work.
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

// copyFile copies one file. A file that is not there was deleted, and git has not
// been told yet.
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
