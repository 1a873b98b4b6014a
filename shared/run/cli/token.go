package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/guard"
	"example.com/raftsteps/shared/run/cluster"
)

// tokenVariable is the environment variable that replaces --token.
const tokenVariable = "KV_TOKEN"

// token returns the token that commands show to servers, and where it comes from; both
// are "" if they show none. The token of the operator goes only to the servers of the
// cluster whose secret it is derived from.
func (a *app) token() (token, source string, err error) {
	token, source = a.flags.token, "--token"
	if token == "" && !a.inDemo { // a demo has its own servers
		token, source = os.Getenv(tokenVariable), tokenVariable
	}
	if token != "" {
		if err := access.CheckToken(token); err != nil {
			return "", "", usagef("%s: %v", source, err)
		}
		return token, source, nil
	}
	if a.stage.New == nil || a.elsewhere() {
		return "", "", nil
	}
	file, found, err := a.clusterFile()
	if err != nil || !found || file.Config.Access == nil {
		return "", "", nil // a command that needs the file reports the error
	}
	return guard.OperatorToken(file.Config.Cluster, file.Config.Secret), "the secret in " + a.configPath(), nil
}

func (a *app) configPath() string { return filepath.Join(a.flags.data, cluster.ConfigName) }

// deniedHint says how to get a role.
func (a *app) deniedHint() string {
	switch _, source, _ := a.token(); source {
	case "":
		return "show a token with --token or " + tokenVariable
	default:
		return "the token came from " + source
	}
}

// tokenOptions are the flags of token.
type tokenOptions struct {
	config    string
	remove    string
	anonymous string
}

func (a *app) tokenCommand() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use: "token [NAME ROLE]", Short: "Say who may do what: create a token", GroupID: groupServers, SuggestFor: []string{"access", "auth", "login", "user"},
		Long: `Creates a token for a client, prints it once, and writes its hash and its role into the cluster.json. Without arguments it
lists the tokens. The roles are:

  read     get, status and other commands that change nothing
  write    also put and the other commands that change keys
  operate  also commands that change the members or the leader

A client shows its token with --token, with KV_TOKEN, or over HTTP with "Authorization: Bearer TOKEN". Commands that can read
the cluster.json need none. The servers of this machine follow the file; on other machines, copy its "access" into theirs.

Once there is a token, clients without one may do nothing, unless --anonymous gives them a role.`,
		Args: a.takes(0, 2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"read", "write", "operate"}, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.config == "" {
				o.config = a.configPath()
			}
			return a.changeTokens(cmd, args, o)
		},
	}
	cmd.Flags().StringVar(&o.config, "config", "", "the cluster.json (default: the one in the data folder)")
	cmd.Flags().StringVar(&o.remove, "remove", "", "remove the token with this name")
	cmd.Flags().StringVar(&o.anonymous, "anonymous", "", "the role of clients without a token: none, read, write or operate")
	return cmd
}

// changeTokens carries out the command token.
func (a *app) changeTokens(cmd *cobra.Command, args []string, o tokenOptions) error {
	switch {
	case len(args) == 1:
		return &usageError{message: "token needs the role as well: read, write or operate", hint: a.seeHelp(cmd)}
	case len(args) == 0 && o.remove == "" && o.anonymous == "":
		return a.listTokens(a.stdout, o.config)
	}
	token := guard.NewToken()
	err := cluster.ChangeAccess(o.config, func(p access.Policy) (access.Policy, error) { return o.change(p, args, token) })
	if err != nil {
		return a.noConfig(err)
	}
	if len(args) > 0 {
		fmt.Fprintln(a.stdout, token)
		fmt.Fprintf(a.stderr, "This is the token of %s. It is shown only now: %s has only its hash.\n", args[0], o.config)
	}
	return a.listTokens(a.stderr, o.config)
}

// change returns the policy with the changes of a command line.
func (o tokenOptions) change(p access.Policy, args []string, token string) (access.Policy, error) {
	if o.remove != "" {
		i := p.Index(o.remove)
		if i < 0 {
			return p, usagef("--remove: there is no token %q", o.remove)
		}
		p.Tokens = slices.Delete(p.Tokens, i, i+1)
	}
	if o.anonymous != "" {
		role, err := parseRole(o.anonymous, true)
		if err != nil {
			return p, usagef("--anonymous: %v", err)
		}
		p.Anonymous = role
	}
	if len(args) == 0 {
		return p, nil
	}
	role, err := parseRole(args[1], false)
	if err != nil {
		return p, usagef("%v", err)
	}
	if err := p.Add(access.Token{Name: args[0], Role: role, Hash: guard.Hash(token)}); err != nil {
		return p, usagef("%v", err)
	}
	return p, nil
}

// noConfig says how to get a cluster.json, if there is none.
func (a *app) noConfig(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; %q creates one, or name another with --config", err, a.commandLine("cluster"))
	}
	return err
}

func parseRole(name string, none bool) (access.Role, error) {
	if none && name == access.None.String() {
		return access.None, nil
	}
	return access.ParseRole(name)
}

// listTokens shows who may do what.
func (a *app) listTokens(out io.Writer, config string) error {
	file, err := cluster.Load(config)
	if err != nil {
		return a.noConfig(err)
	}
	p := file.Config.Access
	if p == nil {
		fmt.Fprintf(out, "%s does not say who may do what: everyone who can reach the servers may do everything.\n", config)
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(table, "TOKEN\tROLE\n")
	for _, t := range p.Tokens {
		fmt.Fprintf(table, "%s\t%v\n", t.Name, t.Role)
	}
	fmt.Fprintf(table, "(without a token)\t%v\n", p.Anonymous)
	return table.Flush()
}
