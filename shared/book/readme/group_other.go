//go:build !unix

package readme

import "syscall"

// Elsewhere there are no such groups, and Test skips.
func ownGroup() *syscall.SysProcAttr { return nil }

type groupSignal int

const (
	interruptGroup groupSignal = iota
	terminateGroup
	continueGroup
	killGroup
)

func signalGroup(int, groupSignal) {}
