package explore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Encoder turns a value into bytes that say all of it: two values get the same
// bytes if and only if they are the same, apart from what the options leave
// out. It goes through every field, private ones too, so a field that is added
// to a server later is part of its state without anyone having to think of it.
//
// The names of servers have a type of their own, and that is how the Encoder
// finds them: it can write a value as it would be if the servers had swapped
// their names. A slice of names is taken for a set and written in order; so is
// a map, whatever its keys.
//
// An Encoder is safe for concurrent use once it is made.
type Encoder struct {
	encoding Encoding
	plans    map[reflect.Type]plan

	// met are the fields that the encoding names, and that some type has.
	met map[string]bool
}

// Encoding says how an Encoder encodes a value. Fields are named as
// "Type.field", without the arguments of a generic type.
type Encoding struct {
	// Names are the types of servers' names, unsigned integers that are 0 for
	// nobody.
	Names []reflect.Type

	// Leave are fields that are not part of the state: clocks, functions, and
	// what never changes.
	Leave []string

	// Unordered are slices whose order has no meaning.
	Unordered []string
}

// plan writes a value of one type.
type plan func(w *writer, v reflect.Value)

// writer holds what one call of Append has written, and how names are written.
type writer struct {
	buf  []byte
	name func(id uint64) uint64
}

// NewEncoder returns an Encoder for values of the types of the examples, and of
// what they hold. Types that hide behind an interface must be among the
// examples.
//
// It fails if a field that the encoding names does not exist, or if a value
// cannot be written: a function or a channel has no contents to compare.
func NewEncoder(encoding Encoding, examples ...any) (*Encoder, error) {
	e := &Encoder{encoding: encoding, plans: make(map[reflect.Type]plan), met: make(map[string]bool)}
	for _, x := range examples {
		if err := e.learn(reflect.TypeOf(x)); err != nil {
			return nil, err
		}
	}
	for _, field := range slices.Concat(encoding.Leave, encoding.Unordered) {
		if !e.met[field] {
			return nil, fmt.Errorf("the encoding names the field %s, but no value holds a field of that name", field)
		}
	}
	return e, nil
}

// Append appends the encoding of v, with each server's name replaced by what
// name returns for it. A nil name changes nothing.
func (e *Encoder) Append(buf []byte, v any, name func(id uint64) uint64) []byte {
	w := writer{buf: buf, name: name}
	value := reflect.ValueOf(v)
	e.known(value.Type())(&w, value)
	return w.buf
}

func (e *Encoder) known(t reflect.Type) plan {
	p := e.plans[t]
	if p == nil {
		panic(fmt.Sprintf("explore: values of type %v are to be encoded, but the encoder was not told of that type", t))
	}
	return p
}

// learn makes the plan for a type and for the types it holds. While it is at
// it, the type has a plan that looks up the final one, so types may be
// recursive.
func (e *Encoder) learn(t reflect.Type) error {
	if e.plans[t] != nil {
		return nil
	}
	e.plans[t] = func(w *writer, v reflect.Value) { e.plans[t](w, v) }
	p, err := e.plan(t)
	if err != nil {
		return err
	}
	e.plans[t] = p
	return nil
}

func (e *Encoder) plan(t reflect.Type) (plan, error) {
	if slices.Contains(e.encoding.Names, t) {
		return func(w *writer, v reflect.Value) { w.number(w.rename(v.Uint())) }, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(w *writer, v reflect.Value) { w.bool(v.Bool()) }, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(w *writer, v reflect.Value) { w.buf = binary.AppendVarint(w.buf, v.Int()) }, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(w *writer, v reflect.Value) { w.number(v.Uint()) }, nil
	case reflect.String:
		return func(w *writer, v reflect.Value) {
			w.number(uint64(v.Len()))
			w.buf = append(w.buf, v.String()...)
		}, nil
	case reflect.Struct:
		return e.planStruct(t)
	case reflect.Slice, reflect.Array:
		return e.planList(t)
	case reflect.Map:
		return e.planMap(t)
	case reflect.Pointer:
		return e.planPointer(t)
	case reflect.Interface:
		return e.encodeInterface, nil
	default:
		return nil, fmt.Errorf("a value of type %v cannot be encoded", t)
	}
}

func (e *Encoder) planStruct(t reflect.Type) (plan, error) {
	type field struct {
		place int
		write plan
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name := fieldName(t, f)
		e.met[name] = true
		if slices.Contains(e.encoding.Leave, name) {
			continue
		}
		if err := e.learn(f.Type); err != nil {
			return nil, fmt.Errorf("in the field %s: %w", name, err)
		}
		write := e.plans[f.Type]
		if slices.Contains(e.encoding.Unordered, name) {
			write = unordered(e.plans[f.Type.Elem()])
		}
		fields = append(fields, field{i, write})
	}
	return func(w *writer, v reflect.Value) {
		for _, f := range fields {
			f.write(w, v.Field(f.place))
		}
	}, nil
}

func fieldName(t reflect.Type, f reflect.StructField) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	return name + "." + f.Name
}

