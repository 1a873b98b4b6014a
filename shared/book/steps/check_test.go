package steps

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckAcceptsAGoodRepository(t *testing.T) {
	repo := write(t, nil)
	findings, err := repo.Check()
	require.NoError(t, err)
	require.Empty(t, findings)

	code, stdout, stderr := run(t, repo.Root, "check")
	require.Equal(t, 0, code, stdout+stderr)
	require.Equal(t, "2 stages: each is what its README says\n", stdout)
}

// If there is a glossary, every README must link to it, and must link each
// section (§) of the paper where it first names it.
func TestCheckFindsMissingLinks(t *testing.T) {
	repo := write(t, map[string]string{
		glossary:             "# Glossary\n",
		"README.md":          strings.Replace(tree()["README.md"], "The end.", "The [glossary]("+glossary+"), [§5.1][paper].", 1),
		"02-naive/README.md": "# 02\n\n```text\n§5.2\n```\n\n[Section §5.3](x), §5.3 and §5.4.1; §5.4.1\n",
	})
	findings, err := repo.Check()
	require.NoError(t, err)
	var got []string
	for _, f := range findings {
		got = append(got, f.String())
	}
	require.Equal(t, []string{
		"02-naive/README.md: it does not link to the glossary: add a link to shared/book/glossary.md",
		"02-naive/README.md:7: it names §5.4.1 here first: make it a link to the paper or the thesis",
		"03-log/README.md: it does not link to the glossary: add a link to shared/book/glossary.md",
	}, got)
}

