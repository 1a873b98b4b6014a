//go:build unix && !linux

package cluster

import "syscall"

// onParentsDeath does nothing: the system resumes a stopped process group that is
// orphaned, so the server sees the end of its pipe and stops.
func onParentsDeath(*syscall.SysProcAttr) {}
