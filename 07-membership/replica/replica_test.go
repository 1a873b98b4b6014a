package replica_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/07-membership/replica"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/host"
	"example.com/raftsteps/shared/core/node"
)

// group is the replicas of a bank in one process and in virtual time: inside a
// bubble of synctest, which also sees to it that Close leaves nothing running.
type group struct {
	t       *testing.T
	dir     string
	config  node.Config
	network replica.Network
	members map[uint64]*member
}

// member is a replica and its cable.
type member struct {
	*replica.Replica[*bank]
	cut atomic.Bool
}

// cable is a transport that can be cut.
type cable struct {
	host.Transport
	cut *atomic.Bool
}

func (c cable) Send(to uint64, line []byte) bool {
	return !c.cut.Load() && c.Transport.Send(to, line)
}

func (c cable) Run(ctx context.Context, receive func(uint64, []byte)) error {
	return c.Transport.Run(ctx, func(from uint64, line []byte) {
		if !c.cut.Load() {
			receive(from, line)
		}
	})
}

// inBubble runs a test with so many replicas.
func inBubble(t *testing.T, n uint64, compact int64, test func(t *testing.T, g *group)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := &group{t: t, dir: dir, members: make(map[uint64]*member), config: node.Config{Cluster: "bank", CompactBytes: compact}}
		for id := uint64(1); id <= n; id++ {
			g.config.Members = append(g.config.Members, at(id))
		}
		for _, m := range g.config.Members {
			g.start(m.ID)
		}
		defer func() {
			for _, m := range g.members {
				require.NoError(t, m.Close())
			}
		}()
		test(t, g)
	})
}

func at(id uint64) node.Member { return node.Member{ID: id, Address: fmt.Sprintf("host%d:1", id)} }

func (g *group) start(id uint64) *member {
	g.t.Helper()
	m := &member{}
	var err error
	m.Replica, err = replica.Start(replica.Options[*bank]{ID: id, Config: g.config, Machine: newBank,
		Dir: filepath.Join(g.dir, node.Name(id)), Transport: cable{g.network.Transport(id), &m.cut}})
	require.NoError(g.t, err)
	g.members[id] = m
	return m
}

// stop removes a replica; the others receive nothing from it any longer.
func (g *group) stop(id uint64) {
	g.t.Helper()
	m := g.members[id]
	delete(g.members, id)
	m.cut.Store(true)
	require.NoError(g.t, m.Close())
}

// leader waits until all know the same leader.
func (g *group) leader() (leader *member) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	g.until("a leader whom all know", func() bool {
		known := map[uint64]bool{}
		for _, m := range g.members {
			id, err := m.Leader(ctx)
			require.NoError(g.t, err)
			known[id], leader = true, g.members[id]
		}
		return len(known) == 1 && leader != nil
	})
	return leader
}

// until waits, in virtual time, until a condition is true.
func (g *group) until(what string, is func() bool) {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		require.True(g.t, time.Now().Before(end), "%s never comes", what)
	}
}

// follower returns one of the followers.
func (g *group) follower() *member {
	leader := g.leader()
	for _, m := range g.members {
		if m != leader {
			return m
		}
	}
	require.Fail(g.t, "there is no follower")
	return nil
}

// send sends a transfer until there is an answer.
func (g *group) send(t transfer) string {
	text, err := json.Marshal(t)
	require.NoError(g.t, err)
	for {
		if result, _, err := g.leader().Propose(g.t.Context(), text); err == nil {
			return string(result)
		}
	}
}

// balance reads an account at one replica.
func (g *group) balance(m *member, account string) (balance int) {
	g.t.Helper()
	require.NoError(g.t, m.Read(g.t.Context(), func(b *bank) { balance = b.Balance[account] }))
	return balance
}

