package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/longtest"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/snapshot"
	"example.com/raftsteps/shared/core/trace"
)

// work does what the server wants done alongside it, until nothing is left.
func (w *world) work() {
	w.t.Helper()
	for range 100 {
		works := w.works
		if w.works = nil; len(works) == 0 {
			return
		}
		for _, f := range works {
			f()
		}
		w.flush()
	}
	require.Fail(w.t, "the work does not end")
}

// fill writes values until a snapshot is due, and returns the number of keys.
func (w *world) fill(length int) (keys int) {
	w.t.Helper()
	for ; len(w.works) == 0; keys++ {
		require.Less(w.t, keys, 10_000)
		w.put(fmt.Sprint("f", keys), strings.Repeat("v", length))
		w.flush()
	}
	return keys
}

func (w *world) names() []string {
	names, err := w.disk.List()
	require.NoError(w.t, err)
	return names
}

func TestASnapshotIsTakenWhenTheJournalHasGrown(t *testing.T) {
	w := lead(t, 1)
	keys := w.fill(100)
	require.Greater(t, w.server.journal.Size(), int64(16<<10))
	require.NotContains(t, w.names(), newestName, "it is written alongside the server")
	w.put("meanwhile", "1")
	w.flush()
	w.work()
	require.Contains(t, w.names(), newestName)
	require.NotContains(t, w.names(), writtenName)
	require.Less(t, w.server.journal.Size(), int64(16<<10))
	snapshot := w.status().Snapshot
	require.EqualValues(t, w.status().Last-1, snapshot.Index)

	w.put("tail", "2")
	w.flush()
	before := w.status()
	w.disk.CrashWorst()
	again := start(t, 1, w.disk)
	require.Equal(t, snapshot, again.status().Snapshot)
	require.Equal(t, before.Last, again.status().Last)
	again.stand()
	for key, want := range map[string]string{"f0": strings.Repeat("v", 100), fmt.Sprint("f", keys-1): strings.Repeat("v", 100), "meanwhile": "1", "tail": "2"} {
		a := again.ask(fmt.Sprintf(`{"op":"get","key":%q}`, key))
		again.flush()
		again.value(a, want)
	}
}

// The journal that replaces the old one holds the vote.
func TestTheVoteSurvivesASnapshot(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.work()
	before := w.status()
	require.NotZero(t, before.Snapshot)
	require.Equal(t, raft.ID(1), before.VotedFor)
	w.disk.CrashWorst()
	again := start(t, 1, w.disk).status()
	require.Equal(t, before.CurrentTerm, again.CurrentTerm)
	require.Equal(t, before.VotedFor, again.VotedFor)
}

// A journal stays bounded however long the server lives.
func TestTheJournalStaysBounded(t *testing.T) {
	w := lead(t, 1)
	for i := range 2000 {
		w.put(fmt.Sprint("k", i%10), strings.Repeat("v", 100))
		w.flush()
		w.work()
		require.Less(t, w.server.journal.Size(), int64(40<<10))
	}
	require.Less(t, len(w.names()), 4)
}

// A log request for entries that are gone says which, and where the log begins.
func TestMissingEntriesAreNamed(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.work()
	base, _ := w.server.rules.Saved()
	require.NotZero(t, base.Index)
	for from := uint64(1); from <= uint64(base.Index); from++ {
		a := w.ask(fmt.Sprintf(`{"id":7,"op":"log","from":%d}`, from))
		require.Equal(t, []api.Response{api.Failed(7, api.CompactedLog(uint64(base.Index)))}, a.responses)
	}
	for _, from := range []uint64{0, uint64(base.Index) + 1} {
		a := w.ask(fmt.Sprintf(`{"op":"log","from":%d}`, from))
		require.Contains(t, string(a.responses[0].Data), fmt.Sprintf(`"entries":[{"index":%d,`, base.Index+1))
	}
}

// A snapshot ends though more entries come in each pass than a new journal may lack.
func TestASnapshotEndsUnderLoad(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	for passes := 0; w.server.snapshots.next != nil; passes++ {
		require.Less(t, passes, 10, "it does not end")
		for i := range smallTail + 1 {
			w.put(fmt.Sprint("k", i%10), "v")
		}
		w.flush()
		works := w.works
		w.works = nil
		for _, f := range works {
			f()
		}
		w.flush()
	}
	require.NotZero(t, w.status().Snapshot)
	again := start(t, 1, w.disk)
	require.Equal(t, w.status().Snapshot, again.status().Snapshot)
	require.Equal(t, w.status().Last, again.status().Last)
}

