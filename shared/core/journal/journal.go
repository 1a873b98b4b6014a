// Package journal saves what a server must not forget: its term, its vote and its
// log. The journal is one file that only grows. It can be read with less, and
// damage to it is detected.
//
// # The file
//
// A line is a record: a checksum (CRC-32C, eight hexadecimal digits), a space,
// and a JSON object. The checksum covers the bytes of the object.
//
//	b722f8cd {"journal":{"version":1,"stage":"05-election","cluster":"c1","id":2,"incarnation":"005eed0fa11d15c5","lines":1},"synced":0}
//	39f3ba1d {"state":{"term":4,"vote":2},"synced":133}
//	78fcc55a {"entry":{"index":1,"term":4,"kind":"noop"},"synced":133}
//	b30cc2e9 {"entry":{"index":2,"term":4,"command":{"op":"put","key":"x","value":"1"}},"synced":133}
//	7e3d85f3 {"truncate":{"from":2},"synced":350}
//
// The first line says which server the file belongs to, and on which disk it is.
// A state replaces the previous state. An entry is the next entry of the log; a
// truncate removes the entries from an index on. A base, written when a log is
// compacted, says after which entry the log begins, since a snapshot holds
// everything up to that entry.
//
// The records buffered between two calls of Sync are a round: one write puts them
// into the file and one sync saves them. "synced" is the offset at which the
// line's round begins: when the line was written, everything before that byte was
// on the disk. The rules below depend on it.
//
// While a server runs, the file ends in a stretch of tabs. They are written in
// advance, because a sync that does not have to make the file longer is faster by
// a third or more. Close cuts them off, and so does the next Open.
//
// # What a crash can leave, and what it cannot
//
// A server that lost its power may have been in the middle of one round, and only
// of one: the next round is not written before the sync of this one has
// succeeded. So only lines of the last round may be incomplete. The server has
// not yet told anyone that these lines are saved, and Open cuts them off from the
// first incomplete line on. (The part of the round that remains does no harm: a
// state is written before the entries that belong to it.) Any other error in the
// file comes from a failing disk. Then Open returns an error that names file,
// line and byte, and changes nothing; cutting there would break a promise.
//
// The order in which the parts of a write reach the disk is up to the system: the
// end may be there while the middle is missing. A missing part reads as it did
// before the write: as tabs or, where the file was made longer, as zeros. A line
// contains neither. This gives three rules for a line whose checksum is wrong:
//
//   - If a whole line after it has a larger "synced", its round was synced.
//     It is damage.
//   - If it is one of the lines that the file was created with (the first line
//     has their number), it was synced before the file had its name. It is
//     damage.
//   - Otherwise it may be of the last round. If something is missing from it,
//     at least one sector (512 bytes) between its first and its last byte, or
//     everything after some byte, a crash can have left it. If nothing of it is
//     missing and it is wrong nevertheless, no crash did that. It is damage.
//
// # What can be distinguished, and what cannot
//
// A changed byte is never taken for a crash: not in a round that is followed by
// another, by the first rule, and not in the last round, because a changed byte
// is not a missing one. There is one exception: if the last round begins with the
// last byte of a sector and that byte turns into a tab or a zero, the sector
// looks unwritten.
//
// If a disk loses whole sectors of the last round, or the end of the file, after
// it reported them safe, nothing in the file can show it. So there is a second
// record: a small file next to the journal ("journal.length") notes once per
// second how many bytes are synced. Open refuses a journal that is shorter than
// noted, that is gone, or that is an old file which a later one had replaced. A
// loss of what was saved in the last second before a crash can still be taken for
// lines that the crash left incomplete. If the power is cut, this is true of
// everything saved since the last note that reached the disk, since the journal
// does not wait for the sync of a note. The other servers have these records, as
// Raft intends, but Raft assumes that this disk told the truth.
//
// The journal assumes that a sector is written as a whole or not at all, and that
// a file that grew shows zeros, not garbage, where nothing was written. Today's
// file systems and disks behave so. Where they do not, a power cut can lead to a
// refusal, never to a wrong state.
//
// # Data that can be read may not be on the disk
//
// A process that was killed leaves writes that the next process can read although
// no sync has saved them; and after a failed sync, Linux shows data that will
// never be written. So Open does not trust what it reads in the last round: it
// writes that round again, in its place and unchanged, and syncs it and the
// folder before it returns.
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"example.com/raftsteps/shared/core/disk"
)

