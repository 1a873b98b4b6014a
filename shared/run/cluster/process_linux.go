package cluster

import "syscall"

// onParentsDeath makes the system resume a paused server when its supervisor dies,
// so that the server sees the end of its pipe and stops. Other systems usually
// resume a stopped process group that is orphaned.
func onParentsDeath(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGCONT }
