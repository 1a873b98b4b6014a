package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/raftsteps/shared/core/api"
)

// The groups of commands in the help.
const (
	groupServers = "servers"
	groupClient  = "client"
	groupMembers = "members"
	groupBreak   = "break"
	groupLearn   = "learn"
)

func init() {
	// The help lists commands in the order of use.
	cobra.EnableCommandSorting = false
	cobra.AddTemplateFunc("trim", strings.TrimSpace)
}

// usageTemplate is the template for the help of a command below its
// description.
const usageTemplate = `Usage:{{if and .Runnable (trim .UseLine)}}
  {{trim .UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{with .CommandPath}}{{.}} {{end}}COMMAND{{$commands := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $commands}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasHelpSubCommands}}

Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}

Run "help COMMAND" or "help TOPIC" for more.{{end}}
`

// root returns the command tree of the stage.
func (a *app) root() *cobra.Command {
	s := a.stage
	root := &cobra.Command{
		Use:               filepath.Base(os.Args[0]),
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: a.program()},
		Short:             s.About,
		Long:              s.About,
		Args:              a.noSuchCommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	if a.inShell {
		root.Use, root.Annotations, root.DisableFlagsInUseLine = "", nil, true
		root.CompletionOptions.DisableDefaultCmd = true
		root.Short, root.Long = "", "The shell runs these commands; exit ends it."
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(a.flagError)
	a.register(root)
	a.addGroups(root)
	a.addCommands(root)
	a.addHelp(root)
	completeFlags(root)
	return root
}

func (a *app) addGroups(root *cobra.Command) {
	s := a.stage
	if s.New != nil && !a.inShell {
		root.AddGroup(&cobra.Group{ID: groupServers, Title: "Run servers:"})
	}
	if s.Dial != nil || !a.inShell {
		root.AddGroup(&cobra.Group{ID: groupClient, Title: "Ask servers:"})
	}
	if a.needs().Changes {
		root.AddGroup(&cobra.Group{ID: groupMembers, Title: "Change the members:"})
	}
	switch {
	case s.New != nil:
		root.AddGroup(&cobra.Group{ID: groupBreak, Title: "Break the running cluster:"})
	case s.Serve != nil:
		root.AddGroup(&cobra.Group{ID: groupBreak, Title: "Break the running server:"})
	}
	if a.inShell {
		return
	}
	root.AddGroup(&cobra.Group{ID: groupLearn, Title: "Learn and measure:"})
}

// addCommands adds the commands that the stage supports. The shell has only the
// commands that ask servers, change the members or break servers.
func (a *app) addCommands(root *cobra.Command) {
	s := a.stage
	if s.Serve != nil && !a.inShell {
		a.makeServe(root)
	}
	if s.Dial != nil {
		root.AddCommand(a.askCommands()...)
		root.AddCommand(a.memberCommands()...)
		root.AddCommand(a.backupCommands()...)
	}
	switch {
	case s.New != nil:
		root.AddCommand(mark(reach, reachFolder, a.breakCommands()...)...)
	case s.Serve != nil:
		root.AddCommand(mark(acting, "process", a.singleCommands()...)...)
	}
	if a.inShell {
		return
	}
	root.AddCommand(mark(acting, "keys", a.talkCommand())...)
	if s.New != nil {
		root.AddCommand(mark(reach, reachNobody, a.clusterCommand(), a.nodeCommand())...)
		root.AddCommand(mark(reach, reachNobody, mark(acting, "files", a.certsCommand(), a.tokenCommand())...)...)
		root.AddCommand(a.recoverCommands()...)
	}
	if s.Dial != nil {
		root.AddCommand(a.shellCommand())
	}
	if s.Demo != nil {
		root.AddCommand(mark(reach, reachNobody, a.demoCommand())...)
	}
	if s.Scenarios != nil {
		root.AddCommand(mark(reach, reachSimulator, a.scenarioCommand(), a.labCommand())...)
	}
	root.AddCommand(mark(reach, reachSimulator, a.versionCommand())...)
	if s.Dial != nil {
		root.AddCommand(mark(acting, "keys", a.benchCommand())...)
	}
}

// askCommands returns the commands that send requests to servers.
func (a *app) askCommands() []*cobra.Command {
	commands := a.kvCommands()
	if _, known := a.stage.Ops[api.Status]; known {
		commands = append(commands, a.statusCommand())
	}
	return append(commands, a.operatorCommands()...)
}

// addHelp adds the help topics, and a help command that refuses unknown words.
func (a *app) addHelp(root *cobra.Command) {
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "The meaning of the exit codes", Long: a.exitCodesHelp()})
	help := &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command or a topic",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && !c.Hidden {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || found == nil || len(rest) > 0 {
				return usagef("there is no help about %q; see %q", strings.Join(args, " "), a.program()+" --help")
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
	root.SetHelpCommand(help)
	if !a.inShell {
		root.SetHelpCommandGroupID(groupLearn)
		root.SetCompletionCommandGroupID(groupLearn)
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args, cmd.RunE = a.noSuchShell, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			for _, shell := range cmd.Commands() {
				shell.Args = a.takes(0, 0)
			}
		}
	}
}

