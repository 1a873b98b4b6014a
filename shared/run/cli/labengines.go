package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/raftsteps/shared/lab/compile"
	"example.com/raftsteps/shared/lab/engine"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/scenario"
	"example.com/raftsteps/shared/lab/source"
)

// maxEngines is how many engines of other stages and of edited code run at once.
// Another one replaces the least recently used one.
const maxEngines = 6

// labEngines are the engines of a lab: the one in this program, for its own stage,
// and processes for other stages and for edited code. A process is built when the
// first question needs it, from the source tree around the working folder.
type labEngines struct {
	ctx   context.Context
	own   scenario.Stage
	where string // the folder to look for the source tree in

	playing sync.Mutex // a film uses a whole core; one at a time is enough for one person

	mu        sync.Mutex
	processes []*labProcess // in the order of their last question
}

// labProcess is one engine.
type labProcess struct {
	target compile.Target

	// mu is held while it is built and while it answers.
	mu     sync.Mutex
	dir    string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errors *tailWriter
	closed bool
}

func newLabEngines(ctx context.Context, own scenario.Stage) *labEngines {
	return &labEngines{ctx: ctx, own: own, where: "."}
}

// check returns an error if edits do not fit the code of this stage.
func (e *labEngines) check(edits []string) error {
	if len(edits) == 0 {
		return nil
	}
	tree, err := e.tree(e.own.Name)
	if err != nil {
		return err
	}
	_, err = tree.Apply(e.own.Name, edits)
	return err
}

// tree finds the source tree, which other stages and edits need.
func (e *labEngines) tree(stage string) (compile.Tree, error) {
	tree, err := compile.Find(e.where)
	switch {
	case err == nil:
		return tree, nil
	case stage != e.own.Name:
		return "", fmt.Errorf("this program plays only %s; start the lab of %.70s, or start this one inside the source tree: %w", e.own.Name, stage, err)
	}
	return "", fmt.Errorf("an edit changes the source; start the lab inside the source tree: %w", err)
}

// film returns the script of the film that shows what an edit does to this stage.
func (e *labEngines) film(edit string) (film.Script, error) {
	tree, err := e.tree(e.own.Name)
	if err != nil {
		return film.Script{}, err
	}
	if _, err := tree.Apply(e.own.Name, []string{edit}); err != nil {
		return film.Script{}, err
	}
	found, err := tree.Edit(edit)
	if err != nil {
		return film.Script{}, err
	}
	return found.Script(e.own.Name)
}

// source returns the code of a stage with edits; own returns the code of this stage.
// No stage means this one.
func (e *labEngines) source(own func() (*source.Index, error), stage string, edits []string) (*source.Index, error) {
	if (stage == "" || stage == e.own.Name) && len(edits) == 0 {
		return own()
	}
	stage = cmp.Or(stage, e.own.Name)
	tree, err := e.tree(stage)
	if err != nil {
		return nil, err
	}
	files, err := tree.FS(stage, edits)
	if err != nil {
		return nil, err
	}
	return source.Read(files)
}

// answer asks the engine of a stage with edits. No stage means this one.
func (e *labEngines) answer(stage string, edits []string, question []byte) ([]byte, error) {
	if (stage == "" || stage == e.own.Name) && len(edits) == 0 {
		e.playing.Lock()
		defer e.playing.Unlock()
		text, err := engine.Answer(e.own, question)
		if err == nil && string(question) == engine.Describe {
			text = e.withTree(text)
		}
		return text, err
	}
	p := e.process(compile.Target{Stage: stage, Edits: edits})
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := p.answer(e, question)
	var refused refusal
	if err != nil && !errors.As(err, &refused) {
		e.drop(p)
		p.end()
	}
	return text, err
}

// refusal is an engine's error for a script that it does not play. The engine keeps
// running.
type refusal string

func (r refusal) Error() string { return string(r) }

// withTree adds the stages and the edits that fit this one to a description, if there
// is a source tree.
func (e *labEngines) withTree(description []byte) []byte {
	tree, err := e.tree(e.own.Name)
	if err != nil {
		return description
	}
	var more struct {
		Stages []string  `json:"stages"`
		Edits  []labEdit `json:"edits"`
	}
	if more.Stages, err = tree.Stages(); err != nil {
		return description
	}
	if more.Edits, err = e.edits(tree); err != nil {
		return description
	}
	text, err := json.Marshal(more)
	if err != nil {
		return description
	}
	return slices.Concat(description[:len(description)-1], []byte(","), text[1:])
}