// Each case has one fault. The check must find it, at the right place, and
// nothing else.
func TestCheckFinds(t *testing.T) {
	long := "package raft\n\n// Long is long.\nfunc (r *Raft) Long() {\n" + strings.Repeat("\tx()\n", 39) + "}\n"
	fits := "package raft\n\n// Fits fits.\nfunc Fits() {\n" + strings.Repeat("\tx()\n", 38) + "}\n"
	both := func(path, text string) map[string]string {
		return map[string]string{"02-naive/" + path: text, "03-log/" + path: text}
	}
	diffTable := func(rows string) map[string]string {
		return cut(t, "03-log/README.md", "| `raft/log.go` | the log |\n", "| `raft/log.go` | the log |\n"+rows)
	}
	tests := map[string]struct {
		change map[string]string
		want   []string
	}{
		"a changed file without a row": {
			cut(t, "03-log/main.go", "server.Run()", "server.Run2()"),
			[]string{"03-log/main.go: it differs from 02-naive, and the README's diff table does not name it: make them the same, or add a row `main.go`"},
		},
		"a new file without a row": {
			map[string]string{"03-log/server/new.go": "package server\n"},
			[]string{"03-log/server/new.go: it is new since 02-naive, and the README's diff table does not name it: add a row `server/new.go`"},
		},
		"a file that is gone without a row": {
			map[string]string{"03-log/raft/old.go": ""},
			[]string{"03-log/raft/old.go: 02-naive has this file and this stage has not, and the README's diff table does not name it: bring it back, or add a row `raft/old.go`"},
		},
		"a row for a file that is the same": {
			diffTable("| `main.go` | nothing |\n"),
			[]string{"03-log/README.md:8: the diff table names `main.go`, which is the same in 02-naive or in neither stage: take the row out"},
		},
		"a row for a file that does not exist": {
			diffTable("| `raft/raft.go`, `raft/typo.go` | nothing |\n"),
			[]string{"03-log/README.md:8: the diff table names `raft/typo.go`, which is the same in 02-naive or in neither stage: take the row out"},
		},
		"a row for a folder in which nothing changed": {
			diffTable("| `server/` | nothing |\n"),
			[]string{"03-log/README.md:8: the diff table names `server/`, which is the same in 02-naive or in neither stage: take the row out"},
		},
		"a row that means the appendix and does not say so": {
			with(diffTable("| `demo.go` | Appendix, the texts |\n"), map[string]string{"03-log/demo.go": "package main\n"}),
			[]string{"03-log/README.md:8: the reason for `demo.go` speaks of an appendix, but does not begin with \"appendix: \": write it so, or the file counts as part of the lesson"},
		},
		"a row for a folder covers what is below it": {
			with(cut(t, "03-log/README.md", "| `raft/log.go` | the log |\n", "| `client/` | the client |\n| `raft/log.go` | the log |\n"),
				map[string]string{"03-log/client/a.go": "package client\n", "03-log/client/b/b.go": "package b\n"}),
			nil,
		},
		"tests, testdata and go.sum need no row": {
			map[string]string{
				"03-log/raft/raft_test.go":       "package raft\n",
				"03-log/raft/testdata/a.txt":     "a\n",
				"02-naive/server/server_test.go": "package server\n",
				"03-log/go.sum":                  "x v1 h1:\n",
			},
			nil,
		},
		"no section": {
			map[string]string{"03-log/README.md": "# 03\n\n```text\n## The diff\n```\n"},
			[]string{"03-log/README.md: it has no section \"## The diff\"; add one with a table | file | why | that names what changed since 02-naive"},
		},
		"no README": {
			map[string]string{"02-naive/README.md": ""},
			[]string{"02-naive/README.md: the stage has no README"},
		},
		"a file that moved": {
			with(diffTable("| `raft/old.go`, `raft/fresh.go` | moved |\n"), map[string]string{"03-log/raft/old.go": "", "03-log/raft/fresh.go": source20("old") + "\n// More.\n"}),
			[]string{"03-log/raft/fresh.go: it is 02-naive/raft/old.go at another place (97 % alike): leave it where it was, or call it in 02-naive what it is called here"},
		},
		"a file that gave way to another one did not move": {
			with(diffTable("| `raft/old.go`, `raft/fresh.go` | another |\n"), map[string]string{"03-log/raft/old.go": "", "03-log/raft/fresh.go": source20("fresh")}),
			nil,
		},
		"small files that have little to say are not alike": {
			map[string]string{
				"02-naive/raft/a_test.go": "package raft\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) { a(t) }\n",
				"03-log/raft/b_test.go":   "package raft\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) { b(t) }\n",
			},
			nil,
		},
		"a small file that moved": {
			map[string]string{
				"02-naive/raft/a_test.go": "package raft\n\nfunc a() {}\n",
				"03-log/raft/b_test.go":   "package raft\n\nfunc a() {}\n",
			},
			[]string{"03-log/raft/b_test.go: it is 02-naive/raft/a_test.go at another place (100 % alike): leave it where it was, or call it in 02-naive what it is called here"},
		},
		"a function that moved to another file": {
			with(cut(t, "03-log/raft/log.go", "type Log struct{}\n", "type Log struct{}\n\n// Step steps.\nfunc Step() {\n\tappendEntries()\n}\n"),
				map[string]string{"03-log/raft/raft.go": "package raft\n"}),
			[]string{"03-log/raft/log.go:7: func Step was in raft/raft.go in 02-naive: leave it there, or move it there too"},
		},
		"a function that moved within its file": {
			with(diffTable("| `server/server.go` | order |\n"), map[string]string{
				"03-log/server/server.go": "package server\n\nimport (\n\t\"example.com/raftsteps/03-log/raft\"\n\t\"example.com/raftsteps/shared/core/kv\"\n)\n\n// Stop stops.\nfunc Stop() {\n\traft.Stop()\n}\n\n// Run runs.\nfunc Run() {\n\traft.Step()\n\tkv.Do()\n}\n"}),
			[]string{"03-log/server/server.go:14: func Run is at another place in the file than in 02-naive: keep the order of the earlier stage"},
		},
		"a blank line": {
			cut(t, "03-log/raft/raft.go", "// Step", "\n// Step"),
			[]string{"03-log/raft/raft.go:3: only white space or line breaks differ from 02-naive here: make the lines the same in both"},
		},
		"white space, in a test too": {
			map[string]string{"02-naive/raft/a_test.go": "package raft\n\nvar a = 1\n", "03-log/raft/a_test.go": "package raft\n\nvar  a = 1\n"},
			[]string{"03-log/raft/a_test.go:3: only white space or line breaks differ from 02-naive here: make the lines the same in both"},
		},
		"a comment broken differently": {
			with(cut(t, "03-log/raft/log.go", "type", "type"), map[string]string{
				"02-naive/raft/raft.go": "package raft\n\n// Step steps\n// far.\nfunc Step() {\n\tsend()\n}\n",
				"03-log/raft/raft.go":   "package raft\n\n// Step\n// steps far.\nfunc Step() {\n\tappendEntries()\n}\n",
			}),
			[]string{"03-log/raft/raft.go:3: only white space or line breaks differ from 02-naive here: make the lines the same in both"},
		},
		"a comment that a new neighbour pushed aside": {
			map[string]string{
				"02-naive/raft/raft.go": "package raft\n\nvar (\n\ta = 1 // one\n)\n",
				"03-log/raft/raft.go":   "package raft\n\nvar (\n\ta   = 1 // one\n\tabc = 1\n\ta = 1   // one\n)\n",
			},
			[]string{"03-log/raft/raft.go:4: the comment behind \"a = 1\" only stands in another column than in 02-naive: put it on the line above, in both"},
		},
		"code that went into a block is a change": {
			cut(t, "03-log/raft/raft.go", "\tappendEntries()\n", "\tif leader {\n\t\tsend()\n\t}\n"),
			nil,
		},
		"go.mod asks for another module": {
			with(cut(t, "03-log/go.mod", "require example.com/raftsteps/shared v0.0.0\n", "require example.com/raftsteps/shared v0.0.0\n\nrequire example.com/other v1.0.0\n"),
				cut(t, "03-log/raft/log.go", "package raft\n", "package raft\n\nimport \"example.com/other/x\"\n")),
			[]string{"03-log/raft/log.go:3: it imports example.com/other/x: the rules import the standard library only", "03-log/go.mod: it requires example.com/other; make it agree with 02-naive/go.mod, or say in the README's diff table, in a row `go.mod`, why the lesson needs it"},
		},
		"go.mod asks for another module, and the README says why": {
			with(cut(t, "03-log/go.mod", "require example.com/raftsteps/shared v0.0.0\n", "require example.com/raftsteps/shared v0.0.0\n\nrequire example.com/other v1.0.0\n"),
				map[string]string{"03-log/client/client.go": "package client\n\nimport \"example.com/other\"\n"},
				diffTable("| `go.mod`, `client/` | the other |\n")),
			nil,
		},
		"a row for go.mod that says the same": {
			diffTable("| `go.mod` | the same |\n"),
			[]string{"03-log/README.md:8: the diff table names `go.mod`, which is the same in 02-naive or in neither stage: take the row out"},
		},
		"go.mod needs something indirectly, or in tests": {
			with(map[string]string{"03-log/raft/x_test.go": "package raft\n\nimport \"example.com/other\"\n"}, cut(t, "03-log/go.mod", "require example.com/raftsteps/shared v0.0.0\n", "require example.com/raftsteps/shared v0.0.0\n\nrequire example.com/other v1.0.0 // indirect\n")),
			nil,
		},
		"go.mod files need two versions": {
			with(cut(t, "03-log/go.mod", "require example.com/raftsteps/shared v0.0.0\n", "require example.com/raftsteps/shared v0.0.0\n\nrequire example.com/other v1.0.1 // indirect\n"),
				cut(t, "02-naive/go.mod", "require example.com/raftsteps/shared v0.0.0\n", "require example.com/raftsteps/shared v0.0.0\n\nrequire example.com/other v1.0.0 // indirect\n")),
			[]string{"03-log/go.mod: it requires example.com/other v1.0.1 instead of v1.0.0; make it agree with 02-naive/go.mod, or say in the README's diff table, in a row `go.mod`, why the lesson needs it"},
		},
		"go.mod with a go line of its own": {
			cut(t, "03-log/go.mod", "go 1.26.0", "go 1.26.1"),
			[]string{"03-log/go.mod: it says go 1.26.1, and shared/go.mod says go 1.26.0: write the same in both"},
		},
		"go.mod with another module's name": {
			cut(t, "03-log/go.mod", "raftsteps/03-log", "raftsteps/log"),
			[]string{"03-log/go.mod: the module is called example.com/raftsteps/log; call it example.com/raftsteps/03-log"},
		},
		"go.mod without the replacement": {
			with(cut(t, "03-log/go.mod", "\nreplace example.com/raftsteps/shared => ../shared\n", ""),
				cut(t, "02-naive/go.mod", "\nreplace example.com/raftsteps/shared => ../shared\n", "")),
			[]string{
				"02-naive/go.mod: it cannot be built alone: add replace example.com/raftsteps/shared => ../shared",
				"03-log/go.mod: it cannot be built alone: add replace example.com/raftsteps/shared => ../shared",
			},
		},
		"go.work without a stage, and with another folder": {
			map[string]string{"go.work": "go 1.26.0\n\nuse (\n\t./02-naive\n\t./shared\n\t./tools\n)\n"},
			[]string{
				"go.work: it does not use ./03-log: run go work use ./03-log",
				"go.work: it uses ./tools, which is neither a stage nor a module in shared: run go work edit -dropuse=./tools",
			},
		},
		"go.work with a module in shared, and with a folder that is none": {
			map[string]string{
				"go.work":                "go 1.26.0\n\nuse (\n\t./02-naive\n\t./03-log\n\t./shared\n\t./shared/core/big\n\t./shared/none\n)\n",
				"shared/core/big/go.mod": "module example.com/raftsteps/shared/core/big\n",
			},
			[]string{"go.work: it uses ./shared/none, which is neither a stage nor a module in shared: run go work edit -dropuse=./shared/none"},
		},
		"a stage that is still being written is no step": {
			map[string]string{
				"go.work":           "go 1.26.0\n\nuse (\n\t./02-naive\n\t./03-log\n\t./04-next\n\t./shared\n)\n",
				"04-next/go.mod":    "module example.com/raftsteps/04-next\n",
				"04-next/raft/x.go": "package raft\n",
			},
			nil,
		},
		"the ladder lacks a stage and has one too many": {
			cut(t, "README.md", "`03-log`", "`04-more`"),
			[]string{
				"README.md: the ladder has no row for `03-log`: say what it adds and what it still cannot survive",
				"README.md:6: the ladder names `04-more`, which does not exist: take the row out",
			},
		},
		"a row of the ladder is half empty": {
			cut(t, "README.md", "| a dead leader |", "| |"),
			[]string{"README.md:6: the ladder's row for `03-log` has an empty cell: say what it adds and what it still cannot survive"},
		},
		"a stage is missing": {
			map[string]string{
				"go.work":           "go 1.26.0\n\nuse (\n\t./02-naive\n\t./03-log\n\t./05-far\n\t./shared\n)\n",
				"README.md":         strings.Replace(tree()["README.md"], "| `03-log`", "| `05-far` | far | near |\n| `03-log`", 1),
				"05-far/go.mod":     strings.ReplaceAll(tree()["03-log/go.mod"], "03-log", "05-far"),
				"05-far/README.md":  "# 05\n",
				"05-far/raft/is.go": fits,
				"05-far/main.go":    "package main\n",
			},
			[]string{
				"README.md:7: the rows of the ladder are not in the order of the stages",
				"README.md:6: the rows of the ladder are not in the order of the stages",
				"05-far: the stage before it is 03-log: the ladder has no stage 04",
			},
		},
		"the rules import what is shared": {
			both("raft/more.go", "package raft\n\nimport (\n\t\"fmt\"\n\n\t\"example.com/raftsteps/shared/core/kv\"\n)\n"),
			[]string{
				"02-naive/raft/more.go:6: it imports example.com/raftsteps/shared/core/kv: the rules import the standard library only",
				"03-log/raft/more.go:6: it imports example.com/raftsteps/shared/core/kv: the rules import the standard library only",
			},
		},
		"tests of the rules may": {
			both("raft/more_test.go", "package raft\n\nimport \"example.com/raftsteps/shared/core/kv\"\n"),
			nil,
		},
		"a server imports the network": {
			both("server/more.go", "package server\n\nimport \"example.com/raftsteps/shared/core/wire\"\n\nimport \"example.com/raftsteps/shared/wireless\"\n"),
			[]string{
				"02-naive/server/more.go:3: it imports example.com/raftsteps/shared/core/wire: a server does not know the network",
				"03-log/server/more.go:3: it imports example.com/raftsteps/shared/core/wire: a server does not know the network",
			},
		},
		"a stage imports another": {
			map[string]string{"03-log/raft/x_test.go": "package raft\n\nimport \"example.com/raftsteps/02-naive/raft\"\n"},
			[]string{"03-log/raft/x_test.go:3: it imports example.com/raftsteps/02-naive/raft: a stage does not import another one"},
		},
		"shared imports a stage": {
			map[string]string{"shared/lab/sim/sim_test.go": "package sim\n\nimport \"example.com/raftsteps/02-naive/raft\"\n"},
			[]string{"shared/lab/sim/sim_test.go:3: it imports example.com/raftsteps/02-naive/raft: shared knows no stage"},
		},
		"a wing imports one above it": {
			map[string]string{
				"shared/core/kv/more_test.go": "package kv\n\nimport \"example.com/raftsteps/shared/lab/sim\"\n",
				"shared/lab/sim/sim.go":       "package sim\n\nimport \"example.com/raftsteps/shared/core/kv\"\n",
				"shared/book/steps/steps.go":  "package steps\n\nimport \"example.com/raftsteps/shared/lab/sim\"\n",
				"shared/book/site/site.go":    "package site\n\nimport \"example.com/raftsteps/shared/lab/sim\"\n",
				"shared/book/site/more.go":    "package site\n\nimport \"example.com/raftsteps/shared/run/cli\"\n",
				"shared/cmd/steps/main.go":    "package main\n\nimport \"example.com/raftsteps/shared/book/steps\"\n",
			},
			[]string{
				"shared/book/site/more.go:3: it imports shared/run/cli: a package in shared/book/site imports core, lab, book only",
				"shared/book/steps/steps.go:3: it imports shared/lab/sim: a package in shared/book imports core, book only",
				"shared/core/kv/more_test.go:3: it imports shared/lab/sim: a package in shared/core imports core only",
			},
		},
		"a package outside the wings": {
			map[string]string{"shared/sim/sim.go": "package sim\n"},
			[]string{"shared/sim/sim.go: it is in none of the wings of shared: move it into core, lab, run or book"},
		},
		"a rule that does not fit on a screen": {
			both("raft/long.go", long),
			[]string{
				"02-naive/raft/long.go:4: func (Raft) Long is 41 lines long: a rule fits on a screen, 40 lines",
				"03-log/raft/long.go:4: func (Raft) Long is 41 lines long: a rule fits on a screen, 40 lines",
			},
		},
		"rules that are too long": {
			with(map[string]string{"03-log/raft/log.go": "package raft\n\n" + strings.Repeat("// A comment does not count.\nvar _ = 0\n\n", 420)},
				map[string]string{"03-log/raft/log_test.go": "package raft\n" + strings.Repeat("var _ = 0\n", 500)}),
			[]string{"03-log/raft: it has 441 lines of code, and the limit is 440: say it in fewer lines"},
		},
		"rules that are just short enough": {
			map[string]string{"03-log/raft/log.go": "package raft\n\n" + strings.Repeat("var _ = 0\n", 419)}, nil,
		},
		"a rule that just fits": {both("raft/fits.go", fits), nil},
		"a file that is not Go": {
			both("raft/broken.go", "package raft\n\nfunc {\n"),
			[]string{
				"02-naive/raft/broken.go: it is not Go: broken.go:3:6: expected 'IDENT', found '{'",
				"03-log/raft/broken.go: it is not Go: broken.go:3:6: expected 'IDENT', found '{'",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := write(t, test.change)
			findings, err := repo.Check()
			require.NoError(t, err)
			var got []string
			for _, f := range findings {
				got = append(got, f.String())
			}
			require.Equal(t, test.want, got)
		})
	}
}

// with combines changes; later ones replace earlier ones.
func with(changes ...map[string]string) map[string]string {
	all := make(map[string]string)
	for _, c := range changes {
		maps.Copy(all, c)
	}
	return all
}

func TestCheckExitsWithOneIfItFindsSomething(t *testing.T) {
	repo := write(t, map[string]string{"02-naive/README.md": ""})
	code, stdout, _ := run(t, repo.Root, "check")
	require.Equal(t, 1, code)
	require.Equal(t, "02-naive/README.md: the stage has no README\n\n1 findings in 2 stages\n", stdout)
}
