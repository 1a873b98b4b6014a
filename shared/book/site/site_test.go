package site

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/compile"
	"example.com/raftsteps/shared/lab/film"
)

// long asks for the tests that build all engines.
var long = flag.Bool("site.long", false, "build the whole site, and compare its engines with those of this machine")

// unwanted are packages, with those in their folders, that have no use in a browser
// or that make each engine several percent larger.
var unwanted = []string{"net/http", "testing", "os/exec", "crypto", "log", "regexp", "math/big", "text/template", "github.com/prometheus", "example.com/raftsteps/shared/run"}

// An engine for browsers holds nothing of the command line and of the network.
func TestEnginesHoldNoNetwork(t *testing.T) {
	tree, err := compile.Find(".")
	require.NoError(t, err)
	stages, err := tree.Stages()
	require.NoError(t, err)
	require.NotEmpty(t, stages)
	for _, stage := range stages {
		packages, err := tree.Packages(t.Context(), compile.Target{Stage: stage, Browser: true})
		require.NoError(t, err)
		require.Contains(t, packages, "example.com/raftsteps/shared/lab/engine")
		for _, p := range packages {
			if p == "net" || slices.ContainsFunc(unwanted, func(u string) bool { return p == u || strings.HasPrefix(p, u+"/") }) {
				t.Errorf("%s: %s is linked into the engine for browsers", stage, p)
			}
		}
	}
}

func TestWriteReplacesOnlyASite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "site")
	old, err := earlier(out)
	require.NoError(t, err)
	require.Empty(t, old)
	w := writer{Options: Options{Out: out}, files: map[string][]byte{"index.html": []byte("1"), "02-a/stage": []byte("{}"), "02-a/main.js": nil}}
	require.NoError(t, w.write(old))

	// What somebody puts there is not the site's, and stays.
	require.NoError(t, os.WriteFile(filepath.Join(out, "CNAME"), []byte("example.com"), 0o600))
	old, err = earlier(out)
	require.NoError(t, err)
	require.Equal(t, []string{"02-a/main.js", "02-a/stage", "index.html"}, old)
	w.files = map[string][]byte{"index.html": []byte("2"), "03-b/stage": []byte("{}")}
	require.NoError(t, w.write(old))
	var names []string
	require.NoError(t, filepath.WalkDir(out, func(name string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(out, name)
		names = append(names, filepath.ToSlash(rel))
		return err
	}))
	require.Equal(t, []string{".", "03-b", "03-b/stage", "CNAME", "index.html", "site.json"}, names)
	text, err := os.ReadFile(filepath.Join(out, "index.html"))
	require.NoError(t, err)
	require.Equal(t, "2", string(text))
}

func TestWriteRefusesAFolderOfOthers(t *testing.T) {
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "thesis.tex"), []byte("x"), 0o600))
	require.ErrorContains(t, Write(t.Context(), Options{Root: ".", Out: full}), "is not empty, and it is not a site that this command made")

	for text, why := range map[string]string{
		"{":                   "is no list of the files of a site",
		`["../thesis.tex"]`:   `names "../thesis.tex", which is no file of a site`,
		`["/etc/passwd"]`:     `names "/etc/passwd"`,
		`["a/../../thesis"]`:  `which is no file of a site`,
		`{"name": "package"}`: "is no list of the files of a site",
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, list), []byte(text), 0o600))
		require.ErrorContains(t, Write(t.Context(), Options{Root: ".", Out: dir}), why)
	}
	require.ErrorContains(t, Write(t.Context(), Options{Root: "../../..", Out: t.TempDir(), Stages: []string{"00-kvserver"}}), "00-kvserver has no lab; these stages have one: 02-naive-replication, ")
	file := filepath.Join(full, "thesis.tex")
	require.ErrorContains(t, Write(t.Context(), Options{Root: ".", Out: filepath.Join(file, "site")}), "not a directory")
	require.Error(t, Write(t.Context(), Options{Root: ".", Out: file}))
	require.ErrorContains(t, Write(t.Context(), Options{Root: "."}), "has no name")
}

