package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"example.com/raftsteps/shared/core/pager"
)

const scriptHelp = `steps script plays a script of a stage's rules and prints its story: a claim, then
commands, each followed by what it causes. The scripts are in raft/testdata/scripts.

  script 05                     list the scripts of 05-election
  script 05 figure-8-an-entry   play the script whose name contains this

It runs the stage's test TestScripts. If you have changed a rule and the story
is not the same any longer, it prints the difference.
`

// scripts is where a stage has its scripts.
const scripts = "raft/testdata/scripts"

// script is the command.
func script(ctx context.Context, c *call) error {
	args, err := c.parse(1, 1000)
	if err != nil {
		return err
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	stage, err := repo.Stage(args[0])
	if err != nil {
		return usageError{err}
	}
	dir := filepath.Join(repo.Root, stage.Name)
	names, err := scriptNames(filepath.Join(dir, filepath.FromSlash(scripts)))
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		return usageError{fmt.Errorf("%s has no scripts: its rules have no folder %s", stage.Name, scripts)}
	case len(args) == 1:
		for _, name := range names {
			fmt.Fprintln(c.stdout, name)
		}
		return nil
	}
	name, err := pick(names, args[1:])
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", stage.Name, err)}
	}
	return c.playScript(ctx, dir, name)
}

// scriptNames lists the scripts in a folder, which need not exist.
func scriptNames(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, file := range files {
		if name, ok := strings.CutSuffix(file.Name(), ".txt"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// pick returns the script whose name is the words, joined with hyphens, or the
// only script whose name contains them.
func pick(names, words []string) (string, error) {
	wish := strings.ToLower(strings.TrimSuffix(filepath.Base(strings.Join(words, "-")), ".txt"))
	wish = strings.ReplaceAll(wish, " ", "-")
	var found []string
	for _, name := range names {
		if name == wish {
			return name, nil
		}
		if strings.Contains(name, wish) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no script has %q in its name; leave the name out for a list", wish)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%d scripts have %q in their names: %s", len(found), wish, strings.Join(found, ", "))
}

// playScript runs the test of one script in the folder of its stage. If the test
// passes, the text of the script is the right story, so playScript prints it.
func (c *call) playScript(ctx context.Context, dir, name string) error {
	title := strings.ReplaceAll(name, "-", "_") // package testing writes the name of a subtest like this
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-run", "^TestScripts$/^"+regexp.QuoteMeta(title)+"$", "./raft")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err != nil:
		_, _ = c.stdout.Write(out.Bytes())
		return fmt.Errorf("the story of the script %s has changed, or the stage does not build: see above", name)
	case bytes.Contains(out.Bytes(), []byte("no tests to run")):
		return fmt.Errorf("the test TestScripts of %s does not know the script %s", filepath.Base(dir), name)
	}
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(scripts), name+".txt"))
	if err != nil {
		return err
	}
	return pager.Show(c.stdout, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}
