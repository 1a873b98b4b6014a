// Package journal keeps what a server must not forget in one file that only
// grows, that a person can read with less, and that knows when it was damaged.
//
// # The file
//
// A line is a record: a checksum (CRC-32C, eight hexadecimal digits), a space,
// and a JSON object, over whose bytes the checksum is.
//
//	b722f8cd {"journal":{"version":1,"stage":"05-election","cluster":"c1","id":2,"incarnation":"005eed0fa11d15c5","lines":1},"synced":0}
//	39f3ba1d {"state":{"term":4,"vote":2},"synced":133}
//	78fcc55a {"entry":{"index":1,"term":4,"kind":"noop"},"synced":133}
//	b30cc2e9 {"entry":{"index":2,"term":4,"command":{"op":"put","key":"x","value":"1"}},"synced":133}
//	7e3d85f3 {"truncate":{"from":2},"synced":350}
//
// The first line says whose the file is, and which disk this is. A state replaces
// the state before it. An entry is the next one of the log; a truncate removes the
// entries from an index on. A base, written when a log is compacted, says that the
// log begins after an entry, since a snapshot holds all up to that one.
//
// What is buffered between two calls of Sync is a round: it goes into the file
// with one write and becomes safe with one sync. "synced" is where the round
// of the line began: when the line was written, everything before that byte
// was on the disk. This is what makes the question below answerable.
//
// While a server runs, the file ends in a stretch of tabs. They were written
// ahead, because a sync that does not have to make the file longer is faster
// by a third or more. Close cuts them off, and so does the next Open.
//
// # What a crash leaves, and what it cannot
//
// A server that lost its power may have been in the middle of one round, and
// only of one: the next is not written before the sync of this one has
// succeeded. So exactly the lines of the last round may be incomplete. Nobody
// was promised anything that is in them, and Open cuts them off from the first
// incomplete line on. (What is left of the round does no harm: a state is written
// before the entries that belong to it.) Everything else that is wrong is a
// failing disk. Then Open refuses, names file, line and byte, and changes
// nothing; to cut there would be to break a promise.
//
// The order in which the parts of a write reach the disk is up to the system:
// the end may be there and the middle missing. What is missing reads as it was
// before, as tabs or, where the file was made longer, as zeros; neither ever
// stands in a line. This gives three rules for a line whose checksum is wrong:
//
//   - If a whole line behind it has a "synced" above it, its round was synced.
//     It is damage.
//   - If it is one of the lines that the file was made with (their number
//     stands in the first line), it was synced before the file had its name.
//     It is damage.
//   - Otherwise it may be of the last round. If something is missing from it,
//     at least one sector (512 bytes) from its first to its last byte or all
//     that comes after some byte, that is what a crash leaves. If all of it is
//     there and yet it is wrong, no crash did that. It is damage.
//
// # What can be told apart, and what cannot
//
// A changed byte is never taken for a crash as long as it is in a round that is
// followed by another, and in the last round it is not either, because a
// changed byte is not a missing one. There is one exception: if the last round
// begins with the last byte of a sector and that byte turns into a tab or a
// zero, it looks as if the sector had not been written.
//
// If a disk loses whole sectors of the last round, or the end of the file, after
// it reported them safe, then nothing in the file can tell. So there is a second
// place to look at: a small file next to the journal ("journal.length") notes
// once per second how many bytes had been synced. A journal that is shorter, that
// is gone, or that a later one had replaced is refused. What was saved in the
// last second before a crash can still be lost in this way and be taken for
// what a crash has left incomplete. So can what was saved since the last note
// that reached the disk, if the power is cut: nobody waits for the sync of a note.
// That the other servers have the records is what Raft is for, but it presumes
// that this disk told the truth.
//
// What is assumed is that a sector is written as a whole or not at all, and
// that a file that grew shows zeros, not rubbish, where nothing was written.
// Today's file systems and disks do so. Where they do not, a power cut can lead
// to a refusal, never to a wrong state.
//
// # What is read is not always on the disk
//
// A process that was killed leaves writes that its successor can read although
// no sync has saved them; and after a sync that failed Linux shows data that
// will never be written. So Open trusts nothing of what it reads in the last
// round: it writes that round again, in its place and unchanged, and syncs it
// and the folder before it returns.
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"example.com/raftsteps/shared/core/disk"
)

// Header says whose a journal is.
type Header struct {
	// Stage is the folder of the program, such as "05-election".
	Stage string

	// Cluster is the cluster's name.
	Cluster string

	// ID is the server's own.
	ID uint64

	// Incarnation is the disk's. A new journal gets the one that Open is given,
	// and keeps it for as long as it exists, through Rewrite and Replace; a
	// journal that has none, from before there were any, gets it as well.
	Incarnation disk.Incarnation
}

