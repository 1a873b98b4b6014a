package sim

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Counters count what happened in a run. A test that never reached its case
// proves nothing, so tests check the counters.
type Counters struct {
	// Events is how many events happened.
	Events int `json:"events"`

	// Ticks and Flushes count the calls of Tick and Flush on all servers.
	Ticks   int `json:"ticks"`
	Flushes int `json:"flushes"`

	// Sent, Delivered and Lost count messages between servers. Duplicated ones
	// arrive twice; Reordered ones arrive after a later one of their link.
	Sent       int `json:"sent"`
	Delivered  int `json:"delivered"`
	Lost       int `json:"lost"`
	Duplicated int `json:"duplicated"`
	Reordered  int `json:"reordered"`

	// Cuts and Heals count changes of the network.
	Cuts  int `json:"cuts"`
	Heals int `json:"heals"`

	// Crashes counts killed processes, PowerCuts machines that lost power,
	// PowerCutsInFlush those that lost power during a write, Torn those that
	// left a torn write. Stops counts servers that ended themselves.
	Crashes          int `json:"crashes"`
	PowerCuts        int `json:"power_cuts"`
	PowerCutsInFlush int `json:"power_cuts_in_flush"`
	Torn             int `json:"torn"`
	Stops            int `json:"stops"`
	Restarts         int `json:"restarts"`

	// Retired counts machines that were removed forever.
	Retired int `json:"retired"`

	// Replaced counts disks that were emptied or replaced by an older copy.
	Replaced int `json:"replaced"`

	// Pauses counts paused servers, ClockJumps clocks that jumped ahead.
	Pauses     int `json:"pauses"`
	ClockJumps int `json:"clock_jumps"`

	// Requests counts requests that arrived at servers, Replies answers that
	// arrived at clients, Refusals requests to a server that was down, Breaks
	// connections that broke, Timeouts requests whose client stopped waiting.
	Requests int `json:"requests"`
	Replies  int `json:"replies"`
	Refusals int `json:"refusals"`
	Breaks   int `json:"breaks"`
	Timeouts int `json:"timeouts"`
}

// Counters returns the counters of the run so far.
func (w *World) Counters() Counters { return w.counters }

// fields returns the counters with their JSON names, in the order of the
// struct.
func (c *Counters) fields() []field {
	v := reflect.ValueOf(c).Elem()
	fields := make([]field, v.NumField())
	for i := range fields {
		fields[i] = field{v.Type().Field(i).Tag.Get("json"), v.Field(i).Addr().Interface().(*int)}
	}
	return fields
}

type field struct {
	name  string
	count *int
}

// Add adds the counters of another run.
func (c *Counters) Add(o Counters) {
	theirs := o.fields()
	for i, f := range c.fields() {
		*f.count += *theirs[i].count
	}
}

// Zero returns the named counters that are 0, and the names that belong to no
// counter.
func (c *Counters) Zero(names ...string) []string {
	var zero []string
	for _, name := range names {
		i := slices.IndexFunc(c.fields(), func(f field) bool { return f.name == name })
		if i < 0 || *c.fields()[i].count == 0 {
			zero = append(zero, name)
		}
	}
	return zero
}

// String lists the counters that are not 0.
func (c Counters) String() string {
	var parts []string
	for _, f := range c.fields() {
		if *f.count != 0 {
			parts = append(parts, fmt.Sprintf("%s %d", strings.ReplaceAll(f.name, "_", " "), *f.count))
		}
	}
	return strings.Join(parts, ", ")
}
