package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// The environment variables that replace flags.
const (
	endpointsVariable = "KV_ENDPOINTS"
	basePortVariable  = "KV_BASE_PORT"
	logVariable       = "RAFT_LOG"
)

// defaultTimeout is how long a command waits for an answer.
const defaultTimeout = 5 * time.Second

// flags has the common flags and the values derived from them.
type flags struct {
	endpoints string
	data      string
	output    string
	logLevel  string
	timeout   time.Duration
	basePort  int
	tls       tlsFlags
	token     string

	// portGiven is true if the flag set the base port.
	portGiven bool

	level slog.Level
}

// register adds the flags that the stage uses to the root command.
func (a *app) register(root *cobra.Command) {
	f, p := &a.flags, root.PersistentFlags()
	if a.stage.Dial != nil {
		p.StringVar(&f.endpoints, "endpoints", "", a.endpointsUsage())
		p.StringVarP(&f.output, "output", "o", "text", "the format of results: text or json")
		wait := "how long to wait for an answer"
		if a.knows(api.Change) {
			wait += "; by default, add, remove and change wait for a minute"
		}
		p.DurationVar(&f.timeout, "timeout", defaultTimeout, wait)
	}
	if a.stage.New != nil && a.stage.Dial != nil {
		f.tls.register(p)
		p.StringVar(&f.token, "token", "", "the token that gives its role to this command; or "+tokenVariable+" (default: for the cluster in the data folder, one that may do everything)")
	}
	if a.stage.New != nil {
		p.StringVar(&f.data, "data", a.defaultData(), "the data folder")
		p.IntVar(&f.basePort, "base-port", 0, fmt.Sprintf("server i listens on port base+i; or set %s (default %d)", basePortVariable, a.stageBase()))
	}
	p.StringVar(&f.logLevel, "log-level", "info", "the lowest level that servers log: debug, info, warn or error; or set "+logVariable)
}

func (a *app) endpointsUsage() string {
	if a.stage.New == nil {
		return fmt.Sprintf("the server to ask, host:port; or set %s (default 127.0.0.1:%d)", endpointsVariable, a.stageBase())
	}
	return "the servers to ask, host:port, https://host:port, or n1, n2, …, separated by commas; or set " + endpointsVariable + " (default: the cluster in the data folder)"
}

// check reads the flags and the variables. It runs before every command.
func (a *app) check(cmd *cobra.Command) error {
	f := &a.flags
	switch f.output {
	case "", "text":
	case "json":
		a.json = &jsonOutput{Writer: a.stdout}
		a.stdout = a.json
	default:
		return usagef("--output is %q; it must be text or json", f.output)
	}
	if a.stage.Dial != nil && f.timeout <= 0 {
		return usagef("--timeout is %v; it must be more than 0", f.timeout)
	}
	if a.stage.New != nil && f.data == "" {
		return usagef("--data is empty; name a folder")
	}
	if err := a.checkLevel(cmd); err != nil {
		return err
	}
	if err := a.checkBasePort(cmd); err != nil {
		return err
	}
	return a.checkReach(cmd)
}

func (a *app) checkLevel(cmd *cobra.Command) error {
	name, source := a.flags.logLevel, "--log-level"
	if v := os.Getenv(logVariable); v != "" && !cmd.Flags().Changed("log-level") {
		name, source = v, logVariable
	}
	level, err := parseLevel(name)
	if err != nil {
		return usagef("%s: %v", source, err)
	}
	a.flags.level = level
	return nil
}

func (a *app) checkBasePort(cmd *cobra.Command) error {
	f := &a.flags
	f.portGiven = cmd.Flags().Changed("base-port")
	source := "--base-port"
	if !f.portGiven {
		f.basePort = a.stageBase()
		if v := os.Getenv(basePortVariable); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return usagef("%s is %q, which is not a number", basePortVariable, v)
			}
			f.basePort, source = n, basePortVariable
		}
	}
	if f.basePort < 1 || f.basePort > 65535-cluster.MaxServers {
		return usagef("%s is %d; it must be from 1 to %d", source, f.basePort, 65535-cluster.MaxServers)
	}
	return nil
}

// stageBase returns the base of the stage's ports: 7020 for 02.
func (a *app) stageBase() int {
	number, _, _ := strings.Cut(a.stage.Name, "-")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > 99 {
		return 7000
	}
	return 7000 + 10*n
}

// defaultData returns the stage's data folder below the current one.
func (a *app) defaultData() string { return filepath.Join(".raftsteps", a.stage.Name) }

// logger returns the program's log. A supervised server writes it to standard
// output, so that the supervisor gets log lines and messages in order. The
// supervisor adds the server's name to each line.
func (a *app) logger(supervised bool) *slog.Logger {
	out := a.stderr
	if supervised {
		out = a.stdout
	}
	return slog.New(newLogHandler(out, a.flags.level, supervised))
}

// endpoint is a server to ask.
type endpoint struct {
	// id is the server's number in its cluster; 0 if it is unknown.
	id uint64

	address string
}

// name returns the name of the server in messages.
func (e endpoint) name() string {
	if e.id != 0 {
		return node.Name(e.id)
	}
	return "-"
}

