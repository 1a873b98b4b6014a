package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// lockName is the file that a process locks while it uses the folder.
const lockName = "lock"

// Options are the options of a Folder.
type Options struct {
	// NoSync makes every Sync do nothing and succeed. A power cut can then
	// destroy data that the server has acknowledged. The option exists to show
	// the cost of a sync.
	NoSync bool
}

// Folder is a real folder. It is locked: no other process, and no other Folder of
// this process, can use it at the same time (systems without flock have no such
// lock). It is safe for concurrent use.
type Folder struct {
	path   string
	noSync bool
	lock   *os.File

	// dir is the open folder, for syncing it.
	dir *os.File

	// syncs counts the syncs of the folder and its files.
	syncs *syncMeter

	// broken is the error of the Sync that failed; nil if none has.
	mu     sync.Mutex
	broken error

	// places has, for each name in use, the file to which the name should lead.
	// changing is locked while a name changes.
	changing sync.Mutex
	places   map[string]os.FileInfo
}

// OpenFolder opens the folder of a server, and creates it if there is none. Only
// the owner can read the folder and its files, because they hold the server's
// data. If another process uses the folder, the error is a *LockedError.
func OpenFolder(path string, o Options) (*Folder, error) {
	syncs := new(syncMeter)
	if err := makeFolder(path, o, syncs); err != nil {
		return nil, fmt.Errorf("creating the folder %s: %w", path, err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, Owned(path, err)
	}
	lock, err := LockFile(filepath.Join(path, lockName))
	if err != nil {
		dir.Close()
		return nil, Owned(path, err)
	}
	return &Folder{path: path, noSync: o.NoSync, lock: lock, dir: dir, syncs: syncs, places: make(map[string]os.FileInfo)}, nil
}

// Owned adds the owner of a folder to an error, if this process may not use the
// folder because it belongs to another user.
func Owned(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("the folder %s belongs to %s, and this process runs as %s: run the server as the owner of its data, or give it its own folder (%w)", path, owner(path), userName(os.Geteuid()), err)
}

// userName returns a user's name and number, or only the number if there is no
// name.
func userName(id int) string {
	number := strconv.Itoa(id)
	if u, err := user.LookupId(number); err == nil {
		return fmt.Sprintf("%s (user %s)", u.Username, number)
	}
	return "user " + number
}

// makeFolder creates a folder and the missing folders above it, and syncs the
// parent of each.
func makeFolder(path string, o Options, syncs *syncMeter) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return errors.New("a file with that name exists")
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeFolder(parent, o, syncs); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if o.NoSync {
		return nil
	}
	dir, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	return syncs.do(parent, func() error { return syncFolder(dir) })
}

// LockedError says that a folder is in use.
type LockedError struct {
	// Path is the folder's lock file.
	Path string

	// Holder describes the process that has locked the folder, for messages to
	// people.
	Holder string
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("the folder %s is in use by %s: two servers in one folder would destroy each other's data; stop the other one, or give this one its own folder", filepath.Dir(e.Path), e.Holder)
}

// ObserveSyncs makes the folder call f after each sync with the path and the time
// that the sync took. Several goroutines may call f. Call ObserveSyncs before the
// folder is used.
func (d *Folder) ObserveSyncs(f func(path string, took time.Duration)) { d.syncs.observe = f }

// NoSync reports whether every Sync does nothing.
func (d *Folder) NoSync() bool { return d.noSync }

// Path returns the path of the folder.
func (d *Folder) Path() string { return d.path }

// Syncs returns how many syncs have succeeded: those of the folder, of its files,
// and of the folders in which OpenFolder created one. Those of SyncSoon do not
// count. With NoSync it stays 0. It is safe for concurrent use.
func (d *Folder) Syncs() uint64 { return d.syncs.done.Load() }

// Close releases the folder. Its files stay as they are.
func (d *Folder) Close() error {
	return errors.Join(d.dir.Close(), d.lock.Close())
}

// Create implements Disk.
func (d *Folder) Create(name string) (File, error) {
	return d.open(name, os.O_CREATE|os.O_TRUNC)
}

// Open implements Disk.
func (d *Folder) Open(name string) (File, error) {
	return d.open(name, 0)
}

func (d *Folder) open(name string, flag int) (File, error) {
	path, err := d.file(name)
	if err != nil {
		return nil, err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if d.places[name] == nil || flag != 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		d.places[name] = info
	}
	return &osFile{f: f, noSync: d.noSync, syncs: d.syncs}, nil
}

