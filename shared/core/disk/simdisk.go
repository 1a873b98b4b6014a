package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"syscall"
)

// errGone is the error of every call on a file whose process has ended.
var errGone = fmt.Errorf("the process that opened the file has ended: %w", fs.ErrClosed)

// begin counts an operation and returns an error if the operation must fail.
func (d *Sim) begin(op Op) error {
	if d.dead() {
		return ErrPowerCut
	}
	d.stats.Ops++
	if d.dead() {
		return ErrPowerCut
	}
	if d.Hook != nil {
		return d.Hook(op)
	}
	return nil
}

func (d *Sim) dead() bool { return d.powerAt > 0 && d.stats.Ops >= d.powerAt }

// change records a change of the folder.
func (d *Sim) change(c change) {
	c.apply(d.names)
	d.changes = append(d.changes, c)
}

// Create implements Disk.
func (d *Sim) Create(name string) (File, error) {
	if err := d.begin(Op{Kind: OpCreate, File: name}); err != nil {
		return nil, d.error("create", name, err)
	}
	if d.broken != nil {
		return nil, d.broken
	}
	f := d.names[name]
	if f == nil {
		f = &simFile{}
		d.files = append(d.files, f)
		d.change(change{{name, f}})
	} else if len(f.live) > 0 {
		f.write(write{})
	}
	return &simHandle{d: d, f: f, name: name, life: d.life}, nil
}

// Open implements Disk.
func (d *Sim) Open(name string) (File, error) {
	f := d.names[name]
	switch {
	case d.dead():
		return nil, d.error("open", name, ErrPowerCut)
	case d.broken != nil:
		return nil, d.broken
	case f == nil:
		return nil, d.error("open", name, fs.ErrNotExist)
	}
	return &simHandle{d: d, f: f, name: name, life: d.life}, nil
}

// Rename implements Disk.
func (d *Sim) Rename(from, to string) error {
	if err := d.begin(Op{Kind: OpRename, File: from, To: to}); err != nil {
		return d.error("rename", from, err)
	}
	f := d.names[from]
	switch {
	case d.broken != nil:
		return d.broken
	case f == nil:
		return d.error("rename", from, fs.ErrNotExist)
	}
	d.change(change{{from, nil}, {to, f}})
	return nil
}

// Remove implements Disk.
func (d *Sim) Remove(name string) error {
	if err := d.begin(Op{Kind: OpRemove, File: name}); err != nil {
		return d.error("remove", name, err)
	}
	switch {
	case d.broken != nil:
		return d.broken
	case d.names[name] == nil:
		return d.error("remove", name, fs.ErrNotExist)
	}
	d.change(change{{name, nil}})
	return nil
}

// List implements Disk.
func (d *Sim) List() ([]string, error) {
	if d.dead() {
		return nil, ErrPowerCut
	}
	return slices.Sorted(maps.Keys(d.names)), nil
}

// Sync implements Disk.
func (d *Sim) Sync() error {
	if err := d.begin(Op{Kind: OpSyncFolder}); err != nil {
		d.broken = syncFailed(d.path, err)
	}
	if d.broken != nil || d.NoSync {
		return d.broken
	}
	d.synced, d.changes = maps.Clone(d.names), nil
	d.forget()
	return nil
}

// Check implements Disk. No other process uses a simulated folder.
func (d *Sim) Check() error { return nil }

func (d *Sim) error(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: d.path + "/" + name, Err: err}
}

// simHandle is an open file of a Sim.
type simHandle struct {
	d    *Sim
	f    *simFile
	name string
	life int

	// broken is the error of the Sync that failed, or says that the file was
	// closed; nil if neither has happened.
	broken error
}

func (h *simHandle) Name() string { return h.d.path + "/" + h.name }

func (h *simHandle) check() error {
	switch {
	case h.broken != nil:
		return h.broken
	case h.life != h.d.life:
		return h.error("use", errGone)
	case h.d.dead():
		return h.error("use", ErrPowerCut)
	}
	return nil
}

func (h *simHandle) error(op string, err error) error { return h.d.error(op, h.name, err) }

func (h *simHandle) begin(op Op) error {
	if err := h.check(); err != nil {
		return err
	}
	op.File = h.name
	if err := h.d.begin(op); err != nil {
		return h.error(string(op.Kind), err)
	}
	return nil
}

func (h *simHandle) Size() (int64, error) {
	return int64(len(h.f.live)), h.check()
}

func (h *simHandle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.check(); err != nil {
		return 0, err
	}
	return readAt(h.f.live, p, off)
}

func readAt(data, p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(data)) {
		return 0, io.EOF
	}
	n := copy(p, data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *simHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.begin(Op{Kind: OpWrite, Bytes: len(p)}); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, h.error("write", fs.ErrInvalid)
	}
	n := int64(len(p))
	if h.d.capacity >= 0 {
		// A write needs space only as far as it makes the file longer.
		longest := max(int64(len(h.f.live)), int64(len(h.f.live))+h.d.capacity-h.d.used())
		n = max(0, min(n, longest-off))
	}
	h.d.stats.Writes++
	h.d.stats.Bytes += int(n)
	if n > 0 {
		h.f.write(write{off, slices.Clone(p[:n])})
	}
	if int(n) < len(p) {
		return int(n), h.error("write", errFull)
	}
	return len(p), nil
}

func (h *simHandle) Truncate(size int64) error {
	if err := h.begin(Op{Kind: OpTruncate, Bytes: int(size)}); err != nil {
		return err
	}
	if size < 0 {
		return h.error("truncate", fs.ErrInvalid)
	}
	h.f.write(write{off: size})
	return nil
}

func (h *simHandle) Sync() error {
	if err := h.begin(Op{Kind: OpSync}); err != nil {
		h.broken = err
		return err
	}
	d := h.d
	d.stats.Syncs++
	if d.NoSync {
		return nil
	}
	if d.stats.Syncs == d.syncAt || d.rng != nil && d.rng.Float64() < d.chance {
		h.f.pending = nil
		h.broken = syncFailed(h.Name(), errSync)
		return h.broken
	}
	for _, w := range h.f.pending {
		h.f.durable = w.apply(h.f.durable)
	}
	h.f.pending = nil
	return nil
}

func (h *simHandle) Close() error {
	if errors.Is(h.broken, fs.ErrClosed) {
		return h.broken
	}
	h.broken = h.error("use", fs.ErrClosed)
	return nil
}

// The errors of the system that a simulated disk gives. They are these errors for
// errors.Is. Their words are Linux's everywhere, since a run must tell the same on
// every system, and in a browser.
var (
	errFull error = systemError{syscall.ENOSPC, "no space left on device"}
	errSync error = systemError{syscall.EIO, "input/output error"}
)

type systemError struct {
	syscall.Errno
	words string
}

func (e systemError) Error() string { return e.words }

func (e systemError) Unwrap() error { return e.Errno }
