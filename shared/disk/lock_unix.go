//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lockFile opens a file and locks it until it is closed, or its process ends
// in whatever way. The file holds the process's number, for the message to the
// next one.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		text, _ := io.ReadAll(io.LimitReader(f, 20))
		f.Close()
		return nil, &LockedError{Path: path, PID: strings.TrimSpace(string(text))}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The number is a courtesy: a disk too full to take it does not matter.
	if f.Truncate(0) == nil {
		fmt.Fprintln(f, os.Getpid())
	}
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
