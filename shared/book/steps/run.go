package steps

import (
	"context"
	"errors"
	"example.com/raftsteps/shared/core/pager"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

const usage = `steps is the tool for learners.

  go run ./shared/cmd/steps list
      The ladder: what each stage adds, what it still cannot survive, and how
      long its code is.

  go run ./shared/cmd/steps diff 01 02
      The lesson between two stages: what the later one changes, without the
      noise of import paths. "diff 02" is the step up to 02.

  go run ./shared/cmd/steps check
      Holds every stage to its README: a file that differs from the stage
      before is named there, with the reason. Also finds what only looks like a
      change (moves, white space) and what breaks the rules of the project.

  go run ./shared/cmd/steps script 05 figure-8-an-entry-of-an-older-term
      The story of one script of a stage's rules, message by message. Without a
      name it lists the scripts.

  go run ./shared/cmd/steps table
      Plays every scenario against every stage and prints who survives what.

  go run ./shared/cmd/steps site --out DIR
      Writes the lab of every stage as static files, which any web server can
      serve.

"go run ./shared/cmd/steps help COMMAND" says more about one of them.
`

// command is one of the tool's commands.
type command struct {
	name, help string

	// run carries it out. It defines its flags, parses the arguments with
	// parse, and returns an error for people.
	run func(ctx context.Context, c *call) error
}

// commands returns them all; a function, since help is one of them.
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

// usageError is a command line that makes no sense.
type usageError struct{ error }

// errFound says that a command did its work and found fault; what it is has
// been printed.
var errFound = errors.New("found fault")

// Run carries out a command line (without the program's name) in the repository
// that dir is in, and returns the exit code: 0 if all is well, 1 if something
// failed or check found fault, 2 if the command line makes no sense.
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

// exit says what became of a command, and returns the exit code.
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

// parse reads the flags, wherever they stand, and returns the other arguments,
// of which there must be between least and most.
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
		return nil, usageError{fmt.Errorf("what is %q for?", strings.Join(rest[most:], " "))}
	}
	return rest, nil
}

// colour says whether to colour what goes to w.
func colour(w io.Writer) bool {
	return pager.IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
