package wire

import (
	"bytes"
	"errors"
	"io"
)

// errLong says that a line is longer than its limit, errNoRoom that there is no
// memory for a long line now.
var (
	errLong   = errors.New("a line above the limit")
	errNoRoom = errors.New("no room for a long line")
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

	// buf[start:end] was read and not yet handed out; there is no newline in
	// buf[start:scanned].
	buf                 []byte
	start, scanned, end int

	// full is true if the last read filled the buffer: more was waiting.
	full bool

	// budget counts the bytes that the buffer holds above keepBuffer; took is how
	// many of them it has granted.
	budget *Budget
	took   int
}

// next returns the next complete line, without its newline and a carriage return
// before that. The line is valid until fill is called. It returns false if no
// line is complete, and errLong if a line is above the limit, complete or not.
func (l *lines) next() ([]byte, bool, error) {
	i := bytes.IndexByte(l.buf[l.scanned:l.end], '\n')
	if i < 0 {
		l.scanned = l.end
		if l.end-l.start > l.limit+1 { // one more, which may be a carriage return
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
		return nil // an error that came with bytes comes again
	}
	return err
}

func (l *lines) makeRoom() error {
	waiting := l.end - l.start
	size := max(len(l.buf), smallBuffer)
	switch {
	case waiting == size: // all of it is one half line
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
