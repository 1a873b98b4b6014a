package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
	"example.com/raftsteps/shared/run/cluster"
)

// fake stands in for a cluster of the last stage: it answers as its servers
// would, and the test says how a change proceeds. It has no sockets, so the
// pauses of a command take no time in a bubble of synctest.
type fake struct {
	mu sync.Mutex

	leader    uint64
	term      uint64
	phase     string
	voters    []uint64
	next      []uint64
	last      uint64
	config    uint64
	committed bool
	match     map[uint64]uint64
	removed   []uint64

	// addresses are the addresses of all servers, members or not.
	addresses map[uint64]string

	// dead are the servers that cannot be reached. still is a server that accepts
	// a request and does not answer. other says what runs at an address that does
	// not belong to this cluster.
	dead  map[uint64]bool
	still uint64
	other map[string]view

	// looks counts how often the leader was asked for the members; look is called
	// each time.
	looks int
	look  func(f *fake, n int)

	// keeps is true while a leader that is not a member stays leader.
	keeps bool

	// refusesToGo is true while a transfer of leadership fails.
	refusesToGo bool

	// loses is an operation that is carried out, but whose answer is lost; drops
	// is an operation that is lost before it is carried out.
	loses string
	drops string

	// asked are the requests that the leader has accepted.
	asked []string
}

func address(id uint64) string { return fmt.Sprintf("127.0.0.1:%d", 7970+id) }

// newFake returns a cluster of n1, n2 and n3, whose leader is n2.
func newFake(t *testing.T) (*fake, Stage) {
	t.Chdir(t.TempDir())
	f := &fake{leader: 2, term: 3, phase: api.Stable, voters: []uint64{1, 2, 3}, last: 500, config: 1, committed: true,
		match: map[uint64]uint64{1: 500, 3: 499}, addresses: map[uint64]string{}, dead: map[uint64]bool{}, other: map[string]view{}}
	for id := range uint64(5) {
		f.addresses[id+1] = address(id + 1)
	}
	ops := commandsAndStatus()
	ops[api.Members] = api.Op{}
	ops[api.Change] = api.Op{May: api.Add | api.Remove}
	ops[api.Cancel] = api.Op{}
	ops[api.Transfer] = api.Op{Needs: api.To}
	return f, Stage{Name: "97-members", About: "Members change.", Ops: ops, New: newForTest,
		Dial:   func(endpoints []string, _ ...DialOption) Client { return &fakeClient{f, endpoints} },
		direct: func(_ context.Context, address string) (Client, error) { return &fakeClient{f, []string{address}}, nil }}
}

type fakeClient struct {
	f         *fake
	endpoints []string
}

func (c *fakeClient) Close() error { return nil }

func (c *fakeClient) Do(ctx context.Context, r api.Request) (api.Response, error) {
	if c.f.still != 0 && c.endpoints[0] == address(c.f.still) {
		<-ctx.Done()
		return api.Response{}, &api.Error{Code: api.Unknown, Message: "no answer in time"}
	}
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	at := c.endpoints[0]
	if v, found := c.f.other[at]; found {
		return api.Response{Data: encode(v)}, nil
	}
	for id, a := range c.f.addresses {
		if a == at && !c.f.dead[id] {
			a := c.f.do(id, r)
			if a.Error != nil {
				return a, a.Error
			}
			return a, nil
		}
	}
	return api.Response{}, &api.Error{Code: api.Unavailable, Definite: true, Message: "cannot reach a server at " + at + ": connection refused", Cause: syscall.ECONNREFUSED}
}

func encode(v view) []byte { return v.AppendJSON(nil) }

func (f *fake) do(id uint64, r api.Request) api.Response {
	switch {
	case r.Op == api.Members:
		return api.Response{Data: encode(f.view(id))}
	case r.Op == api.Status:
		return api.Response{Data: f.status(id)}
	case id != f.leader:
		e := &api.Error{Code: api.NotLeader, Message: "another leads", Definite: true}
		if f.leader != 0 {
			e.Leader = f.addresses[f.leader]
		}
		return api.Failed(0, e)
	}
	f.asked = append(f.asked, string(r.AppendJSON(nil)))
	var a api.Response
	if r.Op != f.drops {
		a = f.carryOut(r)
	}
	if r.Op == f.loses || r.Op == f.drops {
		return api.Failed(0, &api.Error{Code: api.Unknown, Message: "no answer in time"})
	}
	return a
}

func (f *fake) carryOut(r api.Request) api.Response {
	switch r.Op {
	case api.Transfer:
		if f.refusesToGo {
			return api.Failed(0, &api.Error{Code: api.Unavailable, Message: "n3 did not answer in time, so n2 stays leader", Definite: true})
		}
		f.leader, f.term = r.To, f.term+1
	case api.Cancel:
		f.settle(f.voters)
	case api.Change:
		if f.phase != api.Stable {
			return api.Failed(0, &api.Error{Code: api.Refused, Message: "a change is under way: to n1, n2, n3, n4", Definite: true})
		}
		f.last++
		f.config, f.phase, f.next = f.last, api.Learning, slices.Clone(f.voters)
		for _, m := range r.Add {
			f.next = append(f.next, m.ID)
			f.addresses[m.ID] = m.Address
		}
		f.next = slices.DeleteFunc(f.next, func(id uint64) bool { return slices.Contains(r.Remove, id) })
		return api.Response{Index: f.config}
	}
	return api.Response{}
}

