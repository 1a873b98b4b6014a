// Package disk is the small file interface under everything that a server
// keeps: one folder, a few files in it.
//
// It says out loud what operating systems leave between the lines. What was
// written is safe only after Sync; a file that was created or renamed is
// there after a crash only once the folder was synced too; and a Sync that
// failed once means that nothing about the file is known any longer (on Linux
// the next one may succeed although the data is gone), so the file refuses
// everything from then on.
//
// There are two disks. Folder is a real one. Sim is a simulated one: it loses
// what was not synced, tears writes apart, runs full and fails a Sync, all
// from a seed. The code above cannot tell them apart, so that what is tested
// through thousands of crashes is what runs.
//
// Rules for use: one goroutine at a time works with a File. A Folder may be
// used by several goroutines; a Sim belongs to one.
package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Disk is one server's folder. Names are plain file names, without folders.
type Disk interface {
	// Create makes an empty file and opens it. A file that had the name is
	// emptied. The name survives a crash only after Sync.
	Create(name string) (File, error)

	// Open opens a file that exists; if there is none, the error is
	// fs.ErrNotExist.
	Open(name string) (File, error)

	// Rename gives a file another name, in place of the file that had it. It
	// happens as a whole or not at all, and for certain only after Sync. A File
	// that is open stays usable.
	Rename(from, to string) error

	// Remove removes a name; if there is none, the error is fs.ErrNotExist.
	Remove(name string) error

	// List returns the names that there are, sorted.
	List() ([]string, error)

	// Sync syncs the folder: what was created, renamed and removed up to now
	// survives a crash. It says nothing about what is in the files. If it
	// fails, the folder takes no more changes.
	Sync() error

	// Check fails if the folder, or a name in it, no longer leads to what this
	// Disk has opened, created or renamed there: somebody else has deleted, moved
	// or replaced it, and a restart would not find what was saved since. Disks do
	// not look by themselves.
	Check() error
}

// File is one open file. If Sync fails, every later call but Close fails with
// the same error.
type File interface {
	io.ReaderAt

	// WriteAt writes at an offset, and makes the file longer where needed. If
	// it fails, a part may have been written; n says how much.
	io.WriterAt

	// Name is the file's path when it was opened, for messages to people.
	Name() string

	// Size is the number of bytes in the file.
	Size() (int64, error)

	// Truncate cuts the file off at size, or fills it with zeros up to size.
	Truncate(size int64) error

	// Sync returns after everything that was written to the file has reached
	// the disk.
	Sync() error

	// Close gives the file up. It does not sync.
	Close() error
}

// Free closes a file that has lost its name for certain, and that nobody reads any
// more. Its room is given back: by pieces if it is large, since the syncs of other
// files wait while a file system gives back much at once.
func Free(f File) error {
	if f, ok := f.(*osFile); ok {
		return errors.Join(f.shrink(), f.Close())
	}
	return f.Close()
}

// SyncSoon begins to sync what was written to a file, and does not wait for it. It
// promises nothing: it is for what may be lost, but should not be. One sync at a
// time is under way for a file.
func SyncSoon(f File) {
	if f, ok := f.(*osFile); ok {
		f.syncSoon()
	}
}

// Aside is what Replace adds to a name while it writes. A file with such a
// name is the rest of a crash and may be removed.
const Aside = ".new"

// ReadFile reads a whole file.
func ReadFile(d Disk, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f)
}

// ReadAll reads a whole open file.
func ReadAll(f File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if int64(n) == size {
		return data, nil
	}
	return nil, fmt.Errorf("reading %s: %d of %d bytes: %w", f.Name(), n, size, err)
}

// Sweep removes files that nobody needs any longer, if they are there.
func Sweep(d Disk, names ...string) error {
	for _, name := range names {
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the file %q: %w", name, err)
		}
	}
	return nil
}

// Replace puts a file with this content in place of the one that has the
// name, if any, and returns it open. A crash at any moment leaves the old
// file or the new one, never a part: it is written aside, synced, renamed, and
// the folder is synced. After an error it is unknown which of the two will be
// there.
func Replace(d Disk, name string, content []byte) (File, error) {
	if err := replace(d, name, content); err != nil {
		return nil, fmt.Errorf("replacing the file %q: %w", name, err)
	}
	return d.Open(name)
}

func replace(d Disk, name string, content []byte) error {
	f, err := d.Create(name + Aside)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := cmp.Or(err, f.Close()); err != nil {
		return err
	}
	if err := d.Rename(name+Aside, name); err != nil {
		return err
	}
	return d.Sync()
}
