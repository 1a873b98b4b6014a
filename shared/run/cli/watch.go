package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
)

// watchCommand returns the command that shows changes of keys as they come.
func (a *app) watchCommand() *cobra.Command {
	r := api.Request{Op: api.Watch}
	cmd := &cobra.Command{
		Use: "watch [PREFIX]", Short: "Show changes of keys as they come", GroupID: groupClient, SuggestFor: []string{"follow", "tail", "subscribe"},
		Long: `Prints a line for each change of a key that begins with PREFIX, of any key without it: the index of the command in the log,
the key, and its new value, or "deleted". With -o json each line is an object. It ends with ^C.

--from continues at an index. A server remembers the last 8 MiB of changes; for older ones the error is compacted (exit
code 1): then list the keys, and watch from the index in the error.`,
		Args:              a.takes(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				r.Prefix = args[0]
			}
			return a.watch(cmd.Context(), r)
		},
	}
	cmd.Flags().Uint64Var(&r.From, "from", 0, "the first index to show (default: the next one)")
	return cmd
}

// watch prints changes until ctx is done. A server that does not answer is replaced
// by another one, which continues where it stopped.
func (a *app) watch(ctx context.Context, r api.Request) error {
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	for {
		page, err := a.events(ctx, client, r)
		switch {
		case ctx.Err() != nil:
			return nil // ^C is its normal end
		case err != nil:
			return err
		}
		for _, e := range page.Events {
			a.printEvent(e)
		}
		r.From = page.Next
	}
}

// events asks for the next changes.
func (a *app) events(ctx context.Context, client Client, r api.Request) (api.Events, error) {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	response, err := client.Do(ctx, r)
	if err != nil {
		return api.Events{}, err
	}
	e, err := api.DecodeEvents(response.Data)
	if err == nil && e.Next < r.From {
		err = errors.New("the server goes back: it answers a watch with an earlier index")
	}
	return e, err
}

func (a *app) printEvent(e api.Event) {
	switch {
	case a.flags.output == "json":
		fmt.Fprintf(a.stdout, "%s\n", e.AppendJSON(nil))
	case e.Deleted:
		fmt.Fprintf(a.stdout, "%d\t%s\tdeleted\n", e.Index, printable(e.Key))
	default:
		fmt.Fprintf(a.stdout, "%d\t%s\t= %s\n", e.Index, printable(e.Key), printable(e.Value))
	}
}