// status returns the status of a server.
func (f *fake) status(id uint64) []byte {
	role := "follower"
	if id == f.leader {
		role = "leader"
	}
	fields := map[string]any{"id": id, "role": role, "term": f.term, "phase": f.phase, "voters": f.voters}
	if f.phase != api.Stable {
		fields["next"] = f.next
	}
	switch {
	case slices.Contains(f.removed, id):
		fields["removed"] = true
	case !slices.Contains(f.voters, id) && !slices.Contains(f.next, id):
		fields["voters"] = []uint64{}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return b
}

// settle ends a change. A leader that is no longer a member then transfers its
// leadership.
func (f *fake) settle(voters []uint64) {
	f.last++
	if f.leader != 0 && !slices.Contains(voters, f.leader) && !f.keeps {
		f.leader, f.term = voters[0], f.term+1
	}
	f.config, f.phase, f.voters, f.next = f.last, api.Stable, voters, nil
}

func (f *fake) view(id uint64) view {
	v := view{Membership: api.Membership{ID: id, Role: "follower", Term: f.term, Leader: f.leader, Last: f.last, Config: f.config, Committed: f.committed, Phase: f.phase}}
	if id == f.leader {
		v.Role = "leader"
		f.looks++
		if f.look != nil {
			f.look(f, f.looks)
			v.Leader, v.Last, v.Config, v.Phase, v.Committed = f.leader, f.last, f.config, f.phase, f.committed
		}
	}
	if !slices.Contains(f.voters, id) && !slices.Contains(f.next, id) && id != f.leader {
		v.Leader, v.Config = 0, 0
		return v
	}
	for _, m := range slices.Sorted(slices.Values(slices.Compact(slices.Sorted(slices.Values(slices.Concat(f.voters, f.next)))))) {
		w := api.MemberStatus{Member: api.Member{ID: m, Address: f.addresses[m]}, Voter: slices.Contains(f.voters, m), Next: slices.Contains(f.next, m)}
		if id == f.leader {
			w.Match = f.match[m]
		}
		v.Members = append(v.Members, w)
	}
	return v
}

// goesOn advances a change by one step with each look.
func goesOn(f *fake, n int) {
	switch {
	case n == 3:
		f.match[4] = 118
	case n == 6:
		f.match[4], f.phase, f.config = 501, api.Joint, 502
	case n == 9:
		f.settle(f.next)
	}
}

// For a server that is not running, members shows its state, not the role that it
// last had.
func TestMembersShowsServersThatAreNotRunning(t *testing.T) {
	f, s := newFake(t)
	a := &app{stage: s, stderr: io.Discard}
	v := f.view(2)
	processes := make(map[string]cluster.Server)
	for id, state := range map[uint64]string{1: cluster.Killed, 2: cluster.Running, 3: "ended by itself: exit status 1"} {
		processes[address(id)] = cluster.Server{ID: id, State: state}
	}
	var out strings.Builder
	a.writeMembers(&out, v, processes)
	require.Equal(t, strings.Join([]string{
		`SERVER  ADDRESS         ROLE                            VOTES  LOG`,
		`n1      127.0.0.1:7971  killed                          yes    all 500 entries`,
		`n2      127.0.0.1:7972  leader                          yes    all 500 entries`,
		`n3      127.0.0.1:7973  ended by itself: exit status 1  yes    499 of 500 entries`,
		`No change is under way.`, ``}, "\n"), out.String())

	f.phase, f.next = api.Learning, []uint64{2, 3, 4}
	processes[address(4)] = cluster.Server{ID: 4, State: cluster.Killed}
	out.Reset()
	a.writeMembers(&out, f.view(2), processes)
	require.Regexp(t, `\nn4 +127.0.0.1:7974 +learner \(killed\) +not until`, out.String())
}

func TestMembers(t *testing.T) {
	f, s := newFake(t)
	got := run(t, s, "members")
	require.Equal(t, result{0, strings.Join([]string{
		`SERVER  ADDRESS         ROLE      VOTES  LOG`,
		`n1      127.0.0.1:7971  follower  yes    all 500 entries`,
		`n2      127.0.0.1:7972  leader    yes    all 500 entries`,
		`n3      127.0.0.1:7973  follower  yes    499 of 500 entries`,
		`No change is under way.`, ``}, "\n"), ""}, got)

	f.phase, f.next, f.config, f.committed = api.Learning, []uint64{2, 3, 4}, 500, false
	f.match[4] = 12
	require.Equal(t, strings.Join([]string{
		`SERVER  ADDRESS         ROLE      VOTES                          LOG`,
		`n1      127.0.0.1:7971  follower  yes, until the change is done  all 500 entries`,
		`n2      127.0.0.1:7972  leader    yes                            all 500 entries`,
		`n3      127.0.0.1:7973  follower  yes                            499 of 500 entries`,
		`n4      127.0.0.1:7974  learner   not until it has caught up     12 of 500 entries`,
		`A change to n2, n3, n4 is under way: n4 receives the log, and votes once it has caught up; cancel it with: ` +
			s.program(t) + ` cancel; entry 500, which says so, is not committed yet.`, ``}, "\n"), run(t, s, "members").out)

	f.phase, f.committed = api.Joint, true
	got = run(t, s, "members")
	require.Contains(t, got.out, "n1      127.0.0.1:7971  follower  yes, among the old members only  all")
	require.Contains(t, got.out, "n4      127.0.0.1:7974  follower  yes, among the new members only  12 of 500")
	require.Contains(t, got.out, "\nA change is under way: each decision needs a majority of n1, n2, n3 and one of n2, n3, n4.\n")

	delete(f.match, 3)
	require.Contains(t, run(t, s, "members").out, "n3      127.0.0.1:7973  follower  yes                              no answer yet\n")
	require.Equal(t, string(encode(f.view(2)))+"\n", run(t, s, "members", "-o", "json").out)
}

func (s Stage) program(t *testing.T) string { return (&app{stage: s}).program() }

// Without a leader, the other servers say which members they know. A server that
// was never added knows no members.
func TestMembersWithoutALeader(t *testing.T) {
	f, s := newFake(t)
	f.dead[2] = true
	got := run(t, s, "members")
	require.Contains(t, got.out, "n1      127.0.0.1:7971  follower  yes    -\n")
	require.Regexp(t, `^no leader answers; this is the view of n[13]\n$`, got.errors)
	got = run(t, s, "members", "--endpoints", address(5))
	require.Equal(t, "n5 knows no members: it has not been added to a cluster yet\n", got.out)
	for id := range uint64(5) {
		f.dead[id+1] = true
	}
	got = run(t, s, "members")
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "cannot reach a server at 127.0.0.1:797")
}