// A replica with an emptied folder is refused by the others and stops; they
// continue. With its old folder it is a member again.
func TestAnEmptiedFolder(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		g.send(cent(1))
		id := status(g, g.follower()).ID
		folder := filepath.Join(g.dir, node.Name(id))
		g.until("all have it", func() bool { return g.balance(g.members[id], "bob") == 1 })
		g.stop(id)
		require.NoError(t, os.Rename(folder, folder+".kept"))

		m := g.start(id)
		<-m.Done()
		delete(g.members, id)
		require.ErrorContains(t, m.Close(), node.Name(id)+" has lost its disk: n")
		g.send(cent(2))

		require.NoError(t, os.RemoveAll(folder))
		require.NoError(t, os.Rename(folder+".kept", folder))
		m = g.start(id)
		g.until("it catches up", func() bool { return g.balance(m, "bob") == 2 })
	})
}

func requireError(t *testing.T, err error, code api.Code, definite bool, words string) {
	t.Helper()
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code)
	require.Equal(t, definite, e.Definite)
	require.Contains(t, e.Message, words)
}

func cent(i int) transfer {
	return transfer{Name: fmt.Sprint("cent", i), From: "ann", To: "bob", Amount: 1}
}

// collect receives commands from a watch, and checks that they are in order and
// without gaps.
func collect(t *testing.T, watch iter.Seq2[replica.Entry, error], from uint64, commands int) (names []string) {
	for e, err := range watch {
		require.NoError(t, err)
		require.Equal(t, from, e.Index)
		from++
		if e.Kind != replica.Command {
			continue
		}
		var made transfer
		require.NoError(t, json.Unmarshal(e.Command, &made))
		if names = append(names, made.Name); len(names) == commands {
			break
		}
	}
	return names
}

// The leader is killed during many transfers. Each transfer is made once on all
// replicas, and every watcher sees each of them.
func TestLeaderIsKilled(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		leader := g.leader()
		id := status(g, leader).ID
		var watched []string
		var watching errgroup.Group
		watcher := g.follower()
		watching.Go(func() error {
			watched = collect(t, watcher.Watch(t.Context(), 1), 1, 60)
			return nil
		})
		killed := false
		for i := range 60 {
			if i == 30 {
				g.stop(id)
				killed = true
			}
			require.Equal(t, `"done"`, g.send(cent(i)))
		}
		require.True(t, killed)
		require.NoError(t, watching.Wait())
		for i, name := range watched {
			require.Equal(t, cent(i).Name, name)
		}
		g.start(id)
		for _, m := range g.members {
			require.Equal(t, 40, g.balance(m, "ann"))
			require.Equal(t, 60, g.balance(m, "bob"))
		}
	})
}

func status(g *group, m *member) api.ServerStatus {
	s, err := m.Status(g.t.Context())
	require.NoError(g.t, err)
	return s
}

// All replicas stop and restart from their folders: a snapshot and the entries
// after it.
func TestRestart(t *testing.T) {
	inBubble(t, 3, 4<<10, func(t *testing.T, g *group) {
		for i := range 90 {
			g.send(cent(i))
		}
		for id := uint64(1); id <= 3; id++ {
			g.until("a snapshot", func() bool { return status(g, g.members[id]).Snapshot > 0 })
			g.stop(id)
		}
		for id := uint64(1); id <= 3; id++ {
			g.start(id)
		}
		g.leader()
		for _, m := range g.members {
			require.Equal(t, 10, g.balance(m, "ann"))
		}
		require.Equal(t, `"done"`, g.send(cent(7)), "it was made long ago")
		require.Equal(t, 90, g.balance(g.leader(), "bob"))
	})
}

