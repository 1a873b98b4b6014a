// Package backup writes the keys of a cluster to a file, and reads such a file.
//
// A backup is the store as of one index of the log, although it is read page by page
// while clients write. Each page says at which index it was read. The changes since
// then are followed, and written behind the pages: the last change of a key decides.
//
// The file has a JSON object per line, after its checksum, so a person can read it:
//
//	1b2f44d0 {"backup":{"version":1,"stage":"07-membership","cluster":"c"}}
//	7f0c35a1 {"key":"x","value":"1"}
//	90d1b2c3 {"index":118,"key":"x","value":"2"}
//	5a6b7c8d {"end":{"index":118,"lines":4}}
//
// Without its last line it is not whole, and nothing in it is used.
package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/strict"
)

// version is the version of the file's format.
const version = 1

// maxLine is the longest line: a key and a value whose characters all need escapes.
const maxLine = 2 << 20

// Info describes a backup.
type Info struct {
	// Stage and Cluster are where it comes from.
	Stage   string
	Cluster string

	// Index is the index of the log as of which it is.
	Index uint64

	// Keys is how many keys were read: by Take, those of the pages; by Read, those
	// of the backup.
	Keys int
}

// writer writes lines after their checksums.
type writer struct {
	out   *bufio.Writer
	line  []byte
	lines uint64
}

func newWriter(out io.Writer, i Info) *writer {
	w := &writer{out: bufio.NewWriterSize(out, 1<<16)}
	w.add(func(b []byte) []byte {
		b = append(b, `{"backup":{"version":1`...)
		b = strict.AppendText(b, "stage", i.Stage)
		return append(strict.AppendText(b, "cluster", i.Cluster), "}}"...)
	})
	return w
}

// add writes a line. An error stays until end.
func (w *writer) add(text func(b []byte) []byte) {
	w.line = text(append(w.line[:0], "........ "...))
	crcline.Seal(w.line)
	w.line = append(w.line, '\n')
	_, _ = w.out.Write(w.line)
	w.lines++
}

func (w *writer) item(item kv.Item) {
	w.add(func(b []byte) []byte {
		b = strict.AppendBytes(append(b, '{'), "key", item.Key)
		return append(strict.AppendBytes(b, "value", item.Value), '}')
	})
}

func (w *writer) end(index uint64) error {
	w.add(func(b []byte) []byte { return fmt.Appendf(b, `{"end":{"index":%d,"lines":%d}}`, index, w.lines+1) })
	return w.out.Flush()
}

// Take reads the keys of a cluster and writes them to out. i says where they come
// from; Take adds the rest to it. ask carries out one request, with a timeout of its
// own.
func Take(ask func(r api.Request) (api.Response, error), out io.Writer, i Info) (Info, error) {
	w := newWriter(out, i)
	next, after := uint64(0), ""
	for more := true; more; {
		response, err := ask(api.Request{Op: api.List, After: after})
		if err != nil {
			return i, err
		}
		page, err := api.DecodeListing(response.Data)
		if err != nil {
			return i, err
		}
		if response.Index == 0 && len(page.Items) > 0 {
			return i, errors.New("the server does not say as of which entry its list is, so the backup could not be one moment; use servers that do")
		}
		if next == 0 {
			next = response.Index + 1
		}
		for _, item := range page.Items {
			w.item(item)
			after = item.Key
			i.Keys++
		}
		if next, err = follow(ask, w, next, response.Index); err != nil {
			return i, err
		}
		more = page.More
	}
	i.Index = next - 1
	return i, w.end(i.Index)
}

// maxIdle is how many answers in a row may bring nothing new. A server waits half a
// second before it gives one.
const maxIdle = 40

// follow writes the changes from an index on, at least up to another index. It
// returns the index up to which all changes are written, plus one.
func follow(ask func(r api.Request) (api.Response, error), w *writer, next, upTo uint64) (uint64, error) {
	for idle := 0; next <= upTo; {
		response, err := ask(api.Request{Op: api.Watch, From: next})
		var e *api.Error
		switch {
		case errors.As(err, &e) && e.Code == api.Compacted:
			return 0, &api.Error{Code: api.Busy, Definite: true, Message: "the keys change faster than they can be read: the servers no longer remember all changes since the backup began; try again when fewer clients write"}
		case err != nil:
			return 0, err
		}
		events, err := api.DecodeEvents(response.Data)
		if err != nil {
			return 0, err
		}
		for _, event := range events.Events {
			w.add(event.AppendJSON)
		}
		switch {
		case events.Next < next:
			return 0, errors.New("the server goes back: it answers a watch with an earlier index")
		case events.Next > next:
			idle = 0
		case idle == maxIdle:
			return 0, &api.Error{Code: api.Unavailable, Definite: true,
				Message: fmt.Sprintf("a server is behind: it has not applied entry %d, which another one has; it may be cut off", next)}
		default:
			idle++
		}
		next = events.Next
	}
	return next, nil
}

