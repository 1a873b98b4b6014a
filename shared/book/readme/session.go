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

// driver is what the shell of a terminal carries out: it reads the names of
// scripts and of their inputs, and runs each script in itself, so that what a
// script sets is there for the next one. $? is what the script before it left.
// ^C is for the running program, not for the shell.
const driver = `trap : INT
status=0
while IFS= read -r readme_script <&3 && IFS= read -r readme_input <&3; do
	(exit "$status")
	. "$readme_script" <"$readme_input" 3<&-
	status=$?
	printf '\036%s %s\036\n' "$readme_mark" "$status"
done
`

// session is a terminal: a shell that runs commands one after the other.
type session struct {
	// name is the terminal's; "" for the one of the blocks that name none.
	name string

	cmd *exec.Cmd

	// mark stands in the output where a command ends.
	mark string

	// control is where the shell reads what to run.
	control io.WriteCloser

	// inputs are the ends to write to of the inputs of the commands that are
	// talked to, in their order; used counts those that are in use.
	inputs []*os.File
	used   int

	// scripts is the folder for scripts, and count how many there are.
	scripts string
	count   int

	mu sync.Mutex

	// out is what was printed since the present command began and was not
	// looked at yet.
	out []byte

	// gone says that the shell and all that it started have ended.
	gone bool

	// changed is sent to when out or gone change.
	changed chan struct{}
}

// newSession starts a shell. talks is the number of commands that will be
// talked to.
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
	s.cmd = exec.Command(shell, "-c", driver)
	s.cmd.Dir = w.current()
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

// read gathers what is printed, until nobody is left who could print.
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

// output is the state of the present command: the whole lines that it printed
// and that were not taken yet, and once it has ended, its exit code.
type output struct {
	lines []string

	// ended says that no more will come.
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

// split cuts a text into lines; a last one that has no end counts if nothing can
// follow.
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

// take forgets lines of the present command that were looked at.
func (s *session) take(lines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range lines {
		i := bytes.IndexByte(s.out, '\n')
		if mark := bytes.IndexByte(s.out, '\036'); mark >= 0 && (i < 0 || mark < i) {
			// A last line without an end.
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

// next forgets that the present command has ended, so that another one can
// follow. What was printed and not taken stays.
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

// wait waits until ready says yes to what the present command has printed, or
// the command has ended, or time is up; it returns what there is then.
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

// close ends the shell and everything it started: with ^C if a command still
// runs, else by closing its input, and by force in the end. closing is how long
// each of them may take. An error says that force was needed.
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
	// What was started with & hears of no ^C.
	if !s.left(time.Second) {
		signalGroup(s.cmd.Process.Pid, terminateGroup)
		// One that is paused hears it only once it goes on.
		signalGroup(s.cmd.Process.Pid, continueGroup)
		if !s.left(closing) {
			signalGroup(s.cmd.Process.Pid, killGroup)
			if !s.left(closing) {
				err = errors.Join(err, errors.New("a process that was started still runs"))
			}
		}
	}
	<-exited
	return err
}

// left waits until everything has ended, and says whether it has.
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
