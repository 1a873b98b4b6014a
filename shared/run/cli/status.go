package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/run/cluster"
)

// statusTime is how long a server may take to say how it is; less if --timeout
// says so.
const statusTime = time.Second

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How each server sees itself", GroupID: groupClient, SuggestFor: []string{"health", "info", "leader", "ps", "servers", "state"},
		Long: `A row a server: what it says of itself, and whether it can be reached. LAG is how many entries it has still to apply
to be where the furthest server's commits are. The exit code is 5 if no server can be reached.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			endpoints, err := a.endpoints()
			if err != nil {
				return err
			}
			servers := a.survey(cmd.Context(), endpoints)
			addLag(servers)
			addPlace(servers)
			if a.flags.output == "json" {
				fmt.Fprintf(a.stdout, "%s\n", statusJSON(servers))
			} else {
				writeStatus(a.stdout, servers)
				a.writePhase(a.stdout, servers)
			}
			for _, s := range servers {
				if s.reason == "" {
					return nil
				}
			}
			return a.nobodyAnswers(cmd.Context(), endpoints)
		},
	}
}

// nobodyAnswers is how status ends if no server can be reached. To look at the
// status is no advice then.
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

// serverStatus is what is known of one server.
type serverStatus struct {
	endpoint

	// fields are what the server says, in its order; nil if it says nothing.
	fields []field

	// reason is why it cannot be reached; "" if it can.
	reason string

	// place is what it is instead of its role, where the members change: new,
	// learner or removed; "" for a server that votes.
	place string
}

// field is one part of a status: its name and its JSON.
type field struct {
	name string
	raw  string
}

// get returns a field as text: a string without its quotes.
func (s serverStatus) get(name string) (string, bool) {
	for _, f := range s.fields {
		if f.name == name {
			var text string
			if json.Unmarshal([]byte(f.raw), &text) == nil {
				return text, true
			}
			return f.raw, true
		}
	}
	return "", false
}

func (s serverStatus) number(name string) (uint64, bool) {
	text, found := s.get(name)
	n, err := strconv.ParseUint(text, 10, 64)
	return n, found && err == nil
}

// survey asks all servers at once how they are. Where the cluster's supervisor
// knows that one does not run, it is not asked. A server whose number was not
// known has the one that it gives itself.
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
			fields, err := a.askStatus(ctx, e.address)
			out[i].fields = fields
			if err != nil {
				out[i].reason = a.reason(err)
			}
			if id, found := out[i].number("id"); found && e.id == 0 {
				out[i].id = id
			}
			return nil
		})
	}
	_ = g.Wait()
	return out
}

// processes asks the supervisor of the cluster how the servers are as processes,
// by their addresses. It is nil if there is no supervisor.
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

// askStatus asks one server.
func (a *app) askStatus(ctx context.Context, address string) ([]field, error) {
	client := a.stage.Dial([]string{address})
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, min(statusTime, a.flags.timeout))
	defer cancel()
	r, err := client.Do(ctx, api.Request{Op: api.Status})
	if err != nil {
		return nil, err
	}
	var fields []field
	d := strict.NewDecoder(r.Data)
	d.Object(func(name []byte) { fields = append(fields, field{string(name), string(d.Raw())}) })
	if err := d.End(); err != nil {
		return nil, fmt.Errorf("its status makes no sense: %w", err)
	}
	return fields, nil
}

// reason shortens why a server cannot be reached.
func (a *app) reason(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return oneLine(err.Error())
	}
	for _, known := range []string{"connection refused", "no such host", "no route to host"} {
		if strings.Contains(e.Message, known) {
			return known
		}
	}
	return oneLine(e.Message)
}

// addLag adds how far each server is behind, where servers tell what they have
// committed and applied.
func addLag(servers []serverStatus) {
	var furthest uint64
	for _, s := range servers {
		commit, _ := s.number("commit")
		furthest = max(furthest, commit)
	}
	for i, s := range servers {
		applied, tells := s.number("applied")
		if _, told := s.get("lag"); tells && !told {
			lag := furthest - min(furthest, applied)
			servers[i].fields = append(s.fields, field{"lag", strconv.FormatUint(lag, 10)})
		}
	}
}

// hidden are the fields that the table shows elsewhere: the role says who was
// removed, and a line below what becomes of the members. ready and unready are for
// /readyz; the leader and the lag say as much.
var hidden = []string{"id", "phase", "removed", "ready", "unready"}

// columns is the order of the columns that are known; others follow.
var columns = []string{"role", "term", "leader", "last", "commit", "applied", "lag"}

// writeStatus writes the table. It has only the columns that some server
// fills.
func writeStatus(w io.Writer, servers []serverStatus) {
	var names []string
	for _, s := range servers {
		for _, f := range s.fields {
			scalar := !strings.ContainsAny(f.raw[:1], "{[")
			if scalar && !slices.Contains(hidden, f.name) && !slices.Contains(names, f.name) {
				names = append(names, f.name)
			}
		}
	}
	place := func(name string) int {
		if i := slices.Index(columns, name); i >= 0 {
			return i
		}
		return len(columns)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "SERVER\tADDRESS\t")
	for _, name := range names {
		fmt.Fprintf(table, "%s\t", strings.ToUpper(name))
	}
	fmt.Fprintf(table, "REACHABLE\n")
	for _, s := range servers {
		fmt.Fprintf(table, "%s\t%s\t", s.name(), s.address)
		for _, name := range names {
			fmt.Fprintf(table, "%s\t", s.cell(name))
		}
		reachable := "yes"
		if s.reason != "" {
			reachable = "no: " + s.reason
		}
		fmt.Fprintf(table, "%s\n", reachable)
	}
	table.Flush()
}

// cell is a field as the table shows it.
func (s serverStatus) cell(name string) string {
	text, found := s.get(name)
	id, isNumber := s.number(name)
	switch {
	case !found || text == "" || text == "null":
		return "-"
	case name == "role" && s.place != "":
		return s.place
	case name == "leader" && isNumber && id == 0:
		return "-"
	case name == "leader" && isNumber:
		return node.Name(id)
	}
	return oneLine(text)
}

// addPlace tells which servers have no vote, in the stages whose members change:
// as the leader sees it, for one that was removed may not have heard of that.
func addPlace(servers []serverStatus) {
	leader, found := leading(servers)
	voters, _ := leader.ids("voters")
	next, _ := leader.ids("next")
	phase, _ := leader.get("phase")
	for i, s := range servers {
		own, told := s.ids("voters")
		removed, _ := s.get("removed")
		id, _ := s.number("id")
		switch {
		case !told || !found && removed != "true" && len(own) > 0:
		case slices.Contains(voters, id):
		case phase == learning && slices.Contains(next, id):
			servers[i].place = "learner"
		case slices.Contains(next, id):
		case len(own) == 0:
			servers[i].place = "new"
		default:
			servers[i].place = "removed"
		}
	}
}

// leading is the server that leads in the highest term.
func leading(servers []serverStatus) (leader serverStatus, found bool) {
	var highest uint64
	for _, s := range servers {
		role, _ := s.get("role")
		term, _ := s.number("term")
		if role == "leader" && (!found || term > highest) {
			leader, highest, found = s, term, true
		}
	}
	return leader, found
}

// ids returns a field that is a list of servers.
func (s serverStatus) ids(name string) (ids []uint64, found bool) {
	text, found := s.get(name)
	return ids, found && json.Unmarshal([]byte(text), &ids) == nil
}

// writePhase says that a change of the members is under way, as the leader sees
// it.
func (a *app) writePhase(w io.Writer, servers []serverStatus) {
	s, _ := leading(servers)
	if phase, told := s.get("phase"); told && phase != stable {
		next, _ := s.ids("next")
		names := make([]string, len(next))
		for i, id := range next {
			names[i] = node.Name(id)
		}
		fmt.Fprintf(w, "A change of the members to %s is under way (%s); see it with: %s\n", strings.Join(names, ", "), oneLine(phase), a.hintMembers())
	}
}

// statusJSON is the same as JSON: an array with an object a server, which has
// the fields that the server gave, and lag.
func statusJSON(servers []serverStatus) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, s := range servers {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"server":%s,"address":%s,"reachable":%t`, strict.AppendString(nil, s.name()), strict.AppendString(nil, s.address), s.reason == "")
		if s.reason != "" {
			fmt.Fprintf(&b, `,"reason":%s`, strict.AppendString(nil, s.reason))
		}
		for _, f := range s.fields {
			if f.name != "server" && f.name != "address" && f.name != "reachable" && f.name != "reason" {
				fmt.Fprintf(&b, `,%s:%s`, strict.AppendString(nil, f.name), f.raw)
			}
		}
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.Bytes()
}

// leaderTime is how long to wait for a leader where there is none: servers that
// elect one have it within a second or so.
const leaderTime = 3 * time.Second

// leader asks the servers who leads. It waits a little if nobody does.
func (a *app) leader(ctx context.Context) (uint64, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, min(leaderTime, a.flags.timeout))
	defer cancel()
	for {
		id, err := a.leaderAmong(ctx, endpoints)
		if err == nil || a.stage.Appointed || !rest(ctx, retryPause) {
			return id, err
		}
	}
}

// leaderAmong asks servers once who leads: the one that says so in the highest
// term.
func (a *app) leaderAmong(ctx context.Context, endpoints []endpoint) (uint64, error) {
	servers := a.survey(ctx, endpoints)
	if leader, found := leading(servers); found {
		return leader.id, nil
	}
	for _, s := range servers {
		// One that is not among the servers asked is known by the others only.
		id, _ := s.number("leader")
		if id != 0 && !slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.id == id }) {
			return id, nil
		}
	}
	return 0, &api.Error{Code: api.Unavailable, Message: "no server says that it leads", Definite: true}
}
