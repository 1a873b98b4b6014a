package strict

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s to b as a JSON string. s should be valid UTF-8, which
// Decoder guarantees for whatever came over the wire; a byte that is not is
// written as U+FFFD, so that the output is valid JSON whatever happens.
//
// It escapes only what JSON requires, so a person can read the line, and a string
// grows at most by a factor of six.
func AppendString[S ~string | ~[]byte](b []byte, s S) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = utf8.AppendRune(b, utf8.RuneError)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// AppendComma appends the comma in front of a field of an object or an element
// of an array, unless it is the first: unless b ends with the bracket that opened
// the object or array.
func AppendComma(b []byte) []byte {
	if last := b[len(b)-1]; last == '{' || last == '[' {
		return b
	}
	return append(b, ',')
}

// AppendName appends the name of the next field of an object. The field's value
// must follow. The name must need no escapes.
func AppendName(b []byte, name string) []byte {
	b = append(AppendComma(b), '"')
	b = append(b, name...)
	return append(b, `":`...)
}

// AppendNumber appends the next field of an object, unless it is 0.
func AppendNumber[N ~uint64](b []byte, name string, v N) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(AppendName(b, name), uint64(v), 10)
}

// AppendFlag appends the next field of an object, unless it is false.
func AppendFlag(b []byte, name string, v bool) []byte {
	if !v {
		return b
	}
	return append(AppendName(b, name), "true"...)
}

// AppendText appends the next field of an object, unless it is empty.
func AppendText[S ~string | ~[]byte](b []byte, name string, s S) []byte {
	if len(s) == 0 {
		return b
	}
	return AppendString(AppendName(b, name), s)
}

// AppendBytes appends the next field of an object: as text, or, if s is not valid
// UTF-8, in base64 under the name with the suffix _b64. Decoder.Base64 reads that.
func AppendBytes(b []byte, name, s string) []byte {
	if utf8.ValidString(s) {
		return AppendString(AppendName(b, name), s)
	}
	b = append(AppendComma(b), '"')
	b = append(append(b, name...), `_b64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, []byte(s)), '"')
}

// AppendNumbers appends the next field of an object: an array of numbers.
func AppendNumbers[N ~uint64](b []byte, name string, list []N) []byte {
	return AppendArray(b, name, list, func(b []byte, v N) []byte { return strconv.AppendUint(b, uint64(v), 10) })
}

// AppendArray appends the next field of an object: an array, whose elements add
// appends.
func AppendArray[E any](b []byte, name string, list []E, add func(b []byte, v E) []byte) []byte {
	b = append(AppendName(b, name), '[')
	for _, v := range list {
		b = add(AppendComma(b), v)
	}
	return append(b, ']')
}
