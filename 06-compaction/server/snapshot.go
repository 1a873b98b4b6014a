package server

import (
	"errors"
	"fmt"
	"io/fs"

	"example.com/raftsteps/06-compaction/raft"
	"example.com/raftsteps/shared/disk"
	"example.com/raftsteps/shared/journal"
	"example.com/raftsteps/shared/snapshot"
	"example.com/raftsteps/shared/trace"
)

// The files of a server, besides its journal. A snapshot is written aside, or
// comes from a leader, under a name of its own; it gets the name that counts
// when it is complete and synced.
const (
	newestName   = "snapshot"
	writtenName  = "snapshot.written"
	incomingName = "snapshot.incoming"
)

const (
	// defaultCompactBytes is how far the journal grows before it is compacted,
	// if the configuration does not say.
	defaultCompactBytes = 16 << 20

	// keepOf is how many bytes of the bound stand for one entry that stays in
	// the log before a snapshot: a follower that is only that far behind gets
	// entries, not a snapshot.
	keepOf = 1 << 10

	// chunkBytes is how much of a snapshot one message carries.
	chunkBytes = 256 << 10
)

// snapshots are the snapshot files of a server.
type snapshots struct {
	// newest is open for reading; nil if there is none. size is its length.
	newest disk.File
	size   int64

	// writing is true while one is written beside the server.
	writing bool

	// incoming is what comes from a leader; nil if nothing does.
	incoming disk.File

	// floor is how long the journal was after it was last rewritten.
	floor int64

	// err is a failure of the disk that Flush has to report.
	err error
}

// loadSnapshot brings the state machine to where the newest snapshot was taken,
// and returns that place.
func (s *Server) loadSnapshot(saved journal.Recovered) (raft.Position, error) {
	m := newMachine()
	h, err := snapshot.Read(s.world.Disk, newestName, m.load)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h = snapshot.Header{Stage: Stage, Cluster: s.world.Config.Cluster}
	case err != nil:
		return raft.Position{}, err
	}
	if err := s.checkHeader(h); err != nil {
		return raft.Position{}, err
	}
	if h.Index < saved.Base.Index {
		return raft.Position{}, fmt.Errorf("the journal begins behind entry %d, but the snapshot ends in entry %d: what is between is lost; give this server's place to a new one with an empty folder", saved.Base.Index, h.Index)
	}
	s.machine = m
	at := raft.Position{Term: raft.Term(h.Term), Index: raft.Index(h.Index)}
	if at.Index == 0 {
		return at, nil
	}
	return at, s.openNewest()
}

func (s *Server) checkHeader(h snapshot.Header) error {
	if h.Stage != Stage || h.Cluster != s.world.Config.Cluster {
		return fmt.Errorf("the snapshot belongs to cluster %q of stage %s, and this is cluster %q of stage %s", h.Cluster, h.Stage, s.world.Config.Cluster, Stage)
	}
	return nil
}

func (s *Server) openNewest() error {
	f, err := s.world.Disk.Open(newestName)
	if err != nil {
		return err
	}
	if s.snapshots.newest != nil {
		s.snapshots.newest.Close()
	}
	s.snapshots.newest = f
	s.snapshots.size, err = f.Size()
	return err
}

// takeSnapshot begins a snapshot when the journal has grown by its bound since
// the last, or by the size of the last if that is more: so the disk is written
// no more than twice for each byte. The state is frozen in no time and written
// beside the server.
func (s *Server) takeSnapshot() {
	bound := s.compactBytes()
	status := s.rules.Status()
	if s.snapshots.writing || status.Applied == status.Snapshot.Index || s.journal.Size()-s.snapshots.floor < max(bound, s.snapshots.size) {
		return
	}
	s.snapshots.writing = true
	at := s.rules.Position(status.Applied)
	view := s.machine.freeze()
	s.world.Work(
		func() error { return s.writeSnapshot(view, at) },
		func(err error) {
			view.close()
			s.snapshots.writing = false
			s.snapshots.err = errors.Join(s.snapshots.err, err, s.useSnapshot(at, err))
		})
}

