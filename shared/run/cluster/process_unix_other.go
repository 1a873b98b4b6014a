//go:build unix && !linux

package cluster

import "syscall"

// onParentsDeath does nothing: a stopped process group that is orphaned is
// continued by the system, sees the end of its pipe and stops.
func onParentsDeath(*syscall.SysProcAttr) {}