// noSuchShell refuses completion for an unknown shell: otherwise the help text
// would end up in a script file.
func (a *app) noSuchShell(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var shells []string
	for _, shell := range cmd.Commands() {
		shells = append(shells, shell.Name())
	}
	return usagef("there is no completion for %q; there is one for %s", args[0], strings.Join(shells, ", "))
}

// completeFlags defines the completion of flag values. It completes files only
// for flags that take one.
func completeFlags(root *cobra.Command) {
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	values := map[string]cobra.CompletionFunc{
		"output":      cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp),
		"log-level":   cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp),
		"consistency": cobra.FixedCompletions([]string{"linearizable", "stale"}, cobra.ShellCompDirectiveNoFileComp),
		"out":         cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"data":        cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		"anonymous":   cobra.FixedCompletions([]string{"none", "read", "write", "operate"}, cobra.ShellCompDirectiveNoFileComp),
		"config":      cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		"cacert":      cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		"cert":        cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		"key":         cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		"trace":       cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	}
	for _, cmd := range append(root.Commands(), root) {
		for name, complete := range values {
			if cmd.LocalNonPersistentFlags().Lookup(name) != nil || cmd == root && root.PersistentFlags().Lookup(name) != nil {
				// The flag exists and has no completion yet.
				_ = cmd.RegisterFlagCompletionFunc(name, complete)
			}
		}
	}
}

// noSuchCommand refuses the first word if it is not a command, and suggests
// similar commands.
func (a *app) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := &usageError{message: fmt.Sprintf("there is no command %q", args[0])}
	if near := suggestions(cmd, args[0]); len(near) > 0 {
		err.hint = "did you mean " + strings.Join(near, " or ") + "?"
	} else {
		err.hint = fmt.Sprintf("see %q", a.commandLine("--help"))
	}
	return err
}

// shortWord is the length, in bytes, up to which a distance of two matches
// almost any word.
const shortWord = 4

// suggestions returns the commands that a word may mean: those with this alias,
// or else those with a similar name. Similar commands that change something are
// left out: it is easy to run a wrong suggestion and hard to undo it.
func suggestions(root *cobra.Command, word string) (names []string) {
	for _, cmd := range root.Commands() {
		if slices.Contains(cmd.SuggestFor, strings.ToLower(word)) {
			names = append(names, cmd.Name())
		}
	}
	if len(names) > 0 {
		return names
	}
	root.SuggestionsMinimumDistance = 2
	if len(word) <= shortWord {
		root.SuggestionsMinimumDistance = 1
	}
	return slices.DeleteFunc(root.SuggestionsFor(word), func(name string) bool {
		found, _, err := root.Find([]string{name})
		return err != nil || acts(found)
	})
}

