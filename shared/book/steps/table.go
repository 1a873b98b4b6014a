package steps

import (
	"bufio"
	"bytes"
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
)

const tableHelp = `steps table plays every scenario against every cluster stage, in the
simulator, and prints who survives what as a markdown table.

Each stage is run as a reader would run it:

  go run ./02-naive-replication scenario --all -o json

  table                    print the table
  table --check README.md  compare it with the one in the README; 1 if it differs
  table --write README.md  put it there

In the README the table stands between the two comments
<!-- steps table --> and <!-- end of steps table -->.
`

// table is the command.
func table(ctx context.Context, c *call) error {
	checkFile := c.flags.String("check", "", "compare the table with the one in `FILE`")
	writeFile := c.flags.String("write", "", "put the table into `FILE`")
	if _, err := c.parse(0, 0); err != nil {
		return err
	}
	if *checkFile != "" && *writeFile != "" {
		return usageError{errors.New("--check and --write exclude each other")}
	}
	repo, err := Open(c.dir)
	if err != nil {
		return err
	}
	file := *checkFile + *writeFile
	if file != "" && !filepath.IsAbs(file) {
		file = filepath.Join(c.dir, file)
	}
	if file != "" {
		// Before the long work: is there a place for the table?
		if _, err := readTable(file); err != nil {
			return err
		}
	}
	got, err := repo.Table(ctx, c.stderr)
	if err != nil {
		return err
	}
	switch {
	case *writeFile != "":
		return writeTable(file, got)
	case *checkFile != "":
		return c.compareTable(file, got)
	}
	_, err = io.WriteString(c.stdout, got)
	return err
}

// Outcome is how a stage fared in a scenario. A stage prints one a line, as
// JSON, for "scenario --all -o json".
type Outcome struct {
	// Stage and Scenario are their names.
	Stage    string `json:"stage"`
	Scenario string `json:"scenario"`

	// Survived says whether all went well.
	Survived bool `json:"survived"`

	// Why is what went wrong, or a sentence about what went well.
	Why string `json:"why"`

	// Seed is that of the run.
	Seed uint64 `json:"seed"`
}

// Clustered says whether a stage has rules that scenarios can be played
// against.
func (s Stage) Clustered() bool {
	for _, ring := range []string{"naive", "raft"} {
		if info, err := os.Stat(filepath.Join(s.Dir, ring)); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}

// Table plays all scenarios and returns the table as markdown. It tells progress
// which stage has its turn.
func (r *Repo) Table(ctx context.Context, progress io.Writer) (string, error) {
	stages, err := r.Stages()
	if err != nil {
		return "", err
	}
	stages = slices.DeleteFunc(stages, func(s Stage) bool { return !s.Clustered() })
	var all []Outcome
	for _, s := range stages {
		fmt.Fprintf(progress, "playing all scenarios against %s\n", s.Name)
		outcomes, err := s.Play(ctx)
		if err != nil {
			return "", err
		}
		all = append(all, outcomes...)
	}
	return format(stages, all), nil
}

// Play runs a stage's scenarios in a process of its own.
func (s Stage) Play(ctx context.Context) ([]Outcome, error) {
	// From the stage's own folder, so that it works without go.work too.
	cmd := exec.CommandContext(ctx, "go", "run", ".", "scenario", "--all", "-o", "json")
	cmd.Dir = s.Dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go run ./%s scenario --all -o json: %w\n%s%s", s.Name, err, out, stderr.Bytes())
	}
	return outcomes(s, out)
}

// outcomes reads what a stage printed.
func outcomes(s Stage, out []byte) ([]Outcome, error) {
	var all []Outcome
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var o Outcome
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("%s printed a line that is no outcome: %w: %s", s.Name, err, lines.Bytes())
		}
		if o.Stage != s.Name || o.Scenario == "" {
			return nil, fmt.Errorf("%s printed an outcome of stage %q, scenario %q", s.Name, o.Stage, o.Scenario)
		}
		all = append(all, o)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading what %s printed: %w", s.Name, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s printed no outcome for scenario --all -o json", s.Name)
	}
	return all, nil
}

// format makes the table: a row for each scenario, in the order in which the
// stages played them, a column for each stage. Where a stage was not played, the
// cell is empty. A stage survives a scenario if it did so with every seed.
func format(stages []Stage, all []Outcome) string {
	var scenarios []string
	type cell struct{ stage, scenario string }
	survived := make(map[cell]bool)
	for _, o := range all {
		if !slices.Contains(scenarios, o.Scenario) {
			scenarios = append(scenarios, o.Scenario)
		}
		at := cell{o.Stage, o.Scenario}
		before, seen := survived[at]
		survived[at] = o.Survived && (before || !seen)
	}
	var b strings.Builder
	b.WriteString("| scenario |")
	for _, s := range stages {
		fmt.Fprintf(&b, " %s |", s.Number())
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(stages)) + "\n")
	for _, scenario := range scenarios {
		fmt.Fprintf(&b, "| %s |", scenario)
		for _, s := range stages {
			text := ""
			if ok, played := survived[cell{s.Name, scenario}]; ok {
				text = " survives"
			} else if played {
				text = " **breaks**"
			}
			b.WriteString(text + " |")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// The comments between which the table stands.
const (
	tableBegin = "<!-- steps table -->\n"
	tableEnd   = "<!-- end of steps table -->"
)

// placed is a file that holds the table: what stands before it, the table, what
// follows it.
type placed struct{ before, table, behind string }

func readTable(file string) (placed, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return placed{}, err
	}
	before, rest, ok := strings.Cut(string(data), tableBegin)
	table, behind, end := strings.Cut(rest, tableEnd)
	if !ok || !end {
		return placed{}, fmt.Errorf("%s has no place for the table: put the comments %s and %s there, each on a line of its own", file, strings.TrimSpace(tableBegin), tableEnd)
	}
	return placed{before, table, behind}, nil
}

func writeTable(file, table string) error {
	p, err := readTable(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(p.before+tableBegin+table+tableEnd+p.behind), 0o644)
}

// compareTable says whether a file holds the table.
func (c *call) compareTable(file, got string) error {
	p, err := readTable(file)
	if err != nil {
		return err
	}
	if p.table == got {
		fmt.Fprintln(c.stdout, "the table is the one that the scenarios give")
		return nil
	}
	fmt.Fprintf(c.stdout, "the table in %s is not the one that the scenarios give:\n", filepath.Base(file))
	printPlain(c.stdout, lines([]byte(p.table)), lines([]byte(got)))
	fmt.Fprintf(c.stdout, "If the new one is right: go run ./shared/cmd/steps table --write %s\n", filepath.Base(file))
	return errFound
}
