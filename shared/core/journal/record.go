package journal

import (
	"bytes"
	"fmt"
	"strconv"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

// version is the version of the format.
const version = 1

// Entry is one entry of the log.
type Entry struct {
	// Index is the entry's index in the log; the first is 1.
	Index uint64

	// Term is the term of the leader that created the entry; the first term is 1.
	Term uint64

	// Kind says what the entry is for; "" is a command.
	Kind string

	// Command is a JSON value, written without tabs and line breaks, or nil if
	// there is none. It is nested at most strict.MaxDepth-2 deep.
	Command []byte

	// JSON is the whole entry as text, from AppendJSON or DecodeEntry. With it,
	// an entry that goes into the journal and to several servers is encoded only
	// once. nil means that the text is not known.
	JSON []byte
}

// AppendJSON appends the entry to b as a JSON object on one line:
//
//	{"index":7,"term":4,"command":{"op":"put","key":"x","value":"1"}}
//
// An entry with a kind has the field "kind" after the term. An entry without a
// command lacks the field "command".
func (e Entry) AppendJSON(b []byte) []byte {
	if e.JSON != nil {
		return append(b, e.JSON...)
	}
	b = append(b, `{"index":`...)
	b = strconv.AppendUint(b, e.Index, 10)
	b = append(b, `,"term":`...)
	b = strconv.AppendUint(b, e.Term, 10)
	if e.Kind != "" {
		b = append(b, `,"kind":`...)
		b = strict.AppendString(b, e.Kind)
	}
	if e.Command != nil {
		b = append(b, `,"command":`...)
		b = append(b, e.Command...)
	}
	return append(b, '}')
}

// DecodeEntry reads an entry that AppendJSON wrote. Its Command and JSON are
// parts of the text that d reads. d keeps the error, if any.
func DecodeEntry(d *strict.Decoder) Entry {
	var e Entry
	text := d.ObjectText(func(field []byte) {
		switch string(field) {
		case "index":
			e.Index = d.Uint()
		case "term":
			e.Term = d.Uint()
		case "kind":
			e.Kind = d.String()
		case "command":
			e.Command = clip(d.Raw())
		default:
			d.Unknown()
		}
	})
	e.JSON = clip(text)
	if e.Index == 0 || e.Term == 0 {
		d.Fail("an entry needs an index and a term, each 1 or more")
	}
	if err := e.check(); err != nil {
		d.Fail("%v", err)
	}
	return e
}

// clip returns b without spare capacity, so that an append cannot overwrite what
// follows it.
func clip(b []byte) []byte { return b[:len(b):len(b)] }

// check refuses an entry with a line break, which would split the line, or with a
// tab, which could look like a missing part. JSON allows these only between two
// tokens.
func (e Entry) check() error {
	text := e.JSON
	if text == nil {
		text = e.Command
	}
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\t') >= 0 {
		return fmt.Errorf("the JSON of entry %d contains a tab or a line break", e.Index)
	}
	return nil
}

// begin appends the first part of a line: space for the checksum, and the
// beginning of the record.
func begin(b []byte, record string) []byte {
	b = append(b, "         {"...)
	return append(append(b, '"'), record...)
}

// end appends the last part of the line that began at start, and sets its
// checksum.
func end(b []byte, start int, synced int64) []byte {
	b = append(b, `,"synced":`...)
	b = strconv.AppendInt(b, synced, 10)
	b = append(b, '}')
	crcline.Seal(b[start:])
	return append(b, '\n')
}

func appendHeader(b []byte, h Header, lines int, rewrites uint64) []byte {
	start := len(b)
	b = begin(b, `journal":{"version":`)
	b = strconv.AppendInt(b, version, 10)
	b = append(b, `,"stage":`...)
	b = strict.AppendString(b, h.Stage)
	b = append(b, `,"cluster":`...)
	b = strict.AppendString(b, h.Cluster)
	b = append(b, `,"id":`...)
	b = strconv.AppendUint(b, h.ID, 10)
	if h.Incarnation != 0 {
		b = append(b, `,"incarnation":"`...)
		b = append(b, h.Incarnation.String()...)
		b = append(b, '"')
	}
	b = append(b, `,"lines":`...)
	b = strconv.AppendInt(b, int64(lines), 10)
	if rewrites != 0 {
		b = append(b, `,"rewrites":`...)
		b = strconv.AppendUint(b, rewrites, 10)
	}
	b = append(b, '}')
	return end(b, start, 0)
}

func appendState(b []byte, s State, synced int64) []byte {
	start := len(b)
	b = begin(b, `state":{"term":`)
	b = strconv.AppendUint(b, s.Term, 10)
	if s.Vote != 0 {
		b = append(b, `,"vote":`...)
		b = strconv.AppendUint(b, s.Vote, 10)
	}
	b = append(b, '}')
	return end(b, start, synced)
}

