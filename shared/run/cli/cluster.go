package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/run/cluster"
)

// settleTime is how long the servers must be silent before the hints are shown,
// so that the first log lines do not scroll the hints away.
const settleTime = 200 * time.Millisecond

func (a *app) clusterCommand() *cobra.Command {
	var o cluster.OpenOptions
	cmd := &cobra.Command{
		Use: "cluster [CONFIG [N]]", Short: "Run a cluster of real processes on this machine", GroupID: groupServers,
		Long: `Runs the servers of a cluster, each as its own process, and shows their output with their names. ^C stops all servers
cleanly, and a second ^C kills them. A server that ends by itself stays down until somebody restarts it.

A second run continues the cluster in the data folder; --fresh deletes it and creates a new one. "cluster CONFIG N" means
the same as "cluster --config CONFIG -n N": the file must have N servers.`,
		Args:              a.takes(0, 2),
		ValidArgsFunction: completePositional(sizeOf),
	}
	cmd.Flags().IntVarP(&o.Servers, "servers", "n", 0, "how many servers a new cluster has (default 5)")
	cmd.Flags().StringVar(&o.Config, "config", "", "the cluster.json to use (default: the one in the data folder, which is created if it is missing)")
	cmd.Flags().BoolVar(&o.Fresh, "fresh", false, "delete the cluster in the data folder, and start over")
	if a.stage.Compacts {
		cmd.Flags().Int64Var(&o.CompactBytes, "compact-bytes", 0, "the journal size at which the servers of a new cluster compact their logs (default 16 MiB)")
	}
	cmd.Flags().StringVar(&o.Transport, "transport", "", "what carries messages between the servers of a new cluster: "+strings.Join(cluster.Transports, ", ")+" (default tcp)")
	cmd.Flags().BoolVar(&o.TLS, "tls", false, "make the servers speak TLS, to each other and to clients, with a new CA and certificates in the data folder")
	cmd.Flags().StringVar(&a.traceFile, "trace", "", "append all events of each server to a file with this name and the server's, such as FILE.n1; a new cluster begins new files; \"lab FILE.*\" shows them")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.readCluster(cmd, args); err != nil {
			return err
		}
		if cmd.Flags().Changed("servers") && o.Servers < 1 {
			return usagef("the number of servers is %d; a cluster has 1 to %d servers", o.Servers, cluster.MaxServers)
		}
		if cmd.Flags().Changed("compact-bytes") && (o.CompactBytes < cluster.MinCompact || o.CompactBytes > cluster.MaxCompact) {
			return usagef("--compact-bytes is %d; it must be from %d to %d", o.CompactBytes, cluster.MinCompact, int64(cluster.MaxCompact))
		}
		o.Stage, o.Needs = a.stage.Name, a.needs()
		if err := o.Needs.CheckTransport(o.Transport); err != nil {
			return usagef("--transport: %v", err)
		}
		o.BasePort, o.PortGiven = a.flags.basePort, a.flags.portGiven
		if err := a.placeData(cmd, &o); err != nil {
			return err
		}
		return a.runCluster(cmd, o)
	}
	return cmd
}

// needs returns the fields of cluster.json that the stage uses.
func (a *app) needs() cluster.Needs {
	_, changes := a.stage.Ops[api.Change]
	grpc := ""
	if changes {
		grpc = fmt.Sprintf("go run -tags grpc ./%s", a.stage.Name)
	}
	return cluster.Needs{Appointed: a.stage.Appointed, Compacts: a.stage.Compacts, Changes: changes, HTTP: a.stage.HTTP, GRPC: grpc}
}

// placeData chooses the data folder of a cluster: the one of --data, otherwise
// the one in its configuration, otherwise the default of the stage.
func (a *app) placeData(cmd *cobra.Command, o *cluster.OpenOptions) error {
	if o.Config != "" && !cmd.Flags().Changed("data") {
		file, err := cluster.Load(o.Config)
		if err != nil {
			return err
		}
		if file.DataDir != "" {
			a.flags.data = file.Data(o.Config)
		}
	}
	o.Dir = a.flags.data
	return nil
}

