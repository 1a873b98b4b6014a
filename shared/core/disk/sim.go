package disk

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
)

// ErrPowerCut is the error of every call between a power cut and Crash.
var ErrPowerCut = errors.New("the power is cut")

// SectorSize is the size in bytes of the unit that a disk writes as a whole. A
// crash leaves each sector of an unsynced write either old or new, except for one
// sector per file that may be torn.
const SectorSize = 512

// OpKind is a kind of disk operation, apart from reading.
type OpKind string

// The kinds of operations.
const (
	OpCreate     OpKind = "create"
	OpWrite      OpKind = "write"
	OpTruncate   OpKind = "truncate"
	OpSync       OpKind = "sync"
	OpRename     OpKind = "rename"
	OpRemove     OpKind = "remove"
	OpSyncFolder OpKind = "sync folder"
)

// Op is one operation.
type Op struct {
	Kind OpKind

	// File is the name of the file; for a rename the old name, and "" for
	// OpSyncFolder.
	File string

	// To is the new name of a rename.
	To string

	// Bytes is the length of a write, or the size after a truncate.
	Bytes int
}

// Stats counts what has happened on a Sim since NewSim.
type Stats struct {
	// Ops counts the operations of all kinds that have begun, also those that
	// failed.
	Ops int

	// Writes and Syncs count the writes and the syncs of files, Bytes the bytes
	// written.
	Writes int
	Syncs  int
	Bytes  int

	// Lost counts crashes that lost something that was not synced; Torn counts
	// those that kept a part of a write and lost another part.
	Lost int
	Torn int
}

// Sim is a simulated folder. It tracks separately what is on the disk and what
// the operating system holds only in memory. All randomness comes from the
// generators it is given, so the same calls give the same disk. It is not safe
// for concurrent use.
type Sim struct {
	// Hook, if not nil, is called before every operation. If it returns an
	// error, the operation fails with it and has no effect.
	Hook func(Op) error

	// NoSync makes every Sync do nothing, as Options.NoSync does.
	NoSync bool

	path  string
	stats Stats

	// files are all files that have a name, now or after a crash, in the order of
	// their creation.
	files []*simFile

	// names is the folder as a process sees it, synced is the folder on disk, and
	// changes lead from synced to names.
	names   map[string]*simFile
	synced  map[string]*simFile
	changes []change

	// life counts the processes that have used the disk. Handles of an earlier
	// process refuse every call.
	life int

	// powerAt is the number of the operation at which the power is cut, 0 for
	// never.
	powerAt int

	// syncAt is the number of the sync of a file that fails, 0 for none. chance
	// is the probability with which each sync of a file fails, if rng is not nil.
	syncAt int
	chance float64
	rng    *rand.Rand

	// capacity is how many bytes all files together can have, -1 for no limit.
	capacity int64

	broken error
}

// NewSim returns an empty disk. path is for messages only.
func NewSim(path string) *Sim {
	return &Sim{path: path, names: map[string]*simFile{}, synced: map[string]*simFile{}, capacity: -1}
}

// Stats returns the counters.
func (d *Sim) Stats() Stats { return d.stats }

// CutPower cuts the power at the nth operation from now; 1 is the next one. That
// operation and all later calls fail with ErrPowerCut and do nothing, until Crash
// decides what is left. 0 cancels the power cut.
func (d *Sim) CutPower(nth int) { d.powerAt = d.at(nth, d.stats.Ops) }

// PowerIsCut reports whether the power was cut and Crash has not been called yet.
func (d *Sim) PowerIsCut() bool { return d.dead() }

// FailSync makes the nth sync of a file from now fail; 1 is the next one. As on
// Linux, the data that it should have saved is lost although it can still be
// read, and a later sync through another handle succeeds without saving that
// data. 0 cancels the failure.
func (d *Sim) FailSync(nth int) { d.syncAt = d.at(nth, d.stats.Syncs) }

