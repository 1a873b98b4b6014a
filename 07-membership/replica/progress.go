package replica

import (
	"context"
	"sync"

	"example.com/raftsteps/07-membership/server"
	"example.com/raftsteps/shared/core/api"
)

// observed is a server that reports its progress and passes commands on.
type observed struct {
	*server.Server
	progress *progress
	forwards *forwards
}

// Flush is node.Server.Flush.
func (o *observed) Flush() error {
	err := o.Server.Flush()
	if err == nil {
		applied, leader, _ := o.Progress()
		o.progress.set(applied, leader)
	}
	return err
}

// progress is the progress of a server and the goroutines that wait for more.
// Its zero value is that of a new server.
type progress struct {
	mu      sync.Mutex
	applied uint64
	leader  uint64

	// changed is closed at the next change; nil if nobody waits.
	changed chan struct{}
}

func (p *progress) set(applied, leader uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed != nil && (applied != p.applied || leader != p.leader) {
		close(p.changed)
		p.changed = nil
	}
	p.applied, p.leader = applied, leader
}

// get returns the progress, and a channel that is closed when it changes.
func (p *progress) get() (applied, leader uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.applied, p.leader, p.changed
}

// wait waits until enough returns true for the server's progress.
func (r *Replica[M]) wait(ctx context.Context, enough func(applied, leader uint64) bool) error {
	for {
		applied, leader, changed := r.progress.get()
		if enough(applied, leader) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.life.Done():
			return &api.Error{Code: api.Unavailable, Definite: true, Message: "the replica has been closed, or has stopped"}
		}
	}
}
