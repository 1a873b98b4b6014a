package explore

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// thing has a field of every kind.
type thing struct {
	name   id
	names  []id
	list   []int
	bag    []int
	pair   [2]id
	known  map[id]*thing
	words  map[string]bool
	bytes  []byte
	any    body
	next   *thing
	number uint16
	signed int8
	text   string
	yes    bool
	clock  int
}

func newThing() *thing {
	return &thing{
		name: 1, names: []id{3, 1}, list: []int{1, 2}, bag: []int{1, 2, 2}, pair: [2]id{1, 2},
		known: map[id]*thing{1: {text: "one"}, 2: {text: "two"}}, words: map[string]bool{"a": true},
		bytes: []byte("b"), any: grant{"why"}, next: &thing{}, number: 7, signed: -1, text: "t", yes: true, clock: 5,
	}
}

func thingEncoder(t *testing.T) *Encoder {
	e, err := NewEncoder(Encoding{Names: []reflect.Type{reflect.TypeFor[id]()}, Leave: []string{"thing.clock"}, Unordered: []string{"thing.bag"}}, &thing{}, grant{}, ask{})
	require.NoError(t, err)
	return e
}

func TestEveryFieldCounts(t *testing.T) {
	e := thingEncoder(t)
	same := e.Append(nil, newThing(), nil)
	for what, change := range map[string]func(x *thing){
		"a name":                 func(x *thing) { x.name = 2 },
		"a set of names":         func(x *thing) { x.names = []id{1} },
		"a list's order":         func(x *thing) { x.list = []int{2, 1} },
		"a list's length":        func(x *thing) { x.list = []int{1} },
		"what is in a bag":       func(x *thing) { x.bag = []int{1, 1, 2} },
		"an array":               func(x *thing) { x.pair = [2]id{2, 1} },
		"a value in a map":       func(x *thing) { x.known[2].text = "three" },
		"a key of a map":         func(x *thing) { x.words = map[string]bool{"b": true} },
		"bytes":                  func(x *thing) { x.bytes = []byte("c") },
		"the type behind an any": func(x *thing) { x.any = ask{} },
		"the value behind it":    func(x *thing) { x.any = grant{"because"} },
		"nothing behind it":      func(x *thing) { x.any = nil },
		"a nil pointer":          func(x *thing) { x.next = nil },
		"what a pointer shows":   func(x *thing) { x.next.yes = true },
		"a number":               func(x *thing) { x.number = 8 },
		"a sign":                 func(x *thing) { x.signed = 1 },
		"a text":                 func(x *thing) { x.text = "" },
		"a truth":                func(x *thing) { x.yes = false },
	} {
		x := newThing()
		change(x)
		require.NotEqual(t, same, e.Append(nil, x, nil), what)
	}
}

func TestOrderOfSetsAndClocksDoNotCount(t *testing.T) {
	e := thingEncoder(t)
	x := newThing()
	x.names, x.clock, x.bag = []id{1, 3}, 6, []int{2, 1, 2}
	require.Equal(t, e.Append(nil, newThing(), nil), e.Append(nil, x, nil))
}

func TestNamesAreSwappedEverywhere(t *testing.T) {
	e := thingEncoder(t)
	swap := func(id uint64) uint64 { return map[uint64]uint64{1: 2, 2: 1, 3: 3}[id] }
	x := newThing()
	x.name, x.names, x.pair = 2, []id{2, 3}, [2]id{2, 1}
	x.known = map[id]*thing{2: {text: "one"}, 1: {text: "two"}}
	require.Equal(t, e.Append(nil, newThing(), nil), e.Append(nil, x, swap))
	require.NotEqual(t, e.Append(nil, newThing(), nil), e.Append(nil, x, nil))
}

func TestWhatCannotBeEncodedIsRefused(t *testing.T) {
	type odd struct{ call func() }
	_, err := NewEncoder(Encoding{Names: []reflect.Type{reflect.TypeFor[id]()}}, odd{})
	require.EqualError(t, err, "in the field odd.call: a value of type func() cannot be encoded")
	_, err = NewEncoder(Encoding{Names: []reflect.Type{reflect.TypeFor[id]()}, Leave: []string{"odd.call"}}, odd{})
	require.NoError(t, err)
	_, err = NewEncoder(Encoding{Names: []reflect.Type{reflect.TypeFor[id]()}, Unordered: []string{"thing.watch"}}, thing{})
	require.EqualError(t, err, "the encoding names the field thing.watch, but no value holds a field of that name")
}

func TestSharedMemoryIsFound(t *testing.T) {
	x := newThing()
	require.Empty(t, Shared(x, newThing(), nil))
	y := *x
	require.Equal(t, []string{"thing.names", "thing.list", "thing.bag", "thing.known", "thing.known", "thing.known", "thing.words", "thing.bytes", "thing.next"}, Shared(x, &y, nil))
	y.names, y.list, y.bag, y.words, y.bytes = nil, nil, nil, nil, []byte("b")
	y.known = map[id]*thing{2: x.known[2]}
	require.Equal(t, []string{"thing.known", "thing.next"}, Shared(x, &y, nil))
	require.Equal(t, []string{"thing.known"}, Shared(x, &y, []string{"thing.next"}))
}
