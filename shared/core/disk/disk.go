// Package disk is the small file interface below everything that a server stores:
// one folder with a few files.
//
// It makes explicit what operating systems leave implicit. Written data is safe
// only after Sync. A file that was created or renamed is there after a crash only
// if the folder was synced too. And after one failed Sync nothing about the file
// is known (on Linux the next Sync may succeed although the data is gone), so the
// file refuses every later call.
//
// There are two disks. Folder is a real one. Sim is a simulated one: it loses
// what was not synced, tears writes, runs full and fails a Sync, all from a seed.
// The code that uses a disk cannot tell them apart, so the code that runs is the
// code that was tested through thousands of crashes.
//
// A File must be used by one goroutine at a time. A Folder may be used by several
// goroutines; a Sim by one.
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
	// Create creates an empty file and opens it. An existing file with that name
	// is emptied. The name survives a crash only after Sync.
	Create(name string) (File, error)

	// Open opens a file that exists; if there is none, the error is
	// fs.ErrNotExist.
	Open(name string) (File, error)

	// Rename gives a file another name, and replaces the file that had that name.
	// It happens as a whole or not at all, and is certain only after Sync. A File
	// that is open stays usable.
	Rename(from, to string) error

	// Remove removes a name; if there is none, the error is fs.ErrNotExist.
	Remove(name string) error

	// List returns the names of all files, sorted.
	List() ([]string, error)

	// Sync syncs the folder: files that were created, renamed and removed up to
	// now stay so after a crash. It does not save the content of the files. If it
	// fails, the folder refuses further changes.
	Sync() error

	// Check returns an error if the folder, or a name in it, no longer leads to
	// what this Disk has opened, created or renamed there: somebody else has
	// deleted, moved or replaced it, and a restart would not find what was saved
	// since. A Disk does not check this by itself.
	Check() error
}

// File is one open file. If Sync fails, every later call but Close fails with
// the same error.
type File interface {
	io.ReaderAt

	// WriteAt writes at an offset, and makes the file longer where needed. If it
	// fails, a part may have been written; n is the length of that part.
	io.WriterAt

	// Name returns the file's path when it was opened, for messages to people.
	Name() string

	// Size returns the number of bytes in the file.
	Size() (int64, error)

	// Truncate shortens the file to size bytes, or fills it with zeros up to
	// size.
	Truncate(size int64) error

	// Sync returns after everything that was written to the file has reached
	// the disk.
	Sync() error

	// Close closes the file. It does not sync.
	Close() error
}

// Free closes a file that has certainly lost its name and that nobody reads any
// longer. This frees its space: in pieces if the file is large, since the syncs
// of other files wait while a file system frees much space at once.
func Free(f File) error {
	if f, ok := f.(*osFile); ok {
		return errors.Join(f.shrink(), f.Close())
	}
	return f.Close()
}

// SyncSoon starts to sync what was written to a file, and does not wait for it.
// It promises nothing: use it for data that may be lost, but should not be. There
// is at most one such sync at a time for a file.
func SyncSoon(f File) {
	if f, ok := f.(*osFile); ok {
		f.syncSoon()
	}
}

// Aside is the suffix that Replace adds to a name while it writes. A file with
// such a name was left by a crash and may be removed.
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

// Sweep removes files that are no longer needed, if they exist.
func Sweep(d Disk, names ...string) error {
	for _, name := range names {
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the file %q: %w", name, err)
		}
	}
	return nil
}

// Replace writes a file with this content in place of the file with that name, if
// any, and returns it open. A crash at any moment leaves the old file or the new
// one, never a part: the new file is written under another name, synced, renamed,
// and the folder is synced. After an error it is unknown which of the two will be
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
