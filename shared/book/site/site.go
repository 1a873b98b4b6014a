// Package site makes a folder of static files: the lab of every stage, with the
// stage's engine as WebAssembly. Any web server will do.
package site

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	_ "embed"

	"example.com/raftsteps/shared/lab/compile"
	"example.com/raftsteps/shared/lab/engine"
	"example.com/raftsteps/shared/lab/film"
	"example.com/raftsteps/shared/lab/page"
	"example.com/raftsteps/shared/lab/source"
	"example.com/raftsteps/shared/lab/tour"
)

// Options say what to make.
type Options struct {
	// Root is the folder of go.work.
	Root string

	// Out is the folder. It is made if it does not exist; one that holds
	// something else than a site is refused.
	Out string

	// Stages are the stages of the site; none means all that have a lab. Texts say
	// about some of them what they add, and what they cannot survive.
	Stages []string
	Texts  map[string]Text

	// Log takes a line for each stage.
	Log io.Writer
}

// Text is what the first page says about a stage.
type Text struct {
	Adds, Lacks string
}

// list is the file of a site that names all its other files.
const list = "site.json"

// mostFilm is the largest film of edited code, compressed.
const mostFilm = 200 << 10

// description is what the first page and the films need from a stage's description.
type description struct {
	Stage   string
	Stories []struct {
		Name, Claim string
		Survives    bool
	}
}

// stored is a film that the site holds.
type stored struct {
	Script json.RawMessage `json:"script"`
	File   string          `json:"file"`
}

// editText is an edit as the page knows it.
type editText struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// Write makes the site. Everything is built before the first file is written, so an
// error or an interrupt leaves an earlier site as it was.
func Write(ctx context.Context, o Options) error {
	old, err := earlier(o.Out)
	if err != nil {
		return err
	}
	if err := writable(o.Out); err != nil {
		return err
	}
	stages, err := compile.Tree(o.Root).Stages()
	if err != nil {
		return err
	}
	for _, name := range o.Stages {
		if !slices.Contains(stages, name) {
			return fmt.Errorf("%s has no lab; these stages have one: %s", name, strings.Join(stages, ", "))
		}
	}
	if len(o.Stages) == 0 {
		o.Stages = stages
	}
	temp, err := os.MkdirTemp("", "raftsteps-site-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // what may be left there is in the folder for temporary files
	w := writer{Options: o, temp: temp, files: make(map[string][]byte)}
	if w.wasmExec, err = wasmExec(ctx); err != nil {
		return err
	}
	for _, stage := range o.Stages {
		if err := w.stage(ctx, stage); err != nil {
			return err
		}
	}
	if err := w.index(); err != nil {
		return err
	}
	return w.write(old)
}

// earlier returns the files of the site that a folder holds, or an error if it holds
// something else.
func earlier(out string) ([]string, error) {
	if out == "" {
		return nil, errors.New("the folder of the site has no name")
	}
	text, err := os.ReadFile(filepath.Join(out, list))
	switch {
	case err == nil:
		var files []string
		if err := json.Unmarshal(text, &files); err != nil {
			return nil, fmt.Errorf("%s is no list of the files of a site: %w; choose another folder", filepath.Join(out, list), err)
		}
		for _, name := range files {
			if !fs.ValidPath(name) {
				return nil, fmt.Errorf("%s names %.100q, which is no file of a site; choose another folder", filepath.Join(out, list), name)
			}
		}
		return files, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%s is not empty, and it is not a site that this command made; choose another folder, or empty this one", out)
	}
	return nil, nil
}

// writable says why nothing can be written to a folder that may not exist yet. It is
// asked before the engines are built, which takes a while.
func writable(out string) error {
	dir, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	try, err := os.CreateTemp(dir, ".site-*")
	if err != nil {
		return fmt.Errorf("the site cannot be written: %w", err)
	}
	return errors.Join(try.Close(), os.Remove(try.Name()))
}

// wasmExec returns the file of Go that starts a program in a browser.
func wasmExec(ctx context.Context) ([]byte, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js"))
	if err != nil {
		return nil, fmt.Errorf("this installation of Go lacks what starts a program in a browser: %w", err)
	}
	return text, nil
}

// writer gathers the files of a site.
type writer struct {
	Options
	temp     string
	wasmExec []byte
	files    map[string][]byte
	shown    []shownStage
}

func (w *writer) tree() compile.Tree { return compile.Tree(w.Root) }

// stage adds the folder of a stage.
func (w *writer) stage(ctx context.Context, name string) error {
	err := fs.WalkDir(page.Files, ".", func(file string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			w.files[name+"/"+file], err = fs.ReadFile(page.Files, file)
		}
		return err
	})
	if err != nil {
		return err
	}
	w.files[name+"/wasm_exec.js"] = w.wasmExec

	program := filepath.Join(w.temp, name+".wasm")
	if err := w.tree().Build(ctx, compile.Target{Stage: name, Browser: true}, program); err != nil {
		return err
	}
	wasm, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if wasm, err = joinData(wasm); err != nil {
		return fmt.Errorf("the WebAssembly of %s: %w", name, err)
	}
	packed := compress(wasm)
	w.files[name+"/engine.bin"] = packed

	if err := w.source(name, "source.json", nil); err != nil {
		return err
	}
	return w.describe(ctx, name, len(packed))
}

// source adds the code of a stage with some edits.
func (w *writer) source(stage, file string, edits []string) error {
	files, err := w.tree().FS(stage, edits)
	if err != nil {
		return err
	}
	index, err := source.Read(files)
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	w.files[stage+"/"+file], err = json.Marshal(index)
	return err
}