// A replica that missed more entries than the log still has gets a snapshot. A
// watch on it ends with an error, because entries are missing.
func TestAReplicaCatchesUp(t *testing.T) {
	inBubble(t, 3, 4<<10, func(t *testing.T, g *group) {
		away := g.follower()
		next := status(g, away).Last + 1
		var end error
		var watching errgroup.Group
		watching.Go(func() error {
			for _, err := range away.Watch(t.Context(), next) {
				end = err
			}
			return nil
		})
		synctest.Wait()
		id := status(g, away).ID
		away.cut.Store(true)
		delete(g.members, id)
		for i := range 90 {
			g.send(cent(i))
		}
		for _, m := range g.members {
			g.until("a log that forgets", func() bool {
				_, err := m.Log(t.Context(), next, next)
				return errors.Is(err, replica.ErrCompacted)
			})
		}
		away.cut.Store(false)
		g.members[id] = away
		require.NoError(t, watching.Wait())
		require.ErrorIs(t, end, replica.ErrCompacted)
		require.Equal(t, 10, g.balance(away, "ann"))

		_, err := away.Log(t.Context(), next, next+5)
		require.ErrorIs(t, err, replica.ErrCompacted)
		require.EqualError(t, err, fmt.Sprintf("entry %d: the log no longer holds it", next))
	})
}

func TestLog(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		long := strings.Repeat("x", 100<<10)
		for i := range 5 {
			g.send(transfer{Name: fmt.Sprint(i, long), From: "ann", To: "bob", Amount: 1})
		}
		for _, m := range g.members {
			g.balance(m, "ann") // now it knows what is committed
			all, err := m.Log(t.Context(), 1, 1000)
			require.NoError(t, err)
			require.Len(t, all, 6, "they do not fit into one answer of the server")
			require.Equal(t, replica.NoOp, all[0].Kind)
			require.Nil(t, all[0].Command)
			for i, e := range all {
				require.EqualValues(t, i+1, e.Index)
				require.NotZero(t, e.Term)
			}
			for from := uint64(1); from <= 6; from++ {
				for to := from; to <= 6; to++ {
					some, err := m.Log(t.Context(), from, to)
					require.NoError(t, err)
					require.Equal(t, all[from-1:to], some)
				}
			}
			for _, r := range [][2]uint64{{3, 2}, {7, 9}, {1000, 1000}} {
				none, err := m.Log(t.Context(), r[0], r[1])
				require.NoError(t, err)
				require.Empty(t, none)
			}
			_, err = m.Log(t.Context(), 0, 1)
			requireError(t, err, api.BadRequest, true, "it starts at 1")
		}
		leader := g.leader()
		for _, m := range g.members {
			m.cut.Store(true)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, _, err := leader.Propose(ctx, []byte(`1`))
		require.Error(t, err)
		all, err := leader.Log(t.Context(), 6, 7)
		require.NoError(t, err)
		require.Len(t, all, 1, "what is not committed may go away again")
		for _, m := range g.members {
			m.cut.Store(false)
		}
	})
}

func TestProposeRefuses(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		_, _, err := g.leader().Propose(t.Context(), make([]byte, 1<<20+1))
		requireError(t, err, api.TooLarge, true, "the command has 1048577 bytes; at most 1048576 are allowed")

		leader := g.leader()
		_, _, err = g.follower().Propose(t.Context(), []byte(`1`))
		requireError(t, err, api.NotLeader, true, "is a follower")
		var e *api.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, at(status(g, leader).ID).Address, e.Leader)

		result, index, err := leader.Propose(t.Context(), []byte(`"a loan"`))
		require.NoError(t, err)
		require.Equal(t, `"not a transfer"`, string(result))
		require.Equal(t, status(g, leader).Last, index)
	})
}

// A command has any bytes. All replicas apply these bytes and show them in the log.
func TestCommandsOfAnyBytes(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		commands := []string{"", "transfer", "\xff\x00", " 7", "a\nb", `{"proposed":"x"}`}
		leader := g.leader()
		for _, c := range commands {
			_, _, err := leader.Propose(t.Context(), []byte(c))
			require.NoError(t, err)
		}
		for _, m := range g.members {
			g.balance(m, "ann") // now it knows what is committed
			all, err := m.Log(t.Context(), 2, 100)
			require.NoError(t, err)
			var got []string
			for _, e := range all {
				got = append(got, string(e.Command))
			}
			require.Equal(t, commands, got)
		}
	})
}