// file returns the path of a name, or an error if a Sync has failed.
func (d *Folder) file(name string) (string, error) {
	if name != filepath.Base(name) || !filepath.IsLocal(name) || name == lockName || name == "." {
		return "", fmt.Errorf("%q cannot be the name of a file in %s", name, d.path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return filepath.Join(d.path, name), d.broken
}

// Rename implements Disk.
func (d *Folder) Rename(from, to string) error {
	old, err := d.file(from)
	if err != nil {
		return err
	}
	path, err := d.file(to)
	if err != nil {
		return err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	if err := os.Rename(old, path); err != nil {
		return err
	}
	d.places[to] = d.places[from]
	delete(d.places, from)
	return nil
}

// Remove implements Disk.
func (d *Folder) Remove(name string) error {
	path, err := d.file(name)
	if err != nil {
		return err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	delete(d.places, name)
	return os.Remove(path)
}

// List implements Disk.
func (d *Folder) List() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Name() != lockName && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Sync implements Disk.
func (d *Folder) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noSync || d.broken != nil {
		return d.broken
	}
	if err := d.syncs.do(d.path, func() error { return syncFolder(d.dir) }); err != nil {
		d.broken = fmt.Errorf("syncing the folder %s failed, so nothing in it can be trusted before it is opened again: %w", d.path, err)
	}
	return d.broken
}

// Check implements Disk.
func (d *Folder) Check() error {
	d.changing.Lock()
	defer d.changing.Unlock()
	dir, err := d.dir.Stat()
	if err != nil {
		return err
	}
	if isLost(dir, d.path) {
		return lost("the folder " + d.path)
	}
	for _, name := range slices.Sorted(maps.Keys(d.places)) {
		if path := filepath.Join(d.path, name); d.places[name] != nil && isLost(d.places[name], path) {
			return lost("the file " + path)
		}
	}
	lock, err := d.lock.Stat()
	if err == nil && isLost(lock, d.lock.Name()) {
		err = fmt.Errorf("the file %s was deleted, moved or replaced while the server was running, so nothing keeps a second server out of the folder: make sure that there is none, and start this one again", d.lock.Name())
	}
	return err
}

// isLost reports whether a path no longer leads to this file. It returns false if
// this process may not look up the path, because that proves nothing.
func isLost(file os.FileInfo, path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		return !errors.Is(err, fs.ErrPermission)
	}
	return !os.SameFile(file, now)
}

func lost(what string) error {
	return fmt.Errorf("%s was deleted, moved or replaced while the server was running, so writes acknowledged in the last second may be lost: "+
		"put back what was there and start this server again; if it is gone, never start this server with an empty folder, since it would have forgotten what it promised", what)
}

// syncMeter counts and times the syncs of a folder and its files.
type syncMeter struct {
	// done counts the syncs that succeeded.
	done atomic.Uint64

	// observe is called after each sync; nil for none.
	observe func(path string, took time.Duration)
}

// do runs one sync.
func (m *syncMeter) do(path string, sync func() error) error {
	begun := time.Now()
	err := sync()
	if m.observe != nil {
		m.observe(path, time.Since(begun))
	}
	if err == nil {
		m.done.Add(1)
	}
	return err
}

// osFile is a file of a Folder.
type osFile struct {
	f      *os.File
	noSync bool
	syncs  *syncMeter

	// broken is the error of the Sync that failed; nil if none has.
	broken error

	// syncing is true while syncSoon is running.
	syncing atomic.Bool
}

func (f *osFile) Name() string { return f.f.Name() }

func (f *osFile) Close() error { return f.f.Close() }

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	return f.f.ReadAt(p, off)
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	return f.f.WriteAt(p, off)
}

func (f *osFile) Size() (int64, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) Truncate(size int64) error {
	if f.broken != nil {
		return f.broken
	}
	return f.f.Truncate(size)
}

func (f *osFile) Sync() error {
	if f.noSync || f.broken != nil {
		return f.broken
	}
	if err := f.syncs.do(f.Name(), func() error { return syncData(f.f) }); err != nil {
		f.broken = syncFailed(f.Name(), err)
	}
	return f.broken
}

func (f *osFile) syncSoon() {
	if f.noSync || f.broken != nil || !f.syncing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer f.syncing.Store(false)
		_ = syncData(f.f) // SyncSoon guarantees nothing
	}()
}

// freed is how many bytes of a large file Free frees at once.
const freed = 4 << 20

// shrink shortens a file in steps until little is left. It does nothing to a file
// that still has a name.
func (f *osFile) shrink() error {
	size, err := f.Size()
	for err == nil && size > freed && !f.noSync && nameless(f.f) {
		size -= freed
		err = errors.Join(f.Truncate(size), f.Sync())
	}
	return err
}

// syncFailed is the error of a file that refuses further calls.
func syncFailed(name string, err error) error {
	return fmt.Errorf("syncing %s failed, so nothing written since the last sync can be trusted: %w", name, err)
}

// SyncPath syncs a folder that is not a Disk: the files that were created or renamed
// in it keep their names after a crash.
func SyncPath(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(syncFolder(dir), dir.Close())
}
