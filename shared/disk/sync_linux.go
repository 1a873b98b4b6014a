package disk

import (
	"os"
	"syscall"
)

// syncData waits until a file's content, and its size where it grew, are on
// the disk. Of the rest that fsync would write, the time of the last change,
// nothing here depends.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// nameless reports whether no name leads to a file any more.
func nameless(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	return ok && is.Nlink == 0
}
