package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/run/cluster"
)

// singleID is the number of a single server in the interfaces of package cluster.
const singleID = 1

// singleFolder returns the folder through which commands reach a single server:
// one folder per port, because one server has many addresses, such as 127.0.0.1
// and localhost.
func (a *app) singleFolder(address string) string {
	if a.singleDir != "" {
		return a.singleDir
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		port = "none"
	}
	return filepath.Join(a.defaultData(), port)
}

// supervise runs the server as its own process, so that commands from another
// terminal can kill and restart it.
func (a *app) supervise(ctx context.Context, address string, open bool) error {
	folder, err := cluster.OpenSingle(a.singleFolder(address), node.Member{ID: singleID, Address: address})
	if err != nil {
		return err
	}
	defer folder.Close()
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find the file of this program: %w", err)
	}
	return cluster.Run(ctx, cluster.Options{
		Single:  true,
		Folder:  folder,
		Command: a.singleProcess(executable, address, open),
		Program: a.program(),
		Flags:   a.addressFlag(reachable(address)),
		Out:     a.stdout,
		Color:   wantsColor(a.stdout),
		Up:      func() string { return a.serveHints(reachable(address)) },
		Kill:    a.signals.cleanUp(),
	})
}

// reachable returns an address for requests from this machine to a server that
// listens on all addresses.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || !ip.IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// singleProcess returns a function that returns the command for a single server:
// this program, supervised.
func (a *app) singleProcess(executable, address string, open bool) func(uint64, []uint64) *exec.Cmd {
	return func(uint64, []uint64) *exec.Cmd {
		args := []string{"--listen", address, "--log-level", strings.ToLower(a.flags.level.String()), "--" + supervisedFlag}
		if open {
			args = append(args, "--"+openFlag)
		}
		return exec.Command(executable, args...)
	}
}

// addressFlag returns the server's address for a command that breaks it, if it
// is needed.
func (a *app) addressFlag(address string) string {
	if address == a.defaultListen() || a.singleDir != "" {
		return ""
	}
	return " " + address
}

// singleProcesses returns the state of the server's process from its
// supervisor, by address. It returns nil if there is no supervisor.
func (a *app) singleProcesses(ctx context.Context) map[string]cluster.Server {
	address, err := a.singleAddress(nil)
	if err != nil {
		return nil
	}
	remote, err := cluster.Connect(a.singleFolder(address))
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	servers, err := remote.Do(ctx, cluster.Command{Do: cluster.List})
	if err != nil || len(servers) != 1 {
		return nil
	}
	return map[string]cluster.Server{address: servers[0]}
}

// singleBack says how to restart or resume a single server.
func (a *app) singleBack(s cluster.Server) string {
	flag := ""
	if address, err := a.singleAddress(nil); err == nil {
		flag = a.addressFlag(address)
	}
	if s.State == cluster.Paused {
		return "the server is paused; resume it with: " + a.commandLine("resume") + flag
	}
	return fmt.Sprintf("the server is not running (%s); bring it back with: %s", s.State, a.commandLine("restart")+flag)
}

// singleAddress returns the address of the server that a command is for.
func (a *app) singleAddress(args []string) (string, error) {
	if len(args) > 0 {
		e, err := a.resolve(args[0], nil)
		if err != nil {
			return "", usagef("%v", err)
		}
		return e.address, nil
	}
	endpoints, err := a.endpoints()
	if err != nil {
		return "", err
	}
	return endpoints[0].address, nil
}

// singleCommands returns the commands that kill, pause, resume and restart a
// single server from another terminal.
func (a *app) singleCommands() []*cobra.Command {
	command := func(do, short, long string) *cobra.Command {
		return &cobra.Command{
			Use: do + " [ADDRESS]", Short: short, GroupID: groupBreak,
			Long:              long + "\n\nADDRESS is where the server listens, if it was started with --listen.",
			Args:              a.takes(0, 1),
			ValidArgsFunction: cobra.NoFileCompletions,
			RunE: func(cmd *cobra.Command, args []string) error {
				address, err := a.singleAddress(args)
				if err != nil {
					return err
				}
				return a.doSingle(cmd.Context(), do, address)
			},
		}
	}
	return []*cobra.Command{
		command(cluster.Kill, "Kill the server", "Kills the server with SIGKILL, without a clean shutdown. It stays down until restart."),
		command(cluster.Pause, "Pause the server", "Pauses the server (SIGSTOP). Its connections stay open, but it reads and answers nothing until resume."),
		command(cluster.Resume, "Resume the paused server", "Resumes the paused server (SIGCONT)."),
		command(cluster.Restart, "Start the server again", "Starts the server again. A running server is first stopped cleanly."),
	}
}

// doSingle sends a command for a single server to its supervisor and shows the
// resulting state.
func (a *app) doSingle(ctx context.Context, do, address string) error {
	remote, err := cluster.Connect(a.singleFolder(address))
	if errors.Is(err, cluster.ErrNotRunning) {
		flag := ""
		if address != a.defaultListen() {
			flag = " --listen " + address
		}
		return &endError{code: exitUnavailable, message: fmt.Sprintf("the server at %s was not started from this folder; start it with: %s%s", address, a.program(), flag)}
	}
	if err != nil {
		return err
	}
	servers, err := remote.Do(ctx, cluster.Command{Do: do, IDs: []uint64{singleID}})
	switch {
	case err != nil && ctx.Err() != nil:
		return a.left(do)
	case err != nil:
		return err
	}
	return a.showStates(servers)
}
