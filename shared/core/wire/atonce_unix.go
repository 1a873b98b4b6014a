//go:build unix

package wire

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// atOnce writes to a connection without ever waiting. It is for goroutines that
// must not wait for one client.
type atOnce struct {
	raw syscall.RawConn
	try func(fd uintptr) bool

	// b, n and err belong to the write that is under way.
	b   []byte
	n   int
	err error
}

// newAtOnce returns nil if the connection does not belong to the operating
// system, such as a net.Pipe.
func newAtOnce(nc net.Conn) *atOnce {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	a := &atOnce{raw: raw}
	a.try = func(fd uintptr) bool {
		a.n, a.err = syscall.Write(int(fd), a.b)
		return true
	}
	return a
}

// write writes b and returns how many bytes were written: fewer than len(b),
// without an error, if writing the rest would have to wait.
func (a *atOnce) write(b []byte) (n int, err error) {
	a.b, a.n, a.err = b, 0, nil
	err = a.raw.Write(a.try)
	a.b = nil
	if err == nil {
		err = a.err
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR), errors.Is(err, os.ErrDeadlineExceeded):
		return max(a.n, 0), nil
	default:
		return max(a.n, 0), err
	}
}
