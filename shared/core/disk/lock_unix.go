//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package disk

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file without waiting, until it is closed or its process ends
// for any reason. It reports whether the file is locked already. Any other
// failure is an error: the file system has no locks.
func tryLock(f *os.File) (taken bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func syncFolder(dir *os.File) error { return dir.Sync() }

// owner returns the name of the user that owns a file or folder.
func owner(path string) string {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		return "another user"
	}
	return userName(int(s.Uid))
}
