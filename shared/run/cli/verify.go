package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
)

const verifyHelp = `

With --verify it also compares what the servers hold. A server that has applied the same entries as another one must hold the
same keys, values and sessions, and each server looks whether its memory still holds them. If something is wrong, the exit
code is 1. The servers go on working, and are compared at an index that all of them have applied. The exit code is 5 if fewer
than two servers could be compared.`

// verifyPause is how long to wait before the servers are asked again for hashes.
const verifyPause = 20 * time.Millisecond

// verify compares the state machines of the servers, and writes the result. It asks
// them again and again, until all have applied the entries up to the same index, or
// --timeout has passed.
func (a *app) verify(ctx context.Context, servers []serverStatus, out io.Writer) error {
	asked, cancel := context.WithTimeout(ctx, a.flags.timeout)
	defer cancel()
	c := newComparison(servers)
	for {
		c.ask(asked, a)
		if c.find(); c.missing() == 0 || !rest(asked, verifyPause) {
			break
		}
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	return c.report(out)
}

// comparison compares the hashes of servers.
type comparison struct {
	servers []*compared

	// index is where they are compared; 0 if no two servers have a hash at the same
	// index.
	index uint64
}

// compared is one server of a comparison.
type compared struct {
	*serverStatus

	// hashes are the known hashes by index, and applied is the last entry that the
	// server has applied.
	hashes  map[uint64]uint64
	applied uint64

	// checked is true once the server has looked at all of its memory, and damaged if
	// that was damaged.
	checked, damaged bool

	// reason is why the server cannot be compared; "" if it can.
	reason string
}

// newComparison returns a comparison of servers. Those that have no vote and do not
// get one have no need to hold the same.
func newComparison(servers []serverStatus) *comparison {
	c := &comparison{}
	for i := range servers {
		s := &compared{serverStatus: &servers[i], hashes: make(map[uint64]uint64), reason: servers[i].serverReason()}
		c.servers = append(c.servers, s)
	}
	return c
}

// serverReason says why a server has no content to compare; "" if it has.
func (s *serverStatus) serverReason() string {
	switch {
	case s.reason != "":
		return s.reason
	case s.place == "new" || s.place == "removed":
		return "it is " + s.place
	}
	return ""
}

// ask asks all servers for their hashes.
func (c *comparison) ask(ctx context.Context, a *app) {
	var g errgroup.Group
	for _, s := range c.servers {
		if s.reason != "" {
			continue
		}
		g.Go(func() error {
			answer, err := a.askOne(ctx, s.endpoint, api.Request{Op: api.Hash})
			var hashes api.StateHashes
			if err == nil {
				hashes, err = api.DecodeHashes(answer.Data)
			}
			if err != nil && len(s.hashes) == 0 {
				s.reason = a.reason(err)
			}
			s.applied = max(s.applied, hashes.Applied)
			s.checked, s.damaged = s.checked || hashes.Checked, s.damaged || hashes.Damaged
			for _, h := range hashes.Hashes {
				s.hashes[h.Index] = h.Hash
			}
			return nil
		})
	}
	_ = g.Wait()
}

// find chooses the index at which most servers have a hash: of several, the highest.
func (c *comparison) find() {
	count := make(map[uint64]int)
	for _, s := range c.servers {
		for index := range s.hashes {
			count[index]++
		}
	}
	for index, n := range count {
		if n > 1 && (n > count[c.index] || n == count[c.index] && index > c.index) {
			c.index = index
		}
	}
	for _, s := range c.servers {
		s.hash = nil
		if hash, known := s.hashes[c.index]; known && c.index != 0 {
			s.hash = &api.StateHash{Index: c.index, Hash: hash}
		}
	}
}

// missing returns how many servers are not compared yet, or have not looked at their
// memory, and may still do so.
func (c *comparison) missing() (n int) {
	for _, s := range c.servers {
		if s.reason == "" && (s.hash == nil || !s.checked) {
			n++
		}
	}
	return n
}

// report writes the result. It returns an error if two servers differ, or if no two
// could be compared.
func (c *comparison) report(out io.Writer) error {
	groups := make(map[uint64][]string)
	var damaged []string
	for _, s := range c.servers {
		switch {
		case s.damaged:
			damaged = append(damaged, s.name())
		case s.reason == "" && !s.checked:
			fmt.Fprintf(out, "%s has not looked at all of its memory in time; give it more with --timeout\n", s.name())
		}
		switch {
		case s.hash != nil:
			groups[s.hash.Hash] = append(groups[s.hash.Hash], s.name())
		case s.reason != "":
			fmt.Fprintf(out, "%s was not compared: %s\n", s.name(), oneLine(s.reason))
		default:
			fmt.Fprintf(out, "%s was not compared: it has applied %d entries, and had no hash at the index of the others\n", s.name(), s.applied)
		}
	}
	same := slices.SortedFunc(maps.Values(groups), func(a, b []string) int {
		return cmp.Or(len(b)-len(a), strings.Compare(a[0], b[0]))
	})
	switch {
	case len(damaged) > 0:
		return &endError{code: exitRefused, message: fmt.Sprintf("the memory of %s is damaged: it does not hold what the entries have led to; "+
			"restart each of them, so that it reads its disk again, and have the machine's memory tested", strings.Join(damaged, ", "))}
	case len(groups) == 0:
		return &endError{code: exitUnavailable, message: "fewer than two servers could be compared (unavailable)"}
	case len(groups) == 1:
		for hash := range groups {
			fmt.Fprintf(out, "%s hold the same at index %d (hash %016x)\n", strings.Join(same[0], ", "), c.index, hash)
		}
		return nil
	}
	var parts []string
	for i, names := range same {
		verb, what := "hold", "another"
		if len(names) == 1 {
			verb = "holds"
		}
		if i == 0 {
			what = "one state"
		}
		parts = append(parts, fmt.Sprintf("%s %s %s", strings.Join(names, ", "), verb, what))
	}
	return &endError{code: exitRefused, message: fmt.Sprintf("the servers differ at index %d: %s; they have applied the same entries, "+
		"so a disk or a memory is damaged, or they run different programs: keep their folders", c.index, strings.Join(parts, ", "))}
}
