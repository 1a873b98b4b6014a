package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

// value reads any value through the decoder's own methods, as the same Go
// values that encoding/json makes with UseNumber.
func value(d *Decoder) any {
	d.space()
	switch c := d.peek(); {
	case c == '{':
		m := map[string]any{}
		d.Object(func(field []byte) {
			name := string(field)
			m[name] = value(d)
		})
		return m
	case c == '[':
		a := []any{}
		d.Array(func() { a = append(a, value(d)) })
		return a
	case c == '"':
		return d.String()
	case c == 't', c == 'f':
		return d.Bool()
	case c == 'n':
		d.Raw()
		return nil
	default:
		return json.Number(d.Raw())
	}
}

func decode(text string) (any, error) {
	d := NewDecoder([]byte(text))
	v := value(&d)
	return v, d.End()
}

func decodeWithEncodingJSON(text string) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if !json.Valid([]byte(text)) {
		return nil, errors.New("something follows")
	}
	return v, nil
}

func TestAcceptedText(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `""`, `0`, `-0`, `1`, `-12.5e+3`, `1E9`, `true`, `false`, `null`,
		" \t\r\n{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \n",
		`{"a":{"b":{"c":[[[[1]]]]}}}`,
		`"\"\\\/\b\f\n\r\t\u0000\u00e9\u20AC\ud83d\ude00"`,
		`"é€😀"`, `"\uFFFD"`, `"�"`, `"/"`,
		`18446744073709551615`, `1234567890123456789012345678901234567890`,
	} {
		have, err := decode(text)
		require.NoError(t, err, text)
		want, err := decodeWithEncodingJSON(text)
		require.NoError(t, err, text)
		require.Empty(t, cmp.Diff(want, have), text)
	}
}

