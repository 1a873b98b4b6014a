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

const whichServers = "\n\nSERVER is a number (2 or n2), several with blanks or commas between, leader, or all."

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
		onServers(cluster.Pause, "Pause servers", "Pauses servers (SIGSTOP). Their connections stay open, but nothing is read, answered or sent until resume."),
		onServers(cluster.Resume, "Continue paused servers", "Continues servers (SIGCONT) after pause."),
		onServers(cluster.Restart, "Start servers again", "Starts servers again. A running server is first stopped cleanly."),
		a.linkCommand(cluster.Cut, "Cut the links between servers",
			"Loses all messages between each server of A and each of B, in both directions; without B, between those of A and all others.\nClients still reach the servers. A restart does not heal a cut."),
		a.linkCommand(cluster.Heal, "Heal the links between servers",
			"Heals links that cut has cut: between A and B, between A and all others, or all links."),
	}
}

// linkCommand returns the command cut or heal.
func (a *app) linkCommand(do, short, long string) *cobra.Command {
	use, least := do+" A [B]", 1
	if do == cluster.Heal {
		use, least = do+" [A [B]]", 0
	}
	return &cobra.Command{
		Use: use, Short: short, GroupID: groupBreak,
		Long:              long + "\n\nA and B are a number (2 or n2), several with commas between (1,2), or leader.",
		Args:              a.takes(least, 2),
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

// sides reads the two ends of links.
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
			return nil, nil, usagef("%s is on both sides; a link has two ends", node.Name(id))
		}
	}
	if len(right) == 0 {
		return nil, nil, usagef("there is no server on the other side")
	}
	return left, right, nil
}

// serverIDs reads a list of servers.
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
			return nil, usagef("%q is not a server; servers are numbers (2 or n2), leader, or all", word)
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

// left is the end of a command that ^C has ended before the supervisor had
// answered.
func (a *app) left(do string) error {
	text := fmt.Sprintf("interrupted; %s may still be carried out", do)
	if a.knows(api.Status) {
		text += "; see it with: " + a.clusterLine("status")
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
		Long: `Lets the cluster that runs start one more server, with an empty folder. SERVER is a number that no server has had (4 or n4).
It listens on ADDRESS, or on the port that follows from its number. It is no member yet: add makes it one.`,
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
// that it is unknown.
func (a *app) afterStart(ctx context.Context, id uint64, address string) string {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	v, err := a.askMembers(ctx)
	m, named := v.find(id)
	listens := fmt.Sprintf("%s listens on %s", node.Name(id), address)
	add := a.clusterLine("add", fmt.Sprintf("%d=%s", id, address))
	switch {
	case named && m.Address != address && isLearner(m) && v.Phase == api.Learning:
		return fmt.Sprintf("%s, but the change under way adds it at %s; cancel that with: %s; and add it where it is: %s", listens, m.Address, a.clusterLine("cancel"), add)
	case named && m.Address != address:
		return fmt.Sprintf("%s, but the members know %s at %s; see it with: %s", listens, node.Name(id), m.Address, a.hintMembers())
	case named && isLearner(m):
		return fmt.Sprintf("%s; a change that makes it a member is under way; see it with: %s", listens, a.hintMembers())
	case named:
		return fmt.Sprintf("%s and is a member already; see it with: %s", listens, a.hintMembers())
	case err == nil && v.Phase != api.Stable:
		return fmt.Sprintf("%s and is not a member yet; another change is under way: when %s says that it is done, make it one with: %s", listens, a.hintMembers(), add)
	}
	return fmt.Sprintf("%s and is not a member yet; make it one with: %s", listens, add)
}

// serverID reads the number of one server.
func serverID(word string) (uint64, error) {
	match := serverName.FindStringSubmatch(word)
	if match == nil {
		return 0, usagef("%q is not a server; a server is a number (2 or n2)", word)
	}
	id, err := strconv.ParseUint(match[1], 10, 64)
	if err != nil || id > api.MaxID {
		return 0, usagef("%q is not a server; the numbers go from 1 to 2^53", word)
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
