package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
		return nil, running(dir, r.pid)
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	if !tryLock(file) {
		file.Close()
		return nil, running(dir, 0)
	}
	return &lock{file}, nil
}

var errRunning = errors.New("a cluster is already running")

func running(dir string, pid int) error {
	process := ""
	if pid != 0 {
		process = fmt.Sprintf(" (process %d)", pid)
	}
	return fmt.Errorf("%w on %s%s; stop it with ^C in its terminal, or start another with --data and --base-port", errRunning, dir, process)
}

// release gives the folder free. The file stays: to remove it could take the
// lock away from somebody who has just opened it.
func (l *lock) release() error { return l.file.Close() }
