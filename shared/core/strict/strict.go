// Package strict reads JSON from sources that are not trusted, and writes JSON.
//
// encoding/json is forgiving where a server must not be: it turns invalid
// UTF-8 into U+FFFD (so two different keys become one), lets the last of two
// equal fields win, matches field names without regard to case, and stays
// silent about fields it does not know. For a store each of these is lost
// data. A Decoder refuses them all, says where and why, and allocates nothing
// for a line that is well formed.
//
//	d := strict.NewDecoder(line)
//	d.Object(func(field []byte) {
//		switch string(field) {
//		case "id":
//			r.ID = d.Uint()
//		case "key":
//			r.Key = d.String()
//		default:
//			d.Unknown()
//		}
//	})
//	if err := d.End(); err != nil { … }
//
// The first error is kept: after it every method returns a zero value, so that a
// decoder needs no check between two fields.
//
// The functions that begin with Append write what a Decoder reads. They append to
// a slice, put the commas where they belong, and leave out fields that have their
// zero value:
//
//	b = strict.AppendNumber([]byte{'{'}, "id", r.ID)
//	b = strict.AppendText(b, "key", r.Key)
//	b = append(b, '}')
package strict

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. No message of this
// project needs more than six; a bound keeps a hostile line from costing more
// than its length.
const MaxDepth = 8

// maxFields is the largest number of fields in one object. It is far above the
// number in any message; an object with more is refused.
const maxFields = 32

// Error says what is wrong with a text and where.
type Error struct {
	// Offset is the byte at which the error was found, counted from 0.
	Offset int

	// Field is the name of the field being read, or "".
	Field string

	// Message says what was wanted and what was found.
	Message string
}

func (e *Error) Error() string {
	if e.Field != "" {
		return fmt.Sprintf("field %q: %s (at byte %d)", e.Field, e.Message, e.Offset)
	}
	return fmt.Sprintf("%s (at byte %d)", e.Message, e.Offset)
}

// Decoder reads one JSON value. It uses little memory in addition to the text. It
// is not safe for concurrent use.
type Decoder struct {
	text  []byte
	pos   int
	depth int
	field []byte
	err   *Error

	// inside is how much less deep than MaxDepth arrays and objects may nest.
	inside int
}

// NewDecoder returns a decoder of text, which must stay unchanged while the
// decoder and the byte slices it handed out are in use.
func NewDecoder(text []byte) Decoder {
	d := Decoder{text: text}
	if !utf8.Valid(text) {
		d.pos = firstInvalid(text)
		d.fail("not valid UTF-8")
	}
	return d
}

// Inside says that the value will be inside other text, within this many arrays
// and objects: its own depth may be smaller by that number.
func (d *Decoder) Inside(levels int) { d.inside = levels }

func firstInvalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// End reports the first error. It is also an error if something follows the
// value that was read: one line is one value.
func (d *Decoder) End() error {
	d.space()
	if d.err == nil && d.pos < len(d.text) {
		d.field = nil
		d.fail("something follows the end of the JSON value")
	}
	if d.err == nil {
		return nil
	}
	return d.err
}

// Failed reports whether there was an error.
func (d *Decoder) Failed() bool { return d.err != nil }

// Fail records an error about the field being read, unless there is one
// already. It is for rules that are not JSON's, such as "must not be empty".
func (d *Decoder) Fail(format string, args ...any) {
	d.fail(format, args...)
}

// Unknown refuses the field being read by its name.
func (d *Decoder) Unknown() { d.fail("unknown field") }

func (d *Decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = &Error{Offset: d.pos, Field: shorten(d.field), Message: fmt.Sprintf(format, args...)}
	}
	d.pos = len(d.text)
}

// shorten shortens the name of a field, so that a message with a very long name
// stays readable.
func shorten(name []byte) string {
	const most = 64
	if len(name) <= most {
		return string(name)
	}
	return string(bytes.ToValidUTF8(name[:most], nil)) + "…"
}

// Object reads an object and calls f with the name of each field, in the
// order of the text. f must read the field's value, or call Unknown. A field
// that appears twice is an error. The name is valid during the call only.
func (d *Decoder) Object(f func(field []byte)) {
	if !d.open('{', "an object") {
		return
	}
	var seen [maxFields][]byte
	outer := d.field
	for n := 0; ; n++ {
		d.space()
		if n == 0 && d.accept('}') {
			break
		}
		d.field = outer
		if d.peek() != '"' {
			d.fail(`want a field name in double quotes, found %s`, d.found())
			return
		}
		name := d.Bytes()
		if d.err != nil {
			return
		}
		d.field = name
		if n == maxFields {
			d.fail("an object with more than %d fields", maxFields)
			return
		}
		for _, s := range seen[:n] {
			if twice := sameField(s, name); twice != "" {
				d.fail("%s", twice)
				return
			}
		}
		seen[n] = name
		d.space()
		if !d.accept(':') {
			d.fail(`want ":", found %s`, d.found())
			return
		}
		f(name)
		if !d.more('}') {
			break
		}
	}
	d.field = outer
	d.depth--
}

