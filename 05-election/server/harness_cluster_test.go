package server

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/node"
)

// cluster is some servers and the network between them. What is sent arrives at
// once, and time passes for all of them together.
type cluster struct {
	t       testing.TB
	config  node.Config
	disks   map[uint64]*disk.Sim
	servers map[uint64]*Server

	// sent are the messages on their way.
	sent []sent
}

type sent struct {
	from, to uint64
	line     []byte
}

// newCluster returns a cluster that begins with some members; none runs yet.
func newCluster(t testing.TB, members int) *cluster {
	c := &cluster{t: t, disks: make(map[uint64]*disk.Sim), servers: make(map[uint64]*Server)}
	c.config = node.Config{Cluster: "north", Heartbeat: 50 * time.Millisecond, ElectionTimeout: [2]time.Duration{150 * time.Millisecond, 300 * time.Millisecond}}
	for i := range members {
		c.config.Members = append(c.config.Members, member(uint64(i+1)))
	}
	return c
}

func member(id uint64) node.Member { return node.Member{ID: id, Address: fmt.Sprintf("a:%d", id)} }

// start starts servers with what their disks hold.
func (c *cluster) start(ids ...uint64) {
	c.t.Helper()
	for _, id := range ids {
		c.disks[id] = cmp.Or(c.disks[id], disk.NewSim(node.Name(id)))
		s, err := New(node.World{
			ID: id, Config: c.config, Disk: c.disks[id], Rand: rand.New(rand.NewPCG(id, 1)),
			Send: func(to uint64, line []byte) { c.sent = append(c.sent, sent{id, to, line}) },
		})
		require.NoError(c.t, err)
		c.servers[id] = s.(*Server)
	}
}

// stop stops servers, as kill -9 does.
func (c *cluster) stop(ids ...uint64) {
	for _, id := range ids {
		delete(c.servers, id)
		c.disks[id].Kill()
	}
}

// run lets a second pass.
func (c *cluster) run() {
	c.t.Helper()
	for range 100 {
		c.tick()
	}
}

// tick lets a tick pass.
func (c *cluster) tick() {
	c.t.Helper()
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		c.servers[id].Tick()
	}
	c.settle()
}

// settle delivers messages until there are none. A server that finds its disk to
// have lost entries stops.
func (c *cluster) settle() {
	c.t.Helper()
	for again := true; again; {
		for _, id := range slices.Sorted(maps.Keys(c.servers)) {
			c.flush(id)
		}
		arrive := c.sent
		c.sent = nil
		for _, m := range arrive {
			if s := c.servers[m.to]; s != nil {
				s.Receive(m.from, m.line)
			}
		}
		again = len(arrive) > 0
	}
}

// flush lets a server carry out what it has to. One that finds that its disk has
// lost entries stops.
func (c *cluster) flush(id uint64) {
	c.t.Helper()
	err := c.servers[id].Flush()
	if why := (raft.Contradiction{}); errors.As(err, &why) && why.Forgot {
		c.stop(id)
		return
	}
	require.NoError(c.t, err)
}

// leader returns the server that leads the newest term, or nil.
func (c *cluster) leader() (leader *Server) {
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		status := c.servers[id].rules.Status()
		if status.Role == raft.Leader && (leader == nil || status.CurrentTerm > leader.rules.Status().CurrentTerm) {
			leader = c.servers[id]
		}
	}
	return leader
}

// put writes a value. If its leader falls, the next one is asked.
func (c *cluster) put(key, value string) {
	c.t.Helper()
	for range 30 {
		done := false
		if l := c.leader(); l != nil {
			r := api.Request{ID: 1, Op: "put", Key: key, Value: value}
			l.Request(r, func(response api.Response) { done = response.Error == nil })
			for i := 0; i < 100 && !done; i++ {
				c.tick()
			}
		}
		if done {
			return
		}
		c.run()
		c.elect()
	}
	require.Fail(c.t, "nobody commits", c.words())
}

// ask asks the leader, and returns its answer once a second has passed.
func (c *cluster) ask(text string) api.Response {
	c.t.Helper()
	r, err := Ops.Decode([]byte(text))
	require.NoError(c.t, err)
	require.NotNil(c.t, c.leader(), "nobody leads")
	var given []api.Response
	c.leader().Request(r, func(response api.Response) { given = append(given, response) })
	c.run()
	require.Len(c.t, given, 1)
	require.Nil(c.t, given[0].Error)
	return given[0]
}

// elect lets time pass until a server leads.
func (c *cluster) elect() {
	c.t.Helper()
	for range 30 {
		if c.leader() != nil {
			return
		}
		c.run()
	}
	require.Fail(c.t, "nobody leads", c.words())
}

// round is a field of AppendEntries and its reply.
func round(n uint64) string { return fmt.Sprintf(`,"round":%d`, n) }

// words describes the servers.
func (c *cluster) words() string {
	text := ""
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		text += fmt.Sprintf("\nn%d: %+v", id, c.servers[id].rules.Status())
	}
	return text
}
