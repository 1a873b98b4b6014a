package steps

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tree returns the files of a small repository by path: two stages in which the
// check finds nothing.
func tree() map[string]string {
	files := map[string]string{
		"go.work": "go 1.26.0\n\nuse (\n\t./02-naive\n\t./03-log\n\t./shared\n)\n",
		"README.md": `# title

| stage | it adds | it still cannot survive |
| --- | --- | --- |
| [` + "`02-naive`](02-naive)" + ` | a cluster of ` + "`5`" + ` | one **missed** message |
| ` + "`03-log`" + ` | a log | a dead leader |

<!-- steps table -->
<!-- end of steps table -->

The end.
`,
		"shared/go.mod":        "module example.com/raftsteps/shared\n\ngo 1.26.0\n",
		"shared/core/kv/kv.go": "package kv\n\nimport \"strings\"\n\nvar _ = strings.Cut\n",
		"02-naive/README.md":   "# 02\n",
		"03-log/README.md":     "# 03\n\n## The diff\n\n| file | why |\n| --- | --- |\n| `raft/log.go` | the log |\n| `raft/raft.go` | writes to it |\n\n## Break it\n",
		"02-naive/raft/old.go": source20("old"),
		"03-log/raft/old.go":   source20("old"),
		"03-log/raft/log.go":   "package raft\n\n// Log is the log.\ntype Log struct{}\n",
		"03-log/.raftsteps/n1": "data of a running cluster\n",
	}
	for _, s := range []string{"02-naive", "03-log"} {
		files[s+"/go.mod"] = "module example.com/raftsteps/" + s + "\n\ngo 1.26.0\n\nrequire example.com/raftsteps/shared v0.0.0\n\nreplace example.com/raftsteps/shared => ../shared\n"
		files[s+"/main.go"] = `package main

import "example.com/raftsteps/` + s + `/server"

func main() {
	server.Run()
}
`
		files[s+"/server/server.go"] = `package server

import (
	"example.com/raftsteps/` + s + `/raft"
	"example.com/raftsteps/shared/core/kv"
)

// Run runs.
func Run() {
	raft.Step()
	kv.Do()
}

// Stop stops.
func Stop() {
	raft.Stop()
}
`
		files[s+"/raft/raft.go"] = "package raft\n\n// Step steps.\nfunc Step() {\n\tsend()\n}\n"
	}
	files["03-log/raft/raft.go"] = "package raft\n\n// Step steps.\nfunc Step() {\n\tappendEntries()\n}\n"
	return files
}

// source20 returns a file of functions whose names begin with name.
func source20(name string) string {
	text := "package raft\n"
	for _, f := range []string{"One", "Two", "Three", "Four", "Five"} {
		text += "\n// " + name + f + " is a rule.\nfunc " + name + f + "() int {\n\treturn len(" + name + f + "Text)\n}\n"
	}
	return text
}

// write writes the tree with some changes to a new folder. A change to "" removes
// the file.
func write(t *testing.T, changes map[string]string) *Repo {
	t.Helper()
	files := tree()
	maps.Copy(files, changes)
	root := t.TempDir()
	for path, text := range files {
		if text == "" {
			continue
		}
		full := filepath.Join(root, filepath.FromSlash(path))
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
	}
	repo, err := Open(filepath.Join(root, "03-log", "raft"))
	require.NoError(t, err)
	require.Equal(t, root, repo.Root)
	return repo
}

// run carries out a command line and returns the exit code and what it printed.
func run(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(t.Context(), dir, args, &out, &errs)
	return code, out.String(), errs.String()
}

// cut returns a change of the tree that replaces a part of one file. The part
// must be there.
func cut(t *testing.T, path, old, now string) map[string]string {
	t.Helper()
	text := tree()[path]
	require.Contains(t, text, old)
	return map[string]string{path: strings.Replace(text, old, now, 1)}
}
