package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/run/bench"
)

func (a *app) benchCommand() *cobra.Command {
	o := bench.Defaults()
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure how fast the servers answer", GroupID: groupLearn,
		Long: `Runs clients that each send a request, wait for the answer and send the next request, and reports throughput, latencies
and errors. ^C ends the load early, and the report then covers the time until ^C; the exit code is 130, unless --verify
finds a violation.

With --verify the clients append unique tokens and read them back at the end: every acknowledged token must be there
exactly once. ^C also ends the reading; if the first ^C ended the load, the second one does. The report then says how
many tokens were checked.`,
		Args: a.takes(0, 0),
	}
	f := cmd.Flags()
	f.IntVar(&o.Clients, "clients", o.Clients, "the number of operations in progress at once")
	f.IntVar(&o.Conns, "conns", o.Conns, "the number of connections that the clients share; 0 gives each its own")
	f.DurationVar(&o.Duration, "duration", o.Duration, "how long to measure")
	f.DurationVar(&o.Warmup, "warmup", o.Warmup, "how long to run before measuring")
	f.DurationVar(&o.Pause, "pause", o.Pause, "how long each client waits after an answer")
	f.IntVar(&o.ValueSize, "value-size", o.ValueSize, "the length of the values, in bytes")
	f.IntVar(&o.Keys, "keys", o.Keys, "the number of different keys")
	f.StringVar(&o.Mix, "mix", o.Mix, "the mix of operations, in parts: put=90,get=10")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "the seed of the random keys and operations")
	f.BoolVar(&o.Verify, "verify", o.Verify, "append tokens and check each at the end")
	f.BoolVar(&o.Fill, "fill", o.Fill, "write every key once before the load")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.bench(cmd, o) }
	return cmd
}

func (a *app) bench(cmd *cobra.Command, o bench.Options) error {
	targets, err := a.targets()
	if err != nil {
		return err
	}
	how, err := a.how()
	if err != nil {
		return err
	}
	o.Dial = func() (bench.Client, error) { return a.stage.Dial(targets, how...), nil }
	o.Timeout = a.flags.timeout
	o.Progress = a.stderr
	if o.Verify {
		for _, name := range []string{"mix", "keys", "value-size", "fill"} {
			if cmd.Flags().Changed(name) {
				return usagef("--verify appends its own tokens to its own keys; leave --%s out", name)
			}
		}
		o.Enough = a.signals.cleanUp()
	}
	if err := o.Check(); err != nil {
		return usagef("%v", err)
	}
	report, err := bench.Run(cmd.Context(), o)
	if err != nil {
		return err
	}
	if a.flags.output == "json" {
		text, err := json.Marshal(report)
		if err != nil {
			return fmt.Errorf("the report: %w", err)
		}
		fmt.Fprintf(a.stdout, "%s\n", text)
	} else {
		fmt.Fprint(a.stdout, report)
	}
	err = report.Err()
	if errors.Is(err, bench.ErrInterrupted) {
		return &endError{code: exitInterrupted, message: err.Error()}
	}
	if err == nil && report.Interrupted {
		return exitError(exitInterrupted) // the report says so
	}
	return err
}
