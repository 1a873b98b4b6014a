package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/run/cluster"
)

// operatorCommands returns the commands that an operator sends to one server, as
// far as the servers support them.
func (a *app) operatorCommands() []*cobra.Command {
	var out []*cobra.Command
	if _, known := a.stage.Ops[api.Log]; known {
		out = append(out, a.logCommand())
	}
	if _, known := a.stage.Ops[api.Lead]; known {
		out = append(out, mark(acting, "leader", a.leadCommand())...)
	}
	return out
}

const whichServer = "\n\nSERVER is a number (2 or n2), or leader."

func (a *app) logCommand() *cobra.Command {
	var from uint64
	cmd := &cobra.Command{
		Use: "log SERVER", Short: "Show the entries of a server's log", GroupID: groupClient,
		Long: `Lists the entries of a server's log, committed or not, as that server sees it. With all it lists the logs of all servers,
one after the other.

SERVER is a number (2 or n2), leader, or all.`,
		Args:              a.takes(1, 1),
		ValidArgsFunction: a.completeAllServers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "all" {
				return a.showLogs(cmd.Context(), from)
			}
			server, err := a.oneServer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showLog(cmd.Context(), server, from, "")
		},
	}
	cmd.Flags().Uint64Var(&from, "from", 1, "the first index to list")
	return cmd
}

func (a *app) leadCommand() *cobra.Command {
	var term uint64
	cmd := &cobra.Command{
		Use: "lead SERVER", Short: "Appoint a server as leader", GroupID: groupClient,
		Long: `Appoints a server as the leader of a new term: one above the highest term of all servers that can be reached, unless
--term gives another.

Nothing checks that its log has all acknowledged writes. First look at the logs of a majority, with log: among the servers
whose last entry has the highest term, appoint the one with the longest log. With another leader, or without a majority,
acknowledged writes may be lost.` + whichServer,
		Args:              a.takes(1, 1),
		ValidArgsFunction: a.completeServers,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := a.oneServer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.lead(cmd.Context(), server, term)
		},
	}
	cmd.Flags().Uint64Var(&term, "term", 0, "the term to lead (default: one more than the highest)")
	return cmd
}

// oneServer finds the named server.
func (a *app) oneServer(ctx context.Context, word string) (endpoint, error) {
	ids, err := a.serverIDs(ctx, word)
	if err != nil {
		return endpoint{}, err
	}
	if len(ids) != 1 {
		return endpoint{}, usagef("%q names %d servers; name one", word, len(ids))
	}
	servers, err := a.candidates(ctx)
	if err != nil {
		return endpoint{}, err
	}
	for _, e := range servers {
		if e.id == ids[0] {
			return e, nil
		}
	}
	if _, source := a.endpointList(); source != "" {
		return endpoint{}, usagef("none of the servers in %s is %s", source, node.Name(ids[0]))
	}
	return endpoint{}, usagef("there is no server %s in the cluster", node.Name(ids[0]))
}

// askOne sends a request to one server only.
func (a *app) askOne(ctx context.Context, e endpoint, r api.Request) (api.Response, error) {
	client, err := a.dial([]string{e.address})
	if err != nil {
		return api.Response{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	return client.Do(ctx, r)
}

// lead appoints a server.
func (a *app) lead(ctx context.Context, e endpoint, term uint64) error {
	if term == 0 {
		servers, err := a.candidates(ctx)
		if err != nil {
			return err
		}
		for _, s := range a.survey(ctx, servers) {
			term = max(term, s.status.Term)
		}
		term++
	}
	r, err := a.askOne(ctx, e, api.Request{Op: api.Lead, Term: term})
	if err != nil || a.flags.output == "json" {
		return a.answer(r, err)
	}
	fmt.Fprintf(a.stdout, "%s leads term %d\n", e.name(), term)
	return nil
}

// showLogs lists the logs of all servers. If one log cannot be shown, it still
// shows the others.
func (a *app) showLogs(ctx context.Context, from uint64) error {
	servers, err := a.candidates(ctx)
	if err != nil {
		return err
	}
	states := a.processes(ctx)
	var errs []error
	for i, e := range servers {
		if ctx.Err() != nil {
			return errInterrupted
		}
		if a.flags.output != "json" && i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if a.flags.output != "json" {
			fmt.Fprintf(a.stdout, "%s at %s\n", e.name(), e.address)
		}
		if s, known := states[e.address]; known && s.State != cluster.Running {
			errs = append(errs, &api.Error{Code: api.Unavailable, Definite: true})
			fmt.Fprintf(a.stderr, "%s\n", oneLine(a.comeBack(s)))
			continue
		}
		if err := a.showLog(ctx, e, from, e.name()); err != nil {
			errs = append(errs, err)
			fmt.Fprintf(a.stderr, "%s: %s\n", e.name(), oneLine(a.describe(err)))
		}
	}
	if len(errs) > 0 {
		return &endError{code: exitCode(errs[0]), message: fmt.Sprintf("%d of %d logs are missing", len(errs), len(servers))}
	}
	return nil
}

// showLog lists a log from an index on. In JSON, each entry has the name of its
// server, if given.
func (a *app) showLog(ctx context.Context, e endpoint, from uint64, server string) error {
	table := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	if a.flags.output != "json" {
		fmt.Fprintf(table, "INDEX\tTERM\tCOMMITTED\tENTRY\n")
	}
	for {
		p, err := a.askLog(ctx, e, from)
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.Compacted {
			fmt.Fprintf(a.stderr, "%s: %s\n", e.name(), oneLine(refused.Message))
			p, err = a.askLog(ctx, e, 0)
		}
		if err != nil {
			return err
		}
		for _, entry := range p.Entries {
			from = entry.Index + 1
			a.showEntry(table, server, entry, entry.Index <= p.Commit)
		}
		if len(p.Entries) == 0 || from > p.Last {
			return table.Flush()
		}
	}
}

func (a *app) showEntry(table *tabwriter.Writer, server string, e journal.Entry, committed bool) {
	if a.flags.output == "json" {
		b := e.AppendJSON(nil)
		b = append(b[:len(b)-1], `,"committed":`...)
		b = strconv.AppendBool(b, committed)
		if server != "" {
			b = append(fmt.Appendf(nil, `{"server":%q,`, server), b[1:]...)
		}
		fmt.Fprintf(a.stdout, "%s}\n", b)
		return
	}
	text := e.Kind
	if e.Command != nil {
		text = trace.Brief(string(e.Command))
	}
	yes := "no"
	if committed {
		yes = "yes"
	}
	fmt.Fprintf(table, "%d\t%d\t%s\t%s\n", e.Index, e.Term, yes, oneLine(text))
}

// askLog asks a server for its log from an index on. The answer has as many
// entries as fit.
func (a *app) askLog(ctx context.Context, e endpoint, from uint64) (journal.Page, error) {
	r, err := a.askOne(ctx, e, api.Request{Op: api.Log, From: from})
	if err != nil {
		return journal.Page{}, err
	}
	p, err := journal.DecodePage(r.Data)
	if err == nil && len(p.Entries) > 0 && p.Entries[0].Index < from {
		err = fmt.Errorf("entry %d comes before the first requested entry", p.Entries[0].Index)
	}
	if err != nil {
		return journal.Page{}, fmt.Errorf("the answer of %s about its log is invalid: %w", e.name(), err)
	}
	return p, nil
}
