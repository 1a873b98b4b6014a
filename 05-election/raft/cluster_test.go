package raft

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// disk is what a server of a test cluster has saved.
type disk struct {
	state State
	log   []Entry
}

// cluster is a set of servers that exchange messages as datagrams.
type cluster struct {
	rand    *rand.Rand
	members []ID
	servers map[ID]*Raft
	disks   map[ID]*disk
	applied map[ID][]Entry
	flying  []Message
	leaders map[Term]ID
	reads   map[ID]map[ReadID]Index
	done    int
	t       testing.TB
}

func newCluster(t testing.TB, n int, seed uint64) *cluster {
	c := &cluster{t: t, rand: rand.New(rand.NewPCG(seed, 0)), servers: map[ID]*Raft{}, disks: map[ID]*disk{}, applied: map[ID][]Entry{}, leaders: map[Term]ID{}, reads: map[ID]map[ReadID]Index{}}
	for i := range n {
		c.members = append(c.members, ID(i+1))
	}
	for _, id := range c.members {
		c.disks[id] = &disk{}
		c.start(id)
	}
	return c
}

func (c *cluster) start(id ID) {
	d := c.disks[id]
	c.applied[id] = nil
	c.reads[id] = map[ReadID]Index{}
	c.servers[id] = New(Options{ID: id, Members: c.members, State: d.state, Log: slices.Clone(d.log), HeartbeatTicks: 5, ElectionTicks: [2]int{15, 30}, MaxBatch: 50, Random: c.rand.Uint64N})
}

func (c *cluster) flush(id ID) {
	for {
		out := c.servers[id].Take()
		if out.Empty() {
			return
		}
		d := c.disks[id]
		c.flying = append(c.flying, out.Early...)
		if out.State != nil {
			d.state = *out.State
		}
		if out.Truncate != 0 {
			d.log = slices.Clone(d.log[:out.Truncate-1])
		}
		d.log = append(d.log, out.Append...)
		c.flying = append(c.flying, out.Messages...)
		c.applied[id] = append(c.applied[id], out.Committed...)
		for _, rs := range out.Reads {
			for q, least := range c.reads[id] {
				if q <= rs.ID {
					require.GreaterOrEqual(c.t, rs.Index, least)
					delete(c.reads[id], q)
					c.done++
				}
			}
		}
		if r := c.servers[id]; r.role == Leader {
			if l, ok := c.leaders[r.currentTerm]; ok {
				require.Equal(c.t, l, id)
			}
			c.leaders[r.currentTerm] = id
		}
	}
}

func (c *cluster) committed() Index {
	var m Index
	for _, r := range c.servers {
		m = max(m, r.lastApplied)
	}
	return m
}

func TestRandom(t *testing.T) {
	most, totalReads, leaders := Index(0), 0, 0
	for seed := range uint64(300) {
		c := newCluster(t, 3+2*int(seed%2), seed)
		var proposed int
		for range 4000 {
			id := c.members[c.rand.IntN(len(c.members))]
			switch x := c.rand.IntN(1000); {
			case x < 300:
				c.servers[id].Tick()
			case x < 330:
				proposed++
				c.servers[id].Propose([]byte{byte(proposed), byte(proposed >> 8)})
			case x < 335:
				c.start(id)
			case x < 350:
				least := c.committed()
				c.reads[id][c.servers[id].Read()] = least
			default:
				if len(c.flying) == 0 {
					continue
				}
				i := c.rand.IntN(min(len(c.flying), 20))
				m := c.flying[i]
				if x < 990 {
					c.flying = slices.Delete(c.flying, i, i+1)
				}
				if x%20 == 0 {
					continue
				}
				id = m.To
				c.servers[id].Step(m)
			}
			c.flush(id)
		}
		most = max(most, c.committed())
		totalReads += c.done
		leaders += len(c.leaders)
		for _, a := range c.members {
			for _, b := range c.members {
				n := min(len(c.applied[a]), len(c.applied[b]))
				require.True(t, n == 0 || slices.EqualFunc(c.applied[a][:n], c.applied[b][:n], func(x, y Entry) bool { return x.Term == y.Term && string(x.Command) == string(y.Command) }))
			}
		}
	}
	t.Log(most, totalReads, leaders)
}
