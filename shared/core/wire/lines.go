package wire

import (
	"bytes"
	"errors"
	"io"
)

// errLong says that a line is longer than its limit, and errNoRoom that the
// budget has no room for a long line now.
var (
	errLong   = errors.New("a line is longer than the limit")
	errNoRoom = errors.New("there is no room for a long line")
)

// The buffer of a connection starts small, since most connections are quiet and
// there may be thousands. It grows with the data that arrives. If it grew beyond
// keepBuffer for one long line, it shrinks again.
const (
	smallBuffer = 4 << 10
	keepBuffer  = 64 << 10
)

// lines splits a stream into lines.
type lines struct {
	r     io.Reader
	limit int

	// buf[start:end] was read and not yet returned; there is no newline in
	// buf[start:scanned].
	buf                 []byte
	start, scanned, end int

	// full is true if the last read filled the buffer, so that more is probably
	// waiting.
	full bool

	// budget limits the size of the buffer beyond keepBuffer; took is how many
	// bytes it has granted.
	budget *Budget
	took   int
}

// next returns the next complete line, without the newline and without a carriage
// return before it. The line is valid until fill is called. It returns false if
// no line is complete, and errLong if a line is above the limit, complete or not.
func (l *lines) next() ([]byte, bool, error) {
	i := bytes.IndexByte(l.buf[l.scanned:l.end], '\n')
	if i < 0 {
		l.scanned = l.end
		if l.end-l.start > l.limit+1 { // + 1 for a possible carriage return
			return nil, false, errLong
		}
		return nil, false, nil
	}
	line := l.buf[l.start : l.scanned+i]
	l.start = l.scanned + i + 1
	l.scanned = l.start
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > l.limit {
		return nil, false, errLong
	}
	return line, true, nil
}

// half reports whether a line has begun and is not complete yet.
func (l *lines) half() bool { return l.end > l.start }

// fill reads once. It must be called only when next has nothing to return. It
// returns errNoRoom if the budget has nothing left for a long line.
func (l *lines) fill() error {
	if err := l.makeRoom(); err != nil {
		return err
	}
	n, err := l.r.Read(l.buf[l.end:])
	l.end += n
	l.full = l.end == len(l.buf)
	if n > 0 {
		return nil // a reader that returned an error with these bytes returns it again
	}
	return err
}

func (l *lines) makeRoom() error {
	waiting := l.end - l.start
	size := max(len(l.buf), smallBuffer)
	switch {
	case waiting == size: // the whole buffer is the beginning of one line
		size = min(2*size, max(l.limit+2, smallBuffer))
	case l.full && size < keepBuffer:
		size *= 2
	case waiting == 0 && size > keepBuffer:
		size = keepBuffer
	}
	if !l.account(size) {
		return errNoRoom
	}
	switch {
	case size != len(l.buf):
		buf := make([]byte, size)
		copy(buf, l.buf[l.start:l.end])
		l.buf = buf
	case l.start > 0:
		copy(l.buf, l.buf[l.start:l.end])
	}
	l.scanned -= l.start
	l.start, l.end = 0, waiting
	return nil
}

// account asks the budget for a buffer of this size, or returns false.
func (l *lines) account(size int) bool {
	more := max(0, size-keepBuffer) - l.took
	if more > 0 && !l.budget.Take(more) {
		return false
	}
	if more < 0 {
		l.budget.Give(-more)
	}
	l.took += more
	return true
}

// release returns to the budget what it granted, and does not use it again.
func (l *lines) release() {
	l.account(0)
	l.budget = nil
}
