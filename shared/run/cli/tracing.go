package cli

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"example.com/raftsteps/shared/core/trace"
)

// traceFlush is how long an event may wait before it is written. A killed server
// loses at most the events of this time from its trace.
const traceFlush = 20 * time.Millisecond

// createTrace opens a file for a trace. Only its owner can read it, because it
// has the clients' data. A pipe without a reader is refused, because opening it
// would block.
func createTrace(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK|flag, 0o600)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("--trace: no program reads the pipe %s; start its reader first", path)
	case err != nil:
		return nil, fmt.Errorf("--trace: %w", err)
	}
	return file, nil
}

// openTrace returns a sink that appends events to a file as lines of JSON, and
// a function to call at the end. The first line says where they come from. If path
// is empty, the sink is nil and the function does nothing.
func openTrace(path string, server uint64, origin trace.Origin) (trace.Sink, func() error, error) {
	if path == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := createTrace(path, os.O_APPEND)
	if err != nil {
		return nil, nil, err
	}
	if torn(path) {
		// A process was killed while it wrote the last line.
		if _, err := file.WriteString("\n"); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("--trace: %w", err), file.Close())
		}
	}
	t := &tracer{w: trace.NewWriter(file), begun: time.Now()}
	origin.Began = t.begun.UnixNano()
	t.emit(trace.Event{Node: server, Kind: trace.Begin, Origin: &origin})
	end := func() error {
		t.flush()
		t.mu.Lock()
		defer t.mu.Unlock()
		err := t.w.Flush()
		if closed := file.Close(); err == nil {
			err = closed
		}
		return err
	}
	return t.emit, end, nil
}

// torn reports whether a file ends in the middle of a line.
func torn(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !isRegular(path) || info.Size() == 0 {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// tracer writes a trace. It writes each event to the file within traceFlush.
type tracer struct {
	// begun is when the trace began: the times of its events count from there.
	begun time.Time

	mu    sync.Mutex
	w     *trace.Writer
	timer *time.Timer
}

func (t *tracer) emit(e trace.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.At = time.Since(t.begun)
	t.w.Emit(e)
	if t.timer == nil {
		t.timer = time.AfterFunc(traceFlush, t.flush)
	}
}

func (t *tracer) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = nil
	_ = t.w.Flush() // the error is kept and returned at the end
}
