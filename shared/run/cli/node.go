package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/access"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/httpapi"
	"example.com/raftsteps/shared/core/metrics"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	_ "example.com/raftsteps/shared/core/transport/udp" // cluster.json may choose it
	"example.com/raftsteps/shared/run/cluster"
)

// The flags that a supervisor gives to its servers.
const (
	supervisedFlag = "supervised"
	cutFlag        = "cut"
)

// nodeOptions are the flags of node.
type nodeOptions struct {
	config string
	id     uint64

	// address is the address of a server that is not in the configuration; ""
	// for none.
	address string

	// listen is the listen address; "" for the one in the configuration.
	listen string

	// supervised means that the standard input is a supervisor's pipe.
	supervised bool

	// trace is a file for its events; "" for none.
	trace string

	// cuts are the servers whose link is cut from the start.
	cuts []uint
}

func (a *app) nodeCommand() *cobra.Command {
	var o nodeOptions
	cmd := &cobra.Command{
		Use: "node [CONFIG ID]", Short: "Run one server of a cluster", GroupID: groupServers,
		Long: `Runs one server of the cluster that a cluster.json describes, until ^C. Its data is in the folder that the file names,
unless --data names another. "node CONFIG ID" means the same as "node --config CONFIG --id ID".`,
		Args:              a.takes(0, 2),
		ValidArgsFunction: completePositional(idsOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.readNode(cmd, args); err != nil {
				return err
			}
			return a.node(cmd, o)
		},
	}
	f := cmd.Flags()
	if a.needs().Changes {
		cmd.Long += `

A server that is not in the file starts with --address and an empty folder. It finds the cluster through the members in the
file, does not vote, and waits to be added.`
		f.StringVar(&o.address, "address", "", "the address, host:port, of a new server that is not in the cluster.json")
	}
	f.StringVar(&o.config, "config", "", "the cluster.json (default: the one in the data folder)")
	f.Uint64Var(&o.id, "id", 0, "the number of the server to run")
	f.StringVar(&o.listen, "listen", "", "where the server listens, host:port, if not at its address (0.0.0.0:PORT means all addresses of the machine)")
	f.StringVar(&o.trace, "trace", "", "append all events, with the reason for each decision, to this file, as lines of JSON")
	f.BoolVar(&o.supervised, supervisedFlag, false, "")
	f.UintSliceVar(&o.cuts, cutFlag, nil, "")
	for _, internal := range []string{supervisedFlag, cutFlag} {
		// The flag was made just above, so it is there.
		_ = f.MarkHidden(internal)
	}
	return cmd
}

// node runs one server.
func (a *app) node(cmd *cobra.Command, o nodeOptions) (err error) {
	if o.id == 0 {
		return &usageError{message: "node needs --id, the number of the server to run, or the arguments CONFIG ID", hint: fmt.Sprintf("see %q", a.commandLine("node", "--help"))}
	}
	if o.config == "" {
		o.config = filepath.Join(a.flags.data, cluster.ConfigName)
	}
	file, data, err := a.nodeConfig(cmd, o)
	if err != nil {
		return err
	}
	listen := file.Config.ListenAddress(o.id)
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return cluster.ListenError(node.Member{ID: o.id, Address: listen}, err)
	}
	log := a.logger(o.supervised).With("node", node.Name(o.id))
	if text := cluster.Exposed(o.config); text != "" && !o.supervised {
		log.Warn(text)
	}
	keys, err := file.Keys(o.config, o.id, log)
	if err != nil {
		return errors.Join(fmt.Errorf("%s cannot start: %w", node.Name(o.id), err), ln.Close())
	}
	if text := cluster.ExposedKey(file.KeyFile(o.config, o.id), o.id); text != "" {
		log.Warn(text)
	}
	options := host.Options{ID: o.id, TLS: keys, Config: file.Config, New: a.stage.New, Ops: a.stage.Ops, Listener: ln, Log: log}
	sink, end, err := openTrace(o.trace, o.id, trace.Origin{Stage: a.stage.Name, Cluster: file.Config.Cluster})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() { err = errors.Join(err, end()) }()
	options.Trace = sink
	if log.Enabled(cmd.Context(), slog.LevelDebug) {
		options.Trace = trace.Tee(sink, logEvent(log))
	}
	if a.stage.Disk {
		if err := cluster.CheckStarted(data, o.id, a.needs().Changes); err != nil {
			return errors.Join(err, ln.Close())
		}
		folder, err := disk.OpenFolder(filepath.Join(data, node.Name(o.id)), disk.Options{NoSync: !file.Config.Fsync})
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		defer folder.Close()
		if folder.NoSync() {
			log.Warn("fsync is off, so writes are acknowledged before they are on the disk, and a power cut may lose them", "config", o.config)
		}
		options.Disk = folder
	}
	if a.stage.HTTP {
		m := metrics.New(options.Disk, keys)
		options.Meter = m
		options.HTTP = func(h host.HTTP) http.Handler {
			return httpapi.New(httpapi.Options{Ops: a.stage.Ops, Ask: h.Ask, Access: h.Access, Hosts: h.Hosts, Bodies: h.Bodies, Metrics: m.Collectors()})
		}
	}
	h, err := host.New(options)
	switch {
	case errors.Is(err, access.ErrNoPolicy):
		return fmt.Errorf("%w; create a token with: %s", err, a.commandLine("token", "NAME", "ROLE", "--config", o.config))
	case err != nil:
		return err
	}
	if a.stage.Disk {
		if err := cluster.NoteStarted(data, o.id); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	return a.runHost(cmd.Context(), h, o, file, log)
}

