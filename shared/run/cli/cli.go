// Package cli is the command line of all stages, so that a stage's main.go fits
// on a page: it fills in a [Stage] and calls [Main].
//
// The features of a stage decide which commands there are. A single server
// (Stage.Serve) starts without a command, as a process that kill, pause, resume
// and restart reach from another terminal. A client (Stage.Dial) brings get,
// put and the like, the shell, status and bench. Servers of a cluster
// (Stage.New) bring cluster and node, and the commands that break a cluster by
// hand. A stage has no command for a feature that it does not have.
//
// Results go to stdout, and so do the lines of cluster and the stories of demo
// and scenario. Errors, hints and progress go to stderr; an error is one line,
// which says what to do. With -o json, stdout has only JSON, and an error is
// written there too, unless the command has written a result. The exit code is
// one of eight; see the help topic exit-codes.
package cli

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/pflag"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
	"example.com/raftsteps/shared/lab/scenario"
)

// Stage describes a stage's program. Fields that do not apply are nil.
type Stage struct {
	// Name is the stage's folder, such as "02-naive-replication". Its two
	// digits determine its ports: 7020 and up.
	Name string

	// About describes the program in one sentence, for the help.
	About string

	// Ops are the operations that its servers support. There is a command for
	// each operation of the store.
	Ops api.Ops

	// Serve is a single server (stages 00 and 01). It returns when ctx is done
	// and everything in flight was answered.
	Serve func(ctx context.Context, ln net.Listener, log *slog.Logger) error

	// New creates one server of a cluster (from 02 on).
	New node.Factory

	// Appointed is true if the operator appoints the leader: cluster.json names
	// it (02 to 04).
	Appointed bool

	// Disk is true if the servers keep data on disk: each has its own folder in
	// the data folder (from 03 on).
	Disk bool

	// Compacts is true if the servers compact their log, so that cluster.json may
	// say when (from 06 on).
	Compacts bool

	// HTTP is true if the servers speak HTTP too, on the same port (from 04 on).
	HTTP bool

	// Offline reads what a server that does not run has on its disk (from 07 on).
	Offline func(node.World) (node.Saved, error)

	// Dial returns a client for the servers at these addresses (from 01 on). It
	// does not connect yet. The options say how the client will connect.
	Dial func(endpoints []string, options ...DialOption) Client

	// Scenarios are the scenarios that the stage can be played against (from 02
	// on).
	Scenarios *scenario.Stage

	// Source is the code of the servers, for the lab (from 02 on).
	Source fs.FS

	// Demo shows the stage in a terminal.
	Demo func(d *Demo) error

	// direct connects to one server, for tests without sockets; nil means TCP.
	direct func(ctx context.Context, address string) (Client, error)
}

// DialOption says how a client connects.
type DialOption = wire.DialOption

// Client sends requests to servers. Do is safe for concurrent use. Its error is
// an *api.Error; it is nil only if the operation was done.
type Client interface {
	Do(ctx context.Context, r api.Request) (api.Response, error)
	Close() error
}

// Main runs the program with the arguments and streams of this process, and
// ends the process with the right exit code. The first ^C, SIGTERM or end of
// the terminal stops the command cleanly, the second one at once.
func Main(s Stage) {
	sig := watchSignals()
	a := &app{stage: s, signals: sig, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.run(sig.ctx, os.Args[1:]))
}

// Run runs one command and returns its exit code. The end of ctx has the effect
// of ^C. When Run returns, everything that it started has ended, except for a
// blocked read of stdin; what it has read ahead from stdin is lost. Tests run
// the whole program with it.
func Run(ctx context.Context, s Stage, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stage: s, stdin: stdin, stdout: stdout, stderr: stderr}
	return a.run(ctx, args)
}

// app is one run of the program: its stage, its streams and its flags.
type app struct {
	stage   Stage
	signals *signals

	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	// flags are the flags that all commands share.
	flags flags

	// json is stdout if results are written as JSON; nil otherwise.
	json *jsonOutput

	// shared is the client of the shell's commands, and sharedFlags are the
	// flags that choose its servers; nil outside the shell.
	shared      Client
	sharedFlags flags

	// traceFile is the prefix of the files for the servers' events; "" for
	// none.
	traceFile string

	// singleDir is the folder of a demo's single server; "" outside a demo.
	singleDir string

	// inShell is true for a command of the shell, and inDemo for one of a demo:
	// in both, commands are typed without the program's name.
	inShell, inDemo bool
}

// run parses the arguments, runs the command, and reports its error.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := interrupted(ctx, root.ExecuteContext(ctx))
	if err != nil {
		if a.json == nil && a.wantsJSON(args) {
			a.json = &jsonOutput{Writer: a.stdout}
		}
		a.reportError(err)
	}
	return exitCode(err)
}

// wantsJSON reports whether a command line has -o json. It also finds the flag in
// a command line that could not be parsed, such as after an unknown flag.
func (a *app) wantsJSON(args []string) bool {
	if a.stage.Dial == nil {
		return false
	}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.ParseErrorsAllowlist.UnknownFlags = true
	f.SetOutput(io.Discard)
	output := f.StringP("output", "o", "", "")
	for f.Parse(args) != nil && len(args) > 0 {
		args = args[1:] // drop words until the rest can be parsed
	}
	return *output == "json"
}
