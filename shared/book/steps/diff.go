package steps

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"example.com/raftsteps/shared/book/linediff"
	"example.com/raftsteps/shared/core/pager"
)

const diffHelp = `steps diff shows the lesson between two stages.

  diff 04 05                     what 05 changes, from the rules outwards
  diff 05                        the same: 05 against the stage before it
  diff 04 05 raft                only what is below raft/
  diff 04 05 'raft/*.go' main.go only these files
  diff 04 05 --no-tests          without the tests
  diff 04 05 --stat              which files, how much, and why

A stage is named by its folder or its number: 04-smart-client, 04 or 4. The two
need not be neighbours. The earlier stage is read as if it stood in the later
one's folder, so the import path of the stage itself is no difference. READMEs,
go.sum, testdata and the stage's appendix are left out unless they are named or
--all is given. The appendix is code that is not part of the lesson, such as the
text of the demo. Above a file's difference is the reason that the stage's README
gives.

On a terminal the difference is coloured and goes through $PAGER, or less.
`

// diff is the command.
func diff(_ context.Context, c *call) error {
	stat := c.flags.Bool("stat", false, "show which files changed, how much and why, but no lines")
	all := c.flags.Bool("all", false, "show the appendix, READMEs, go.sum and testdata too")
	noTests := c.flags.Bool("no-tests", false, "leave out test files")
	around := c.flags.Int("U", 3, "show `n` unchanged lines around a change")
	paint := c.flags.String("color", "auto", "colour the lines: auto, always or never")
	args, err := c.parse(1, 1000)
	if err != nil {
		return err
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	from, to, narrow, err := repo.pair(args)
	if err != nil {
		return usageError{err}
	}
	if err := named(from, to, narrow); err != nil {
		return err
	}
	changes, err := Compare(from, to)
	if err != nil {
		return err
	}
	table, _, err := to.DiffTable()
	if err != nil {
		return err
	}
	var appendix []string
	changes = slices.DeleteFunc(changes, func(change Change) bool {
		if len(narrow) > 0 {
			return !matches(narrow, change.Path)
		}
		i := slices.IndexFunc(table, func(n Named) bool { return n.Appendix() && n.covers(change.Path) })
		if i >= 0 && !*all {
			if !slices.Contains(appendix, table[i].Path) {
				appendix = append(appendix, table[i].Path)
			}
			return true
		}
		return !*all && aside(change.file()) || *noTests && change.file().Test()
	})
	p := &printer{from: from, to: to, why: table, context: max(0, *around)}
	switch *paint {
	case "auto":
		p.colour = colour(c.stdout)
	case "always":
		p.colour = true
	case "never":
	default:
		return usageError{fmt.Errorf("--color is auto, always or never, not %q", *paint)}
	}
	return pager.Show(c.stdout, func(w io.Writer) error {
		p.Writer = bufio.NewWriter(w)
		switch {
		case len(changes) == 0:
			fmt.Fprintf(p, "%s and %s do not differ there.\n", from.Name, to.Name)
		case *stat:
			p.stat(changes)
		default:
			p.files(changes)
		}
		if len(appendix) > 0 {
			p.line("", "")
			p.line("", "Left out, as the appendix: "+strings.Join(appendix, ", ")+". Name a file to see it, or use --all.")
		}
		return p.Flush()
	})
}

// pair parses the stages and the further arguments.
func (r *Repo) pair(args []string) (from, to Stage, narrow []string, err error) {
	if from, err = r.Stage(args[0]); err != nil {
		return from, to, nil, err
	}
	if len(args) > 1 {
		to, err = r.Stage(args[1])
		if err == nil {
			return from, to, args[2:], nil
		}
		if stageLike.MatchString(args[1]) {
			return from, to, nil, err
		}
	}
	// With one stage, compare it with the previous one.
	stages, err := r.Stages()
	if err != nil {
		return from, to, nil, err
	}
	at := slices.Index(stages, from)
	if at == 0 {
		return from, to, nil, fmt.Errorf("%s is the first stage: name the one to compare it with", from.Name)
	}
	return stages[at-1], from, args[1:], nil
}

// named refuses arguments that name no file of either stage.
func named(from, to Stage, narrow []string) error {
	old, err := from.Files()
	if err != nil {
		return err
	}
	now, err := to.Files()
	if err != nil {
		return err
	}
	for _, typed := range narrow {
		matches := func(path string) bool { return matches([]string{typed}, path) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(old)), matches) && !slices.ContainsFunc(slices.Collect(maps.Keys(now)), matches) {
			return usageError{fmt.Errorf("neither %s nor %s has a file %s", from.Name, to.Name, typed)}
		}
	}
	return nil
}

// stageLike matches an argument that means a stage, not a file.
var stageLike = regexp.MustCompile(`^(\./)?[0-9]`)

// aside reports whether a file is shown only on request.
func aside(f File) bool {
	return f.Path == "README.md" || f.Path == "go.sum" || f.Testdata()
}

// matches reports whether a path matches an argument: a file, a folder, or a
// pattern.
func matches(typed []string, file string) bool {
	return slices.ContainsFunc(typed, func(t string) bool {
		t = strings.TrimSuffix(strings.TrimPrefix(t, "./"), "/")
		ok, err := path.Match(t, file)
		return t == file || strings.HasPrefix(file, t+"/") || err == nil && ok
	})
}

