//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package disk

import "os"

// lockFile only opens the file: there is no lock here that ends with its
// process, and one that outlives it would keep a server from coming back.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

// syncFolder does nothing: a folder cannot be synced here.
func syncFolder(*os.File) error { return nil }

// owner names the user that a file or folder belongs to.
func owner(string) string { return "another user" }
