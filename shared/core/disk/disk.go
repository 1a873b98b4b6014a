// Package disk is the small file interface below everything that a server stores:
// one folder with a few files.
//
// It makes explicit what operating systems leave implicit. Written data is safe
// only after Sync. A created or renamed file has its name after a crash only if
// the folder was synced too. After a Sync has failed, nobody knows which data is
// on the disk (on Linux the next Sync may succeed although the data is lost), so
// the file refuses every later call.
//
// There are two disks. Folder is a real one. Sim is a simulated one: it loses
// data that was not synced, tears writes, becomes full and makes a Sync fail, all
// from a seed. The code that uses a disk cannot tell the two apart, so the tests
// run the same code as a server does, through thousands of crashes.
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
	// A rename happens as a whole or not at all, and survives a crash for certain
	// only after Sync. A File that is open stays usable.
	Rename(from, to string) error

	// Remove removes a name; if there is none, the error is fs.ErrNotExist.
	Remove(name string) error

	// List returns the names of all files, sorted.
	List() ([]string, error)

	// Sync syncs the folder: every file that was created, renamed or removed
	// before stays created, renamed or removed after a crash. It does not save
	// the content of the files. If it fails, the folder refuses further changes.
	Sync() error

	// Check returns an error if the path of the folder, or of a file in it, no
	// longer leads to what this Disk has opened, created or renamed there:
	// another program has deleted, moved or replaced it, and after a restart the
	// server would not find what it has saved since then. A Disk does not check
	// this by itself.
	Check() error
}

// File is one open file. If Sync fails, every later call but Close fails with
// the same error.
type File interface {
	io.ReaderAt

	// WriteAt writes at an offset, and makes the file longer if it must. If it
	// fails, it may have written a part; n is the length of that part.
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

// Free closes a file that has lost its name, also after a crash, and that nobody
// reads any longer. This frees the file's space: in pieces if the file is large,
// because the syncs of other files wait while a file system frees much space at
// once.
func Free(f File) error {
	if large, ok := f.(interface{ shrink() error }); ok {
		return errors.Join(large.shrink(), f.Close())
	}
	return f.Close()
}

// SyncSoon starts a sync of a file and does not wait for it. It guarantees
// nothing: use it for data whose loss is possible but should be unlikely. A file
// has at most one such sync at a time; a call during it does nothing.
//
// Like Free, it asks for a method and not for the type osFile: so a program without
// a Folder, which is the engine in a browser, links no code of package os for files.
func SyncSoon(f File) {
	if f, ok := f.(interface{ syncSoon() }); ok {
		f.syncSoon()
	}
}

// Aside is the suffix that Replace adds to a name while it writes. After a crash,
// a file with such a name may be left; it can be removed.
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
// one, never a part: it writes the new file under another name, syncs it, renames
// it, and syncs the folder. After an error either of the two files may be there.
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
