package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// world is one server and all that is around it, driven by hand.
type world struct {
	t      *testing.T
	server *Server
	disk   *disk.Sim

	// sent are the messages that have left, events what was traced, logged what
	// an operator sees.
	sent   []raft.Message
	events []trace.Event
	logged []string

	// order has a word for each message sent, sync done and answer given.
	order []string
}

// start starts server 1 of a cluster with that many members.
func start(t *testing.T, members uint64, d *disk.Sim) *world {
	w := &world{t: t, disk: d}
	s, err := New(w.world(members))
	require.NoError(t, err)
	w.server = s.(*Server)
	d.Hook = func(op disk.Op) error {
		if op.Kind == disk.OpSync {
			w.order = append(w.order, "sync")
		}
		return nil
	}
	w.flush()
	return w
}

func (w *world) world(members uint64) node.World {
	config := node.Config{
		Cluster:   "north",
		Heartbeat: 50 * time.Millisecond, ElectionTimeout: [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond},
	}
	for id := uint64(1); id <= members; id++ {
		config.Members = append(config.Members, node.Member{ID: id, Address: fmt.Sprintf("a:%d", id)})
	}
	return node.World{
		ID: 1, Config: config, Disk: w.disk, Rand: rand.New(rand.NewPCG(1, 1)),
		Send: func(to uint64, line []byte) {
			m, err := decodeMessage(line)
			require.NoError(w.t, err)
			m.To = raft.ID(to)
			w.sent = append(w.sent, m)
			w.order = append(w.order, strings.TrimPrefix(fmt.Sprintf("%T", m.Body), "raft."))
		},
		Log: func(e trace.Event) {
			if e.Reason != nil {
				e.Text = e.Reason.Text
			}
			w.logged = append(w.logged, e.Text)
		},
		Trace: func(e trace.Event) { w.events = append(w.events, e) },
	}
}

func (w *world) flush() {
	w.t.Helper()
	require.NoError(w.t, w.server.Flush())
}

// forget empties what was noted.
func (w *world) forget() { w.sent, w.events, w.logged, w.order = nil, nil, nil, nil }

// receive gives the server a message of a peer, without a flush.
func (w *world) receive(from uint64, term raft.Term, body raft.Body) {
	w.server.Receive(from, appendMessage(nil, raft.Message{Term: term, Body: body}))
}

// answer is where the answer to a request will be.
type answer struct{ responses []api.Response }

// ask gives the server a request, without a flush.
func (w *world) ask(text string) *answer {
	w.t.Helper()
	r, err := Ops.Decode([]byte(text))
	require.NoError(w.t, err)
	a := &answer{}
	w.server.Request(r, func(response api.Response) {
		require.Empty(w.t, a.responses, "a request is answered once")
		a.responses = append(a.responses, response.WithData())
		w.order = append(w.order, "answer")
	})
	return a
}

func (w *world) put(key, value string) *answer {
	w.t.Helper()
	return w.ask(string(api.Request{ID: 7, Op: "put", Key: key, Value: value}.AppendJSON(nil)))
}

// refused checks that the answer is an error with that code.
func (w *world) refused(a *answer, code api.Code, words string) {
	w.t.Helper()
	require.Len(w.t, a.responses, 1)
	e := a.responses[0].Error
	require.NotNil(w.t, e)
	require.Equal(w.t, code, e.Code)
	require.Equal(w.t, code != api.Unknown, e.Definite)
	require.Contains(w.t, e.Message, words)
}

func (w *world) done(a *answer) {
	w.t.Helper()
	require.Len(w.t, a.responses, 1)
	require.Nil(w.t, a.responses[0].Error)
}

func (w *world) status() raft.Status { return w.server.rules.Status() }

// acknowledge lets a follower confirm the latest AppendEntries that went to it.
func (w *world) acknowledge(from uint64) {
	w.t.Helper()
	for i := len(w.sent) - 1; i >= 0; i-- {
		if a, ok := w.sent[i].Body.(raft.AppendEntries); ok && uint64(w.sent[i].To) == from {
			w.receive(from, w.sent[i].Term, success(a))
			return
		}
	}
	require.Fail(w.t, "nothing was sent")
}

// commit lets a follower confirm until all is committed.
func (w *world) commit() {
	w.t.Helper()
	for range 10 {
		w.flush()
		if w.status().Commit == w.status().Last {
			return
		}
		w.acknowledge(2)
	}
	require.Fail(w.t, "it is not committed")
}

