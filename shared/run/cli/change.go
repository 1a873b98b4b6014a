package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trust"
	"example.com/raftsteps/shared/core/wire"
)

// changeTime is how long a command waits for the end of a change by default: a
// new server may have to receive a long log.
const changeTime = time.Minute

// memberCommands returns the commands for the members, in stages whose members
// can change.
func (a *app) memberCommands() []*cobra.Command {
	var out []*cobra.Command
	if a.knows(api.Members) {
		out = append(out, a.membersCommand())
	}
	if a.needs().Changes && a.stage.New != nil {
		out = append(out, mark(reach, reachFolder, a.startServerCommand())...)
	}
	if a.knows(api.Change) {
		out = append(out, mark(acting, "members", a.addCommand(), a.removeCommand(), a.changeCommand())...)
	}
	if a.knows(api.Cancel) {
		out = append(out, mark(acting, "members", a.cancelCommand())...)
	}
	if a.knows(api.Transfer) {
		out = append(out, mark(acting, "members", a.transferCommand())...)
	}
	return out
}

const changeHelp = `

The command waits until the change is done, for a minute unless --timeout says otherwise, and shows the progress on stderr.
Once the change is accepted, it continues without the command, whichever server is the leader. members shows the progress, and
cancel cancels the change as long as the new servers do not vote.`

func (a *app) addCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "add SERVER=ADDRESS...", Short: "Add new servers to the members", GroupID: groupMembers,
		Long: `Adds one or several servers to the cluster, such as 4=127.0.0.1:7074 or n4=127.0.0.1:7074. Each must run at its address,
and a new server must have an empty folder; the command start starts one, and then its number alone is enough here. A new
server first receives the log. It votes once it has caught up.` + changeHelp,
		Args:              a.takes(1, -1),
		ValidArgsFunction: a.completeJoiners,
		RunE: func(cmd *cobra.Command, args []string) error {
			add, err := a.newMembers(args)
			if err != nil {
				return err
			}
			return a.change(cmd, api.Request{Op: api.Change, Add: add}, noWait)
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) removeCommand() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "remove SERVER...", Short: "Remove members", GroupID: groupMembers,
		Long: `Removes one or several servers from the cluster. A removed server keeps running but no longer takes part; stop it when the
command is done. Do not give its number to another server.` + changeHelp + `

SERVER is a number (2 or n2), several numbers separated by blanks or commas, or leader.`,
		Args:              a.takes(1, -1),
		ValidArgsFunction: a.completeServers,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := a.leavers(cmd.Context(), args)
			if err != nil {
				return err
			}
			return a.change(cmd, api.Request{Op: api.Change, Remove: ids}, noWait)
		},
	}
	noWaitFlag(cmd, &noWait)
	return cmd
}

func (a *app) changeCommand() *cobra.Command {
	var noWait bool
	var add, remove []string
	cmd := &cobra.Command{
		Use: "change --add SERVER=ADDRESS --remove SERVER", Short: "Add and remove servers in one step", GroupID: groupMembers,
		Long: `Adds and removes servers in one change, which the cluster makes as a whole or not at all. Both flags may be given
several times, or name several servers separated by commas.` + changeHelp,
		Args:                  a.takes(0, 0),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(add)+len(remove) == 0 {
				return &usageError{message: "change needs --add or --remove", hint: fmt.Sprintf("see %q", a.commandLine("change", "--help"))}
			}
			r := api.Request{Op: api.Change}
			var err error
			if r.Add, err = a.newMembers(add); err != nil {
				return err
			}
			if r.Remove, err = a.leavers(cmd.Context(), remove); err != nil {
				return err
			}
			return a.change(cmd, r, noWait)
		},
	}
	cmd.Flags().StringSliceVar(&add, "add", nil, "a server to add, such as 4=127.0.0.1:7074")
	cmd.Flags().StringSliceVar(&remove, "remove", nil, "a server to remove, such as 1")
	_ = cmd.RegisterFlagCompletionFunc("add", a.completeJoiners)
	_ = cmd.RegisterFlagCompletionFunc("remove", a.completeServers)
	noWaitFlag(cmd, &noWait)
	return cmd
}

func noWaitFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "no-wait", false, "return as soon as the change is accepted")
}

