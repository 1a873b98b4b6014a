package steps

import (
	"regexp"
	"strings"
)

// row is a line of a markdown table.
type row struct {
	// line is its number in the file, from 1.
	line int

	// cells are trimmed.
	cells []string
}

// cell returns a cell, or "" if the row is shorter.
func (r row) cell(i int) string {
	if i < len(r.cells) {
		return r.cells[i]
	}
	return ""
}

// section is the text under a heading of the second level.
type section struct {
	// title is the heading's text; "" for the text above the first heading.
	title string

	// rows has the rows of its tables, without headers and rules.
	rows []row
}

// sections splits a markdown text at its headings of the first and second level
// and reads its tables. It ignores fenced blocks.
func sections(text string) []section {
	all := []section{{}}
	inTable := false
	for n, line := range prose(text) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(line, "# ") || strings.HasPrefix(line, "## ") {
			all = append(all, section{title: strings.TrimSpace(strings.TrimLeft(line, "#"))})
		}
		now := &all[len(all)-1]
		switch {
		case !strings.HasPrefix(trimmed, "|"):
			inTable = false
		case !inTable:
			// The head.
			inTable = true
		case strings.Trim(trimmed, "|-: ") == "":
			// The rule below the head.
		default:
			now.rows = append(now.rows, row{line: n + 1, cells: cells(trimmed)})
		}
	}
	return all
}

// prose returns the lines of a text, with empty lines instead of fenced blocks.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	fence := ""
	for n, line := range lines {
		trimmed := strings.TrimSpace(line)
		mark := fenceMark(trimmed)
		switch {
		case mark == "" && fence == "":
			continue
		case fence == "":
			fence = mark
		case strings.HasPrefix(mark, fence) && mark == trimmed:
			fence = ""
		}
		lines[n] = ""
	}
	return lines
}

// fenceMark returns the marks a fence's line begins with, or "".
func fenceMark(line string) string {
	for _, c := range []string{"`", "~"} {
		if rest := strings.TrimLeft(line, c); len(line)-len(rest) >= 3 {
			return line[:len(line)-len(rest)]
		}
	}
	return ""
}

// cells splits a table's line at its bars, except at escaped bars and bars in
// backticks.
func cells(line string) []string {
	var out []string
	var cell strings.Builder
	code, escaped := false, false
	for _, c := range strings.Trim(line, " ") {
		switch {
		case escaped:
			escaped = false
			if c != '|' {
				cell.WriteByte('\\')
			}
			cell.WriteRune(c)
		case c == '\\':
			escaped = true
		case c == '|' && !code:
			out = append(out, strings.TrimSpace(cell.String()))
			cell.Reset()
		default:
			code = code != (c == '`')
			cell.WriteRune(c)
		}
	}
	out = append(out, strings.TrimSpace(cell.String()))
	if len(out) > 0 && out[0] == "" {
		out = out[1:]
	}
	if len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

var inBackticks = regexp.MustCompile("`([^`]+)`")

// names returns the words in backticks in a cell.
func names(cell string) []string {
	var out []string
	for _, m := range inBackticks.FindAllStringSubmatch(cell, -1) {
		out = append(out, strings.TrimSpace(m[1]))
	}
	return out
}

// Rung is a row of the ladder in the top README.
type Rung struct {
	// Line is the row's line in the README.
	Line int

	// Stage is the stage's name.
	Stage string

	// Adds is what is new in it.
	Adds string

	// Lacks is what it still cannot survive.
	Lacks string
}

// Ladder reads the ladder from the top README.
func (r *Repo) Ladder() ([]Rung, error) {
	text, err := README(r.Root)
	if err != nil {
		return nil, err
	}
	var rungs []Rung
	for _, s := range sections(text) {
		for _, row := range s.rows {
			in := names(row.cell(0))
			if len(in) == 1 && stageName.MatchString(in[0]) {
				rungs = append(rungs, Rung{row.line, in[0], withoutMarkdown(row.cell(1)), withoutMarkdown(row.cell(2))})
			}
		}
		if len(rungs) > 0 {
			return rungs, nil
		}
	}
	return nil, nil
}

var links = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)

// withoutMarkdown returns a cell without markdown, for a terminal.
func withoutMarkdown(cell string) string {
	cell = links.ReplaceAllString(cell, "$1")
	return strings.NewReplacer("`", "", "**", "").Replace(cell)
}

// Named is a row of a stage's diff table.
type Named struct {
	// Line is the row's line in the stage's README.
	Line int

	// Path is a file, or a folder if it ends in a slash.
	Path string

	// Why is the README's reason.
	Why string
}

// covers reports whether the row names a file.
func (n Named) covers(file string) bool {
	return n.Path == file || strings.HasSuffix(n.Path, "/") && strings.HasPrefix(file, n.Path)
}

// appendixPrefix begins the reason of a row for code that is not part of the
// lesson.
const appendixPrefix = "appendix: "

// Appendix reports whether the row names code that is not part of the lesson.
func (n Named) Appendix() bool { return strings.HasPrefix(n.Why, appendixPrefix) }

// diffHeading is the section that holds a stage's diff table.
const diffHeading = "The diff"

// DiffTable reads the table of the section "The diff" of a stage's README. It
// returns false if there is no such section.
func (s Stage) DiffTable() ([]Named, bool, error) {
	text, err := README(s.Dir)
	if err != nil {
		return nil, false, err
	}
	for _, section := range sections(text) {
		if !strings.EqualFold(section.title, diffHeading) {
			continue
		}
		var table []Named
		for _, row := range section.rows {
			for _, name := range names(row.cell(0)) {
				table = append(table, Named{row.line, strings.TrimPrefix(name, "./"), withoutMarkdown(row.cell(1))})
			}
		}
		return table, true, nil
	}
	return nil, false, nil
}
