// Package snapshot reads and writes the file in which a server saves its state
// machine as it was at one entry of the log, so that it can discard the entries
// up to that one.
//
// A line is a record, as in the journal: a checksum (CRC-32C, eight hexadecimal
// digits), a space, and a JSON object. The first line says which cluster the
// snapshot belongs to and which entry is the last it covers; the last line says
// how many lines there are. A file without its last line is not a snapshot. The
// lines between are written by the state machine.
//
//	66ab03b1 {"snapshot":{"version":1,"stage":"06-compaction","cluster":"c1","index":118,"term":4}}
//	0f0a1b5c {"key":"x","value":"1"}
//	95f1f6a8 {"end":{"lines":3}}
//
// A file is written under another name, synced, and then renamed, so that a crash
// leaves the old one or the new one. A leader sends its file to a follower in
// chunks that end at the ends of lines; the follower checks the whole file before
// it uses any of it.
package snapshot

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

// version is the version of the format.
const version = 1

// Header says which cluster a snapshot belongs to and what it covers.
type Header struct {
	// Stage is the folder of the program, and Cluster the cluster's name.
	Stage   string
	Cluster string

	// Index and Term are those of the last entry that it covers.
	Index uint64
	Term  uint64

	// Config is what else must be known about that place: a JSON object on one
	// line, or "".
	Config string
}

// bufferSize is how many bytes are written at once, and pace how many between two
// syncs: a large amount of unsynced data would delay the syncs of others.
const (
	bufferSize = 256 << 10
	pace       = 2 << 20
)

// Writer writes one snapshot. It keeps the first error; Finish returns it.
type Writer struct {
	f     disk.File
	buf   []byte
	at    int64
	lines int
	err   error

	// synced is how many bytes of it are on the disk.
	synced int64
}

// Create begins a snapshot in a file of that name, which it empties. The name
// should not be that of a snapshot in use.
func Create(d disk.Disk, name string, h Header) (*Writer, error) {
	f, err := d.Create(name)
	if err != nil {
		return nil, fmt.Errorf("creating a snapshot: %w", err)
	}
	w := &Writer{f: f}
	w.Line(func(b []byte) []byte {
		b = append(b, `{"snapshot":{"version":`...)
		b = strconv.AppendInt(b, version, 10)
		b = append(b, `,"stage":`...)
		b = strict.AppendString(b, h.Stage)
		b = append(b, `,"cluster":`...)
		b = strict.AppendString(b, h.Cluster)
		b = append(b, `,"index":`...)
		b = strconv.AppendUint(b, h.Index, 10)
		b = append(b, `,"term":`...)
		b = strconv.AppendUint(b, h.Term, 10)
		if h.Config != "" {
			b = append(b, `,"config":`...)
			b = append(b, h.Config...)
		}
		return append(b, "}}"...)
	})
	return w, nil
}

// Line adds one line: the JSON object, without a line break, that add appends to
// b.
func (w *Writer) Line(add func(b []byte) []byte) {
	start := len(w.buf)
	w.buf = append(w.buf, "         "...)
	w.buf = add(w.buf)
	crcline.Seal(w.buf[start:])
	w.buf = append(w.buf, '\n')
	w.lines++
	if len(w.buf) >= bufferSize {
		w.write()
	}
}

