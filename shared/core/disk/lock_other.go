//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import "os"

// tryLock does nothing: these systems have no flock, and a lock that outlives its
// process would keep a server from starting again.
func tryLock(*os.File) (taken bool, err error) { return false, nil }

// syncFolder does nothing: not every one of these systems can sync a folder.
func syncFolder(*os.File) error { return nil }

// owner returns the name of the user that owns a file or folder.
func owner(string) string { return "another user" }
