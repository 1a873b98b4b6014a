package cli

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/run/cluster"
)

// node and cluster take their main settings also as words: node CONFIG ID means
// node --config CONFIG --id ID.

// setting is a flag that can also be given as a word.
type setting struct{ flag, meaning string }

var (
	configSetting  = setting{"config", "the configuration"}
	idSetting      = setting{"id", "the number of the server"}
	serversSetting = setting{"servers", "the number of servers"}
)

// set sets the flag to the word. A flag that is given as well must say the same.
func (s setting) set(cmd *cobra.Command, word string) error {
	f := cmd.Flags().Lookup(s.flag)
	if f.Changed && f.Value.String() != word {
		name := "--" + s.flag
		if s == serversSetting {
			name = "-n"
		}
		return usagef("%s is given twice: the argument says %s, and %s says %s; leave one of them out", s.meaning, word, name, f.Value)
	}
	return cmd.Flags().Set(s.flag, word)
}

// readNode reads the arguments of node: CONFIG ID.
func (a *app) readNode(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if len(args) == 1 && serverName.MatchString(args[0]) {
		return &usageError{message: fmt.Sprintf("node takes the configuration before the number: %s; for the cluster in the data folder: %s",
			a.commandLine("node", "CONFIG", args[0]), a.commandLine("node", "--id", args[0])), hint: a.seeHelp(cmd)}
	}
	if err := configSetting.set(cmd, args[0]); err != nil || len(args) == 1 {
		return err
	}
	id, err := serverID(args[1])
	if err != nil {
		return err
	}
	return idSetting.set(cmd, strconv.FormatUint(id, 10))
}

// readCluster reads the arguments of cluster: CONFIG N.
func (a *app) readCluster(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, err := strconv.Atoi(args[0]); err == nil && len(args) == 1 {
		return &usageError{message: fmt.Sprintf("cluster takes the configuration before the number: %s; for a new cluster of this size: %s",
			a.commandLine("cluster", "CONFIG", args[0]), a.commandLine("cluster", "-n", args[0])), hint: a.seeHelp(cmd)}
	}
	if err := configSetting.set(cmd, args[0]); err != nil || len(args) == 1 {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return usagef("%s is %q; it must be a whole number", serversSetting.meaning, args[1])
	}
	return serversSetting.set(cmd, strconv.Itoa(n))
}

// completePositional completes the arguments of node and cluster: the name of a JSON
// file, and then what numbers returns for that configuration.
func completePositional(numbers func(cluster.File) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
		case 1:
			if file, err := cluster.Load(args[0]); err == nil {
				return numbers(file), cobra.ShellCompDirectiveNoFileComp
			}
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// idsOf returns the numbers of the servers of a configuration.
func idsOf(file cluster.File) (ids []string) {
	for _, m := range file.Config.Members {
		ids = append(ids, strconv.FormatUint(m.ID, 10))
	}
	for _, m := range file.Config.Joiners {
		ids = append(ids, strconv.FormatUint(m.ID, 10))
	}
	return ids
}

// sizeOf returns how many servers a configuration has.
func sizeOf(file cluster.File) []string { return []string{strconv.Itoa(len(file.Config.Members))} }