// sameField says why two fields cannot be in one object: they have one name, or one
// has the other's value in base64. "" means that they can.
func sameField(a, b []byte) string {
	if bytes.Equal(a, b) {
		return "this field appears twice"
	}
	if plain, found := bytes.CutSuffix(a, base64Suffix); found && bytes.Equal(plain, b) {
		return "this field appears in base64 too; leave one of them out"
	}
	if plain, found := bytes.CutSuffix(b, base64Suffix); found && bytes.Equal(plain, a) {
		return "this field appears as text too; leave one of them out"
	}
	return ""
}

// ObjectText is Object, and returns the text of the object as well. It is for an
// object that is read and passed on unchanged.
func (d *Decoder) ObjectText(f func(field []byte)) []byte {
	d.space()
	start := d.pos
	d.Object(f)
	if d.err != nil {
		return nil
	}
	return d.text[start:d.pos]
}

// Array reads an array and calls f for each element; f must read it.
func (d *Decoder) Array(f func()) {
	if !d.open('[', "an array") {
		return
	}
	d.space()
	if !d.accept(']') {
		for f(); d.more(']'); f() {
		}
	}
	d.depth--
}

// more steps over the comma before the next element, or the closing bracket.
func (d *Decoder) more(end byte) bool {
	d.space()
	if d.err != nil || d.accept(end) {
		return false
	}
	if !d.accept(',') {
		d.fail(`want "," or "%c", found %s`, end, d.found())
		return false
	}
	return true
}

func (d *Decoder) open(c byte, what string) bool {
	d.space()
	if !d.accept(c) {
		d.fail("want %s, found %s", what, d.found())
		return false
	}
	if d.depth++; d.depth > MaxDepth-d.inside {
		d.fail("nested deeper than %d", MaxDepth-d.inside)
		return false
	}
	return true
}

// String reads a string.
func (d *Decoder) String() string { return string(d.Bytes()) }

// Bytes reads a string and returns its bytes: a part of the text itself where
// the string has no escapes, else a copy.
func (d *Decoder) Bytes() []byte {
	d.space()
	if !d.accept('"') {
		d.fail("want a string, found %s", d.found())
		return nil
	}
	start := d.pos
	for i := start; i < len(d.text); i++ {
		switch c := d.text[i]; {
		case c == '"':
			d.pos = i + 1
			return d.text[start:i]
		case c == '\\':
			return d.escaped(start, i)
		case c < 0x20:
			d.pos = i
			d.fail(`control character U+%04X in a string (write \u%04x)`, c, c)
			return nil
		}
	}
	d.pos = len(d.text)
	d.fail("a string without an end")
	return nil
}

// base64Suffix is the end of a field's name whose value is base64, because the bytes
// are not valid UTF-8: "value_b64" has what "value" could not have.
var base64Suffix = []byte("_b64")

// Base64 reads a string that holds bytes in base64 (RFC 4648, with padding).
func (d *Decoder) Base64() string {
	text := d.Bytes()
	out, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") {
		d.fail("want base64 with padding, such as %q", "/w==")
		return ""
	}
	return string(out)
}