// runHost runs a server until ctx is done or its supervisor has ended.
func (a *app) runHost(ctx context.Context, h *host.Host, o nodeOptions, file cluster.File, log *slog.Logger) error {
	for _, id := range o.cuts {
		h.Cut(uint64(id))
	}
	log.Info("listening", "address", h.Addr())
	if o.supervised {
		ctx = a.obeySupervisor(ctx, h, log)
	}
	following, end := context.WithCancel(ctx)
	var followed sync.WaitGroup
	followed.Go(func() { cluster.FollowAccess(following, o.config, file, h.SetAccess, log) })
	err := h.Run(ctx)
	end()
	followed.Wait()
	if err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// nodeConfig reads the configuration and finds the data folder.
func (a *app) nodeConfig(cmd *cobra.Command, o nodeOptions) (file cluster.File, data string, err error) {
	file, err = cluster.Load(o.config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file, "", fmt.Errorf("%w; run %q to create one, or name another file with --config", err, a.commandLine("cluster"))
	case err != nil:
		return file, "", err
	}
	if err := file.CheckStage(a.needs()); err != nil {
		return file, "", fmt.Errorf("%s: %w", o.config, err)
	}
	if err := a.place(&file, o); err != nil {
		return file, "", err
	}
	if o.listen != "" {
		if err := api.CheckAddress(o.listen); err != nil {
			return file, "", usagef("--listen: %v", err)
		}
		file.Config.Listen = map[uint64]string{o.id: o.listen}
	}
	data = file.Data(o.config)
	if cmd.Flags().Changed("data") {
		data = a.flags.data
	}
	if err := cluster.CheckStage(data, a.stage.Name); err != nil {
		return file, data, err
	}
	return file, data, cluster.CheckOwn(data, o.config)
}

// place finds the server in the configuration, or adds it as a new one.
func (a *app) place(file *cluster.File, o nodeOptions) error {
	known := file.Config.Address(o.id)
	switch {
	case known != "" && (o.address == "" || o.address == known):
		return nil
	case known != "":
		return usagef("--address: %s has %s at %s; leave --address out, or give a new server a number that no server has had", o.config, node.Name(o.id), known)
	case o.address == "" && !a.needs().Changes:
		return usagef("--id %d: %s has no such member; the members are %s", o.id, o.config, cluster.MemberList(file.Config))
	case o.address == "":
		return usagef("--id %d: %s has no such server; the servers are %s; a new server needs --address, where it listens",
			o.id, o.config, cluster.ServerList(file.Config))
	}
	if err := api.CheckMemberAddress(o.address); err != nil {
		return usagef("--address: %v", err)
	}
	// Only this server can listen on its address, so it replaces a member with
	// the same address.
	others := slices.DeleteFunc(slices.Clone(file.Config.Members), func(m node.Member) bool { return m.Address == o.address })
	if len(others) > 0 {
		file.Config.Members = others
	}
	file.Config.Joiners = append(file.Config.Joiners, node.Member{ID: o.id, Address: o.address})
	if err := file.Check(); err != nil {
		return usagef("--id %d --address %s: %v", o.id, o.address, err)
	}
	return nil
}

// obeySupervisor executes the supervisor's commands from standard input, and
// reports that the server is ready. The returned context ends when the
// supervisor ends.
func (a *app) obeySupervisor(ctx context.Context, h links, log *slog.Logger) context.Context {
	// If the supervisor has crashed, no process reads this pipe. The signal
	// must not end the server, which has clients to answer.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		obey(a.stdin, a.stdout, h, log)
	}()
	fmt.Fprintln(a.stdout, cluster.Ready)
	return ctx
}

// links are the links that a supervisor can cut; nil for a server without
// links.
type links interface {
	Cut(peer uint64)
	Heal(peer uint64)
}

// obey executes the lines of a supervisor until they end.
func obey(in io.Reader, out io.Writer, h links, log *slog.Logger) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		word, number, _ := strings.Cut(lines.Text(), " ")
		id, err := strconv.ParseUint(number, 10, 64)
		switch {
		case err == nil && word == cluster.CutLine && h != nil:
			h.Cut(id)
		case err == nil && word == cluster.HealLine && h != nil:
			h.Heal(id)
		default:
			log.Warn("the supervisor sent an invalid line", "line", lines.Text())
		}
		fmt.Fprintln(out, cluster.Done)
	}
}
