package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

const whichServers = "\n\nSERVER is a number (2 or n2), several numbers separated by blanks or commas, leader, or all."

// breakCommands returns the commands that break the running cluster in the data
// folder from another terminal.
func (a *app) breakCommands() []*cobra.Command {
	onServers := func(do, short, long string) *cobra.Command {
		return &cobra.Command{
			Use: do + " SERVER...", Short: short, Long: long + whichServers, GroupID: groupBreak,
			Args:              a.takes(1, -1),
			ValidArgsFunction: a.completeServers,
			RunE: func(cmd *cobra.Command, args []string) error {
				ids, err := a.serverIDs(cmd.Context(), strings.Join(args, ","))
				if err != nil {
					return err
				}
				return a.carryOut(cmd.Context(), cluster.Command{Do: do, IDs: ids})
			},
		}
	}
	return []*cobra.Command{
		onServers(cluster.Kill, "Kill servers", "Kills servers with SIGKILL, without a clean shutdown. They stay down until restart."),
		onServers(cluster.Pause, "Pause servers", "Pauses servers (SIGSTOP). Their connections stay open, but they read, answer and send nothing until resume."),
		onServers(cluster.Resume, "Resume paused servers", "Resumes paused servers (SIGCONT)."),
		onServers(cluster.Restart, "Start servers again", "Starts servers again. A running server is first stopped cleanly."),
		a.linkCommand(cluster.Cut, "Cut the links between servers",
			"Drops all messages between each server of A and each server of B, in both directions; without B, those between A and all other servers.\nClients still reach the servers. A restart does not heal a cut."),
		a.linkCommand(cluster.Heal, "Heal the links between servers",
			"Heals links that cut has cut: those between A and B; without B, those between A and all other servers; without A and B, all links."),
	}
}

// linkCommand returns the command cut or heal.
func (a *app) linkCommand(do, short, long string) *cobra.Command {
	use, low := do+" A [B]", 1
	if do == cluster.Heal {
		use, low = do+" [A [B]]", 0
	}
	return &cobra.Command{
		Use: use, Short: short, GroupID: groupBreak,
		Long:              long + "\n\nA and B are each a number (2 or n2), several numbers separated by commas (1,2), or leader.",
		Args:              a.takes(low, 2),
		ValidArgsFunction: a.completeServers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := cluster.Command{Do: do}
			if len(args) > 0 {
				var err error
				if c.IDs, c.Others, err = a.sides(cmd.Context(), args); err != nil {
					return err
				}
			}
			return a.carryOut(cmd.Context(), c)
		},
	}
}

// sides parses the two sides of a cut. If there is only one argument, the other
// side is all other servers.
func (a *app) sides(ctx context.Context, args []string) (left, right []uint64, err error) {
	if left, err = a.serverIDs(ctx, args[0]); err != nil {
		return nil, nil, err
	}
	if len(args) == 2 {
		right, err = a.serverIDs(ctx, args[1])
	} else {
		right, err = a.serverIDs(ctx, "all")
		right = slices.DeleteFunc(right, func(id uint64) bool { return slices.Contains(left, id) })
	}
	if err != nil {
		return nil, nil, err
	}
	for _, id := range left {
		if slices.Contains(right, id) {
			return nil, nil, usagef("%s is in both A and B; a link connects two different servers", node.Name(id))
		}
	}
	if len(right) == 0 {
		return nil, nil, usagef("A names all servers, so no server is left for B")
	}
	return left, right, nil
}

// serverIDs parses a list of servers that are separated by commas.
func (a *app) serverIDs(ctx context.Context, list string) ([]uint64, error) {
	var ids []uint64
	add := func(id uint64) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for word := range strings.SplitSeq(list, ",") {
		switch {
		case serverName.MatchString(word):
			id, err := serverID(word)
			if err != nil {
				return nil, err
			}
			add(id)
		case word == "leader":
			id, err := a.leader(ctx)
			if err != nil {
				return nil, err
			}
			add(id)
		case word == "all":
			members, err := a.members()
			if err != nil {
				return nil, err
			}
			for _, m := range members {
				add(m.id)
			}
		default:
			return nil, usagef("%q does not name a server; write a number (2 or n2), leader, or all", word)
		}
	}
	return ids, nil
}

// carryOut sends a command to the supervisor and shows the states of the
// servers afterward.
func (a *app) carryOut(ctx context.Context, c cluster.Command) error {
	if err := cluster.CheckStage(a.flags.data, a.stage.Name); err != nil {
		return err
	}
	remote, err := cluster.Connect(a.flags.data)
	if errors.Is(err, cluster.ErrNotRunning) {
		return fmt.Errorf("%w on %s; start one with: %s%s", err, a.flags.data, a.startCommand(), a.dataFlag())
	}
	servers, err := remote.Do(ctx, c)
	switch {
	case err != nil && ctx.Err() != nil:
		return a.left(c.Do)
	case err != nil && len(servers) == 0:
		return err
	}
	return errors.Join(a.showStates(servers), err)
}

