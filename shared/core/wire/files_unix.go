//go:build unix

package wire

import "syscall"

// openFiles returns how many files this process may open. The Go runtime has
// already raised the soft limit to the hard one.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(uint64(l.Cur), 1<<30))
}
