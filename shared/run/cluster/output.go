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

// Limits of the output.
const (
	// maxLine is the longest line that is shown in one piece, in bytes.
	maxLine = 16 << 10

	// maxQueue is how many lines may wait for a terminal that is stopped with
	// ^S.
	maxQueue = 4096

	// maxSettles bounds settle: it waits at most this many times for silence.
	maxSettles = 10

	// drainTime is how long close waits for a terminal that is stopped or slow.
	drainTime = time.Second
)

// output shows the lines of all servers, with the server's name in front. It
// never blocks a server: if the terminal is too slow, lines are dropped and
// counted.
type output struct {
	w     io.Writer
	color bool

	// single is true if there is one server, whose lines need no name.
	single bool

	// width is the length of the longest name.
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

// widen makes room for the name of a new server. Only one goroutine at a time
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

// close ends run once everything was written or drainTime has passed.
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

// settle waits until no line was shown for a time of silence; it gives up after
// maxSettles waits.
func (o *output) settle(ctx context.Context, silence time.Duration) {
	for range maxSettles {
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
		text = fmt.Sprintf("%s%d lines were dropped: the terminal was too slow\n%s", o.prefix("--", bold), o.dropped, text)
	}
	select {
	case o.lines <- text:
		o.dropped = 0
	default:
		o.dropped++
	}
}

// The colors of terminals.
const (
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// serverColors distinguish the servers: cyan, yellow, green, magenta, blue, and
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

// lineWriter splits the text that is written to it into lines, and a line over
// maxLine into pieces. Only one goroutine may use it.
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

// flush writes a last line that has no newline.
func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
}