// An interrupt leaves what was there.
func TestWriteEndsWhenItIsInterrupted(t *testing.T) {
	out := filepath.Join(t.TempDir(), "site")
	w := writer{Options: Options{Out: out}, files: map[string][]byte{"index.html": []byte("1")}}
	require.NoError(t, w.write(nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Write(ctx, Options{Root: "../../..", Out: out}), context.Canceled)
	text, err := os.ReadFile(filepath.Join(out, "index.html"))
	require.NoError(t, err)
	require.Equal(t, "1", string(text))
}

// runner answers questions with an engine as a browser would: one line for each
// line of a file, the hash of the answer.
const runner = `
const fs = require('fs'), zlib = require('zlib'), crypto = require('crypto');
const [folder, questions] = process.argv.slice(2);
require(folder + '/wasm_exec.js');
(async () => {
  const go = new Go();
  const { instance } = await WebAssembly.instantiate(zlib.gunzipSync(fs.readFileSync(folder + '/engine.bin')), go.importObject);
  go.run(instance);
  for (const line of fs.readFileSync(questions, 'utf8').trim().split('\n')) console.log(crypto.createHash('sha256').update(answer(line)).digest('hex'));
  process.exit();
})().catch((err) => { console.error(err); process.exit(1); });
`

// links checks what a page does with the hash that a link carries.
const links = `
globalThis.location = { search: '', pathname: '/' };
const link = await import(process.argv[2] + '/link.js');
const script = { stage: '05-election', seed: 7 };
const plain = link.address(script);
link.played(script, '0123456789abcdef');
const carried = link.address(script, '12');
console.log(JSON.stringify([plain.includes('.'), link.run(plain.slice(1)), carried.startsWith('/?step=12#'), link.run('#' + carried.split('#')[1]), link.decode('#' + carried.split('#')[1]), link.run('#abc.0123'), link.run('')]));
`

// completed checks that a page adds to films what they leave out: it counts the
// events that are not as they were.
const completed = `
globalThis.location = { search: '', pathname: '/' };
const { Film } = await import(process.argv[2] + '/film.js');
const fs = await import('node:fs');
const sorted = (e) => JSON.stringify(Object.entries(e).sort());
let events = 0, wrong = 0;
for (const line of fs.readFileSync(process.argv[3], 'utf8').trim().split('\n')) {
  const { film, all } = JSON.parse(line);
  const got = JSON.parse(JSON.stringify(new Film(film).events));
  events += got.length;
  if (got.length !== all.length) wrong++;
  all.forEach((e, i) => { if (sorted(e) !== sorted(got[i])) { wrong++; console.error(sorted(e), sorted(got[i])); } });
}
console.log(JSON.stringify([events, wrong]));
`

// randomFilms returns films of events that often say the same, each on a line with
// all its events as they are.
func randomFilms() (text []byte, events int) {
	random := rand.New(rand.NewPCG(3, 4))
	few := func() uint64 { return 1 + random.Uint64N(3) }
	for range 200 {
		var f film.Film
		var at time.Duration
		var step uint64
		for range 50 {
			at += time.Duration(random.IntN(2))
			step += random.Uint64N(2)
			e := trace.Event{At: at, Step: step, Message: fmt.Sprintf(`{"id":%d}`, few())}
			switch e.Kind = []trace.Kind{trace.Send, trace.Deliver, trace.Drop, trace.Apply, trace.Invoke, trace.Request, trace.Reply, trace.Return, trace.Note}[random.IntN(9)]; e.Kind {
			case trace.Send, trace.Deliver, trace.Drop:
				e.Node, e.From, e.To, e.Number = few(), few(), few(), few()-1
			case trace.Apply:
				e.Node, e.Index = few(), few()-1
			default:
				e.Client = few()
			}
			f.Events = append(f.Events, e)
		}
		events += len(f.Events)
		text = f.AppendJSON(append(text, `{"film":`...))
		text = append(strict.AppendArray(text, "all", f.Events, func(b []byte, e trace.Event) []byte { return e.AppendJSON(b) }), "}\n"...)
	}
	return text, events
}

// TestCarriers makes the whole site, and compares its engines with those of this
// machine: the same scripts must give the same films, byte by byte.
func TestCarriers(t *testing.T) {
	if !*long {
		t.Skip("it builds all engines; -site.long runs it")
	}
	node, err := exec.LookPath("node")
	require.NoError(t, err, "this test runs WebAssembly with Node: install the package nodejs")
	tree, err := compile.Find(".")
	require.NoError(t, err)
	var log bytes.Buffer
	out := filepath.Join(t.TempDir(), "site")
	require.NoError(t, Write(t.Context(), Options{Root: string(tree), Out: out, Log: &log}))
	t.Log(log.String())
	stages, err := tree.Stages()
	require.NoError(t, err)

	for _, stage := range stages {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(out, stage)
			packed, err := os.ReadFile(filepath.Join(folder, "engine.bin"))
			require.NoError(t, err)
			require.Less(t, len(packed), mostEngine, "the engine is too large to load")

			var questions bytes.Buffer
			var about description
			text, err := os.ReadFile(filepath.Join(folder, "stage"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(text, &about))
			for _, s := range about.Stories {
				fmt.Fprintf(&questions, "%s\n", film.Script{Stage: stage, Seed: 3, Story: s.Name, Steps: 3000}.AppendJSON(nil))
			}
			for seed := range uint64(100) {
				fmt.Fprintf(&questions, "%s\n", film.Random(stage, seed).AppendJSON(nil))
			}
			fmt.Fprintln(&questions, `{"stage":"elsewhere","seed":1}`)

			program := filepath.Join(t.TempDir(), "engine")
			require.NoError(t, tree.Build(t.Context(), compile.Target{Stage: stage}, program))
			native := exec.CommandContext(t.Context(), program, "lab", "--engine")
			native.Stdin = bytes.NewReader(questions.Bytes())
			answers, err := native.Output()
			require.NoError(t, err)
			want := hashes(t, answers)
			require.Greater(t, len(want), 100)

			script, file := filepath.Join(t.TempDir(), "runner.cjs"), filepath.Join(t.TempDir(), "questions")
			require.NoError(t, os.WriteFile(script, []byte(runner), 0o600))
			require.NoError(t, os.WriteFile(file, questions.Bytes(), 0o600))
			browser := exec.CommandContext(t.Context(), node, script, folder, file)
			var complaint bytes.Buffer
			browser.Stderr = &complaint
			got, err := browser.Output()
			require.NoError(t, err, complaint.String())
			lines := strings.Split(questions.String(), "\n")
			for i, hash := range strings.Fields(string(got)) {
				require.Equal(t, want[i], hash, "WebAssembly plays another film of %s", lines[i])
			}
			require.Len(t, strings.Fields(string(got)), len(want))
		})
	}
	t.Run("served", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.FileServer(http.Dir(out)))
		defer server.Close()
		for _, name := range append([]string{""}, stages...) {
			r, err := http.Get(server.URL + "/" + name)
			require.NoError(t, err)
			text, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.NoError(t, r.Body.Close())
			require.Equal(t, http.StatusOK, r.StatusCode)
			require.Contains(t, string(text), "<!doctype html>")
		}
	})
	t.Run("stored", func(t *testing.T) {
		t.Parallel()
		verdicts := make(map[string]string)
		for _, stage := range stages {
			text, err := os.ReadFile(filepath.Join(out, stage, "stage"))
			require.NoError(t, err)
			var about struct{ Films []stored }
			require.NoError(t, json.Unmarshal(text, &about))
			for _, f := range about.Films {
				packed, err := os.ReadFile(filepath.Join(out, stage, f.File))
				require.NoError(t, err)
				z, err := gzip.NewReader(bytes.NewReader(packed))
				require.NoError(t, err)
				var shown struct {
					Script  json.RawMessage
					Verdict string
				}
				require.NoError(t, json.NewDecoder(z).Decode(&shown))
				require.JSONEq(t, string(f.Script), string(shown.Script))
				require.NotEmpty(t, shown.Verdict, "%s: nothing breaks in %s", stage, f.File)
				verdicts[stage+"/"+f.File] = shown.Verdict
			}
		}
		// Without its rule, Figure 8 loses what was committed.
		for _, stage := range []string{"05-election", "06-compaction", "07-membership"} {
			require.Contains(t, verdicts[stage+"/figure-8-without-its-rule.bin"], "I7 (Leader Completeness) is broken: n5 leads term ")
		}
		for _, stage := range []string{"03-log-replication", "04-smart-client"} {
			require.Contains(t, verdicts[stage+"/figure-8-without-its-rule.bin"], "n1 shows x=old: it committed an entry of an older term")
		}
	})
	// run runs a program that imports modules of a page.
	run := func(t *testing.T, program string, args ...string) string {
		folder := t.TempDir()
		require.NoError(t, os.CopyFS(folder, os.DirFS(filepath.Join(out, "05-election"))))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "package.json"), []byte(`{"type":"module"}`), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "test.mjs"), []byte(program), 0o600))
		cmd := exec.CommandContext(t.Context(), node, append([]string{filepath.Join(folder, "test.mjs"), folder}, args...)...)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		got, err := cmd.Output()
		require.NoError(t, err, complaint.String())
		if complaint.Len() > 0 {
			t.Logf("%.2000s", complaint.String())
		}
		return string(got)
	}
	t.Run("links", func(t *testing.T) {
		t.Parallel()
		require.JSONEq(t, `[false, "", true, "0123456789abcdef", {"stage":"05-election","seed":7}, "", ""]`, run(t, links))
	})
	t.Run("completed", func(t *testing.T) {
		t.Parallel()
		text, n := randomFilms()
		file := filepath.Join(t.TempDir(), "films")
		require.NoError(t, os.WriteFile(file, text, 0o600))
		require.JSONEq(t, fmt.Sprintf("[%d,0]", n), run(t, completed, file))
	})
}

// mostEngine is the largest engine, compressed: a page on a phone waits for it.
const mostEngine = 1_500_000

// hashes returns the hash of each line.
func hashes(t *testing.T, text []byte) []string {
	t.Helper()
	var all []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<28)
	for lines.Scan() {
		sum := sha256.Sum256(lines.Bytes())
		all = append(all, hex.EncodeToString(sum[:]))
	}
	require.NoError(t, lines.Err())
	return all
}
