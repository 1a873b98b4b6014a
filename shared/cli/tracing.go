package cli

import (
	"fmt"
	"os"
	"time"

	"example.com/raftsteps/shared/trace"
)

// traceFlush is how much of a trace a server that is killed may lose.
const traceFlush = 50 * time.Millisecond

// openTrace returns a sink that adds events to a file as lines of JSON, and what
// to call when no more come. Without a path both do nothing.
func openTrace(path string) (trace.Sink, func() error, error) {
	if path == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("--trace: %w", err)
	}
	w := trace.NewWriter(file)
	last := time.Now()
	sink := func(e trace.Event) {
		w.Emit(e)
		if now := time.Now(); now.Sub(last) > traceFlush {
			last = now
			_ = w.Flush() // the error stays and comes again at the end
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