// Header says which server a journal belongs to.
type Header struct {
	// Stage is the folder of the program, such as "05-election".
	Stage string

	// Cluster is the cluster's name.
	Cluster string

	// ID is the server's ID.
	ID uint64

	// Incarnation is the incarnation of the disk. A new journal gets the one that
	// Open is given, and keeps it for as long as it exists, through Rewrite and
	// Replace. A journal written before there were incarnations gets it as well.
	Incarnation disk.Incarnation
}

// owner returns the header without the fields that belong to the disk.
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

// Base is the place after which the log begins; zero if it begins with entry 1.
// The entry at Index and all before it are in a snapshot.
type Base struct {
	Index uint64
	Term  uint64

	// Config is what else the server must know about that place: a JSON object on
	// one line, or "".
	Config string
}

// Recovered is the content of a journal.
type Recovered struct {
	// Header says which server it belongs to.
	Header Header

	// State is the last one saved.
	State State

	// Base is where the log begins: the first entry has the index Base.Index+1.
	Base Base

	// Entries are the log: indexes without a gap, terms that never decrease.
	// Their bytes are part of the text that was read and must not be changed.
	Entries []Entry

	// Torn says, in a sentence for the log, what Open has cut off because a crash
	// had left it incomplete: TornBytes from the line TornLine on. It is "" if
	// nothing was cut off.
	Torn      string
	TornLine  int
	TornBytes int
}

// Journal is an open journal. SetState, Append and Truncate only collect; Sync
// saves what they collected. After the first failure the journal saves nothing,
// and Sync always returns that failure. A Journal must be used by one goroutine
// at a time.
type Journal struct {
	d      disk.Disk
	f      disk.File
	name   string
	header Header

	// buf is the round: what Sync will write at the end of the file.
	buf []byte

	// rewrites is how many times the journal was replaced by a new file.
	rewrites uint64

	// noted is the file with the length, and ticks the time since it was written.
	noted lengthFile
	ticks int

	// size is the length of the journal on the disk, up to where it is synced.
	// From size to length the file holds tabs.
	size   int64
	length int64

	// state and log include what is saved and what is in buf.
	state State
	log   shape

	// err is the first failure.
	err error
}

// Open opens the journal with this name, or creates an empty one, and returns its
// content. What Open returns is on the disk. If the journal belongs to another
// server, the error is a *ForeignError; if it was damaged, a *CorruptError; if
// its end is lost, or all of it, a *LostError. In these cases nothing was
// changed. Header describes the use of h.Incarnation.
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

// Read returns the content of a journal, and changes nothing: what Open would cut
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

// create creates an empty journal.
func create(d disk.Disk, name string, h Header) (*Journal, Recovered, error) {
	content := appendHeader(nil, h, 1, 0)
	f, err := disk.Replace(d, name, content)
	if err != nil {
		return nil, Recovered{}, fmt.Errorf("creating the journal: %w", err)
	}
	size := int64(len(content))
	return &Journal{d: d, f: f, name: name, header: h, size: size, length: size}, Recovered{Header: h}, nil
}

// Incarnation returns the incarnation of the disk, 0 if it has none.
func (j *Journal) Incarnation() disk.Incarnation { return j.header.Incarnation }

// State returns the state that was set last, saved or not.
func (j *Journal) State() State { return j.state }

// LastIndex returns the index of the last entry, saved or not.
func (j *Journal) LastIndex() uint64 { return j.log.last }

// Size is the number of bytes that the journal takes on the disk, without what is
// not synced yet.
func (j *Journal) Size() int64 { return j.size }

// Err returns the error that stopped the journal, or nil.
func (j *Journal) Err() error { return j.err }

// SetState replaces the state. A term never decreases, and a vote does not change
// within a term. Setting the current state again costs nothing.
func (j *Journal) SetState(s State) {
	if s == j.state || j.misused(j.state.before(s)) {
		return
	}
	j.state = s
	j.buf = appendState(j.buf, s, j.size)
}

// Append adds the next entry to the log. Its term must not be above that of the
// state, so set the state first: a crash between the two must not leave a log
// that is ahead of its server. e.JSON is written as it is; if it is nil, the
// entry is encoded.
func (j *Journal) Append(e Entry) {
	if j.err != nil || j.misused(cmp.Or(e.check(), j.log.append(e, j.state))) {
		return
	}
	j.buf = appendEntry(j.buf, e, j.size)
}

