package server

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/snapshot"
	"example.com/raftsteps/shared/core/trace"
)

// The files of a server. A snapshot is written, or comes from a leader, under a
// temporary name; it gets its final name when it is complete and synced.
const (
	newestName   = "snapshot"
	writtenName  = "snapshot.written"
	incomingName = "snapshot.incoming"
)

const (
	// defaultCompactBytes is how far the journal grows before it is compacted,
	// if the configuration does not say.
	defaultCompactBytes = 16 << 20

	// keptPart of the bound is for entries that stay in the log before a
	// snapshot: a follower that is only that far behind gets entries, not a
	// snapshot. entryBytes is what the journal adds to each command.
	keptPart   = 4
	entryBytes = 100

	// smallTail is how many entries more a new journal may need when it takes
	// the place of the old one.
	smallTail = 500

	// maxPasses is how often the tail may be longer than that: under a load that
	// brings more entries in each pass, it would never be small.
	maxPasses = 3

	// mostWait is how many times its bound the journal may reach while a
	// follower is sent the present snapshot.
	mostWait = 4

	// chunkBytes is how much of a snapshot one message carries.
	chunkBytes = 256 << 10

	// retryPause is how long a server waits after a snapshot that it could not
	// write, keep or send.
	retryPause = 5 * time.Second
)

// snapshots are the snapshot files of a server.
type snapshots struct {
	// newest is open for reading; nil if there is none. size is its length.
	newest disk.File
	size   int64

	// next is being written alongside the server; nil if none is.
	next *compaction

	// incoming is what comes from a leader; nil if nothing does.
	incoming disk.File

	// floor is how long the journal was after it was last rewritten.
	floor int64

	// retry is the tick before which nothing is tried again that has failed, and
	// failed is true from the first failure until something succeeds.
	retry  uint64
	failed bool
}

// postpone logs that something about a snapshot has failed and will be tried
// again: the journal still has everything. It logs once, until something
// succeeds.
func (s *Server) postpone(what string, err error) {
	s.snapshots.retry = s.ticks + uint64(node.Ticks(retryPause))
	if !s.snapshots.failed {
		s.snapshots.failed = true
		s.emit(trace.Event{Kind: trace.Trouble, Text: fmt.Sprintf("%s and will try again every %v; nothing is lost, and the log stays longer meanwhile: %v", what, retryPause, err)})
	}
}

// postponed reports whether it is too early to try again.
func (s *Server) postponed() bool { return s.ticks < s.snapshots.retry }

// checkFolder refuses a folder in which there is a snapshot and no journal. An
// empty journal would be created instead, as for a server that has promised
// nothing yet.
func checkFolder(d disk.Disk) error {
	names, err := d.List()
	if err == nil && slices.Contains(names, newestName) && !slices.Contains(names, journalName) {
		err = errors.New("there is a snapshot, but its journal is gone, and with it the votes and entries that this server has promised to keep: put the journal back; without it, do not start this server again")
	}
	return err
}

// loadSnapshot brings the state machine to where the newest snapshot was taken,
// removes what a crash has left of snapshots that were not finished,
// and returns its header.
func (s *Server) loadSnapshot(saved journal.Recovered) (snapshot.Header, error) {
	m := s.empty()
	h, err := snapshot.Read(s.world.Disk, newestName, m.Restore)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h = snapshot.Header{Stage: Stage, Cluster: s.world.Config.Cluster}
	case err != nil:
		return h, err
	}
	if err := s.checkHeader(h); err != nil {
		return h, err
	}
	if h.Index < saved.Base.Index {
		return h, fmt.Errorf("the journal begins after entry %d, but the snapshot ends in entry %d: what is between is lost; keep the folder, and do not start this server again with an empty one, since it would have forgotten what it promised", saved.Base.Index, h.Index)
	}
	if err := disk.Sweep(s.world.Disk, writtenName, incomingName); err != nil {
		return h, err
	}
	s.machine = m
	if h.Index == 0 {
		return h, nil
	}
	return h, s.openNewest()
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
	return s.setNewest(f)
}

// setNewest lets an open file replace the newest snapshot.
func (s *Server) setNewest(f disk.File) (err error) {
	s.free(s.snapshots.newest)
	s.snapshots.newest = f
	s.snapshots.size, err = f.Size()
	return err
}