// labEdit is what the page gets about an edit.
type labEdit struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// edits returns the edits of a tree that fit this stage.
func (e *labEngines) edits(tree compile.Tree) ([]labEdit, error) {
	all, err := tree.Edits()
	if err != nil {
		return nil, err
	}
	fit := []labEdit{}
	for _, edit := range all {
		if edit.Fits(e.own.Name) {
			fit = append(fit, labEdit{edit.Name, edit.About})
		}
	}
	return fit, nil
}

// complete completes the name of an edit.
func (e *labEngines) complete() (names []string) {
	tree, err := e.tree(e.own.Name)
	if err != nil {
		return nil
	}
	edits, _ := e.edits(tree) // without them, nothing is proposed
	for _, edit := range edits {
		names = append(names, edit.Name)
	}
	return names
}

// process returns the process for a target, which may not have been built yet.
func (e *labEngines) process(target compile.Target) *labProcess {
	e.mu.Lock()
	i := slices.IndexFunc(e.processes, func(p *labProcess) bool {
		return p.target.Stage == target.Stage && slices.Equal(p.target.Edits, target.Edits)
	})
	var oldest *labProcess
	p := &labProcess{target: target}
	if i >= 0 {
		p = e.processes[i]
		e.processes = slices.Delete(e.processes, i, i+1)
	} else if len(e.processes) == maxEngines {
		oldest = e.processes[0]
		e.processes = slices.Delete(e.processes, 0, 1)
	}
	e.processes = append(e.processes, p)
	e.mu.Unlock()
	if oldest != nil {
		oldest.mu.Lock()
		oldest.end()
		oldest.mu.Unlock()
	}
	return p
}

// drop forgets a process, so that the next question builds it again.
func (e *labEngines) drop(p *labProcess) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.processes = slices.DeleteFunc(e.processes, func(other *labProcess) bool { return other == p })
}

// close ends all processes.
func (e *labEngines) close() {
	e.mu.Lock()
	processes := e.processes
	e.processes = nil
	e.mu.Unlock()
	for _, p := range processes {
		p.mu.Lock()
		p.end()
		p.mu.Unlock()
	}
}

// answer sends a question to the process and returns the answer. It builds and starts
// the process first if necessary.
func (p *labProcess) answer(e *labEngines, question []byte) ([]byte, error) {
	if p.closed {
		return nil, fmt.Errorf("the engine of %s has just ended; ask again", p.target)
	}
	if p.cmd == nil {
		if err := p.start(e); err != nil {
			return nil, err
		}
	}
	_, err := p.in.Write(append(question, '\n'))
	var text []byte
	if err == nil {
		text, err = p.out.ReadBytes('\n')
	}
	if err != nil {
		p.end() // afterward, its last output has arrived
		return nil, fmt.Errorf("the engine of %s has ended: %s", p.target, p.errors.text())
	}
	var refused struct{ Error string }
	if bytes.HasPrefix(text, []byte(`{"error":`)) && json.Unmarshal(text, &refused) == nil {
		return nil, refusal(refused.Error)
	}
	return bytes.TrimSpace(text), nil
}

func (p *labProcess) start(e *labEngines) error {
	tree, err := e.tree(p.target.Stage)
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("", "raftsteps-lab-"); err != nil {
		return err
	}
	program := filepath.Join(p.dir, "engine")
	if err := tree.Build(e.ctx, p.target, program); err != nil {
		return err
	}
	args, err := tree.Arguments(p.target.Edits)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(e.ctx, program, args...)
	cmd.WaitDelay = time.Second
	p.errors = &tailWriter{}
	cmd.Stderr = p.errors
	if p.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the engine of %s does not start: %w", p.target, err)
	}
	p.cmd = cmd
	return nil
}

// end kills the process and removes its program. The caller holds mu. A second call
// does nothing.
func (p *labProcess) end() {
	p.closed = true
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended already
		_ = p.cmd.Wait()         // it was killed
		p.cmd = nil
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // it is in the folder for temporary files
		p.dir = ""
	}
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct {
	mu   sync.Mutex
	kept []byte
}

func (w *tailWriter) Write(b []byte) (int, error) {
	const limit = 1000
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, b...)
	if n := len(w.kept); n > limit {
		w.kept = append(w.kept[:0], w.kept[n-limit:]...)
	}
	return len(b), nil
}

func (w *tailWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := strings.TrimSpace(strings.ToValidUTF8(string(w.kept), "")); text != "" {
		return text
	}
	return "it wrote no reason"
}
