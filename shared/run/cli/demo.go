package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/run/cluster"
)

// Times of a demo.
const (
	// demoPause is the time to read a step.
	demoPause = 1200 * time.Millisecond

	// talkTime is how long a server may take to answer in Talk.
	talkTime = 5 * time.Second

	// untilTime is how long Until tries.
	untilTime = 10 * time.Second

	// demoWidth is the width of the text, in characters.
	demoWidth = 78
)

// Demo tells a stage's story in a terminal, with real servers on free ports and a
// temporary data folder.
//
// A demo is also a test: a command with an unexpected result ends the demo with
// an error. After the first error, and after ^C, every method does nothing, so
// a story needs no checks between its steps. Only one goroutine may use it.
type Demo struct {
	app  *app
	ctx  context.Context
	fast bool

	// err is the first error.
	err error

	// last is the output of the last command.
	last string

	// compact is compact_bytes of the configuration, 0 for the default.
	compact int64

	// dir is the data folder of the running servers, "" if there are none; file
	// is their configuration, ports their ports.
	dir   string
	file  cluster.File
	ports *freeport.Block

	// end stops the servers; ended receives the result of their supervisor.
	end   context.CancelFunc
	ended chan error

	// background is the command that Meanwhile has started; nil if there is
	// none.
	background *backgroundCommand
}

// backgroundCommand is a command that runs during the story.
type backgroundCommand struct {
	args []string

	// interrupt has the effect of ^C. done receives the exit code when the
	// command has ended; then out and err are its output.
	interrupt context.CancelFunc
	done      chan int
	out, err  bytes.Buffer
}

func (a *app) demoCommand() *cobra.Command {
	var fast bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Tell this stage's story in a minute", GroupID: groupLearn,
		Long: "Tells the story of this stage with real servers, in under a minute: what is new, and what it still cannot survive.\nIt uses a folder and ports of its own and leaves nothing behind.",
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), fast) },
	}
	cmd.Flags().BoolVar(&fast, "fast", false, "do not pause between the steps")
	return cmd
}

func (a *app) demo(ctx context.Context, fast bool) error {
	d := &Demo{app: a, ctx: ctx, fast: fast || !isTerminal(a.stdout)}
	d.fail(a.stage.Demo(d))
	background, _ := d.endBackground()
	d.Stop()
	if ctx.Err() != nil {
		// Ignore the error: ^C caused it.
		if background != nil {
			fmt.Fprintf(a.stdout, "\n%s", &background.out)
		}
		fmt.Fprintln(a.stdout, "\nThe story was interrupted; its servers have stopped.")
		return exitError(exitInterrupted)
	}
	return d.err
}

// Err returns the first error, or the error of the context after ^C. A story
// returns it at its end.
func (d *Demo) Err() error {
	if d.err == nil {
		return d.ctx.Err()
	}
	return d.err
}

// over reports whether the story has ended early.
func (d *Demo) over() bool { return d.err != nil || d.ctx.Err() != nil }

func (d *Demo) fail(err error) {
	if d.err == nil && err != nil {
		d.err = err
	}
}

// Say shows a text as a paragraph, wrapped to demoWidth.
func (d *Demo) Say(text string) {
	if d.over() {
		return
	}
	fmt.Fprintf(d.app.stdout, "\n%s\n", wrap(text, demoWidth))
	d.pause()
}

// wrap breaks text into lines at blanks.
func wrap(text string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		length := len([]rune(word))
		switch {
		case i == 0:
		case column+1+length > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += length
	}
	return b.String()
}

// pause gives the reader time to read a step, unless the demo is fast.
func (d *Demo) pause() {
	if d.fast || d.over() {
		return
	}
	select {
	case <-time.After(demoPause):
	case <-d.ctx.Done():
	}
}

// Compact sets compact_bytes for the servers that Start starts.
func (d *Demo) Compact(bytes int64) { d.compact = bytes }

// Start starts a cluster of n servers, or the single server of a stage without
// clusters; then n is 1. It first stops the servers that are running.
func (d *Demo) Start(n int) {
	d.Stop()
	if d.over() {
		return
	}
	if d.app.stage.New != nil {
		d.echo("cluster -n " + strconv.Itoa(n))
	} else {
		d.echo(d.app.program())
	}
	d.fail(d.start(n))
}