// A leader waits with its next snapshot for a follower that is being sent the
// present one, but not forever: that one may not help it, and the next may
// be better.
func TestALeaderWaitsForASnapshotOnlyForATime(t *testing.T) {
	w := lead(t, 3)
	for len(w.works) == 0 {
		w.put("k", strings.Repeat("v", 100))
		w.commit()
	}
	w.work()
	w.commit()
	first, term := w.status().Snapshot.Index, w.status().CurrentTerm
	require.NotZero(t, first)

	// n3 needs the snapshot, and begins again whenever it has a piece.
	waited := int64(0)
	for w.status().Snapshot.Index == first {
		waited = max(waited, w.server.grown())
		require.Less(t, waited, int64(2*mostWait))
		w.put("k", strings.Repeat("v", 1000))
		for range 5 {
			w.server.Tick()
		}
		w.sent = nil
		w.flush()
		for _, m := range w.sent {
			switch b := m.Body.(type) {
			case raft.AppendEntries:
				if m.To == 3 {
					w.receive(3, term, raft.AppendEntriesReply{Refused: b.PrevLogIndex, ConflictIndex: 1})
				}
			case raft.InstallSnapshot:
				w.receive(3, term, raft.InstallSnapshotReply{LastIncluded: b.LastIncluded, Offset: 1 - min(b.Offset, 1)})
			}
		}
		w.commit()
		w.work()
	}
	require.Equal(t, int64(mostWait-1), waited, "longer than without a follower that needs it")
	require.Less(t, w.server.journal.Size(), int64(16<<10))
}

// Sessions are part of the state: a retry is recognized after a restart that
// had the snapshot only.
func TestSessionsAreInTheSnapshot(t *testing.T) {
	w := lead(t, 1)
	opened := w.ask(`{"op":"open"}`)
	add := fmt.Sprintf(`{"op":"append","key":"x","value":"a","session":4711,"since":%d,"seq":1}`, opened.responses[0].Index)
	first := w.ask(add)
	w.flush()
	w.fill(100)
	w.work()
	w.disk.CrashWorst()
	again := start(t, 1, w.disk)
	again.stand()
	second := again.ask(add)
	again.flush()
	require.Equal(t, first.responses, second.responses)
}

// A server must not start with a state that is not what it was.
func TestADamagedSnapshotIsRefusedByName(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.work()
	content, err := disk.ReadFile(w.disk, newestName)
	require.NoError(t, err)
	w.disk.CrashWorst()
	for off := 0; off < len(content); off += 1 + len(content)/97 {
		damaged := &world{t: t, disk: w.disk.Clone()}
		require.True(t, damaged.disk.Corrupt(newestName, off, 0x20))
		_, err := New(damaged.world(1))
		require.Error(t, err, "byte %d", off)
		require.ErrorContains(t, err, newestName)
		line := 1 + strings.Count(string(content[:off]), "\n")
		require.Regexp(t, fmt.Sprintf("in line (%d|%d)", line, line+1), err.Error(), "a line break that is gone shows in the line it ends")
	}
	gone := &world{t: t, disk: w.disk.Clone()}
	require.NoError(t, gone.disk.Remove(newestName))
	_, err = New(gone.world(1))
	require.ErrorContains(t, err, "lost", "the journal begins after a snapshot that is not there")
}

// An empty journal instead of one that was lost would have forgotten a vote.
func TestASnapshotWithoutItsJournalIsRefused(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.work()
	require.NoError(t, w.server.Close())
	require.NoError(t, w.disk.Remove(journalName))
	for range 2 {
		_, err := New(w.world(1))
		require.ErrorContains(t, err, "there is a snapshot, but its journal is gone")
	}
}