// owner is the header without what is the disk's own.
func (h Header) owner() Header {
	h.Incarnation = 0
	return h
}

// State is what a server must remember in addition to its log (Figure 2, "Persistent
// state").
type State struct {
	// Term is currentTerm, 0 before the first.
	Term uint64

	// Vote is votedFor in Term, 0 for nobody.
	Vote uint64
}

// Base is the place behind which the log begins; zero if it begins with entry
// 1. The entry at Index and all before it are in a snapshot.
type Base struct {
	Index uint64
	Term  uint64

	// Config is what else the server must know of that place: a JSON object on
	// one line, or "".
	Config string
}

// Recovered is what a journal holds.
type Recovered struct {
	// Header says whose it is.
	Header Header

	// State is the last one saved.
	State State

	// Base is where the log begins: the first entry has the index Base.Index+1.
	Base Base

	// Entries are the log: indexes without a gap, terms that never fall. Their
	// bytes are part of what was read and must not be changed.
	Entries []Entry

	// Torn says, in a sentence for the log, what a crash has left incomplete
	// and Open has cut off: TornBytes from the line TornLine on. "" if nothing.
	Torn      string
	TornLine  int
	TornBytes int
}

// Journal is an open journal. SetState, Append and Truncate only collect; Sync
// saves what was collected. Once anything has failed, nothing is saved any
// more, and Sync says why forever. It belongs to one goroutine.
type Journal struct {
	d      disk.Disk
	f      disk.File
	name   string
	header Header

	// buf is the round: what Sync will write at the end of the file.
	buf []byte

	// rewrites counts the files that this one has replaced, each by the next.
	rewrites uint64

	// noted is the file that notes the length, and ticks the time since then.
	noted lengthFile
	ticks int

	// size is the length of the journal on the disk, up to where it is synced.
	// From there to length the file holds tabs.
	size   int64
	length int64

	// state and log are what is saved and what is in buf.
	state State
	log   shape

	// err is the first failure.
	err error
}

// Open opens the journal with this name, or makes an empty one, and returns
// what it holds. What Open returns is on the disk. If the journal belongs to
// another server, the error is a *ForeignError; if it was damaged, a
// *CorruptError; if the end of it is lost, or all of it, a *LostError. Then
// nothing was changed. See Header for h.Incarnation.
func Open(d disk.Disk, name string, h Header) (*Journal, Recovered, error) {
	noted, err := openLength(d, name)
	if err != nil {
		return nil, Recovered{}, err
	}
	j, r, err := openJournal(d, name, h, noted)
	if err != nil {
		noted.close()
		return nil, Recovered{}, err
	}
	j.noted = noted
	j.note()
	return j, r, nil
}

func openJournal(d disk.Disk, name string, h Header, noted lengthFile) (*Journal, Recovered, error) {
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := noted.check("", name, length{}); err != nil {
			return nil, Recovered{}, err
		}
		return create(d, name, h)
	}
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("opening the journal: %w", err)
	}
	r, err := readFile(f, &h)
	if err == nil {
		err = noted.check(f.Name(), name, r.length())
	}
	if err == nil {
		err = r.repair(d, f, name)
	}
	if err == nil {
		// A crash may have interrupted Successor or Rewrite.
		err = disk.Sweep(d, name+next, name+disk.Aside)
	}
	if err != nil {
		f.Close()
		return nil, Recovered{}, err
	}
	j := &Journal{d: d, f: f, name: name, header: r.Header, rewrites: r.rewrites, size: int64(r.end), length: int64(r.end), state: r.State, log: r.log}
	if r.Header.Incarnation == 0 && h.Incarnation != 0 {
		j.header, r.Header = h, h
		if err := j.Rewrite(r.State, r.Base, r.Entries); err != nil {
			return nil, Recovered{}, errors.Join(err, j.f.Close())
		}
	}
	return j, r.Recovered, nil
}

// Read returns what a journal holds, and changes nothing: what Open would cut
// off is still there. The journal can be in use.
func Read(d disk.Disk, name string) (Recovered, error) {
	f, err := d.Open(name)
	if err != nil {
		return Recovered{}, fmt.Errorf("opening the journal: %w", err)
	}
	defer f.Close()
	r, err := readFile(f, nil)
	if err != nil {
		return Recovered{}, err
	}
	return r.Recovered, nil
}