// If servers accept the request of members and do not answer, as paused servers
// do, the error says that nothing was changed.
func TestMembersOfServersThatSayNothing(t *testing.T) {
	_, s := newFake(t)
	s.direct = func(context.Context, string) (Client, error) { return silent{}, nil }
	got := run(t, s, "members")
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "error: no answer in time; nothing was changed, since members only reads (unavailable); ")
}

// silent loses every answer.
type silent struct{}

func (silent) Close() error { return nil }
func (silent) Do(context.Context, api.Request) (api.Response, error) {
	return api.Response{}, &api.Error{Code: api.Unknown, Message: "no answer in time"}
}

// The leader was unplugged just now, so connecting to it takes as long as it may, and
// the others still name it. The command finds the next leader in time.
func TestChangeAtALeaderThatWasUnplugged(t *testing.T) {
	f, s := newFake(t)
	synctest.Test(t, func(t *testing.T) {
		direct, dials := s.direct, 0
		s.direct = func(ctx context.Context, at string) (Client, error) {
			if at != address(2) {
				return direct(ctx, at)
			}
			<-ctx.Done()
			f.mu.Lock()
			defer f.mu.Unlock()
			if dials++; dials == 2 { // the first one asks for the members
				f.leader = 3
			}
			return nil, &api.Error{Code: api.Unavailable, Definite: true, Message: "i/o timeout", Cause: ctx.Err()}
		}
		got := run(t, s, "change", "--add", "4=127.0.0.1:7974", "--remove", "2", "--no-wait")
		require.Equal(t, exitDone, got.code, got.errors)
		require.Len(t, f.asked, 1)
	})
}

// One address is enough to find the leader, because servers name the other
// members.
func TestMembersAreFoundThroughOthers(t *testing.T) {
	f, s := newFake(t)
	f.addresses[2] = "127.0.0.1:9002"
	got := run(t, s, "members", "--endpoints", address(3))
	require.Contains(t, got.out, "n2      127.0.0.1:9002  leader")
}

func TestAdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.look = goesOn
		got := run(t, s, "add", "4="+address(4))
		require.Equal(t, 0, got.code, got.errors)
		require.Equal(t, "the members are n1, n2, n3, n4\n", got.out)
		require.Equal(t, []string{`{"op":"change","add":[{"id":4,"address":"127.0.0.1:7974"}]}`}, f.asked)
		require.Equal(t, "the new servers receive the log: n4 has 118 of 501 entries\n"+
			"the old and the new members decide together: n1, n2, n3 and n1, n2, n3, n4\n", got.errors)
	})
}

func TestChangeAsJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.look = goesOn
		got := run(t, s, "change", "--add", "n4="+address(4), "--remove", "1,leader", "-o", "json")
		require.Equal(t, 0, got.code, got.errors)
		m, err := api.DecodeMembership([]byte(got.out))
		require.NoError(t, err)
		v := view{Membership: m}
		require.Equal(t, "n3, n4", v.names(isVoter))
		require.Equal(t, []string{`{"op":"change","add":[{"id":4,"address":"127.0.0.1:7974"}],"remove":[1,2]}`}, f.asked)
	})
}

func TestRemoveAndCancelAndTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.look = func(f *fake, n int) {
			if n == 2 {
				f.settle(f.next)
			}
		}
		got := run(t, s, "remove", "n1", "3")
		require.Equal(t, result{0, "the members are n2\n", ""}, got)

		f.voters, f.phase, f.next = []uint64{1, 2, 3}, api.Learning, []uint64{1, 2, 3, 4}
		require.Equal(t, result{0, "the members stay n1, n2, n3\n", ""}, run(t, s, "cancel"))
		require.Equal(t, result{0, "n3 leads\n", ""}, run(t, s, "transfer", "n3"))
		require.Equal(t, result{0, `{"ok":true}` + "\n", ""}, run(t, s, "transfer", "1", "-o", "json"))
		require.Equal(t, []string{`{"op":"change","remove":[1,3]}`, `{"op":"cancel"}`, `{"op":"transfer","to":3}`, `{"op":"transfer","to":1}`}, f.asked)
	})
}