func (d *Demo) start(n int) error {
	dir, err := os.MkdirTemp("", "raftsteps-demo-")
	if err != nil {
		return fmt.Errorf("cannot create a folder for the demo: %w", err)
	}
	d.dir = dir
	config, err := d.writeConfig(n)
	if err != nil {
		return err
	}
	folder, err := cluster.Open(cluster.OpenOptions{Stage: d.app.stage.Name, Dir: dir, Config: config, Needs: d.app.needs()})
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return errors.Join(err, folder.Close())
	}
	// ^C must not stop the servers before the background command.
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.ctx))
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer folder.Close()
		ended <- cluster.Run(ctx, cluster.Options{
			Single: d.app.stage.New == nil, Folder: folder, Changes: d.app.needs().Changes, Command: d.process(executable, folder), Program: d.app.program(), Out: io.Discard,
			Up: func() string { close(up); return "" }, Kill: d.app.signals.cleanUp(),
		})
	}()
	d.end, d.ended, d.file = cancel, ended, folder.File
	select {
	case <-up:
		return nil
	case <-d.ctx.Done():
		return nil
	case err := <-ended:
		ended <- err
		return err
	}
}

// writeConfig writes a configuration with n free ports.
func (d *Demo) writeConfig(n int) (string, error) {
	var leader uint64
	if d.app.stage.Appointed {
		leader = 1
	}
	ports, err := freeport.Reserve()
	if err != nil {
		return "", err
	}
	d.ports = ports
	file, err := cluster.New(d.app.stage.Name, n, ports.First(), leader)
	if err != nil {
		return "", err
	}
	file.Config.CompactBytes = d.compact
	path := filepath.Join(d.dir, cluster.ConfigName)
	return path, file.Save(path)
}

// process returns a function that returns the command for one server.
func (d *Demo) process(executable string, folder *cluster.Folder) func(uint64, []uint64) *exec.Cmd {
	if d.app.stage.New != nil {
		a := *d.app
		a.flags.data = folder.Dir
		return a.nodeProcess(executable, folder.ConfigPath())
	}
	return d.app.singleProcess(executable, folder.File.Config.Members[0].Address, false)
}

// Stop stops the servers cleanly. It is not an error if none are running.
func (d *Demo) Stop() {
	if d.end != nil {
		d.end()
		d.fail(<-d.ended)
		d.end = nil
	}
	if d.ports != nil {
		d.fail(d.ports.Close())
		d.ports = nil
	}
	if d.dir != "" {
		d.fail(os.RemoveAll(d.dir))
		d.dir = ""
	}
}

// Run shows a command and its output, and returns the output. The command must
// succeed.
func (d *Demo) Run(args ...string) string { return d.Fails(exitDone, args...) }

// Fails is Run for a command that must end with this exit code.
func (d *Demo) Fails(code int, args ...string) string {
	if d.over() {
		return ""
	}
	return d.ends(args, code)
}

// Stuck runs a write while a majority is dead. Its exit code is 5, or 6 if a
// remaining leader has the command in its log.
func (d *Demo) Stuck(args ...string) string {
	if d.over() {
		return ""
	}
	return d.ends(args, exitUnavailable, exitUnknown)
}

// ends shows a command that must end with one of these exit codes.
func (d *Demo) ends(args []string, codes ...int) string {
	d.echo(quoteWords(args))
	got := d.run(args)
	d.show(got, codes[0] != exitDone)
	d.expect(got, args, codes...)
	d.pause()
	return d.last
}

// Until repeats a command until it prints a text, and shows the last run. It is
// for conditions that become true soon.
func (d *Demo) Until(text string, args ...string) string {
	if d.over() {
		return ""
	}
	d.echo(quoteWords(args))
	got := d.run(args)
	for end := time.Now().Add(untilTime); !strings.Contains(d.last, text) && time.Now().Before(end) && !d.over(); got = d.run(args) {
		time.Sleep(10 * time.Millisecond)
	}
	d.show(got, got != exitDone)
	d.Shows(text)
	d.pause()
	return d.last
}

// Meanwhile starts a background command that runs until Interrupt, which shows
// its output. Only one may run at a time.
func (d *Demo) Meanwhile(args ...string) {
	if d.over() {
		return
	}
	d.echo(quoteWords(args) + " &")
	ctx, interrupt := context.WithCancel(d.ctx)
	b := &backgroundCommand{args: args, interrupt: interrupt, done: make(chan int, 1)}
	inner := &app{stage: d.app.stage, stdin: strings.NewReader(""), stdout: &b.out, stderr: &b.err, inDemo: true, singleDir: d.dir}
	words := append(d.flags(), args...)
	go func() { b.done <- inner.run(ctx, words) }()
	d.background = b
	d.pause()
}

// Interrupt ends the background command as ^C would, and shows and returns its
// standard output. The command must still be running.
func (d *Demo) Interrupt() string {
	if d.over() || d.background == nil {
		return ""
	}
	d.echo("fg; ^C")
	b, code := d.endBackground()
	d.last = b.out.String()
	if code != exitInterrupted {
		d.last += b.err.String()
	}
	d.show(code, code != exitInterrupted)
	d.expect(code, b.args, exitInterrupted)
	d.pause()
	return d.last
}

