package server

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/06-compaction/raft"
	"example.com/raftsteps/shared/core/longtest"
)

var forgedMessages = flag.Int("messages", longtest.Pick(600, 3000), "how many messages TestForgedMessages forges")

// A message that the decoder accepts does no harm, whatever it says and whichever server
// sends it: no server panics or cannot start again, and afterwards the cluster
// has a leader, commits, and leaves nobody behind. It may stop a server in one
// way only: it claims that the server has acknowledged entries that it does not have.
func TestForgedMessages(t *testing.T) {
	var sum forged
	for seed := uint64(1); sum.messages < *forgedMessages; seed++ {
		sum.add(forge(t, seed))
	}
	t.Logf("%+v", sum)
	require.Less(t, sum.apart, sum.clusters/6, "the forger is caught, or corrected by the leader")
}

func FuzzForgedMessages(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { forge(t, seed) })
}

// forged counts clusters, the messages that they received, and the servers whose log
// was forged.
type forged struct{ clusters, messages, apart int }

func (a *forged) add(b forged) {
	a.clusters, a.messages, a.apart = a.clusters+b.clusters, a.messages+b.messages, a.apart+b.apart
}

// forge lets one server of three receive forged messages, and looks at what becomes
// of the cluster.
func forge(t *testing.T, seed uint64) forged {
	t.Helper()
	f := forger{Rand: rand.New(rand.NewPCG(seed, 7)), cluster: newCluster(t, 3), sum: forged{clusters: 1}}
	f.config.CompactBytes = int64(f.IntN(3)-1) << 10
	f.start(1, 2, 3)
	f.elect()
	for i := range f.IntN(20) {
		f.put(fmt.Sprint("k", i), strings.Repeat("v", f.IntN(300)))
	}
	if f.victim = 1 + f.Uint64N(3); f.IntN(2) == 0 {
		f.victim = f.leader().world.ID
	}
	for range 1 + f.IntN(60) {
		f.attack()
	}
	f.recovers(f.IntN(2) == 0)
	return f.sum
}

// forger is a cluster and a peer that knows its secret and means harm.
type forger struct {
	*rand.Rand
	*cluster
	victim uint64
	sum    forged
}

// attack lets the victim receive a message, with or without a round after it.
func (f *forger) attack() {
	s := f.servers[f.victim]
	if s == nil {
		f.start(f.victim) // it had stopped
		s = f.servers[f.victim]
	}
	line := f.message(s)
	f.sum.messages++
	from := f.Uint64N(5)
	if f.IntN(2) == 0 {
		from = uint64(s.rules.Status().Leader)
	}
	s.Receive(from, []byte(line))
	switch f.IntN(4) {
	case 0:
		f.tick()
	case 1:
		f.settle()
	case 2:
		f.flush(f.victim)
	}
}

// message is one that the decoder accepts, of any kind that this stage has.
func (f *forger) message(s *Server) string {
	kinds := []func(*Server) string{f.appendEntries, f.appendEntries, f.appendEntriesReply, f.vote, f.voteReply, f.read, f.snapshot, f.snapshotReply}
	for {
		kind := kinds[f.IntN(len(kinds))]
		for range 100 {
			line := fmt.Sprintf(`{"term":%d,%s}`, f.term(s), kind(s))
			if _, err := decodeMessage([]byte(line)); err == nil {
				return line
			}
		}
	}
}

// term is often the victim's own.
func (f *forger) term(s *Server) uint64 {
	now := uint64(s.rules.Status().CurrentTerm)
	if f.IntN(8) > 0 {
		return now
	}
	terms := []uint64{now + 1, now + 1, now + 2, now + 1<<32, now - min(now, 1), f.number(s)}
	return terms[f.IntN(len(terms))]
}

// number is near one that matters to the victim, or far from all that do.
func (f *forger) number(s *Server) uint64 {
	status := s.rules.Status()
	near := []uint64{uint64(status.CurrentTerm), uint64(status.Last), uint64(status.Commit), 1, 1 << 32, 1 << 53, 1 << 62, maxNumber - 2}
	n := near[f.IntN(len(near))] + f.Uint64N(3)
	return n - min(n, f.Uint64N(3))
}

// position is one of the victim's entries, or anything.
func (f *forger) position(s *Server) (index, term uint64) {
	if f.IntN(4) == 0 {
		return f.number(s), f.number(s)
	}
	if f.IntN(3) == 0 {
		return covered(s)
	}
	base := base(s)
	at := base + raft.Index(f.Uint64N(uint64(s.rules.Status().Last-base)+1))
	if at == 0 {
		return 0, 0
	}
	if at == base {
		return uint64(at), f.number(s)
	}
	return uint64(at), uint64(s.rules.Entry(at).Term)
}

func (f *forger) appendEntries(s *Server) string {
	index, term := f.position(s)
	of := max(term, 1)
	var entries []string
	for i := range f.Uint64N(4) {
		if f.IntN(2) == 0 {
			of = max(of, uint64(s.rules.Status().CurrentTerm))
		}
		entries = append(entries, fmt.Sprintf(`{"index":%d,"term":%d%s}`, index+i+1, of, f.content()))
	}
	commit := f.number(s)
	return fmt.Sprintf(`"appendEntries":{"prevLogIndex":%d,"prevLogTerm":%d,%s"leaderCommit":%d%s,"entries":[%s]}`,
		index, term, f.some(20, `"matched":true,`), commit, round(f.number(s)), strings.Join(entries, ","))
}