// If the leader refuses a change, the command prints the reason and ends with
// exit code 1.
func TestChangeIsRefused(t *testing.T) {
	f, s := newFake(t)
	f.phase, f.next = api.Learning, []uint64{1, 2, 3, 4}
	got := run(t, s, "add", "5="+address(5))
	require.Equal(t, result{exitRefused, "", "error: a change is under way: to n1, n2, n3, n4 (refused)\n"}, got)
	got = run(t, s, "add", "5="+address(5), "-o", "json")
	require.Equal(t, `{"ok":false,"error":{"code":"refused","message":"a change is under way: to n1, n2, n3, n4","definite":true}}`+"\n", got.out)
}

// If a change is canceled while a command waits for it, the command fails.
func TestChangeIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.look = func(f *fake, n int) {
			if n == 4 {
				f.settle(f.voters)
			}
		}
		got := run(t, s, "add", "4="+address(4))
		require.Equal(t, exitRefused, got.code)
		require.Contains(t, got.errors, "error: the change was canceled: the members are n1, n2, n3 (refused)\n")
	})
}

func TestNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		got := run(t, s, "add", "4="+address(4), "--no-wait")
		require.Equal(t, result{0, "ok\n", "the change continues by itself; see the progress with: " + s.program(t) + " members\n"}, got)
		f.settle([]uint64{1, 2, 3})
		require.Equal(t, result{0, `{"ok":true,"index":503}` + "\n", ""}, run(t, s, "add", "4="+address(4), "--no-wait", "-o", "json"))
	})
}

// If the wait ends before the change does, the error says that the change
// continues.
func TestTheWaitForAChangeTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.match[4] = 1
		got := run(t, s, "add", "4="+address(4), "--timeout", "300ms")
		require.Equal(t, exitUnknown, got.code)
		require.Contains(t, got.errors, "error: timed out; the change was accepted and will continue; see the progress with: "+s.program(t)+
			" members; cancel it with: "+s.program(t)+" cancel\n")
		require.Len(t, f.asked, 1)

		f, s = newFake(t)
		f.match[4] = 1
		b := start(t, s, "add", "4="+address(4))
		b.shows("n4 has 1 of 501")
		require.Equal(t, exitInterrupted, b.stop())
		require.Contains(t, b.errors.String(), "error: interrupted; the change was accepted and will continue; see the progress with")

		f, s = newFake(t)
		f.look = func(f *fake, n int) {
			if f.phase == api.Learning {
				f.phase = api.Joint
			}
		}
		got = run(t, s, "add", "4="+address(4), "--timeout", "300ms")
		require.Equal(t, exitUnknown, got.code)
		require.NotContains(t, got.errors, "cancel", "the change can no longer be canceled")
	})
}

// The leader crashes during a change, and the next leader finishes it.
func TestLeaderCrashesDuringAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.match[4] = 7
		var once sync.Once
		f.look = func(f *fake, n int) {
			switch {
			case f.leader == 2 && n > 2:
				f.leader = 0
				once.Do(func() {
					time.AfterFunc(300*time.Millisecond, func() {
						f.mu.Lock()
						defer f.mu.Unlock()
						f.dead[2], f.leader = true, 3
					})
				})
			case f.leader == 3 && n > 5 && f.phase == api.Learning:
				f.settle(f.next)
			}
		}
		got := run(t, s, "add", "4="+address(4))
		require.Equal(t, 0, got.code, got.errors)
		require.Contains(t, got.errors, "no leader answers at the moment; the change continues when there is a leader\n")
		require.Equal(t, "the members are n1, n2, n3, n4\n", got.out)
	})
}

// A command that waits for a new server says what is wrong with that server.
func TestNewServerThatSaysNothing(t *testing.T) {
	for name, c := range map[string]struct {
		is   func(f *fake)
		want string
	}{
		"it does not run": {func(f *fake) { f.dead[4] = true },
			"n4 has not answered yet: is it running at 127.0.0.1:7974? (connection refused)"},
		"another server": {func(f *fake) { f.other[address(4)] = view{Membership: api.Membership{ID: 5}} },
			"the server at 127.0.0.1:7974 is n5, not n4: cancel the change, and add the right address"},
		"another cluster": {func(f *fake) {
			f.other[address(4)] = view{Membership: api.Membership{ID: 4, Members: []api.MemberStatus{{Member: api.Member{ID: 1, Address: "127.0.0.1:1"}, Voter: true}, {Member: api.Member{ID: 4, Address: address(4)}, Voter: true}}}}
		}, "n4 at 127.0.0.1:7974 belongs to another cluster, whose members are n1, n4: cancel the change"},
		"a snapshot": {func(f *fake) { f.other[address(4)] = view{Membership: api.Membership{ID: 4, Leader: 2}} }, "n4 is receiving a snapshot first"},
		"it is silent": {func(f *fake) { f.other[address(4)] = view{Membership: api.Membership{ID: 4}} },
			"n4 runs at 127.0.0.1:7974 and has no entries yet"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFake(t)
				c.is(f)
				got := run(t, s, "add", "4="+address(4), "--timeout", "800ms")
				require.Equal(t, exitUnknown, got.code)
				require.Contains(t, got.errors, "the new servers receive the log: "+c.want+"\n")
			})
		})
	}
}

