package host

import (
	"log/slog"
	"sync"
	"time"

	"example.com/raftsteps/shared/core/disk"
)

// slowInterval is the shortest time between two log lines about a slow disk.
const slowInterval = 10 * time.Second

// observable is a disk that reports how long its syncs take. A simulated one does
// not.
type observable interface {
	ObserveSyncs(func(path string, took time.Duration))
}

// syncs measures how long the disk takes. While a leader waits for its disk it
// sends no heartbeats, so a sync longer than an election timeout can cost it its
// leadership.
type syncs struct {
	meter Meter
	log   *slog.Logger

	// limit is the lowest election timeout; 0 in stages without elections.
	limit time.Duration

	// told is when a slow disk was last logged.
	told time.Time

	// longest is the longest sync since the last call of begin, and path the file
	// that was synced. A sync may be of the server's round or of work alongside
	// it.
	mu      sync.Mutex
	longest time.Duration
	path    string
}

func (s *syncs) observe(d disk.Disk) {
	if d, ok := d.(observable); ok {
		d.ObserveSyncs(s.took)
	}
}

// took records one sync. It is safe for concurrent use.
func (s *syncs) took(path string, d time.Duration) {
	s.meter.Synced(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d > s.longest {
		s.longest, s.path = d, path
	}
}

// begin begins a round.
func (s *syncs) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = 0
}

// end ends a round with the duration of its Flush, and logs a warning if it was
// slow because of the disk: a sync of work alongside the server delays no
// heartbeat. It returns the longest sync.
func (s *syncs) end(flush time.Duration, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == 0 || min(s.longest, flush) < s.limit || now.Sub(s.told) < slowInterval {
		return s.longest
	}
	s.told = now
	s.log.Warn("fsync took longer than the election timeout: meanwhile this server sends no heartbeats, so others may be elected in its place; "+
		"use a faster disk, or raise election_timeout_ms on all servers",
		"file", s.path, "took", s.longest.Round(time.Millisecond), "election_timeout", s.limit)
	return s.longest
}