// FailSyncs makes each sync of a file fail with this probability.
func (d *Sim) FailSyncs(chance float64, rng *rand.Rand) { d.chance, d.rng = chance, rng }

// Fill leaves space for this many more bytes. A write that needs more writes only
// the part that fits and fails with syscall.ENOSPC. -1 removes the limit.
func (d *Sim) Fill(room int64) {
	d.capacity = room
	if room >= 0 {
		d.capacity += d.used()
	}
}

func (d *Sim) at(nth, now int) int {
	if nth <= 0 {
		return 0
	}
	return now + nth
}

func (d *Sim) used() int64 {
	var n int64
	for _, f := range d.names {
		n += int64(len(f.live))
	}
	return n
}

// Kill ends the process that uses the disk, as kill -9 does: its open files are
// closed. The machine keeps running, so nothing that was written is lost.
func (d *Sim) Kill() {
	d.life++
	d.broken = nil
	d.powerAt = 0
}

// Crash cuts the power. Everything that was synced survives, and by chance a part
// of the rest. Of the unsynced writes of a file, either a prefix survives whose
// last write is torn at any byte, or any set of their sectors, or all of them, or
// none. Each unsynced change of the folder survives or is lost.
func (d *Sim) Crash(rng *rand.Rand) {
	c := crash{rng: rng}
	for _, f := range d.files {
		f.durable = c.survivors(f)
	}
	for _, ch := range d.changes {
		if rng.IntN(2) == 0 {
			c.lost = true
			continue
		}
		ch.apply(d.synced)
	}
	if c.lost {
		d.stats.Lost++
	}
	if c.torn {
		d.stats.Torn++
	}
	d.CrashWorst()
}

// CrashWorst cuts the power. Only what was synced survives, as Durable shows it.
func (d *Sim) CrashWorst() {
	d.Kill()
	for _, f := range d.files {
		f.live, f.pending = slices.Clone(f.durable), nil
	}
	d.names, d.changes = maps.Clone(d.synced), nil
	d.forget()
}

// forget drops the files that have no name any longer.
func (d *Sim) forget() {
	d.files = slices.DeleteFunc(d.files, func(f *simFile) bool {
		for _, g := range d.names {
			if f == g {
				return false
			}
		}
		for _, g := range d.synced {
			if f == g {
				return false
			}
		}
		for _, c := range d.changes {
			for _, e := range c {
				if e.file == f {
					return false
				}
			}
		}
		return true
	})
}

// Clone returns a copy that shares nothing with the original. No file is open
// on it, and it has no hook and no generator.
func (d *Sim) Clone() *Sim {
	c := *d
	c.Hook, c.rng, c.chance = nil, nil, 0
	copies := make(map[*simFile]*simFile, len(d.files))
	c.files = make([]*simFile, len(d.files))
	for i, f := range d.files {
		// The data of a write never changes and can be shared.
		c.files[i] = &simFile{slices.Clone(f.live), slices.Clone(f.durable), slices.Clone(f.pending)}
		copies[f] = c.files[i]
	}
	names := func(m map[string]*simFile) map[string]*simFile {
		out := make(map[string]*simFile, len(m))
		for name, f := range m {
			out[name] = copies[f]
		}
		return out
	}
	c.names, c.synced = names(d.names), names(d.synced)
	c.changes = make([]change, len(d.changes))
	for i, ch := range d.changes {
		c.changes[i] = slices.Clone(ch)
		for j := range ch {
			c.changes[i][j].file = copies[ch[j].file]
		}
	}
	c.Kill()
	c.powerAt = d.powerAt
	return &c
}

// Corrupt changes one byte of a file, as a failing disk would, on the disk and in
// memory: the byte is XORed with mask. Corrupt returns false if there is no such
// byte.
func (d *Sim) Corrupt(name string, off int, mask byte) bool {
	f := d.names[name]
	if f == nil || off < 0 || off >= len(f.live) {
		return false
	}
	f.live[off] ^= mask
	if off < len(f.durable) {
		f.durable[off] ^= mask
	}
	return true
}
