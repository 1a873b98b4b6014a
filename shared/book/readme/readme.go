// Package readme runs the commands of a README as a reader would, and compares
// their output with the README.
//
// A stage has one test for it, in the folder of its README:
//
//	func TestREADME(t *testing.T) { readme.Test(t, "README.md") }
//
// # What an author writes
//
// Blocks fenced as console are run; every other fence (sh, text, go, json) is
// only read by people:
//
//	```console
//	$ go run ./01-client put x 1
//	$ go run ./01-client get x
//	1
//	```
//
// A line that begins with "$ " is a command. The lines below it, up to the next
// command, are all it prints, to stdout and stderr, in the order in which it
// prints them. A command goes on over several lines as it does in a shell:
// after a line that ends in a backslash or a pipe, and inside a here-document,
// the lines that begin with "> " belong to the command.
//
// What differs from run to run is written as an ellipsis, the one character
// "…". Within a line it stands for any text; a line that is nothing else
// stands for any number of lines, none included.
//
// A failure must be seen. A command that ends with another exit code than 0
// fails the test, unless the README shows it: either the next command asks for
// it ($ echo $?), or the output shows go run's own last line, "exit status 3".
// (go run prints that line and itself always ends with 1. To show the real
// code, build the program first: $ go build -o kv ./01-client.)
//
// # Terminals
//
// All blocks share one shell, so variables, $?, & and $! behave as they do for
// a reader. A block whose first line is a comment that names a terminal has
// a shell of its own, one for each name:
//
//	```console
//	# first terminal
//	$ go run ./02-naive-replication cluster
//	…
//	n1 leads …
//	```
//
// The last command of such a block may go on running: once it has printed what
// the block shows, the next block has its turn. So show the line that says that
// it is ready. A later block of the same terminal goes on where that one
// stopped: lines above its first command are what the running command prints
// next, or keys. Whatever still runs at the end of the README gets a ^C.
//
// What a job in the background prints may come at any time. The test waits for
// it where the README shows it, below the command that starts the job or below
// a later one; what else the job prints is better sent elsewhere.
//
// The shell is not interactive, so it prints no notices about jobs: lines such
// as "[1] 4711" and "[1]+  Done …" may stand in the README and are not compared.
//
// # Keys and conversations
//
// The line ^C is that key: it interrupts the running command, of which the block
// has to show some output first, so that the test knows that it runs. The line
// ^D ends its input.
//
// In a conversation with nc, or with the talk of a stage, lines that begin with {"ok": or {"id":7,"ok": or
// with an ellipsis are what the server answers, and every other line is typed by
// the reader:
//
//	```console
//	$ nc 127.0.0.1 7000
//	{"op":"put","key":"x","value":"1"}
//	{"ok":true}
//	hello
//	{"ok":false,"error":{"code":"bad_request",…
//	^C
//	```
//
// A line is typed once the answers above it have come. In a conversation with
// any other program, a line is typed if it begins with a prompt, which is a name
// (or nothing) and "> ", as in "> get x"; the prompt itself is not typed, and is
// not expected from the program, whose input is not a terminal here. A
// conversation that the README does not end with a key ends with ^C in nc, and
// with ^D elsewhere.
//
// # What the test does behind the scenes
//
// The current folder is a temporary one with a copy of the repository: of the
// files that git knows, at the top and in the folders that the commands name. So
// no command meets what the reader has built, and nothing that a command writes
// lands in the tree. First in PATH are stand-ins for some programs:
//
//   - go: "go run ./NN-stage …" runs a program that was built once, and behaves
//     as go run does; "go build -o FILE ./NN-stage" gives it to the reader;
//     commands that only read, such as go test or the go run of a tool, are
//     carried out in the repository itself, and all others are refused.
//   - nc: connects, sends what is typed and prints what is answered, since not
//     every machine has one.
//   - curl, for the same reason: it knows -i, -L, -X, -d, -s, -S and --cacert.
//   - scp: copies files into the folder of another machine of the page.
//   - git, on a page that shows an upgrade: after git pull, go build builds the next
//     release. See Host.
//
// The documented ports (stage NN has 70N0 to 70N9) are moved to free ones, by
// KV_BASE_PORT and in the text of commands, and back in what is printed. So tests
// run side by side, and next to a real cluster. Variables that begin with KV_ or
// RAFT_ are not inherited.
//
// # Several machines
//
// A page about several machines has a test of another form, TestHosts, which gives each
// machine a network of its own. The first line of a block says on which machine it
// is typed, and may name a terminal of that machine, too:
//
//	```console
//	# on kv1, second terminal
//	$ ip link set eth0 down
//	```
//
// Nothing waits by sleeping: the test waits for the output that the README shows,
// up to a generous deadline (-readme.wait).
//
// # Rewriting
//
//	go test ./02-naive-replication -run README -update
//
// runs everything and writes what was printed into the README. Lines that still
// match stay as they are, ellipses included; new lines are written as printed,
// so look for times and ports in them and put ellipses there. Commit a rewrite
// only if you understand what caused it.
package readme

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	update = flag.Bool("update", false, "write the output of its commands into the README")
	most   = flag.Duration("readme.wait", time.Minute, "how long to wait for the expected output of a command of a README")
)

