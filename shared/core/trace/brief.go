package trace

import (
	"strings"
	"unicode/utf8"

	"example.com/raftsteps/shared/core/strict"
)

// mostRunes is the longest result of Brief, in runes.
const mostRunes = 160

// Brief shortens a line of JSON: quotes, braces and the id of a request are left
// out, and a command of the store reads as people write it.
//
//	{"replicate":{"seq":3,"command":{"op":"put","key":"x","value":"1"}}}
//	replicate seq=3 put x=1
//
// What is not JSON comes back as it is. A long text is cut.
func Brief(line string) string {
	d := strict.NewDecoder([]byte(line))
	v := readValue(&d)
	if d.End() != nil {
		return shorten(line)
	}
	return shorten(v.brief())
}

func shorten(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) <= mostRunes {
		return s
	}
	return string([]rune(s)[:mostRunes]) + "…"
}

// value is a JSON value that keeps the order of an object's fields.
type value struct {
	// text is a scalar, as people write it.
	text string

	// fields are those of an object, elements those of an array.
	fields   []field
	elements []value

	// kind is '{', '[' or 0.
	kind byte
}

type field struct {
	name  string
	value value
}

// readValue reads the next value, of whatever kind. The lab's engine in the
// browser contains this code, so it does without encoding/json.
func readValue(outer *strict.Decoder) (v value) {
	raw := outer.Raw()
	if outer.Failed() {
		return value{}
	}
	d := strict.NewDecoder(raw)
	switch v.kind = raw[0]; v.kind {
	case '{':
		d.Object(func(name []byte) {
			v.fields = append(v.fields, field{string(name), readValue(&d)})
		})
	case '[':
		d.Array(func() { v.elements = append(v.elements, readValue(&d)) })
	case '"':
		return value{text: bare(d.String())}
	default:
		return value{text: string(raw)}
	}
	if err := d.End(); err != nil {
		outer.Fail("%v", err)
	}
	return v
}

// bare drops the quotes of a string that can be read as one word without them.
func bare(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n\"'={}[]") && utf8.ValidString(s) {
		return s
	}
	return string(strict.AppendString(nil, s))
}

func (v value) brief() string {
	switch v.kind {
	case '{':
		if words, ok := v.command(); ok {
			return words
		}
		if words, ok := v.answer(); ok {
			return words
		}
		return v.words(nil)
	case '[':
		parts := make([]string, len(v.elements))
		for i, e := range v.elements {
			parts[i] = e.brief()
		}
		return "[" + strings.Join(parts, "; ") + "]"
	}
	return v.text
}

// words lists the fields but those to skip.
func (v value) words(skip []string) string {
	var parts []string
fields:
	for _, f := range v.fields {
		for _, s := range skip {
			if f.name == s {
				continue fields
			}
		}
		parts = append(parts, f.words())
	}
	return strings.Join(parts, " ")
}

// words is a field: an object under its name alone, a command without it.
func (f field) words() string {
	if f.value.kind != '{' {
		return f.name + "=" + f.value.brief()
	}
	if words, ok := f.value.command(); ok {
		return words
	}
	return strings.TrimRight(f.name+" "+f.value.brief(), " ")
}

func (v value) get(name string) (value, bool) {
	for _, f := range v.fields {
		if f.name == name {
			return f.value, true
		}
	}
	return value{}, false
}

// command puts a command or a request into words.
func (v value) command() (string, bool) {
	op, ok := v.get("op")
	if !ok || op.kind != 0 {
		return "", false
	}
	key, _ := v.get("key")
	text, _ := v.get("value")
	old, _ := v.get("old")
	words := op.text
	switch op.text {
	case "put", "create":
		words += " " + key.text + "=" + text.text
	case "append":
		words += " " + key.text + "+=" + text.text
	case "cas":
		words += " " + key.text + " " + old.text + "→" + text.text
	case "get", "delete":
		words += " " + key.text
	default:
		return strings.TrimRight(words+" "+v.words([]string{"op", "id"}), " "), true
	}
	if rest := v.words([]string{"op", "id", "key", "value", "old"}); rest != "" {
		words += " " + rest
	}
	return words, true
}

// answer puts a response into words.
func (v value) answer() (string, bool) {
	ok, found := v.get("ok")
	if !found {
		return "", false
	}
	if ok.text == "true" {
		return strings.TrimRight("ok "+v.words([]string{"ok", "id"}), " "), true
	}
	e, _ := v.get("error")
	code, _ := e.get("code")
	message, _ := e.get("message")
	definite, _ := e.get("definite")
	words := code.text
	if definite.text == "false" {
		words += " (it may have happened)"
	}
	if text := strings.Trim(message.text, `"`); text != "" {
		words += ": " + text
	}
	return words, true
}