// Truncate removes the entries from an index on. The log must have that entry.
func (j *Journal) Truncate(from uint64) {
	if j.err != nil || j.misused(j.log.truncate(from)) {
		return
	}
	j.buf = appendTruncate(j.buf, from, j.size)
}

// misused stops the journal if err is not nil. A record that a later Open would
// refuse must not get into the file.
func (j *Journal) misused(err error) bool {
	if err == nil {
		return false
	}
	j.fail(fmt.Errorf("the program is at fault, and nothing of this was written: %w", err))
	return true
}

// path is the path of the journal; a successor was opened under another name.
func (j *Journal) path() string { return filepath.Join(filepath.Dir(j.f.Name()), j.name) }

// fail stops the journal. Only the first failure is kept.
func (j *Journal) fail(err error) {
	if j.err == nil {
		j.err = fmt.Errorf("the journal %s has stopped, and nothing since the last sync that succeeded may be trusted: %w", j.path(), err)
	}
}

// Sync saves what was collected since the last Sync: one write, one sync. If
// nothing was collected it does nothing. After an error, do not rely on anything
// collected since the last successful Sync, and nothing will be saved later.
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

// Tick tells the journal that another 10 ms have passed. Once per second, the
// journal notes its length.
func (j *Journal) Tick() {
	if j.ticks++; j.ticks >= noteTicks {
		j.ticks = 0
		j.note()
	}
}

// note records how much of the journal is on the disk.
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

// Rewrite replaces the journal by one that holds only a state and a log that
// begins after base: this is how log compaction drops the entries that a snapshot
// holds. Records that were collected and not synced are replaced too. A crash
// leaves the old journal or the new one. When Rewrite returns, the new one is on
// the disk. An error stops the journal, as an error of Sync does.
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

// Successor creates, next to the journal, another one with a state and a log that
// begins after base. The time it takes grows with the number of entries. It does
// not change the journal, so it may run in another goroutine while the journal is
// in use. Bring the successor up to date, Sync it, and give it to Replace. A
// crash before that leaves the journal as it is. Drop and an error leave it as it
// is too, also an error of the successor's Sync: a successor can be made again
// later.
func (j *Journal) Successor(s State, base Base, entries []Entry) (*Journal, error) {
	next := &Journal{d: j.d, name: j.name + next, header: j.header, rewrites: j.rewrites, log: shape{base: base, last: base.Index}}
	content, log, err := next.rewritten(s, base, entries)
	if err != nil {
		return nil, fmt.Errorf("the program is at fault, and nothing of this was written: %w", err)
	}
	if next.f, err = j.d.Create(next.name); err != nil {
		return nil, fmt.Errorf("creating a new journal: %w", err)
	}
	next.state, next.log = s, log
	next.rewrites++
	next.size, next.length = int64(len(content)), int64(len(content))
	for at := 0; at < len(content) && err == nil; at += pace {
		// A large amount of unsynced data would delay the syncs of others.
		if _, err = next.f.WriteAt(content[at:min(at+pace, len(content))], int64(at)); err == nil {
			err = next.f.Sync()
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing a new journal: %w", err), next.Drop())
	}
	return next, nil
}

// next is what Successor adds to the name; pace is how many bytes it writes
// between two syncs.
const (
	next = ".next"
	pace = 1 << 20
)

// Drop closes and removes a successor that is not wanted.
func (j *Journal) Drop() error { return errors.Join(j.f.Close(), j.d.Remove(j.name)) }

// Replace puts a successor in the place of the journal, as Rewrite does, but in a
// short time that does not depend on the number of entries. The successor must be
// synced, hold the same state and end at the same index as the journal; do not
// use it afterwards. Close the old file that Replace returns in a place where
// that may take long: closing it frees its space.
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

// rewritten returns the content of the file that Rewrite creates, and the shape
// of its log, if it can follow the present one.
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

// ahead returns the length to give the file of a journal that ends at end.
func ahead(end int64) int64 {
	step := min(max(end, minStep), maxStep)
	return (end + step + minStep - 1) / minStep * minStep
}

// maxKept is the largest buffer, in bytes, that is kept from one round to the
// next.
const maxKept = 4 << 20

func reuse(buf []byte) []byte {
	if cap(buf) > maxKept {
		return nil
	}
	return buf[:0]
}
