package trace

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"example.com/raftsteps/shared/core/strict"
)

// maxLine is the longest line of a trace file: a message of the wire (1 MiB) with
// every byte escaped, and some space for the rest.
const maxLine = 8 << 20

// AppendJSON appends the event to b as one line of JSON, without the newline, as
// in a trace file. Times are nanoseconds.
func (e Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"at":`...)
	b = strconv.AppendInt(b, int64(e.At), 10)
	b = strict.AppendNumber(b, "step", e.Step)
	b = strict.AppendNumber(b, "node", e.Node)
	b = append(b, `,"kind":`...)
	b = strict.AppendString(b, e.Kind)
	b = strict.AppendText(b, "role", e.Role)
	b = strict.AppendNumber(b, "term", e.Term)
	b = strict.AppendNumber(b, "from", e.From)
	b = strict.AppendNumber(b, "to", e.To)
	b = strict.AppendNumber(b, "number", e.Number)
	if len(e.Sides) > 0 {
		b = strict.AppendArray(b, "sides", e.Sides, func(b []byte, side []uint64) []byte {
			b = append(b, '[')
			for _, id := range side {
				b = strconv.AppendUint(strict.AppendComma(b), id, 10)
			}
			return append(b, ']')
		})
	}
	b = strict.AppendNumber(b, "client", e.Client)
	b = strict.AppendText(b, "message", e.Message)
	b = strict.AppendNumber(b, "index", e.Index)
	if r := e.Reason; r != nil {
		b = append(b, `,"reason":{"code":`...)
		b = strict.AppendString(b, r.Code)
		b = strict.AppendText(b, "section", r.Section)
		b = append(b, `,"text":`...)
		b = strict.AppendString(b, r.Text)
		b = append(b, '}')
	}
	b = strict.AppendText(b, "text", e.Text)
	return append(b, '}')
}

// Writer writes a trace file: one event per line, as JSON. Its Emit is a Sink,
// and like every Sink it is called by one goroutine at a time.
type Writer struct {
	w    *bufio.Writer
	line []byte
	err  error
}

// NewWriter returns a Writer that writes to w. Call Flush at the end.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriter(w)}
}

// Emit writes one event. An error is kept for Flush; nothing is written after
// it.
func (w *Writer) Emit(e Event) {
	if w.err != nil {
		return
	}
	w.line = append(e.AppendJSON(w.line[:0]), '\n')
	_, w.err = w.w.Write(w.line)
}

// Flush writes the buffered events and returns the first error there was.
func (w *Writer) Flush() error {
	if w.err == nil {
		w.err = w.w.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write the trace: %w", w.err)
	}
	return nil
}

// Read reads a trace file and passes its events to sink, in order. The error
// names the line that is not an event.
func Read(r io.Reader, sink Sink) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		e, err := decode(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d of the trace: %w", n, err)
		}
		sink(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d of the trace: %w", n+1, err)
	}
	return nil
}

func decode(line []byte) (Event, error) {
	var e Event
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return e, errors.New("something follows the event")
	}
	if e.Kind == "" {
		return e, errors.New(`field "kind" is missing`)
	}
	return e, nil
}

// Tee returns a sink that passes every event to each of the sinks that is not
// nil. It returns nil if there is none, so that a run without sinks costs
// nothing.
func Tee(sinks ...Sink) Sink {
	var all []Sink
	for _, s := range sinks {
		if s != nil {
			all = append(all, s)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return func(e Event) {
		for _, s := range all {
			s(e)
		}
	}
}
