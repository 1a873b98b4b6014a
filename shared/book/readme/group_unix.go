//go:build unix

package readme

import "syscall"

// ownGroup makes a process the leader of a process group, so that a signal
// reaches it and all processes that it starts.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// groupSignal is a signal to a process group.
type groupSignal = syscall.Signal

// What is sent.
const (
	interruptGroup = syscall.SIGINT
	terminateGroup = syscall.SIGTERM
	continueGroup  = syscall.SIGCONT
	killGroup      = syscall.SIGKILL
)

// signalGroup sends a signal to a group. It ignores the error for an empty
// group.
func signalGroup(pid int, how groupSignal) { _ = syscall.Kill(-pid, how) }
