// Package version says which version of a protocol two programs use with each other:
// the newest that both can use. So the servers of a cluster can be upgraded one after
// the other, from one release to the next.
package version

import "fmt"

// Range is the versions of a protocol that a program can use: from the oldest to the
// newest.
type Range struct{ Oldest, Newest uint64 }

// Between returns the versions from oldest to newest.
func Between(oldest, newest uint64) Range { return Range{oldest, newest} }

// Has reports whether the program can use a version.
func (r Range) Has(v uint64) bool { return v != 0 && r.Oldest <= v && v <= r.Newest }

// Agree returns the newest version that two programs can use. peer names the other
// program, and protocol names the protocol, for the error if there is none.
func (r Range) Agree(their Range, peer, protocol string) (uint64, error) {
	v := min(r.Newest, their.Newest)
	if !r.Has(v) || !their.Has(v) {
		return 0, fmt.Errorf("%s uses %v of %s, this server %v: run programs on both that have a version in common; upgrade from one release to the next", peer, their, protocol, r)
	}
	return v, nil
}

func (r Range) String() string {
	if r.Oldest == r.Newest {
		return fmt.Sprintf("version %d", r.Newest)
	}
	return fmt.Sprintf("versions %d to %d", r.Oldest, r.Newest)
}
