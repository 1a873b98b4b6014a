//go:build unix

package cluster

import (
	"os"
	"os/exec"
	"syscall"
)

// isolate puts a server into a process group of its own, so that ^C in the
// terminal reaches the supervisor alone, which then ends the servers in order.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	onParentsDeath(cmd.SysProcAttr)
}

// terminate asks a process to stop; one that stands still is woken for it.
func terminate(p *os.Process) {
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT)
}

func pauseProcess(p *os.Process) error  { return p.Signal(syscall.SIGSTOP) }
func resumeProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