// Save writes a store to out, as of an index.
func Save(s *kv.Store, index uint64, out io.Writer, i Info) (Info, error) {
	w := newWriter(out, i)
	after := ""
	for more := true; more; {
		var items []kv.Item
		items, more = s.List(kv.Range{After: after, Limit: 1000})
		for _, item := range items {
			w.item(item)
			after = item.Key
			i.Keys++
		}
	}
	i.Index = index
	return i, w.end(index)
}

// Read reads a backup and calls f for each key, once it is known that the file is
// whole. It reads the file twice.
func Read(file io.ReadSeeker, f func(item kv.Item) error) (Info, error) {
	i, changed, err := check(file)
	if err != nil {
		return i, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return i, err
	}
	emit := func(key, value string) error {
		i.Keys++
		return f(kv.Item{Key: key, Value: value})
	}
	err = scan(file, func(_ int, r record) error {
		e, over := changed[r.Key]
		switch {
		case r.kind == event && e.Index == r.Index && !r.Deleted: // the last change of this key
			return emit(r.Key, r.Value)
		case r.kind == page && !over:
			return emit(r.Key, r.Value)
		}
		return nil
	})
	return i, err
}

// check reads the whole file. It returns the last change of each key that has
// changed.
func check(file io.Reader) (i Info, changed map[string]api.Event, err error) {
	changed = make(map[string]api.Event)
	lines, whole := 0, false
	err = scan(file, func(n int, r record) error {
		lines = n
		switch {
		case (n == 1) != (r.kind == header), whole:
			return fmt.Errorf("line %d is not in its place", n)
		case r.kind == header && r.version != version:
			return fmt.Errorf("it has version %d of the format, and this program knows version %d", r.version, version)
		case r.kind == header:
			i.Stage, i.Cluster = r.stage, r.cluster
		case r.kind == event:
			changed[r.Key] = api.Event{Index: r.Index, Deleted: r.Deleted}
		case r.kind == end && r.lines != uint64(n):
			return fmt.Errorf("it has %d lines, and was written with %d", n, r.lines)
		case r.kind == end:
			i.Index, whole = r.Index, true
		}
		return nil
	})
	switch {
	case err != nil:
		return i, nil, err
	case lines == 0:
		return i, nil, errors.New("it is empty")
	case !whole:
		return i, nil, fmt.Errorf("its end is missing: it stops after line %d, so it is not whole", lines)
	}
	return i, changed, nil
}

// The kinds of lines.
const (
	header = iota + 1
	page
	event
	end
)

// record is a line.
type record struct {
	api.Event
	kind           int
	version, lines uint64
	stage, cluster string
}

// scan calls f for each line, with its number.
func scan(file io.Reader, f func(n int, r record) error) error {
	in := bufio.NewScanner(file)
	in.Buffer(make([]byte, 0, 1<<16), maxLine)
	n := 0
	for in.Scan() {
		n++
		text := crcline.Open(in.Bytes())
		if text == nil {
			return fmt.Errorf("line %d is damaged: its checksum is wrong", n)
		}
		r, err := decode(text)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if err := f(n, r); err != nil {
			return err
		}
	}
	return in.Err()
}

func decode(text []byte) (r record, err error) {
	d := strict.NewDecoder(text)
	r.kind = page
	inside := func(kind int) {
		r.kind = kind
		d.Object(func(field []byte) {
			switch string(field) {
			case "version":
				r.version = d.Uint()
			case "stage":
				r.stage = d.String()
			case "cluster":
				r.cluster = d.String()
			case "index":
				r.Index = d.Uint()
			case "lines":
				r.lines = d.Uint()
			default:
				d.Unknown()
			}
		})
	}
	d.Object(func(field []byte) {
		switch string(field) {
		case "backup":
			inside(header)
		case "end":
			inside(end)
		case "index":
			r.kind, r.Index = event, d.Uint()
		case "key":
			r.Key = d.String()
		case "key_b64":
			r.Key = d.Base64()
		case "value":
			r.Value = d.String()
		case "value_b64":
			r.Value = d.Base64()
		case "deleted":
			r.Deleted = d.Bool()
		default:
			d.Unknown()
		}
	})
	return r, d.End()
}