// A new server that was created for another cluster refuses the leader. The
// command finds this out with a probe, because the leader does not report it.
func TestNewServerOfAnotherCluster(t *testing.T) {
	f, s := newFake(t)
	folder, err := cluster.Open(cluster.OpenOptions{Stage: "97-members", Servers: 3, Dir: ".raftsteps/97-members", BasePort: 7970, Needs: cluster.Needs{Changes: true}})
	require.NoError(t, err)
	require.NoError(t, folder.Close())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	south := wire.Server{Ops: s.Ops, Peers: &wire.Peers{Self: wire.Identity{Cluster: "south", Secret: "secret", ID: 4}}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- south.Serve(ctx, ln) }()
	at := ln.Addr().String()
	f.other[at] = view{Membership: api.Membership{ID: 4}}
	got := run(t, s, "add", "4="+at, "--timeout", "900ms")
	require.Equal(t, exitUnknown, got.code)
	require.Contains(t, got.errors, "n4 runs at "+at+" and refuses the leader: n2 belongs to cluster \""+folder.File.Config.Cluster+
		"\", this server to cluster \"south\"; cancel the change\n")
	stop()
	require.NoError(t, <-done)
}

// A leader accepts no writes while it tries to transfer its leadership. If that
// fails, the command does not send the request again.
func TestATransferIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.refusesToGo = true
		got := run(t, s, "transfer", "3")
		require.Equal(t, exitUnavailable, got.code)
		require.Contains(t, got.errors, "error: n3 did not answer in time, so n2 stays leader (unavailable); ")
		require.Len(t, f.asked, 1)
	})
}

// A paused server does not block a change, even if the command asks it first: it
// may be the server to be removed.
func TestAPausedServerDoesNotBlockAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.still, f.look = 1, func(f *fake, n int) {
			if f.phase == api.Learning {
				f.settle(f.next)
			}
		}
		began := time.Now()
		require.Equal(t, result{0, "n3 leads\n", ""}, run(t, s, "transfer", "3"))
		require.Equal(t, result{0, "the members are n2, n3\n", ""}, run(t, s, "remove", "1"))
		require.Less(t, time.Since(began), 5*time.Second)
	})
}

// The outcome of a change that is in a log but not committed is unknown.
func TestAnswerIsLostAndNothingAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.loses, f.committed = api.Change, false
		f.look = func(f *fake, n int) {
			if n == 3 {
				f.leader = 0
			}
		}
		got := run(t, s, "add", "4="+address(4), "--timeout", "300ms")
		require.Equal(t, exitUnknown, got.code)
		require.Equal(t, "the answer was lost, but the change is under way\n"+
			"no leader answers at the moment; the next leader may continue the change or drop it\n"+
			"error: timed out; the change is in the log of a server and may still be done or dropped; see the progress with: "+s.program(t)+" members\n", got.errors)

		f, s = newFake(t)
		f.loses, f.committed = api.Change, false
		f.look = func(f *fake, n int) {
			if n == 3 {
				f.settle(f.voters)
				f.leader, f.committed = 3, true
			}
		}
		got = run(t, s, "add", "4="+address(4))
		require.Equal(t, exitRefused, got.code)
		require.Contains(t, got.errors, "error: the change was dropped by a new leader: the members are n1, n2, n3 (refused)\n")

		f, s = newFake(t)
		f.loses, f.match[4] = api.Change, 1
		got = run(t, s, "add", "4="+address(4), "--timeout", "300ms")
		require.Contains(t, got.errors, "error: timed out; the change was accepted and will continue")
	})
}

// If the answer is lost, the command looks at the members to learn the outcome.
func TestAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.loses, f.look = api.Change, goesOn
		got := run(t, s, "add", "4="+address(4))
		require.Equal(t, 0, got.code)
		require.Contains(t, got.errors, "the answer was lost, but the change is under way\n")
		require.Len(t, f.asked, 1, "a request that may have been carried out must not be sent again")

		f, s = newFake(t)
		f.drops = api.Change
		got = run(t, s, "add", "4="+address(4))
		require.Equal(t, exitUnknown, got.code)
		require.Equal(t, "error: no answer in time; now the members are n1, n2, n3, and n2 leads; see the members with: "+s.program(t)+" members\n", got.errors)
		require.Len(t, f.asked, 1)

		f, s = newFake(t)
		f.loses = api.Transfer
		require.Equal(t, result{0, "n3 leads\n", ""}, run(t, s, "transfer", "3"))

		f, s = newFake(t)
		f.loses = api.Cancel
		got = run(t, s, "cancel")
		require.Equal(t, exitUnknown, got.code)
		require.Equal(t, "error: no answer in time; now the members are n1, n2, n3, and n2 leads; see the members with: "+s.program(t)+" members\n", got.errors)
	})
}