// create makes a journal that holds nothing.
func create(d disk.Disk, name string, h Header) (*Journal, Recovered, error) {
	content := appendHeader(nil, h, 1, 0)
	f, err := disk.Replace(d, name, content)
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("creating the journal: %w", err)
	}
	size := int64(len(content))
	return &Journal{d: d, f: f, name: name, header: h, size: size, length: size}, Recovered{Header: h}, nil
}

// Incarnation returns the disk's incarnation, 0 if it has none.
func (j *Journal) Incarnation() disk.Incarnation { return j.header.Incarnation }

// State returns the state that was set last, saved or not.
func (j *Journal) State() State { return j.state }

// LastIndex returns the index of the last entry, saved or not.
func (j *Journal) LastIndex() uint64 { return j.log.last }

// Size is the number of bytes that the journal takes on the disk, without what
// was not synced.
func (j *Journal) Size() int64 { return j.size }

// Err returns why the journal saves nothing any longer, or nil.
func (j *Journal) Err() error { return j.err }

// SetState replaces the state. A term never falls, and a vote does not change
// within a term. A state that is already there costs nothing.
func (j *Journal) SetState(s State) {
	if s == j.state || j.misused(j.state.before(s)) {
		return
	}
	j.state = s
	j.buf = appendState(j.buf, s, j.size)
}

// Append adds the next entry to the log. Its term is not above that of the
// state, so the state is set first: a crash between the two must not leave a
// log that is ahead of its server. e.JSON is written as it is; if it is nil,
// the entry is encoded.
func (j *Journal) Append(e Entry) {
	if j.err != nil || j.misused(cmp.Or(e.check(), j.log.append(e, j.state))) {
		return
	}
	j.buf = appendEntry(j.buf, e, j.size)
}

// Truncate removes the entries from an index on. There must be such entries.
func (j *Journal) Truncate(from uint64) {
	if j.err != nil || j.misused(j.log.truncate(from)) {
		return
	}
	j.buf = appendTruncate(j.buf, from, j.size)
}

// misused stops the journal if err is not nil. What a later Open would refuse
// must not get into the file.
func (j *Journal) misused(err error) bool {
	if err == nil {
		return false
	}
	j.fail(fmt.Errorf("the program is at fault, and nothing of this was written: %w", err))
	return true
}

// path is where the journal is; the file was opened under another name if it was a
// successor.
func (j *Journal) path() string { return filepath.Join(filepath.Dir(j.f.Name()), j.name) }

// fail stops the journal for good.
func (j *Journal) fail(err error) {
	if j.err == nil {
		j.err = fmt.Errorf("the journal %s has stopped, and nothing since the last sync that succeeded may be trusted: %w", j.path(), err)
	}
}

// Sync saves what was collected since the last Sync: one write, one sync. If
// nothing was collected it does nothing. After an error nothing that was
// collected may be relied on, nor will anything be saved later.
func (j *Journal) Sync() error {
	if j.err != nil || len(j.buf) == 0 {
		return j.err
	}
	end := j.size + int64(len(j.buf))
	if end > j.length {
		j.length = ahead(end)
		j.buf = appendBlank(j.buf, int(j.length-end))
	}
	if _, err := j.f.WriteAt(j.buf, j.size); err != nil {
		j.fail(err)
		return j.err
	}
	if err := j.f.Sync(); err != nil {
		j.fail(err)
		return j.err
	}
	j.size = end
	j.buf = reuse(j.buf)
	return nil
}

// Tick says that another 10 ms have passed. Once per second, the journal notes how
// long it is.
func (j *Journal) Tick() {
	if j.ticks++; j.ticks >= noteTicks {
		j.ticks = 0
		j.note()
	}
}

// note notes how much of the journal is on the disk.
func (j *Journal) note() {
	if j.err == nil {
		j.noted.note(j.d, j.name, length{j.rewrites, uint64(j.size)})
	}
}

// Close cuts the tabs off and closes the file. What was not synced is dropped.
func (j *Journal) Close() error {
	var err error
	if j.err == nil && j.length > j.size {
		err = j.f.Truncate(j.size)
		if err == nil {
			err = j.f.Sync()
		}
	}
	if err == nil {
		j.note()
	}
	return errors.Join(err, j.f.Close(), j.noted.close())
}

// Rewrite replaces the journal by one that holds a state and a log that begins
// behind base, and nothing else: this is how a compacted log gets rid of what
// a snapshot holds. What was collected and not synced is replaced too. A crash
// leaves the old journal or the new one. When Rewrite returns, the new one is
// on the disk. An error stops the journal, as one of Sync does.
func (j *Journal) Rewrite(s State, base Base, entries []Entry) error {
	if j.err != nil {
		return j.err
	}
	content, log, err := j.rewritten(s, base, entries)
	if j.misused(err) {
		return j.err
	}
	f, err := disk.Replace(j.d, j.name, content)
	if err != nil {
		j.fail(err)
		return j.err
	}
	j.f.Close()
	j.f, j.state, j.log, j.rewrites = f, s, log, j.rewrites+1
	j.size, j.length = int64(len(content)), int64(len(content))
	j.buf = reuse(content)
	return nil
}