// compact lets what the server wants done alongside it happen, with writes in between,
// and returns what ends the server.
func (w *world) compact() error {
	for w.server.snapshots.next != nil {
		works := w.works
		w.works = nil
		for i := range smallTail + 1 {
			w.put(fmt.Sprint("f", i%2), fmt.Sprint(i))
		}
		if err := w.server.Flush(); err != nil {
			return err
		}
		for _, f := range works {
			f()
		}
		if err := w.server.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// troubles are the lines in the log that say that something will be tried again.
func (w *world) troubles() []string {
	return slices.DeleteFunc(slices.Clone(w.logged), func(text string) bool { return !strings.Contains(text, "will try again") })
}

// Each operation of a snapshot fails once. What counts is untouched by most of
// them: the server goes on, says it once, and takes a snapshot later. Only a name
// that may or may not have been given, and the journal in use, end it.
func TestASnapshotThatFailsIsTakenLater(t *testing.T) {
	fatal := 0
	for nth := 1; ; nth++ {
		require.Less(t, nth, 200)
		w := lead(t, 1)
		w.fill(100)
		w.forget()
		count, failed, replaced := 0, disk.Op{}, false
		w.disk.Hook = func(op disk.Op) error {
			replaced = replaced || op.To == journalName
			if count++; count != nth {
				return nil
			}
			failed = op
			return syscall.ENOSPC
		}
		err := w.compact()
		w.disk.Hook = nil
		if failed.Kind == "" {
			require.Greater(t, nth, 15)
			require.Greater(t, fatal, 5)
			return
		}
		if failed.File == journalName || replaced || failed.Kind == disk.OpRename || failed.Kind == disk.OpSyncFolder {
			require.ErrorIs(t, err, syscall.ENOSPC, "%+v", failed)
			fatal++
			continue
		}
		require.NoError(t, err, "%+v", failed)
		require.Len(t, w.troubles(), 1, "%+v", failed)
		require.Contains(t, w.troubles()[0], "could not write a snapshot and will try again every 5s; nothing is lost")
		a := w.put("x", "1")
		w.flush()
		w.done(a)
		require.Empty(t, w.works, "not at once")
		for range node.Ticks(retryPause) {
			w.server.Tick()
		}
		w.flush()
		w.work()
		require.ElementsMatch(t, []string{journalName, "journal.length", newestName}, w.names(), "%+v", failed)
		require.Less(t, w.server.journal.Size(), w.server.compactBytes(), "%+v", failed)
		require.Len(t, w.troubles(), 1)
		last := w.status().Applied
		w.disk.CrashWorst()
		again := start(t, 1, w.disk)
		again.stand()
		require.Greater(t, again.status().Applied, last)
	}
}

// A full disk is said once, however often the snapshot fails.
func TestARepeatedSnapshotFailureIsLoggedOnce(t *testing.T) {
	w := lead(t, 1)
	w.fill(100)
	w.forget()
	tries := 0
	w.disk.Hook = func(op disk.Op) error {
		if op.File == writtenName && op.Kind == disk.OpCreate {
			tries++
			return syscall.EMFILE
		}
		return nil
	}
	for range 4 * node.Ticks(retryPause) {
		w.server.Tick()
		w.flush()
		w.work()
	}
	require.InDelta(t, 4, tries, 1)
	require.Len(t, w.troubles(), 1)
}

// survives checks that a server starts from whatever a power cut may leave of its
// disk, and returns what it had applied then, at least.
func (w *world) survives(members uint64, nth int) (least raft.Index) {
	w.t.Helper()
	least = 1 << 62
	for seed := range uint64(12) {
		d := w.disk.Clone()
		d.Crash(rand.New(rand.NewPCG(seed, uint64(nth))))
		s, err := New((&world{t: w.t, disk: d}).world(members))
		require.NoError(w.t, err, "operation %d, seed %d", nth, seed)
		least = min(least, s.(*Server).rules.Status().Last)
		require.NoError(w.t, s.(*Server).Close())
	}
	return least
}

// The power is cut at each operation of a snapshot of the server's own, and at each
// of one that it is sent; only long tests try them all.
func TestAPowerCutInASnapshot(t *testing.T) {
	nth, step := 1, longtest.Pick(3, 1)
	for ; ; nth += step {
		w := lead(t, 1)
		w.fill(100)
		w.disk.CutPower(nth)
		_ = w.compact()
		if !w.disk.PowerIsCut() {
			break
		}
		require.GreaterOrEqual(t, w.survives(1, nth), w.status().Applied)
	}
	require.Greater(t, nth, 20)

	content, at := snapshotOf(t, "a", 50)
	for nth = 1; ; nth += step {
		w := start(t, 3, disk.NewSim("d"))
		w.disk.CutPower(nth)
		for _, c := range chunks(content, at, 8<<10) {
			w.receive(2, 9, c)
			if err := w.server.Flush(); err != nil {
				break
			}
		}
		if !w.disk.PowerIsCut() {
			break
		}
		w.survives(3, nth)
	}
	require.Greater(t, nth, 8)
}

// scarce is a disk on which no more files can be opened while none is set.
type scarce struct {
	*disk.Sim
	none bool
}

func (d *scarce) Create(name string) (disk.File, error) {
	if d.none {
		return nil, syscall.EMFILE
	}
	return d.Sim.Create(name)
}

func (d *scarce) Open(name string) (disk.File, error) {
	if d.none {
		return nil, syscall.EMFILE
	}
	return d.Sim.Open(name)
}

// startScarce starts server 1 of three on a scarce disk.
func startScarce(t *testing.T) (*world, *scarce) {
	w := &world{t: t, disk: disk.NewSim("d")}
	d := &scarce{Sim: w.disk}
	c := w.world(3)
	c.Disk = d
	s, err := New(c)
	require.NoError(t, err)
	w.server = s.(*Server)
	return w, d
}

// A leader's snapshot that cannot be kept does no harm, and is taken when it comes
// again later. The leader is asked for it no more often than it asks by itself.
func TestASnapshotThatCannotBeSavedIsTakenLater(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	all := chunks(content, at, 8<<10)
	for from := range len(all) {
		w, d := startScarce(t)
		w.forget()
		for i, c := range all {
			d.none = i >= from
			if from == len(all)-1 && i == from {
				d.none = false // it is the file's own writes that fail, not a new one
				w.disk.Hook = func(op disk.Op) error { return syscall.ENOSPC }
			}
			w.install(2, 9, c)
		}
		w.disk.Hook = nil
		require.Zero(t, w.status().Commit)
		require.Len(t, w.troubles(), 1)
		d.none = false
		w.install(2, 9, all[0])
		require.Zero(t, w.next(), "nothing is kept before the pause is over")
		for range node.Ticks(retryPause) {
			w.server.Tick()
		}
		for _, c := range all {
			w.install(2, 99, c)
		}
		require.Equal(t, at, w.status().Snapshot)
	}
}

// snapshotOf returns the snapshot file of a server with that many keys, and its
// place. The value tells it from another.
func snapshotOf(t *testing.T, value string, writes int) ([]byte, raft.Position) {
	w := lead(t, 1)
	for i := range writes {
		w.put(fmt.Sprint("k", i), strings.Repeat(value, 1000))
		w.flush()
	}
	require.NotEmpty(t, w.works)
	w.work()
	w.fill(1000)
	w.work()
	content, err := disk.ReadFile(w.disk, newestName)
	require.NoError(t, err)
	return content, w.status().Snapshot
}

// chunks cuts a snapshot at the ends of lines, as a leader would.
func chunks(content []byte, at raft.Position, size int) []raft.InstallSnapshot {
	var all []raft.InstallSnapshot
	for offset := 0; offset < len(content); {
		end := min(offset+size, len(content))
		for content[end-1] != '\n' {
			end++
		}
		all = append(all, raft.InstallSnapshot{LastIncluded: at, Offset: uint64(offset), Data: slices.Clone(content[offset:end]), Done: end == len(content)})
		offset = end
	}
	return all
}

// next is the offset that the server has asked for last.
func (w *world) next() uint64 {
	w.t.Helper()
	reply := w.sent[len(w.sent)-1].Body
	require.IsType(w.t, raft.InstallSnapshotReply{}, reply)
	return reply.(raft.InstallSnapshotReply).Offset
}

func (w *world) install(from uint64, term raft.Term, c raft.InstallSnapshot) {
	w.t.Helper()
	w.receive(from, term, c)
	w.flush()
	w.work()
}

func TestASnapshotComesInChunks(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	all := chunks(content, at, 8<<10)
	require.Greater(t, len(all), 3)
	w := start(t, 3, disk.NewSim("d"))
	for i, c := range all {
		w.install(2, 9, c)
		w.install(2, 9, c) // datagrams may come twice
		if i < len(all)-1 {
			require.Equal(t, all[i+1].Offset, w.next())
			require.Zero(t, w.status().Commit)
		}
	}
	require.Equal(t, at.Index, w.status().Commit)
	w.value(w.ask(`{"op":"get","key":"k49","consistency":"stale"}`), strings.Repeat("a", 1000))
	w.disk.CrashWorst()
	again := start(t, 3, w.disk)
	require.Equal(t, at, again.status().Snapshot)
	again.value(again.ask(`{"op":"get","key":"k49","consistency":"stale"}`), strings.Repeat("a", 1000))
}

// Two leaders, two files: a chunk of the one has no place in the other.
func TestChunksOfTwoSnapshotsAreNotMixed(t *testing.T) {
	contentA, atA := snapshotOf(t, "a", 50)
	contentB, atB := snapshotOf(t, "b", 60)
	a, b := chunks(contentA, atA, 8<<10), chunks(contentB, atB, 8<<10)
	w := start(t, 3, disk.NewSim("d"))
	w.install(2, 9, a[0])
	w.install(2, 9, a[1])
	w.install(3, 10, b[2])
	require.Zero(t, w.next(), "it has nothing of this one")
	w.install(3, 10, b[0])
	w.install(2, 9, a[1])
	w.install(3, 10, b[2])
	require.Equal(t, b[1].Offset, w.next())
	for _, c := range b[1:] {
		w.install(3, 10, c)
	}
	require.Equal(t, atB, w.status().Snapshot)
	for i := range 60 {
		w.value(w.ask(fmt.Sprintf(`{"op":"get","key":"k%d","consistency":"stale"}`, i)), strings.Repeat("b", 1000))
	}
}

// Two servers need not write the same bytes for the same state, so a chunk of
// another leader's file does not follow even where the place is the same.
func TestChunksOfTwoLeadersAreNotMixed(t *testing.T) {
	contentA, at := snapshotOf(t, "a", 50)
	contentB, same := snapshotOf(t, "b", 50)
	require.Equal(t, at, same)
	a, b := chunks(contentA, at, 8<<10), chunks(contentB, at, 8<<10)
	w := start(t, 3, disk.NewSim("d"))
	w.install(2, 9, a[0])
	require.Equal(t, a[1].Offset, w.next())
	w.install(3, 10, b[1])
	require.Zero(t, w.next())
	for _, c := range b {
		w.install(3, 10, c)
	}
	w.value(w.ask(`{"op":"get","key":"k0","consistency":"stale"}`), strings.Repeat("b", 1000))
}

// Entries may be faster than the last chunk of a snapshot that covers them: then it
// is discarded, and what they did stays.
func TestEntriesMayBeFasterThanASnapshot(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	all := chunks(content, at, 8<<10)
	w := start(t, 3, disk.NewSim("d"))
	for _, c := range all[:len(all)-1] {
		w.install(2, 9, c)
	}
	last := at.Index + 1
	w.receive(2, 9, all[len(all)-1])
	w.receive(2, 9, raft.AppendEntries{Entries: entries(1, 9, int(last)), LeaderCommit: last})
	w.flush()
	require.Equal(t, last, w.status().Applied)
	require.Zero(t, w.status().Snapshot)
	require.NotContains(t, w.names(), newestName)
	w.value(w.ask(fmt.Sprintf(`{"op":"get","key":"k%d","consistency":"stale"}`, last)), "of term 9")
}

// compacting returns a follower whose own snapshot, up to entry 20, is under way.
func compacting(t *testing.T) *world {
	w := start(t, 3, disk.NewSim("d"))
	var log []raft.Entry
	for i := range raft.Index(20) {
		log = append(log, raft.Entry{Index: i + 1, Term: 1, Command: text(fmt.Sprintf(`{"op":"put","key":"own","value":%q}`, strings.Repeat("o", 1000)))})
	}
	w.receive(2, 9, raft.AppendEntries{Entries: log, LeaderCommit: 20})
	w.flush()
	require.NotEmpty(t, w.works)
	return w
}

// A snapshot that is being sent is not overtaken by the next: its receiver would
// have to begin again, and again. Only one that does not answer is not waited for.
func TestNoSnapshotIsTakenWhileOneIsSent(t *testing.T) {
	w := lead(t, 3)
	fill := func() {
		for range 40 {
			w.put("x", strings.Repeat("v", 1000))
			w.flush()
			w.acknowledge(2)
			w.flush()
			w.work()
		}
	}
	fill()
	sent := w.status().Snapshot
	require.NotZero(t, sent)
	w.receive(3, w.status().CurrentTerm, raft.AppendEntriesReply{Refused: 5, ConflictIndex: 1})
	fill()
	require.Equal(t, sent, w.status().Snapshot)
	for range 1000 {
		w.server.Tick()
		w.flush()
		w.work()
	}
	require.Greater(t, w.status().Snapshot.Index, sent.Index)
}

// A leader's snapshot may come while an older one of the server's own is being
// written. That one is discarded then, and must not take the name.
func TestALeadersSnapshotArrivesBeforeTheServersOwn(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	w := compacting(t)
	for _, c := range chunks(content, at, 8<<10) {
		w.receive(2, 9, c)
		w.flush()
	}
	require.Equal(t, at, w.status().Snapshot)
	w.work()
	w.holds(content, at)
}

// While the server's own snapshot gets its name, a leader's is not taken over: it
// comes again.
func TestALeadersSnapshotWaitsForTheServersOwn(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	w := compacting(t)
	works := w.works
	w.works = nil
	for _, f := range works {
		f()
	}
	w.flush()
	require.NotEmpty(t, w.works, "the name is still to be given")
	for _, c := range chunks(content, at, 8<<10) {
		w.receive(2, 9, c)
		w.flush()
	}
	require.Zero(t, w.status().Snapshot)
	w.work()
	require.EqualValues(t, 20, w.status().Snapshot.Index)
	for _, c := range chunks(content, at, 8<<10) {
		w.install(2, 9, c)
	}
	w.holds(content, at)
}

// holds checks that a snapshot is the one on the disk, that nothing else is left
// over, and that a restart finds it.
func (w *world) holds(content []byte, at raft.Position) {
	w.t.Helper()
	require.Equal(w.t, at, w.status().Snapshot)
	newest, err := disk.ReadFile(w.disk, newestName)
	require.NoError(w.t, err)
	require.True(w.t, string(content) == string(newest), "the file is another one")
	require.ElementsMatch(w.t, []string{"journal", "journal.length", newestName}, w.names())
	w.disk.CrashWorst()
	again := start(w.t, 3, w.disk)
	require.Equal(w.t, at, again.status().Snapshot)
	again.value(again.ask(`{"op":"get","key":"k1","consistency":"stale"}`), strings.Repeat("a", 1000))
	again.refused(again.ask(`{"op":"get","key":"own","consistency":"stale"}`), "not_found", "no value")
}

// What came is checked as a whole before a word of it is believed.
func TestADamagedSnapshotFromALeaderIsSentAgain(t *testing.T) {
	content, at := snapshotOf(t, "a", 50)
	all := chunks(content, at, 8<<10)
	w := start(t, 3, disk.NewSim("d"))
	all[1].Data[len(all[1].Data)/2] ^= 1
	for _, c := range all {
		w.install(2, 9, c)
	}
	require.Zero(t, w.status().Commit)
	drop := w.events[slices.IndexFunc(w.events, func(e trace.Event) bool { return e.Kind == trace.Trouble })]
	require.Contains(t, drop.Text, "damaged")
	require.Contains(t, drop.Text, incomingName)
	w.refused(w.ask(`{"op":"get","key":"k1","consistency":"stale"}`), "not_found", "no value")

	all[1].Data[len(all[1].Data)/2] ^= 1
	for range node.Ticks(retryPause) {
		w.server.Tick()
	}
	for _, c := range all {
		w.install(2, 99, c)
	}
	require.Equal(t, at, w.status().Snapshot)
}

// A leader sends a follower that is too far behind its snapshot, a chunk for
// each answer.
func TestALeaderSendsItsSnapshot(t *testing.T) {
	w := lead(t, 3)
	w.server.world.Config.CompactBytes = 8 << 10
	for i := range 400 {
		w.put(fmt.Sprint("k", i), strings.Repeat("v", 2000))
		w.flush()
		w.acknowledge(2)
		w.flush()
		w.work()
	}
	require.Greater(t, w.server.snapshots.size, int64(chunkBytes), "more than one chunk")
	w.forget()
	term := w.status().CurrentTerm
	w.receive(3, term, raft.AppendEntriesReply{Refused: 5, ConflictIndex: 1})
	f := start(t, 3, disk.NewSim("f"))
	f.receive(2, term, raft.AppendEntries{Entries: []raft.Entry{{Index: 1, Term: term, Kind: raft.NoOp}}})
	for range 20 {
		w.flush()
		for _, m := range w.sent {
			if c, ok := m.Body.(raft.InstallSnapshot); ok && m.To == 3 {
				f.receive(2, term, c)
			}
		}
		w.forget()
		f.forget()
		f.flush()
		f.work()
		for _, m := range f.sent {
			w.receive(3, term, m.Body)
		}
		if f.status().Snapshot.Index > 0 {
			break
		}
		w.server.Tick()
	}
	require.Equal(t, w.status().Snapshot, f.status().Snapshot)
	require.Equal(t, w.server.machine.(*machine).store.Len(), 400)
	require.NotZero(t, f.server.machine.(*machine).store.Len())
}

// A snapshot is the state of one moment, sessions included, however long it takes
// to write it and whatever is done meanwhile.
func TestASnapshotIsConsistent(t *testing.T) {
	m := newMachine()
	do := func(m *machine, index uint64, op string, session, seq, ack uint64) {
		m.apply(index, command{Command: kv.Command{Op: op, Key: "x\xff", Value: "\xfe"}, session: session, since: 5, seq: seq, ack: ack})
	}
	m.ended = 4
	do(m, 5, kv.Append, 2, 1, 0)
	do(m, 6, kv.Append, 1, 1, 0)
	do(m, 7, kv.Cas, 1, 2, 1) // finds another value, which its result quotes
	want := (&Server{machine: m}).StateHash()

	v, d := m.freeze(), disk.NewSim("d")
	do(m, 8, kv.Append, 1, 3, 2)
	do(m, 9, kv.Delete, 1, 4, 3)
	do(m, 10, kv.Append, 2, 2, 0)
	do(m, 11, kv.Append, 3, 1, 0) // the first command of its session
	w, err := snapshot.Create(d, "s", snapshot.Header{Stage: Stage, Cluster: "north", Index: 7, Term: 1})
	require.NoError(t, err)
	v.save(w.Line)
	require.NoError(t, w.Finish())
	v.close()

	again := newMachine()
	_, err = snapshot.Read(d, "s", again.load)
	require.NoError(t, err)
	require.Equal(t, want, (&Server{machine: again}).StateHash())
	do(again, 8, kv.Append, 1, 3, 2)
	do(again, 9, kv.Delete, 1, 4, 3)
	do(again, 10, kv.Append, 2, 2, 0)
	do(again, 11, kv.Append, 3, 1, 0)
	require.Equal(t, (&Server{machine: m}).StateHash(), (&Server{machine: again}).StateHash())
	require.Equal(t, m.counted(), m.remembered)
	require.Equal(t, m.remembered, again.remembered)
}

// saved returns how many bytes a snapshot of the machine has, and one that was
// loaded from it.
func saved(t *testing.T, m *machine) (bytes int, again *machine) {
	again = newMachine()
	v := m.freeze()
	defer v.close()
	v.save(func(add func(b []byte) []byte) {
		text := add(nil)
		bytes += len(text)
		require.NoError(t, again.load(text))
	})
	require.Equal(t, (&Server{machine: m}).StateHash(), (&Server{machine: again}).StateHash())
	require.Equal(t, m.remembered, again.remembered)
	return bytes, again
}

// What sessions remember of long values is short, or ordinary use would make
// snapshots that no disk has room for.
func TestLongValuesDoNotMakeLongSessions(t *testing.T) {
	for name, use := range map[string]func(l *log){
		"6 sessions of 1024 compare-and-sets that are not acknowledged": func(l *log) {
			l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: longest}})
			for range 6 {
				s := l.open()
				for seq := range uint64(maxResults) {
					l.do(swap(s, seq+1, 0))
				}
			}
		},
		"1500 appends to a long value": func(l *log) {
			l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: longest[:100<<10]}})
			for range 3 {
				s := l.open()
				for seq := range uint64(500) {
					require.EqualValues(t, len(l.store.Get("x").Value)+1, l.do(add("b", s, seq+1, 0)).Length)
				}
			}
		},
	} {
		l := &log{machine: newMachine()}
		use(l)
		bytes, _ := saved(t, l.machine)
		require.Less(t, bytes, kv.MaxValue+l.remembered, name)
		require.Less(t, l.remembered, 2<<20, name)
	}
}

