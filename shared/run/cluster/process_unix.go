//go:build unix

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// isolate puts a server into its own process group, so that ^C in the terminal
// reaches only the supervisor, which then stops the servers cleanly.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	onParentsDeath(cmd.SysProcAttr)
}

// terminate asks a process to stop, and resumes it if it is paused.
func terminate(p *os.Process) {
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT)
}

// stopTime is how long the threads of a process may take to stop.
const stopTime = time.Second

// pauseProcess stops a process and waits until all its threads have stopped:
// right after the signal they may still answer a request or two. The system
// reports the stop to the parent, as it reports an exit. If the process ends at
// this moment, its exit status is lost.
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