func (a *app) runCluster(cmd *cobra.Command, o cluster.OpenOptions) (err error) {
	folder, err := cluster.Open(o)
	if err != nil {
		return err
	}
	defer folder.Close()
	for _, path := range []string{o.Config, folder.ConfigPath()} {
		if text := cluster.Exposed(path); path != "" && text != "" {
			fmt.Fprintf(a.stderr, "warning: %s\n", text)
		}
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the file of this program: %w", err)
	}
	if folder.Created {
		a.dropTraces(folder.File.Config)
	}
	note, end, err := a.traceProcesses(folder.File.Config.Cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	settle := time.Duration(0)
	if isTerminal(a.stdout) {
		settle = settleTime
	}
	return cluster.Run(cmd.Context(), cluster.Options{
		Settle:  settle,
		Folder:  folder,
		Changes: a.needs().Changes,
		Command: a.nodeProcess(executable, folder.ConfigPath()),
		Program: a.program(),
		Flags:   a.dataFlag(),
		Out:     a.stdout,
		Color:   wantsColor(a.stdout),
		Up:      func() string { return a.clusterHints(folder) },
		Kill:    a.signals.cleanUp(),
		Trace:   a.traceFile,
		Note:    note,
	})
}

// processesName is the end of the name of the trace that says what happened to the
// processes of the servers. The servers cannot write that: a killed server writes
// nothing.
const processesName = "cluster"

// dropTraces deletes traces with the same names that another cluster has left.
func (a *app) dropTraces(c node.Config) {
	if a.traceFile == "" {
		return
	}
	ends := []string{processesName}
	for _, m := range slices.Concat(c.Members, c.Joiners) {
		ends = append(ends, node.Name(m.ID))
	}
	for _, end := range ends {
		if path := a.traceFile + "." + end; isRegular(path) {
			_ = os.Remove(path) // if this fails, the new trace is appended to the old one
		}
	}
}

// isRegular reports whether a path is a file, and neither a folder nor a pipe.
func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// traceProcesses opens the trace of the processes, if there is one.
func (a *app) traceProcesses(name string) (func(trace.Kind, uint64, string), func() error, error) {
	if a.traceFile == "" {
		return nil, func() error { return nil }, nil
	}
	path, err := filepath.Abs(a.traceFile)
	if err != nil {
		return nil, nil, fmt.Errorf("--trace: %w", err)
	}
	a.traceFile = path
	sink, end, err := openTrace(path+"."+processesName, 0, trace.Origin{Stage: a.stage.Name, Cluster: name})
	if err != nil {
		return nil, nil, err
	}
	return func(kind trace.Kind, id uint64, text string) {
		sink(trace.Event{Node: id, Kind: kind, Text: text})
	}, end, nil
}

// nodeProcess returns a function that returns the command for one server: this
// program, as node.
func (a *app) nodeProcess(executable, config string) func(uint64, []uint64) *exec.Cmd {
	return func(id uint64, cuts []uint64) *exec.Cmd {
		args := []string{
			"node", "--config", config, "--id", strconv.FormatUint(id, 10), "--data", a.flags.data,
			"--log-level", strings.ToLower(a.flags.level.String()), "--" + supervisedFlag,
		}
		if a.traceFile != "" {
			args = append(args, "--trace", a.traceFile+"."+node.Name(id))
		}
		for _, other := range cuts {
			args = append(args, "--"+cutFlag, strconv.FormatUint(other, 10))
		}
		return exec.Command(executable, args...)
	}
}

// clusterHints returns the hints that are shown once the cluster is up.
func (a *app) clusterHints(folder *cluster.Folder) string {
	c := folder.File.Config
	verb := "continues"
	if folder.Created {
		verb = "is new"
	}
	leader := ""
	if c.Leader != 0 {
		leader = fmt.Sprintf(", %s leads", node.Name(c.Leader))
	}
	over := ""
	if c.Transport != "" {
		over = " over " + c.Transport
	}
	if folder.File.TLS != nil {
		over += " with TLS"
	}
	servers := slices.Concat(c.Members, c.Joiners)
	text := fmt.Sprintf("\nCluster %s %s: %d servers on %s to %s%s%s. Its data is in %s.\n",
		c.Cluster, verb, len(servers), servers[0].Address, servers[len(servers)-1].Address, over, leader, folder.Dir)
	commands := []string{"put x 1", "get x"}
	if _, known := a.stage.Ops[api.Status]; known {
		commands = append(commands, "status")
	}
	if a.needs().Changes {
		commands = append(commands, "members", fmt.Sprintf("start %d", a.freeID(c)))
	}
	commands = append(commands, fmt.Sprintf("kill %d", c.Members[len(c.Members)-1].ID))
	if a.traceFile != "" && a.stage.Scenarios != nil {
		commands = append(commands, "lab --live")
	}
	return text + a.tryHints("^C stops all servers.", a.dataFlag(), commands...)
}

// freeID returns a number that no server of the cluster has.
func (a *app) freeID(c node.Config) (id uint64) {
	for _, m := range slices.Concat(c.Members, c.Joiners) {
		id = max(id, m.ID)
	}
	return id + 1
}

// wantsColor reports whether output to a stream is colored: on a terminal,
// unless NO_COLOR is set.
func wantsColor(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
