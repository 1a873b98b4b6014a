package cli

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/trace"
)

// logged returns the text that f logs, without the times.
func logged(level slog.Level, hideNode bool, f func(*slog.Logger)) string {
	var b bytes.Buffer
	f(slog.New(newLogHandler(&b, level, hideNode)))
	out := ""
	for line := range bytes.Lines(b.Bytes()) {
		out += string(line[len("15:04:05.000 "):])
	}
	return out
}

func TestLogLines(t *testing.T) {
	got := logged(slog.LevelInfo, false, func(log *slog.Logger) {
		log.Info("plain")
		log.Debug("not shown")
		log = log.With("node", "n2")
		log.Warn("known", "term", 4, "role", "follower", "to", "n1")
		log.With("role", "leader").Error("failed", "error", "a b", "key", `x"y`, "empty", "", "after", time.Second)
		log.WithGroup("disk").Info("grouped", "free", 7, slog.Group("a", "b", 1))
		log.Info("two\nlines", "term", uint64(0), "k", "a\x1b[31mb", slog.Attr{})
	})
	require.Equal(t, ""+
		"INFO  plain\n"+
		"WARN  n2 term 4 follower: known to=n1\n"+
		"ERROR n2 leader: failed error=\"a b\" key=\"x\\\"y\" empty=\"\" after=1s\n"+
		"INFO  n2: grouped disk.free=7 disk.a.b=1\n"+
		"INFO  n2: two lines k=\"a\\x1b[31mb\"\n", got)
}

func TestASupervisedLogLeavesTheNameOut(t *testing.T) {
	got := logged(slog.LevelInfo, true, func(log *slog.Logger) { log.With("node", "n2").Info("hello", "term", 3) })
	require.Equal(t, "INFO  term 3: hello\n", got)
}

func TestEventsInTheLog(t *testing.T) {
	got := logged(slog.LevelDebug, false, func(log *slog.Logger) {
		sink := logEvent(log.With("node", "n1"))
		sink(trace.Event{Kind: trace.Send, From: 1, To: 2, Term: 3, Role: "leader", Message: `{"replicate":{"seq":3}}`})
		sink(trace.Event{Kind: trace.Decide, Index: 8, Reason: &trace.Reason{Code: "x", Section: "§5.3", Text: "n1 refuses"}})
		sink(trace.Event{Kind: trace.Drop, From: 2, To: 1, Text: "cut"})
	})
	require.Equal(t, ""+
		"DEBUG n1 term 3 leader: send n1 → n2 replicate seq=3\n"+
		"DEBUG n1: decide n1 refuses (§5.3) index=8\n"+
		"DEBUG n1: drop n2 → n1 cut\n", got)
}
