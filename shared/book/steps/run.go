package steps

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"example.com/raftsteps/shared/core/pager"
)

const usage = `steps is the tool for learners.

  go run ./shared/cmd/steps list
      Lists the stages: what each one adds, what it still cannot survive, and
      how long its code is.

  go run ./shared/cmd/steps diff 01 02
      Shows the lesson between two stages: what the later one changes, without
      the differences of import paths. "diff 02" compares 02 with the stage
      before it.

  go run ./shared/cmd/steps check
      Checks every stage against its README: a file that differs from the stage
      before must be named there, with the reason. Also finds differences that are
      only moves or white space, and violations of the project's rules.

  go run ./shared/cmd/steps script 05 figure-8-an-entry-of-an-older-term
      Prints the story of one script of a stage's rules, message by message.
      Without a name it lists the scripts.

  go run ./shared/cmd/steps table
      Runs every scenario against every stage and prints which stages survive it.

  go run ./shared/cmd/steps site --out DIR
      Writes the lab of every stage as static files, which any web server can
      serve.

"go run ./shared/cmd/steps help COMMAND" explains one of the commands.
`

// command is one of the tool's commands.
type command struct {
	name, help string

	// run carries out the command. It defines the flags of the command, parses
	// the arguments with parse, and returns an error for the user.
	run func(ctx context.Context, c *call) error
}

// commands returns all commands. It is a function and not a variable because the
// commands refer to it.
func commands() []command {
	return []command{
		{"list", listHelp, list},
		{"diff", diffHelp, diff},
		{"check", checkHelp, check},
		{"script", scriptHelp, script},
		{"table", tableHelp, table},
		{"site", siteHelp, siteCommand},
	}
}

// call is one run of a command.
type call struct {
	dir    string
	args   []string
	flags  *flag.FlagSet
	stdout io.Writer
	stderr io.Writer
}

// usageError says that the command line is wrong.
type usageError struct{ error }

// errFound says that a command has run and has found and printed problems.
var errFound = errors.New("found problems")

// Run carries out a command line (without the program's name) in the repository
// that contains dir, and returns the exit code: 0 if it succeeded, 1 if it failed
// or has found problems, 2 if the command line is wrong.
func Run(ctx context.Context, dir string, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	name, rest := args[0], args[1:]
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		if len(rest) == 0 {
			fmt.Fprint(stdout, usage)
			return 0
		}
		name, rest = rest[0], []string{"-h"}
	}
	for _, command := range commands() {
		if command.name != name {
			continue
		}
		c := &call{dir: dir, args: rest, flags: flag.NewFlagSet(name, flag.ContinueOnError), stdout: stdout, stderr: stderr}
		c.flags.SetOutput(io.Discard)
		err := command.run(ctx, c)
		return exit(err, command, c)
	}
	fmt.Fprintf(stderr, "steps: there is no command %q; there are list, diff, check, script, table, site and help\n", name)
	return 2
}

// exit prints the error or the help of a command, and returns the exit code.
func exit(err error, command command, c *call) int {
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(c.stdout, command.help)
		c.flags.SetOutput(c.stdout)
		fmt.Fprintln(c.stdout, "\nFlags:")
		c.flags.PrintDefaults()
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(c.stderr, "steps %s: %v\nSee: go run ./shared/cmd/steps help %s\n", command.name, err, command.name)
		return 2
	case errors.Is(err, errFound):
		return 1
	default:
		fmt.Fprintf(c.stderr, "steps %s: %v\n", command.name, err)
		return 1
	}
}

// parse reads the flags, which may be before and after other arguments, and
// returns the other arguments. There must be least to most of them.
func (c *call) parse(least, most int) ([]string, error) {
	var rest []string
	args := c.args
	for {
		if err := c.flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usageError{err}
		}
		args = c.flags.Args()
		if len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	switch {
	case len(rest) < least:
		return nil, usageError{errors.New("an argument is missing")}
	case len(rest) > most:
		return nil, usageError{fmt.Errorf("these arguments are too many: %q", strings.Join(rest[most:], " "))}
	}
	return rest, nil
}

// colour reports whether to color the text that is written to w.
func colour(w io.Writer) bool {
	return pager.IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