// Successor makes, next to the journal, another with a state and a log that
// begins after base. It takes as long as there are entries, and touches nothing
// of the journal but its name, so it may run in another goroutine while the
// journal is in use. Bring the successor up to date, Sync it, and give it to
// Replace. A crash before that leaves the journal as it is; so do Drop and an
// error, of the successor's Sync as well: it can be made again later.
func (j *Journal) Successor(s State, base Base, entries []Entry) (*Journal, error) {
	next := &Journal{d: j.d, name: j.name + next, header: j.header, rewrites: j.rewrites, log: shape{base: base, last: base.Index}}
	content, log, err := next.rewritten(s, base, entries)
	if err != nil {
		return nil, fmt.Errorf("the program is at fault, and nothing of this was written: %w", err)
	}
	if next.f, err = j.d.Create(next.name); err != nil {
		return nil, fmt.Errorf("beginning a new journal: %w", err)
	}
	next.state, next.log = s, log
	next.rewrites++
	next.size, next.length = int64(len(content)), int64(len(content))
	for at := 0; at < len(content) && err == nil; at += pace {
		// Much that is not synced would make the syncs of others wait.
		if _, err = next.f.WriteAt(content[at:min(at+pace, len(content))], int64(at)); err == nil {
			err = next.f.Sync()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing a new journal: %w", err), next.Drop())
	}
	return next, nil
}

// next is what Successor adds to the name, and pace how much it writes between
// two syncs.
const (
	next = ".next"
	pace = 1 << 20
)

// Drop gives up a successor that is not wanted.
func (j *Journal) Drop() error { return errors.Join(j.f.Close(), j.d.Remove(j.name)) }

// Replace puts a successor in the place of the journal, as Rewrite does, but in
// no time. The successor must be synced, hold the state and end where the
// journal does; it is no longer used. Close the old file that Replace returns
// where that may take long: it is freed then.
func (j *Journal) Replace(by *Journal) (old disk.File, err error) {
	switch {
	case j.err != nil:
		return nil, j.err
	case by.err != nil:
		j.fail(by.err)
	case len(by.buf) > 0 || by.rewrites != j.rewrites+1 || by.state != j.state || by.log.last != j.log.last || by.log.lastTerm() != j.log.lastTerm():
		j.misused(errors.New("the new journal is not up to date"))
	default:
		j.misused(j.log.base.before(by.log.base, j.state))
	}
	if j.err != nil {
		return nil, j.err
	}
	err = j.d.Rename(by.name, j.name)
	if err == nil {
		err = j.d.Sync()
	}
	if err != nil {
		j.fail(err)
		return nil, j.err
	}
	old = j.f
	j.f, j.log, j.size, j.length, j.rewrites = by.f, by.log, by.size, by.length, by.rewrites
	j.buf = reuse(j.buf)
	return old, nil
}

// rewritten returns the content of the file that Rewrite makes, and the shape
// of its log, if it can follow what is there.
func (j *Journal) rewritten(s State, base Base, entries []Entry) ([]byte, shape, error) {
	if err := j.state.before(s); err != nil {
		return nil, shape{}, err
	}
	if err := j.log.base.before(base, s); err != nil {
		return nil, shape{}, err
	}
	log := shape{base: base, last: base.Index}
	content := appendHeader(j.buf[:0], j.header, 3+len(entries), j.rewrites+1)
	content = appendState(content, s, 0)
	content = appendBase(content, base, 0)
	for _, e := range entries {
		if err := cmp.Or(e.check(), log.append(e, s)); err != nil {
			return nil, shape{}, err
		}
		content = appendEntry(content, e, 0)
	}
	return content, log, nil
}

// The file grows in steps of its own length within these bounds: small files
// stay small, and large ones rarely grow.
const (
	minStep = 4 << 10
	maxStep = 256 << 10
)

// ahead returns how long to make a file whose journal ends at end.
func ahead(end int64) int64 {
	step := min(max(end, minStep), maxStep)
	return (end + step + minStep - 1) / minStep * minStep
}

// maxKept bounds the buffer that is kept from one round to the next.
const maxKept = 4 << 20

func reuse(buf []byte) []byte {
	if cap(buf) > maxKept {
		return nil
	}
	return buf[:0]
}
