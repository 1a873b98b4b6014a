package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/freeport"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/toy"
	"example.com/raftsteps/shared/core/wire"
)

// stageVariable is the environment variable that makes the test binary run as the
// program of a stage. It holds the stage's name.
const stageVariable = "RAFTSTEPS_CLI_TEST_STAGE"

func TestMain(m *testing.M) {
	if name := os.Getenv(stageVariable); name != "" {
		Main(stages[name])
	}
	// The race detector delays the end of each process by a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	for _, name := range []string{endpointsVariable, basePortVariable, logVariable, caVariable, certVariable, keyVariable, tokenVariable, "NO_COLOR"} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// stages has a small stage of each kind.
var stages = map[string]Stage{
	"90-raw":     {Name: "90-raw", About: "A server without a client.", Ops: api.Commands(), Serve: serveForTest},
	"91-single":  {Name: "91-single", About: "A server and a client.", Ops: commandsAndStatus(), Serve: serveForTest, Dial: dialForTest, Demo: demoForTest},
	"92-cluster": {Name: "92-cluster", About: "A cluster with a leader that is appointed.", Ops: commandsAndStatus(), New: newForTest, Appointed: true, Dial: dialForTest, Demo: demoForTest},
	"93-log":     {Name: "93-log", About: "A cluster with a log.", Ops: withLog(), New: newForTest, Appointed: true, Dial: dialForTest},
	"98-changes": {Name: "98-changes", About: "A cluster whose members change.", Ops: withChange(), New: newForTest, Dial: dialForTest},
	"94-members": {Name: "94-members", About: "A cluster that knows its members.", Ops: withMembers(), New: newForTest, Dial: dialForTest},
	"96-disk":    {Name: "96-disk", About: "A cluster with a disk.", Ops: toy.Ops, New: toy.New(toy.Flaws{}), Appointed: true, Disk: true, HTTP: true, Dial: dialForTest},
	"95-elect":   {Name: "95-elect", About: "A cluster without a leader.", Ops: commandsAndStatus(), New: newForTest, Dial: dialForTest},
}

func commandsAndStatus() api.Ops {
	ops := api.Commands()
	ops[api.Status] = api.Op{}
	return ops
}

func withChange() api.Ops {
	ops := commandsAndStatus()
	ops[api.Change] = api.Op{May: api.Add | api.Remove}
	return ops
}

func withMembers() api.Ops {
	ops := withChange()
	ops[api.Members] = api.Op{}
	return ops
}

func withLog() api.Ops {
	ops := commandsAndStatus()
	ops[api.Log] = api.Op{May: api.From}
	ops[api.Lead] = api.Op{Needs: api.Term}
	ops[kv.Get] = api.Op{Needs: api.Key, May: api.Consistency}
	return ops
}

// serveForTest runs a single server with a store.
func serveForTest(ctx context.Context, ln net.Listener, log *slog.Logger) error {
	store := kv.NewStore()
	s := &wire.Server{Ops: commandsAndStatus(), Log: log, Handler: func(r api.Request, reply func(api.Response)) {
		if r.Op == api.Status {
			reply(api.Response{ID: r.ID, Data: []byte(`{"keys":` + fmt.Sprint(store.Len()) + `}`)})
			return
		}
		if api.OnlyReads(r.Op) {
			reply(api.Read(r, store))
			return
		}
		reply(api.Result(r.ID, r.Op, store.Apply(r.Command())))
	}}
	return s.Serve(ctx, ln)
}

// nodeForTest is a server of a cluster that replicates nothing: the leader
// accepts writes, and each server reads its own store.
type nodeForTest struct {
	world node.World
	store *kv.Store
	heard map[uint64]bool

	// term is the term of the last appointment.
	term uint64
}

func newForTest(w node.World) (node.Server, error) {
	return &nodeForTest{world: w, store: kv.NewStore(), heard: map[uint64]bool{}}, nil
}

func (n *nodeForTest) Tick() {
	for _, m := range n.world.Config.Members {
		if m.ID != n.world.ID {
			n.world.Send(m.ID, []byte(`{"hello":1}`))
		}
	}
}

func (n *nodeForTest) Receive(from uint64, _ []byte) { n.heard[from] = true }
func (n *nodeForTest) Flush() error                  { return nil }

// Request serves commands. Reading a key that begins with "hear" returns from
// whom the server has received messages since the last such read.
func (n *nodeForTest) Request(r api.Request, reply func(api.Response)) {
	c := n.world.Config
	switch {
	case r.Op == api.Log && n.world.ID == 3 && 0 < r.From && r.From < 4:
		reply(api.Failed(r.ID, api.CompactedLog(3)))
	case r.Op == api.Log && n.world.ID == 3:
		reply(api.Response{ID: r.ID, Data: n.log(max(r.From, 4))})
	case r.Op == api.Log:
		reply(api.Response{ID: r.ID, Data: n.log(max(r.From, 1))})
	case r.Op == api.Members:
		v := view{Membership: api.Membership{ID: n.world.ID, Phase: api.Stable, Committed: true}}
		for _, m := range c.Members {
			v.Members = append(v.Members, api.MemberStatus{Member: api.Member{ID: m.ID, Address: m.Address}, Voter: true})
		}
		reply(api.Response{ID: r.ID, Data: encode(v)})
	case r.Op == api.Lead && r.Term <= n.term:
		reply(api.Failed(r.ID, &api.Error{Code: api.BadRequest, Message: "that term is over", Definite: true}))
	case r.Op == api.Lead:
		n.term = r.Term
		reply(api.Response{ID: r.ID, Data: []byte(`{"role":"leader"}`)})
	case r.Consistency != "":
		reply(api.Response{ID: r.ID, Value: r.Consistency, HasValue: true})
	case r.Op == api.Status && n.term > 0:
		reply(api.Response{ID: r.ID, Data: fmt.Appendf(nil, `{"id":%d,"role":"leader","term":%d}`, n.world.ID, n.term)})
	case r.Op == api.Status:
		role := "follower"
		if n.world.ID == c.Leader {
			role = "leader"
		}
		reply(api.Response{ID: r.ID, Data: fmt.Appendf(nil, `{"id":%d,"role":%q,"leader":%d,"commit":9,"applied":%d}`, n.world.ID, role, c.Leader, n.world.ID)})
	case strings.HasPrefix(r.Key, "hear"):
		text := ""
		for _, m := range c.Members {
			if n.heard[m.ID] {
				text += node.Name(m.ID)
			}
		}
		clear(n.heard)
		reply(api.Response{ID: r.ID, Value: text, HasValue: true})
	case kv.Writes(r.Op) && n.world.ID != c.Leader && c.Leader != 0:
		reply(api.Failed(r.ID, &api.Error{Code: api.NotLeader, Message: "n1 leads", Leader: c.Address(c.Leader), Definite: true}))
	default:
		reply(api.Result(r.ID, r.Op, n.store.Apply(r.Command())))
	}
}

// log returns the log of five entries, two at a time. The log of n2 is malformed,
// and the log of n3 begins at 4.
func (n *nodeForTest) log(from uint64) []byte {
	if n.world.ID == 2 {
		return []byte(`{"last":5,"commit":3,"entries":[{"index":4,"term":1},{"index":4,"term":1}]}`)
	}
	b := []byte(`{"last":5,"commit":3,"entries":[`)
	for i := from; i <= min(5, from+1); i++ {
		if i > from {
			b = append(b, ',')
		}
		if i == 1 {
			b = append(b, `{"index":1,"term":1,"kind":"noop"}`...)
		} else {
			b = fmt.Appendf(b, `{"index":%d,"term":2,"command":{"op":"put","key":"x","value":"%[1]d"}}`, i)
		}
	}
	return append(b, `]}`...)
}

// clientForTest asks the first of its endpoints.
type clientForTest struct {
	endpoints []string
	how       []DialOption
	mu        sync.Mutex
	conn      *wire.Conn
}

func dialForTest(endpoints []string, how ...DialOption) Client {
	return &clientForTest{endpoints: endpoints, how: how}
}

func (c *clientForTest) Do(ctx context.Context, r api.Request) (api.Response, error) {
	c.mu.Lock()
	if c.conn == nil {
		conn, err := wire.Dial(ctx, c.endpoints[0], wire.Limits{}, c.how...)
		if err != nil {
			c.mu.Unlock()
			return api.Response{}, err
		}
		c.conn = conn
	}
	conn := c.conn
	c.mu.Unlock()
	response, err := conn.Do(ctx, r)
	if err == nil && response.Error != nil {
		err = response.Error
	}
	return response, err
}

func (c *clientForTest) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// demoForTest is the story of each kind of stage.
func demoForTest(d *Demo) error {
	d.Say("A story.")
	d.Start(1)
	d.Run("put", "x", "1")
	d.Talk(`{"op":"get","key":"x"}`)
	d.Shows(`{"ok":true,"value":"1"}`)
	d.Pause(1)
	d.Resume(1)
	d.Kill(1)
	d.Fails(exitUnavailable, "get", "x")
	d.Restart(1)
	d.Fails(exitNotFound, "get", "x")
	return d.Err()
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// result is the exit code and the output of a run of the program.
type result struct {
	code        int
	out, errors string
}

// runWith runs the program of a stage with a text on its standard input.
func runWith(t *testing.T, s Stage, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out, errors buffer
	code := Run(ctx, s, args, strings.NewReader(stdin), &out, &errors)
	return result{code, out.String(), errors.String()}
}

func run(t *testing.T, s Stage, args ...string) result {
	t.Helper()
	return runWith(t, s, "", args...)
}

// background is a run of the program in the background, until it is stopped.
type background struct {
	t      *testing.T
	out    buffer
	errors buffer
	cancel context.CancelFunc
	code   chan int
}

// start runs the program until the end of the test, or until stop is called.
func start(t *testing.T, s Stage, args ...string) *background {
	t.Helper()
	return startWith(t, s, strings.NewReader(""), args...)
}

func startWith(t *testing.T, s Stage, stdin io.Reader, args ...string) *background {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &background{t: t, cancel: cancel, code: make(chan int, 1)}
	ended := make(chan struct{})
	go func() {
		b.code <- Run(ctx, s, args, stdin, &b.out, &b.errors)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(stopTime):
			t.Error("the program still runs when the test ends")
		}
	})
	return b
}

// shows waits until the program has printed a text, on stdout or stderr.
func (b *background) shows(text string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return strings.Contains(b.out.String()+b.errors.String(), text) }, 20*time.Second, 2*time.Millisecond,
		"it never printed %q", text)
}

// stopTime is how long a program may take to end after ^C: longer than any of them
// needs on a busy machine.
const stopTime = 20 * time.Second

// stop ends the program as ^C would, and returns its exit code.
func (b *background) stop() int {
	b.t.Helper()
	b.cancel()
	select {
	case code := <-b.code:
		return code
	case <-time.After(stopTime):
		require.FailNow(b.t, "the program still runs after ^C", b.out.String()+b.errors.String())
		return 0
	}
}

// freeAddress returns an address that only this test uses until it ends.
func freeAddress(t *testing.T) string {
	t.Helper()
	ports, err := freeport.Reserve()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ports.Close()) })
	return ports.Address(0)
}

// startSingle starts the single server of a stage and returns its address.
func startSingle(t *testing.T, s Stage) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return ln.Addr().String()
}
