package steps

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"example.com/raftsteps/shared/book/linediff"
)

const checkHelp = `steps check checks every stage against its README and to the rules of the project.

For each stage and the one before it:

  - A file that is new, changed or gone has a row in the table under
    "## The diff" in the stage's README, and every row names such a file.
    (Test files, README.md, go.mod, go.sum and testdata need none.)
  - No file and no declaration stands in another place than before: a move
    hides the lesson.
  - No change is one of white space or of the places where comments stand.
  - go.mod asks for the same modules, but for what those bring along and what
    only tests need.

And for each stage by itself:

  - raft/ and naive/ import the standard library only; none of their functions
    is longer than 40 lines.
  - raft/ has at most 440 lines of code in 03 and 04, 630 in 05, 770 in 06 and
    960 in 07, counted as steps list counts them.
  - In a cluster's stage, server/ imports neither shared/core/wire nor shared/core/host.
  - Nothing in shared imports a stage, and no stage imports another.
  - In shared, core imports only core; lab only core and lab; run only core, lab
    and run; book only core and book, and book/site also lab.
  - The ladder in the top README, go.work and the folders agree.
  - Every README links to the glossary, and its first mention of a section of
    the paper or the thesis is a link.

Every finding is a line that says what to do. The exit code is 1 if there is one.
`

// Finding is an error that Check found.
type Finding struct {
	// Path is the file, relative to the root of the repository.
	Path string

	// Line is the line in the file, from 1, or 0.
	Line int

	// Text says what is wrong and what to do.
	Text string
}

func (f Finding) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Text)
	}
	return f.Path + ": " + f.Text
}

// check is the command.
func check(_ context.Context, c *call) error {
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	findings, err := repo.Check()
	if err != nil {
		return err
	}
	for _, f := range findings {
		fmt.Fprintln(c.stdout, f)
	}
	stages, err := repo.Stages()
	if err != nil {
		return err
	}
	if len(findings) > 0 {
		fmt.Fprintf(c.stdout, "\n%d findings in %d stages\n", len(findings), len(stages))
		return errFound
	}
	fmt.Fprintf(c.stdout, "%d stages: each is what its README says\n", len(stages))
	return nil
}

