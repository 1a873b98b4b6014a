package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/pager"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/diagram"
	"example.com/raftsteps/shared/lab/scenario"
)

// allSeeds is the default number of seeds per scenario for --all.
const allSeeds = 3

// scenarioFlags has the flags of the command scenario.
type scenarioFlags struct {
	list    bool
	all     bool
	verbose bool
	seed    uint64
	seeds   int
	shard   string
	trace   string
	svg     string
}

func (a *app) scenarioCommand() *cobra.Command {
	var f scenarioFlags
	cmd := &cobra.Command{
		Use: "scenario [NAME]", Short: "Play a scenario in the simulator", GroupID: groupLearn,
		Long: `Plays a scenario against this stage's servers in the simulator, in virtual time, and prints what happens: the chapters, decisions, losses,
and the logs at the turning points; -v prints every event. The same seed gives the same run. The exit code is 0 if the stage survives or breaks as it declares.`,
		Args: a.takes(0, 1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return slices.Concat(a.stage.Scenarios.Survives, a.stage.Scenarios.Fails), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.all && !cmd.Flags().Changed("seeds") {
				f.seeds = allSeeds
			}
			return a.scenario(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.list, "list", false, "list the scenarios and whether this stage survives")
	flags.BoolVar(&f.all, "all", false, fmt.Sprintf("play all scenarios, with one line each and no story; %d seeds unless --seeds says otherwise", allSeeds))
	flags.Uint64Var(&f.seed, "seed", 1, "the seed of the run, or of the first")
	flags.IntVar(&f.seeds, "seeds", 1, "the number of runs, each with the next seed")
	flags.StringVar(&f.shard, "shard", "", "play only every Nth seed, I being the first: I/N, with I from 0; /N takes I from JOB_COMPLETION_INDEX, as a Job of Kubernetes sets it")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print everything: every message, save and repetition")
	flags.StringVar(&f.trace, "trace", "", "write all events to this file, as lines of JSON")
	flags.StringVar(&f.svg, "svg", "", "draw the turning points into this file, as a space-time diagram")
	return cmd
}

func (a *app) scenario(ctx context.Context, f scenarioFlags, args []string) error {
	one := len(args) == 1
	switch {
	case f.list && (f.all || one) || f.all && one:
		return usagef("scenario takes one of NAME, --list and --all")
	case f.seeds < 1:
		return usagef("--seeds is %d; it must be at least 1", f.seeds)
	case (f.trace != "" || f.svg != "") && (!one || f.seeds != 1):
		return usagef("--trace and --svg are for one run of one scenario")
	case f.list:
		return a.listScenarios()
	case f.all:
		return a.playAll(ctx, f)
	case !one:
		return &usageError{message: "scenario takes one of NAME, --list and --all", hint: fmt.Sprintf("see %q", a.commandLine("scenario", "--list"))}
	}
	if _, err := scenario.Find(args[0]); err != nil {
		return usagef("%v", err)
	}
	seeds, err := f.each()
	if err != nil {
		return err
	}
	for _, seed := range seeds {
		if err := a.play(ctx, f, args[0], seed); err != nil {
			return err
		}
	}
	return nil
}

// jobIndex is the variable in which an Indexed Job of Kubernetes gives each of its
// pods a number from 0.
const jobIndex = "JOB_COMPLETION_INDEX"

// each returns the seeds to play: all, or those of a shard.
func (f scenarioFlags) each() ([]uint64, error) {
	index, number := 0, 1
	if f.shard != "" {
		var err error
		if index, number, err = parseShard(f.shard); err != nil {
			return nil, err
		}
	}
	var seeds []uint64
	for i := index; i < f.seeds; i += number {
		seeds = append(seeds, f.seed+uint64(i))
	}
	if len(seeds) == 0 {
		return nil, usagef("shard %d of %d has no seeds, because there are only %d; raise --seeds", index, number, f.seeds)
	}
	return seeds, nil
}

// parseShard reads I/N, or /N with I from the environment.
func parseShard(text string) (index, number int, err error) {
	first, last, found := strings.Cut(text, "/")
	source := "--shard"
	if found && first == "" {
		if first = os.Getenv(jobIndex); first == "" {
			return 0, 0, usagef("--shard is %q, but %s is not set; write the number of the shard, such as 0%s", text, jobIndex, text)
		}
		source = jobIndex
	}
	number, err = strconv.Atoi(last)
	if !found || err != nil || number < 1 {
		return 0, 0, usagef("--shard is %q; it must be I/N, such as 0/100 for the first of 100 shards", text)
	}
	index, err = strconv.Atoi(first)
	if err != nil || index < 0 || index >= number {
		return 0, 0, usagef("%s is %q; it must be a number from 0 to %d", source, first, number-1)
	}
	return index, number, nil
}

// scenarios returns the stage for the simulator.
func (a *app) scenarios() scenario.Stage {
	s := *a.stage.Scenarios
	s.Name = a.stage.Name
	return s
}

// listScenarios lists the stage's scenarios, in the order of the catalog.
func (a *app) listScenarios() error {
	table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, s := range scenario.All() {
		if fate := a.fate(s.Name); fate != "" {
			fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, fate, s.Claim)
		}
	}
	return table.Flush()
}

// fate returns what the stage declares about a scenario; "" if it does not
// apply.
func (a *app) fate(name string) string {
	switch {
	case slices.Contains(a.stage.Scenarios.Survives, name):
		return "survives"
	case slices.Contains(a.stage.Scenarios.Fails, name):
		return "breaks"
	}
	return ""
}

// playAll plays all scenarios and prints one line per run.
func (a *app) playAll(ctx context.Context, f scenarioFlags) error {
	seeds, err := f.each()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range scenario.All() {
		if a.fate(s.Name) == "" {
			continue
		}
		for _, seed := range seeds {
			r, err := scenario.Play(a.scenarios(), s.Name, seed, nil)
			switch {
			case ctx.Err() != nil:
				return errInterrupted
			case err != nil:
				return err
			}
			if err := a.showResult(r); err != nil {
				return err
			}
			errs = append(errs, a.asDeclared(r))
		}
	}
	return errors.Join(errs...)
}

// play plays one scenario and shows its story, page by page on a terminal. ^C
// does not stop a run, which takes a few seconds at most.
func (a *app) play(ctx context.Context, f scenarioFlags, name string, seed uint64) error {
	err := pager.Show(a.stdout, func(w io.Writer) error { return a.playTo(w, f, name, seed) })
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

func (a *app) playTo(w io.Writer, f scenarioFlags, name string, seed uint64) (err error) {
	tell, end := a.teller(w, f)
	sinks := []trace.Sink{tell}
	if a.flags.output == "json" {
		sinks = nil
	}
	if f.trace != "" {
		file, err := createTrace(f.trace, os.O_TRUNC)
		if err != nil {
			return err
		}
		defer file.Close()
		writer := trace.NewWriter(file)
		defer func() { err = errors.Join(err, writer.Flush()) }()
		sinks = append(sinks, writer.Emit)
	}
	var events []trace.Event
	if f.svg != "" {
		sinks = append(sinks, func(e trace.Event) { events = append(events, e) })
	}
	r, err := scenario.Play(a.scenarios(), name, seed, trace.Tee(sinks...))
	switch {
	case errors.Is(err, scenario.ErrNotApplicable):
		return fmt.Errorf("the scenario %s does not apply to this stage; see %q", name, a.commandLine("scenario", "--list"))
	case err != nil:
		return err
	}
	if f.svg != "" {
		if err := os.WriteFile(f.svg, diagram.Draw(name, events), 0o666); err != nil {
			return fmt.Errorf("--svg: %w", err)
		}
	}
	if a.flags.output == "json" {
		if err := a.showResult(r); err != nil {
			return err
		}
	}
	if err := errors.Join(end(), a.asDeclared(r)); err != nil || a.flags.output == "json" {
		return err
	}
	_, err = fmt.Fprintf(w, "%s %s, as this stage declares\nwatch it in the browser: %s\n", name, a.fate(name), r.Watch())
	return err
}

// teller returns the sink that tells the story, and a function to call at its
// end.
func (a *app) teller(w io.Writer, f scenarioFlags) (tell trace.Sink, end func() error) {
	if f.verbose {
		n := trace.NewNarrator(w)
		n.Color, n.Verbose = wantsColor(a.stdout), true
		return n.Tell, n.Err
	}
	d := trace.NewDigest(w, trace.StoryLines)
	d.Color = wantsColor(a.stdout)
	return d.Tell, d.End
}

// showResult prints one line about a run.
func (a *app) showResult(r scenario.Result) error {
	if a.flags.output != "json" {
		fmt.Fprintln(a.stdout, r)
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("the result: %w", err)
	}
	fmt.Fprintf(a.stdout, "%s\n", text)
	return nil
}

// asDeclared returns an error if the result contradicts the stage's
// declaration.
func (a *app) asDeclared(r scenario.Result) error {
	switch fate := a.fate(r.Scenario); {
	case fate == "survives" && !r.Survived:
		return fmt.Errorf("%s should survive %s but does not: %s; repeat it with: %s, or watch it with: %s", r.Stage, r.Scenario, r.Why, r.Replay(), r.Watch())
	case fate == "breaks" && r.Survived:
		return fmt.Errorf("%s should break in %s but does not; repeat it with: %s, or watch it with: %s", r.Stage, r.Scenario, r.Replay(), r.Watch())
	}
	return nil
}