// Test runs the commands of a README and compares their output with the README.
// file is the README's path; its folder is a stage's or the repository's. The
// test fails at the first command with different output, and shows the command,
// the expected output and the actual output. It ends all processes that the
// commands started.
func Test(t *testing.T, file string) {
	t.Helper()
	shell := shellFor(t)
	t.Parallel() // it mostly waits
	r := &runner{file: file, shell: shell, most: *most, closing: 10 * time.Second, update: *update, labels: true}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// shellFor returns the shell for the terminals. It skips the test where there can be
// none.
func shellFor(t *testing.T) string {
	t.Helper()
	if inside() {
		t.Skip("a README runs its own test: once is enough")
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		t.Skip("the commands of a README need a Unix shell")
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		shell = "/bin/sh"
	}
	return shell
}

// runner runs one README.
type runner struct {
	// file is the README.
	file string

	// shell is the program for the terminals.
	shell string

	// most is the longest wait for output.
	most time.Duration

	// closing is how long a process may take to end after it was told to.
	closing time.Duration

	// update is true to rewrite the README.
	update bool

	// labels is true if every block must name its terminal if one does.
	labels bool

	// hosts are the machines of the page; nil if it has only this one.
	hosts []Host

	// programs are those of stages that need not be built, by the stage's name.
	programs map[string]string

	// lines are the lines of the README.
	lines []string

	// edits are the changes to the README, in order.
	edits []edit

	world     *world
	env       []string
	terminals map[string]*terminal
}

// edit replaces lines of the README: those from the given one (from 1).
type edit struct {
	line     int
	old, new []string
}

// terminal is a session and the command in it.
type terminal struct {
	*session

	// running is the command that has not ended yet.
	running *command

	// rest has the lines of the README that were not compared yet; they begin
	// at line of the README. carry is true if an ellipsis before them is still
	// open.
	rest  []string
	line  int
	carry bool

	// jobs is true if there are background processes, which may print at any
	// time.
	jobs bool

	// interrupted and inputEnded are true once the reader has pressed ^C or ^D.
	interrupted, inputEnded bool
}

// run is Test without the flags.
func (r *runner) run(ctx context.Context) (err error) {
	file, err := filepath.Abs(r.file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	r.lines = strings.Split(string(text), "\n")
	blocks, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", r.file, err)
	}
	if len(blocks) == 0 {
		return fmt.Errorf("%s holds no block fenced as console: there is nothing to run", r.file)
	}
	if r.labels {
		if err := labeled(blocks); err != nil {
			return fmt.Errorf("%s: %w", r.file, err)
		}
	}
	var commands strings.Builder
	talks := make(map[string]int)
	for _, b := range blocks {
		for _, p := range b.parts {
			fmt.Fprintln(&commands, p.text)
			if p.begins && p.talks {
				talks[b.terminal]++
			}
		}
	}
	if err := onHosts(blocks, r.hosts); err != nil {
		return fmt.Errorf("%s: %w", r.file, err)
	}
	w, err := newWorld(ctx, filepath.Dir(file), commands.String(), r.hosts, r.programs)
	if w != nil {
		defer func() { err = join(err, w.close()) }()
	}
	if err != nil {
		return err
	}
	r.world, r.env, r.terminals = w, w.environment(), make(map[string]*terminal)
	defer func() { err = join(err, r.close(err != nil)) }()
	defer func() { err = join(err, r.rewrite(file)) }()
	return r.blocks(blocks, talks)
}

// blocks runs all blocks. talks is the number of commands with typed input, by
// terminal.
func (r *runner) blocks(blocks []block, talks map[string]int) error {
	for _, b := range blocks {
		if err := r.block(b, talks[b.terminal]); err != nil {
			return err
		}
	}
	for _, term := range r.sorted() {
		if term.running != nil && term.look().ended {
			if err := r.finish(term); err != nil {
				return err
			}
		}
	}
	return nil
}

// sorted returns the terminals, in the order of their names.
func (r *runner) sorted() []*terminal {
	return slices.SortedFunc(maps.Values(r.terminals), func(a, b *terminal) int { return cmp.Compare(a.name, b.name) })
}

// join is errors.Join, but keeps the first error at the top.
func join(first, second error) error {
	switch {
	case second == nil:
		return first
	case first == nil:
		return second
	}
	return fmt.Errorf("%w\n%w", first, second)
}

// close ends all terminals.
func (r *runner) close(failed bool) error {
	var all error
	for _, term := range r.sorted() {
		err := term.close(term.running != nil, r.closing)
		if err != nil && term.running != nil {
			err = fmt.Errorf("%s:%d: $ %s: %w", r.file, term.running.line, term.running.text, err)
		}
		// After a failure, further errors mean nothing.
		if !failed {
			all = join(all, err)
		}
	}
	return all
}

// block runs one block. talks is the number of commands of its terminal with
// typed input.
func (r *runner) block(b block, talks int) error {
	term := r.terminals[b.terminal]
	if term == nil {
		s, err := newSession(r.world, r.shell, r.env, b.terminal, talks)
		if err != nil {
			return fmt.Errorf("%s:%d: %w", r.file, b.line, err)
		}
		term = &terminal{session: s}
		r.terminals[b.terminal] = term
	}
	for _, p := range b.parts {
		if err := r.part(term, p); err != nil {
			return err
		}
		if !p.stays(term) {
			if err := r.finish(term); err != nil {
				return err
			}
		}
	}
	return nil
}

// stays reports whether a command may keep running after its block: it must be
// the last one of a terminal with a name, the block must show some of its
// output, and the reader must not have ended it. With background processes, the
// shown output may be theirs.
func (p part) stays(term *terminal) bool {
	return p.last && term.name != "" && !term.jobs && len(p.steps) > 0 && !term.interrupted && !term.inputEnded
}

// part starts or continues a command, and takes its steps.
func (r *runner) part(term *terminal, p part) error {
	if p.begins {
		if err := r.finish(term); err != nil {
			return err
		}
		if err := term.start(replacePorts(p.text, r.world.ports), p.talks); err != nil {
			return r.fault(p.command, nil, "it could not be started: %v", err)
		}
		term.running = p.command
		term.jobs = term.jobs || p.job
	}
	if term.running == nil {
		return fmt.Errorf("%s:%d: $ %s has ended: there is nothing that could print or read this", r.file, p.steps[0].line, p.text)
	}
	for i, s := range p.steps {
		if err := r.step(term, p, s, i == len(p.steps)-1); err != nil {
			return err
		}
	}
	return nil
}

// step takes one step. The output of the last step may come up to the end of
// the command. A key or a line is typed once all output above it is there.
func (r *runner) step(term *terminal, p part, s step, last bool) error {
	c := p.command
	if s.kind == expect {
		term.expect(s)
		if last && !p.stays(term) {
			return nil
		}
		return r.shown(term)
	}
	var err error
	switch s.kind {
	case typed:
		err = term.enter(replacePorts(s.lines[0], r.world.ports))
	case endInput:
		term.inputEnded = true
		err = term.endInput()
	case interrupt:
		term.interrupted = true
		signalGroup(term.cmd.Process.Pid, interruptGroup)
	}
	if err != nil {
		return r.fault(c, nil, "line %d could not be typed: %v", s.line, err)
	}
	return nil
}

// expect records the next expected output.
func (term *terminal) expect(s step) {
	term.rest, term.line = s.lines, s.line
}

// want returns the pattern for the next output.
func (term *terminal) want() []string {
	if term.carry {
		return append([]string{ellipsis}, term.rest...)
	}
	return term.rest
}

// shown waits until the running command has printed the expected output, and
// takes that output.
func (r *runner) shown(term *terminal) error {
	find := func(o output) (int, bool) { return prefix(term.want(), r.documented(o.lines)) }
	never := func(o output) bool { return hopeless(term.want(), r.documented(o.lines)) }
	o := term.wait(r.most, func(o output) bool { _, ok := find(o); return ok || never(o) })
	n, ok := find(o)
	if !ok {
		if !r.update {
			why := fmt.Sprintf("it did not print this within %v", r.most)
			switch {
			case o.ended:
				why = "it ended without printing this"
			case never(o):
				why = "it printed something else"
			}
			return r.fault(term.running, &o, "%s", why)
		}
		n = len(o.lines)
		r.edit(term, o)
	}
	term.carry = len(term.rest) > 0 && anything(term.rest[len(term.rest)-1])
	term.rest = nil
	term.take(n)
	return nil
}

// finish waits for the end of the running command, if there is one, and
// compares the rest of its output.
func (r *runner) finish(term *terminal) error {
	c := term.running
	if c == nil {
		return nil
	}
	if c.talks && !term.inputEnded && !term.interrupted {
		// The reader ends the conversation once the answers are there.
		if c.nc() {
			if err := r.shown(term); err != nil {
				return err
			}
			signalGroup(term.cmd.Process.Pid, interruptGroup)
			term.interrupted = true
		} else if err := term.endInput(); err != nil {
			return r.fault(c, nil, "its input could not be ended: %v", err)
		}
	}
	o := term.wait(r.most, func(output) bool { return false })
	switch {
	case !o.ended:
		return r.fault(c, &o, "it is still running after %v; a command that keeps running needs a block with its own terminal (\"# first terminal\"), or ^C below it", r.most)
	case o.status < 0:
		return r.fault(c, &o, "it ended the shell")
	}
	if o.status != 0 && !c.status && !term.interrupted {
		return r.fault(c, &o, "it ended with exit code %d, but the README does not show that; if it is intended, show it with $ echo $? below it", o.status)
	}
	if err := r.compare(term, o); err != nil {
		return err
	}
	*term = terminal{session: term.session, jobs: term.jobs}
	return nil
}

// compare compares the output of an ended command with the rest of the README's
// lines. Output of background processes may come later.
func (r *runner) compare(term *terminal, o output) error {
	least := len(o.lines)
	find := func(o output) int {
		for n, ok := range ends(term.want(), r.documented(o.lines)) {
			if ok && n >= least {
				return n
			}
		}
		return -1
	}
	term.next()
	if term.jobs {
		o = term.wait(r.most, func(o output) bool { return find(o) >= 0 || hopeless(term.want(), r.documented(o.lines)) })
	} else {
		o = output{lines: o.lines, ended: true}
	}
	n := find(o)
	if n < 0 {
		if !r.update {
			return r.fault(term.running, &o, "it printed something else")
		}
		r.edit(term, o)
		n = len(o.lines)
	}
	term.take(n)
	return nil
}

// documented returns output with the documented ports, as in the README.
func (r *runner) documented(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = replacePorts(l, r.world.documented)
	}
	return out
}

