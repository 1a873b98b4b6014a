//go:build !unix

package wire

func openFiles() int { return 1024 }
