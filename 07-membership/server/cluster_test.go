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

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/api"
	"example.com/raftsteps/shared/disk"
	"example.com/raftsteps/shared/node"
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

	// lost counts the servers that have stopped because their disks had lost
	// entries.
	lost int
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

// start starts servers with what their disks hold. Those that are not among the
// first members wait to be added.
func (c *cluster) start(ids ...uint64) {
	c.t.Helper()
	for _, id := range ids {
		config := c.config
		if config.Address(id) == "" {
			config.Joiners = []node.Member{member(id)}
		}
		c.disks[id] = cmp.Or(c.disks[id], disk.NewSim(node.Name(id)))
		s, err := New(node.World{
			ID: id, Config: config, Disk: c.disks[id], Rand: rand.New(rand.NewPCG(id, 1)),
			Send: func(to uint64, line []byte) { c.sent = append(c.sent, sent{id, to, line}) },
			Work: func(work func() error, done func(error)) { done(work()) },
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
		for _, id := range slices.Sorted(maps.Keys(c.servers)) {
			c.servers[id].Tick()
		}
		c.settle()
	}
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

// flush lets a server carry out what it has to. If it ends because its disk has
// lost entries, it stops.
func (c *cluster) flush(id uint64) {
	c.t.Helper()
	err := c.servers[id].Flush()
	if lost := (raft.Contradiction{}); errors.As(err, &lost) && lost.Forgot {
		c.lost++
		c.stop(id)
		return
	}
	require.NoError(c.t, err)
}

// leader returns the server that leads, or nil.
func (c *cluster) leader() *Server {
	for _, id := range slices.Sorted(maps.Keys(c.servers)) {
		if s := c.servers[id]; s.rules.Status().Role == raft.Leader {
			return s
		}
	}
	return nil
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
