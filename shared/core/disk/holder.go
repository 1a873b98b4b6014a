package disk

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// LockFile opens a file and locks it until it is closed, or its process ends for
// any reason. The content of the file says which process has locked it. If the
// file is locked already, the error is a *LockedError. If the file system has no
// locks, the error is a *NoLocksError.
func LockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	taken, err := tryLock(f)
	switch {
	case taken:
		err = &LockedError{Path: path, Holder: holder(f)}
	case err != nil:
		err = &NoLocksError{Path: path, Err: err}
	default:
		writeHolder(f)
		return f, nil
	}
	f.Close()
	return nil, err
}

// LockFolder locks a folder until the result is closed, or this process ends for any
// reason. It waits for another one that has locked it, but not longer than limit; then
// the error is a *LockedError. It creates no file. The lock has nothing to do with those
// of LockFile. Systems without flock, and file systems without locks, lock nothing.
func LockFolder(path string, limit time.Duration) (io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(lockAgain) {
		switch taken, _ := tryLock(f); {
		case !taken:
			return f, nil
		case time.Since(began) > limit:
			f.Close()
			return nil, &LockedError{Path: path, Holder: "another process"}
		}
	}
}

// lockAgain is how often LockFolder tries to lock.
const lockAgain = 5 * time.Millisecond

// NoLocksError says that a file cannot be locked.
type NoLocksError struct {
	Path string
	Err  error
}

func (e *NoLocksError) Error() string { return fmt.Sprintf("locking %s: %v", e.Path, e.Err) }

func (e *NoLocksError) Unwrap() error { return e.Err }

// writeHolder writes into a locked file which process has locked it, and the user
// that it runs as. Only the message of a LockedError needs this, so it may fail,
// for example on a full disk.
func writeHolder(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), userName(os.Geteuid())), 0)
	}
}

// holder describes who has locked a file: "process 12 of alice (user 1000)", or
// as much of it as is known.
func holder(f *os.File) string {
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, 200)) // a file that cannot be read names nobody
	pid, name, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	switch {
	case pid == "":
		return "another process"
	case name == "":
		return "process " + pid
	}
	return "process " + pid + " of " + name
}
