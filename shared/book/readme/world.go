package readme

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/core/freeport"
)

// world is the environment of the commands of one README: a copy of the
// repository, stand-ins for programs, free ports.
type world struct {
	// Root is the repository.
	Root string

	// Go is the real go command. It keeps its caches below Home.
	Go, Home string

	// Next is the overlay of the next release; "" if there is none. See Host.
	Next string

	// Pulled is a file that is there once somebody has typed git pull.
	Pulled string

	// Folders has the folder of each machine of the page, by its name.
	Folders map[string]string

	// Stages has the stages that the README names.
	Stages map[string]stage

	// dir is the temporary folder of the world.
	dir string

	// network connects the machines of the page; nil if it has only this one.
	network *network

	// block holds the free ports; nil if the machines have addresses of their own.
	block *freeport.Block

	// ports maps documented ports to free ones; documented maps them back.
	ports, documented map[int]int
}

// stage is a stage's program.
type stage struct {
	// Run is the program as go run would build it, in a folder whose name shows
	// that.
	Run string

	// Built is the same program as go build would write it.
	Built string

	// Next is the program of the next release, if there is one.
	Next string

	// BasePort is what replaces its documented port 70N0.
	BasePort int
}

var stageName = regexp.MustCompile(`\b[0-9]{2}-[a-z0-9-]+\b`)

// newWorld creates a world for the README in a folder, with the stages that its
// commands name, and with the machines of the page, if it has any.
// Programs that are already built may be given by the name of their stage.
func newWorld(ctx context.Context, readmeDir string, commands string, hosts []Host, programs map[string]string) (*world, error) {
	dir, err := os.MkdirTemp("", "readme-")
	if err != nil {
		return nil, err
	}
	// /tmp may be a link; programs print its target.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	w := &world{dir: dir, Pulled: filepath.Join(dir, "pulled"), Home: os.Getenv("HOME"), Stages: make(map[string]stage), ports: make(map[int]int), documented: make(map[int]int)}
	w.Root = root(readmeDir)
	for _, h := range hosts {
		w.Next = cmp.Or(w.Next, h.Next)
	}
	if w.Go, err = exec.LookPath("go"); err != nil {
		return w, err
	}
	for _, name := range stageName.FindAllString(commands, -1) {
		if _, err := os.Stat(filepath.Join(w.Root, name, "go.mod")); err == nil {
			w.Stages[name] = stage{Run: filepath.Join(dir, "go-build", name), Built: filepath.Join(dir, "built", name), Next: filepath.Join(dir, "next", name)}
		}
	}
	if err := errors.Join(w.reserve(hosts == nil), w.copyTree(ctx, commands), w.connect(hosts)); err != nil {
		return w, err
	}
	return w, errors.Join(w.standIns(), w.build(ctx, programs))
}

// root returns the folder with go.work, above the README's or the same.
func root(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.work")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return filepath.Dir(dir)
		}
	}
}

// close removes the files of the world.
func (w *world) close() error {
	if w.block != nil {
		w.block.Close()
	}
	return errors.Join(w.network.close(), os.RemoveAll(w.dir))
}

// reserve finds ports for the stages: free ones, or the documented ones if nobody
// else can use them.
func (w *world) reserve(free bool) error {
	if !free {
		for name, s := range w.Stages {
			number, err := strconv.Atoi(name[:2])
			if err != nil {
				return err
			}
			s.BasePort = 7000 + 10*number
			w.Stages[name] = s
		}
		return nil
	}
	block, err := freeport.Reserve()
	if err != nil {
		return err
	}
	w.block = block
	for name, s := range w.Stages {
		number, err := strconv.Atoi(name[:2])
		if err != nil || number > 8 {
			return fmt.Errorf("stage %s has no ports of its own", name)
		}
		s.BasePort = block.First() + 10*number
		w.Stages[name] = s
		for i := range 10 {
			w.ports[7000+10*number+i] = s.BasePort + i
			w.documented[s.BasePort+i] = 7000 + 10*number + i
		}
	}
	return nil
}

var number = regexp.MustCompile(`\b[0-9]{4,5}\b`)

// replacePorts replaces the numbers that are ports.
func replacePorts(text string, ports map[int]int) string {
	return number.ReplaceAllStringFunc(text, func(digits string) string {
		n, err := strconv.Atoi(digits)
		if to, ok := ports[n]; err == nil && ok {
			return strconv.Itoa(to)
		}
		return digits
	})
}

// current is the folder that commands are run in.
func (w *world) current() string { return filepath.Join(w.dir, "here") }

// build builds the stages. go run keeps the programs that it links in the build
// cache, and go build does not; so the README of the next stage, which runs this
// stage too, does not link it again.
func (w *world) build(ctx context.Context, programs map[string]string) error {
	for _, folder := range []string{"go-build", "built", "next"} {
		if err := os.Mkdir(filepath.Join(w.dir, folder), 0o755); err != nil {
			return err
		}
	}
	for name, s := range w.Stages {
		cmd := exec.CommandContext(ctx, w.Go, "run", "-exec", "cp", ".", s.Run)
		if built, ok := programs[name]; ok {
			cmd = exec.CommandContext(ctx, "cp", built, s.Run)
		}
		cmd.Dir = filepath.Join(w.Root, name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go run in %s: %w\n%s", name, err, out)
		}
		if err := os.Link(s.Run, s.Built); err != nil {
			return err
		}
		if w.Next == "" {
			continue
		}
		cmd = exec.CommandContext(ctx, w.Go, "build", "-overlay", w.Next, "-o", s.Next, ".")
		cmd.Dir = filepath.Join(w.Root, name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build in %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// standIns puts programs first in PATH: scripts that run this test's own binary
// in another role.
func (w *world) standIns() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.file(), data, 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "bin"), 0o755); err != nil {
		return err
	}
	names := []string{"go", "nc", "curl", "scp"}
	if w.Next != "" {
		names = append(names, "git")
	}
	for _, name := range names {
		if err := script(filepath.Join(w.dir, "bin", name), self, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// script writes a program that is this test's binary in another role. first is
// what stands before the program's own arguments.
func script(path, self, role, first string) error {
	text := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s %s\"$@\"\n", roleVariable, role, quote(self), first)
	return os.WriteFile(path, []byte(text), 0o755)
}

// file is where the stand-ins find what they need of the world.
func (w *world) file() string { return filepath.Join(w.dir, "world.json") }

// quote is a text as one word of a shell's command.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// environment is that of the commands: this process's, without what would lead
// them elsewhere.
func (w *world) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "KV_"), strings.HasPrefix(name, "RAFT_"):
		case name == "HOME", name == "PATH", name == "PWD", name == "GOWORK", name == "GOCOVERDIR", name == "ENV", name == "BASH_ENV":
		default:
			env = append(env, v)
		}
	}
	return append(env,
		"PATH="+filepath.Join(w.dir, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"HOME="+filepath.Join(w.dir, "home"),
		"TERM=dumb", "NO_COLOR=1",
		worldVariable+"="+w.file(),
	)
}

// readWorld is for the stand-ins.
func readWorld() (*world, error) {
	data, err := os.ReadFile(os.Getenv(worldVariable))
	if err != nil {
		return nil, err
	}
	w := &world{}
	return w, json.Unmarshal(data, w)
}

// inside says whether this process was started by a README.
func inside() bool {
	_, err := os.Stat(os.Getenv(worldVariable))
	return !errors.Is(err, fs.ErrNotExist)
}
