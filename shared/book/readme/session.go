package readme

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// driver is the script of a terminal's shell: it reads the names of scripts and
// of their inputs, and sources each script, so that variables and $? are kept
// for the next one. ^C goes to the running program, not to the shell.
const driver = `trap : INT
status=0
while IFS= read -r readme_script <&3 && IFS= read -r readme_input <&3; do
	(exit "$status")
	. "$readme_script" <"$readme_input" 3<&-
	status=$?
	printf '\036%s %s\036\n' "$readme_mark" "$status"
done
`

// session is a terminal: a shell that runs one command after the other.
type session struct {
	// name is the terminal's; "" for the one of the blocks that name none.
	name string

	cmd *exec.Cmd

	// mark marks the end of a command in the output.
	mark string

	// control is the pipe from which the shell reads its commands.
	control io.WriteCloser

	// inputs are the write ends of the inputs of the commands with typed input,
	// in order; used is the number of those in use.
	inputs []*os.File
	used   int

	// scripts is the folder for scripts; count is their number.
	scripts string
	count   int

	mu sync.Mutex

	// out is the output since the present command began that was not taken yet.
	out []byte

	// gone is true once the shell and all its processes have ended.
	gone bool

	// changed receives a value when out or gone changes.
	changed chan struct{}
}

// newSession starts a shell. talks is the number of commands with typed input.
func newSession(w *world, shell string, env []string, name string, talks int) (*session, error) {
	s := &session{name: name, mark: rand.Text(), changed: make(chan struct{}, 1)}
	var err error
	if s.scripts, err = os.MkdirTemp(w.dir, "terminal-"); err != nil {
		return nil, err
	}
	output, outputEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer outputEnd.Close()
	command, dir, err := w.enter(name)
	if err != nil {
		return nil, err
	}
	command = append(command, shell, "-c", driver)
	s.cmd = exec.Command(command[0], command[1:]...)
	s.cmd.Dir = dir
	s.cmd.Env = append(env, "readme_mark="+s.mark)
	s.cmd.Stdout, s.cmd.Stderr = outputEnd, outputEnd
	s.cmd.SysProcAttr = ownGroup()
	for i := range 1 + talks {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, r)
		if i == 0 {
			s.control = w
		} else {
			s.inputs = append(s.inputs, w)
		}
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", shell, err)
	}
	go s.read(output)
	return s, nil
}

// read collects output until all writers have ended.
func (s *session) read(output io.ReadCloser) {
	defer output.Close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := output.Read(buffer)
		s.mu.Lock()
		s.out = append(s.out, buffer[:n]...)
		s.gone = s.gone || err != nil
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// start runs a command.
func (s *session) start(text string, talks bool) error {
	s.count++
	script := filepath.Join(s.scripts, strconv.Itoa(s.count))
	if err := os.WriteFile(script, []byte(text+"\n"), 0o644); err != nil {
		return err
	}
	input := os.DevNull
	if talks {
		// The shell's descriptors are 3 for control and then the inputs.
		input = fmt.Sprintf("/dev/fd/%d", 4+s.used)
		s.used++
	}
	_, err := fmt.Fprintf(s.control, "%s\n%s\n", script, input)
	return err
}

// enter types a line into the present command.
func (s *session) enter(line string) error {
	_, err := io.WriteString(s.inputs[s.used-1], line+"\n")
	return err
}

// endInput presses ^D.
func (s *session) endInput() error { return s.inputs[s.used-1].Close() }

// output is the state of the present command: the complete lines that were not
// taken yet, and its exit code once it has ended.
type output struct {
	lines []string

	// ended is true if no more output will follow.
	ended bool

	// status is the exit code, or -1 if the shell itself has ended.
	status int
}

// look returns what the present command has printed.
func (s *session) look() output {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, o := s.out, output{}
	if i := bytes.Index(text, []byte("\036"+s.mark+" ")); i >= 0 {
		rest := text[i+len(s.mark)+2:]
		if code, _, ok := bytes.Cut(rest, []byte("\036\n")); ok {
			o.ended = true
			o.status, _ = strconv.Atoi(string(code))
		}
		text = text[:i]
	} else if s.gone {
		o.ended, o.status = true, -1
	}
	o.lines = split(string(text), o.ended)
	return o
}

// split splits a text into lines; a last line without a newline counts if the
// text has ended.
func split(text string, ended bool) []string {
	text, complete := strings.CutSuffix(text, "\n")
	if text == "" && !complete {
		return nil
	}
	lines := strings.Split(text, "\n")
	if !complete && !ended {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// take removes compared lines of the present command.
func (s *session) take(lines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range lines {
		i := bytes.IndexByte(s.out, '\n')
		if mark := bytes.IndexByte(s.out, '\036'); mark >= 0 && (i < 0 || mark < i) {
			// A last line without a newline.
			s.out = s.out[mark:]
			return
		}
		if i < 0 {
			s.out = nil
			return
		}
		s.out = s.out[i+1:]
	}
}

// next prepares for the next command. Output that was not taken stays.
func (s *session) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, rest, _ := bytes.Cut(s.out, []byte("\036"+s.mark+" "))
	_, after, _ := bytes.Cut(rest, []byte("\036\n"))
	if len(before) > 0 && !bytes.HasSuffix(before, []byte("\n")) {
		before = append(before, '\n')
	}
	s.out = slices.Concat(before, after)
}

// wait waits until ready returns true for the output of the present command,
// the command has ended, or the time is up. It returns the output.
func (s *session) wait(most time.Duration, ready func(output) bool) output {
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	for {
		o := s.look()
		if o.ended || ready(o) {
			return o
		}
		select {
		case <-s.changed:
		case <-timeout.C:
			return s.look()
		}
	}
}

// close ends the shell and its processes: with ^C if a command is still
// running, otherwise by closing its input, and by SIGKILL if that fails.
// closing is how long each step may take. An error means that SIGKILL was
// needed.
func (s *session) close(running bool, closing time.Duration) error {
	var err error
	if running {
		signalGroup(s.cmd.Process.Pid, interruptGroup)
		if !s.wait(closing, func(output) bool { return false }).ended {
			err = fmt.Errorf("the command did not end within %v of ^C", closing)
		}
	}
	s.control.Close()
	for _, in := range s.inputs {
		in.Close()
	}
	exited := make(chan error, 1)
	go func() { exited <- s.cmd.Wait() }()
	// Processes started with & receive no ^C.
	if !s.left(time.Second) {
		signalGroup(s.cmd.Process.Pid, terminateGroup)
		// A paused process receives the signal only when it continues.
		signalGroup(s.cmd.Process.Pid, continueGroup)
		if !s.left(closing) {
			signalGroup(s.cmd.Process.Pid, killGroup)
			if !s.left(closing) {
				err = errors.Join(err, errors.New("a started process is still running"))
			}
		}
	}
	<-exited
	return err
}

// left waits until all processes have ended, and reports whether they have.
func (s *session) left(most time.Duration) bool {
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		gone := s.gone
		s.mu.Unlock()
		if gone {
			return true
		}
		select {
		case <-s.changed:
		case <-timeout.C:
			return false
		}
	}
}
