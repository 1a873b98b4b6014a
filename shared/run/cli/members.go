package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
	"example.com/raftsteps/shared/run/cluster"
)

// view is one server's view of the members.
type view struct {
	api.Membership

	// at is the address of the server.
	at string
}

func (v view) leads() bool { return v.Role == "leader" }

// names lists the servers for which pick is true, for a message.
func (v view) names(pick func(api.MemberStatus) bool) string {
	var names []string
	for _, m := range v.Members {
		if pick(m) {
			names = append(names, node.Name(m.ID))
		}
	}
	return strings.Join(names, ", ")
}

func isVoter(m api.MemberStatus) bool   { return m.Voter }
func isNext(m api.MemberStatus) bool    { return m.Next }
func isLearner(m api.MemberStatus) bool { return m.Next && !m.Voter }
func isLeaving(m api.MemberStatus) bool { return m.Voter && !m.Next }

// find returns a server of the view.
func (v view) find(id uint64) (api.MemberStatus, bool) {
	i := slices.IndexFunc(v.Members, func(m api.MemberStatus) bool { return m.ID == id })
	if i < 0 {
		return api.MemberStatus{}, false
	}
	return v.Members[i], true
}

// missing returns the voters that are not running, if the running ones are not
// a majority. states has the states of the processes, by address.
func (v view) missing(states map[string]cluster.Server) []cluster.Server {
	voters := 0
	var out []cluster.Server
	for _, m := range v.Members {
		if !m.Voter {
			continue
		}
		voters++
		if s, known := states[m.Address]; known && s.State != cluster.Running {
			out = append(out, s)
		}
	}
	if 2*len(out) < voters {
		return nil
	}
	return out
}

// askView asks one server for the members: only that server, and only once, so
// it does not use the stage's client.
func (a *app) askView(ctx context.Context, address string) (view, error) {
	ctx, cancel := context.WithTimeout(ctx, min(statusTime, a.flags.timeout))
	defer cancel()
	client, err := a.direct(ctx, address)
	if err != nil {
		return view{}, err
	}
	defer client.Close()
	r, err := client.Do(ctx, api.Request{Op: api.Members})
	var failed *api.Error
	switch {
	case errors.As(err, &failed):
		return view{}, failed.OfRead(api.Members)
	case err != nil:
		return view{}, err
	}
	m, err := api.DecodeMembership(r.Data)
	if err != nil {
		return view{}, fmt.Errorf("its answer about the members is invalid: %w", err)
	}
	return view{m, address}, nil
}

// direct connects to one server.
func (a *app) direct(ctx context.Context, address string) (Client, error) {
	if a.stage.direct != nil {
		return a.stage.direct(ctx, address)
	}
	how, err := a.how()
	if err != nil {
		return nil, err
	}
	c, err := wire.Dial(ctx, address, wire.Limits{}, how...)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// askMembers asks all servers for the members: those of endpoints, and those
// that they name. It returns the leader's view, or else the view with the
// newest configuration.
func (a *app) askMembers(ctx context.Context) (view, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return view{}, err
	}
	asked := make(map[string]bool)
	var views []view
	var failed error
	for next := addresses(endpoints); len(next) > 0; {
		answers, err := a.askViews(ctx, next)
		if err != nil && failed == nil {
			failed = err
		}
		for _, address := range next {
			asked[address] = true
		}
		next = nil
		for _, v := range answers {
			views = append(views, v)
			for _, m := range v.Members {
				if !asked[m.Address] && !slices.Contains(next, m.Address) {
					next = append(next, m.Address)
				}
			}
		}
	}
	if len(views) == 0 {
		return view{}, failed
	}
	return slices.MaxFunc(views, view.compare), nil
}

// askViews asks several servers at once. The error is from one that did not
// answer.
func (a *app) askViews(ctx context.Context, addresses []string) ([]view, error) {
	views, errs := make([]view, len(addresses)), make([]error, len(addresses))
	var g errgroup.Group
	for i, address := range addresses {
		g.Go(func() error {
			views[i], errs[i] = a.askView(ctx, address)
			return nil
		})
	}
	_ = g.Wait()
	var out []view
	var failed error
	for i, err := range errs {
		if err == nil {
			out = append(out, views[i])
		} else if failed == nil {
			failed = err
		}
	}
	return out, failed
}