func (w *Writer) write() {
	if w.err == nil {
		_, w.err = w.f.WriteAt(w.buf, w.at)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	if w.err == nil && w.at-w.synced >= pace {
		w.synced, w.err = w.at, w.f.Sync()
	}
}

// Finish writes the last line, syncs the file and closes it. After an error
// nothing of the file may be used.
func (w *Writer) Finish() error {
	w.Line(func(b []byte) []byte {
		b = append(b, `{"end":{"lines":`...)
		b = strconv.AppendInt(b, int64(w.lines)+1, 10)
		return append(b, "}}"...)
	})
	w.write()
	if w.err == nil {
		w.err = w.f.Sync()
	}
	if err := errors.Join(w.err, w.f.Close()); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	return nil
}

// CorruptError says that a file is not a whole snapshot.
type CorruptError struct {
	// File is its path, Line the number of the line where the damage was found,
	// from 1.
	File string
	Line int

	// Message says what is wrong.
	Message string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the snapshot %s is damaged in line %d: %s; keep the folder, and do not start this server again with an empty one, since it would have forgotten what it promised; the others continue without it as long as they are a majority", e.File, e.Line, e.Message)
}

// Read checks a snapshot and calls line with the JSON of each line between the
// first and the last; the text is valid during the call. It returns the header.
// Only at the end does it know that the last line is there, so the results of
// line may be used only if Read returns no error. A *CorruptError says what is
// wrong with the file.
func Read(d disk.Disk, name string, line func(text []byte) error) (Header, error) {
	f, err := d.Open(name)
	if err != nil {
		return Header{}, fmt.Errorf("opening a snapshot: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return Header{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	r := reader{name: f.Name(), in: io.NewSectionReader(f, 0, size), each: line}
	if err := r.run(); err != nil {
		return Header{}, err
	}
	return r.header, nil
}

// reader reads a file line by line.
type reader struct {
	name   string
	in     io.Reader
	each   func(text []byte) error
	header Header
	lines  int
	ended  bool
}

func (r *reader) run() error {
	buf := make([]byte, 0, bufferSize)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest := buf
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			r.lines++
			if err := r.line(rest[:i]); err != nil {
				return err
			}
			rest = rest[i+1:]
		}
		buf = buf[:copy(buf, rest)]
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("reading the snapshot %s: %w", r.name, err)
		case len(buf) > 0:
			r.lines++
			return r.damaged("the file ends in the middle of it")
		case !r.ended:
			r.lines++
			return r.damaged("the file ends before the last line")
		default:
			return nil
		}
	}
}

func (r *reader) damaged(format string, args ...any) error {
	return &CorruptError{File: r.name, Line: r.lines, Message: fmt.Sprintf(format, args...)}
}

func (r *reader) line(text []byte) error {
	json := crcline.Open(text)
	switch {
	case json == nil:
		return r.damaged("its checksum is wrong")
	case r.ended:
		return r.damaged("it follows the last line")
	case r.lines == 1:
		return r.first(json)
	case bytes.HasPrefix(json, []byte(`{"end":`)):
		return r.last(json)
	}
	if err := r.each(json); err != nil {
		return r.damaged("%v", err)
	}
	return nil
}

func (r *reader) first(json []byte) error {
	var found uint64
	d := strict.NewDecoder(json)
	d.Object(func([]byte) {
		d.Object(func(field []byte) {
			switch string(field) {
			case "version":
				found = d.Uint()
			case "stage":
				r.header.Stage = d.String()
			case "cluster":
				r.header.Cluster = d.String()
			case "index":
				r.header.Index = d.Uint()
			case "term":
				r.header.Term = d.Uint()
			case "config":
				r.header.Config = string(d.Raw())
			default:
				d.Unknown()
			}
		})
	})
	if err := d.End(); err != nil {
		return r.damaged("%v", err)
	}
	if found != version {
		return r.damaged("the snapshot has version %d, and this program knows only version %d", found, version)
	}
	return nil
}

func (r *reader) last(json []byte) error {
	var lines uint64
	d := strict.NewDecoder(json)
	d.Object(func([]byte) {
		d.Object(func(field []byte) {
			if string(field) != "lines" {
				d.Unknown()
				return
			}
			lines = d.Uint()
		})
	})
	if err := d.End(); err != nil {
		return r.damaged("%v", err)
	}
	if lines != uint64(r.lines) {
		return r.damaged("it says that there are %d lines", lines)
	}
	r.ended = true
	return nil
}

// Chunk reads from a file at an offset: whole lines of at most size bytes in
// total, or one line if it is longer. last reports whether the file ends with
// them.
func Chunk(f io.ReaderAt, length, offset int64, size int) (data []byte, last bool, err error) {
	for window := size; ; window *= 2 {
		data = make([]byte, min(int64(window), max(0, length-offset)))
		if _, err := f.ReadAt(data, offset); err != nil && !errors.Is(err, io.EOF) {
			return nil, false, fmt.Errorf("reading a chunk of the snapshot: %w", err)
		}
		end := bytes.LastIndexByte(data, '\n') + 1
		if window > size {
			end = bytes.IndexByte(data, '\n') + 1
		}
		if end > 0 || len(data) < window {
			// A file that does not end with a line break is not a snapshot, which
			// its receiver will notice.
			data = data[:cmp.Or(end, len(data))]
			return data, offset+int64(len(data)) >= length, nil
		}
	}
}
