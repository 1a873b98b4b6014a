package check

import (
	"fmt"
	"slices"
	"strings"

	"example.com/raftsteps/shared/core/node"
)

// Replica is the value of a key on one server.
type Replica struct {
	// Server is the server.
	Server uint64

	// Found is false if the key has no value there.
	Found bool

	// Value is the value.
	Value string
}

// Differ is the error for replicas that hold different values.
type Differ struct {
	// Key is the key.
	Key string

	// Replicas has the value on each server.
	Replicas []Replica
}

// Agree returns nil if all replicas hold the same value under a key, and a
// *Differ otherwise.
func Agree(key string, replicas []Replica) error {
	for _, r := range replicas {
		if r.Found != replicas[0].Found || r.Value != replicas[0].Value {
			return &Differ{Key: key, Replicas: replicas}
		}
	}
	return nil
}

// Error names the servers that differ from the largest group: "n3 holds x=1,
// the others x=2".
func (e *Differ) Error() string {
	groups := e.groups()
	most := 0
	for i, g := range groups {
		if len(g) > len(groups[most]) {
			most = i
		}
	}
	var parts []string
	for i, g := range groups {
		if i != most {
			parts = append(parts, names(g)+" "+holds(len(g) > 1, e.Key, g[0]))
		}
	}
	last := groups[most]
	switch {
	case len(last) == 1:
		parts = append(parts, names(last)+" "+holds(false, e.Key, last[0]))
	case last[0].Found:
		parts = append(parts, "the others "+pair(e.Key, last[0].Value))
	default:
		parts = append(parts, "the others have no "+e.Key)
	}
	return strings.Join(parts, ", ")
}

// Minority returns the servers whose value differs from that of the largest
// group, in order.
func (e *Differ) Minority() []uint64 {
	groups := e.groups()
	most := slices.MaxFunc(groups, func(a, b []Replica) int { return len(a) - len(b) })
	var ids []uint64
	for _, r := range e.Replicas {
		if r.Found != most[0].Found || r.Value != most[0].Value {
			ids = append(ids, r.Server)
		}
	}
	return ids
}

// groups groups the replicas by value, in the order of their first replica.
func (e *Differ) groups() [][]Replica {
	var groups [][]Replica
next:
	for _, r := range e.Replicas {
		for i, g := range groups {
			if g[0].Found == r.Found && g[0].Value == r.Value {
				groups[i] = append(g, r)
				continue next
			}
		}
		groups = append(groups, []Replica{r})
	}
	return groups
}

func names(g []Replica) string {
	var all []string
	for _, r := range g {
		all = append(all, node.Name(r.Server))
	}
	if len(all) == 1 {
		return all[0]
	}
	return strings.Join(all[:len(all)-1], ", ") + " and " + all[len(all)-1]
}

func holds(many bool, key string, r Replica) string {
	verb := map[bool][2]string{false: {"holds", "has no"}, true: {"hold", "have no"}}[many]
	if r.Found {
		return verb[0] + " " + pair(key, r.Value)
	}
	return verb[1] + " " + key
}

func pair(key, value string) string {
	if value == "" {
		return fmt.Sprintf("%s=%q", key, value)
	}
	return key + "=" + cut(value)
}