// The state machine at its largest, without the store: a snapshot has no more than
// three times as many bytes as the sessions count.
func TestASnapshotOfFullSessionsIsBounded(t *testing.T) {
	l := &log{machine: newMachine()}
	l.do(command{Command: kv.Command{Op: kv.Put, Key: "x", Value: strings.Repeat("\x01", kv.MaxValue)}})
	for l.remembered < maxRemembered-maxResults*(resultBytes+kv.MaxQuoted) {
		s := l.open()
		for seq := range uint64(maxResults) {
			l.apply(l.index, swap(s, seq+1, 0))
		}
	}
	bytes, _ := saved(t, l.machine)
	require.Less(t, bytes, 6*kv.MaxValue+3*maxRemembered)
}

// A snapshot that was written when a result still held the whole value.
func TestResultsWithWholeValuesAreLoaded(t *testing.T) {
	m := newMachine()
	for _, line := range []string{
		`{"key":"x","value":"abc"}`,
		`{"session":5,"ack":2}`,
		`{"result":3,"session":5,"index":9,"outcome":"mismatch","value":"` + longest + `"}`,
		`{"result":4,"session":5,"index":10,"outcome":"","value":"abc"}`,
		`{"result":5,"session":5,"index":11,"outcome":"","value":""}`,
	} {
		require.NoError(t, m.load([]byte(line)))
	}
	_, again := saved(t, m)
	require.Equal(t, map[uint64]result{
		3: {Result: kv.Found(longest), index: 9},
		4: {Result: kv.Result{Length: 3}, index: 10},
		5: {index: 11},
	}, again.sessions[5].Value.(*session).results)
}