func TestRefusedText(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1)
	for _, c := range []struct{ text, want string }{
		{``, `want a JSON value, found the end of the text (at byte 0)`},
		{`  `, `want a JSON value, found the end of the text (at byte 2)`},
		{`nonsense`, `want a JSON value, found 'n' (at byte 0)`},
		{`truth`, `want true or false, found 't' (at byte 0)`},
		{`{`, `want a field name in double quotes, found the end of the text (at byte 1)`},
		{`{a:1}`, `want a field name in double quotes, found 'a' (at byte 1)`},
		{`{1:1}`, `want a field name in double quotes, found a number (at byte 1)`},
		{`{"a"}`, `field "a": want ":", found '}' (at byte 4)`},
		{`{"a":}`, `field "a": want a JSON value, found '}' (at byte 5)`},
		{`{"a":1,}`, `want a field name in double quotes, found '}' (at byte 7)`},
		{`{"a":1 "b":2}`, `field "a": want "," or "}", found a string (at byte 7)`},
		{`{"a":1]`, `field "a": want "," or "}", found ']' (at byte 6)`},
		{`{"a":1,"a":2}`, `field "a": this field appears twice (at byte 10)`},
		{`{"a":1,"\u0061":2}`, `field "a": this field appears twice (at byte 15)`},
		{`[1,2`, `want "," or "]", found the end of the text (at byte 4)`},
		{`[1,]`, `want a JSON value, found ']' (at byte 3)`},
		{`[,1]`, `want a JSON value, found ',' (at byte 1)`},
		{deep, `nested deeper than 8 (at byte 9)`},
		{strings.Repeat("[", 1000), `nested deeper than 8 (at byte 9)`},
		{strings.Repeat(`{"a":`, 1000), `field "a": nested deeper than 8 (at byte 41)`},
		{`1 2`, `something follows the end of the JSON value (at byte 2)`},
		{`{} {}`, `something follows the end of the JSON value (at byte 3)`},
		{`{}x`, `something follows the end of the JSON value (at byte 2)`},
		{`01`, `a number that is not written as JSON writes numbers (at byte 2)`},
		{`1.`, `a number that is not written as JSON writes numbers (at byte 2)`},
		{`-`, `a number that is not written as JSON writes numbers (at byte 1)`},
		{`1e`, `a number that is not written as JSON writes numbers (at byte 2)`},
		{`.5`, `want a JSON value, found '.' (at byte 0)`},
		{`"abc`, `a string without an end (at byte 4)`},
		{`"abc\`, `a string without an end (at byte 4)`},
		{`"a\x"`, `unknown escape in a string (at byte 2)`},
		{`"a\u12"`, `\u without four hexadecimal digits (at byte 2)`},
		{"\"a\nb\"", `control character U+000A in a string (write \u000a) (at byte 2)`},
		{"\"a\\n\x00\"", `control character U+0000 in a string (write \u0000) (at byte 4)`},
		{`"\ud800"`, `\ud800 is half of a surrogate pair, without its other half (at byte 1)`},
		{`"\udc00\ud800"`, `\udc00 is half of a surrogate pair, without its other half (at byte 1)`},
		{`"\ud800\u0041"`, `\ud800 is half of a surrogate pair, without its other half (at byte 1)`},
		{"\"k\xff\"", `not valid UTF-8 (at byte 2)`},
		{"\"\xed\xa0\x80\"", `not valid UTF-8 (at byte 1)`},
		{"{\"k\xc3\":1}", `not valid UTF-8 (at byte 3)`},
	} {
		_, err := decode(c.text)
		require.EqualError(t, err, c.want, "%.60q", c.text)
	}
}

// A value that will be inside another one may nest less deep.
func TestInside(t *testing.T) {
	for _, c := range []struct {
		text   string
		inside int
		want   string
	}{
		{`[[{"a":[1]}]]`, 4, ""},
		{`[[{"a":[[1]]}]]`, 4, `field "a": nested deeper than 4 (at byte 9)`},
		{`1`, MaxDepth, ""},
		{`[]`, MaxDepth, `nested deeper than 0 (at byte 1)`},
	} {
		d := NewDecoder([]byte(c.text))
		d.Inside(c.inside)
		d.Raw()
		if c.want == "" {
			require.NoError(t, d.End(), c.text)
			continue
		}
		require.EqualError(t, d.End(), c.want, c.text)
	}
}

func TestTooManyFields(t *testing.T) {
	object := func(fields int) string {
		var parts []string
		for i := range fields {
			parts = append(parts, fmt.Sprintf(`"f%d":%d`, i, i))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	_, err := decode(object(maxFields))
	require.NoError(t, err)
	_, err = decode(object(maxFields + 1))
	require.ErrorContains(t, err, "an object with more than 32 fields")
}

// The message about a field with a very long name is short.
func TestErrorNamesAFieldShortly(t *testing.T) {
	name := strings.Repeat("é", 10_000)
	d := NewDecoder([]byte(`{"a` + name + `":1}`))
	d.Object(func([]byte) { d.Unknown() })
	err := d.End()
	require.ErrorContains(t, err, "unknown field")
	require.Less(t, len(err.Error()), 200)
	require.True(t, utf8.ValidString(err.Error()))
}

// The first error is kept, and the decoder reads nothing after it.
func TestTheFirstErrorIsKept(t *testing.T) {
	d := NewDecoder([]byte(`{"a":x,"b":"c"}`))
	var fields []string
	d.Object(func(field []byte) {
		fields = append(fields, string(field))
		require.Zero(t, d.Uint())
	})
	require.Equal(t, []string{"a"}, fields)
	require.True(t, d.Failed())
	require.Empty(t, d.String())
	require.False(t, d.Bool())
	require.Nil(t, d.Raw())
	d.Fail("a second error")
	require.EqualError(t, d.End(), `field "a": want a whole number, found 'x' (at byte 5)`)
}

// A field that is not read is not skipped silently.
func TestFieldMustBeRead(t *testing.T) {
	d := NewDecoder([]byte(`{"a":1}`))
	d.Object(func([]byte) {})
	require.ErrorContains(t, d.End(), `field "a": want "," or "}"`)
}

func TestUint(t *testing.T) {
	for _, c := range []struct {
		text, err string
		want      uint64
	}{
		{text: `0`},
		{text: `7`, want: 7},
		{text: ` 42 `, want: 42},
		{text: `9007199254740993`, want: 9007199254740993},
		{text: `18446744073709551615`, want: math.MaxUint64},
		{text: `18446744073709551616`, err: `a number above 2^64-1 (at byte 19)`},
		{text: `99999999999999999999999`, err: `a number above 2^64-1 (at byte 19)`},
		{text: `-1`, err: `want a whole number, found a minus sign (at byte 0)`},
		{text: `1.0`, err: `want a whole number, found a fraction or an exponent (at byte 1)`},
		{text: `1e3`, err: `want a whole number, found a fraction or an exponent (at byte 1)`},
		{text: `007`, err: `a number with a leading zero (at byte 3)`},
		{text: `"7"`, err: `want a whole number, found a string (at byte 0)`},
		{text: `null`, err: `want a whole number, found null (at byte 0)`},
		{text: `true`, err: `want a whole number, found a boolean (at byte 0)`},
		{text: `7x`, err: `something follows the end of the JSON value (at byte 1)`},
	} {
		d := NewDecoder([]byte(c.text))
		have, err := d.Uint(), d.End()
		if c.err != "" {
			require.EqualError(t, err, c.err, c.text)
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, have, c.text)
	}
}

// Keys that differ in the letters' case are two keys: encoding/json would take
// one for the other.
func TestFieldNamesAreExact(t *testing.T) {
	v, err := decode(`{"key":1,"KEY":2}`)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"key": json.Number("1"), "KEY": json.Number("2")}, v)
}

func TestDecoderAllocatesNothing(t *testing.T) {
	line := []byte(`{"id":7,"op":"put","key":"some key","value":"some value"}`)
	n := testing.AllocsPerRun(100, func() {
		d := NewDecoder(line)
		d.Object(func(field []byte) {
			switch string(field) {
			case "id":
				d.Uint()
			default:
				d.Bytes()
			}
		})
		if d.End() != nil {
			panic("the line is well formed")
		}
	})
	require.Zero(t, n)
}

func TestAppendString(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `""`},
		{`abc`, `"abc"`},
		{`"\/`, `"\"\\/"`},
		{"\n\r\t\b\x00\x1f", `"\n\r\t\u0008\u0000\u001f"`},
		{"<>&é€😀\u2028", "\"<>&é€😀\u2028\""},
		{"a\xffb\xc3", "\"a\uFFFDb\uFFFD\""},
		{"\uFFFD", "\"\uFFFD\""},
	} {
		require.Equal(t, c.want, string(AppendString(nil, c.text)), "%q", c.text)
		require.Equal(t, c.want, string(AppendString(nil, []byte(c.text))), "%q", c.text)
	}
}

// reasons are the reasons for which the decoder may refuse a text that
// encoding/json accepts.
var reasons = []string{
	"not valid UTF-8",
	"appears twice",
	"nested deeper than",
	"more than 32 fields",
	"half of a surrogate pair",
}

// If the decoder accepts a text, encoding/json accepts it too and reads the same
// value. If only the decoder refuses a text, it has one of the known reasons.
func FuzzDecoder(f *testing.F) {
	f.Add(`{"id":7,"op":"put","key":"x","value":"1"}`)
	f.Add(`{"a":[1,-2.5e3,true,false,null,"\ud83d\ude00"],"b":{"c":{}}}`)
	f.Add("\"\\ud800\xff\"")
	f.Add(strings.Repeat("[", 20))
	f.Fuzz(func(t *testing.T, text string) {
		have, err := decode(text)
		want, other := decodeWithEncodingJSON(text)
		if err == nil {
			require.NoError(t, other, "encoding/json refuses a text that the decoder accepted")
			require.Empty(t, cmp.Diff(want, have))
			return
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.LessOrEqual(t, e.Offset, len(text))
		require.True(t, utf8.ValidString(e.Error()), "%q", e.Error())
		require.Less(t, len(e.Error()), 300)
		if other == nil {
			known := false
			for _, r := range reasons {
				known = known || strings.Contains(err.Error(), r)
			}
			require.True(t, known, "refused for no good reason: %v", err)
		}
	})
}

func FuzzUint(f *testing.F) {
	f.Add("0")
	f.Add("18446744073709551615")
	f.Add("18446744073709551616")
	f.Add("01")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, text string) {
		d := NewDecoder([]byte(text))
		have, err := d.Uint(), d.End()
		trimmed := strings.Trim(text, " \t\r\n")
		want, other := strconv.ParseUint(trimmed, 10, 64)
		if len(trimmed) > 1 && trimmed[0] == '0' {
			other = errors.New("a leading zero")
		}
		require.Equal(t, other == nil, err == nil, "%v, but %v", err, other)
		if err == nil {
			require.Equal(t, want, have)
		}
	})
}

// AppendString writes JSON that this package and encoding/json decode to the same
// string.
func FuzzAppendString(f *testing.F) {
	f.Add("abc\"\\\n\x00\x1f/é€😀\u2028\uFFFD")
	f.Add("\xff\xc3\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendString(nil, s)
		require.LessOrEqual(t, len(b), 2+6*len(s))
		var want string
		require.NoError(t, json.Unmarshal(b, &want))
		d := NewDecoder(b)
		require.Equal(t, want, d.String())
		require.NoError(t, d.End())
		if utf8.ValidString(s) {
			require.Equal(t, s, want)
		}
	})
}

// Any bytes can be written and read again: as text, or in base64.
func FuzzAppendBytes(f *testing.F) {
	f.Add("text")
	f.Add("\xff\xc3\xed\xa0\x80\x00")
	f.Fuzz(func(t *testing.T, s string) {
		b := append(AppendBytes([]byte{'{'}, "value", s), '}')
		var name, got string
		d := NewDecoder(b)
		d.Object(func(field []byte) {
			if name = string(field); name == "value" {
				got = d.String()
			} else {
				got = d.Base64()
			}
		})
		require.NoError(t, d.End())
		require.Equal(t, s, got)
		want := "value"
		if !utf8.ValidString(s) {
			want = "value_b64"
		}
		require.Equal(t, want, name)
	})
}

func TestBase64IsStrict(t *testing.T) {
	for _, text := range []string{`"/w"`, `"/w="`, `"/x=="`, `"_w=="`, `" /w=="`, `"/w==\n"`, `1`, `null`} {
		d := NewDecoder([]byte(text))
		d.Base64()
		require.Error(t, d.End(), text)
	}
}

func BenchmarkDecoder(b *testing.B) {
	line := []byte(`{"id":123456,"op":"put","key":"k1234","value":"` + strings.Repeat("abcdefgh", 8) + `"}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		d := NewDecoder(line)
		d.Object(func(field []byte) {
			switch string(field) {
			case "id":
				d.Uint()
			default:
				d.Bytes()
			}
		})
		if d.End() != nil {
			b.Fatal("the line is well formed")
		}
	}
}
