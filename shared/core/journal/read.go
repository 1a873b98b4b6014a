package journal

import (
	"bytes"
	"errors"
	"fmt"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
)

// CorruptError says that a journal is damaged, or that a program has written a
// wrong record. Nothing was changed.
type CorruptError struct {
	// File is the journal's path. Line is the number of the line, counted from 1,
	// and Offset is the byte at which that line begins.
	File   string
	Line   int
	Offset int

	// Problem says what is wrong there.
	Problem string

	// Sealed is true if the line's checksum is right: then a program has written
	// a wrong line, and the disk is not at fault.
	Sealed bool
}

func (e *CorruptError) Error() string {
	cause := "no crash leaves this behind, so the disk has lost or changed what it had saved: check the disk"
	if e.Sealed {
		cause = "its checksum is right, so it was written like this, by another version of this program or through an error in it"
	}
	return fmt.Sprintf("%s, line %d (at byte %d): %s; %s; nothing was changed. %s", e.File, e.Line, e.Offset, e.Problem, cause, keep)
}

// keep tells the operator what to do with a journal that was refused.
const keep = "Keep the file. Do not start this server again with an empty folder, since it would have forgotten what it promised; " +
	"the others continue without it as long as they are a majority"

// ForeignError says that a journal belongs to another server.
type ForeignError struct {
	// File is the journal's path.
	File string

	// Has says which server the journal belongs to, and Want which server tried
	// to open it.
	Has  Header
	Want Header
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s belongs to %s, and this is %s: give this server its own folder",
		e.File, e.Has, e.Want)
}

func (h Header) String() string {
	return fmt.Sprintf("server %d of cluster %q of stage %s", h.ID, h.Cluster, h.Stage)
}

// reader reads a journal from its first to its last line.
type reader struct {
	Recovered
	file string
	data []byte
	log  shape

	// want is the server that the journal must belong to, or nil.
	want *Header

	// lines counts the lines that were read; made is the number of lines with
	// which the file was created.
	lines int
	made  int

	// rewrites is how many times the journal was replaced by a new file.
	rewrites uint64

	// end is the offset after the last good line; round is where the round of
	// that line begins.
	end   int
	round int

	// noBreak is true if the last good line has no line break.
	noBreak bool
}