// escaped reads the rest of a string that has an escape at i.
func (d *Decoder) escaped(start, i int) []byte {
	out := append([]byte(nil), d.text[start:i]...)
	for i < len(d.text) {
		c := d.text[i]
		d.pos = i
		switch {
		case c == '"':
			d.pos = i + 1
			return out
		case c < 0x20:
			d.fail(`control character U+%04X in a string (write \u%04x)`, c, c)
			return nil
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		r, n := d.escape(i)
		if n == 0 {
			return nil
		}
		out = utf8.AppendRune(out, r)
		i += n
	}
	d.pos = len(d.text)
	d.fail("a string without an end")
	return nil
}

// escape reads the escape at i and returns its rune and length, or 0 after an
// error.
func (d *Decoder) escape(i int) (rune, int) {
	if i+1 >= len(d.text) {
		d.fail("a string without an end")
		return 0, 0
	}
	switch c := d.text[i+1]; c {
	case '"', '\\', '/':
		return rune(c), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return d.unicodeEscape(i)
	default:
		d.fail("unknown escape in a string")
		return 0, 0
	}
}

func (d *Decoder) unicodeEscape(i int) (rune, int) {
	r, ok := hex4(d.text, i+2)
	switch {
	case !ok:
		d.fail(`\u without four hexadecimal digits`)
		return 0, 0
	case r < 0xD800 || r > 0xDFFF:
		return r, 6
	}
	// A surrogate counts only as the first half of a pair. encoding/json
	// would put U+FFFD in place of one that stands alone.
	if r < 0xDC00 && i+7 < len(d.text) && d.text[i+6] == '\\' && d.text[i+7] == 'u' {
		if low, ok := hex4(d.text, i+8); ok && low >= 0xDC00 && low <= 0xDFFF {
			return (r-0xD800)<<10 | (low - 0xDC00) + 0x10000, 12
		}
	}
	d.fail(`\u%04x is half of a surrogate pair, without its other half`, r)
	return 0, 0
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// Uint reads a whole number from 0 to 2^64-1, written in digits only.
func (d *Decoder) Uint() uint64 {
	d.space()
	start := d.pos
	var v uint64
	for d.pos < len(d.text) && '0' <= d.text[d.pos] && d.text[d.pos] <= '9' {
		digit := uint64(d.text[d.pos] - '0')
		if v > (math.MaxUint64-digit)/10 {
			d.fail("a number above 2^64-1")
			return 0
		}
		v = v*10 + digit
		d.pos++
	}
	switch {
	case d.pos == start:
		d.fail("want a whole number, found %s", d.found())
		return 0
	case d.text[start] == '0' && d.pos > start+1:
		d.fail("a number with a leading zero")
		return 0
	case d.pos < len(d.text) && (d.text[d.pos] == '.' || d.text[d.pos] == 'e' || d.text[d.pos] == 'E'):
		d.fail("want a whole number, found a fraction or an exponent")
		return 0
	}
	return v
}

// Bool reads true or false.
func (d *Decoder) Bool() bool {
	d.space()
	switch {
	case d.literal("true"):
		return true
	case d.literal("false"):
		return false
	}
	d.fail("want true or false, found %s", d.found())
	return false
}

// Raw reads any value and returns its text, which was checked. It is for a value
// that is passed on unchanged.
func (d *Decoder) Raw() []byte {
	d.space()
	start := d.pos
	d.skip()
	if d.err != nil {
		return nil
	}
	return d.text[start:d.pos]
}

func (d *Decoder) skip() {
	d.space()
	switch c := d.peek(); {
	case c == '{':
		d.Object(func([]byte) { d.skip() })
	case c == '[':
		d.Array(d.skip)
	case c == '"':
		d.Bytes()
	case c == '-' || '0' <= c && c <= '9':
		d.number()
	case d.literal("true"), d.literal("false"), d.literal("null"):
	default:
		d.fail("want a JSON value, found %s", d.found())
	}
}

// number steps over a number as RFC 8259 writes it.
func (d *Decoder) number() {
	digits := func() bool {
		start := d.pos
		for c := d.peek(); '0' <= c && c <= '9'; c = d.peek() {
			d.pos++
		}
		return d.pos > start
	}
	d.accept('-')
	leadingZero := d.peek() == '0'
	start := d.pos
	ok := digits() && !(leadingZero && d.pos > start+1)
	if ok && d.accept('.') {
		ok = digits()
	}
	if ok && (d.accept('e') || d.accept('E')) {
		if !d.accept('+') {
			d.accept('-')
		}
		ok = digits()
	}
	if !ok {
		d.fail("a number that is not written as JSON writes numbers")
	}
}

func (d *Decoder) literal(s string) bool {
	if d.at(s) {
		d.pos += len(s)
		return true
	}
	return false
}

// at reports whether the text continues with s.
func (d *Decoder) at(s string) bool {
	return len(d.text)-d.pos >= len(s) && string(d.text[d.pos:d.pos+len(s)]) == s
}

func (d *Decoder) space() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\r', '\n':
			d.pos++
		default:
			return
		}
	}
}

func (d *Decoder) accept(c byte) bool {
	if d.err == nil && d.pos < len(d.text) && d.text[d.pos] == c {
		d.pos++
		return true
	}
	return false
}

func (d *Decoder) peek() byte {
	if d.pos < len(d.text) {
		return d.text[d.pos]
	}
	return 0
}

// found describes the text at the current position, for an error message.
func (d *Decoder) found() string {
	if d.pos >= len(d.text) {
		return "the end of the text"
	}
	switch c := d.text[d.pos]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '"':
		return "a string"
	case c == '-':
		return "a minus sign"
	case '0' <= c && c <= '9':
		return "a number"
	case d.at("true"), d.at("false"):
		return "a boolean"
	case d.at("null"):
		return "null"
	default:
		r, _ := utf8.DecodeRune(d.text[d.pos:])
		return fmt.Sprintf("%q", r)
	}
}