// flagError returns the error for a wrong flag.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	u := &usageError{message: badFlag(err), hint: a.seeHelp(cmd)}
	var none *pflag.NotExistError
	if errors.As(err, &none) && none.GetSpecifiedShortnames() != "" && strings.Contains(cmd.Use, "KEY") {
		u.hint = "write -- before keys and values that begin with a dash"
	}
	return u
}

// seeHelp returns the hint that names the help of a command.
func (a *app) seeHelp(cmd *cobra.Command) string {
	words := []string{"--help"}
	for ; cmd.HasParent(); cmd = cmd.Parent() {
		words = slices.Insert(words, 0, cmd.Name())
	}
	return fmt.Sprintf("see %q", a.commandLine(words...))
}

// flagTypes describes the values of flags, by type.
var flagTypes = map[string]string{
	"bool":      "true or false",
	"duration":  "a length of time, such as 500ms or 5s",
	"int":       "a whole number",
	"int64":     "a whole number",
	"uint":      "a whole number of at least 0",
	"uint64":    "a whole number of at least 0",
	"uintSlice": "whole numbers, separated by commas",
}

// badFlag describes what is wrong with a flag.
func badFlag(err error) string {
	var none *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var wrong *pflag.InvalidValueError
	var syntax *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &none) && none.GetSpecifiedShortnames() != "":
		return fmt.Sprintf("there is no flag -%s", none.GetSpecifiedName())
	case errors.As(err, &none):
		return fmt.Sprintf("there is no flag --%s", none.GetSpecifiedName())
	case errors.As(err, &bare):
		return fmt.Sprintf("--%s needs a value%s", bare.GetFlag().Name, wanted(bare.GetFlag()))
	case errors.As(err, &wrong) && errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("--%s is %q, which is out of range", wrong.GetFlag().Name, wrong.GetValue())
	case errors.As(err, &wrong):
		return fmt.Sprintf("--%s is %q%s", wrong.GetFlag().Name, wrong.GetValue(), wanted(wrong.GetFlag()))
	case errors.As(err, &syntax):
		return fmt.Sprintf("%q is not a flag", syntax.GetSpecifiedFlag())
	}
	return err.Error()
}

// wanted describes the values of a flag, for the end of a message.
func wanted(f *pflag.Flag) string {
	if want := flagTypes[f.Value.Type()]; want != "" {
		return "; it must be " + want
	}
	return ""
}

// commandLine returns the command line of a command.
func (a *app) commandLine(words ...string) string {
	switch last := words[len(words)-1]; {
	case a.inShell && last == "--help":
		return strings.TrimSpace("help " + strings.Join(words[:len(words)-1], " "))
	case a.inShell || a.inDemo:
		return strings.Join(words, " ")
	}
	return strings.Join(append([]string{a.program()}, words...), " ")
}

// clusterLine returns the command line of a command for these servers.
func (a *app) clusterLine(words ...string) string {
	return a.folderLine(words...) + a.endpointsFlag()
}

// folderLine returns the command line of a command for the cluster in the data
// folder.
func (a *app) folderLine(words ...string) string {
	if a.inShell || a.inDemo {
		return a.commandLine(words...)
	}
	return a.commandLine(words...) + a.dataFlag()
}

// takes returns a check of the number of arguments. Its error names the expected
// ones.
func (a *app) takes(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		var problem string
		wants := strings.TrimPrefix(cmd.Use, cmd.Name())
		switch {
		case wants == "":
			problem = fmt.Sprintf("%s takes no arguments, but got %q", cmd.Name(), args[0])
		case len(args) < low:
			problem = fmt.Sprintf("%s takes%s, but got %s", cmd.Name(), wants, argumentCount(len(args)))
		default:
			problem = fmt.Sprintf("%s takes%s; remove the argument %q", cmd.Name(), wants, args[high])
		}
		return &usageError{message: problem, hint: a.seeHelp(cmd)}
	}
}

// argumentCount formats a number of arguments.
func argumentCount(n int) string {
	switch n {
	case 0:
		return "none"
	case 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