// When ctx ends, the outcome of a command is unknown; a read just ends.
func TestCtxEnds(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		leader := g.leader()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := leader.Propose(ended, []byte(`1`))
		requireError(t, err, api.Unavailable, true, "the request was not begun")
		require.ErrorIs(t, leader.Read(ended, func(*bank) { t.Error("nobody waits") }), context.Canceled)

		leader.cut.Store(true)
		defer leader.cut.Store(false)
		late := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}
		_, _, err = leader.Propose(late(), []byte(`1`))
		requireError(t, err, api.Unknown, false, "no answer in time")
		require.ErrorIs(t, leader.Read(late(), func(*bank) { t.Error("nobody waits") }), context.DeadlineExceeded)
		requireError(t, leader.Read(t.Context(), func(*bank) { t.Error("this state may be old") }), api.Unavailable, true, "found no leader")
		for e, err := range leader.Watch(late(), 2) {
			require.Zero(t, e)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
}

// A replica that stops answers every pending request.
func TestClose(t *testing.T) {
	inBubble(t, 3, 0, func(t *testing.T, g *group) {
		leader := g.leader()
		id := status(g, leader).ID
		leader.cut.Store(true)
		var waiting errgroup.Group
		var early, uncertain atomic.Int32
		for i := range 50 {
			waiting.Go(func() error {
				_, _, err := leader.Propose(t.Context(), fmt.Append(nil, i))
				requireError(t, err, api.Unknown, false, "")
				uncertain.Add(1)
				return nil
			})
			waiting.Go(func() error {
				for _, err := range leader.Watch(t.Context(), 1000) {
					requireError(t, err, api.Unavailable, true, "closed")
					early.Add(1)
				}
				return nil
			})
		}
		synctest.Wait()
		delete(g.members, id)
		select {
		case <-leader.Done():
			require.Fail(t, "it has not been closed")
		default:
		}
		begin := time.Now()
		for range 2 {
			require.NoError(t, leader.Close())
		}
		require.Less(t, time.Since(begin), 6*time.Second)
		<-leader.Done()
		require.NoError(t, waiting.Wait())
		require.EqualValues(t, 50, uncertain.Load())
		require.EqualValues(t, 50, early.Load())

		_, _, err := leader.Propose(t.Context(), []byte(`1`))
		requireError(t, err, api.Unavailable, true, "not begun")
		requireError(t, leader.Read(t.Context(), nil), api.Unavailable, true, "not begun")
	})
}

// Servers are added and removed: a new server gets the whole state, and the
// leader can be removed.
func TestMembersChange(t *testing.T) {
	inBubble(t, 3, 4<<10, func(t *testing.T, g *group) {
		for i := range 50 {
			g.send(cent(i))
		}
		leader := g.leader()
		old := status(g, leader).ID
		g.config.Joiners = []node.Member{at(4)}
		joined := g.start(4)
		delete(g.members, 4)
		m, err := joined.Members(t.Context())
		require.NoError(t, err)
		require.Empty(t, m.Members)

		_, err = leader.Change(t.Context(), []api.Member{at(4)}, []uint64{9})
		requireError(t, err, api.Refused, true, "n9 is not a member")
		index, err := leader.Change(t.Context(), []api.Member{at(4)}, []uint64{old})
		require.NoError(t, err)
		require.NotZero(t, index)
		g.until("the end of its membership", func() bool { return status(g, leader).Removed })
		g.stop(old)
		g.members[4] = joined
		next := g.leader()
		require.Equal(t, 50, g.balance(joined, "bob"))
		require.Equal(t, `"done"`, g.send(cent(50)))

		g.until("the end of the change", func() bool {
			m, err = g.leader().Members(t.Context())
			require.NoError(t, err)
			return m.Phase == "stable" && m.Committed
		})
		require.Greater(t, m.Config, index)
		require.Len(t, m.Members, 3)
		for _, m := range m.Members {
			require.NotEqual(t, old, m.ID)
			require.Equal(t, at(m.ID).Address, m.Address)
			require.True(t, m.Voter)
		}
		_, err = next.Cancel(t.Context())
		requireError(t, err, api.Refused, true, "nothing to cancel")
		if status(g, next).ID != 4 {
			require.NoError(t, next.Transfer(t.Context(), 4))
			require.Same(t, joined, g.leader())
		}
	})
}

