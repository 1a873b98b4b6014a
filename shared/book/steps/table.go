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

const tableHelp = `steps table runs every scenario against every cluster stage, in the
simulator, and prints as a markdown table which stages survive it.

Each stage is run as a reader would run it:

  go run ./02-naive-replication scenario --all -o json

  table                    print the table
  table --check README.md  compare it with the one in the README; exit code 1 if they differ
  table --write README.md  write it into the README

In the README, the table is between the two comments
<!-- steps table --> and <!-- end of steps table -->.
`

// table is the command.
func table(ctx context.Context, c *call) error {
	checkFile := c.flags.String("check", "", "compare the table with the one in `FILE`")
	writeFile := c.flags.String("write", "", "write the table into `FILE`")
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
		// The scenarios take long, so check first that the file has the comments.
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

// Outcome is the result of a scenario against a stage. With "scenario --all -o
// json", a stage prints one outcome per line, as JSON.
type Outcome struct {
	// Stage and Scenario are the names of the two.
	Stage    string `json:"stage"`
	Scenario string `json:"scenario"`

	// Survived is true if the stage has survived the scenario.
	Survived bool `json:"survived"`

	// Why says in a sentence what went wrong, or that nothing did.
	Why string `json:"why"`

	// Seed is the seed of the run.
	Seed uint64 `json:"seed"`
}

// Clustered reports whether a stage has rules for a cluster, against which
// scenarios can run.
func (s Stage) Clustered() bool {
	for _, ring := range []string{"naive", "raft"} {
		if info, err := os.Stat(filepath.Join(s.Dir, ring)); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}

// Table runs all scenarios and returns the table as markdown. It writes to
// progress which stage is running.
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

// Play runs a stage's scenarios in another process.
func (s Stage) Play(ctx context.Context) ([]Outcome, error) {
	// The process runs in the stage's folder, so that it works without go.work
	// too.
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

// outcomes decodes the outcomes that a stage printed.
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
			return nil, fmt.Errorf("%s printed a line that is not an outcome: %w: %s", s.Name, err, lines.Bytes())
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

// format returns the table. It has one row per scenario, in the order of the
// outcomes, and one column per stage. If a scenario did not run against a stage,
// the cell is empty. A stage survives a scenario if it survived it with every
// seed.
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

// The table is between these comments.
const (
	tableBegin = "<!-- steps table -->\n"
	tableEnd   = "<!-- end of steps table -->"
)

// placed is the content of a file with the table: the text before the table, the
// table, and the text after it.
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

// compareTable prints whether the table in a file is this one, and if not, the
// differences.
func (c *call) compareTable(file, got string) error {
	p, err := readTable(file)
	if err != nil {
		return err
	}
	if p.table == got {
		fmt.Fprintln(c.stdout, "the table agrees with the scenarios")
		return nil
	}
	fmt.Fprintf(c.stdout, "the table in %s does not agree with the scenarios:\n", filepath.Base(file))
	printPlain(c.stdout, lines([]byte(p.table)), lines([]byte(got)))
	fmt.Fprintf(c.stdout, "If the new table is right: go run ./shared/cmd/steps table --write %s\n", filepath.Base(file))
	return errFound
}
