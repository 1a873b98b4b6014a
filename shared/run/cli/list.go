package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// listCommand returns the command that lists keys.
func (a *app) listCommand(op api.Op) *cobra.Command {
	var r api.Request
	var limit uint64
	cmd := &cobra.Command{
		Use: "list [PREFIX]", Short: "List keys in order", GroupID: groupClient, SuggestFor: []string{"ls", "scan", "range", "keys"},
		Long: `Prints the keys that begin with PREFIX, all keys without it, in the order of their bytes: one line per key, with a tab and
its value. A key or a value with control characters, or with bytes that are not text, is quoted as in Go. With -o json each
line is an object.

The servers answer in pages. A page shows one moment; a write between two pages may be in the second and not in the first.`,
		Args:              a.takes(0, 1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkConsistency(r.Consistency); err != nil {
				return err
			}
			if len(args) == 1 {
				r.Prefix = args[0]
			}
			if cmd.Flags().Changed("limit") && limit == 0 {
				return usagef("--limit is 0; it must be at least 1")
			}
			r.Op = api.List
			return a.list(cmd.Context(), r, limit)
		},
	}
	cmd.Flags().StringVar(&r.After, "after", "", "list the keys after this one")
	cmd.Flags().Uint64Var(&limit, "limit", 0, "list at most this many keys (default: all)")
	cmd.Flags().BoolVar(&r.KeysOnly, "keys-only", false, "list the keys without their values")
	if op.May&api.Consistency != 0 {
		consistencyFlag(cmd, &r.Consistency)
	}
	return cmd
}

// list prints pages until there are no more keys, or limit keys are printed; 0 is no
// limit.
func (a *app) list(ctx context.Context, r api.Request, limit uint64) error {
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	for more := true; more; {
		r.Limit = min(limit, api.MaxList)
		page, err := a.page(ctx, client, r)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			a.printItem(item, r.KeysOnly)
			r.After = item.Key
		}
		if limit > 0 {
			limit -= min(limit, uint64(len(page.Items)))
		}
		more = page.More && (r.Limit == 0 || limit > 0)
	}
	return nil
}

// page asks for one page. Each has its own timeout.
func (a *app) page(ctx context.Context, client Client, r api.Request) (api.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	response, err := client.Do(ctx, r)
	if err != nil {
		return api.Listing{}, err
	}
	return api.DecodeListing(response.Data)
}

func (a *app) printItem(item kv.Item, keyOnly bool) {
	switch {
	case a.flags.output == "json":
		b := strict.AppendBytes([]byte{'{'}, "key", item.Key)
		if !keyOnly {
			b = strict.AppendBytes(b, "value", item.Value)
		}
		fmt.Fprintf(a.stdout, "%s}\n", b)
	case keyOnly:
		fmt.Fprintln(a.stdout, printable(item.Key))
	default:
		fmt.Fprintf(a.stdout, "%s\t%s\n", printable(item.Key), printable(item.Value))
	}
}

// printable quotes a text that would not stay in its column, and one that looks
// quoted.
func printable(s string) string {
	if strings.HasPrefix(s, `"`) || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
