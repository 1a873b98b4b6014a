// Package pager shows long texts on a terminal page by page.
package pager

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/term"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Show calls print with the writer to use: a pager if stdout is a terminal and
// there is a pager, else stdout itself. The pager is $PAGER, or less, with
// options that leave short texts on the screen, keep colors, and do not clear the
// screen.
func Show(stdout io.Writer, print func(io.Writer) error) error {
	pager := pager(stdout)
	if pager == nil {
		return print(stdout)
	}
	in, err := pager.StdinPipe()
	if err != nil {
		return print(stdout)
	}
	if err := pager.Start(); err != nil {
		return print(stdout)
	}
	err = print(in)
	if errors.Is(err, syscall.EPIPE) {
		// The reader has quit the pager.
		err = nil
	}
	return errors.Join(err, in.Close(), pager.Wait())
}

// pager returns the pager to use, or nil for none. The pager handles ^C itself:
// killed by it, less would leave the terminal in a wrong state.
func pager(stdout io.Writer) *exec.Cmd {
	if !IsTerminal(stdout) {
		return nil
	}
	var cmd *exec.Cmd
	if wish, set := os.LookupEnv("PAGER"); set {
		if wish == "" || wish == "cat" {
			return nil
		}
		cmd = exec.Command("sh", "-c", wish)
	} else {
		less, err := exec.LookPath("less")
		if err != nil {
			return nil
		}
		cmd = exec.Command(less)
	}
	cmd.Env = os.Environ()
	if _, set := os.LookupEnv("LESS"); !set {
		cmd.Env = append(cmd.Env, "LESS=FRX")
	}
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	return cmd
}
