//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import "os"

// tryLock does nothing: on these systems no lock ends with its process, and one
// that outlives it would keep a server from starting again.
func tryLock(*os.File) (taken bool, err error) { return false, nil }

// syncFolder does nothing: a folder cannot be synced here.
func syncFolder(*os.File) error { return nil }

// owner returns the name of the user that owns a file or folder.
func owner(string) string { return "another user" }
