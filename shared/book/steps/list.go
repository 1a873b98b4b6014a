package steps

import (
	"cmp"
	"context"
	"fmt"
	"go/scanner"
	"go/token"
	"slices"
	"strings"
)

const listHelp = `steps list shows the ladder.

For each stage that exists: what it adds and what it still cannot survive (from
the table in the top README), and how long its code is, in lines, without blank
lines, comments and tests. The rings, from the inside out:

  naive, raft   the rules: no I/O, no clock, no goroutine
  server        one server: the rules, a disk, the store, waiting clients
  client        the client library
  main          the stage's main.go

Sockets, goroutines and real time are in shared/core/host, for all stages.
`

// list is the command.
func list(_ context.Context, c *call) error {
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	stages, err := repo.Stages()
	if err != nil {
		return err
	}
	rungs, err := repo.Ladder()
	if err != nil {
		return err
	}
	for _, s := range stages {
		rings, err := s.Rings()
		if err != nil {
			return err
		}
		rung := Rung{Adds: "(the top README has no row for this stage)"}
		if i := slices.IndexFunc(rungs, func(r Rung) bool { return r.Stage == s.Name }); i >= 0 {
			rung = rungs[i]
		}
		fmt.Fprintln(c.stdout, s.Name)
		fmt.Fprintln(c.stdout, "  adds            "+wrap(rung.Adds, 18))
		if rung.Lacks != "" {
			fmt.Fprintln(c.stdout, "  cannot survive  "+wrap(rung.Lacks, 18))
		}
		fmt.Fprintln(c.stdout, "  lines of code   "+ringText(rings))
		fmt.Fprintln(c.stdout)
	}
	if n := len(stages); n > 1 {
		fmt.Fprintf(c.stdout, "The last step: go run ./shared/cmd/steps diff %s %s\n", stages[n-2].Number(), stages[n-1].Number())
	}
	return nil
}

// textWidth is the width of the text.
const textWidth = 100

// wrap breaks a text into lines; all but the first are indented.
func wrap(text string, indent int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		length := len([]rune(word))
		switch {
		case i == 0:
		case column+1+length > textWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// Ring is the code of one folder of a stage, or of its main.go.
type Ring struct {
	// Name is the folder at the top of the stage, or "main", or "tests" for
	// the tests of all rings.
	Name string

	// Lines is the number of lines with code.
	Lines int
}

// Rings counts a stage's lines of code, from the inner ring outward, tests
// last.
func (s Stage) Rings() ([]Ring, error) {
	files, err := s.Files()
	if err != nil {
		return nil, err
	}
	count := make(map[string]int)
	for path, f := range files {
		if !f.Go() {
			continue
		}
		name, _, below := strings.Cut(path, "/")
		switch {
		case f.Test():
			name = "tests"
		case !below:
			name = "main"
		}
		count[name] += codeLines(f.Data)
	}
	var rings []Ring
	for name, lines := range count {
		rings = append(rings, Ring{name, lines})
	}
	order := []string{"naive", "raft", "server", "client", "main", "tests"}
	rank := func(r Ring) int {
		if i := slices.Index(order, r.Name); i >= 0 {
			return 2 * i
		}
		// Any other folder: before main.
		return 2*slices.Index(order, "main") - 1
	}
	slices.SortFunc(rings, func(a, b Ring) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	return rings, nil
}

// ringText formats the rings on one line.
func ringText(rings []Ring) string {
	var parts []string
	total := 0
	for _, r := range rings {
		parts = append(parts, fmt.Sprintf("%s %d", r.Name, r.Lines))
		if r.Name != "tests" {
			total += r.Lines
		}
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(parts, ", "))
}

// codeLines counts the lines of Go source that contain more than a comment.
func codeLines(source []byte) int {
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(source))
	var s scanner.Scanner
	// A file with syntax errors is counted as far as possible; the compiler
	// reports the errors.
	s.Init(file, source, func(token.Position, string) {}, 0)
	lines := make(map[int]bool)
	for {
		at, tok, text := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if tok == token.SEMICOLON && text == "\n" {
			// Not written, but inserted at the end of a line.
			continue
		}
		first := file.Line(at)
		for i := range strings.Count(text, "\n") + 1 {
			lines[first+i] = true
		}
	}
}