func TestChangeUsage(t *testing.T) {
	f, s := newFake(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"add"}, "add takes SERVER=ADDRESS..., but got none"},
		{[]string{"add", "x=127.0.0.1:1"}, `"x=127.0.0.1:1" is not a server to add; write number=address, such as 4=127.0.0.1:7074`},
		{[]string{"add", "0=127.0.0.1:1"}, `"0=127.0.0.1:1" is not a server to add`},
		{[]string{"add", "4=7074"}, `4=7074: "7074" is not host:port`},
		{[]string{"add", "4"}, "the address of n4 is unknown; write 4=HOST:PORT, or start the server first with: " + s.program(t) + " start 4"},
		{[]string{"add", "4=h:1", "4=h:2"}, "n4 is added twice"},
		{[]string{"remove"}, "remove takes SERVER..., but got none"},
		{[]string{"remove", "x"}, `"x" does not name a server`},
		{[]string{"remove", "1,all"}, `name the servers to remove`},
		{[]string{"change"}, "change needs --add or --remove; see"},
		{[]string{"change", "--add", "4=h:4", "--remove", "4"}, "n4 is both to be added and to be removed"},
		{[]string{"transfer"}, "transfer takes SERVER, but got none"},
		{[]string{"transfer", "all"}, `"all" does not name a server; write a number (2 or n2)`},
		{[]string{"transfer", "9999999999999999"}, `the numbers go from 1 to 2^53`},
		{[]string{"start", "x"}, `"x" does not name a server`},
		{[]string{"start", "4", "here"}, `"here" is not host:port`},
	} {
		got := run(t, s, c.args...)
		require.Equal(t, exitUsage, got.code, "%v: %s", c.args, got.errors)
		require.Contains(t, got.errors, c.want)
	}
	require.Empty(t, f.asked)
	got := run(t, s, "start", "4")
	require.Equal(t, exitUnavailable, got.code)
	require.Contains(t, got.errors, "no cluster is running on .raftsteps/97-members; start one with: ")
}

// A server that the command start has started can be added by its number alone.
func TestAddAJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.look = goesOn
		folder, err := cluster.Open(cluster.OpenOptions{Stage: "97-members", Servers: 3, Dir: ".raftsteps/97-members", BasePort: 7970, Needs: cluster.Needs{Changes: true}})
		require.NoError(t, err)
		require.NoError(t, folder.Join(node.Member{ID: 4, Address: address(4)}))
		require.NoError(t, folder.Close())
		got := run(t, s, "add", "5")
		require.Equal(t, exitUsage, got.code)
		require.Contains(t, got.errors, "the address of n5 is unknown; write 5=ADDRESS, such as 5=127.0.0.1:7975, or start the server first with: "+s.program(t)+" start 5")
		got = run(t, s, "add", "1")
		require.Equal(t, exitRefused, got.code, "the command start would refuse this number")
		require.Contains(t, got.errors, "n1 is one of the first members of this cluster; give a new server a number that no server has had, or write 1=127.0.0.1:7971 to add n1 again with its old disk")
		require.Equal(t, "the members are n1, n2, n3, n4\n", run(t, s, "add", "4").out)
		got = run(t, s, "__complete", "add", "")
		require.True(t, strings.HasPrefix(got.out, "4=127.0.0.1:7974\n"), got.out)
	})
}

// A stage with fixed members has none of these commands, and its status lacks
// their columns.
func TestFixedMembers(t *testing.T) {
	for _, s := range []Stage{stages["92-cluster"], stages["95-elect"]} {
		t.Chdir(t.TempDir())
		help := run(t, s, "--help").out
		for _, word := range []string{"members", "start", "add", "remove", "change", "cancel", "transfer"} {
			require.NotRegexp(t, `(?m)^  `+word+` `, help)
			require.Contains(t, run(t, s, word, "4").errors, fmt.Sprintf("there is no command %q", word))
		}
		require.NotContains(t, run(t, s, "node", "--help").out, "--address")
	}
	require.NotContains(t, run(t, stages["95-elect"], "help", "exit-codes").out, "members")
	_, s := newFake(t)
	require.Contains(t, run(t, s, "help", "exit-codes").out, "\nAfter add, remove, change, cancel or transfer, run members instead")
	help := run(t, s, "--help").out
	require.Contains(t, help, "Change the members:\n  members ")
	require.Contains(t, run(t, s, "node", "--help").out, "--address")
}

// The table of status marks the servers without a vote, in an existing column,
// and a line below it describes the change of the members.
func TestStatusWithMembers(t *testing.T) {
	f, s := newFake(t)
	f.phase, f.next, f.voters, f.removed = api.Learning, []uint64{2, 4}, []uint64{2, 3}, []uint64{1}
	require.Equal(t, strings.Join([]string{
		`SERVER  ADDRESS         ROLE      TERM  REACHABLE`,
		`n1      127.0.0.1:7971  removed   3     yes`,
		`n2      127.0.0.1:7972  leader    3     yes`,
		`n3      127.0.0.1:7973  follower  3     yes`,
		`n4      127.0.0.1:7974  learner   3     yes`,
		`n5      127.0.0.1:7975  new       3     yes`,
		`A change of the members to n2, n4 is under way (learning); see the progress with: ` + s.program(t) + ` members`, ``}, "\n"), run(t, s, "status").out)
	f.phase = api.Joint
	require.Contains(t, run(t, s, "status").out, `n4      127.0.0.1:7974  follower  3     yes`)
	f.settle([]uint64{2, 4})
	got := run(t, s, "status")
	require.NotContains(t, got.out, "A change")
	require.Contains(t, got.out, `n4      127.0.0.1:7974  follower  3     yes`)
	require.Contains(t, got.out, `n1      127.0.0.1:7971  removed   3     yes`)
	require.Contains(t, run(t, s, "status", "-o", "json").out, `"phase":"stable"`)
	f.dead[f.leader] = true
	got = run(t, s, "status")
	require.Contains(t, got.out, `n1      127.0.0.1:7971  removed   3     yes`)
	require.Contains(t, got.out, `n4      127.0.0.1:7974  follower  3     yes`)
	require.Contains(t, got.out, `n5      127.0.0.1:7975  new       3     yes`)
}

