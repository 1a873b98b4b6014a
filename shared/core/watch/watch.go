// Package watch remembers the recent changes of a store, for clients that follow
// them.
//
// The log cannot tell what has changed: a cas in it may have found another value, and
// a command that came twice was carried out once. So the changes come from the store,
// when commands are applied. Every server has the same changes at the same indexes.
package watch

import (
	"fmt"
	"strings"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

const (
	// maxBytes is how many bytes the changes that are remembered have together.
	maxBytes = 8 << 20

	// eventBytes is what a change counts for in addition to its key and value.
	eventBytes = 64

	// pageEvents and pageBytes limit one answer; it may have one change more.
	pageEvents = 1000
	pageBytes  = 64 << 10
)

// Changes are the recent changes of the store of one server. Its zero value knows of
// no store. It must be used by one goroutine at a time.
type Changes struct {
	store  *kv.Store
	events []api.Event
	bytes  int

	// first is the first index whose changes are all remembered, and now is the
	// index of the command that is being applied.
	first, now uint64
}

// Follow begins to follow a store, unless it is the one that is followed: after a
// start, or after a snapshot was installed. base is the last index that the store's
// snapshot covers. s is nil if the state machine is not the store.
func (c *Changes) Follow(s *kv.Store, base uint64) {
	if s == c.store {
		return
	}
	c.store, c.events, c.bytes, c.first = s, nil, 0, base+1
	if s != nil {
		s.OnChange(c.add)
	}
}

// At says that the command at an index is about to be applied.
func (c *Changes) At(index uint64) { c.now = index }

// add remembers a change.
func (c *Changes) add(key, value string, deleted bool) {
	e := api.Event{Index: c.now, Key: key, Value: value, Deleted: deleted}
	c.events = append(c.events, e)
	c.bytes += size(e)
	drop := 0
	for c.bytes > maxBytes && drop < len(c.events)-1 {
		c.bytes -= size(c.events[drop])
		c.first = c.events[drop].Index + 1
		drop++
	}
	clear(c.events[:drop])
	c.events = c.events[drop:]
}

func size(e api.Event) int { return eventBytes + len(e.Key) + len(e.Value) }

// Since returns the changes of keys with a prefix from an index on, as many as fit
// into one answer, and how far it has looked: next is the index from which to ask
// again. applied is the last index that the server has applied. It returns an error
// if some of these changes are no longer remembered.
func (c *Changes) Since(from, applied uint64, prefix string) (found []api.Event, next uint64, e *api.Error) {
	if from < c.first {
		return nil, 0, &api.Error{Code: api.Compacted, Definite: true,
			Message: fmt.Sprintf("this server remembers the changes from %d on; list the keys, and watch from %d", c.first, applied+1)}
	}
	bytes := 0
	for _, e := range c.events[c.find(from):] {
		if len(found) == pageEvents || bytes >= pageBytes {
			return found, e.Index, nil
		}
		if strings.HasPrefix(e.Key, prefix) {
			found = append(found, e)
			bytes += size(e)
		}
	}
	return found, max(from, applied+1), nil
}

// find returns the place of the first change at or after an index.
func (c *Changes) find(from uint64) int {
	low, high := 0, len(c.events)
	for low < high {
		if middle := (low + high) / 2; c.events[middle].Index < from {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
