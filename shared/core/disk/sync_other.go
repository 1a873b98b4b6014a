//go:build !linux

package disk

import "os"

// syncData waits until a file's content is on the disk. On macOS this is
// F_FULLFSYNC: plain fsync there waits only for the drive's own memory.
func syncData(f *os.File) error { return f.Sync() }

// nameless would report whether a file has no name any longer. This system cannot
// tell, so files are freed in one piece.
func nameless(*os.File) bool { return false }
