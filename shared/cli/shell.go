package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// maxShellLine is the longest line of the shell: a value at its limit fits.
const maxShellLine = 1 << 20

func (a *app) shellCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shell", Short: "Type commands one after the other", GroupID: groupClient,
		Long: `Reads commands line by line and runs each: those that ask servers, and those that break the cluster.
On a terminal there is line editing, a history on the arrow keys, ^C for the line or the command in hand, and ^D for the end.
From a pipe, a line that fails does not end the shell; its exit code is that of the last line that failed.

Quotes keep blanks together: put greeting "hello world". A # begins a comment.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.shell(cmd) },
	}
}

// shell is one run of the shell.
type shell struct {
	app *app

	// flags are those that the shell was started with; each line begins with
	// them.
	flags []string

	// failed is the exit code of the last line that failed.
	failed int
}

func (a *app) shell(cmd *cobra.Command) error {
	client, done, err := a.client()
	if err != nil {
		return err
	}
	defer done()
	a.shared = client
	s := &shell{app: a}
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			s.flags = append(s.flags, "--"+f.Name+"="+f.Value.String())
		}
	})
	in, isFile := a.stdin.(*os.File)
	if isFile && term.IsTerminal(int(in.Fd())) {
		return s.interact(cmd.Context(), in)
	}
	return s.readLines(cmd.Context())
}

// readLines runs the lines of a pipe.
func (s *shell) readLines(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	lines, failed := scan(reading, s.app.stdin)
	for end := false; !end; {
		select {
		case text := <-lines:
			end = s.line(ctx, text)
		case err := <-failed:
			if err != nil {
				return usagef("standard input: %v", err)
			}
			end = true
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
	}
	if s.failed != exitDone {
		return exitError(s.failed)
	}
	return nil
}

// scan reads lines until ctx ends; at the end of them comes an error or nil. A
// read that nothing comes of cannot be told to stop: its goroutine stays behind
// until its input ends.
func scan(ctx context.Context, in io.Reader) (lines chan string, failed chan error) {
	lines, failed = make(chan string), make(chan error, 1)
	go func() {
		s := bufio.NewScanner(in)
		s.Buffer(nil, maxShellLine)
		for s.Scan() {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
		failed <- s.Err()
	}()
	return lines, failed
}

// line runs one line and reports whether it was the last.
func (s *shell) line(ctx context.Context, text string) (end bool) {
	words, err := splitWords(text)
	switch {
	case err != nil:
		s.app.reportError(err)
		s.failed = exitUsage
		return false
	case len(words) == 0:
		return false
	case len(words) == 1 && (words[0] == "exit" || words[0] == "quit"):
		return true
	}
	inner := &app{
		stage: s.app.stage, signals: s.app.signals, inShell: true, shared: s.app.shared, sharedFlags: s.app.flags,
		stdin: strings.NewReader(""), stdout: s.app.stdout, stderr: s.app.stderr,
	}
	if code := inner.run(ctx, append(slices.Clone(s.flags), words...)); code != exitDone {
		s.failed = code
	}
	return false
}

// interact talks with a person on a terminal.
func (s *shell) interact(ctx context.Context, in *os.File) error {
	fmt.Fprintf(s.app.stderr, "help lists the commands, ^D ends the shell\n")
	keys := &keyboard{in: in}
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys, s.app.stderr}, "> ")
	terminal.History = &history{}
	terminal.AutoCompleteCallback = s.complete
	for ctx.Err() == nil {
		text, err := s.readLine(ctx, in, terminal)
		if errors.Is(err, io.EOF) {
			fmt.Fprintln(s.app.stderr)
			return nil
		}
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			return fmt.Errorf("the terminal: %w", err)
		}
		if s.lineOnTerminal(ctx, text) {
			return nil
		}
	}
	return nil
}

// readLine reads one line with editing. The terminal is raw only that long, so
// that ^C ends a command as it does elsewhere.
func (s *shell) readLine(ctx context.Context, in *os.File, terminal *term.Terminal) (string, error) {
	fd := int(in.Fd())
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		// A terminal that does not know its size says 0.
		_ = terminal.SetSize(width, height)
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, before)
	type result struct {
		text string
		err  error
	}
	// A terminal cannot be told to stop reading. At the end of ctx the
	// goroutine stays behind; the process ends anyway.
	read := make(chan result, 1)
	go func() {
		text, err := terminal.ReadLine()
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		return r.text, r.err
	case <-ctx.Done():
		return "", io.EOF
	}
}

// lineOnTerminal runs a line that ^C can end without ending the shell.
func (s *shell) lineOnTerminal(ctx context.Context, text string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.app.signals.onInterrupt(cancel)
	defer s.app.signals.onInterrupt(nil)
	return s.line(ctx, text)
}

// complete completes the command at the start of the line, on the tab key.
func (s *shell) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || strings.ContainsRune(line[:pos], ' ') {
		return "", 0, false
	}
	inner := &app{stage: s.app.stage, inShell: true}
	var matches []string
	for _, c := range inner.root().Commands() {
		if strings.HasPrefix(c.Name(), line[:pos]) {
			matches = append(matches, c.Name())
		}
	}
	if len(matches) != 1 {
		return "", 0, false
	}
	return matches[0] + " " + line[pos:], len(matches[0]) + 1, true
}

// keyboard is a terminal's input in which ^C empties the line instead of
// ending the input: to the end of the line, erase it, enter.
type keyboard struct {
	in   io.Reader
	rest []byte
}

const ctrlC, emptyLine = 3, "\x05\x15\r"

func (k *keyboard) Read(b []byte) (int, error) {
	if len(k.rest) == 0 {
		read := make([]byte, 256)
		n, err := k.in.Read(read)
		if err != nil {
			return 0, err
		}
		for _, c := range read[:n] {
			if c == ctrlC {
				k.rest = append(k.rest, emptyLine...)
			} else {
				k.rest = append(k.rest, c)
			}
		}
	}
	n := copy(b, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

// history keeps the last lines, without empty ones and repetitions.
type history struct{ lines []string }

const maxHistory = 1000

// Add takes a line.
func (h *history) Add(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[0] == line {
		return
	}
	h.lines = slices.Insert(h.lines, 0, line)
	h.lines = h.lines[:min(len(h.lines), maxHistory)]
}

// Len is the number of lines.
func (h *history) Len() int { return len(h.lines) }

// At returns a line; 0 is the newest.
func (h *history) At(i int) string { return h.lines[i] }
