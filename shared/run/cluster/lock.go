package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"example.com/raftsteps/shared/core/disk"
)

// lock says that a supervisor uses a data folder. The system lets go of it
// when the process ends, in whatever way.
type lock struct {
	file *os.File
}

// acquire locks a data folder, or says who has it.
func acquire(dir string) (*lock, error) {
	// Where the system has no locks of files, a supervisor that answers is the
	// lock.
	if r, err := Connect(dir); err == nil {
		return nil, running(dir, fmt.Sprintf("process %d", r.pid))
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder: %w", disk.Owned(dir, err))
	}
	if !tryLock(file) {
		holder := disk.Holder(file)
		file.Close()
		return nil, running(dir, holder)
	}
	disk.WriteHolder(file)
	return &lock{file}, nil
}

var errRunning = errors.New("a cluster is already running")

func running(dir, holder string) error {
	return fmt.Errorf("%w on %s (%s); stop it with ^C in its terminal, or start another with --data and --base-port", errRunning, dir, holder)
}

// release gives the folder free. The file stays: to remove it could take the
// lock away from somebody who has just opened it.
func (l *lock) release() error { return l.file.Close() }
