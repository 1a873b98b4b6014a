package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"example.com/raftsteps/shared/core/crcline"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/strict"
)

// The length file is a second record of the journal's size: once per second it
// notes how much of the journal is synced. It never notes more than is on the
// disk, since it is written after the journal's sync.
//
// It has one sector for the newest length and one for the previous length,
// written in turns and in place. A crash may tear the sector that is being
// written; then the other sector counts.

// lengthSuffix is what the length file's name adds to the journal's.
const lengthSuffix = ".length"

// noteTicks is how many ticks pass between two notes of the length: one second.
const noteTicks = 100

// length is how much of a journal is on the disk: the number of times that the
// file was replaced, and the size of the present file.
type length struct {
	rewrites uint64
	bytes    uint64
}

func (l length) less(m length) bool {
	return l.rewrites < m.rewrites || l.rewrites == m.rewrites && l.bytes < m.bytes
}

// lengthFile is an open length file.
type lengthFile struct {
	// f is nil if there is no such file yet.
	f disk.File

	// noted is the newest length in the file, and turn is the sector for the next
	// note.
	noted length
	turn  int
}

// openLength opens the length file of a journal. The file is missing if the
// journal is new, or was written by a version without length files.
func openLength(d disk.Disk, name string) (lengthFile, error) {
	f, err := d.Open(name + lengthSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return lengthFile{}, nil
	}
	if err != nil {
		return lengthFile{}, fmt.Errorf("opening the journal's length: %w", err)
	}
	size, err := f.Size()
	text := make([]byte, min(size, 2*disk.SectorSize))
	if err == nil && size > 0 {
		_, err = f.ReadAt(text, 0)
	}
	if err != nil {
		return lengthFile{}, errors.Join(fmt.Errorf("reading the journal's length: %w", err), f.Close())
	}
	l := lengthFile{f: f}
	for turn := 0; turn*disk.SectorSize < len(text); turn++ {
		noted, ok := decodeLength(text[turn*disk.SectorSize:])
		if ok && l.noted.less(noted) {
			l.noted, l.turn = noted, 1-turn
		}
	}
	return l, nil
}

// note writes a length to the file if it has changed, and does not wait for the
// disk. A failure does not stop the journal: its records are safe, and the next
// note tries again.
func (l *lengthFile) note(d disk.Disk, name string, now length) {
	if now == l.noted {
		return
	}
	if l.f == nil && l.create(d, name) != nil {
		return
	}
	if _, err := l.f.WriteAt(now.encode(), int64(l.turn*disk.SectorSize)); err != nil {
		return
	}
	l.noted, l.turn = now, 1-l.turn
	disk.SyncSoon(l.f)
}

// create creates the file with its full size, so that no note needs space later.
func (l *lengthFile) create(d disk.Disk, name string) error {
	f, err := d.Create(name + lengthSuffix)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Repeat(length{}.encode(), 2), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f = f
	return nil
}

func (l *lengthFile) close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// encode returns a sector with the length: a line, with blanks before its line
// break.
func (l length) encode() []byte {
	b := begin(nil, `length":{"rewrites":`)
	b = strconv.AppendUint(b, l.rewrites, 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendUint(b, l.bytes, 10)
	b = append(b, "}}"...)
	crcline.Seal(b)
	b = append(b, bytes.Repeat([]byte{' '}, disk.SectorSize-1-len(b))...)
	return append(b, '\n')
}

// decodeLength reads a sector. It returns false if a crash has torn the sector.
func decodeLength(sector []byte) (l length, ok bool) {
	line, _, whole := bytes.Cut(sector, []byte{'\n'})
	text := crcline.Open(bytes.TrimRight(line, " "))
	if !whole || text == nil {
		return length{}, false
	}
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		if string(field) == "length" {
			numbers(&d, "rewrites", &l.rewrites, "bytes", &l.bytes)
		} else {
			d.Unknown()
		}
	})
	return l, d.End() == nil
}

// LostError says that the end of a journal, or the whole journal, is lost
// although it was synced. Nothing was changed.
type LostError struct {
	// File is the journal's path, "" if the file is gone; Name is its name.
	File string
	Name string

	// Has is how many bytes of the journal are there, Saved how many were noted
	// as saved. HasRewrites and SavedRewrites say the same of the rewrites: if
	// HasRewrites is less, the file is an older one.
	Has, Saved                 uint64
	HasRewrites, SavedRewrites uint64
}

func (e *LostError) Error() string {
	what := fmt.Sprintf("%s holds %d bytes of records, but %d had been saved", e.File, e.Has, e.Saved)
	switch {
	case e.File == "":
		what = fmt.Sprintf("the file %q is gone, of which %d bytes had been saved", e.Name, e.Saved)
	case e.HasRewrites < e.SavedRewrites:
		what = fmt.Sprintf("%s is an old file: it was rewritten %d times, and the one that was saved last %d times", e.File, e.HasRewrites, e.SavedRewrites)
	}
	return what + "; no crash leaves this behind, so the disk has lost what it had saved, or somebody has changed the file; nothing was changed. " + keep
}

// check returns a *LostError for a journal that is shorter than the noted length.
func (l lengthFile) check(file, name string, has length) error {
	if !has.less(l.noted) {
		return nil
	}
	return &LostError{File: file, Name: name, Has: has.bytes, Saved: l.noted.bytes, HasRewrites: has.rewrites, SavedRewrites: l.noted.rewrites}
}
