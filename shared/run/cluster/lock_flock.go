//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package cluster

import (
	"os"
	"syscall"
)

// tryLock locks a file without waiting, and reports whether it could. A file
// system that has no locks counts as locked by us: the supervisor that answers
// is the lock then.
func tryLock(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return err != syscall.EWOULDBLOCK
}