// compare returns a number above 0 if v is more reliable than w: a leader's
// view, then a higher term, then a newer configuration, then a higher commit
// index.
func (v view) compare(w view) int {
	for _, d := range []struct{ v, w uint64 }{
		{one(v.leads()), one(w.leads())}, {v.Term, w.Term}, {v.Config, w.Config}, {v.Commit, w.Commit},
	} {
		switch {
		case d.v > d.w:
			return 1
		case d.v < d.w:
			return -1
		}
	}
	return 0
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (a *app) membersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "Show the members and the progress of a change", GroupID: groupMembers,
		Long: `Prints one row per server, as the leader sees it, or as another server does if no leader answers. VOTES says whether the server
votes: during a change, new servers do not vote yet, or only among the new members. LOG is how much of the leader's log the server
has. ROLE is the state, such as killed or paused, if the server belongs to the cluster on this machine and is not running.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.askMembers(cmd.Context())
			switch {
			case cmd.Context().Err() != nil:
				return errInterrupted // the leader may be one that has not answered yet
			case err != nil:
				return err
			}
			if a.flags.output == "json" {
				fmt.Fprintf(a.stdout, "%s\n", v.AppendJSON(nil))
				return nil
			}
			a.writeMembers(a.stdout, v, a.processes(cmd.Context()))
			return nil
		},
	}
}

// writeMembers writes the table and the progress of a change. processes are the
// servers as processes, by their addresses.
func (a *app) writeMembers(w io.Writer, v view, processes map[string]cluster.Server) {
	if !v.leads() {
		fmt.Fprintf(a.stderr, "no leader answers; this is the view of %s\n", node.Name(v.ID))
	}
	if len(v.Members) > 0 {
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintf(table, "SERVER\tADDRESS\tROLE\tVOTES\tLOG\n")
		for _, m := range v.Members {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", node.Name(m.ID), oneLine(m.Address), v.role(m, processes[m.Address]), v.votes(m), v.log(m))
		}
		table.Flush()
	}
	fmt.Fprintln(w, a.story(v))
}

// role returns the role of a member in this view, or the state of its process p if
// that is not running. p is zero if it is not known.
func (v view) role(m api.MemberStatus, p cluster.Server) string {
	learns := v.Phase == api.Learning && isLearner(m)
	switch away := p.ID == m.ID && p.State != cluster.Running; {
	case away && learns:
		return "learner (" + oneLine(p.State) + ")" // the change waits for it
	case away:
		return oneLine(p.State) // a server that is not running has no role
	case m.ID == v.Leader:
		return "leader"
	case learns:
		return "learner"
	}
	return "follower"
}

// votes says whether a member votes.
func (v view) votes(m api.MemberStatus) string {
	switch {
	case v.Phase == api.Stable && m.Voter, m.Voter && m.Next:
		return "yes"
	case v.Phase == api.Joint && m.Voter:
		return "yes, among the old members only"
	case v.Phase == api.Joint && m.Next:
		return "yes, among the new members only"
	case m.Voter:
		return "yes, until the change is done"
	case m.Next:
		return "not until it has caught up"
	}
	return "no"
}

// log says how much of the log a member has.
func (v view) log(m api.MemberStatus) string {
	switch {
	case !v.leads():
		return "-"
	case m.ID == v.ID || m.Match == v.Last:
		return fmt.Sprintf("all %d entries", v.Last)
	case m.Match == 0:
		return "no answer yet"
	}
	return fmt.Sprintf("%d of %d entries", m.Match, v.Last)
}

// story describes the state of a change in a sentence.
func (a *app) story(v view) string {
	var text string
	switch {
	case len(v.Members) == 0:
		return fmt.Sprintf("%s knows no members: it has not been added to a cluster yet", node.Name(v.ID))
	case v.Removed:
		return fmt.Sprintf("%s was removed; these are the last members that it knows", node.Name(v.ID))
	case v.Phase == api.Learning:
		text = "A change to " + v.names(isNext) + " is under way"
		if learners := v.names(isLearner); learners != "" {
			text += ": " + learners + " receives the log, and votes once it has caught up"
		}
		text += "; cancel it with: " + a.clusterLine("cancel")
	case v.Phase == api.Joint:
		text = fmt.Sprintf("A change is under way: each decision needs a majority of %s and one of %s", v.names(isVoter), v.names(isNext))
	default:
		text = "No change is under way"
	}
	if !v.Committed {
		text += fmt.Sprintf("; entry %d, which says so, is not committed yet", v.Config)
	}
	return text + "."
}

// hintMembers returns the command that shows the members and the progress of a
// change.
func (a *app) hintMembers() string { return a.clusterLine("members") }
