package steps

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRunExplainsItself(t *testing.T) {
	dir := t.TempDir()
	code, stdout, stderr := run(t, dir)
	require.Equal(t, 2, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "go run ./shared/cmd/steps diff 01 02")

	code, stdout, _ = run(t, dir, "help")
	require.Equal(t, 0, code)
	require.Equal(t, usage, stdout)

	code, _, stderr = run(t, dir, "climb")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `there is no command "climb"`)

	for _, c := range commands() {
		for _, args := range [][]string{{"help", c.name}, {c.name, "-h"}} {
			code, stdout, _ = run(t, dir, args...)
			require.Equal(t, 0, code)
			require.Contains(t, stdout, c.help)
		}
		code, _, stderr = run(t, dir, c.name, "--climb", "1")
		require.Equal(t, 2, code)
		require.Contains(t, stderr, "flag provided but not defined: -climb")
		require.Contains(t, stderr, "steps help "+c.name)
	}
}

func TestRunOutsideTheRepository(t *testing.T) {
	for _, args := range [][]string{{"list"}, {"check"}, {"diff", "2"}, {"table"}} {
		code, _, stderr := run(t, t.TempDir(), args...)
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "is not inside the repository: no folder above it contains a go.work")
	}
}

func TestList(t *testing.T) {
	repo := write(t, map[string]string{"03-log/raft/log.go": `// Package raft is long.
package raft

/* A comment
   over lines. */
var text = ` + "`one\ntwo\nthree`" + ` // and behind code

func f() {

	// Nothing.
}
`, "03-log/client/client.go": "package client\n", "03-log/extra/extra.go": "package extra\n", "03-log/raft/raft_test.go": "package raft\n\nvar x = 1\n"})
	code, stdout, stderr := run(t, filepath.Join(repo.Root, "shared"), "list")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, `02-naive
  adds            a cluster of 5
  cannot survive  one missed message
  lines of code   37: raft 20, server 12, main 5

03-log
  adds            a log
  cannot survive  a dead leader
  lines of code   45: raft 26, server 12, client 1, extra 1, main 5, tests 2

The last step: go run ./shared/cmd/steps diff 02 03
`, stdout)
}

func TestListWithoutALadder(t *testing.T) {
	repo := write(t, map[string]string{"README.md": ""})
	code, stdout, _ := run(t, repo.Root, "list")
	require.Equal(t, 0, code)
	require.Contains(t, stdout, "02-naive\n  adds            (the top README has no row for this stage)\n  lines of code")
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 30)
	got := wrap(long, 10)
	require.Equal(t, strings.Fields(long), strings.Fields(got))
	for i, line := range strings.Split(got, "\n") {
		if i == 0 {
			line = strings.Repeat(" ", 10) + line
		}
		require.LessOrEqual(t, len(line), textWidth)
		require.True(t, strings.HasPrefix(line, strings.Repeat(" ", 10)+"word"))
	}
}

const lesson = `raft/log.go: the log
--- /dev/null
+++ 03-log/raft/log.go
@@ -0,0 +1,4 @@
+package raft
+
+// Log is the log.
+type Log struct{}

raft/raft.go: writes to it
--- 02-naive/raft/raft.go
+++ 03-log/raft/raft.go
@@ -2,5 +2,5 @@ package raft
 
 // Step steps.
 func Step() {
-	send()
+	appendEntries()
 }
`

// The diff leaves out differences of the stages' import paths, whichever form of
// the stages' names is used.
func TestDiff(t *testing.T) {
	repo := write(t, nil)
	for _, args := range [][]string{
		{"02", "03"}, {"2", "3"}, {"02-naive", "./03-log/"}, {"03"}, {"3", "raft"},
		{"02", "03", "raft/*.go", "main.go"}, {"2", "3", "--color", "never"},
	} {
		code, stdout, stderr := run(t, repo.Root, append([]string{"diff"}, args...)...)
		require.Equal(t, 0, code, stderr)
		require.Equal(t, lesson, stdout, args)
	}
}

