//go:build !unix

package readme

import "syscall"

// Other systems have no process groups, and Test skips.
func ownGroup() *syscall.SysProcAttr { return nil }

type groupSignal int

const (
	interruptGroup groupSignal = iota
	terminateGroup
	continueGroup
	killGroup
)

func signalGroup(int, groupSignal) {}
