//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package disk

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockFile opens a file and locks it until it is closed, or its process ends
// in whatever way. The file says which process that is.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder := Holder(f)
		f.Close()
		return nil, &LockedError{Path: path, Holder: holder}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	WriteHolder(f)
	return f, nil
}

func syncFolder(dir *os.File) error { return dir.Sync() }

// owner names the user that a file or folder belongs to.
func owner(path string) string {
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		return "another user"
	}
	return userName(int(s.Uid))
}