// Code of the appendix is shown only if a path names it, or with --all.
func TestDiffLeavesOutTheAppendix(t *testing.T) {
	repo := write(t, map[string]string{
		"03-log/README.md":        "# 03\n\n## The diff\n\n| file | why |\n| --- | --- |\n| `raft/log.go`, `raft/raft.go` | the log |\n| `demo.go`, `library/` | appendix: more |\n",
		"03-log/demo.go":          "package main\n",
		"03-log/library/a.go":     "package library\n",
		"03-log/library/b.go":     "package library\n",
		"03-log/raft/log_test.go": "package raft\n",
	})
	findings, err := repo.Check()
	require.NoError(t, err)
	require.Empty(t, findings)
	const left = "\nLeft out, as the appendix: demo.go, library/. Name a file to see it, or use --all.\n"
	_, stdout, _ := run(t, repo.Root, "diff", "2", "3", "--no-tests")
	require.True(t, strings.HasSuffix(stdout, left), stdout)
	require.NotContains(t, stdout, "package library")
	_, stdout, _ = run(t, repo.Root, "diff", "2", "3", "--no-tests", "--stat")
	require.Contains(t, stdout, "2 files (1 new")
	require.True(t, strings.HasSuffix(stdout, left), stdout)
	for _, args := range [][]string{{"library"}, {"--all"}} {
		_, stdout, _ = run(t, repo.Root, append([]string{"diff", "2", "3"}, args...)...)
		require.Contains(t, stdout, "+++ 03-log/library/b.go")
		require.NotContains(t, stdout, "Left out")
	}
}

func TestDiffNarrowed(t *testing.T) {
	repo := write(t, map[string]string{
		"03-log/raft/a_test.go":      "package raft\n",
		"03-log/raft/testdata/x.txt": "x\n",
		"03-log/raft/testdata/b.bin": "\x00",
		"03-log/go.sum":              "x\n",
	})
	files := func(args ...string) (out []string) {
		code, stdout, stderr := run(t, repo.Root, append([]string{"diff", "2", "3"}, args...)...)
		require.Equal(t, 0, code, stderr)
		for _, line := range strings.Split(stdout, "\n") {
			if name, ok := strings.CutPrefix(line, "+++ 03-log/"); ok {
				out = append(out, name)
			}
		}
		return out
	}
	require.Equal(t, []string{"raft/log.go", "raft/raft.go", "raft/a_test.go"}, files())
	require.Equal(t, []string{"raft/log.go", "raft/raft.go"}, files("--no-tests"))
	require.Equal(t, []string{"raft/log.go"}, files("raft/log.go"))
	require.Equal(t, []string{"README.md"}, files("./README.md"))
	require.Equal(t, []string{"raft/log.go", "raft/raft.go", "raft/a_test.go", "README.md", "go.sum", "raft/testdata/b.bin", "raft/testdata/x.txt"}, files("--all"))
	require.Empty(t, files("server"))

	_, stdout, _ := run(t, repo.Root, "diff", "2", "3", "server")
	require.Equal(t, "02-naive and 03-log do not differ there.\n", stdout)
	_, stdout, _ = run(t, repo.Root, "diff", "2", "3", "raft/testdata/b.bin")
	require.Equal(t, "--- /dev/null\n+++ 03-log/raft/testdata/b.bin\nBinary files differ\n", stdout)
}

func TestDiffBackwards(t *testing.T) {
	repo := write(t, map[string]string{"03-log/raft/log.go": "package raft"})
	code, stdout, _ := run(t, repo.Root, "diff", "3", "2", "raft/log.go")
	require.Equal(t, 0, code)
	require.Equal(t, "--- 03-log/raft/log.go\n+++ /dev/null\n@@ -1 +0,0 @@\n-package raft\n\\ No newline at end of file\n", stdout)
}

