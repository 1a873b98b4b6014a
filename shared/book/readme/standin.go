package readme

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// roleVariable makes a test binary act as another program; worldVariable names
// the file that describes the world.
const (
	roleVariable  = "RAFTSTEPS_README_ROLE"
	worldVariable = "RAFTSTEPS_README_WORLD"
)

// roles has the programs that a test binary can act as: the programs with a
// stand-in, and a stage's program that the reader has built.
var roles = map[string]func(args []string) int{"go": playGo, "nc": playNC, "curl": playCurl, "scp": playSCP, "git": playGit, "stage": playStage}

// init turns the test binary into another program if it was started as one. It
// is an init function so that a test needs no TestMain.
func init() {
	play, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		return
	}
	os.Unsetenv(roleVariable)
	os.Exit(play(os.Args[1:]))
}

// reading has the go commands that do not write into the repository.
var reading = []string{"run", "test", "vet", "list", "doc", "env", "version"}

// playGo implements the go command: it runs the prebuilt programs, and calls
// the real go command for the rest.
func playGo(args []string) int {
	w, err := readWorld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		return 1
	}
	if len(args) >= 2 && args[0] == "run" {
		if s, ok := w.stage(args[1]); ok {
			cmd := exec.Command(s.Run, args[2:]...)
			cmd.Env = append(os.Environ(), fmt.Sprintf("KV_BASE_PORT=%d", s.BasePort))
			return playGoRun(cmd)
		}
	}
	if len(args) >= 1 && args[0] == "build" {
		if done, err := w.playGoBuild(args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "go:", err)
			return 1
		} else if done {
			return 0
		}
	}
	if len(args) == 0 || !slices.Contains(reading, args[0]) {
		fmt.Fprintf(os.Stderr, "go: this stand-in builds a stage (go build [-o FILE] ./NN-stage), and knows the commands that write nothing: %s\n", strings.Join(reading, ", "))
		return 2
	}
	cmd := exec.Command(w.Go, args...)
	cmd.Dir = w.Root
	cmd.Env = append(os.Environ(), "HOME="+w.Home)
	return pass(cmd)
}

// stage returns the stage that an argument names.
func (w *world) stage(arg string) (stage, bool) {
	s, ok := w.Stages[strings.TrimSuffix(strings.TrimPrefix(arg, "./"), "/")]
	return s, ok
}

// playGoRun runs a program as go run does: the program handles ^C, and a
// failure is reported in a line, not by the same exit code. (After ^C the real
// one ends with 1, whatever the program says.)
func playGoRun(cmd *exec.Cmd) int {
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGQUIT)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// pass runs a program instead of this one.
func pass(cmd *exec.Cmd) int {
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGQUIT)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// playGoBuild writes the program of a stage, if the arguments name one: as a
// script, because the program needs its ports.
func (w *world) playGoBuild(args []string) (bool, error) {
	out := ""
	if len(args) == 3 && args[0] == "-o" {
		out, args = args[1], args[2:]
	}
	if len(args) != 1 {
		return false, nil
	}
	s, ok := w.stage(args[0])
	if !ok {
		return false, nil
	}
	built := s.Built
	if _, err := os.Stat(w.Pulled); err == nil {
		built = s.Next
	}
	if out == "" {
		out = filepath.Base(built)
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		return false, fmt.Errorf("build output %q already exists and is a directory", out)
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	return true, script(out, self, "stage", fmt.Sprintf("%s %d \"$0\" ", quote(built), s.BasePort))
}

// playStage becomes a program that the reader has built, under the name by which
// the reader calls it and with its ports: it takes the program, the port, the
// name, and then the program's arguments.
func playStage(args []string) int {
	err := syscall.Exec(args[0], args[2:], append(os.Environ(), "KV_BASE_PORT="+args[1]))
	fmt.Fprintf(os.Stderr, "%s: %v\n", args[2], err)
	return 126
}

// playNC implements nc, as far as READMEs use it: nc [-N] [-v] HOST PORT. Like
// OpenBSD's nc, it continues after the end of its input until the server closes
// the connection, unless -N is given.
func playNC(args []string) int {
	shut := false
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		shut = shut || a == "-N"
		return a == "-N" || a == "-v"
	})
	if len(args) != 2 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(os.Stderr, "nc: this stand-in takes [-N] [-v] HOST PORT")
		return 2
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(args[0], args[1]), time.Minute)
	if err != nil {
		reason := err
		var call *os.SyscallError
		if errors.As(err, &call) {
			reason = call.Err
		}
		text := reason.Error()
		fmt.Fprintf(os.Stderr, "nc: connect to %s port %s (tcp) failed: %s\n", args[0], args[1], strings.ToUpper(text[:1])+text[1:])
		return 1
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, os.Stdin)
		if tcp, ok := conn.(*net.TCPConn); ok && shut {
			tcp.CloseWrite()
		}
	}()
	io.Copy(os.Stdout, conn)
	return 0
}
