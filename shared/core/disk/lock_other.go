//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import "os"

// tryLock does nothing: there is no lock here that ends with its process, and one
// that outlives it would keep a server from coming back.
func tryLock(*os.File) (taken bool, err error) { return false, nil }

// syncFolder does nothing: a folder cannot be synced here.
func syncFolder(*os.File) error { return nil }

// owner names the user that a file or folder belongs to.
func owner(string) string { return "another user" }