// compactLog continues with the snapshot under way, or begins one when it is
// time. It is called when the journal holds all that the rules do.
func (s *Server) compactLog() error {
	c := s.snapshots.next
	switch {
	case c == nil:
		s.takeSnapshot()
	case c.done:
		return s.finishSnapshot(c)
	}
	return nil
}

// takeSnapshot begins a snapshot when the journal has grown by its bound since
// the last, or by the size of the last if that is more: so each byte is written
// to disk at most twice. Freezing the state takes no time, and it is written
// alongside the server, and so is the journal that will begin there. A server
// that has not learned yet who the members are takes none: the receiver would
// not know them either.
func (s *Server) takeSnapshot() {
	status := s.rules.Status()
	grown := s.grown()
	if grown < 1 || s.postponed() || status.Applied == status.Snapshot.Index || s.rules.Sending() && grown < mostWait {
		return
	}
	if len(s.rules.Config(status.Applied).Voters) == 0 {
		return
	}
	c := &compaction{at: s.rules.Position(status.Applied), view: s.machine.Snapshot()}
	c.base = s.rules.Position(s.base(c.at.Index))
	c.config, c.baseConfig = s.configText(c.at.Index), s.configText(c.base.Index)
	c.last = c.base
	s.snapshots.next = c
	s.beside(c, func() error { return errors.Join(s.writeSnapshot(c), s.writeJournal(c)) })
}

func (s *Server) compactBytes() int64 {
	if bound := s.world.Config.CompactBytes; bound != 0 {
		return bound
	}
	return defaultCompactBytes
}

// grown returns how many times its bound the journal has grown by.
func (s *Server) grown() int64 {
	bound := s.compactBytes()
	if bound < 0 {
		return 1
	}
	return (s.journal.Size() - s.snapshots.floor) / max(bound, s.snapshots.size)
}

// base is the index after which the log begins once there is a snapshot at an
// index.
func (s *Server) base(at raft.Index) raft.Index {
	first, _ := s.rules.Saved()
	for room := s.compactBytes() / keptPart; at > first.Index; at-- {
		if room -= entryBytes + int64(len(s.rules.Entry(at).Command)); room < 0 {
			break
		}
	}
	return at
}

// compaction is a snapshot under way, and the journal that goes with it.
type compaction struct {
	// at is the last entry in the snapshot, base the one before the journal.
	at, base raft.Position
	view     View

	// config is in force at the one, baseConfig at the other.
	config, baseConfig string

	// last is the last entry that journal holds, or will once state and tail
	// are in it.
	last    raft.Position
	journal *journal.Journal
	state   journal.State
	tail    []raft.Entry

	// passes counts how often a long tail was written once the snapshot had its name.
	passes int

	// placed is the snapshot's file once it has its final name; placing is true
	// from before that on. No other file must get that name then.
	placing bool
	placed  disk.File

	// done is true when the work alongside the server is, and err how it went.
	done bool
	err  error

	// lost is the error after which it is unknown which snapshot has the final
	// name.
	lost error
}

// beside continues the work alongside the server, with the entries that came
// since as the new journal's tail.
func (s *Server) beside(c *compaction, work func() error) {
	s.update(c)
	s.start(c, work)
}

func (s *Server) start(c *compaction, work func() error) {
	c.done = false
	s.world.Work(work, func(err error) { c.done, c.err = true, err })
}

func (s *Server) update(c *compaction) {
	status := s.rules.Status()
	c.state, c.tail = toState(status.State), s.rules.Entries(c.last.Index+1)
	c.last = s.rules.Position(status.Last)
}

// writeSnapshot runs alongside the server and must touch nothing of it but the
// disk.
func (s *Server) writeSnapshot(c *compaction) error {
	w, err := snapshot.Create(s.world.Disk, writtenName, snapshot.Header{
		Stage: Stage, Cluster: s.world.Config.Cluster, Index: uint64(c.at.Index), Term: uint64(c.at.Term), Config: c.config,
	})
	if err != nil {
		return err
	}
	return errors.Join(c.view.Save(w.Line), w.Finish())
}

