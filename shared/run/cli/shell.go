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
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// maxShellLine is the longest line of the shell, in bytes: the longest value fits.
const maxShellLine = 1 << 20

func (a *app) shellCommand() *cobra.Command {
	return &cobra.Command{
		Use: "shell", Short: "Type commands interactively", GroupID: groupClient,
		Long: `Reads commands line by line and runs each: those that ask servers, and those that break servers.
On a terminal, you can edit the line, use the arrow keys for the history and the tab key for completion. ^C cancels the line
or the running command, and ^D ends the shell. The last lines are saved for the next shell, in the file raftsteps/history
below $XDG_STATE_HOME (default ~/.local/state), which only you can read. A line that begins with a blank is not saved.
From a pipe, a line that fails does not end the shell; its exit code is that of the last line that failed.

Quotes make one word of several: put greeting "hello world". A # begins a comment.`,
		Args: a.takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.shell(cmd) },
	}
}

// shell is one run of the shell.
type shell struct {
	app *app

	// flags are the flags of the shell; each line begins with them.
	flags []string

	// failed is the exit code of the last line that failed.
	failed int

	// terminal is the terminal of the shell; nil for a pipe.
	terminal *term.Terminal
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
	lines, failed := scan(reading, s.app.stdin, maxShellLine)
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
		switch {
		case ctx.Err() != nil && s.failed == exitInterrupted:
			return exitError(exitInterrupted) // the line has reported it
		case ctx.Err() != nil:
			return errInterrupted
		}
	}
	if s.failed != exitDone {
		return exitError(s.failed)
	}
	return nil
}

// scan reads lines of at most longest bytes until ctx ends. After the last line
// it sends an error or nil. A blocked read cannot be stopped: its goroutine stays
// until its input ends.
func scan(ctx context.Context, in io.Reader, longest int) (lines chan string, failed chan error) {
	lines, failed = make(chan string), make(chan error, 1)
	go func() {
		s := bufio.NewScanner(in)
		s.Buffer(nil, longest+1)
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

// line runs one line and reports whether it ends the shell.
func (s *shell) line(ctx context.Context, text string) (end bool) {
	words, err := splitWords(text)
	switch {
	case err != nil:
		inner := &app{stage: s.app.stage, inShell: true, stderr: s.app.stderr}
		if s.app.json != nil {
			inner.json = &jsonOutput{Writer: s.app.stdout}
		}
		inner.reportError(usagef("%v", err))
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

// interact runs the shell on a terminal.
func (s *shell) interact(ctx context.Context, in *os.File) error {
	fmt.Fprintf(s.app.stderr, "help lists the commands, ^D ends the shell\n")
	keys := &keyboard{in: in}
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys, s.app.stderr}, "> ")
	terminal.History = s.history()
	terminal.AutoCompleteCallback = s.complete
	s.terminal = terminal
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

// history opens the history, and warns if it cannot be saved.
func (s *shell) history() *history {
	path, err := historyPath()
	h := &history{}
	if err == nil {
		h, err = openHistory(path)
	}
	if err != nil {
		fmt.Fprintf(s.app.stderr, "the history will not be saved: %s\n", oneLine(err.Error()))
	}
	return h
}

// readLine reads one line with editing. The terminal is raw only during this
// time, so that ^C can end a command.
func (s *shell) readLine(ctx context.Context, in *os.File, terminal *term.Terminal) (string, error) {
	fd := int(in.Fd())
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		// A terminal that does not know its size reports 0.
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
	// A read from a terminal cannot be stopped. After the end of ctx, the
	// goroutine stays until the process ends, which is soon.
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

// complete completes the word before the cursor on the tab key: commands and
// their arguments. If several words are possible, it adds their common prefix,
// or lists them if there is none to add.
func (s *shell) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	words, word, ok := lastWord(line[:pos])
	if !ok {
		return "", 0, false
	}
	found := s.completions(words, word)
	if len(found) == 0 {
		return "", 0, false
	}
	whole := commonPrefix(found)
	if len(found) == 1 {
		whole += " "
	}
	if whole == word && s.terminal != nil {
		fmt.Fprintf(s.terminal, "%s\n", strings.Join(found, "  "))
	}
	head := line[:pos-len(word)] + whole
	return head + line[pos:], len(head), true
}

// lastWord splits a line into its last word, which is empty after a blank, and
// the words before it. A word with quotes is not completed.
func lastWord(line string) (words []string, word string, ok bool) {
	words, err := splitWords(line)
	if err != nil || strings.HasPrefix(strings.TrimSpace(line), "#") {
		return nil, "", false
	}
	if line == "" || strings.HasSuffix(line, " ") {
		return words, "", true
	}
	if len(words) == 0 {
		return nil, "", false
	}
	words, word = words[:len(words)-1], words[len(words)-1]
	return words, word, strings.HasSuffix(line, word) && !strings.ContainsAny(word, `'"\`)
}

// completions returns the completions of a word after other words.
func (s *shell) completions(words []string, word string) []string {
	var out strings.Builder
	inner := &app{stage: s.app.stage, inShell: true, stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard}
	inner.run(context.Background(), slices.Concat([]string{"__complete"}, s.flags, words, []string{word}))
	var found []string
	for text := range strings.Lines(out.String()) {
		// The last line is a number for the completion scripts of system
		// shells.
		name, _, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\t")
		if strings.HasPrefix(name, word) && !strings.HasPrefix(name, ":") && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, end := range []string{"exit", "quit"} {
		if len(words) == 0 && word != "" && strings.HasPrefix(end, word) {
			found = append(found, end)
		}
	}
	return found
}

// commonPrefix returns the longest common prefix of words.
func commonPrefix(words []string) string {
	prefix := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, prefix) {
			_, size := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-size]
		}
	}
	return prefix
}

// keyboard is a terminal's input that translates ^C into keys that empty the
// line: go to its end, erase it, enter.
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
			switch c {
			case ctrlC:
				k.rest = append(k.rest, emptyLine...)
			case '\n':
				// The line was typed while the previous command ran: the terminal
				// was not raw, and turned the Enter key into a line feed.
				k.rest = append(k.rest, '\r')
			default:
				k.rest = append(k.rest, c)
			}
		}
	}
	n := copy(b, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}
