package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"example.com/raftsteps/shared/core/node"
)

// Bounds of what is shown.
const (
	// maxLine is the longest line that is shown in one piece, in bytes.
	maxLine = 16 << 10

	// maxQueue is how many lines may wait for a terminal that does not take
	// them, because somebody holds it with ^S.
	maxQueue = 4096

	// mostSettles is how many times the time of silence settle waits at most.
	mostSettles = 10

	// drainTime is how long the end waits for such a terminal.
	drainTime = time.Second
)

// output shows the lines of all servers, each behind its name. It never blocks
// a server: lines that the terminal does not take are dropped and counted.
type output struct {
	w     io.Writer
	color bool

	// single is true if there is one server, whose lines need no name.
	single bool

	// width is how long the longest name is.
	width atomic.Int32

	mu      sync.Mutex
	lines   chan string
	dropped int
	closed  bool
	last    time.Time
	drained chan struct{}
}

func newOutput(w io.Writer, color bool, servers ...node.Member) *output {
	o := &output{w: w, color: color, lines: make(chan string, maxQueue), drained: make(chan struct{})}
	for _, m := range servers {
		o.widen(m)
	}
	return o
}

// widen makes room for the name of one more server. One goroutine at a time
// may call it.
func (o *output) widen(m node.Member) {
	o.width.Store(max(o.width.Load(), int32(len(node.Name(m.ID)))))
}

// run writes the lines until close. It has a goroutine of its own.
func (o *output) run() {
	defer close(o.drained)
	for line := range o.lines {
		io.WriteString(o.w, line)
	}
}

// close ends run once everything was written, or the terminal has had its
// time.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	close(o.lines)
	o.mu.Unlock()
	select {
	case <-o.drained:
	case <-time.After(drainTime):
	}
}

// settle waits until nothing was shown for a time, but not forever.
func (o *output) settle(ctx context.Context, silence time.Duration) {
	for range mostSettles {
		o.mu.Lock()
		wait := time.Until(o.last.Add(silence))
		o.mu.Unlock()
		if wait <= 0 {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// server shows a line that a server printed.
func (o *output) server(id uint64, line string) {
	prefix := ""
	if !o.single {
		prefix = o.prefix(node.Name(id), serverColors[id%uint64(len(serverColors))])
	}
	o.put(prefix + line + "\n")
}

// say shows a line of the supervisor.
func (o *output) say(format string, args ...any) {
	o.put(o.prefix("--", bold) + fmt.Sprintf(format, args...) + "\n")
}

// plain shows text as it is.
func (o *output) plain(text string) { o.put(text) }

func (o *output) put(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.last = time.Now()
	if o.dropped > 0 {
		text = fmt.Sprintf("%s%d lines were dropped: the terminal did not take them\n%s", o.prefix("--", bold), o.dropped, text)
	}
	select {
	case o.lines <- text:
		o.dropped = 0
	default:
		o.dropped++
	}
}

// The colours of terminals.
const (
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// serverColors tell servers apart: cyan, yellow, green, magenta, blue, and
// their bright forms.
var serverColors = []string{
	"\x1b[94m", "\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[92m", "\x1b[95m",
}

func (o *output) prefix(name, color string) string {
	if !o.color {
		return fmt.Sprintf("%-*s | ", int(o.width.Load()), name)
	}
	return fmt.Sprintf("%s%-*s |%s ", color, int(o.width.Load()), name, reset)
}

// lineWriter cuts what is written to it into lines. A line over maxLine is cut
// into pieces. It is for one goroutine.
type lineWriter struct {
	emit func(line string)
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			w.add(b)
			break
		}
		w.add(b[:end])
		w.emit(string(bytes.TrimSuffix(w.rest, []byte{'\r'})))
		w.rest = w.rest[:0]
		b = b[end+1:]
	}
	return n, nil
}

func (w *lineWriter) add(b []byte) {
	w.rest = append(w.rest, b...)
	for len(w.rest) > maxLine {
		w.emit(string(w.rest[:maxLine]))
		w.rest = append(w.rest[:0], w.rest[maxLine:]...)
	}
}

// flush gives out a last line that has no end.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
}
