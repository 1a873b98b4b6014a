package disk

import (
	"cmp"
	"os"
	"syscall"
)

// syncData waits until a file's content, and its size if that has changed, are on
// the disk. fsync would also write the time of the last change, which nothing
// here needs.
func syncData(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for failed = syscall.EINTR; failed == syscall.EINTR; {
			failed = syscall.Fdatasync(int(fd))
		}
	})
	return cmp.Or(err, os.NewSyscallError("fdatasync", failed))
}

// nameless reports whether a file has no name any longer.
func nameless(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	return ok && is.Nlink == 0
}
