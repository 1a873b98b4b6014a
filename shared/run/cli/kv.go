package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// kvCommand describes a command of the store.
type kvCommand struct {
	op    string
	use   string
	short string
	long  string
	args  int
	make  func(args []string) api.Request

	// others are names that people may try instead.
	others []string
}

var kvCommands = []kvCommand{
	{kv.Get, "get KEY", "Read a key",
		"Prints the value of KEY and a newline. A key without a value is an error (exit code 3).", 1,
		func(a []string) api.Request { return api.Request{Op: kv.Get, Key: a[0]} }, []string{"read", "show"}},
	{kv.Put, "put KEY VALUE", "Set a key",
		"Sets KEY to VALUE and prints ok. If VALUE is -, it is read from standard input, byte for byte,\nincluding a newline at its end.", 2,
		func(a []string) api.Request { return api.Request{Op: kv.Put, Key: a[0], Value: a[1]} }, []string{"set", "write"}},
	{kv.Create, "create KEY VALUE", "Set a key that has no value",
		"Sets KEY to VALUE and prints ok if KEY has no value. A key with a value is an error (exit code 4).\nIf VALUE is -, it is read from standard input, byte for byte.", 2,
		func(a []string) api.Request { return api.Request{Op: kv.Create, Key: a[0], Value: a[1]} }, []string{"insert", "setnx"}},
	{kv.Append, "append KEY VALUE", "Add to the end of a key's value",
		"Adds VALUE to the end of the value of KEY and prints its new length in bytes. A key without a value\ncounts as empty. If VALUE is -, it is read from standard input, byte for byte.", 2,
		func(a []string) api.Request { return api.Request{Op: kv.Append, Key: a[0], Value: a[1]} }, nil},
	{kv.Cas, "cas KEY OLD NEW", "Set a key if it has the expected value",
		"Compare and set: sets KEY to NEW and prints ok if its value is OLD. Another value is an error (exit code 4), and\nso is a key without a value (exit code 3). If NEW is -, it is read from standard input, byte for byte.", 3,
		func(a []string) api.Request { return api.Request{Op: kv.Cas, Key: a[0], Old: a[1], Value: a[2]} }, nil},
	{kv.Delete, "delete KEY", "Remove a key",
		"Removes KEY and prints ok. A key without a value is an error (exit code 3).", 1,
		func(a []string) api.Request { return api.Request{Op: kv.Delete, Key: a[0]} }, []string{"del", "rm", "unset"}},
}

// kvCommands returns the commands of the store that the servers support.
func (a *app) kvCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, c := range kvCommands {
		if op, known := a.stage.Ops[c.op]; known {
			out = append(out, a.kvCommand(c, op))
		}
	}
	if op, known := a.stage.Ops[api.List]; known {
		out = append(out, a.listCommand(op))
	}
	if _, known := a.stage.Ops[api.Watch]; known {
		out = append(out, a.watchCommand())
	}
	return out
}

func (a *app) kvCommand(c kvCommand, op api.Op) *cobra.Command {
	var consistency string
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long, GroupID: groupClient, SuggestFor: c.others,
		Args:              a.takes(c.args, c.args),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkConsistency(consistency); err != nil {
				return err
			}
			r := c.make(args)
			r.Consistency = consistency
			if err := a.prepare(cmd.Context(), &r); err != nil {
				return a.answer(api.Response{}, err)
			}
			return a.ask(cmd.Context(), r)
		},
	}
	if kv.Writes(c.op) {
		mark(acting, "keys", cmd)
	}
	if op.May&api.Consistency != 0 {
		consistencyFlag(cmd, &consistency)
	}
	return cmd
}

// consistencyFlag adds the flag of a read.
func consistencyFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "consistency", "", "the consistency of a read: linearizable (the default) or stale")
}

func checkConsistency(name string) error {
	if name != "" && name != "linearizable" && name != "stale" {
		return usagef("--consistency is %q; it must be linearizable or stale", name)
	}
	return nil
}

// prepare reads a value from standard input and refuses invalid requests.
func (a *app) prepare(ctx context.Context, r *api.Request) error {
	if r.Value == "-" {
		if a.inShell {
			return usagef("the value - means standard input, which the shell uses for its commands; write the value itself")
		}
		value, err := a.readValue(ctx)
		switch {
		case errors.Is(err, errInterrupted):
			return err
		case err != nil:
			return fmt.Errorf("standard input: %w", err)
		case len(value) > kv.MaxValue:
			return errTooLong()
		}
		r.Value = string(value)
	}
	if e := api.CheckCommand(r.Command()); e != nil {
		return e
	}
	return nil
}

// readValue reads a value from standard input, at most one byte more than the
// longest value. ^C ends it; the blocked read ends with the process.
func (a *app) readValue(ctx context.Context) ([]byte, error) {
	type input struct {
		value []byte
		err   error
	}
	read := make(chan input, 1)
	go func() {
		value, err := io.ReadAll(io.LimitReader(a.stdin, kv.MaxValue+1))
		read <- input{value, err}
	}()
	select {
	case in := <-read:
		return in.value, in.err
	case <-ctx.Done():
		return nil, errInterrupted
	}
}

// ask sends one request and prints its answer.
func (a *app) ask(ctx context.Context, r api.Request) error {
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	return a.answer(client.Do(ctx, r))
}

// client returns a client for the servers and a function that releases it.
func (a *app) client() (Client, func(), error) {
	same := a.flags.endpoints == a.sharedFlags.endpoints && a.flags.data == a.sharedFlags.data && a.flags.basePort == a.sharedFlags.basePort && a.flags.tls == a.sharedFlags.tls && a.flags.token == a.sharedFlags.token
	if a.shared != nil && same {
		return a.shared, func() {}, nil
	}
	targets, err := a.targets()
	if err != nil {
		return nil, nil, err
	}
	c, err := a.dial(targets)
	if err != nil {
		return nil, nil, err
	}
	return c, func() { c.Close() }, nil
}

// answer prints a server's answer. If err is not nil, it prints nothing and
// returns err.
//
// With -o json, it prints the line of JSON that came over the wire, without its
// id.
func (a *app) answer(r api.Response, err error) error {
	switch {
	case err != nil:
	case a.flags.output == "json":
		r.ID = 0
		fmt.Fprintf(a.stdout, "%s\n", r.AppendJSON(nil))
	case r.HasValue:
		fmt.Fprintf(a.stdout, "%s\n", r.Value)
	case r.HasLength:
		fmt.Fprintf(a.stdout, "%d\n", r.Length)
	case r.Data != nil:
		fmt.Fprintf(a.stdout, "%s\n", r.Data)
	default:
		fmt.Fprintln(a.stdout, "ok")
	}
	return err
}