// entries are n puts of a term, from an index on.
func entries(from raft.Index, term raft.Term, n int) []raft.Entry {
	var all []raft.Entry
	for i := range n {
		index := from + raft.Index(i)
		all = append(all, raft.Entry{Index: index, Term: term, Command: text(fmt.Sprintf(`{"op":"put","key":"k%d","value":"of term %d"}`, index, term))})
	}
	return all
}

func TestManyWritesShareOneSync(t *testing.T) {
	w := lead(t, 3)
	syncs := w.disk.Stats().Syncs
	var answers []*answer
	for i := range 100 {
		answers = append(answers, w.put(fmt.Sprint("k", i), "1"))
	}
	w.flush()
	require.Equal(t, syncs+1, w.disk.Stats().Syncs)
	for _, a := range answers {
		require.Empty(t, a.responses, "no majority has it yet")
	}
	w.acknowledge(2)
	w.flush()
	for _, a := range answers {
		w.done(a)
	}
	require.Equal(t, syncs+1, w.disk.Stats().Syncs, "a commit is no promise of this disk")
	require.Equal(t, api.Response{ID: 7, Index: uint64(w.status().Last)}, answers[99].responses[0])
}

// The leader's message leaves before its sync, so that all disks work side by
// side (thesis §10.2.1); a follower's answer is a promise and leaves after it.
func TestOrderOfAFlush(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.flush()
	require.Equal(t, []string{"AppendEntries", "AppendEntries", "sync"}, w.order)

	f := start(t, 3, disk.NewSim("d"))
	f.forget()
	f.receive(2, 9, raft.AppendEntries{})
	f.flush()
	require.Equal(t, []string{"sync", "AppendEntriesReply"}, f.order, "the term is new")
	f.forget()
	f.receive(2, 9, raft.AppendEntries{Entries: entries(1, 9, 3)})
	f.receive(2, 9, raft.AppendEntries{PrevLogIndex: 3, PrevLogTerm: 9, Entries: entries(4, 9, 3)})
	f.flush()
	require.Equal(t, []string{"sync", "AppendEntriesReply", "AppendEntriesReply"}, f.order, "one sync for both")
}

func TestNothingIsAnsweredBeforeTheSync(t *testing.T) {
	w := lead(t, 1)
	a := w.put("x", "1")
	w.flush()
	require.Equal(t, []string{"sync", "answer"}, w.order)
	w.done(a)
}

// After a sync that failed nothing leaves any longer, whatever comes in.
func TestAFailedSyncStopsTheServer(t *testing.T) {
	w := lead(t, 1)
	w.disk.FailSync(1)
	a := w.put("x", "1")
	require.Error(t, w.server.Flush())
	require.Empty(t, a.responses)
	w.put("y", "1")
	require.Error(t, w.server.Flush())

	f := start(t, 3, disk.NewSim("d"))
	f.forget()
	f.disk.FailSync(1)
	f.receive(2, 9, raft.AppendEntries{Entries: entries(1, 9, 1)})
	require.Error(t, f.server.Flush())
	require.Empty(t, f.sent)
}

func TestAFullDiskStopsTheServer(t *testing.T) {
	w := lead(t, 1)
	w.disk.Fill(0)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		a := w.put("x", strings.Repeat("v", 100<<10))
		if err = w.server.Flush(); err != nil {
			require.Empty(t, a.responses)
		}
	}
	require.ErrorContains(t, err, "no space left")
}

// One entry gave way to another that is committed: it will never be carried
// out. The one behind it may be in other logs still.
func TestWritesOfADeposedLeader(t *testing.T) {
	w := lead(t, 3)
	first, second := w.put("x", "1"), w.put("y", "2")
	w.flush()
	now := w.status()
	i := now.Last - 1
	w.receive(2, now.CurrentTerm+1, raft.AppendEntries{
		PrevLogIndex: i - 1, PrevLogTerm: prevTerm(w, i), LeaderCommit: i, Entries: entries(i, now.CurrentTerm+1, 1),
	})
	w.flush()
	w.refused(first, api.NotLeader, "has put another command in its place")
	w.refused(second, api.Unknown, "lost its leadership before a majority had the command")
	for _, a := range []*answer{first, second} {
		require.Equal(t, "a:2", a.responses[0].Error.Leader)
	}
	require.Empty(t, w.server.waiting)
}

