package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/guard"
)

// defaultListen returns the default address of a stage's single server.
func (a *app) defaultListen() string { return fmt.Sprintf("127.0.0.1:%d", a.flags.basePort) }

// openFlag is the flag that lets a single server be reached from other machines.
const openFlag = "open"

// makeServe makes the root command run the single server if there is no
// subcommand.
func (a *app) makeServe(root *cobra.Command) {
	var listen string
	var supervised, open bool
	root.Flags().StringVar(&listen, "listen", "", fmt.Sprintf("the address of the server (default 127.0.0.1:%d)", a.stageBase()))
	root.Flags().BoolVar(&open, openFlag, false, "let --listen name an address that other machines can reach: anyone there may read and write")
	root.Flags().BoolVar(&supervised, supervisedFlag, false, "")
	// The flag was made just above, so it is there.
	_ = root.Flags().MarkHidden(supervisedFlag)
	root.Annotations[reach] = reachNobody
	root.Long += "\n\nWithout a command it runs the server, until ^C."
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("listen") {
			listen = a.defaultListen()
		}
		ln, err := a.listen(listen)
		if err != nil {
			return err
		}
		if public := guard.Public(ln.Addr()); public && !open {
			return errors.Join(&usageError{
				message: fmt.Sprintf("other machines can reach %s, and anyone there could read and write", ln.Addr()),
				hint:    "leave --listen out, or add --" + openFlag + " if everyone there is trusted",
			}, ln.Close())
		}
		if supervised {
			return a.serve(cmd.Context(), ln)
		}
		// The port is free. Release it for the process of the server.
		address := ln.Addr().String()
		if err := ln.Close(); err != nil {
			return err
		}
		return a.supervise(cmd.Context(), address, open)
	}
}

// listen listens on the address. Port 0 means any free port.
func (a *app) listen(address string) (net.Listener, error) {
	if _, port, err := net.SplitHostPort(address); err != nil || port != "0" {
		if err := api.CheckAddress(address); err != nil {
			return nil, usagef("--listen: %v", err)
		}
	}
	ln, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program uses that port; stop that program, or name another address with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: that is not an address of this machine; name another address with --listen", address)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return ln, nil
}

// serve runs the server in this process.
func (a *app) serve(ctx context.Context, ln net.Listener) error {
	log := a.logger(true)
	log.Info("listening", "address", ln.Addr())
	if guard.Public(ln.Addr()) {
		log.Warn("anyone who can reach this server may read and write", "address", ln.Addr())
	}
	ctx = a.obeySupervisor(ctx, nil, log)
	if err := a.stage.Serve(ctx, ln, log); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// serveHints returns commands to try with the server.
func (a *app) serveHints(address string) string {
	if a.stage.Dial == nil {
		return fmt.Sprintf(`
Try it in another terminal:

    %s talk%s
    {"op":"put","key":"x","value":"1"}
    {"op":"get","key":"x"}

^C stops the server.

`, a.program(), a.addressFlag(address))
	}
	flag := ""
	if address != a.defaultListen() {
		flag = " --endpoints " + address
	}
	return a.tryHints("^C stops the server.", flag, "put x 1", "get x", "shell")
}

// tryHints lists commands for a second terminal.
func (a *app) tryHints(end, flags string, commands ...string) string {
	var b strings.Builder
	b.WriteString("\nTry it in another terminal:\n\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "    %s %s%s\n", a.program(), c, flags)
	}
	fmt.Fprintf(&b, "\n%s\n\n", end)
	return b.String()
}
