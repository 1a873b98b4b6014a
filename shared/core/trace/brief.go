package trace

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
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
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	v, err := readValue(d)
	if err != nil {
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
	kind json.Delim
}

type field struct {
	name  string
	value value
}

func readValue(d *json.Decoder) (value, error) {
	token, err := d.Token()
	if err != nil {
		return value{}, err
	}
	switch t := token.(type) {
	case json.Delim:
		return readNested(d, t)
	case string:
		return value{text: bare(t)}, nil
	case json.Number:
		return value{text: t.String()}, nil
	case bool:
		if t {
			return value{text: "true"}, nil
		}
		return value{text: "false"}, nil
	}
	return value{text: "null"}, nil
}

func readNested(d *json.Decoder, open json.Delim) (value, error) {
	v := value{kind: open}
	for d.More() {
		var name string
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return v, err
			}
			name, _ = token.(string)
		}
		inner, err := readValue(d)
		if err != nil {
			return v, err
		}
		if open == '{' {
			v.fields = append(v.fields, field{name, inner})
		} else {
			v.elements = append(v.elements, inner)
		}
	}
	_, err := d.Token()
	return v, err
}

// bare drops the quotes of a string that can be read as one word without them.
func bare(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\r\n\"'={}[]") && utf8.ValidString(s) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return s
	}
	return strings.TrimSuffix(b.String(), "\n")
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