func appendBase(b []byte, base Base, synced int64) []byte {
	start := len(b)
	b = begin(b, `base":{"index":`)
	b = strconv.AppendUint(b, base.Index, 10)
	b = append(b, `,"term":`...)
	b = strconv.AppendUint(b, base.Term, 10)
	if base.Config != "" {
		b = append(b, `,"config":`...)
		b = append(b, base.Config...)
	}
	b = append(b, '}')
	return end(b, start, synced)
}

func appendEntry(b []byte, e Entry, synced int64) []byte {
	start := len(b)
	b = begin(b, `entry":`)
	b = e.AppendJSON(b)
	return end(b, start, synced)
}

func appendTruncate(b []byte, from uint64, synced int64) []byte {
	start := len(b)
	b = begin(b, `truncate":{"from":`)
	b = strconv.AppendUint(b, from, 10)
	b = append(b, '}')
	return end(b, start, synced)
}

// tabs is a piece of the tabs that are written in advance.
var tabs = bytes.Repeat([]byte{'\t'}, minStep)

// appendBlank appends n tabs.
func appendBlank(b []byte, n int) []byte {
	for n > len(tabs) {
		b = append(b, tabs...)
		n -= len(tabs)
	}
	return append(b, tabs[:n]...)
}

// record is one decoded line.
type record struct {
	// kind is the name of the field that contains the record.
	kind string

	header   Header
	version  uint64
	lines    uint64
	rewrites uint64
	state    State
	base     Base
	entry    Entry
	truncate uint64

	// synced is the offset at which the round of the line began.
	synced uint64
}

// decode reads the JSON of a line.
func (r *record) decode(text []byte) error {
	*r = record{}
	d := strict.NewDecoder(text)
	hasSynced := false
	d.Object(func(field []byte) {
		switch {
		case string(field) == "synced":
			r.synced, hasSynced = d.Uint(), true
		case r.kind != "":
			d.Unknown()
		default:
			r.decodeKind(&d, field)
		}
	})
	if err := d.End(); err != nil {
		return err
	}
	if r.kind == "" || !hasSynced {
		return fmt.Errorf("the record has no content or no field %q", "synced")
	}
	return nil
}

func (r *record) decodeKind(d *strict.Decoder, field []byte) {
	switch string(field) {
	case "entry":
		r.kind = "entry"
		r.entry = DecodeEntry(d)
	case "state":
		r.kind = "state"
		numbers(d, "term", &r.state.Term, "vote", &r.state.Vote)
	case "truncate":
		r.kind = "truncate"
		numbers(d, "from", &r.truncate, "", nil)
	case "base":
		r.kind = "base"
		r.decodeBase(d)
	case "journal":
		r.kind = "journal"
		r.decodeHeader(d)
	default:
		d.Unknown()
	}
}

func (r *record) decodeBase(d *strict.Decoder) {
	hasIndex := false
	d.Object(func(field []byte) {
		switch string(field) {
		case "index":
			r.base.Index, hasIndex = d.Uint(), true
		case "term":
			r.base.Term = d.Uint()
		case "config":
			r.base.Config = string(d.Raw())
		default:
			d.Unknown()
		}
	})
	if !hasIndex {
		d.Fail("the field %q is missing", "index")
	}
}

func (r *record) decodeHeader(d *strict.Decoder) {
	d.Object(func(field []byte) {
		switch string(field) {
		case "version":
			if r.version = d.Uint(); r.version != version && !d.Failed() {
				d.Fail("the journal has version %d, and this program knows only version %d", r.version, version)
			}
		case "stage":
			r.header.Stage = d.String()
		case "cluster":
			r.header.Cluster = d.String()
		case "id":
			r.header.ID = d.Uint()
		case "incarnation":
			i, err := disk.ParseIncarnation(d.Bytes())
			if r.header.Incarnation = i; err != nil {
				d.Fail("%v", err)
			}
		case "lines":
			r.lines = d.Uint()
		case "rewrites":
			r.rewrites = d.Uint()
		default:
			d.Unknown()
		}
	})
	if r.version == 0 || r.lines == 0 {
		d.Fail("a journal needs a version and a number of lines")
	}
}

// numbers reads an object that has the field a and may have the field b.
func numbers(d *strict.Decoder, a string, x *uint64, b string, y *uint64) {
	has := false
	d.Object(func(field []byte) {
		switch {
		case string(field) == a:
			*x, has = d.Uint(), true
		case string(field) == b && y != nil:
			*y = d.Uint()
		default:
			d.Unknown()
		}
	})
	if !has {
		d.Fail("the field %q is missing", a)
	}
}