// writeJournal writes the tail into the new journal. It may run alongside the
// server, as writeSnapshot does.
func (s *Server) writeJournal(c *compaction) error {
	if c.journal == nil {
		base := journal.Base{Index: uint64(c.base.Index), Term: uint64(c.base.Term), Config: c.baseConfig}
		next, err := s.journal.Successor(c.state, base, journalEntries(c.tail))
		c.journal = next
		return err
	}
	c.journal.SetState(c.state)
	for _, e := range c.tail {
		c.journal.Append(toJournal(e))
	}
	return c.journal.Sync()
}

// placeSnapshot gives the snapshot its final name, alongside the server. It
// opens the file first: a snapshot that cannot be read must not get the name.
func (s *Server) placeSnapshot(c *compaction) error {
	f, err := s.world.Disk.Open(writtenName)
	if err != nil {
		return err
	}
	if c.lost = s.giveName(writtenName); c.lost != nil {
		return errors.Join(c.lost, f.Close())
	}
	c.placed = f
	return nil
}

// finishSnapshot completes a snapshot: the snapshot gets its name, the new
// journal catches up until few entries are missing, and then replaces the old
// one. Whatever takes time is done alongside the server. If a new leader's
// entries or snapshot have changed the log meanwhile, some of this work is
// thrown away.
func (s *Server) finishSnapshot(c *compaction) error {
	if c.view != nil {
		c.view.Close()
		c.view = nil
	}
	switch status := s.rules.Status(); {
	case c.lost != nil:
		return c.lost
	case c.err != nil:
		return s.giveUp(c, c.err)
	case c.at.Index <= status.Snapshot.Index:
		s.drop(c)
		return nil
	case !c.placing && s.rules.Has(c.last):
		c.placing = true
		s.beside(c, func() error { return cmp.Or(s.writeJournal(c), s.placeSnapshot(c)) })
		return nil
	case !c.placing:
		c.placing = true
		s.start(c, func() error { return s.placeSnapshot(c) })
		return nil
	case !s.rules.Has(c.last):
		base, _ := s.rules.Saved()
		s.dropJournal(c)
		return s.useSnapshot(c, base.Index)
	case status.Last > c.last.Index+smallTail && c.passes < maxPasses:
		c.passes++
		s.beside(c, func() error { return s.writeJournal(c) })
		return nil
	}
	s.update(c)
	if err := s.writeJournal(c); err != nil {
		return s.giveUp(c, err)
	}
	return errors.Join(s.replaceJournal(c), s.useSnapshot(c, c.base.Index))
}

// giveUp ends a snapshot that failed; another one is taken later. If the file
// already has its name, it is useful without the new journal.
func (s *Server) giveUp(c *compaction, err error) error {
	s.postpone("could not write a snapshot", err)
	if c.placed == nil {
		s.drop(c)
		return nil
	}
	s.dropJournal(c)
	base, _ := s.rules.Saved()
	return s.useSnapshot(c, base.Index)
}

// drop removes the file of a snapshot that failed. A file that cannot be
// removed now is removed at the next start.
func (s *Server) drop(c *compaction) {
	s.snapshots.next = nil
	s.dropJournal(c)
	_ = s.world.Disk.Remove(writtenName)
}

func (s *Server) dropJournal(c *compaction) {
	if c.journal != nil {
		_ = c.journal.Drop()
	}
}

// replaceJournal puts the new journal, which has the last entries, in place of
// the old one. The snapshot that it relies on is already in place.
func (s *Server) replaceJournal(c *compaction) error {
	old, err := s.journal.Replace(c.journal)
	if err != nil {
		return err
	}
	s.snapshots.floor, s.snapshots.failed = s.journal.Size(), false
	s.free(old)
	return nil
}

// free gives up a file whose name another one has got, alongside the server: large
// ones take time. Nobody reads it again, so an error of it says nothing.
func (s *Server) free(f disk.File) {
	if f != nil {
		s.world.Work(func() error { return disk.Free(f) }, func(error) {})
	}
}

// useSnapshot tells the rules about the new snapshot, and where the log begins.
func (s *Server) useSnapshot(c *compaction, base raft.Index) error {
	s.snapshots.next = nil
	s.rules.Compact(c.at.Index, base)
	return s.setNewest(c.placed)
}