// prevTerm is the term of the entry before an index.
func prevTerm(w *world, index raft.Index) raft.Term {
	if index == 1 {
		return 0
	}
	return w.server.rules.Entry(index - 1).Term
}

func TestAFollowerSaysWhoLeads(t *testing.T) {
	w := start(t, 3, disk.NewSim("d"))
	w.receive(2, 4, raft.AppendEntries{})
	w.flush()
	a := w.put("x", "1")
	w.refused(a, api.NotLeader, "n1 is a follower; n2 at a:2 leads term 4")
	require.Equal(t, "a:2", a.responses[0].Error.Leader)
	w.receive(3, 5, raft.AppendEntriesReply{})
	w.flush()
	a = w.put("x", "1")
	w.refused(a, api.NotLeader, "has heard of no leader in term 5")
	require.Empty(t, a.responses[0].Error.Leader)
}

// The operator sees who leads, once for each change.
func TestLeaderChangesAreLogged(t *testing.T) {
	w := lead(t, 3)
	w.receive(2, 90, raft.AppendEntriesReply{})
	w.flush()
	w.receive(2, 90, raft.AppendEntries{})
	w.receive(2, 90, raft.AppendEntries{})
	w.flush()
	w.flush()
	w.receive(3, 91, raft.AppendEntriesReply{})
	w.flush()
	require.Equal(t, []string{"knows no leader", "follows n2"}, w.logged)
}

func TestStatus(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	w.put("y", "1")
	a := w.ask(`{"id":3,"op":"status"}`)
	var got map[string]any
	require.NoError(t, json.Unmarshal(a.responses[0].Data, &got))
	now := w.status()
	require.Equal(t, "leader", got["role"])
	for name, want := range map[string]uint64{"id": 1, "leader": 1, "term": uint64(now.CurrentTerm), "keys": 1, "last": uint64(now.Last), "commit": uint64(now.Last) - 1, "applied": uint64(now.Last) - 1} {
		require.EqualValues(t, want, got[name], name)
	}
}

// Two servers have the same hash at each index up to which they have applied the same,
// and other hashes after that.
func TestHashes(t *testing.T) {
	play := func(second string) (hashes []api.StateHash) {
		w := lead(t, 3)
		w.ask(`{"op":"hash"}`)
		for key, value := range []string{"1", second, "3"} {
			w.server.Tick()
			w.put(fmt.Sprint(key), value)
			w.commit()
		}
		a, err := api.DecodeHashes(w.ask(`{"id":3,"op":"hash"}`).responses[0].Data)
		require.NoError(t, err)
		require.Equal(t, uint64(1), a.ID)
		require.Equal(t, uint64(w.status().Applied), a.Applied)
		require.True(t, a.Checked)
		require.False(t, a.Damaged)
		return a.Hashes[len(a.Hashes)-3:]
	}
	hashes, other := play("2"), play("9")
	require.Equal(t, hashes, play("2"))
	require.Equal(t, hashes[0], other[0])
	for i := 1; i < 3; i++ {
		require.Equal(t, hashes[i].Index, other[i].Index)
		require.NotEqual(t, hashes[i].Hash, other[i].Hash)
	}
}

// A log is read page by page; each page is bounded, whatever the entries are.
func TestTheLogComesInPages(t *testing.T) {
	w := lead(t, 3)
	before := w.status().Last
	for i := range 12 {
		w.put(fmt.Sprint("k", i), strings.Repeat("v", 50<<10))
	}
	w.flush()
	var seen []uint64
	pages := 0
	for from := uint64(before) + 1; from != 0; pages++ {
		a := w.ask(fmt.Sprintf(`{"op":"log","from":%d}`, from))
		var page struct {
			Last, Commit, Next uint64
			Entries            []struct{ Index, Term uint64 }
		}
		require.NoError(t, json.Unmarshal(a.responses[0].Data, &page))
		require.Less(t, len(a.responses[0].Data), journal.MaxPage+100)
		require.EqualValues(t, w.status().Last, page.Last)
		require.EqualValues(t, w.status().Commit, page.Commit)
		for _, e := range page.Entries {
			require.EqualValues(t, w.status().CurrentTerm, e.Term)
			seen = append(seen, e.Index)
		}
		from = page.Next
	}
	require.Greater(t, pages, 3)
	for i, index := range seen {
		require.EqualValues(t, int(before)+i+1, index)
	}
	require.Len(t, seen, 12)
	require.Contains(t, string(w.ask(`{"op":"log","from":99}`).responses[0].Data), `"entries":[]`)
}

