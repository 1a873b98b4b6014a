package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/run/cluster"
)

// statusTime is how long to wait for a server's status; less if --timeout is
// shorter.
const statusTime = time.Second

func (a *app) statusCommand() *cobra.Command {
	var verify bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the status of each server", GroupID: groupClient, SuggestFor: []string{"health", "info", "leader", "ps", "servers", "state"},
		Long: `Prints one row per server: what the server reports about itself, and whether it can be reached. LAG is how many entries
its applied index is behind the highest commit index of all servers. The exit code is 5 if no server can be reached.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			endpoints, err := a.endpoints()
			if err != nil {
				return err
			}
			servers := a.survey(cmd.Context(), endpoints)
			if cmd.Context().Err() != nil {
				return errInterrupted // a server that has not answered yet may be reachable
			}
			addLag(servers)
			addPlace(servers)
			var verdict error
			if a.flags.output == "json" {
				if verify {
					verdict = a.verify(cmd.Context(), servers, io.Discard)
				}
				fmt.Fprintf(a.stdout, "%s\n", statusJSON(servers))
			} else {
				writeStatus(a.stdout, servers)
				a.writePhase(a.stdout, servers)
				if verify {
					verdict = a.verify(cmd.Context(), servers, a.stdout)
				}
			}
			for _, s := range servers {
				if s.reason == "" {
					return verdict
				}
			}
			if e := denied(servers); e != nil {
				return e
			}
			return a.nobodyAnswers(cmd.Context(), endpoints)
		},
	}
	if a.knows(api.Hash) {
		cmd.Long += verifyHelp
		cmd.Flags().BoolVar(&verify, "verify", false, "compare the content of the servers: the hashes of their state machines at the same index")
	}
	return cmd
}

// denied returns the error of a server that may not be asked, or does not talk to this
// client; nil if there is none.
func denied(servers []serverStatus) error {
	for _, s := range servers {
		if s.denied != nil {
			return s.denied
		}
	}
	return nil
}

// nobodyAnswers returns the error of status if no server can be reached. Its
// hint does not suggest status.
func (a *app) nobodyAnswers(ctx context.Context, asked []endpoint) error {
	states := a.processes(ctx)
	var down []cluster.Server
	for _, e := range asked {
		if s, known := states[e.address]; known && s.State != cluster.Running {
			down = append(down, s)
		}
	}
	text := "no server can be reached (unavailable)"
	switch {
	case len(down) > 0:
		text += "; " + a.comeBack(down...)
	case states == nil:
		text += "; " + a.startHint()
	}
	return &endError{code: exitUnavailable, message: text}
}

// serverStatus is the status of one server.
type serverStatus struct {
	endpoint

	// status is the server's answer; the zero value if it did not answer.
	status api.ServerStatus

	// reason is why it cannot be reached; "" if it can.
	reason string

	// denied is the error if the server may not be asked, or does not talk to this
	// client; nil otherwise.
	denied *api.Error

	// lag is how many entries its applied index is behind the highest commit
	// index; nil if that is unknown.
	lag *uint64

	// hash is that of its state machine at an index that was compared; nil if it was
	// not compared.
	hash *api.StateHash

	// place replaces the role of a server without a vote: new, learner or
	// removed; "" for a voter.
	place string
}

// survey asks all servers for their status at once. It skips servers that are
// not running according to the supervisor. An endpoint without a number gets
// the number in the server's answer.
func (a *app) survey(ctx context.Context, endpoints []endpoint) []serverStatus {
	processes := a.processes(ctx)
	out := make([]serverStatus, len(endpoints))
	var g errgroup.Group
	for i, e := range endpoints {
		out[i].endpoint = e
		if p, known := processes[e.address]; known && p.State != cluster.Running {
			out[i].reason = p.State
			continue
		}
		g.Go(func() error {
			status, err := a.askStatus(ctx, e.address)
			out[i].status = status
			if err != nil {
				out[i].reason = a.reason(err)
				if e := (*api.Error)(nil); errors.As(err, &e) && (e.Code == api.Denied || e.Code == api.Handshake) {
					out[i].denied = e
				}
			}
			if e.id == 0 {
				out[i].id = status.ID
			}
			return nil
		})
	}
	_ = g.Wait()
	return out
}

// processes returns the states of the servers' processes from the supervisor of
// the cluster, by address. It returns nil if there is no supervisor.
func (a *app) processes(ctx context.Context) map[string]cluster.Server {
	if a.stage.New == nil {
		return a.singleProcesses(ctx)
	}
	file, found, err := a.clusterFile()
	if err != nil || !found {
		return nil
	}
	remote, err := cluster.Connect(a.flags.data)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	servers, err := remote.Do(ctx, cluster.Command{Do: cluster.List})
	if err != nil {
		return nil
	}
	out := make(map[string]cluster.Server)
	for _, s := range servers {
		out[file.Config.Address(s.ID)] = s
	}
	return out
}

// askStatus asks one server for its status.
func (a *app) askStatus(ctx context.Context, address string) (api.ServerStatus, error) {
	client, err := a.dial([]string{address})
	if err != nil {
		return api.ServerStatus{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, min(statusTime, a.flags.timeout))
	defer cancel()
	r, err := client.Do(ctx, api.Request{Op: api.Status})
	if err != nil {
		return api.ServerStatus{}, err
	}
	status, err := api.DecodeStatus(r.Data)
	if err != nil {
		return status, fmt.Errorf("its status is invalid: %w", err)
	}
	return status, nil
}

// reason returns a short reason why a server cannot be reached.
func (a *app) reason(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return oneLine(err.Error())
	}
	var unknownHost *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &unknownHost) && unknownHost.IsNotFound:
		return "no such host"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to host"
	case e.Code == api.Handshake && e.Cause != nil:
		return oneLine(e.Cause.Error()) // the address is in the table
	}
	return oneLine(e.Message)
}

// addLag fills in lag for servers that report their commit and applied indexes.
func addLag(servers []serverStatus) {
	var furthest uint64
	for _, s := range servers {
		furthest = max(furthest, s.status.Commit)
	}
	for i, s := range servers {
		if s.reason == "" && furthest > 0 {
			servers[i].lag = new(furthest - min(furthest, s.status.Applied))
		}
	}
}

// column is a column of the table.
type column struct {
	name string
	cell func(s serverStatus) string
}

// columns has the columns in the order of the table. A cell is "" if the server
// does not report it.
var columns = []column{
	{"ROLE", func(s serverStatus) string { return cmp.Or(s.place, oneLine(s.status.Role)) }},
	{"TERM", func(s serverStatus) string { return number(s.status.Term) }},
	{"LEADER", func(s serverStatus) string {
		if s.status.Leader == 0 {
			return ""
		}
		return node.Name(s.status.Leader)
	}},
	{"LAST", func(s serverStatus) string { return number(s.status.Last) }},
	{"COMMIT", func(s serverStatus) string { return number(s.status.Commit) }},
	{"APPLIED", func(s serverStatus) string { return number(s.status.Applied) }},
	{"LAG", func(s serverStatus) string { return count(s.lag) }},
	{"SNAPSHOT", func(s serverStatus) string { return number(s.status.Snapshot) }},
	{"KEYS", func(s serverStatus) string { return count(s.status.Keys) }},
	{"SESSIONS", func(s serverStatus) string { return count(s.status.Sessions) }},
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func count[N int | uint64](n *N) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// writeStatus writes the table. It has only the columns that some server
// fills.
func writeStatus(w io.Writer, servers []serverStatus) {
	shown := slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(servers, func(s serverStatus) bool { return c.cell(s) != "" })
	})
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "SERVER\tADDRESS\t")
	for _, c := range shown {
		fmt.Fprintf(table, "%s\t", c.name)
	}
	fmt.Fprintf(table, "REACHABLE\n")
	for _, s := range servers {
		fmt.Fprintf(table, "%s\t%s\t", s.name(), s.address)
		for _, c := range shown {
			fmt.Fprintf(table, "%s\t", cmp.Or(c.cell(s), "-"))
		}
		reachable := "yes"
		if s.reason != "" {
			reachable = "no: " + s.reason
		}
		fmt.Fprintf(table, "%s\n", reachable)
	}
	table.Flush()
}

// addPlace marks the servers without a vote, in stages whose members change. It
// uses the leader's view, because a removed server may not know that it was
// removed.
func addPlace(servers []serverStatus) {
	leader, found := leading(servers)
	is := leader.status
	for i, s := range servers {
		own, id := s.status.Voters, s.status.ID
		switch {
		case own == nil || !found && !s.status.Removed && len(own) > 0:
		case slices.Contains(is.Voters, id):
		case is.Phase == api.Learning && slices.Contains(is.Next, id):
			servers[i].place = "learner"
		case slices.Contains(is.Next, id):
		case len(own) == 0:
			servers[i].place = "new"
		default:
			servers[i].place = "removed"
		}
	}
}

// leading returns the leader with the highest term.
func leading(servers []serverStatus) (leader serverStatus, found bool) {
	for _, s := range servers {
		if s.status.Role == "leader" && (!found || s.status.Term > leader.status.Term) {
			leader, found = s, true
		}
	}
	return leader, found
}

// writePhase writes a line if a membership change is in progress, according to the
// leader.
func (a *app) writePhase(w io.Writer, servers []serverStatus) {
	leader, _ := leading(servers)
	if is := leader.status; is.Phase != "" && is.Phase != api.Stable {
		names := make([]string, len(is.Next))
		for i, id := range is.Next {
			names[i] = node.Name(id)
		}
		fmt.Fprintf(w, "A change of the members to %s is under way (%s); see the progress with: %s\n", strings.Join(names, ", "), oneLine(is.Phase), a.hintMembers())
	}
}

// statusJSON returns the status as JSON: an array with one object per server,
// which has the fields of the server's answer, and lag.
func statusJSON(servers []serverStatus) []byte {
	b := []byte{'['}
	for _, s := range servers {
		b = append(strict.AppendComma(b), '{')
		b = strict.AppendText(b, "server", s.name())
		b = strict.AppendText(b, "address", s.address)
		b = strconv.AppendBool(strict.AppendName(b, "reachable"), s.reason == "")
		b = strict.AppendText(b, "reason", s.reason)
		b = s.status.AppendFields(b)
		if s.lag != nil {
			b = strconv.AppendUint(strict.AppendName(b, "lag"), *s.lag, 10)
		}
		if s.hash != nil {
			b = fmt.Appendf(b, `,"hash":"%016x","hash_index":%d`, s.hash.Hash, s.hash.Index)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// leaderTime is how long to wait for a leader if there is none: an election
// takes about a second.
const leaderTime = 3 * time.Second

// leader asks the servers for the leader. If there is none, it asks again until
// leaderTime or --timeout has passed, unless an operator appoints the leader.
func (a *app) leader(ctx context.Context) (uint64, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(leaderTime, a.flags.timeout))
	defer cancel()
	for {
		id, err := a.leaderAmong(ctx, endpoints)
		if err == nil || a.stage.Appointed || exitCode(err) == exitRefused || !rest(ctx, retryPause) {
			return id, err
		}
	}
}

// leaderAmong asks servers once for the leader: the server that reports that it
// is the leader, in the highest term.
func (a *app) leaderAmong(ctx context.Context, endpoints []endpoint) (uint64, error) {
	servers := a.survey(ctx, endpoints)
	if leader, found := leading(servers); found {
		return leader.id, nil
	}
	for _, s := range servers {
		// If the leader is not among the servers asked, only the others know
		// it.
		id := s.status.Leader
		if id != 0 && !slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.id == id }) {
			return id, nil
		}
	}
	answers := slices.ContainsFunc(servers, func(s serverStatus) bool { return s.reason == "" })
	if e := denied(servers); e != nil && !answers {
		return 0, e
	}
	return 0, &api.Error{Code: api.Unavailable, Message: "no server reports that it is the leader", Definite: true}
}