// endBackground ends the background command, if any, and returns it with its
// exit code.
func (d *Demo) endBackground() (b *backgroundCommand, code int) {
	if b = d.background; b != nil {
		b.interrupt()
		code, d.background = <-b.done, nil
	}
	return b, code
}

// run runs a command of the program, keeps its output and returns its exit
// code.
func (d *Demo) run(args []string) int {
	var out bytes.Buffer
	inner := &app{stage: d.app.stage, stdin: strings.NewReader(""), stdout: &out, stderr: &out, inDemo: true, singleDir: d.dir}
	got := inner.run(d.ctx, append(d.flags(), args...))
	d.last = out.String()
	return got
}

// show shows the output of the last command, unless ^C has interrupted it.
func (d *Demo) show(code int, withCode bool) {
	if d.ctx.Err() != nil {
		return
	}
	fmt.Fprint(d.app.stdout, d.last)
	if withCode {
		fmt.Fprintf(d.app.stdout, "(exit code %d)\n", code)
	}
}

// expect fails the story if a command has ended with another exit code.
func (d *Demo) expect(got int, args []string, want ...int) {
	if !slices.Contains(want, got) && d.ctx.Err() == nil {
		d.fail(fmt.Errorf("the demo failed: %q should end with exit code %d, but ended with %d", quoteWords(args), want[0], got))
	}
}

// flags returns the flags that direct a command to the servers of the demo.
func (d *Demo) flags() []string {
	switch {
	case d.dir == "":
		return nil
	case d.app.stage.New != nil:
		return []string{"--data=" + d.dir}
	case d.app.stage.Dial != nil:
		return []string{"--endpoints=" + d.file.Config.Members[0].Address}
	}
	return nil
}

// Shows fails the story unless the last command printed a text.
func (d *Demo) Shows(text string) {
	if !d.over() && !strings.Contains(d.last, text) {
		d.fail(fmt.Errorf("the demo failed: %q does not show %q", strings.TrimSpace(d.last), text))
	}
}

// Talk sends lines to the first server, one by one, and shows the answers, as
// the command talk does.
func (d *Demo) Talk(lines ...string) {
	if d.over() || len(d.file.Config.Members) == 0 {
		return
	}
	d.last = ""
	d.fail(d.talk(lines))
	d.pause()
}

func (d *Demo) talk(lines []string) error {
	address := d.file.Config.Members[0].Address
	d.echo("talk")
	conn, err := net.DialTimeout("tcp", address, talkTime)
	if err != nil {
		return fmt.Errorf("the server at %s: %w", address, err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, line := range lines {
		fmt.Fprintln(d.app.stdout, line)
		conn.SetDeadline(time.Now().Add(talkTime))
		if _, err := fmt.Fprintln(conn, line); err != nil {
			return fmt.Errorf("the server at %s: %w", address, err)
		}
		answer, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the server at %s: %w", address, err)
		}
		fmt.Fprint(d.app.stdout, answer)
		d.last += answer
	}
	return nil
}

// Kill, Pause, Resume and Restart run the commands of these names.
func (d *Demo) Kill(ids ...uint64)    { d.act(cluster.Kill, ids) }
func (d *Demo) Pause(ids ...uint64)   { d.act(cluster.Pause, ids) }
func (d *Demo) Resume(ids ...uint64)  { d.act(cluster.Resume, ids) }
func (d *Demo) Restart(ids ...uint64) { d.act(cluster.Restart, ids) }

// Join starts new servers next to those that are running. This does not make
// them members.
func (d *Demo) Join(ids ...uint64) {
	for _, id := range ids {
		d.Run(cluster.Start, strconv.FormatUint(id, 10))
	}
}

// act runs a command on the servers of a cluster, or on the single server.
func (d *Demo) act(do string, ids []uint64) {
	args := []string{do}
	for _, id := range ids {
		if d.app.stage.New != nil {
			args = append(args, strconv.FormatUint(id, 10))
		}
	}
	d.Run(args...)
}

// Scenario plays a scenario in the simulator.
func (d *Demo) Scenario(name string, seed uint64) {
	d.Run("scenario", name, "--seed", strconv.FormatUint(seed, 10))
}

// echo shows a command line.
func (d *Demo) echo(line string) {
	if wantsColor(d.app.stdout) {
		line = "\x1b[1m" + line + "\x1b[0m"
	}
	fmt.Fprintf(d.app.stdout, "\n$ %s\n", line)
}

// quoteWords quotes words for a shell.
func quoteWords(words []string) string {
	quoted := slices.Clone(words)
	for i, w := range quoted {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\#$&*?<>|;()`{}") {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