// What a crash or a full disk has left of snapshots and journals that were not
// finished is gone once the server has started.
func TestLeftoversAreRemovedAtStart(t *testing.T) {
	d := disk.NewSim("d")
	start(t, 3, d)
	for _, name := range []string{writtenName, incomingName, journalName + ".next", journalName + disk.Aside} {
		f, err := d.Create(name)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	start(t, 3, d)
	names, err := d.List()
	require.NoError(t, err)
	for _, name := range names {
		require.NotContains(t, []string{writtenName, incomingName, journalName + ".next", journalName + disk.Aside}, name)
	}
	require.Contains(t, names, journalName)
}

// A request for a piece of a snapshot that is not there is refused.
func TestAMissingPieceIsRefused(t *testing.T) {
	w := lead(t, 3)
	for range 300 {
		w.put("x", "1")
		w.flush()
		w.acknowledge(2)
		w.flush()
		w.work()
	}
	at := w.status().Snapshot
	require.NotZero(t, at.Index)
	w.forget()
	for _, offset := range []uint64{uint64(w.server.snapshots.size) + 1, maxNumber} {
		w.receive(3, w.status().CurrentTerm, raft.InstallSnapshotReply{LastIncluded: at, Offset: offset})
		w.loud("it asks for byte")
		w.server.refusals = refusals{}
	}
	w.server.Receive(3, []byte(`{"term":1,"installSnapshotReply":{"offset":18446744073709551615}}`))
	w.loud("out of range")
}

// A snapshot is believed only if it is one of this cluster and of the place that the
// leader named.
func TestTheHeaderOfASnapshotIsChecked(t *testing.T) {
	at := raft.Position{Term: 1, Index: 7}
	right := snapshot.Header{Stage: Stage, Cluster: "north", Index: 7, Term: 1, Config: `{"voters":[1,2,3],"addresses":{}}`}
	install := func(h snapshot.Header) *world {
		d := disk.NewSim("s")
		f, err := snapshot.Create(d, newestName, h)
		require.NoError(t, err)
		require.NoError(t, f.Finish())
		content, err := disk.ReadFile(d, newestName)
		require.NoError(t, err)
		w := start(t, 3, disk.NewSim("d"))
		w.install(2, 9, raft.InstallSnapshot{LastIncluded: at, Data: content, Done: true})
		return w
	}
	require.Equal(t, at, install(right).status().Snapshot)
	wrong := map[string]snapshot.Header{
		"of no members":    {Stage: Stage, Cluster: "north", Index: 7, Term: 1},
		"of half a change": {Stage: Stage, Cluster: "north", Index: 7, Term: 1, Config: `{"voters":[1],"joint":true,"addresses":{}}`},
	}
	for what, change := range map[string]func(h *snapshot.Header){
		"of another stage":   func(h *snapshot.Header) { h.Stage = "other" },
		"of another cluster": func(h *snapshot.Header) { h.Cluster = "south" },
		"of another index":   func(h *snapshot.Header) { h.Index = 8 },
		"of another term":    func(h *snapshot.Header) { h.Term = 2 },
	} {
		h := right
		change(&h)
		wrong[what] = h
	}
	for what, h := range wrong {
		w := install(h)
		require.Zero(t, w.status().Commit, what)
		require.NotContains(t, w.names(), newestName, what)
		require.Len(t, w.troubles(), 1, what)
	}
}

// A server that knows no members takes no snapshot: who got it would not know them
// either.
func TestAServerWithoutMembersTakesNoSnapshot(t *testing.T) {
	w := joiner(t)
	const n = 300
	w.receive(2, 1, raft.AppendEntries{Entries: entries(1, 1, n), LeaderCommit: n})
	w.flush()
	require.EqualValues(t, n, w.status().Applied)
	require.Greater(t, w.server.journal.Size(), w.server.compactBytes())
	require.Empty(t, w.works)
}

// The snapshot that is sent is the newest, whatever the size of the one before.
func TestASnapshotThatIsSmallerThanTheOneBefore(t *testing.T) {
	w := lead(t, 1)
	keys := w.fill(500)
	w.work()
	first := w.server.snapshots.size
	for i := range keys {
		w.ask(fmt.Sprintf(`{"op":"delete","key":"f%d"}`, i))
	}
	w.fill(1)
	w.work()
	content, err := disk.ReadFile(w.disk, newestName)
	require.NoError(t, err)
	require.Less(t, int64(len(content)), first)
	var sent []byte
	for at := uint64(0); ; at = uint64(len(sent)) {
		m, err := w.server.fillChunk(raft.InstallSnapshot{LastIncluded: w.status().Snapshot, Offset: at})
		require.NoError(t, err)
		if sent = append(sent, m.Data...); m.Done {
			break
		}
	}
	require.True(t, string(content) == string(sent))
}
