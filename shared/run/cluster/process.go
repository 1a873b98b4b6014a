package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Messages of a server to its supervisor on its standard output. All other
// output is for the user.
const (
	// Ready: the server is listening.
	Ready = "@ready"

	// Done: the server has executed one line of its standard input.
	Done = "@done"
)

// The lines of a server's standard input are these words and an ID.
const (
	// CutLine: drop all messages from and to this server.
	CutLine = "cut"

	// HealLine: no longer drop them.
	HealLine = "heal"
)

// How long to wait for a server.
const (
	// readyTime is how long a server may take to listen.
	readyTime = 15 * time.Second

	// ackTime is how long it may take to carry out a line.
	ackTime = 2 * time.Second
)

// process is one process of a server, from its start to its end.
type process struct {
	cmd *exec.Cmd

	// input is the writing end of its standard input. Closing it tells the
	// server to stop.
	input *os.File

	// ready is closed when the server listens, done when it has ended.
	ready chan struct{}
	done  chan struct{}

	// acks has an element for every executed line. owed is the number of
	// missing acks; only the caller of send uses it.
	acks chan struct{}
	owed int

	mu sync.Mutex

	// asked says how a command ended the process; "" if none did.
	asked string

	// ended says how the process ended. It is set before done is closed.
	ended string

	// last is the last line it printed.
	last string
}

// startProcess starts a server. show receives its output for the user. The
// caller must run wait in a goroutine.
func startProcess(cmd *exec.Cmd, show func(line string)) (*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := &process{
		cmd:   cmd,
		input: w,
		ready: make(chan struct{}),
		done:  make(chan struct{}),
		acks:  make(chan struct{}, 1024),
	}
	cmd.Stdin = r
	cmd.Stdout = &lineWriter{emit: p.protocol(show)}
	cmd.Stderr = &lineWriter{emit: p.remember(show)}
	cmd.WaitDelay = time.Second
	isolate(cmd)
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return p, nil
}

// protocol returns a function that handles the lines of the standard output. Only
// one goroutine may call that function.
func (p *process) protocol(show func(string)) func(string) {
	shown := p.remember(show)
	listens := false
	return func(line string) {
		switch {
		case line == Ready && !listens:
			listens = true
			close(p.ready)
		case line == Done:
			select {
			case p.acks <- struct{}{}:
			default:
			}
		default:
			shown(line)
		}
	}
}

func (p *process) remember(show func(string)) func(string) {
	return func(line string) {
		p.mu.Lock()
		p.last = line
		p.mu.Unlock()
		show(line)
	}
}

// wait returns when the process has ended and all its output was shown. It calls
// beforeDone before it closes done.
func (p *process) wait(beforeDone func()) {
	err := p.cmd.Wait()
	for _, w := range []io.Writer{p.cmd.Stdout, p.cmd.Stderr} {
		w.(*lineWriter).flush()
	}
	p.input.Close()
	p.mu.Lock()
	p.ended = "exit status 0"
	if err != nil {
		p.ended = strings.TrimPrefix(err.Error(), "signal: ")
	}
	p.mu.Unlock()
	beforeDone()
	close(p.done)
}

// ask records how a command ends the process, unless the process has already ended.
func (p *process) ask(how string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == "" && p.asked == "" {
		p.asked = how
	}
}

// state returns the state of the process.
func (p *process) state() (asked, ended, last string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked, p.ended, p.last
}

// running reports whether there is a process and it has not ended.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill kills the process and waits for its end.
func (p *process) kill(how string) {
	p.ask(how)
	p.cmd.Process.Kill()
	<-p.done
}

// requestStop asks the process for a clean stop.
func (p *process) requestStop() {
	p.ask(Stopped)
	p.input.Close()
	terminate(p.cmd.Process)
}

// stop stops the process cleanly within a bound, and kills it otherwise. It
// reports whether the stop was clean.
func (p *process) stop(bound <-chan time.Time, killNow <-chan struct{}) bool {
	select {
	case <-p.done:
		return true
	case <-bound:
	case <-killNow:
	}
	p.kill(Stopped)
	return false
}

// waitReady waits until the server listens.
func (p *process) waitReady(ctx context.Context) error {
	timeout := time.NewTimer(readyTime)
	defer timeout.Stop()
	select {
	case <-p.ready:
		return nil
	case <-p.done:
		_, ended, last := p.state()
		if last == "" {
			return fmt.Errorf("it ended with %s and printed nothing", ended)
		}
		return fmt.Errorf("it ended with %s after it printed: %s", ended, strings.TrimPrefix(last, "error: "))
	case <-timeout.C:
		return fmt.Errorf("it did not listen within %v", readyTime)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send writes lines to the server and waits until it has executed them. A
// paused server executes them when it resumes, so send does not wait. Only one
// send may run at a time.
func (p *process) send(lines []string, paused bool) error {
	p.input.SetWriteDeadline(time.Now().Add(ackTime))
	if _, err := io.WriteString(p.input, strings.Join(lines, "\n")+"\n"); err != nil {
		return fmt.Errorf("cannot write to its pipe: %w", err)
	}
	p.owed += len(lines)
	if paused {
		return nil
	}
	timeout := time.NewTimer(ackTime)
	defer timeout.Stop()
	for p.owed > 0 {
		select {
		case <-p.acks:
			p.owed--
		case <-p.done:
			return fmt.Errorf("it has ended")
		case <-timeout.C:
			return fmt.Errorf("it does not answer")
		}
	}
	return nil
}