// content is what an entry holds: usually a command.
func (f *forger) content() string {
	contents := []string{
		`,"command":{"op":"put","key":"forged","value":"1"}`, `,"command":{"op":"put","key":"forged","value":"1"}`,
		`,"command":{"op":"poison"}`, `,"command":7`, ``,
		`,"command":{"op":"append","key":"forged","value":"1","session":3,"seq":18446744073709551615,"ack":9}`, `,"command":{"op":"open"}`,
		`,"kind":"noop"`, `,"kind":"noop","command":{}`, `,"kind":"x"`,
	}
	return contents[f.IntN(len(contents))]
}

func (f *forger) some(percent int, text string) string {
	if f.IntN(100) < percent {
		return text
	}
	return ""
}

func (f *forger) appendEntriesReply(s *Server) string {
	if f.IntN(2) == 0 {
		return fmt.Sprintf(`"appendEntriesReply":{"success":true,"matchIndex":%d%s}`, f.number(s), round(f.number(s)))
	}
	refused := f.number(s)
	return fmt.Sprintf(`"appendEntriesReply":{"refused":%d,"conflictIndex":%d,"conflictTerm":%d%s}`, refused, 1+f.Uint64N(refused+1), f.IntN(2), round(f.Uint64N(2)))
}

func (f *forger) vote(s *Server) string {
	index, term := f.position(s)
	return fmt.Sprintf(`"requestVote":{"lastLogIndex":%d,"lastLogTerm":%d}`, index, term)
}

func (f *forger) voteReply(*Server) string {
	return fmt.Sprintf(`"requestVoteReply":{"granted":%v}`, f.IntN(2) == 0)
}

func (f *forger) read(s *Server) string {
	texts := []string{
		fmt.Sprintf(`"readIndex":{"id":%d}`, f.number(s)),
		fmt.Sprintf(`"readIndexReply":{"id":%d,"index":%d}`, f.number(s), f.number(s)),
	}
	return texts[f.IntN(len(texts))]
}

func (f *forger) snapshot(s *Server) string {
	index, term := f.position(s)
	return fmt.Sprintf(`"installSnapshot":{"lastIndex":%d,"lastTerm":%d,"offset":%d,"data":"{}"%s}`, index, term, f.IntN(2)*f.IntN(5), f.some(50, `,"done":true`))
}

func (f *forger) snapshotReply(s *Server) string {
	index, term := f.position(s)
	return fmt.Sprintf(`"installSnapshotReply":{"lastIndex":%d,"lastTerm":%d,"offset":%d}`, index, term, f.number(s))
}

// recovers checks that the cluster works again: at once, or after a restart.
func (f *forger) recovers(restart bool) {
	f.t.Helper()
	ids := []uint64{1, 2, 3}
	stopped := len(f.servers) < len(ids)
	if restart || stopped {
		f.restart(ids)
	}
	f.elect()
	f.put("after", "1")
	for range 10 {
		f.run()
	}
	if len(f.servers) < len(ids) {
		// The leader was told that a follower has more than it has, and knows better
		// when it begins again.
		f.restart(ids)
		f.elect()
		f.put("after", "1")
		f.run()
	}
	for id := range maps.Keys(f.servers) {
		if !f.follows(id) {
			f.sum.apart++
		}
	}
}

// follows reports whether a server comes to know what is committed. If its log was
// forged, it need not. A server that was led to a high term and has restarted may be
// out of the reach of the others for a minute.
func (f *forger) follows(id uint64) bool {
	f.t.Helper()
	for range 100 {
		l, s := f.leader(), f.servers[id]
		switch {
		case l == nil || s == nil:
		case !f.agree(l, s):
			return false
		case l.rules.Status().Commit == s.rules.Status().Commit:
			return true
		}
		f.run()
	}
	require.Fail(f.t, "it is left behind", "n%d: %+v", id, f.servers[id].rules.Status())
	return false
}

func (f *forger) restart(ids []uint64) {
	f.t.Helper()
	f.stop(slices.Sorted(maps.Keys(f.servers))...)
	f.sent = nil
	f.start(ids...)
}

// agree reports whether a follower has the leader's entries where it knows them to be
// committed, and where they are of the same term. If not, an entry was forged that
// no rule can tell from a leader's own.
func (f *forger) agree(leader, s *Server) bool {
	first := max(base(leader), base(s))
	if first <= min(s.rules.Status().Commit, leader.rules.Status().Last) && leader.rules.Position(first) != s.rules.Position(first) {
		return false
	}
	for at := first + 1; at <= min(leader.rules.Status().Last, s.rules.Status().Last); at++ {
		x, y := leader.rules.Entry(at), s.rules.Entry(at)
		if x.Term != y.Term && at <= s.rules.Status().Commit || x.Term == y.Term && string(x.Command) != string(y.Command) {
			return false
		}
	}
	return s.rules.Status().Commit <= leader.rules.Status().Last
}