// A command with the argument "leader" waits a short time while the servers elect
// one.
func TestLeaderIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.leader = 0
		time.AfterFunc(200*time.Millisecond, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.leader = 3
		})
		f.look = func(f *fake, n int) {
			if f.phase == api.Learning {
				f.settle(f.next)
			}
		}
		got := run(t, s, "remove", "leader")
		require.Equal(t, result{0, "the members are n1, n2\n", ""}, got)
		f.leader = 0
		got = run(t, s, "remove", "leader", "--timeout", "100ms")
		require.Equal(t, exitUnavailable, got.code)
		require.Contains(t, got.errors, "no server reports that it is the leader")
	})
}

// Only a voter can help to restore a majority; a server that was removed cannot.
func TestMissingVoters(t *testing.T) {
	states := make(map[string]cluster.Server)
	for id := range uint64(5) {
		states[address(id+1)] = cluster.Server{ID: id + 1, State: cluster.Running}
	}
	kill := func(id uint64) { states[address(id)] = cluster.Server{ID: id, State: cluster.Killed} }
	var v view
	for id := uint64(2); id <= 5; id++ {
		v.Members = append(v.Members, api.MemberStatus{Member: api.Member{ID: id, Address: address(id)}, Voter: id < 5, Next: id == 5})
	}
	kill(1)
	kill(5)
	require.Empty(t, v.missing(states), "one of the servers is not a member, and the other does not vote")
	kill(4)
	require.Empty(t, v.missing(states), "two of three voters are running")
	kill(3)
	require.Equal(t, []cluster.Server{{ID: 3, State: cluster.Killed}, {ID: 4, State: cluster.Killed}}, v.missing(states))
	require.Empty(t, view{}.missing(states))
}

func TestHintsForStoppedServers(t *testing.T) {
	a := &app{inShell: true}
	killed := func(id uint64) cluster.Server { return cluster.Server{ID: id, State: cluster.Killed} }
	paused := func(id uint64) cluster.Server { return cluster.Server{ID: id, State: cluster.Paused} }
	require.Equal(t, "n3 is not running (killed); bring it back with: restart 3", a.comeBack(killed(3)))
	require.Equal(t, "n3, n5 are not running; bring them back with: restart 3 5", a.comeBack(killed(3), killed(5)))
	require.Equal(t, "n3 is paused; resume it with: resume 3", a.comeBack(paused(3)))
	require.Equal(t, "n5 is not running (killed); bring it back with: restart 5; n3, n4 are paused; resume them with: resume 3 4",
		a.comeBack(paused(3), paused(4), killed(5)))
}

// A leader that has removed itself must not be stopped before it has transferred
// its leadership, so the command waits for that.
func TestRemovedLeaderTransfersLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.keeps = true
		f.look = func(f *fake, n int) {
			switch {
			case n == 2:
				f.settle(f.next)
			case n == 6:
				f.leader = 3
			}
		}
		got := run(t, s, "remove", "2")
		require.Equal(t, result{0, "the members are n1, n3\n", "done; the leader is no longer a member and transfers its leadership\n"}, got)
		require.GreaterOrEqual(t, f.looks, 7)
	})
}

// With --address, node runs a server that the configuration does not contain.
func TestNodeWithAnAddress(t *testing.T) {
	_, s := newFake(t)
	file, err := cluster.New(s.Name, 3, 7970, 0)
	require.NoError(t, err)
	require.NoError(t, file.Save("our.json"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--id", "9"}, "--id 9: our.json has no such server; the servers are n1 (127.0.0.1:7971), n2 (127.0.0.1:7972), " +
			"n3 (127.0.0.1:7973); a new server needs --address, where it listens"},
		{[]string{"--id", "9", "--address", "7979"}, `--address: "7979" is not host:port`},
		{[]string{"--id", "9", "--address", "0.0.0.0:7979"}, `--address: nobody can reach a server at "0.0.0.0:7979"`},
		{[]string{"--id", "9", "--address", "127.0.0.1:7979", "--listen", "7979"}, `--listen: "7979" is not host:port`},
		{[]string{"--id", "3", "--address", "127.0.0.1:7979"}, "--address: our.json has n3 at 127.0.0.1:7973; leave --address out, " +
			"or give a new server a number that no server has had"},
	} {
		got := run(t, s, append([]string{"node", "--config", "our.json"}, c.args...)...)
		require.Equal(t, exitUsage, got.code, got.errors)
		require.Contains(t, got.errors, c.want)
	}
	free := freeAddress(t)
	b := start(t, s, "node", "--config", "our.json", "--id", "9", "--address", free)
	b.shows("n9: listening address=" + free)
	require.Zero(t, b.stop())

	// The address replaces the one of a machine that no longer exists.
	file.Config.Members[2].Address = free
	require.NoError(t, file.Save("our.json"))
	b = start(t, s, "node", "--config", "our.json", "--id", "9", "--address", free)
	b.shows("n9: listening address=" + free)
	require.Zero(t, b.stop())

	b = start(t, s, "node", "--config", "our.json", "--id", "9", "--address", "192.0.2.9:7979", "--listen", free)
	b.shows("n9: listening address=" + free)
	require.Zero(t, b.stop())

	file.Config.Joiners = []node.Member{{ID: 4, Address: freeAddress(t)}}
	require.NoError(t, file.Save("our.json"))
	b = start(t, s, "node", "--config", "our.json", "--id", "4")
	b.shows("n4: listening address=" + file.Config.Joiners[0].Address)
	require.Zero(t, b.stop())
}

