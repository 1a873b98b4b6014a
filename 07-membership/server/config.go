package server

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"example.com/raftsteps/07-membership/raft"
	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/strict"
)

// appendConfig appends a configuration to b, in the format of the log, at the
// beginning of a compacted journal and in a snapshot:
//
//	{"index":9,"voters":[1,2,3],"next":[1,2,4],"joint":true,"addresses":{"1":"127.0.0.1:7071",…}}
func appendConfig(b []byte, c raft.Config) []byte {
	b = strict.AppendNumber(append(b, '{'), "index", c.Index)
	b = strict.AppendNumbers(b, "voters", c.Voters)
	if len(c.Next) > 0 {
		b = strict.AppendNumbers(b, "next", c.Next)
	}
	b = strict.AppendFlag(b, "joint", c.Joint)
	b = append(strict.AppendName(b, "addresses"), '{')
	for _, id := range slices.Sorted(maps.Keys(c.Addresses)) {
		b = strict.AppendName(b, strconv.FormatUint(uint64(id), 10))
		b = strict.AppendString(b, c.Addresses[id])
	}
	return append(b, "}}"...)
}

// decodeConfig reads what appendConfig wrote, and refuses what no leader
// proposes: the rules rely on it.
func decodeConfig(text []byte) (raft.Config, error) {
	c := raft.Config{Addresses: make(map[raft.ID]string)}
	d := strict.NewDecoder(text)
	d.Object(func(field []byte) {
		switch string(field) {
		case "index":
			c.Index = raft.Index(d.Uint())
		case "voters":
			c.Voters = decodeIDs(&d)
		case "next":
			c.Next = decodeIDs(&d)
		case "joint":
			c.Joint = d.Bool()
		case "addresses":
			d.Object(func(name []byte) {
				id, err := strconv.ParseUint(string(name), 10, 64)
				if err != nil {
					d.Fail("the id of an address is not a number")
				}
				c.Addresses[raft.ID(id)] = d.String()
			})
		default:
			d.Unknown()
		}
	})
	err := d.End()
	if err == nil && max(len(c.Voters), len(c.Next)) > api.MaxMembers {
		err = fmt.Errorf("it has more than %d servers", api.MaxMembers)
	}
	if err == nil && c.Joint && len(c.Next) == 0 {
		err = fmt.Errorf("it has one half only")
	}
	if err != nil {
		return raft.Config{}, fmt.Errorf("a configuration: %w", err)
	}
	return c, nil
}

// decodeIDs reads servers in the order of their IDs.
func decodeIDs(d *strict.Decoder) (ids []raft.ID) {
	last := raft.ID(0)
	d.Array(func() {
		id := raft.ID(d.Uint())
		if id <= last {
			d.Fail("its servers are not in the order of their ids")
		}
		ids, last = append(ids, id), id
	})
	return ids
}

// firstConfig is the configuration that a cluster starts with. A server that
// joins later is not in it, and knows no voters until a leader sends it the
// log.
func firstConfig(c node.Config, self uint64) raft.Config {
	first := raft.Config{Addresses: make(map[raft.ID]string)}
	if !slices.ContainsFunc(c.Members, func(m node.Member) bool { return m.ID == self }) {
		return first
	}
	for _, m := range c.Members {
		first.Voters = append(first.Voters, raft.ID(m.ID))
		first.Addresses[raft.ID(m.ID)] = m.Address
	}
	return first
}

// config returns the configuration in force.
func (s *Server) config() raft.Config { return s.rules.Config(s.rules.Status().Last) }

// configText is the configuration at an entry, for a journal or a snapshot.
func (s *Server) configText(at raft.Index) string {
	return string(appendConfig(nil, s.rules.Config(at)))
}

// connect tells the world which servers this server may have to send to, if
// that has changed.
func (s *Server) connect() {
	c := s.config()
	if s.world.Connect == nil || maps.Equal(c.Addresses, s.connected) {
		return
	}
	s.connected = c.Addresses
	var members []node.Member
	for _, id := range slices.Sorted(maps.Keys(c.Addresses)) {
		members = append(members, node.Member{ID: uint64(id), Address: c.Addresses[id]})
	}
	s.world.Connect(members)
}
