package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"example.com/raftsteps/shared/core/disk"
)

// lock marks a data folder as used by a supervisor. The system releases it when
// the process ends in any way. The file is nil on systems without file locks.
type lock struct {
	file *os.File
}

// acquire locks a data folder. Its error names the process that holds the lock.
func acquire(dir string) (*lock, error) {
	// On a system without file locks, a supervisor that answers replaces the
	// lock.
	if r, err := Connect(dir); err == nil {
		return nil, running(dir, fmt.Sprintf("process %d", r.pid))
	}
	file, err := disk.LockFile(filepath.Join(dir, lockName))
	var locked *disk.LockedError
	var none *disk.NoLocksError
	switch {
	case errors.As(err, &locked):
		return nil, running(dir, locked.Holder)
	case errors.As(err, &none):
		return &lock{}, nil
	case err != nil:
		return nil, fmt.Errorf("the data folder: %w", disk.Owned(dir, err))
	}
	return &lock{file}, nil
}

var errRunning = errors.New("a cluster is already running")

func running(dir, holder string) error {
	return fmt.Errorf("%w on %s (%s); stop it with ^C in its terminal, or start another with --data and --base-port", errRunning, dir, holder)
}

// release unlocks the folder. The file stays: another process may just have
// opened it, and removing it would break that lock.
func (l *lock) release() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
