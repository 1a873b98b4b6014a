//go:build unix

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// isolate puts a server into a process group of its own, so that ^C in the
// terminal reaches the supervisor alone, which then ends the servers in order.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	onParentsDeath(cmd.SysProcAttr)
}

// terminate asks a process to stop; one that is paused is woken for it.
func terminate(p *os.Process) {
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT)
}

// stopTime is how long the threads of a process may take to stop.
const stopTime = time.Second

// pauseProcess stops a process and waits until all its threads have stopped:
// when the signal has been sent, they may still answer a request or two. The
// parent is told, as it is of an end; should the process end in this very
// moment, nobody can tell how.
func pauseProcess(p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(stopTime); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(p.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		switch {
		case err != nil && err != syscall.EINTR:
			return err
		case err == nil && pid == p.Pid && !status.Stopped():
			return os.ErrProcessDone
		case err == nil && pid == p.Pid:
			return nil
		}
	}
	return fmt.Errorf("it has not paused after %v", stopTime)
}

func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