// The advice after start depends on whether the new server is a member, is being
// added, or neither.
func TestHintsAfterStart(t *testing.T) {
	f, s := newFake(t)
	advice := func(id uint64) string {
		a := &app{stage: s, inShell: true, flags: flags{timeout: time.Minute, basePort: 7970, data: (&app{stage: s}).defaultData()}}
		text := a.afterStart(t.Context(), id, address(id))
		require.Contains(t, text, fmt.Sprintf("n%d listens on %s", id, address(id)))
		return strings.TrimPrefix(text, fmt.Sprintf("n%d listens on %s", id, address(id)))
	}
	require.Equal(t, " and is not a member yet; add it with: add 5=127.0.0.1:7975", advice(5))
	require.Equal(t, " and is already a member; see the members with: members", advice(3))

	f.phase, f.next = api.Learning, []uint64{1, 2, 5}
	require.Equal(t, "; a change that makes it a member is under way; see the progress with: members", advice(5))
	require.Equal(t, " and is already a member; see the members with: members", advice(3))
	require.Equal(t, " and is not a member yet; another change is under way: when members shows that it is done, add the server with: add 4=127.0.0.1:7974", advice(4))
	f.addresses[5] = "127.0.0.1:9"
	require.Equal(t, ", but the change under way adds it at 127.0.0.1:9; cancel the change with: cancel; then add the right address with: add 5=127.0.0.1:7975", advice(5))
	f.phase = api.Joint
	require.Equal(t, ", but the configuration has n5 at 127.0.0.1:9; see the members with: members", advice(5))
	f.addresses[5] = address(5)
	require.Equal(t, "; a change that makes it a member is under way; see the progress with: members", advice(5))

	f.dead = map[uint64]bool{1: true, 2: true, 3: true, 4: true, 5: true}
	require.Equal(t, " and is not a member yet; add it with: add 5=127.0.0.1:7975", advice(5), "no server answers")
}

// hangs never answers, and waits for the end of its context.
type hangs struct{}

func (hangs) Close() error { return nil }
func (hangs) Do(ctx context.Context, _ api.Request) (api.Response, error) {
	<-ctx.Done()
	return api.Response{}, &api.Error{Code: api.Unavailable, Message: "no answer in time", Definite: true}
}

// A paused server does not delay the advice for long, and the answers of the
// other servers count.
func TestTheAdviceAfterStartDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFake(t)
		f.phase, f.next = api.Learning, []uint64{1, 2, 5}
		answers, direct := true, s.direct
		s.direct = func(ctx context.Context, at string) (Client, error) {
			if answers && at == address(2) {
				return direct(ctx, at)
			}
			return hangs{}, nil
		}
		a := &app{stage: s, flags: flags{timeout: time.Minute, basePort: 7970, data: (&app{stage: s}).defaultData()}}
		began := time.Now()
		require.Contains(t, a.afterStart(t.Context(), 5, address(5)), "is under way")
		require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
		answers, began = false, time.Now()
		require.Contains(t, a.afterStart(t.Context(), 5, address(5)), "add it with")
		require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
	})
}

// start starts a server in addition to those that are running, and says what to
// do next. From then on it is one of the servers, also when the cluster is
// started again.
func TestStartAServer(t *testing.T) {
	t.Chdir(t.TempDir())
	s := stages["98-changes"]
	t.Setenv(stageVariable, s.Name)
	t.Setenv(basePortVariable, "")
	file, err := cluster.New(s.Name, 1, 7980, 0)
	require.NoError(t, err)
	file.Config.Members[0].Address = freeAddress(t)
	require.NoError(t, file.Save("our.json"))
	b := start(t, s, "cluster", "--config", "our.json", "--data", "data")
	b.shows("Try it in another terminal")
	require.Contains(t, b.out.String(), " start 2 --data data\n")
	free := freeAddress(t)
	got := run(t, s, "start", "n2", free, "--data", "data")
	require.Equal(t, result{0, "n2 running\n", fmt.Sprintf("n2 listens on %s and is not a member yet; add it with: %s add 2=%[1]s --data data\n",
		free, s.program(t))}, got)
	require.Contains(t, run(t, s, "status", "--data", "data").out, "n2      "+free)
	require.Equal(t, "n1 running, cut off from n2\nn2 running, cut off from n1\n", run(t, s, "cut", "2", "1", "--data", "data").out)
	require.Equal(t, "n2 killed, cut off from n1\n", run(t, s, "kill", "n2", "--data", "data").out)
	got = run(t, s, "start", "2", freeAddress(t), "--data", "data")
	require.Equal(t, exitRefused, got.code)
	require.Contains(t, got.errors, "there is already a server n2, at "+free)
	require.Zero(t, b.stop())

	b = start(t, s, "cluster", "--data", "data")
	b.shows("continues: 2 servers on " + file.Config.Members[0].Address + " to " + free)
	require.Zero(t, b.stop())
}
