// Package kv is the state machine that every stage serves: a map from strings
// to strings with six commands. Keys and values are any bytes. In JSON they are text
// where that is possible, and base64 elsewhere; see strict.AppendBytes.
//
// Applying a command is deterministic: the same commands in the same order give
// the same map and the same results on every server. The commands append and cas
// make it visible if a command was applied twice, or in another order; a put
// would hide both.
package kv

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/btree"

	"example.com/raftsteps/shared/core/strict"
)

// The commands.
const (
	// Get reads the value of Key.
	Get = "get"

	// Put sets Key to Value.
	Put = "put"

	// Create sets Key to Value if the key has no value.
	Create = "create"

	// Append adds Value to the end of Key's value; a missing key counts as
	// empty. The result holds the length of the new value.
	Append = "append"

	// Cas (compare and set) sets Key to Value if its value is Old.
	Cas = "cas"

	// Delete removes Key.
	Delete = "delete"
)

// Limits of the store. A value at its limit still fits into one line of the wire
// (1 MiB) when every byte of it must be escaped.
const (
	// MaxKey is the longest key, in bytes.
	MaxKey = 1 << 10

	// MaxValue is the longest value, in bytes.
	MaxValue = 128 << 10

	// MaxQuoted is how many bytes of the value that a cas found are in its
	// result. Results are remembered, so they must be short.
	MaxQuoted = 64
)

// Command is one operation on the store, as it is replicated and logged.
type Command struct {
	// Op is one of Get, Put, Create, Append, Cas, Delete.
	Op string

	// Key is 1 to MaxKey bytes.
	Key string

	// Value is the value that Put, Create, Append and Cas write, at most MaxValue
	// bytes.
	Value string

	// Old is the value that Cas expects to find.
	Old string
}

// Writes reports whether op is a command that changes the store.
func Writes(op string) bool {
	switch op {
	case Put, Create, Append, Cas, Delete:
		return true
	}
	return false
}

// TooLongError says which part of a command is longer than its limit.
type TooLongError struct {
	// Part is the key, the value or the old value.
	Part string

	// Bytes is its length, Most its limit.
	Bytes, Most int
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("the %s has %d bytes; at most %d are allowed", e.Part, e.Bytes, e.Most)
}

// Check returns what is wrong with a command, or nil. It must be called before a
// command is replicated: a command that no server can apply would stop all of
// them.
func (c Command) Check() error {
	switch {
	case c.Op != Get && !Writes(c.Op):
		return fmt.Errorf("unknown command %q", c.Op)
	case c.Key == "":
		return fmt.Errorf("the key is empty")
	case len(c.Key) > MaxKey:
		return &TooLongError{"key", len(c.Key), MaxKey}
	case len(c.Value) > MaxValue:
		return &TooLongError{"value", len(c.Value), MaxValue}
	case len(c.Old) > MaxValue:
		return &TooLongError{"old value", len(c.Old), MaxValue}
	}
	return nil
}

// AppendJSON appends the command to b as a JSON object on one line.
func (c Command) AppendJSON(b []byte) []byte {
	b = append(b, `{"op":"`...)
	b = append(b, c.Op...)
	b = strict.AppendBytes(append(b, '"'), "key", c.Key)
	if c.Op == Cas {
		b = strict.AppendBytes(b, "old", c.Old)
	}
	if c.Op != Get && c.Op != Delete {
		b = strict.AppendBytes(b, "value", c.Value)
	}
	return append(b, '}')
}

// Decode reads a command that AppendJSON wrote.
func Decode(text []byte) (Command, error) {
	d := strict.NewDecoder(text)
	c := DecodeFrom(&d)
	if err := d.End(); err != nil {
		return Command{}, fmt.Errorf("a command: %w", err)
	}
	return c, nil
}

// DecodeFrom reads a command that is part of another value. d keeps errors,
// including those of Check.
func DecodeFrom(d *strict.Decoder) Command {
	var c Command
	d.Object(func(field []byte) {
		if !c.DecodeField(d, field) {
			d.Unknown()
		}
	})
	if err := c.Check(); err != nil {
		d.Fail("%v", err)
	}
	return c
}