// giveName gives a complete and synced file its final name.
func (s *Server) giveName(file string) error {
	if err := s.world.Disk.Rename(file, newestName); err != nil {
		return err
	}
	return s.world.Disk.Sync()
}

// fillChunk puts the piece of the snapshot into a message that asks for it.
func (s *Server) fillChunk(m raft.InstallSnapshot) (raft.InstallSnapshot, error) {
	data, last, err := snapshot.Chunk(s.snapshots.newest, s.snapshots.size, int64(m.Offset), cmp.Or(s.world.Config.ChunkBytes, chunkBytes))
	m.Data, m.Done = data, last
	return m, err
}

// storeChunk keeps a piece of a leader's snapshot. After the last one, the
// whole snapshot is checked and replaces this server's state.
func (s *Server) storeChunk(m raft.InstallSnapshot) error {
	if s.postponed() {
		return nil
	}
	if err := s.writeChunk(m); err != nil {
		s.dropIncoming()
		s.rules.Discard()
		s.postpone("could not keep the snapshot that a leader sends", err)
		return nil
	}
	if s.snapshots.incoming == nil {
		s.rules.Discard()
		return nil
	}
	if !m.Done {
		return nil
	}
	return s.install(m.LastIncluded)
}

// writeChunk puts a chunk into its place in the file, which the first one begins
// and the last one completes.
func (s *Server) writeChunk(m raft.InstallSnapshot) (err error) {
	if m.Offset == 0 {
		s.dropIncoming()
		if s.snapshots.incoming, err = s.world.Disk.Create(incomingName); err != nil {
			s.snapshots.incoming = nil
			return err
		}
	}
	if s.snapshots.incoming == nil {
		return nil
	}
	if _, err := s.snapshots.incoming.WriteAt(m.Data, int64(m.Offset)); err != nil || !m.Done {
		return err
	}
	return s.snapshots.incoming.Sync()
}

// install checks the received snapshot and installs it. A damaged or unreadable
// one is dropped, and the leader begins again.
func (s *Server) install(at raft.Position) error {
	s.dropIncoming()
	if own := s.snapshots.next; at.Index <= s.rules.Status().Commit || own != nil && own.placing {
		s.rules.Discard() // entries were faster, or its own one needs the name
		return nil
	}
	m := s.empty()
	h, err := snapshot.Read(s.world.Disk, incomingName, m.Restore)
	if err == nil {
		err = s.checkHeader(h)
	}
	if err == nil && (h.Index != uint64(at.Index) || h.Term != uint64(at.Term)) {
		err = fmt.Errorf("the snapshot ends in %d@%d, not in %v as the leader said", h.Term, h.Index, at)
	}
	var config raft.Config
	if err == nil {
		config, err = decodeConfig([]byte(h.Config))
	}
	if err == nil && (len(config.Voters) == 0 || config.Index > at.Index) {
		err = fmt.Errorf("the snapshot that ends in %v has no members, or those of a later entry", at)
	}
	var f disk.File
	if err == nil {
		f, err = s.world.Disk.Open(incomingName)
	}
	if err != nil {
		s.rules.Discard()
		s.postpone("could not use the snapshot that a leader sent", err)
		return nil
	}
	if err := errors.Join(s.giveName(incomingName), s.setNewest(f)); err != nil {
		return err
	}
	s.snapshots.failed = false
	s.machine = m
	s.rules.Restore(at, config)
	return nil
}

// dropIncoming closes the file of an incoming snapshot. Its contents were
// synced, so an error does not matter.
func (s *Server) dropIncoming() {
	if f := s.snapshots.incoming; f != nil {
		_ = f.Close()
	}
	s.snapshots.incoming = nil
}

// rewrite replaces the journal with the compacted log.
func (s *Server) rewrite() error {
	status := s.rules.Status()
	base, log := s.rules.Saved()
	err := s.journal.Rewrite(toState(status.State), journal.Base{Index: uint64(base.Index), Term: uint64(base.Term), Config: s.configText(base.Index)}, journalEntries(log))
	s.snapshots.floor = s.journal.Size()
	return err
}

func journalEntries(log []raft.Entry) []journal.Entry {
	entries := make([]journal.Entry, len(log))
	for i, e := range log {
		entries[i] = toJournal(e)
	}
	return entries
}
