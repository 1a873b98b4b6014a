package host

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

// disks knows which server has which disk. The connections ask it before a peer's
// messages are delivered. It is a wire.Disks.
type disks struct {
	id      uint64
	changes bool
	log     *slog.Logger

	mu    sync.Mutex
	peers *node.Peers

	// told has, for each peer, the disk whose refusal was logged.
	told map[uint64]disk.Incarnation

	// lost receives the error with which this server must stop, once a peer knows
	// it with another disk.
	lost chan error
}

// newDisks returns a disks that knows nothing before open is called. changes is
// true if the members of the cluster can change.
func newDisks(id uint64, changes bool, log *slog.Logger) *disks {
	return &disks{id: id, changes: changes, log: log, peers: new(node.Peers), told: make(map[uint64]disk.Incarnation), lost: make(chan error, 1)}
}

// open reads what the server remembers. It is called before there are
// connections.
func (d *disks) open(folder disk.Disk, own disk.Incarnation) (err error) {
	p, err := node.OpenPeers(folder, own)
	if err == nil {
		d.peers = p
	}
	return err
}

func (d *disks) Own() disk.Incarnation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers.Own()
}

func (d *disks) Known(id uint64) disk.Incarnation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers.Known(id)
}

func (d *disks) Admit(id uint64, now disk.Incarnation) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.peers.Admit(id, now)
	var other *node.DiskError
	switch {
	case errors.As(err, &other):
		if told, ok := d.told[id]; !ok || told != now {
			d.told[id] = now
			d.log.Error("a peer is refused because it has lost its disk; "+node.DiskAdvice(id, d.changes), "peer", id, "error", err)
		}
	case err != nil:
		d.log.Warn("a peer is refused until this server can remember its disk", "peer", id, "error", err)
	}
	return err
}

func (d *disks) Disowned(by uint64, known disk.Incarnation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case d.lost <- node.Disowned(d.id, by, known, d.peers.Own(), d.changes):
	default: // one is enough
	}
}

// wait returns nil when ctx is done, or an error when the server must stop.
func (d *disks) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.lost:
		return err
	}
}

// introduced is a Transport that adds a text before each message: which disk the
// sender has, and which disk of the receiver it knows. The handshake of TCP says
// the same:
//
//	005eed0fa11d15c5 7d0c6f1be2a95318 {…}
type introduced struct {
	Transport
	disks *disks
}

// digits is the length of an incarnation, and introduction the length of the text
// in front of a message.
const (
	digits       = 16
	introduction = 2*digits + 2
)

// Send is Transport.Send.
func (t introduced) Send(to uint64, line []byte) bool {
	b := make([]byte, 0, introduction+len(line))
	b = append(b, t.disks.Own().String()...)
	b = append(b, ' ')
	b = append(b, t.disks.Known(to).String()...)
	b = append(b, ' ')
	return t.Transport.Send(to, append(b, line...))
}

// Run is Transport.Run.
func (t introduced) Run(ctx context.Context, receive func(from uint64, line []byte)) error {
	return t.Transport.Run(ctx, func(from uint64, line []byte) {
		if t.meet(from, line) {
			receive(from, line[introduction:])
		}
	})
}

// meet reports whether a message may be delivered.
func (t introduced) meet(from uint64, line []byte) bool {
	if len(line) < introduction {
		return false
	}
	now, err := disk.ParseIncarnation(line[:digits])
	if err != nil {
		return false
	}
	known, err := disk.ParseIncarnation(line[digits+1 : introduction-1])
	if err != nil {
		return false
	}
	if known != 0 && known != t.disks.Own() {
		t.disks.Disowned(from, known)
		return false
	}
	return t.disks.Admit(from, now) == nil
}
