package disk

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
)

// errReadOnly is the error of every change to a Durable view.
var errReadOnly = errors.New("this is a view of what a crash would leave, and it is read-only")

// Durable returns a view of what a crash at this moment is certain to leave: what
// was synced and nothing else. The view is read-only and always shows the present
// state of the disk. It copies nothing.
func (d *Sim) Durable() Disk { return durable{d} }

type durable struct{ d *Sim }

func (v durable) Create(string) (File, error) { return nil, errReadOnly }
func (v durable) Rename(_, _ string) error    { return errReadOnly }
func (v durable) Remove(string) error         { return errReadOnly }
func (v durable) Sync() error                 { return errReadOnly }
func (v durable) Check() error                { return nil }

func (v durable) List() ([]string, error) {
	return slices.Sorted(maps.Keys(v.d.synced)), nil
}

func (v durable) Open(name string) (File, error) {
	f := v.d.synced[name]
	if f == nil {
		return nil, v.d.error("open", name, fs.ErrNotExist)
	}
	return durableFile{f, v.d.path + "/" + name}, nil
}

type durableFile struct {
	f    *simFile
	name string
}

func (f durableFile) Name() string                       { return f.name }
func (f durableFile) Size() (int64, error)               { return int64(len(f.f.durable)), nil }
func (f durableFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (f durableFile) Truncate(int64) error               { return errReadOnly }
func (f durableFile) Sync() error                        { return errReadOnly }
func (f durableFile) Close() error                       { return nil }

func (f durableFile) ReadAt(p []byte, off int64) (int, error) {
	return readAt(f.f.durable, p, off)
}