func (a *app) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cancel", Short: "Cancel the change in progress", GroupID: groupMembers,
		Long: `Cancels a change of the members, which then stay the same. This is possible as long as the new servers receive the log and
do not vote. After that, the change can only be completed.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.askLeader(cmd.Context(), api.Request{Op: api.Cancel})
			if err != nil || a.flags.output == "json" {
				return a.answer(r, a.whatIs(cmd.Context(), err))
			}
			text := "ok"
			if v, err := a.askMembers(cmd.Context()); err == nil && v.Phase == api.Stable {
				text = "the members stay " + v.names(isVoter)
			}
			fmt.Fprintln(a.stdout, text)
			return nil
		},
	}
}

func (a *app) transferCommand() *cobra.Command {
	return &cobra.Command{
		Use: "transfer SERVER", Short: "Transfer leadership to another member", GroupID: groupMembers,
		Long: `Makes the leader transfer its leadership to another member, as soon as that member has the whole log. No write is lost, and
writes wait only briefly. Use it before you stop the machine of the leader. SERVER is a number (2 or n2).`,
		Args:              a.takes(1, 1),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := serverID(args[0])
			if err != nil {
				return err
			}
			r, err := a.askLeader(cmd.Context(), api.Request{Op: api.Transfer, To: id})
			if isUnknown(err) {
				if v, viewErr := a.askMembers(cmd.Context()); viewErr == nil && v.leads() && v.ID == id {
					err = nil // the answer was lost, but the view shows the result
				}
			}
			if err != nil || a.flags.output == "json" {
				return a.answer(r, a.whatIs(cmd.Context(), err))
			}
			fmt.Fprintf(a.stdout, "%s leads\n", node.Name(id))
			return nil
		},
	}
}

// leavers parses the servers to remove.
func (a *app) leavers(ctx context.Context, words []string) ([]uint64, error) {
	list := strings.Join(words, ",")
	switch {
	case list == "":
		return nil, nil
	case slices.Contains(strings.Split(list, ","), "all"):
		return nil, usagef("name the servers to remove")
	}
	return a.serverIDs(ctx, list)
}

// newMembers parses SERVER=ADDRESS. If the address is missing, it takes the
// address of the server that the command start has started.
func (a *app) newMembers(words []string) ([]api.Member, error) {
	var out []api.Member
	for _, word := range words {
		for part := range strings.SplitSeq(word, ",") {
			number, address, given := strings.Cut(part, "=")
			id, err := serverID(number)
			if err != nil {
				return nil, usagef("%q is not a server to add; write number=address, such as 4=127.0.0.1:7074", part)
			}
			if !given {
				if address, err = a.joinerAddress(id); err != nil {
					return nil, err
				}
			}
			if err := api.CheckMemberAddress(address); err != nil {
				return nil, usagef("%s: %v", part, err)
			}
			out = append(out, api.Member{ID: id, Address: address})
		}
	}
	return out, nil
}

// joinerAddress returns the address of a server that the command start has
// started.
func (a *app) joinerAddress(id uint64) (string, error) {
	if a.elsewhere() {
		// The data folder of that cluster is unknown.
		return "", usagef("the address of %s is unknown; write %d=HOST:PORT", node.Name(id), id)
	}
	file, _, err := a.clusterFile()
	if err != nil {
		return "", err
	}
	for _, m := range file.Config.Joiners {
		if m.ID == id {
			return m.Address, nil
		}
	}
	if known := file.Config.Address(id); known != "" {
		return "", refused(api.Refused, "%s is one of the first members of this cluster; give a new server a number that no server has had, or write %[2]d=%[3]s to add %[1]s again with its old disk", node.Name(id), id, known)
	}
	write := fmt.Sprintf("write %d=HOST:PORT", id)
	if example, err := file.AddressFor(id); err == nil {
		write = fmt.Sprintf("write %d=ADDRESS, such as %[1]d=%s", id, example)
	}
	return "", usagef("the address of %s is unknown; %s, or start the server first with: %s", node.Name(id), write, a.clusterLine("start", fmt.Sprint(id)))
}

// completeJoiners completes the servers that were started later.
func (a *app) completeJoiners(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if file, found, err := a.clusterFile(); err == nil && found {
		for _, m := range file.Config.Joiners {
			words = append(words, fmt.Sprintf("%d=%s", m.ID, m.Address))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// askLeader sends a request to the leader, and searches for the leader until
// ctx ends or --timeout has passed. It never repeats a request that may have
// been carried out. It finds the leader before it sends the request, because a
// paused server would neither answer nor refuse it.
func (a *app) askLeader(ctx context.Context, r api.Request) (api.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	address := a.leaderAddress(ctx)
	for {
		answer, err := a.askAt(ctx, address, r)
		var e *api.Error
		if !errors.As(err, &e) || !e.Definite || ctx.Err() != nil {
			return answer, err
		}
		switch {
		case r.Op == api.Transfer && e.Code == api.Unavailable && answer.Error != nil:
			// The leader has tried, and accepted no writes meanwhile, so do not
			// repeat it.
			return answer, err
		case e.Code != api.NotLeader && e.Code != api.Busy && e.Code != api.Unavailable:
			return answer, err
		}
		if address = e.Leader; address == "" {
			address = a.leaderAddress(ctx)
		}
		if !rest(ctx, retryPause) {
			return answer, err
		}
	}
}

// askAt sends a request once to one server, or through the stage's client if no
// address is known.
func (a *app) askAt(ctx context.Context, address string, r api.Request) (api.Response, error) {
	if address == "" {
		client, done, err := a.client()
		if err != nil {
			return api.Response{}, err
		}
		defer done()
		return client.Do(ctx, r)
	}
	// The leader that the servers name may be a machine that was unplugged just now.
	// It refuses no connection, and the time is needed to find the next leader.
	dialing, connected := context.WithTimeout(ctx, statusTime)
	defer connected()
	client, err := a.direct(dialing, address)
	if err != nil {
		return api.Response{}, err
	}
	defer client.Close()
	return client.Do(ctx, r)
}

// retryPause is how long to wait before the leader is asked again.
const retryPause = 50 * time.Millisecond

// rest waits, and returns false if ctx ends first.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// leaderAddress returns the address of the leader; "" if no server knows a
// leader. If the leader itself answers, leaderAddress returns the address at
// which it answered, even if the configuration has another one.
func (a *app) leaderAddress(ctx context.Context) string {
	v, err := a.askMembers(ctx)
	if err != nil {
		return ""
	}
	if v.leads() {
		return v.at
	}
	m, _ := v.find(v.Leader)
	return m.Address
}

func isUnknown(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && !e.Definite
}

// whatIs adds the current members to an error with an unknown outcome.
func (a *app) whatIs(ctx context.Context, err error) error {
	if !isUnknown(err) {
		return err
	}
	now := "see the members with: " + a.hintMembers()
	if v, viewErr := a.askMembers(context.WithoutCancel(ctx)); viewErr == nil {
		now = fmt.Sprintf("now %s; %s", v.brief(), now)
	}
	return &endError{code: exitUnknown, message: fmt.Sprintf("%s; %s", withoutOutcome(err), now)}
}

// brief describes the members.
func (v view) brief() string {
	text := "the members are " + v.names(isVoter)
	switch {
	case len(v.Members) == 0:
		text = "the servers know of no members"
	case v.Phase == api.Learning || v.Phase == api.Joint:
		text += " and a change to " + v.names(isNext) + " is under way"
	}
	if m, found := v.find(v.Leader); found {
		text += ", and " + node.Name(m.ID) + " leads"
	}
	return text
}

// withoutOutcome returns the message of an error without the sentence that the
// request may or may not have happened: the current members show that.
func withoutOutcome(err error) string {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

// change begins a membership change and waits for its end.
func (a *app) change(cmd *cobra.Command, r api.Request, noWait bool) error {
	if err := r.CheckChange(); err != nil {
		return usagef("%v", err)
	}
	ctx := cmd.Context()
	wait := changeTime
	if cmd.Flags().Changed("timeout") {
		wait = a.flags.timeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	w := &waiter{app: a, change: r, trouble: make(map[uint64]string), refusals: make(map[uint64]string)}
	answer, err := a.askLeader(ctx, r)
	w.index, w.accepted = answer.Index, err == nil
	if isUnknown(err) && w.begun(ctx) {
		fmt.Fprintf(a.stderr, "the answer was lost, but the change is under way\n")
	} else if err != nil {
		return a.answer(answer, a.whatIs(ctx, err))
	}
	if noWait {
		if a.flags.output != "json" {
			fmt.Fprintf(a.stderr, "the change continues by itself; see the progress with: %s\n", a.hintMembers())
		}
		return a.answer(answer, nil)
	}
	v, err := w.wait(ctx)
	switch {
	case err != nil:
		return err
	case a.flags.output == "json":
		fmt.Fprintf(a.stdout, "%s\n", v.AppendJSON(nil))
	default:
		fmt.Fprintf(a.stdout, "the members are %s\n", v.names(isVoter))
	}
	return nil
}

// begun reports whether a change whose answer was lost is in progress or done.
func (w *waiter) begun(ctx context.Context) bool {
	v, err := w.app.askMembers(context.WithoutCancel(ctx))
	if err != nil {
		return false
	}
	w.accepted = v.Committed
	counts := isVoter
	if v.Phase != api.Stable {
		counts = isNext
	}
	return v.agrees(w.change, counts)
}

// agrees reports whether the view has the result of a change: counts is true for
// all added servers, at their addresses, and for no removed one.
func (v view) agrees(r api.Request, counts func(api.MemberStatus) bool) bool {
	for _, add := range r.Add {
		if m, found := v.find(add.ID); !found || !counts(m) || m.Address != add.Address {
			return false
		}
	}
	return !slices.ContainsFunc(r.Remove, func(id uint64) bool {
		m, found := v.find(id)
		return found && counts(m)
	})
}

// endError is an error with its own exit code and message.
type endError struct {
	code    int
	message string
}

func (e *endError) Error() string { return e.message }

// waiter waits for the end of a change and shows its progress.
type waiter struct {
	app    *app
	change api.Request

	// index is the index of the change's first entry; 0 if its answer was lost.
	index uint64

	// accepted is true once an entry of the change is known to be committed.
	// Until then, another leader may drop the change.
	accepted bool

	// said is the last line shown, topic its topic, and at its time.
	said, topic string
	at          time.Time

	// leader is the address of the last leader found; "" if there was none.
	leader string

	// trouble says what is wrong with new servers that receive no entries, by
	// ID; probed is the time of the last check.
	trouble map[uint64]string
	probed  time.Time

	// refusals says why new servers would refuse the leader, by ID. Each server
	// is asked only once, because the request adds a line to its log output.
	refusals map[uint64]string

	// silent is the time since which some new server has had no entries; zero
	// if all have some.
	silent time.Time
}

// Intervals while a change is in progress.
const (
	// pollPause is the pause between two requests for the members.
	pollPause = 100 * time.Millisecond

	// tellPause is the shortest pause between two lines about one topic.
	tellPause = time.Second

	// probePause is how long a new server may have no entries before it is
	// asked directly, and how often it is asked.
	probePause = 500 * time.Millisecond
)

// wait returns the members when the change is done.
func (w *waiter) wait(ctx context.Context) (view, error) {
	phase := ""
	for {
		v, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return v, w.leave(ctx, phase)
		case (err != nil || !v.leads()) && !w.accepted:
			w.tell("leader", "no leader answers at the moment; the next leader may continue the change or drop it")
		case err != nil || !v.leads():
			w.tell("leader", "no leader answers at the moment; the change continues when there is a leader")
		case v.Config < w.index:
			// This server is no longer the leader, but does not know it yet.
		case v.Phase == api.Stable && v.Committed && v.agrees(w.change, isVoter):
			if m, _ := v.find(v.ID); m.Voter {
				return v, nil
			}
			w.tell("done", "done; the leader is no longer a member and transfers its leadership")
		case v.Phase == api.Stable && v.Committed:
			end := "canceled"
			if !w.accepted {
				end = "dropped by a new leader"
			}
			return v, refused(api.Refused, "the change was %s: the members are %s", end, v.names(isVoter))
		default:
			phase, w.accepted = v.Phase, w.accepted || v.Committed
			w.tell(phase, w.progress(ctx, v))
		}
		if !rest(ctx, pollPause) {
			return v, w.leave(ctx, phase)
		}
	}
}

// look asks the leader for the members, and all servers only if that fails: a
// server that does not answer costs a second each time.
func (w *waiter) look(ctx context.Context) (view, error) {
	if w.leader != "" {
		if v, err := w.app.askView(ctx, w.leader); err == nil && v.leads() {
			return v, nil
		}
	}
	v, err := w.app.askMembers(ctx)
	m, _ := v.find(v.ID)
	w.leader = m.Address
	return v, err
}

// leave returns the error for a wait that ends before the change.
func (w *waiter) leave(ctx context.Context, phase string) error {
	why, code := "timed out", exitUnknown
	if errors.Is(ctx.Err(), context.Canceled) {
		why, code = "interrupted", exitInterrupted
	}
	what := "the change was accepted and will continue"
	if !w.accepted {
		what = "the change is in the log of a server and may still be done or dropped"
	}
	text := fmt.Sprintf("%s; %s; see the progress with: %s", why, what, w.app.hintMembers())
	if phase != api.Joint && w.accepted {
		text += "; cancel it with: " + w.app.clusterLine("cancel")
	}
	return &endError{code: code, message: text}
}

// tell shows a line about a topic, unless it says nothing new or comes too soon
// after the last line about the topic.
func (w *waiter) tell(topic, text string) {
	if text == "" || text == w.said || topic == w.topic && time.Since(w.at) < tellPause {
		return
	}
	w.topic, w.said, w.at = topic, text, time.Now()
	fmt.Fprintf(w.app.stderr, "%s\n", oneLine(text))
}

// progress describes the progress of the change.
func (w *waiter) progress(ctx context.Context, v view) string {
	if v.Phase == api.Joint {
		return fmt.Sprintf("the old and the new members decide together: %s and %s", v.names(isVoter), v.names(isNext))
	}
	var parts []string
	var silent []api.MemberStatus
	for _, m := range v.Members {
		switch {
		case v.Phase != api.Learning || !isLearner(m):
		case m.Match == 0:
			silent = append(silent, m)
		default:
			parts = append(parts, fmt.Sprintf("%s has %d of %d entries", node.Name(m.ID), m.Match, v.Last))
		}
	}
	w.probe(ctx, v, silent)
	for _, m := range silent {
		if text := w.trouble[m.ID]; text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "the new servers receive the log: " + strings.Join(parts, "; ")
}

// probe finds out why new servers have no entries.
func (w *waiter) probe(ctx context.Context, v view, silent []api.MemberStatus) {
	now := time.Now()
	if len(silent) == 0 {
		w.silent = time.Time{}
		return
	}
	w.silent = cmp.Or(w.silent, now)
	if now.Sub(w.silent) < probePause || now.Sub(w.probed) < probePause {
		return
	}
	w.probed = now
	for _, m := range silent {
		w.trouble[m.ID] = w.diagnose(ctx, v, m)
	}
}

// diagnose asks a new server that has no entries.
func (w *waiter) diagnose(ctx context.Context, v view, m api.MemberStatus) string {
	name := node.Name(m.ID)
	own, err := w.app.askView(ctx, m.Address)
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Code == api.BadRequest:
		return fmt.Sprintf("the program at %s is not a server of this stage: %s", m.Address, e.Message)
	case err != nil:
		return fmt.Sprintf("%s has not answered yet: is it running at %s? (%s)", name, m.Address, w.app.reason(err))
	case own.ID != m.ID:
		return fmt.Sprintf("the server at %s is %s, not %s: cancel the change, and add the right address", m.Address, node.Name(own.ID), name)
	case len(own.Members) > 0 && !own.shares(v, m.ID):
		return fmt.Sprintf("%s at %s belongs to another cluster, whose members are %s: cancel the change", name, m.Address, own.names(isVoter))
	case own.Leader == v.Leader:
		return fmt.Sprintf("%s is receiving a snapshot first", name)
	}
	why, known := w.refusals[m.ID]
	if !known {
		why = w.app.refusal(ctx, v, m)
		w.refusals[m.ID] = why
	}
	if why != "" {
		return fmt.Sprintf("%s runs at %s and refuses the leader: %s; cancel the change", name, m.Address, why)
	}
	return fmt.Sprintf("%s runs at %s and has no entries yet", name, m.Address)
}

// refusal returns why a server would refuse the leader as a peer; "" if it
// would accept it, or if this cannot be checked here.
func (a *app) refusal(ctx context.Context, v view, m api.MemberStatus) string {
	file, found, err := a.clusterFile()
	leader, known := v.find(v.Leader)
	if err != nil || !found || !known || a.elsewhere() {
		return ""
	}
	keys, err := a.secure()
	if err != nil {
		return err.Error()
	}
	var config *tls.Config
	if keys != nil {
		config = trust.ClientOf(keys.Config(), file.Config.Cluster, m.ID)
	}
	err = wire.Probe(ctx, wire.LinkOptions{To: m.ID, Address: m.Address, TLS: config,
		Self:   wire.Identity{Cluster: file.Config.Cluster, Secret: file.Config.Secret, ID: leader.ID, Address: leader.Address},
		Limits: wire.Limits{Dial: statusTime}})
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e.Message
	case err != nil:
		return err.Error()
	}
	return ""
}

// shares reports whether two views have a server other than except in common, at
// the same address.
func (v view) shares(w view, except uint64) bool {
	return slices.ContainsFunc(v.Members, func(m api.MemberStatus) bool {
		other, found := w.find(m.ID)
		return found && m.ID != except && other.Address == m.Address
	})
}