// readFile reads a whole journal. If want is not nil, the journal must belong to
// that server.
func readFile(f disk.File, want *Header) (*reader, error) {
	data, err := disk.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	r := &reader{file: f.Name(), data: data, want: want}
	if err := r.read(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *reader) read() error {
	r.Entries = make([]Entry, 0, bytes.Count(r.data, []byte{'\n'}))
	var rec record
	for r.end < len(r.data) {
		line, next, broken := r.line(r.end)
		if broken && len(line) == 0 {
			break
		}
		text := crcline.Open(line)
		if text == nil {
			if err := r.judge(); err != nil {
				return err
			}
			r.cut()
			break
		}
		if broken && r.lines < max(1, r.made) {
			return r.corrupt(r.end, r.lines+1, "its line break is missing, although the file was created with it")
		}
		if err := rec.decode(text); err != nil {
			return r.sealed(r.end, r.lines+1, "it cannot be read: %v", err)
		}
		if err := r.apply(&rec); err != nil {
			return err
		}
		r.lines++
		r.end, r.noBreak = next, broken
	}
	if r.lines < max(1, r.made) {
		return r.corrupt(r.end, r.lines+1, "the file ends here, but it was created with %d lines or more", max(1, r.made))
	}
	return nil
}

// line returns the line that begins at off, and where the next line begins. A
// last line without a line break is broken; tabs and zeros after it are not part
// of it.
func (r *reader) line(off int) (line []byte, next int, broken bool) {
	rest := r.data[off:]
	if n := bytes.IndexByte(rest, '\n'); n >= 0 {
		return rest[:n], off + n + 1, false
	}
	line = bytes.TrimRight(rest, "\t\x00")
	return line, off + len(line), true
}

// apply applies a record to what was read so far.
func (r *reader) apply(rec *record) error {
	synced := int(rec.synced)
	if synced != r.end && !r.continues(synced) {
		return r.sealed(r.end, r.lines+1, "it says that its round began at byte %d, but no round began there", synced)
	}
	if (rec.kind == "journal") != (r.lines == 0) {
		return r.sealed(r.end, r.lines+1, "the record %q is not allowed in this line", rec.kind)
	}
	if rec.kind == "journal" {
		return r.begin(rec)
	}
	r.round = synced
	var err error
	switch rec.kind {
	case "state":
		err = r.State.before(rec.state)
		r.State = rec.state
	case "base":
		if err = r.Base.before(rec.base, r.State); err == nil && (r.lines >= r.made || len(r.Entries) > 0) {
			err = errors.New("a base must come before the entries that the file was created with")
		}
		r.Base = rec.base
		r.log = shape{base: rec.base, last: rec.base.Index}
	case "entry":
		err = r.log.append(rec.entry, r.State)
		r.Entries = append(r.Entries, rec.entry)
	case "truncate":
		if err = r.log.truncate(rec.truncate); err == nil {
			r.Entries = r.Entries[:rec.truncate-r.Base.Index-1]
		}
	}
	if err != nil {
		return r.sealed(r.end, r.lines+1, "it does not fit what is before it: %v", err)
	}
	return nil
}

// continues reports whether a line whose round began at byte synced can be of the
// same round as the last good line. The lines with which the file was created are
// a round of their own that is known to be complete.
func (r *reader) continues(synced int) bool {
	return synced == r.round && r.lines > 0 && r.lines != r.made
}

// begin applies the first line.
func (r *reader) begin(rec *record) error {
	r.Header = rec.header
	if r.want != nil && r.Header.owner() != r.want.owner() {
		return &ForeignError{File: r.file, Has: r.Header, Want: *r.want}
	}
	if rec.lines > uint64(len(r.data)) {
		return r.sealed(0, 1, "it says that the file was created with %d lines, which is more than it has bytes", rec.lines)
	}
	r.made, r.rewrites = int(rec.lines), rec.rewrites
	return nil
}

func (r *reader) corrupt(off, line int, format string, args ...any) error {
	return &CorruptError{File: r.file, Line: line, Offset: off, Problem: fmt.Sprintf(format, args...)}
}

func (r *reader) sealed(off, line int, format string, args ...any) error {
	return &CorruptError{File: r.file, Line: line, Offset: off, Problem: fmt.Sprintf(format, args...), Sealed: true}
}

// judge decides about the line at r.end, whose checksum is wrong: it returns nil
// if a crash can have left this line and everything after it, else an error. The
// package comment explains the rules.
func (r *reader) judge() error {
	if r.lines < r.made || r.lines == 0 {
		return r.corrupt(r.end, r.lines+1, "its checksum is wrong, and the file was created with this line")
	}
	number := r.lines
	for off := r.end; off < len(r.data); {
		number++
		line, next, broken := r.line(off)
		if broken && len(line) == 0 {
			return nil
		}
		if text := crcline.Open(line); text != nil {
			if err := r.judgeWhole(text, off, number); err != nil {
				return err
			}
		} else if !r.missing(off, next) && !(broken && torn(line)) {
			return r.corrupt(off, number, "its checksum is wrong, and nothing of it is missing")
		}
		off = next
	}
	return nil
}

// judgeWhole returns nil if a whole line after a bad one is of the same round,
// else an error.
func (r *reader) judgeWhole(text []byte, off, number int) error {
	var rec record
	if err := rec.decode(text); err != nil {
		return r.sealed(off, number, "it cannot be read: %v", err)
	}
	switch synced := int(rec.synced); {
	case synced == r.end || r.continues(synced):
		return nil
	case synced > r.end && synced <= off:
		return r.corrupt(r.end, r.lines+1, "its checksum is wrong, but line %d is whole and was written when everything before byte %d was on the disk", number, synced)
	default:
		return r.sealed(off, number, "it says that its round began at byte %d, but no round began there", synced)
	}
}

// missing reports whether one of the sectors from off to next looks as if it was
// not written. In the sector where the bad line begins, the part before the line
// is ignored: it may be of an earlier round.
func (r *reader) missing(off, next int) bool {
	for at := off / disk.SectorSize * disk.SectorSize; at < next; at += disk.SectorSize {
		from, to := max(at, r.end), min(at+disk.SectorSize, len(r.data))
		if isBlank(r.data[from:to]) {
			return true
		}
	}
	return false
}

// torn reports whether the last text of the file, before tabs and zeros, can be
// the first part of a line.
func torn(line []byte) bool {
	// A whole line with a wrong byte in place of its line break is not a part.
	return bytes.IndexAny(line, "\t\x00") < 0 && crcline.Open(line[:len(line)-1]) == nil
}

func isBlank(b []byte) bool {
	return len(bytes.Trim(b, "\t\x00")) == 0
}

// cut records what a crash has left after r.end.
func (r *reader) cut() {
	r.TornLine = r.lines + 1
	r.TornBytes = len(bytes.TrimRight(r.data[r.end:], "\t\x00"))
	r.Torn = fmt.Sprintf("%s: cut off the last %d bytes, from line %d on: a crash had left them incomplete, and the server had not reported them as saved",
		r.file, r.TornBytes, r.TornLine)
}

// length returns how much of the journal is there. A line that is complete except
// for its line break counts.
func (r *reader) length() length {
	l := length{r.rewrites, uint64(r.end)}
	if r.noBreak {
		l.bytes++
	}
	return l
}

// repair removes everything from the file that was not read as a record, and
// makes sure that the rest is on the disk.
func (r *reader) repair(d disk.Disk, f disk.File, name string) error {
	// A crash in disk.Replace may have left this file.
	_ = d.Remove(name + disk.Aside)
	blank := len(r.data) > r.end
	text := r.data[r.round:r.end]
	if r.noBreak {
		text = append(clip(text), '\n')
		r.end++
	}
	if r.round > 0 {
		if _, err := f.WriteAt(text, int64(r.round)); err != nil {
			return fmt.Errorf("saving the end of the journal again: %w", err)
		}
	}
	if blank {
		if err := f.Truncate(int64(r.end)); err != nil {
			return fmt.Errorf("cutting off the end of the journal: %w", err)
		}
	}
	if r.round > 0 || blank {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	// A process that was killed may have renamed the file without syncing the
	// folder.
	return d.Sync()
}