func addresses(endpoints []endpoint) []string {
	out := make([]string, len(endpoints))
	for i, e := range endpoints {
		out[i] = e.address
	}
	return out
}

// endpoints returns the servers to ask: those of the flag, of the variable, of
// the cluster in the data folder, or at the stage's default ports. The members
// of a cluster come in the order of their IDs.
func (a *app) endpoints() ([]endpoint, error) {
	named, source, err := a.named()
	if err != nil || source != "" {
		return named, err
	}
	return a.members()
}

// named returns the servers in the flag or the variable, and the name of the one
// that is set; "" for none. The cluster in the data folder gives its servers
// their IDs.
func (a *app) named() (out []endpoint, source string, err error) {
	list, source := a.endpointList()
	if list == "" {
		return nil, "", nil
	}
	members, err := a.members()
	if err != nil {
		return nil, source, err
	}
	words, _, err := endpointWords(list)
	if err != nil {
		return nil, source, err
	}
	for _, word := range words {
		e, err := a.resolve(word, members)
		if err != nil {
			return nil, source, usagef("%s: %v", source, err)
		}
		out = append(out, e)
	}
	return out, source, nil
}

var serverName = regexp.MustCompile(`^n?([1-9][0-9]{0,15})$`)

// resolve turns n2 or host:port into an endpoint.
func (a *app) resolve(word string, members []endpoint) (endpoint, error) {
	if m := serverName.FindStringSubmatch(word); m != nil && a.stage.New != nil {
		for _, e := range members {
			if node.Name(e.id) == "n"+m[1] {
				return e, nil
			}
		}
		return endpoint{}, fmt.Errorf("there is no server n%s in the cluster", m[1])
	}
	if err := api.CheckAddress(word); err != nil {
		return endpoint{}, err
	}
	for _, e := range members {
		if e.address == word {
			return e, nil
		}
	}
	return endpoint{address: word}, nil
}

// members returns the servers of the stage: those of its cluster, including the
// ones started later, or the single server. If there is no cluster yet, it
// returns five servers at the default ports.
func (a *app) members() ([]endpoint, error) {
	if a.stage.New == nil {
		return []endpoint{{address: a.defaultListen()}}, nil
	}
	file, found, err := a.clusterFile()
	if err != nil {
		return nil, err
	}
	var out []endpoint
	if !found {
		for i := 1; i <= 5; i++ {
			out = append(out, endpoint{uint64(i), fmt.Sprintf("127.0.0.1:%d", a.flags.basePort+i)})
		}
		return out, nil
	}
	first := file.Config.Members[0]
	if a.flags.portGiven && !strings.HasSuffix(first.Address, fmt.Sprintf(":%d", a.flags.basePort+int(first.ID))) {
		return nil, usagef("--base-port: the cluster in %s already has its ports (%s); leave --base-port out", a.flags.data, cluster.MemberList(file.Config))
	}
	for _, m := range slices.Concat(file.Config.Members, file.Config.Joiners) {
		out = append(out, endpoint{m.ID, m.Address})
	}
	return out, nil
}

// clusterFile reads the configuration in the data folder, if there is one.
func (a *app) clusterFile() (file cluster.File, found bool, err error) {
	if err := cluster.CheckStage(a.flags.data, a.stage.Name); err != nil {
		return file, false, err
	}
	file, err = cluster.Load(filepath.Join(a.flags.data, cluster.ConfigName))
	if errors.Is(err, fs.ErrNotExist) && a.flags.data != a.defaultData() {
		return file, false, usagef("there is no cluster in %s; start one with: %s cluster --data %[1]s", a.flags.data, a.program())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return file, false, nil
	}
	return file, err == nil, err
}

// targets returns the addresses for a client. An appointed leader comes first,
// because the clients of those stages ask the first server.
func (a *app) targets() ([]string, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return nil, err
	}
	if _, source := a.endpointList(); a.stage.Appointed && source == "" {
		if file, found, err := a.clusterFile(); err == nil && found {
			for i, e := range endpoints {
				if e.id == file.Config.Leader {
					endpoints[0], endpoints[i] = endpoints[i], endpoints[0]
				}
			}
		}
	}
	return addresses(endpoints), nil
}

// program returns how a hint calls this program, such as "go run ./05-election".
func (a *app) program() string {
	path, err := os.Executable()
	if err != nil {
		path = os.Args[0]
	}
	if !strings.Contains(filepath.ToSlash(path), "/go-build") {
		return os.Args[0]
	}
	if dir, err := os.Getwd(); err == nil && filepath.Base(dir) == a.stage.Name {
		return "go run ."
	}
	return "go run ./" + a.stage.Name
}

// startCommand returns the command that starts the servers.
func (a *app) startCommand() string {
	if a.stage.New != nil {
		return a.program() + " cluster"
	}
	return a.program()
}

// dataFlag returns --data for a command in a hint, if it is needed.
func (a *app) dataFlag() string {
	if a.stage.New == nil || a.flags.data == a.defaultData() {
		return ""
	}
	return " " + quoteWords([]string{"--data", a.flags.data})
}
