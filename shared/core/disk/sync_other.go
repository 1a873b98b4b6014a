//go:build !linux

package disk

import "os"

// syncData waits until a file's content is on the disk. On macOS this is
// F_FULLFSYNC: a plain fsync there waits only until the data has reached the
// drive's cache.
func syncData(f *os.File) error { return f.Sync() }

// nameless returns false: these systems do not tell whether a file still has a
// name, so Free frees a file in one piece.
func nameless(*os.File) bool { return false }