func TestDiffStat(t *testing.T) {
	repo := write(t, map[string]string{"02-naive/raft/gone.go": "package raft\n"})
	code, stdout, _ := run(t, repo.Root, "diff", "--stat", "02", "03")
	require.Equal(t, 0, code)
	require.Equal(t, `raft/gone.go    +0    -1  -----                 gone
raft/log.go     +4    -0  ++++++++++++++++++++  new  the log
raft/raft.go    +1    -1  +++++-----                 writes to it
02-naive → 03-log: 3 files (1 new, 1 gone), 5 lines more, 2 lines less
`, stdout)
}

func TestDiffColoured(t *testing.T) {
	repo := write(t, nil)
	code, stdout, _ := run(t, repo.Root, "diff", "3", "raft/raft.go", "--color", "always", "-U", "0")
	require.Equal(t, 0, code)
	require.Equal(t, bold+"raft/raft.go: writes to it"+reset+"\n"+
		bold+"--- 02-naive/raft/raft.go"+reset+"\n"+
		bold+"+++ 03-log/raft/raft.go"+reset+"\n"+
		cyan+"@@ -5 +5 @@"+reset+" func Step() {\n"+
		red+"-\tsend()"+reset+"\n"+
		green+"+\tappendEntries()"+reset+"\n", stdout)
	_, stdout, _ = run(t, repo.Root, "diff", "3", "--stat", "--color", "always")
	require.Contains(t, stdout, green+"+++++"+red+"-----")
}

func TestDiffRefuses(t *testing.T) {
	repo := write(t, nil)
	for want, args := range map[string][]string{
		`there is no stage "07"; there are 02-naive, 03-log`: {"02", "07"},
		`there is no stage "x"`:                              {"x"},
		"02-naive is the first stage":                        {"02"},
		"an argument is missing":                             {},
		"--color is auto, always or never":                   {"2", "3", "--color", "red"},
	} {
		code, _, stderr := run(t, repo.Root, append([]string{"diff"}, args...)...)
		require.Equal(t, 2, code, args)
		require.Contains(t, stderr, want)
	}
	code, _, stderr := run(t, repo.Root, "list", "02")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `these arguments are too many: "02"`)
}

// rename replaces a path only where it is not the beginning of a longer one.
func TestRename(t *testing.T) {
	const from, to = "example.com/r/02-x", "example.com/r/03-y"
	for text, want := range map[string]string{
		`"example.com/r/02-x/raft"`:              `"example.com/r/03-y/raft"`,
		"module example.com/r/02-x\n":            "module example.com/r/03-y\n",
		"example.com/r/02-x":                     "example.com/r/03-y",
		"example.com/r/02-xy example.com/r/02-x": "example.com/r/02-xy example.com/r/03-y",
		"nothing":                                "nothing",
		"":                                       "",
	} {
		require.Equal(t, want, string(rename([]byte(text), from, to)))
	}
}

func TestCells(t *testing.T) {
	require.Equal(t, []string{"a", "b"}, cells("| a | b |"))
	require.Equal(t, []string{"`a|b`", "c|d", `e\n`}, cells(`| `+"`a|b`"+` | c\|d | e\n |`))
	require.Equal(t, []string{"a", "", "c"}, cells("| a | | c"))
}

// fakeStage returns a program that prints outcomes, as a stage does for the
// command table.
func fakeStage(outcomes, then string) string {
	return `package main

import (
	"fmt"
	"os"
	"slices"
)

func main() {
	if !slices.Equal(os.Args[1:], []string{"scenario", "--all", "-o", "json"}) {
		fmt.Println("what is this?")
		os.Exit(2)
	}
	fmt.Print(` + "`" + outcomes + "`" + `)
	` + then + `
}
`
}