// fault returns an error with the command, the expected output and the actual
// output.
func (r *runner) fault(c *command, got *output, format string, args ...any) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %s\n    $ %s\n", r.file, c.line, fmt.Sprintf(format, args...), strings.ReplaceAll(c.text, "\n", "\n    > "))
	if got == nil {
		return fmt.Errorf("%s", strings.TrimRight(b.String(), "\n"))
	}
	for _, term := range r.terminals {
		if term.running == c {
			indent(&b, "expected", term.want())
		}
	}
	indent(&b, "got", r.documented(got.lines))
	return fmt.Errorf("%s\n(go test -run README -update writes the actual output into the README)", strings.TrimRight(b.String(), "\n"))
}

// indent prints lines below a title.
func indent(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		fmt.Fprintf(b, "%s: nothing\n", title)
		return
	}
	fmt.Fprintf(b, "%s:\n", title)
	for _, l := range lines {
		fmt.Fprintf(b, "    %s\n", l)
	}
}

// edit records what to write instead of the expected output.
func (r *runner) edit(term *terminal, o output) {
	line := term.line
	if line == 0 {
		// There is no expected output yet: insert the new lines below the
		// command.
		line = term.running.line + strings.Count(term.running.text, "\n") + 1
	}
	fresh := rewrite(term.want(), r.documented(o.lines))
	if term.carry && len(fresh) > 0 && anything(fresh[0]) {
		fresh = fresh[1:]
	}
	r.edits = append(r.edits, edit{line: line, old: term.rest, new: fresh})
}

// rewrite makes the edits.
func (r *runner) rewrite(file string) error {
	if len(r.edits) == 0 {
		return nil
	}
	// From the end, so that the numbers above stay right.
	slices.SortStableFunc(r.edits, func(a, b edit) int { return b.line - a.line })
	lines := slices.Clone(r.lines)
	for _, e := range r.edits {
		lines = slices.Replace(lines, e.line-1, e.line-1+len(e.old), e.new...)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
}