func (e *Encoder) planList(t reflect.Type) (plan, error) {
	if err := e.learn(t.Elem()); err != nil {
		return nil, err
	}
	if t.Kind() == reflect.Slice && slices.Contains(e.encoding.Names, t.Elem()) {
		return (*writer).names, nil
	}
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
		return func(w *writer, v reflect.Value) {
			w.number(uint64(v.Len()))
			w.buf = append(w.buf, v.Bytes()...)
		}, nil
	}
	element := e.plans[t.Elem()]
	return func(w *writer, v reflect.Value) {
		w.number(uint64(v.Len()))
		for i := range v.Len() {
			element(w, v.Index(i))
		}
	}, nil
}

func (e *Encoder) planMap(t reflect.Type) (plan, error) {
	if err := e.learn(t.Key()); err != nil {
		return nil, err
	}
	if err := e.learn(t.Elem()); err != nil {
		return nil, err
	}
	key, element := e.plans[t.Key()], e.plans[t.Elem()]
	return func(w *writer, v reflect.Value) {
		var pairs [][]byte
		for i := v.MapRange(); i.Next(); {
			pair := writer{name: w.name}
			key(&pair, i.Key())
			element(&pair, i.Value())
			pairs = append(pairs, pair.buf)
		}
		w.sorted(pairs)
	}, nil
}

// unordered writes a slice in the order of what its elements are written as.
func unordered(element plan) plan {
	return func(w *writer, v reflect.Value) {
		var elements [][]byte
		for i := range v.Len() {
			one := writer{name: w.name}
			element(&one, v.Index(i))
			elements = append(elements, one.buf)
		}
		w.sorted(elements)
	}
}

// sorted writes pieces in an order of their own.
func (w *writer) sorted(pieces [][]byte) {
	slices.SortFunc(pieces, bytes.Compare)
	w.number(uint64(len(pieces)))
	for _, p := range pieces {
		w.buf = append(w.buf, p...)
	}
}

func (e *Encoder) planPointer(t reflect.Type) (plan, error) {
	if err := e.learn(t.Elem()); err != nil {
		return nil, err
	}
	element := e.plans[t.Elem()]
	return func(w *writer, v reflect.Value) {
		w.bool(!v.IsNil())
		if !v.IsNil() {
			element(w, v.Elem())
		}
	}, nil
}

func (e *Encoder) encodeInterface(w *writer, v reflect.Value) {
	if v.IsNil() {
		w.number(0)
		return
	}
	name := v.Elem().Type().String()
	w.number(uint64(len(name)))
	w.buf = append(w.buf, name...)
	e.known(v.Elem().Type())(w, v.Elem())
}

func (w *writer) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }

func (w *writer) bool(b bool) {
	if b {
		w.buf = append(w.buf, 1)
	} else {
		w.buf = append(w.buf, 0)
	}
}

func (w *writer) rename(id uint64) uint64 {
	if w.name == nil || id == 0 {
		return id
	}
	return w.name(id)
}

// names writes a set of servers.
func (w *writer) names(v reflect.Value) {
	var room [16]uint64
	ids := room[:0]
	for i := range v.Len() {
		ids = append(ids, w.rename(v.Index(i).Uint()))
	}
	slices.Sort(ids)
	w.number(uint64(len(ids)))
	for _, id := range ids {
		w.number(id)
	}
}

// Shared returns where two values share memory that one of them could change
// under the other: slices, maps and pointers that lead to the same place. A
// copy of a server must share nothing with the original. leave lists fields,
// as "Type.field", whose contents never change and may be shared.
func Shared(a, b any, leave []string) []string {
	s := sharing{leave: leave}
	s.compare("", reflect.ValueOf(a), reflect.ValueOf(b))
	return s.found
}

type sharing struct {
	leave, found []string
}

func (s *sharing) compare(path string, a, b reflect.Value) {
	if !a.IsValid() || !b.IsValid() || a.Type() != b.Type() {
		return
	}
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			name := fieldName(a.Type(), a.Type().Field(i))
			if !slices.Contains(s.leave, name) {
				s.compare(strings.TrimPrefix(path+" "+name, " "), a.Field(i), b.Field(i))
			}
		}
	case reflect.Slice:
		s.same(path, a, b, a.Cap() > 0 && b.Cap() > 0)
		s.elements(path, a, b)
	case reflect.Array:
		s.elements(path, a, b)
	case reflect.Map:
		s.same(path, a, b, !a.IsNil() && !b.IsNil())
		for i := a.MapRange(); i.Next(); {
			s.compare(path, i.Value(), b.MapIndex(i.Key()))
		}
	case reflect.Pointer:
		s.same(path, a, b, !a.IsNil() && !b.IsNil())
		s.compare(path, a.Elem(), b.Elem())
	case reflect.Interface:
		s.compare(path, a.Elem(), b.Elem())
	}
}

func (s *sharing) same(path string, a, b reflect.Value, there bool) {
	if there && a.Pointer() == b.Pointer() {
		s.found = append(s.found, path)
	}
}

func (s *sharing) elements(path string, a, b reflect.Value) {
	for i := range min(a.Len(), b.Len()) {
		s.compare(path, a.Index(i), b.Index(i))
	}
}