// printer prints differences.
type printer struct {
	*bufio.Writer

	from, to Stage

	// why is the later stage's diff table.
	why []Named

	colour  bool
	context int
}

// The colors of a difference.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	reset = "\x1b[0m"
)

// line prints a line in a color.
func (p *printer) line(colour, text string) {
	if p.colour && colour != "" {
		text = colour + text + reset
	}
	p.WriteString(text)
	p.WriteByte('\n')
}

// reason returns the README's reason for a file; a row for the file has
// priority over one for its folder.
func (p *printer) reason(file string) string {
	reason := ""
	for _, n := range p.why {
		if n.Path == file {
			return n.Why
		}
		if n.covers(file) {
			reason = n.Why
		}
	}
	return reason
}

// files prints all differences as unified diffs.
func (p *printer) files(changes []Change) {
	for i, c := range changes {
		if i > 0 {
			p.line("", "")
		}
		if reason := p.reason(c.Path); reason != "" {
			p.line(bold, c.Path+": "+reason)
		}
		old, now := p.from.Name+"/"+c.Path, p.to.Name+"/"+c.Path
		if c.Added() {
			old = "/dev/null"
		}
		if c.Removed() {
			now = "/dev/null"
		}
		p.line(bold, "--- "+old)
		p.line(bold, "+++ "+now)
		if c.Lines == nil {
			p.line("", "Binary files differ")
			continue
		}
		for _, hunk := range linediff.Hunks(c.Lines, p.context) {
			p.hunk(c.Lines, hunk)
		}
	}
}

// hunk prints a part of a difference. Its header names the declaration in which
// it begins.
func (p *printer) hunk(all, hunk []linediff.Line) {
	first := hunk[0]
	var olds, news int
	for _, l := range hunk {
		if l.Op != linediff.Insert {
			olds++
		}
		if l.Op != linediff.Delete {
			news++
		}
	}
	head := fmt.Sprintf("@@ -%s +%s @@", span(first.Old, olds), span(first.New, news))
	if p.colour {
		head = cyan + head + reset
	}
	if in := declaration(all, first); in != "" {
		head += " " + in
	}
	p.line("", head)
	for _, l := range hunk {
		colour := map[linediff.Op]string{linediff.Delete: red, linediff.Insert: green}[l.Op]
		// A last line without a newline is followed by the mark.
		for i, text := range strings.SplitN(l.Text, "\n", 2) {
			if i == 0 {
				text = string(l.Op) + text
			}
			p.line(colour, text)
		}
	}
}

// span formats a range of lines for a unified diff: its first line, from 1, and
// its length if that is not 1. An empty range begins at the previous line.
func span(from, length int) string {
	switch length {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(from + 1)
	}
	return fmt.Sprintf("%d,%d", from+1, length)
}

// declaration returns the nearest line above a hunk that begins a declaration:
// it is not indented and begins with a letter.
func declaration(all []linediff.Line, first linediff.Line) string {
	in := ""
	for _, l := range all {
		if l == first {
			break
		}
		if l.Op == linediff.Insert || l.Text == "" {
			continue
		}
		if c := l.Text[0]; 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			in = l.Text
		}
	}
	return in
}

// stat prints one line per file.
func (p *printer) stat(changes []Change) {
	width, most := 0, 1
	for _, c := range changes {
		added, removed := c.Count()
		width, most = max(width, utf8.RuneCountInString(c.Path)), max(most, added+removed)
	}
	var total struct{ added, removed, newFiles, gone int }
	for _, c := range changes {
		added, removed := c.Count()
		total.added, total.removed = total.added+added, total.removed+removed
		mark := ""
		switch {
		case c.Added():
			mark, total.newFiles = "new", total.newFiles+1
		case c.Removed():
			mark, total.gone = "gone", total.gone+1
		}
		counts := fmt.Sprintf("%5s %5s", fmt.Sprintf("+%d", added), fmt.Sprintf("-%d", removed))
		plus, minus := bar(added, most), bar(removed, most)
		if p.colour {
			counts = fmt.Sprintf("%s%5s%s %s%5s%s", green, fmt.Sprintf("+%d", added), reset, red, fmt.Sprintf("-%d", removed), reset)
		}
		graph := strings.Repeat("+", plus) + strings.Repeat("-", minus) + strings.Repeat(" ", barWidth+1-plus-minus)
		if p.colour {
			graph = green + graph[:plus] + red + graph[plus:] + reset
		}
		text := fmt.Sprintf("%-*s %s  %s %-4s %s", width, c.Path, counts, graph, mark, p.reason(c.Path))
		p.line("", strings.TrimRight(text, " "))
	}
	p.line("", fmt.Sprintf("%s → %s: %d files (%d new, %d gone), %d lines more, %d lines less",
		p.from.Name, p.to.Name, len(changes), total.newFiles, total.gone, total.added, total.removed))
}

// barWidth is the length of the longest bar.
const barWidth = 20

// bar returns the length of a bar; only 0 has an empty bar.
func bar(n, most int) int {
	return min(cmp.Or(n*barWidth/most, min(n, 1)), barWidth)
}