func (s *Server) compactBytes() int64 {
	if bound := s.world.Config.CompactBytes; bound > 0 {
		return bound
	}
	return defaultCompactBytes
}

// writeSnapshot runs beside the server and must touch nothing of it but the
// disk.
func (s *Server) writeSnapshot(view *view, at raft.Position) error {
	w, err := snapshot.Create(s.world.Disk, writtenName, snapshot.Header{
		Stage: Stage, Cluster: s.world.Config.Cluster, Index: uint64(at.Index), Term: uint64(at.Term),
	})
	if err != nil {
		return err
	}
	view.save(w)
	return w.Finish()
}

// useSnapshot puts the snapshot that was written in place of the one before,
// unless a leader has sent a newer one meanwhile, and compacts the log.
func (s *Server) useSnapshot(at raft.Position, failed error) error {
	switch {
	case failed != nil:
		return nil
	case at.Index <= s.rules.Status().Snapshot.Index:
		return s.world.Disk.Remove(writtenName)
	}
	if err := s.replaceNewest(writtenName); err != nil {
		return err
	}
	s.rules.Compact(at.Index, raft.Index(s.compactBytes()/keepOf))
	return nil
}

// replaceNewest gives a complete and synced file the name that counts.
func (s *Server) replaceNewest(name string) error {
	if err := s.world.Disk.Rename(name, newestName); err != nil {
		return err
	}
	if err := s.world.Disk.Sync(); err != nil {
		return err
	}
	return s.openNewest()
}

// fillChunk puts into a message the piece of the snapshot that it is to bring.
func (s *Server) fillChunk(m raft.InstallSnapshot) (raft.InstallSnapshot, error) {
	data, last, err := snapshot.Chunk(s.snapshots.newest, s.snapshots.size, int64(m.Offset), chunkBytes)
	m.Data, m.Done = data, last
	return m, err
}

// storeChunk keeps a piece of a leader's snapshot. With the last one, the whole
// is checked and put in the place of this server's state.
func (s *Server) storeChunk(m raft.InstallSnapshot) error {
	if m.Offset == 0 {
		if err := s.dropIncoming(); err != nil {
			return err
		}
		f, err := s.world.Disk.Create(incomingName)
		if err != nil {
			return err
		}
		s.snapshots.incoming = f
	}
	if s.snapshots.incoming == nil {
		s.rules.Discard()
		return nil
	}
	if _, err := s.snapshots.incoming.WriteAt(m.Data, int64(m.Offset)); err != nil {
		return err
	}
	if !m.Done {
		return nil
	}
	if err := s.snapshots.incoming.Sync(); err != nil {
		return err
	}
	return s.install(m.LastIncluded)
}

// install checks the snapshot that has come and takes it over. One that is
// damaged is dropped, and the leader begins again.
func (s *Server) install(at raft.Position) error {
	if err := s.dropIncoming(); err != nil {
		return err
	}
	m := newMachine()
	h, err := snapshot.Read(s.world.Disk, incomingName, m.load)
	if err == nil {
		err = s.checkHeader(h)
	}
	if err == nil && (h.Index != uint64(at.Index) || h.Term != uint64(at.Term)) {
		err = fmt.Errorf("the snapshot ends in %d@%d, not in %v as the leader said", h.Term, h.Index, at)
	}
	if err != nil {
		s.emit(trace.Event{Kind: trace.Drop, To: s.world.ID, Index: uint64(at.Index), Text: err.Error()})
		s.rules.Discard()
		return nil
	}
	if err := s.replaceNewest(incomingName); err != nil {
		return err
	}
	s.machine = m
	s.rules.Restore(at)
	return nil
}

func (s *Server) dropIncoming() error {
	f := s.snapshots.incoming
	s.snapshots.incoming = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// rewrite puts the compacted log in place of the journal.
func (s *Server) rewrite() error {
	status := s.rules.Status()
	base, log := s.rules.Saved()
	entries := make([]journal.Entry, len(log))
	for i, e := range log {
		entries[i] = toJournal(e)
	}
	err := s.journal.Rewrite(toState(status.State), journal.Base{Index: uint64(base.Index), Term: uint64(base.Term)}, entries)
	s.snapshots.floor = s.journal.Size()
	return err
}
