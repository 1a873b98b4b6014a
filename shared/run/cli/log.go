package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// parseLevel parses the name of a level.
func parseLevel(name string) (slog.Level, error) {
	var level slog.Level
	switch name {
	case "debug", "info", "warn", "error":
		return level, level.UnmarshalText([]byte(name))
	}
	return level, fmt.Errorf("%q is not a level; the levels are debug, info, warn and error", name)
}

// logHandler writes one short line per record:
//
//	15:04:05.123 INFO  n2 term 4 follower: a vote was refused to=n1 log=2@5
//
// node, term and role come first, as far as they are known. It is safe for
// concurrent use.
type logHandler struct {
	level slog.Level

	// hideNode omits the name of the server, because the supervisor adds it to
	// each line.
	hideNode bool

	// who has the attributes node, term and role; text is the other attributes
	// as text.
	who    who
	text   string
	groups string

	mu  *sync.Mutex
	out io.Writer
}

// who identifies the server that logs.
type who struct{ node, term, role string }

func newLogHandler(w io.Writer, level slog.Level, hideNode bool) *logHandler {
	return &logHandler{level: level, hideNode: hideNode, mu: new(sync.Mutex), out: w}
}

// Enabled reports whether a level is shown.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// WithAttrs returns a handler that adds attributes to every record.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.add(h.groups, a)
	}
	return &c
}

// WithGroup returns a handler that puts a name before the names of later
// attributes.
func (h *logHandler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.groups += name + "."
	}
	return &c
}

// Handle writes a record.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	c := *h
	r.Attrs(func(a slog.Attr) bool {
		c.add(h.groups, a)
		return true
	})
	var b strings.Builder
	if !r.Time.IsZero() {
		b.WriteString(r.Time.Format("15:04:05.000 "))
	}
	fmt.Fprintf(&b, "%-5s ", r.Level)
	b.WriteString(c.who.prefix(h.hideNode))
	b.WriteString(oneLine(r.Message))
	b.WriteString(c.text)
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.out, b.String())
	return err
}

// prefix returns "n2 term 4 follower: ", or the known parts of it.
func (w who) prefix(hideNode bool) string {
	var words []string
	if w.node != "" && !hideNode {
		words = append(words, w.node)
	}
	if w.term != "" && w.term != "0" {
		words = append(words, "term "+w.term)
	}
	if w.role != "" {
		words = append(words, w.role)
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + ": "
}

// add adds one attribute.
func (h *logHandler) add(group string, a slog.Attr) {
	value := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
		return
	case value.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range value.Group() {
			h.add(group, inner)
		}
		return
	}
	switch group + a.Key {
	case "node":
		h.who.node = oneLine(value.String())
	case "term":
		h.who.term = oneLine(value.String())
	case "role":
		h.who.role = oneLine(value.String())
	default:
		h.text += " " + group + a.Key + "=" + quoteIfNeeded(value.String())
	}
}

// quoteIfNeeded quotes a value that could be misread: a client may have chosen
// it.
func quoteIfNeeded(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7F || r == '\uFFFD' }) {
		return strconv.Quote(s)
	}
	return s
}

// logEvent returns a sink that logs what a server does, event by event, at
// level debug.
func logEvent(log *slog.Logger) trace.Sink {
	return func(e trace.Event) {
		if e.Kind == trace.State {
			return // the events before it describe the changes in words
		}
		attrs := []any{"term", e.Term, "role", e.Role}
		if e.Index != 0 {
			attrs = append(attrs, "index", e.Index)
		}
		log.Debug(eventText(e), attrs...)
	}
}

// eventText describes an event in words.
func eventText(e trace.Event) string {
	words := []string{string(e.Kind)}
	if e.From != 0 {
		words = append(words, node.Name(e.From)+" → "+node.Name(e.To))
	}
	if e.Message != "" {
		words = append(words, trace.Brief(e.Message))
	}
	if e.Reason != nil {
		words = append(words, e.Reason.Text)
		if e.Reason.Section != "" {
			words = append(words, "("+e.Reason.Section+")")
		}
	}
	if e.Text != "" {
		words = append(words, e.Text)
	}
	return strings.Join(words, " ")
}