func TestGarbageFromAPeerIsDroppedAndLogged(t *testing.T) {
	w := lead(t, 3)
	before := w.status()
	garbage := []string{``, `{}`, `[]`, `null`, "\xff", `{"term":1}`, `{"op":"put","key":"x","value":"1"}`, `{"term":1,"appendEntries":{"entries":[{}]}}`, strings.Repeat("[", 1000)}
	for _, line := range garbage {
		w.server.Receive(3, []byte(line))
	}
	w.flush()
	require.Empty(t, w.sent)
	require.Equal(t, before, w.status())
	require.Len(t, w.events, len(garbage))
	for _, e := range w.events {
		require.Equal(t, trace.Drop, e.Kind)
		require.EqualValues(t, 3, e.From)
		require.NotEmpty(t, e.Text)
	}
}

func TestTheJournalOfAnotherServerIsRefused(t *testing.T) {
	mine := journal.Header{Stage: Stage, Cluster: "north", ID: 1}
	for name, h := range map[string]journal.Header{
		"00-kvserver": {Stage: "00-kvserver", Cluster: mine.Cluster, ID: mine.ID},
		"south":       {Stage: mine.Stage, Cluster: "south", ID: mine.ID},
		"2":           {Stage: mine.Stage, Cluster: mine.Cluster, ID: 2},
	} {
		w := &world{t: t, disk: disk.NewSim("d")}
		j, _, err := journal.Open(w.disk, "journal", h)
		require.NoError(t, err)
		require.NoError(t, j.Close())
		_, err = New(w.world(3))
		require.ErrorContains(t, err, name)
	}
}

// A server that ran for a second knows how long its journal was. It does not start
// with one whose end is lost.
func TestATruncatedJournalIsRefused(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	text, err := disk.ReadFile(w.disk, "journal")
	require.NoError(t, err)
	for range node.Ticks(time.Second) {
		w.server.Tick()
	}
	w.disk.Kill()
	whole := bytes.TrimRight(text, "\t")
	f, err := disk.Replace(w.disk, "journal", whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1])
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = New(w.world(3))
	require.ErrorAs(t, err, new(*journal.LostError))
}

// Everything that was promised is there after the power was cut.
func TestARestart(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	w.put("y", "2")
	w.flush()
	before := w.status()
	w.disk.CrashWorst()

	again := start(t, 3, w.disk)
	require.Contains(t, again.logged[0], fmt.Sprintf("with term %d and a log of length %d from its disk", before.CurrentTerm, before.Last))
	now := again.status()
	require.Equal(t, []any{before.State, before.Last, raft.Follower, raft.Index(0)}, []any{now.State, now.Last, now.Role, now.Commit})
	again.receive(2, before.CurrentTerm+1, raft.AppendEntries{PrevLogIndex: before.Last, PrevLogTerm: before.CurrentTerm, LeaderCommit: before.Last})
	again.flush()
	require.Equal(t, before.Last, again.status().Applied)
	require.Contains(t, string(again.ask(`{"op":"status"}`).responses[0].Data), `"keys":2`)
	require.NoError(t, again.server.Close())
}

func (w *world) inspect() (s node.State) {
	w.server.Inspect(&s)
	return s
}

// Inspect shows a checker what Figure 2 names.
func TestInspect(t *testing.T) {
	w := lead(t, 3)
	w.put("x", "1")
	w.commit()
	s := w.inspect()
	now := w.status()
	require.Equal(t, node.Leader, s.Role)
	require.Equal(t, []uint64{1, 2, 3}, s.Config.Now)
	require.Equal(t, uint64(now.Last), s.Commit)
	require.Equal(t, []uint64{2, 3}, []uint64{s.Progress[0].ID, s.Progress[1].ID})
	require.Equal(t, uint64(now.Last), s.Progress[0].Match)
	require.Equal(t, node.Entry{Term: uint64(now.CurrentTerm), Data: text(`{"op":"put","key":"x","value":"1"}`)}, w.server.Entry(s.Last))
}

// errHook lets every operation of a disk fail.
var errHook = errors.New("the cable is out")

func TestADiskThatCannotBeReadIsAnError(t *testing.T) {
	w := &world{t: t, disk: disk.NewSim("d")}
	w.disk.Hook = func(disk.Op) error { return errHook }
	_, err := New(w.world(3))
	require.ErrorIs(t, err, errHook)
}
