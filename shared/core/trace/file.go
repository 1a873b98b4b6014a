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

// MaxLine is the longest line of a trace file: a message of the wire (1 MiB) with
// every byte escaped, and some space for the rest.
const MaxLine = 8 << 20

// AppendJSON appends the event to b as one line of JSON, without the newline, as
// in a trace file. Times are nanoseconds.
func (e Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"at":`...)
	b = strconv.AppendInt(b, int64(e.At), 10)
	b = strict.AppendNumber(b, "step", e.Step)
	return append(e.AppendFields(b), '}')
}

// AppendFields appends the fields of the event to an object that has been opened:
// all but its time and its step.
func (e Event) AppendFields(b []byte) []byte {
	b = strict.AppendNumber(b, "node", e.Node)
	b = strict.AppendString(strict.AppendName(b, "kind"), e.Kind)
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
	if e.State != "" {
		b = append(strict.AppendName(b, "state"), e.State...)
	}
	if o := e.Origin; o != nil {
		b = append(b, `,"origin":{"stage":`...)
		b = strict.AppendString(b, o.Stage)
		b = append(b, `,"cluster":`...)
		b = strict.AppendString(b, o.Cluster)
		b = strconv.AppendInt(append(b, `,"began":`...), o.Began, 10)
		b = append(b, '}')
	}
	return b
}

// Writer writes a trace file: one event per line, as JSON. Its Emit is a Sink,
// and like every Sink it is called by one goroutine at a time. It writes whole
// lines, so that a reader, or another writer of the same file, never meets half a
// line of a process that was stopped.
type Writer struct {
	w     io.Writer
	lines []byte
	err   error
}

// room is how many bytes of lines are gathered before they are written.
const room = 16 << 10

// NewWriter returns a Writer that writes to w. Call Flush at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Emit writes one event. An error is kept for Flush; nothing is written after
// it.
func (w *Writer) Emit(e Event) {
	if w.err != nil {
		return
	}
	w.lines = append(e.AppendJSON(w.lines), '\n')
	if len(w.lines) > room {
		w.write()
	}
}

func (w *Writer) write() {
	if _, w.err = w.w.Write(w.lines); cap(w.lines) > 64*room {
		w.lines = nil
	}
	w.lines = w.lines[:0]
}

// Flush writes the gathered events and returns the first error there was.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.lines) > 0 {
		w.write()
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
	lines.Buffer(nil, MaxLine)
	n := 0
	for lines.Scan() {
		n++
		e, err := Decode(lines.Bytes())
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

// Decode reads one line of a trace file.
func Decode(line []byte) (Event, error) {
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