// describe adds the description of a stage, and its films of edited code.
func (w *writer) describe(ctx context.Context, name string, size int) error {
	text, err := w.ask(ctx, compile.Target{Stage: name}, []byte(engine.Describe))
	if err != nil {
		return err
	}
	var about description
	if err := json.Unmarshal(text, &about); err != nil {
		return fmt.Errorf("the description of %s: %w", name, err)
	}
	edits, err := w.tree().Edits()
	if err != nil {
		return err
	}
	shown := shownStage{Name: name, Text: w.Texts[name], Size: fmt.Sprintf("%.1f MB", float64(size)/1e6)}
	films, texts := []stored{}, []editText{}
	for _, edit := range edits {
		if !edit.Fits(name) {
			continue
		}
		script, err := edit.Script(name)
		if err != nil {
			return err
		}
		text, err := w.ask(ctx, compile.Target{Stage: name, Edits: script.Edits}, script.AppendJSON(nil))
		if err != nil {
			return err
		}
		packed := compress(text)
		if len(packed) > mostFilm {
			return fmt.Errorf("the film of %s with the edit %s has %d bytes; %d are allowed: choose a shorter story in the edit", name, edit.Name, len(packed), mostFilm)
		}
		file := edit.Name + ".bin"
		w.files[name+"/"+file] = packed
		if err := w.source(name, edit.Name+".source.json", script.Edits); err != nil {
			return err
		}
		films = append(films, stored{script.AppendJSON(nil), file})
		texts = append(texts, editText{edit.Name, edit.About})
		shown.Films = append(shown.Films, shownLink{name + "/" + fragment(script), edit.Name, edit.About})
	}
	if shown.Tours, err = tours(name); err != nil {
		return err
	}
	for _, s := range about.Stories {
		l := shownLink{name + "/" + fragment(film.Script{Stage: name, Seed: 1, Story: s.Name}), s.Name, s.Claim}
		if s.Survives {
			shown.Survives = append(shown.Survives, l)
		} else {
			shown.Breaks = append(shown.Breaks, l)
		}
	}
	w.shown = append(w.shown, shown)
	more, err := json.Marshal(struct {
		Engine string     `json:"engine"`
		Stages []string   `json:"stages"`
		Edits  []editText `json:"edits"`
		Films  []stored   `json:"films"`
	}{"engine.bin", w.Stages, texts, films})
	if err != nil {
		return err
	}
	w.files[name+"/stage"] = slices.Concat(text[:len(text)-1], []byte(","), more[1:])
	if w.Log != nil {
		fmt.Fprintf(w.Log, "%s: the engine has %s, and %d stories\n", name, shown.Size, len(about.Stories))
	}
	return nil
}

// tours returns the links to the guided tours of a stage.
func tours(stage string) (links []shownLink, err error) {
	all, err := tour.All()
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		if t.Stage == stage {
			links = append(links, shownLink{stage + "/?" + url.Values{"tour": {t.Name}}.Encode(), t.Title, t.About})
		}
	}
	return links, nil
}

// ask asks an engine on this machine one question.
func (w *writer) ask(ctx context.Context, target compile.Target, question []byte) ([]byte, error) {
	program := filepath.Join(w.temp, "engine")
	if err := w.tree().Build(ctx, target, program); err != nil {
		return nil, err
	}
	args, err := w.tree().Arguments(target.Edits)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = bytes.NewReader(append(question, '\n'))
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("the engine of %s: %w: %s", target, err, cmp.Or(strings.TrimSpace(complaint.String()), "it says nothing"))
	}
	out = bytes.TrimSpace(out)
	var failed struct{ Error string }
	if err := json.Unmarshal(out, &failed); err != nil || failed.Error != "" {
		return nil, fmt.Errorf("the engine of %s: %s", target, cmp.Or(failed.Error, fmt.Sprint(err)))
	}
	return out, nil
}

// fragment is the part of a link that holds a script.
func fragment(s film.Script) string {
	return "#" + base64.RawURLEncoding.EncodeToString(s.AppendJSON(nil))
}

// compress packs a file; the same content gives the same bytes.
func compress(b []byte) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is right
	}
	_, _ = z.Write(b) // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// shownStage is a stage on the first page.
type shownStage struct {
	Name, Size              string
	Text                    Text
	Tours                   []shownLink
	Survives, Breaks, Films []shownLink
}

type shownLink struct{ Address, Name, Claim string }

//go:embed index.html
var indexText string

var indexPage = template.Must(template.New("index").Parse(indexText))

func (w *writer) index() error {
	var b bytes.Buffer
	if err := indexPage.Execute(&b, w.shown); err != nil {
		return err
	}
	w.files["index.html"] = b.Bytes()
	return nil
}

// write writes all files, and removes those of the earlier site that are not among
// them.
func (w *writer) write(old []string) error {
	names := make([]string, 0, len(w.files))
	for name := range w.files {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := os.MkdirAll(w.Out, 0o755); err != nil {
		return err
	}
	// The list comes first and names the old files too: whatever happens now, the
	// folder remains a site, and the next run can replace it.
	all := slices.Concat(names, old)
	slices.Sort(all)
	if err := w.writeList(slices.Compact(all)); err != nil {
		return err
	}
	for _, name := range names {
		file := filepath.Join(w.Out, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, w.files[name], 0o644); err != nil {
			return err
		}
	}
	for _, name := range old {
		if _, kept := w.files[name]; kept {
			continue
		}
		file := filepath.Join(w.Out, filepath.FromSlash(name))
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if os.Remove(filepath.Join(w.Out, filepath.FromSlash(dir))) != nil {
				break // it holds other files
			}
		}
	}
	return w.writeList(names)
}

func (w *writer) writeList(names []string) error {
	text, err := json.MarshalIndent(names, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.Out, list), append(text, '\n'), 0o644)
}