// After a failed sync, a replica cannot trust its saved data. It stops, and
// Close returns the reason.
func TestDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		d := disk.NewSim("d")
		d.Hook = func(disk.Op) error {
			if fail.Load() {
				return errors.New("input/output error")
			}
			return nil
		}
		var network replica.Network
		r, err := replica.Start(replica.Options[*bank]{ID: 1, Config: node.Config{Cluster: "bank", Members: []node.Member{at(1)}},
			Machine: newBank, Disk: d, Transport: network.Transport(1)})
		require.NoError(t, err)
		_, err = r.Leader(t.Context())
		require.NoError(t, err)
		fail.Store(true)
		_, _, err = r.Propose(t.Context(), []byte(`1`))
		requireError(t, err, api.Unknown, false, "the server stopped before the outcome was known")
		<-r.Done()
		require.ErrorContains(t, r.Close(), "input/output error")
		_, err = r.Leader(t.Context())
		require.NoError(t, err, "it is known already")
	})
}

func TestStartRefuses(t *testing.T) {
	good := func() replica.Options[*bank] {
		var network replica.Network
		return replica.Options[*bank]{ID: 1, Machine: newBank, Dir: t.TempDir(), Transport: network.Transport(1),
			Config: node.Config{Cluster: "bank", Members: []node.Member{at(2), at(1)}}}
	}
	for words, spoil := range map[string]func(o *replica.Options[*bank]){
		"have no ID": func(o *replica.Options[*bank]) { o.ID = 0 },
		"in steps of 10ms": func(o *replica.Options[*bank]) {
			o.Config.Heartbeat, o.Config.ElectionTimeout = 1e6, [2]time.Duration{2e6, 3e6}
		},
		"have no Machine":                  func(o *replica.Options[*bank]) { o.Machine = nil },
		"have no Dir":                      func(o *replica.Options[*bank]) { o.Dir = "" },
		"has no Cluster":                   func(o *replica.Options[*bank]) { o.Config.Cluster = "" },
		"has no Members":                   func(o *replica.Options[*bank]) { o.Config.Members = nil },
		"a member with ID 0":               func(o *replica.Options[*bank]) { o.Config.Members[0].ID = 0 },
		"address of n2: ":                  func(o *replica.Options[*bank]) { o.Config.Members[0].Address = "nowhere" },
		"two members n1 at host1:1 and n1": func(o *replica.Options[*bank]) { o.Config.Joiners = []node.Member{at(1)} },
		"n3 is not a member of cluster":    func(o *replica.Options[*bank]) { o.ID = 3 },
		"each must be above the one":       func(o *replica.Options[*bank]) { o.Config.Heartbeat = time.Second },
		"has no secret":                    func(o *replica.Options[*bank]) { o.Transport = nil },
	} {
		o := good()
		spoil(&o)
		_, err := replica.Start(o)
		require.ErrorContains(t, err, words)
	}
	o := good()
	r, err := replica.Start(o)
	require.NoError(t, err)
	require.Nil(t, r.Addr())
	_, err = replica.Start(o)
	require.ErrorContains(t, err, "is in use by")
	require.NoError(t, r.Close())
	o.Config.Cluster = cmp.Or("other", o.Config.Cluster)
	_, err = replica.Start(o)
	require.ErrorContains(t, err, "other")
	o.Config.Cluster = "bank"
	r, err = replica.Start(o)
	require.NoError(t, err, "what could not start has left the folder free")
	require.NoError(t, r.Close())
}
