package cli

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
)

// Most commands use the servers in --endpoints. The others are marked with
// their target.
const reach = "reach"

const (
	// reachNobody: the command asks no running server, and its output is for
	// people.
	reachNobody = "nobody"

	// reachSimulator: the command asks no running server, and has results, which
	// may be JSON.
	reachSimulator = "simulator"

	// reachFolder: the command acts on the cluster in the data folder.
	reachFolder = "folder"
)

// acting marks the commands that change something, apart from those marked with
// reachFolder.
const acting = "acting"

// mark marks commands with an annotation.
func mark(name, value string, commands ...*cobra.Command) []*cobra.Command {
	for _, cmd := range commands {
		if cmd.Annotations == nil {
			cmd.Annotations = make(map[string]string)
		}
		cmd.Annotations[name] = value
	}
	return commands
}

// acts reports whether a command changes something.
func acts(cmd *cobra.Command) bool {
	return cmd.Annotations[acting] != "" || cmd.Annotations[reach] == reachFolder
}

// checkReach refuses a command that would contradict its flags: act on a
// cluster that is not in --endpoints, or write text with -o json.
func (a *app) checkReach(cmd *cobra.Command) error {
	what, name := cmd.Annotations[reach], cmd.Name()
	if cmd == cmd.Root() {
		name = "starting a server"
	}
	switch {
	case what == reachFolder:
		return a.checkFolder(cmd)
	case what != "" && cmd.Flags().Changed("endpoints"):
		return usagef("%s asks no running server; leave --endpoints out", name)
	case what == reachNobody && a.flags.output == "json":
		return usagef("%s has no results to write as JSON; leave -o out", name)
	}
	return nil
}

// checkFolder refuses to act on the cluster in the data folder if --endpoints
// names a server of another one.
func (a *app) checkFolder(cmd *cobra.Command) error {
	endpoints, source, err := a.named()
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if e.id == 0 {
			return usagef("%s acts on the cluster in %s, but %s names %s, which is not one of its servers; name the folder of that server's cluster with --data",
				cmd.Name(), a.flags.data, source, e.address)
		}
	}
	return nil
}

// endpointList returns the user's list of endpoints and its source; both are
// empty if there is none.
func (a *app) endpointList() (list, source string) {
	if a.flags.endpoints != "" {
		return a.flags.endpoints, "--endpoints"
	}
	// A demo has its own servers.
	if list := os.Getenv(endpointsVariable); list != "" && !a.inDemo {
		return list, endpointsVariable
	}
	return "", ""
}

// elsewhere reports whether the user has named a server outside the cluster in
// the data folder.
func (a *app) elsewhere() bool {
	endpoints, _, err := a.named()
	return err == nil && slices.ContainsFunc(endpoints, func(e endpoint) bool { return e.id == 0 })
}

// candidates returns the servers that a command for one server can mean: those
// of the cluster in the data folder, or those that the user has named, with
// their own numbers, and the members that they know.
func (a *app) candidates(ctx context.Context) ([]endpoint, error) {
	out, source, err := a.named()
	if err != nil {
		return nil, err
	}
	if source == "" {
		return a.members()
	}
	for i, s := range a.survey(ctx, out) {
		out[i].id = s.id
	}
	if _, known := a.stage.Ops[api.Members]; !known {
		return out, nil
	}
	v, err := a.askMembers(ctx)
	if err != nil {
		return out, nil // the command may still be for one of the named servers
	}
	for _, m := range v.Members {
		if !slices.ContainsFunc(out, func(e endpoint) bool { return e.id == m.ID }) {
			out = append(out, endpoint{m.ID, m.Address})
		}
	}
	return out, nil
}

// endpointsFlag returns --endpoints, and the flags for TLS, for a command in a hint.
func (a *app) endpointsFlag() string {
	if a.inShell || a.inDemo {
		return ""
	}
	words := a.tlsWords()
	if a.flags.endpoints != "" {
		words = append([]string{"--endpoints", a.flags.endpoints}, words...)
	}
	if len(words) == 0 {
		return ""
	}
	return " " + quoteWords(words)
}