const (
	outcomes02 = `{"stage":"02-naive","scenario":"restart","survived":false,"why":"lost","seed":1}
{"stage":"02-naive","scenario":"missed-message","survived":true,"why":"","seed":1}
{"stage":"02-naive","scenario":"missed-message","survived":false,"why":"apart","seed":2}
`
	outcomes03 = `
{"stage":"03-log","scenario":"restart","survived":true,"why":"","seed":1}
{"stage":"03-log","scenario":"missed-message","survived":true,"why":"","seed":1,"more":[1]}
{"stage":"03-log","scenario":"lost-reply","survived":false,"why":"twice","seed":1}
`
	wantTable = `| scenario | 02 | 03 |
| --- | --- | --- |
| restart | **breaks** | survives |
| missed-message | **breaks** | survives |
| lost-reply | | **breaks** |
`
)

// The command table runs the stages, and checks or writes the table in the
// README.
func TestTable(t *testing.T) {
	repo := write(t, map[string]string{
		"02-naive/main.go": fakeStage(outcomes02, ""), "03-log/main.go": fakeStage(outcomes03, ""),
		// This stage is not a cluster, so no scenario runs against it.
		"01-client/go.mod": "module example.com/raftsteps/01-client\n\ngo 1.26.0\n", "01-client/main.go": "package main\n",
		"go.work": "go 1.26.0\n\nuse (\n\t./01-client\n\t./02-naive\n\t./03-log\n\t./shared\n)\n",
	})
	code, stdout, stderr := run(t, repo.Root, "table")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, wantTable, stdout)
	require.Equal(t, "playing all scenarios against 02-naive\nplaying all scenarios against 03-log\n", stderr)

	code, stdout, _ = run(t, repo.Root, "table", "--check", "README.md")
	require.Equal(t, 1, code)
	require.Contains(t, stdout, "\n+ | restart | **breaks** | survives |\n")
	require.Contains(t, stdout, "table --write README.md")

	code, _, stderr = run(t, repo.Root, "table", "--write", "README.md")
	require.Equal(t, 0, code, stderr)
	text, err := os.ReadFile(filepath.Join(repo.Root, "README.md"))
	require.NoError(t, err)
	require.Equal(t, strings.Replace(tree()["README.md"], tableBegin, tableBegin+wantTable, 1), string(text))

	code, _, _ = run(t, repo.Root, "table", "--check", filepath.Join(repo.Root, "README.md"))
	require.Equal(t, 0, code)
}

func TestTableRefuses(t *testing.T) {
	repo := write(t, map[string]string{"README.md": "# nothing\n"})
	code, _, stderr := run(t, repo.Root, "table", "--check", "README.md")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "has no place for the table: put the comments")
	code, _, stderr = run(t, repo.Root, "table", "--write", "missing.md")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "missing.md")
	code, _, _ = run(t, repo.Root, "table", "--write", "README.md", "--check", "README.md")
	require.Equal(t, 2, code)

	stage := Stage{Name: "02-naive"}
	for want, out := range map[string]string{
		"printed no outcome":                          "\n",
		"a line that is not an outcome":               "hello\n",
		`an outcome of stage "03-log", scenario "x"`:  `{"stage":"03-log","scenario":"x"}`,
		`an outcome of stage "02-naive", scenario ""`: `{"stage":"02-naive","survived":true}`,
	} {
		_, err := outcomes(stage, []byte(out))
		require.ErrorContains(t, err, want)
	}
}

// If a stage fails, the error contains what it has printed.
func TestTableOfAStageThatFails(t *testing.T) {
	repo := write(t, map[string]string{"02-naive/main.go": fakeStage(outcomes02, `fmt.Fprintln(os.Stderr, "restart survives, and was declared a casualty"); os.Exit(1)`)})
	code, _, stderr := run(t, repo.Root, "table")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "go run ./02-naive scenario --all -o json")
	require.Contains(t, stderr, "restart survives, and was declared a casualty")
}
