// Package tour reads guided tours: scripts with captions at events.
//
// A tour names its events by what they are and not by their number, and says what
// is true at each. So a test finds them again after a change of the simulator, and
// breaks if a caption is no longer true.
package tour

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"example.com/raftsteps/shared/lab/page"
)

// Tour is a file of the page, tours/NAME.json.
type Tour struct {
	// Name is that of the file.
	Name string `json:"-"`

	// Title is a few words, About one sentence. Place orders the tours of a stage.
	Title string `json:"title"`
	About string `json:"about"`
	Place int    `json:"place"`

	// Stage, Seed, Servers, Spare, Story and Steps are those of the script.
	Stage   string `json:"stage"`
	Seed    uint64 `json:"seed,omitempty"`
	Servers int    `json:"servers,omitempty"`
	Spare   int    `json:"spare,omitempty"`
	Story   string `json:"story,omitempty"`
	Steps   uint64 `json:"steps,omitempty"`

	// Edits are changes to the code of the stage. Such a tour plays its script as it
	// is, which is that of the edit, because a site holds no other film.
	Edits []string `json:"edits,omitempty"`

	// Deeds are what the tour does.
	Deeds []Deed `json:"deeds,omitempty"`

	// Stops are where it stops.
	Stops []Stop `json:"stops"`

	// Script is the whole script, as Find has found it.
	Script json.RawMessage `json:"script"`
}

// Deed is what the tour does right after an event.
type Deed struct {
	When Pattern `json:"when"`

	// Do is a deed as in a script. What it lacks is filled in: at and time, and for
	// a deed to a message, the message that the event has sent.
	Do map[string]any `json:"do"`
}

// Stop is a moment of a tour.
type Stop struct {
	// When is the event that it stops at, the first one after the stop before.
	When Pattern `json:"when"`

	// Caption says what is to be seen, Section where the paper says so.
	Caption string `json:"caption"`
	Section string `json:"section,omitempty"`

	// Select is a server for the inspector. View is "diagram" for the space-time
	// diagram.
	Select uint64 `json:"select,omitempty"`
	View   string `json:"view,omitempty"`

	// Servers are facts about servers at this moment, by name: the fields of their
	// frames, and last, lastTerm and terms for the log, and snapshot for the index
	// that it covers.
	Servers map[string]map[string]any `json:"servers,omitempty"`

	// None are events that do not happen between the stop before and this one.
	None []Pattern `json:"none,omitempty"`

	// At is where Find has found the event.
	At Place `json:"at"`

	// event is the number of the event in the film.
	event int
}

// Place names an event of a film: the nth of its kind in its step, from 1 on. It stays
// the same if events of other kinds are added.
type Place struct {
	Step uint64 `json:"step"`
	Kind string `json:"kind"`
	Nth  int    `json:"nth"`
}

// Pattern describes an event. Fields that are missing match anything.
type Pattern struct {
	// Kind is that of the event; "end" is the last event of the film.
	Kind string `json:"kind,omitempty"`

	// Code is that of its reason; "-" is an event without one.
	Code string `json:"code,omitempty"`

	Node   uint64 `json:"node,omitempty"`
	Role   string `json:"role,omitempty"`
	Term   uint64 `json:"term,omitempty"`
	From   uint64 `json:"from,omitempty"`
	To     uint64 `json:"to,omitempty"`
	Client uint64 `json:"client,omitempty"`
	Index  uint64 `json:"index,omitempty"`

	// Has are parts of its message, a line of JSON.
	Has []string `json:"has,omitempty"`

	// Nth is which of the events that match, from 1 on; 0 is the first.
	Nth int `json:"nth,omitempty"`

	// Later is how many milliseconds pass after it.
	Later float64 `json:"later,omitempty"`
}

const folder = "tours"

// index is the file that lists the tours for the page.
const index = folder + "/index.json"

// All returns all tours: stage by stage, in their order.
func All() ([]Tour, error) {
	names, err := fs.Glob(page.Files, folder+"/*.json")
	if err != nil {
		return nil, fmt.Errorf("list the tours: %w", err)
	}
	var out []Tour
	for _, name := range names {
		if name == index {
			continue
		}
		b, err := fs.ReadFile(page.Files, name)
		if err != nil {
			return nil, fmt.Errorf("read a tour: %w", err)
		}
		t, err := Decode(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t.Name = strings.TrimSuffix(path.Base(name), ".json")
		out = append(out, t)
	}
	slices.SortStableFunc(out, func(a, b Tour) int { return cmp.Or(strings.Compare(a.Stage, b.Stage), a.Place-b.Place) })
	return out, nil
}

// Index writes the list of all tours, as index.json has it.
func Index(tours []Tour) ([]byte, error) {
	type entry struct {
		Name  string `json:"name"`
		Stage string `json:"stage"`
		Title string `json:"title"`
		About string `json:"about"`
		Stops int    `json:"stops"`
	}
	entries := make([]entry, len(tours))
	for i, t := range tours {
		entries[i] = entry{t.Name, t.Stage, t.Title, t.About, len(t.Stops)}
	}
	return encode(entries)
}

// Decode reads a tour.
func Decode(b []byte) (t Tour, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("the tour: %w", err)
	}
	return t, nil
}

// Encode writes a tour as its file has it.
func (t Tour) Encode() ([]byte, error) {
	return encode(t)
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("the tours: %w", err)
	}
	return b.Bytes(), nil
}
