package cluster

import "syscall"

// onParentsDeath wakes a server that is paused when its supervisor dies, so
// that it sees the end of its pipe and stops. Elsewhere the system does so by
// itself in most cases: a stopped process group that is orphaned is continued.
func onParentsDeath(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGCONT }
