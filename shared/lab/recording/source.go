package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// source reads one trace. Its bytes come in any pieces.
type source struct {
	name string

	// server is the server whose trace it is; 0 for that of the processes. It is
	// known once begun is true.
	server uint64
	begun  bool

	// rest is the beginning of a line, and line the number of lines before it.
	rest []byte
	line int

	// bad is what is wrong with the last line. That is normal for the last line of
	// a process that was killed, and an error if anything but the next process
	// follows.
	bad error

	// began and last are the wall time of the present process's beginning, and the
	// time of its last event since then.
	began int64
	last  time.Duration

	// open is the round that is being read, queue those after it that wait to be
	// merged, the oldest first.
	open  *round
	queue []*round

	// merged is true once a round of it was merged.
	merged bool

	// ended is true if no more bytes come.
	ended bool

	// shift is what has to be added to its times, because its clock differs from
	// those of the others.
	shift int64
}

// round is what a server did between two waits for inputs. It takes all its inputs
// first, and sends later; so of two rounds one comes before the other, and never
// each before the other.
type round struct {
	source *source
	events []timed

	// begins is true if a process begins with it.
	begins bool
}

// timed is an event at a wall time. hash is that of its message.
type timed struct {
	trace.Event
	wall int64
	hash uint64
}

var seed = maphash.MakeSeed()

// at is when the round began.
func (r *round) at() int64 { return r.events[0].wall + r.source.shift }

// add reads bytes, and passes complete rounds to done.
func (s *source) add(b []byte, origin *trace.Origin) error {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		line := b[:i]
		if len(s.rest) > 0 {
			s.rest = append(s.rest, line...)
			line = s.rest
		}
		s.line++
		if err := s.read(line, origin); err != nil {
			return fmt.Errorf("%s:%d: %w", s.name, s.line, err)
		}
		s.rest = s.rest[:0]
		b = b[i+1:]
	}
	s.rest = append(s.rest, b...)
	if len(s.rest) > trace.MaxLine {
		return fmt.Errorf("%s:%d: the line is longer than %d bytes, so this is no trace", s.name, s.line+1, trace.MaxLine)
	}
	return nil
}

// read reads one line.
func (s *source) read(line []byte, origin *trace.Origin) error {
	if len(line) == 0 && s.bad != nil {
		return nil
	}
	e, err := trace.Decode(line)
	if err == nil {
		err = s.check(e, origin)
	}
	var foreign *foreignError
	switch {
	case errors.As(err, &foreign):
		return err
	case s.bad != nil && (err != nil || e.Kind != trace.Begin):
		s.line--
		return s.bad
	case err != nil && !s.begun:
		return fmt.Errorf("this is no trace of a server: %w", err)
	case err != nil:
		s.bad = err
		return nil
	}
	s.bad = nil
	if e.Kind == trace.Begin {
		origin.Cluster = e.Origin.Cluster
	}
	s.take(e)
	return nil
}

// foreignError means that a trace does not belong to the others.
type foreignError struct{ text string }

func (e *foreignError) Error() string { return e.text }

func foreign(format string, args ...any) error {
	return &foreignError{fmt.Sprintf(format, args...)}
}

// maxID is the largest number of a server that a page can count.
const maxID = 1 << 53

// check returns what is wrong with an event.
func (s *source) check(e trace.Event, origin *trace.Origin) error {
	switch {
	case e.Kind == trace.Begin && e.Origin == nil:
		return errors.New(`the beginning of a trace has no "origin"`)
	case e.Kind == trace.Begin && e.Origin.Stage != origin.Stage:
		return foreign("this is a trace of %.60q; open it with: go run ./%.60s lab", e.Origin.Stage, e.Origin.Stage)
	case e.Kind == trace.Begin && origin.Cluster != "" && e.Origin.Cluster != origin.Cluster:
		return foreign("a trace of cluster %.60q begins here, and what was read before is of cluster %.60q; open the traces of one cluster only", e.Origin.Cluster, origin.Cluster)
	case e.Kind == trace.Begin && s.begun && e.Node != s.server:
		return foreign("from here on it is a trace of another server, %s", node.Name(e.Node))
	case e.Kind == trace.Begin && (e.Origin.Began < 0 || e.Origin.Began > 1<<62):
		return errors.New("the time of the beginning is out of range")
	case e.Kind == trace.Begin:
		return nil
	case !s.begun:
		return errors.New("it does not begin with an event of the kind begin; traces of simulations are shown by their link, and servers of old versions wrote no such line")
	case e.At < s.last || e.At > 1000*24*time.Hour:
		return fmt.Errorf("the time %v comes after %v", e.At, s.last)
	case s.server != 0 && e.Node != s.server:
		return fmt.Errorf("an event of %s in the trace of %s", node.Name(e.Node), node.Name(s.server))
	case s.server == 0 && e.Kind != trace.Crash && e.Kind != trace.Pause && e.Kind != trace.Resume:
		return fmt.Errorf("a trace of the processes has no event of the kind %.40q", e.Kind)
	case max(e.Node, e.From, e.To, e.Client, e.Step) > maxID:
		return errors.New("a number is out of range")
	case e.Kind == trace.State:
		_, err := decodeState(e.State)
		return err
	}
	return nil
}

// take adds an event to the round that is being read.
func (s *source) take(e trace.Event) {
	begins := e.Kind == trace.Begin
	if begins {
		s.began, s.last = e.Origin.Began, 0
		s.server, s.begun = e.Node, true
	}
	s.last = e.At
	if s.open != nil && (begins || s.server == 0 || s.open.events[0].Step != e.Step) {
		s.close()
	}
	if s.open == nil {
		s.open = &round{source: s, begins: begins}
	}
	t := timed{Event: e, wall: s.began + int64(e.At)}
	if e.Kind == trace.Send || e.Kind == trace.Deliver || e.Kind == trace.Drop {
		t.hash = maphash.String(seed, e.Message)
	}
	s.open.events = append(s.open.events, t)
}

// close ends the round that is being read.
func (s *source) close() {
	if s.open != nil {
		s.queue = append(s.queue, s.open)
		s.open = nil
	}
}

// end says that no more bytes come. What is left of a line belongs to a process
// that was killed.
func (s *source) end() error {
	s.close()
	s.ended = true
	if !s.begun {
		return fmt.Errorf("%s: it has no line that is complete, so there is nothing to show", s.name)
	}
	return nil
}

// head is the oldest round that waits, or nil.
func (s *source) head() *round {
	if len(s.queue) == 0 {
		return nil
	}
	return s.queue[0]
}

// state is a change of a server's state, or all of it.
type state struct {
	Role     *string         `json:"role"`
	Term     *uint64         `json:"term"`
	Vote     *uint64         `json:"vote"`
	Snapshot *[2]uint64      `json:"snapshot"`
	Commit   *uint64         `json:"commit"`
	Applied  *uint64         `json:"applied"`
	Config   json.RawMessage `json:"config"`
	Votes    json.RawMessage `json:"votes"`
	Progress json.RawMessage `json:"progress"`
	Log      *stateLog       `json:"log"`
}

type stateLog struct {
	From    uint64  `json:"from"`
	Entries []entry `json:"entries"`
}

// entry is [term, "content"].
type entry struct {
	term uint64
	data string
}

func (e *entry) UnmarshalJSON(b []byte) error {
	to := []any{&e.term, &e.data}
	if err := json.Unmarshal(b, &to); err != nil {
		return err
	}
	if len(to) != 2 {
		return errors.New("an entry is a term and a content")
	}
	return nil
}

func decodeState(raw trace.Raw) (state, error) {
	var s state
	d := json.NewDecoder(bytes.NewReader([]byte(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("a state: %w", err)
	}
	var config struct{ Now, Next, Learners []uint64 }
	var votes []uint64
	var progress [][3]uint64
	for _, f := range []struct {
		raw json.RawMessage
		to  any
	}{{s.Config, &config}, {s.Votes, &votes}, {s.Progress, &progress}} {
		if f.raw != nil {
			if err := json.Unmarshal(f.raw, f.to); err != nil {
				return s, fmt.Errorf("a state: %w", err)
			}
		}
	}
	if s.Log != nil && s.Log.From == 0 {
		return s, errors.New("a state: the first index of a log is 1")
	}
	return s, nil
}
