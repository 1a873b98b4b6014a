// Package compile makes engines from the source tree: of any stage, with edits to its
// source or without, for this machine or for a browser. It runs the command go and
// changes no file of the tree.
package compile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Tree is the source tree of the project: the folder of go.work.
type Tree string

// Find returns the source tree that a folder is in.
func Find(dir string) (Tree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for root := dir; ; root = filepath.Dir(root) {
		if exists(root, "go.work") && exists(root, "shared/go.mod") {
			return Tree(root), nil
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("%s is not inside the source tree of the stages: no folder above it holds go.work and shared", dir)
		}
	}
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
	return err == nil
}

var stageName = regexp.MustCompile(`^[0-9][0-9]-[a-z0-9-]{1,60}$`)

// Stages returns the names of the stages that have a lab, in their order.
func (t Tree) Stages() ([]string, error) {
	entries, err := os.ReadDir(string(t))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if stageName.MatchString(e.Name()) && exists(string(t), e.Name()+"/scenarios.go") && exists(string(t), e.Name()+"/main.go") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Target is what to build.
type Target struct {
	// Stage is the folder of the stage, and Edits are the changes to its source.
	Stage string
	Edits []string

	// Browser asks for WebAssembly: an engine that exports the function answer.
	// Otherwise it is the program of the stage, whose command "lab --engine" is one.
	Browser bool
}

// String names the target in words.
func (t Target) String() string {
	if len(t.Edits) == 0 {
		return t.Stage
	}
	return t.Stage + " with " + strings.Join(t.Edits, ", ")
}

// browserMain is the program of an engine for browsers.
const browserMain = `// Code generated for the lab; DO NOT EDIT.

package main

import "example.com/raftsteps/shared/lab/engine"

func main() { engine.Export(scenarios) }
`

// small are the flags that make an engine for browsers small, at the cost of some
// speed. Without inlining, the compressed engine is 9 % smaller. Its first film takes
// as long as with inlining, because the browser has less to compile; the later ones
// take a sixth longer. Only Go's runtime is inlined: without that, they would take
// twice as long.
var small = []string{"-ldflags=-s -w", "-gcflags=all=-l", "-gcflags=runtime=", "-gcflags=internal/runtime/...="}

// Build builds a target and writes it to a file.
func (t Tree) Build(ctx context.Context, target Target, out string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", out}
	if target.Browser {
		args = append(args, small...)
	}
	if _, err := t.run(ctx, target, args); err != nil {
		return fmt.Errorf("build %s: %w", target, err)
	}
	return nil
}

// Packages returns the import paths of all packages that a target is made of.
func (t Tree) Packages(ctx context.Context, target Target) ([]string, error) {
	out, err := t.run(ctx, target, []string{"list", "-deps"})
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w", target, err)
	}
	return strings.Fields(string(out)), nil
}

// RunTest compiles the test of a target's main package, runs it in the folder of the
// stage, and returns what it writes.
func (t Tree) RunTest(ctx context.Context, target Target, args ...string) ([]byte, error) {
	temp, err := os.MkdirTemp("", "raftsteps-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) // what may be left there is small
	program := filepath.Join(temp, "stage.test")
	if _, err := t.run(ctx, target, []string{"test", "-trimpath", "-c", "-o", program}); err != nil {
		return nil, fmt.Errorf("build the test of %s: %w", target, err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = filepath.Join(string(t), target.Stage)
	// The tests of a stage tell their processes by a variable to be the stage's program.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RAFTSTEPS") })
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("the test of %s: %w", target, err)
	}
	return out, nil
}

// run runs go for a target, and returns what it writes.
func (t Tree) run(ctx context.Context, target Target, args []string) ([]byte, error) {
	stages, err := t.Stages()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(stages, target.Stage) {
		return nil, noStage(target.Stage, stages)
	}
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("the command go is needed, and it is not in PATH")
	}
	temp, err := os.MkdirTemp("", "raftsteps-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) // what may be left there is small
	overlay, err := t.overlay(target, temp)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, goCommand, slices.Concat(args[:1], []string{"-overlay", overlay}, args[1:], []string{"./" + target.Stage})...)
	cmd.Dir = string(t)
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(string(t), "go.work"))
	if target.Browser {
		cmd.Env = append(cmd.Env, "GOOS=js", "GOARCH=wasm", "CGO_ENABLED=0")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, tail(stderr.String()))
	}
	return stdout.Bytes(), nil
}

func noStage(name string, stages []string) error {
	return fmt.Errorf("there is no stage %.70q; there are %s", name, strings.Join(stages, ", "))
}

// tail returns the end of a long text.
func tail(s string) string {
	const most = 2000
	if s = strings.TrimSpace(s); len(s) > most {
		s = "…" + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
}

// overlay writes the files that replace files of the tree into a folder, and the
// list of them that go reads. It returns the name of the list.
func (t Tree) overlay(target Target, temp string) (string, error) {
	changed, err := t.Apply(target.Stage, target.Edits)
	if err != nil {
		return "", err
	}
	if target.Browser {
		// The command line, and what it alone needs, stays out.
		files, err := filepath.Glob(filepath.Join(string(t), target.Stage, "*.go"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			if name := filepath.Base(file); name != "scenarios.go" {
				changed[target.Stage+"/"+name] = ""
			}
		}
		changed[target.Stage+"/main.go"] = browserMain
	}
	replace := make(map[string]string)
	for name, text := range changed {
		file := ""
		if text != "" {
			file = filepath.Join(temp, strings.ReplaceAll(name, "/", "_"))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return "", err
			}
		}
		replace[filepath.Join(string(t), filepath.FromSlash(name))] = file
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(temp, "overlay.json")
	return name, os.WriteFile(name, list, 0o600)
}

// readFile reads a file of the tree; its name cannot lead out of it.
func (t Tree) readFile(name string) (string, error) {
	text, err := fs.ReadFile(os.DirFS(string(t)), name)
	return string(text), err
}
