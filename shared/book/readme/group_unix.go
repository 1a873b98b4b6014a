//go:build unix

package readme

import "syscall"

// ownGroup makes a process the head of a group, so that a signal reaches it and
// all that it starts.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// groupSignal is a signal to all of a group.
type groupSignal = syscall.Signal

// What is sent.
const (
	interruptGroup = syscall.SIGINT
	terminateGroup = syscall.SIGTERM
	continueGroup  = syscall.SIGCONT
	killGroup      = syscall.SIGKILL
)

// signalGroup sends a signal to a group. That nobody is left to get it is no
// fault.
func signalGroup(pid int, how groupSignal) { _ = syscall.Kill(-pid, how) }
