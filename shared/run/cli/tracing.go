package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"example.com/raftsteps/shared/core/trace"
)

// traceFlush is how much of its trace, in time, a killed server may lose.
const traceFlush = 50 * time.Millisecond

// createTrace opens a file for a trace. Only its owner can read it, because it
// has the clients' data. A pipe without a reader is refused, because opening it
// would block.
func createTrace(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK|flag, 0o600)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return nil, fmt.Errorf("--trace: nobody reads the pipe %s", path)
	case err != nil:
		return nil, fmt.Errorf("--trace: %w", err)
	}
	return file, nil
}

// openTrace returns a sink that appends events to a file as lines of JSON, and
// a function to call at the end. Without a path both do nothing.
func openTrace(path string) (trace.Sink, func() error, error) {
	if path == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := createTrace(path, os.O_APPEND)
	if err != nil {
		return nil, nil, err
	}
	w := trace.NewWriter(file)
	last := time.Now()
	sink := func(e trace.Event) {
		w.Emit(e)
		if now := time.Now(); now.Sub(last) > traceFlush {
			last = now
			_ = w.Flush() // the error is kept and returned at the end
		}
	}
	end := func() error {
		err := w.Flush()
		if closed := file.Close(); err == nil {
			err = closed
		}
		return err
	}
	return sink, end, nil
}
