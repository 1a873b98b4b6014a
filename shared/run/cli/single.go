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

// singleID is the number of a server without others, where one is needed.
const singleID = 1

// singleFolder is where the commands that break a server without others find
// how to reach it: a folder for each port, since one server has many addresses,
// such as 127.0.0.1 and localhost.
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

// supervise runs the server as a process of its own, so that commands from
// another terminal can break it and bring it back.
func (a *app) supervise(ctx context.Context, address string) error {
	folder, err := cluster.OpenSingle(a.singleFolder(address), node.Member{ID: singleID, Address: address})
	if err != nil {
		return err
	}
	defer folder.Close()
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("this program's own file: %w", err)
	}
	return cluster.Run(ctx, cluster.Options{
		Single:  true,
		Folder:  folder,
		Command: a.singleProcess(executable, address),
		Program: a.program(),
		Flags:   a.addressFlag(reachable(address)),
		Out:     a.stdout,
		Color:   wantsColor(a.stdout),
		Up:      func() string { return a.serveHints(reachable(address)) },
		Kill:    a.signals.cleanUp(),
	})
}

// reachable is an address at which a server can be asked from this machine that
// listens on all of its addresses.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || !ip.IsUnspecified() {
		return address
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// singleProcess makes the command of a server without others: this program
// again.
func (a *app) singleProcess(executable, address string) func(uint64, []uint64) *exec.Cmd {
	return func(uint64, []uint64) *exec.Cmd {
		return exec.Command(executable, "--listen", address, "--log-level", strings.ToLower(a.flags.level.String()), "--"+supervisedFlag)
	}
}

// addressFlag names the server in a command that breaks it, where that is
// needed.
func (a *app) addressFlag(address string) string {
	if address == a.defaultListen() || a.singleDir != "" {
		return ""
	}
	return " " + address
}

// singleProcesses asks the terminal that has started the server how it is as a
// process, by its address. It is nil if there is no such terminal.
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

// singleBack says how to let a server without others go on.
func (a *app) singleBack(s cluster.Server) string {
	flag := ""
	if address, err := a.singleAddress(nil); err == nil {
		flag = a.addressFlag(address)
	}
	if s.State == cluster.Paused {
		return "the server is paused; continue it with: " + a.commandLine("resume") + flag
	}
	return fmt.Sprintf("the server is not running (%s); bring it back with: %s", s.State, a.commandLine("restart")+flag)
}

// singleAddress is where the server is that a command is about.
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

// singleCommands are those that break a server without others, and bring it
// back, from another terminal.
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
		command(cluster.Kill, "End the server as a power cut would", "Ends the server at once with SIGKILL: nothing is finished, nothing is said. It stays dead until restart."),
		command(cluster.Pause, "Pause the server", "Pauses the server (SIGSTOP). Its connections stay open, but nothing is read or answered until resume."),
		command(cluster.Resume, "Let the paused server go on", "Continues the server (SIGCONT) after pause."),
		command(cluster.Restart, "Start the server again", "Starts the server again. If it runs, it is stopped in order first."),
	}
}

// doSingle acts on a server without others and shows how it is then.
func (a *app) doSingle(ctx context.Context, do, address string) error {
	remote, err := cluster.Connect(a.singleFolder(address))
	if errors.Is(err, cluster.ErrNotRunning) {
		flag := ""
		if address != a.defaultListen() {
			flag = " --listen " + address
		}
		return &endError{code: exitUnavailable, message: fmt.Sprintf("no terminal has started the server at %s from this folder; start it with: %s%s", address, a.program(), flag)}
	}
	if err != nil {
		return err
	}
	servers, err := remote.Do(ctx, cluster.Command{Do: do, IDs: []uint64{singleID}})
	if err != nil {
		return err
	}
	return a.showStates(servers)
}