// Check makes all checks of the command check. The findings are ordered by
// stage. An error means that a file could not be read.
func (r *Repo) Check() ([]Finding, error) {
	stages, err := r.Stages()
	if err != nil {
		return nil, err
	}
	k := &checker{repo: r, stages: stages, mods: make(map[string]goMod)}
	steps := []func() error{k.workspace, k.ladder, k.shared, k.links}
	for i, s := range stages {
		steps = append(steps, func() error { return k.stage(s) })
		if i > 0 {
			steps = append(steps, func() error { return k.pair(stages[i-1], s) })
		}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return k.findings, nil
}

// checker collects findings.
type checker struct {
	repo     *Repo
	stages   []Stage
	findings []Finding

	// mods are the go.mod files read so far, by folder.
	mods map[string]goMod
}

// found adds a finding about a file of the repository.
func (k *checker) found(path string, line int, format string, args ...any) {
	k.findings = append(k.findings, Finding{path, line, fmt.Sprintf(format, args...)})
}

// in returns the path of a stage's file in the repository.
func in(s Stage, path string) string { return s.Name + "/" + path }

// pair compares a stage with the previous one.
func (k *checker) pair(from, to Stage) error {
	a, _ := strconv.Atoi(from.Number())
	b, _ := strconv.Atoi(to.Number())
	if b != a+1 {
		k.found(to.Name, 0, "the stage before it is %s: the ladder has no stage %02d", from.Name, a+1)
		return nil
	}
	changes, err := Compare(from, to)
	if err != nil {
		return err
	}
	if err := k.table(from, to, changes); err != nil {
		return err
	}
	moved := k.movedFiles(from, to, changes)
	k.movedDeclarations(from, to, changes, moved)
	for _, c := range changes {
		if c.Old != nil && c.New != nil && c.Lines != nil && c.Path != "README.md" && c.Path != "go.sum" && c.Path != "go.mod" && !c.New.Testdata() {
			k.whiteSpace(from, to, c)
		}
	}
	return nil
}

// table compares the changes with the table in the stage's README.
func (k *checker) table(from, to Stage, changes []Change) error {
	table, ok, err := to.DiffTable()
	if err != nil {
		return err
	}
	if !ok {
		k.found(in(to, "README.md"), 0, `it has no section "## %s"; add one with a table | file | why | that names what changed since %s`, diffHeading, from.Name)
	}
	needs, err := k.goMod(from, to)
	if err != nil {
		return err
	}
	differs := func(n Named) bool {
		return n.Path == "go.mod" && needs != "" || slices.ContainsFunc(changes, func(c Change) bool {
			return c.Path != "go.mod" && n.covers(c.Path)
		})
	}
	named := func(path string) bool {
		return slices.ContainsFunc(table, func(n Named) bool { return n.covers(path) })
	}
	if needs != "" && ok && !named("go.mod") {
		k.found(in(to, "go.mod"), 0, "%s; make it agree with %s/go.mod, or say in the README's diff table, in a row `go.mod`, why the lesson needs it", needs, from.Name)
	}
	for _, c := range changes {
		if !ok || named(c.Path) || !c.file().Lesson() {
			continue
		}
		switch {
		case c.Added():
			k.found(in(to, c.Path), 0, "it is new since %s, and the README's diff table does not name it: add a row `%s`", from.Name, c.Path)
		case c.Removed():
			k.found(in(to, c.Path), 0, "%s has this file and this stage has not, and the README's diff table does not name it: bring it back, or add a row `%s`", from.Name, c.Path)
		default:
			k.found(in(to, c.Path), 0, "it differs from %s, and the README's diff table does not name it: make them the same, or add a row `%s`", from.Name, c.Path)
		}
	}
	for _, n := range table {
		if !differs(n) {
			k.found(in(to, "README.md"), n.Line, "the diff table names `%s`, which is the same in %s or in neither stage: take the row out", n.Path, from.Name)
		}
		if !n.Appendix() && strings.HasPrefix(strings.ToLower(n.Why), "appendix") {
			k.found(in(to, "README.md"), n.Line, "the reason for `%s` speaks of an appendix, but does not begin with %q: write it so, or the file counts as part of the lesson", n.Path, appendixPrefix)
		}
	}
	return nil
}

// whiteSpace finds changes of white space only.
func (k *checker) whiteSpace(from, to Stage, c Change) {
	for _, run := range runs(c.Lines) {
		var old, now []string
		for _, l := range run {
			if l.Op == linediff.Delete {
				old = append(old, l.Text)
			} else {
				now = append(now, l.Text)
			}
		}
		line := run[0].New + 1
		if squeeze(old) == squeeze(now) {
			k.found(in(to, c.Path), line, "only white space or line breaks differ from %s here: make the lines the same in both", from.Name)
			continue
		}
		if text := realigned(old, now); text != "" {
			k.found(in(to, c.Path), line, "the comment behind %q only stands in another column than in %s: put it on the line above, in both", text, from.Name)
		}
	}
}

// runs returns the parts of a difference in which every line is a change.
func runs(lines []linediff.Line) [][]linediff.Line {
	return linediff.Hunks(lines, 0)
}

// squeeze removes white space and leading comment marks from lines, so that a
// comment with different line breaks compares equal.
func squeeze(lines []string) string {
	var b strings.Builder
	comment := false
	for _, line := range lines {
		text := strings.TrimSpace(line)
		rest, isComment := strings.CutPrefix(text, "//")
		if isComment && comment {
			text = rest
		}
		comment = isComment
		for _, word := range strings.Fields(text) {
			b.WriteString(word)
		}
	}
	return b.String()
}

// realigned finds a line that differs only in the space before the comment at
// its end, and returns its code, or "".
func realigned(old, now []string) string {
	for _, a := range old {
		code, comment, ok := trailing(a)
		if !ok {
			continue
		}
		for _, b := range now {
			if c, d, ok := trailing(b); ok && c == code && d == comment && a != b {
				return strings.TrimSpace(code)
			}
		}
	}
	return ""
}

// trailing splits a line into its code and the comment after it.
func trailing(line string) (code, comment string, ok bool) {
	code, comment, ok = strings.Cut(line, " //")
	code = strings.TrimRight(code, " \t")
	return code, comment, ok && strings.TrimSpace(code) != ""
}

// ladder compares the top README's ladder with the stages.
func (k *checker) ladder() error {
	rungs, err := k.repo.Ladder()
	if err != nil {
		return err
	}
	for i, s := range k.stages {
		at := slices.IndexFunc(rungs, func(r Rung) bool { return r.Stage == s.Name })
		if at < 0 {
			k.found("README.md", 0, "the ladder has no row for `%s`: say what it adds and what it still cannot survive", s.Name)
		} else if at != i && len(rungs) == len(k.stages) {
			k.found("README.md", rungs[at].Line, "the rows of the ladder are not in the order of the stages")
		}
	}
	for _, r := range rungs {
		if !slices.ContainsFunc(k.stages, func(s Stage) bool { return s.Name == r.Stage }) {
			k.found("README.md", r.Line, "the ladder names `%s`, which does not exist: take the row out", r.Stage)
		}
		if r.Adds == "" || r.Lacks == "" {
			k.found("README.md", r.Line, "the ladder's row for `%s` has an empty cell: say what it adds and what it still cannot survive", r.Stage)
		}
	}
	return nil
}

// workspace compares go.work and the go.mod files with the folders.
func (k *checker) workspace() error {
	work, err := goWork(k.repo.Root)
	if err != nil {
		return err
	}
	var want []string
	for _, s := range k.stages {
		want = append(want, "./"+s.Name)
	}
	want = append(want, "./shared")
	for _, path := range want {
		if !slices.Contains(work.uses, path) {
			k.found("go.work", 0, "it does not use %s: run go work use %s", path, path)
		}
	}
	for _, path := range work.uses {
		unfinished := stageName.MatchString(filepath.Base(path)) && exists(k.repo.Root, filepath.Join(path, "go.mod"))
		heavy := within(path, "./shared") && exists(k.repo.Root, filepath.Join(path, "go.mod"))
		if !slices.Contains(want, path) && !unfinished && !heavy {
			k.found("go.work", 0, "it uses %s, which is neither a stage nor a module in shared: run go work edit -dropuse=%s", path, path)
		}
	}
	shared, err := k.mod(filepath.Join(k.repo.Root, "shared"))
	if err != nil {
		return err
	}
	for _, s := range k.stages {
		mod, err := k.mod(s.Dir)
		if err != nil {
			return err
		}
		sharedPath := k.repo.Module + "/shared"
		switch {
		case mod.Module.Path != s.Module:
			k.found(in(s, "go.mod"), 0, "the module is called %s; call it %s", mod.Module.Path, s.Module)
		case mod.Go != shared.Go || mod.Toolchain != shared.Toolchain:
			k.found(in(s, "go.mod"), 0, "it says go %s, and shared/go.mod says go %s: write the same in both", cmp.Or(mod.Toolchain, mod.Go), cmp.Or(shared.Toolchain, shared.Go))
		case !slices.Contains(mod.replaces(), sharedPath+" => ../shared"):
			k.found(in(s, "go.mod"), 0, "it cannot be built alone: add replace %s => ../shared", sharedPath)
		}
	}
	return nil
}