// DecodeField reads one field into the command, and reports whether commands have
// a field of that name. A larger object can thus contain a command's fields among
// its own.
func (c *Command) DecodeField(d *strict.Decoder, field []byte) bool {
	switch string(field) {
	case "op":
		c.Op = opName(d.Bytes())
	case "key":
		c.Key = d.String()
	case "value":
		c.Value = d.String()
	case "old":
		c.Old = d.String()
	case "key_b64":
		c.Key = d.Base64()
	case "value_b64":
		c.Value = d.Base64()
	case "old_b64":
		c.Old = d.Base64()
	default:
		return false
	}
	return true
}

// opName is string(b) without an allocation for known commands.
func opName(b []byte) string {
	for _, op := range [...]string{Get, Put, Create, Append, Cas, Delete} {
		if string(b) == op {
			return op
		}
	}
	return string(b)
}

// Outcome says how a command ended.
type Outcome string

// The outcomes of a command.
const (
	// OK: the command was carried out.
	OK Outcome = ""

	// NotFound: the key of a get, cas or delete has no value.
	NotFound Outcome = "not_found"

	// Mismatch: the value that cas found is not Old. Result.Value is the
	// beginning of the value found.
	Mismatch Outcome = "mismatch"

	// Exists: the key of a create has a value. Nothing changed.
	Exists Outcome = "exists"

	// TooLarge: append would make the value longer than MaxValue. Nothing
	// changed.
	TooLarge Outcome = "too_large"
)

// Result is the result of a command.
type Result struct {
	// Outcome is OK, or why nothing changed.
	Outcome Outcome

	// Value is the value that get read, or the beginning of the value that a
	// failed cas found, at most MaxQuoted bytes of it.
	Value string

	// Length is the length of the whole value in bytes: the one that append
	// produced, or the one that a failed cas found.
	Length int
}

// Found returns the result of a cas that found another value than it expected.
func Found(value string) Result {
	beginning := value[:min(len(value), MaxQuoted)]
	if len(beginning) < len(value) {
		// A character of which only a part fits is left out. The copy does not
		// keep the whole value in memory.
		beginning = strings.Clone(value[:boundary(value, MaxQuoted)])
	}
	return Result{Outcome: Mismatch, Value: beginning, Length: len(value)}
}

// boundary returns the last position up to n between two characters of a text. In
// bytes that are no text it returns a position near n.
func boundary(text string, n int) int {
	for at := n; at > n-utf8.UTFMax; at-- {
		if utf8.RuneStart(text[at]) {
			return at
		}
	}
	return n
}

// Store is the map. It is safe for concurrent use.
type Store struct {
	mu     sync.RWMutex
	values map[string]string
	count  int
	bytes  int64

	// sum is the hash of the content: the sum of the hashes of all pairs. recount is
	// the same, from the content as it is; nil if it is not computed now.
	sum     uint64
	recount *recount

	// keys are the keys, in order.
	keys *btree.BTreeG[string]

	// changed is called for each change, if it is not nil.
	changed func(key, value string, deleted bool)

	// changes, if not nil, override values: a View reads values, or did until a
	// short time ago. order lists the keys of changes, in the order in which they
	// will move into values.
	changes map[string]change
	order   []string
	frozen  bool
}

// change is a value that was written, or a key that was deleted, since the map
// was frozen.
type change struct {
	value   string
	deleted bool
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{values: make(map[string]string), keys: btree.NewOrderedG[string](32)}
}