// left returns the error of a command that ^C ended before the supervisor
// answered.
func (a *app) left(do string) error {
	text := fmt.Sprintf("interrupted; %s may still be carried out", do)
	if a.knows(api.Status) {
		text += "; see the servers with: " + a.clusterLine("status")
	}
	return &endError{code: exitInterrupted, message: text}
}

// showStates shows the states of the servers' processes.
func (a *app) showStates(servers []cluster.Server) error {
	if a.flags.output == "json" {
		text, err := json.Marshal(servers)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s\n", text)
		return nil
	}
	for _, s := range servers {
		line := fmt.Sprintf("%s %s", node.Name(s.ID), s.State)
		if a.stage.New == nil {
			line = "the server is " + s.State
		}
		if len(s.Cut) > 0 {
			var names []string
			for _, id := range s.Cut {
				names = append(names, node.Name(id))
			}
			line += ", cut off from " + strings.Join(names, " ")
		}
		fmt.Fprintln(a.stdout, line)
	}
	return nil
}

// startServerCommand returns the command start, which starts a new server.
func (a *app) startServerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start SERVER [ADDRESS]", Short: "Start a new server next to those that are running", GroupID: groupMembers,
		Long: `Starts one more server in the running cluster, with an empty folder. SERVER is a number that no server has had (4 or n4).
The server listens on ADDRESS, or by default on the port that follows from its number. It is not a member until add makes it one.`,
		Args:              a.takes(1, 2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := serverID(args[0])
			if err != nil {
				return err
			}
			c := cluster.Command{Do: cluster.Start, IDs: []uint64{id}}
			if len(args) == 2 {
				if err := api.CheckMemberAddress(args[1]); err != nil {
					return usagef("%v", err)
				}
				c.Address = args[1]
			}
			if err := a.carryOut(cmd.Context(), c); err != nil {
				return err
			}
			file, _, err := a.clusterFile()
			if err == nil && a.flags.output != "json" {
				fmt.Fprintln(a.stderr, oneLine(a.afterStart(cmd.Context(), id, file.Config.Address(id))))
			}
			return err
		},
	}
}

// startTime is how long to wait for the cluster's view of a server that was
// just started.
const startTime = 500 * time.Millisecond

// afterStart returns the address of a server that was just started, and the
// next command. The cluster may know the server already: an operator may add it
// first and then start it. If no server answers in time, afterStart assumes
// that the cluster does not know it.
func (a *app) afterStart(ctx context.Context, id uint64, address string) string {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	v, err := a.askMembers(ctx)
	m, named := v.find(id)
	listens := fmt.Sprintf("%s listens on %s", node.Name(id), address)
	add := a.clusterLine("add", fmt.Sprintf("%d=%s", id, address))
	switch {
	case named && m.Address != address && isLearner(m) && v.Phase == api.Learning:
		return fmt.Sprintf("%s, but the change under way adds it at %s; cancel the change with: %s; then add the right address with: %s", listens, m.Address, a.clusterLine("cancel"), add)
	case named && m.Address != address:
		return fmt.Sprintf("%s, but the configuration has %s at %s; see the members with: %s", listens, node.Name(id), m.Address, a.hintMembers())
	case named && isLearner(m):
		return fmt.Sprintf("%s; a change that makes it a member is under way; see the progress with: %s", listens, a.hintMembers())
	case named:
		return fmt.Sprintf("%s and is already a member; see the members with: %s", listens, a.hintMembers())
	case err == nil && v.Phase != api.Stable:
		return fmt.Sprintf("%s and is not a member yet; another change is under way: when %s shows that it is done, add the server with: %s", listens, a.hintMembers(), add)
	}
	return fmt.Sprintf("%s and is not a member yet; add it with: %s", listens, add)
}

// serverID parses the number of one server.
func serverID(word string) (uint64, error) {
	match := serverName.FindStringSubmatch(word)
	if match == nil {
		return 0, usagef("%q does not name a server; write a number (2 or n2)", word)
	}
	id, err := strconv.ParseUint(match[1], 10, 64)
	if err != nil || id > api.MaxID {
		return 0, usagef("%q is not the number of a server; the numbers go from 1 to 2^53", word)
	}
	return id, nil
}

// completeServers completes the servers of the cluster and the word leader.
func (a *app) completeServers(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	names, directive := a.completeNames(cmd, args, word)
	return append(names, "leader"), directive
}

// completeAllServers also completes the word all.
func (a *app) completeAllServers(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	names, directive := a.completeServers(cmd, args, word)
	return append(names, "all"), directive
}

// completeNames completes the names of the servers.
func (a *app) completeNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var words []string
	if members, err := a.members(); err == nil {
		for _, m := range members {
			words = append(words, node.Name(m.id))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