// Apply carries out one command and returns its result. If several goroutines
// call it, the order of the commands is undefined, but each is still atomic.
func (s *Store) Apply(c Command) Result {
	if c.Op == Get {
		return s.Get(c.Key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moveSome()
	old, found := s.lookup(c.Key)
	switch c.Op {
	case Put:
		s.set(c.Key, c.Value, found)
		return Result{}
	case Create:
		if found {
			return Result{Outcome: Exists}
		}
		s.set(c.Key, c.Value, found)
		return Result{}
	case Append:
		if len(old)+len(c.Value) > MaxValue {
			return Result{Outcome: TooLarge}
		}
		s.set(c.Key, old+c.Value, found)
		return Result{Length: len(old) + len(c.Value)}
	case Cas:
		switch {
		case !found:
			return Result{Outcome: NotFound}
		case old != c.Old:
			return Found(old)
		}
		s.set(c.Key, c.Value, found)
		return Result{}
	case Delete:
		if !found {
			return Result{Outcome: NotFound}
		}
		s.remove(c.Key)
		return Result{}
	}
	panic(fmt.Sprintf("kv: command %q was not checked before it was applied", c.Op))
}

func (s *Store) lookup(key string) (value string, found bool) {
	if c, ok := s.changes[key]; ok {
		return c.value, !c.deleted
	}
	value, found = s.values[key]
	return value, found
}

func (s *Store) set(key, value string, found bool) {
	if s.changed != nil {
		s.changed(key, value, false)
	}
	old, _ := s.lookup(key)
	s.bytes += int64(len(value) - len(old))
	by := hashPair(key, value)
	if found {
		by -= hashPair(key, old)
	}
	s.addHash(key, by)
	if !found {
		s.count++
		s.keys.ReplaceOrInsert(key)
		s.bytes += int64(len(key) + KeyBytes)
	}
	if s.changes == nil {
		s.values[key] = value
		return
	}
	s.change(key, change{value: value})
}

func (s *Store) remove(key string) {
	if s.changed != nil {
		s.changed(key, "", true)
	}
	old, _ := s.lookup(key)
	s.bytes -= int64(len(key) + len(old) + KeyBytes)
	s.addHash(key, -hashPair(key, old))
	s.count--
	s.keys.Delete(key)
	if s.changes == nil {
		delete(s.values, key)
		return
	}
	s.change(key, change{deleted: true})
}

func (s *Store) change(key string, c change) {
	if _, ok := s.changes[key]; !ok {
		s.order = append(s.order, key)
	}
	s.changes[key] = c
}

// OnChange makes Apply call f for each key that a command changes, with its new
// value, within the call of Apply. f must not use the store.
func (s *Store) OnChange(f func(key, value string, deleted bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

// Get reads one key.
func (s *Store) Get(key string) Result {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, found := s.lookup(key)
	if !found {
		return Result{Outcome: NotFound}
	}
	return Result{Value: value}
}

// Len returns the number of keys.
func (s *Store) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.count
}

// Each calls f for every key and value, in no fixed order, until f returns
// false. f must not change the store.
func (s *Store) Each(f func(key, value string) bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for k, v := range s.values {
		if _, over := s.changes[k]; !over && !f(k, v) {
			return
		}
	}
	for k, c := range s.changes {
		if !c.deleted && !f(k, c.value) {
			return
		}
	}
}

// View is a store as it was at one moment.
type View struct {
	values map[string]string
	thaw   func()
}

// Freeze returns a view of the store as it is now. It does not copy the map: from
// now on changes are kept apart from it, and after the view is closed they move
// into it, a few with every command. Freeze itself moves those that an earlier
// view has left. There can be one view at a time; it must be closed before the
// next is created.
func (s *Store) Freeze() *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		panic("kv: this store already has a view that is not closed")
	}
	for s.changes != nil {
		s.moveSome()
	}
	s.frozen, s.changes = true, make(map[string]change)
	return &View{values: s.values, thaw: s.thaw}
}

func (s *Store) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = false
}

// moveSome moves a few changes into the map, if no view reads it. It moves more
// changes than a command can add, so after enough commands none is left.
func (s *Store) moveSome() {
	if s.frozen || s.changes == nil {
		return
	}
	const few = 8
	for _, key := range s.order[:min(few, len(s.order))] {
		if c := s.changes[key]; c.deleted {
			delete(s.values, key)
		} else {
			s.values[key] = c.value
		}
		delete(s.changes, key)
	}
	s.order = s.order[min(few, len(s.order)):]
	if len(s.order) == 0 {
		s.changes, s.order = nil, nil
	}
}

// Len returns the number of keys.
func (v *View) Len() int { return len(v.values) }

// Each calls f for every key and value, in the order of the keys, until f
// returns false. It may run alongside any use of the store.
func (v *View) Each(f func(key, value string) bool) {
	keys := make([]string, 0, len(v.values))
	for key := range v.values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if !f(key, v.values[key]) {
			return
		}
	}
}

// Close ends the view. It is safe for concurrent use with the store, and must
// be called once.
func (v *View) Close() { v.thaw() }
