package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestShellFromAPipe(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	got := runWith(t, s, strings.Join([]string{
		`put greeting "hello world"`,
		``,
		`# a comment`,
		`get greeting`,
		`get none`,
		`put "open`,
		`dance`,
		`put x -`,
		`get greeting -o json`,
		`cas greeting "hello world" bye   # done`,
		`get greeting`,
	}, "\n"), "shell", "--endpoints", live)
	require.Equal(t, "ok\nhello world\n{\"ok\":true,\"value\":\"hello world\"}\nok\nbye\n", got.out)
	require.Equal(t, strings.Join([]string{
		`error: the key has no value (not_found)`,
		`error: a quote is not closed`,
		`error: there is no command "dance"; see "help"`,
		`error: the value - means standard input, which the shell uses for its commands; write the value itself`,
		``,
	}, "\n"), got.errors)
	require.Equal(t, 2, got.code, "the exit code must be that of the last line that failed")
}

func TestShellEnds(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	for _, word := range []string{"exit", "quit"} {
		got := runWith(t, s, "put x 1\n"+word+"\nget none\n", "shell", "--endpoints", live)
		require.Equal(t, result{0, "ok\n", ""}, got)
	}
	require.Equal(t, result{0, "", ""}, runWith(t, s, "", "shell", "--endpoints", live))
	require.Equal(t, 3, runWith(t, s, "get none\nput x 1\n", "shell", "--endpoints", live).code)
	got := runWith(t, s, "put x "+strings.Repeat("y", maxShellLine), "shell", "--endpoints", live)
	require.Equal(t, 2, got.code)
	require.Contains(t, got.errors, "token too long")
}

func TestShellPassesItsFlagsOn(t *testing.T) {
	s := stages["91-single"]
	live := startSingle(t, s)
	got := runWith(t, s, "put x 1\nget x -o text\n", "shell", "--endpoints", live, "-o", "json")
	require.Equal(t, result{0, "{\"ok\":true}\n1\n", ""}, got)
}

func TestShellAsksAnotherServerWhenTold(t *testing.T) {
	s := stages["91-single"]
	one, two := startSingle(t, s), startSingle(t, s)
	got := runWith(t, s, "put x 1\nput x 2 --endpoints "+two+"\nget x\nget x --endpoints "+two+"\n", "shell", "--endpoints", one)
	require.Equal(t, result{0, "ok\nok\n1\n2\n", ""}, got)
}

func TestShellHasOnlyClientAndFaultCommands(t *testing.T) {
	s := stages["92-cluster"]
	t.Chdir(t.TempDir())
	got := runWith(t, s, "help\n", "shell")
	require.Zero(t, got.code)
	for _, word := range []string{"get", "put", "create", "append", "cas", "delete", "status", "kill", "heal"} {
		require.Regexp(t, `(?m)^  `+word+` `, got.out)
	}
	for _, word := range []string{"cluster", "node", "shell", "bench", "demo", "completion"} {
		require.NotRegexp(t, `(?m)^  `+word+` `, got.out)
	}
	got = runWith(t, s, "help put\n", "shell")
	require.Contains(t, got.out, "\n  put KEY VALUE [flags]\n")
}

func TestShellEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errors buffer
	code := Run(ctx, stages["91-single"], []string{"shell"}, strings.NewReader("get x\n"), &out, &errors)
	require.Equal(t, exitInterrupted, code)
	require.Equal(t, "error: interrupted\n", errors.String())
}

func TestCtrlCOnTheKeyboardEmptiesTheLine(t *testing.T) {
	k := &keyboard{in: strings.NewReader("ab\x03cd\n")}
	var got []byte
	for b := make([]byte, 2); ; {
		n, err := k.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			break
		}
	}
	require.Equal(t, "ab\x05\x15\rcd\r", string(got), "a line feed must work like the Enter key")
}

func TestHistory(t *testing.T) {
	h := &history{}
	for _, line := range []string{"get x", " ", "get x", "get y", ""} {
		h.Add(line)
	}
	require.Equal(t, 2, h.Len())
	require.Equal(t, "get y", h.At(0))
	require.Equal(t, "get x", h.At(1))
	for i := range 2 * maxHistory {
		h.Add(strings.Repeat("x", i%7+1))
	}
	require.Equal(t, maxHistory, h.Len())
}

// The next shell has the lines of the previous one. Only the user can read the
// file, and its size is bounded.
func TestHistoryIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "history")
	h, err := openHistory(path)
	require.NoError(t, err)
	other, err := openHistory(path)
	require.NoError(t, err)
	for _, line := range []string{"get x", " put secret 1", "get y", "get y", strings.Repeat("x", maxHistoryLine+1), "a\x1b[2Jb"} {
		h.Add(line)
	}
	other.Add("get z")
	h, err = openHistory(path)
	require.NoError(t, err)
	require.Equal(t, []string{"get z", "get y", "get x"}, h.lines)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	for i := range 1000 {
		h.Add(fmt.Sprintf("put %d %s", i, strings.Repeat("v", 1000)))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(maxHistoryFile+maxHistoryLine))
	}
	h, err = openHistory(path)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(h.At(0), "put 999 "))
	require.NotContains(t, h.lines, "get x")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)

	// If the file cannot be written, the history is lost, but the shell works.
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	h, err = openHistory(path)
	require.Error(t, err)
	h.Add("get x")
	require.Equal(t, []string{"get x"}, h.lines)
}

func TestTabCompletes(t *testing.T) {
	t.Chdir(t.TempDir())
	s := &shell{app: &app{stage: stages["93-log"]}}
	for _, tt := range []struct {
		line string
		want string
	}{
		{"del", "delete "},
		{"re", "res"},
		{"res", "res"},
		{"rest", "restart "},
		{"ex", "exit "},
		{"get d", ""},
		{"zzz", ""},
		{"kill l", "kill leader "},
		{"kill 1 n", "kill 1 n"},
		{"log a", "log all "},
		{"log --fr", "log --from "},
		{"help sta", "help status "},
		{"status -o j", "status -o json "},
		{`put "a b`, ""},
		{`put "st`, ""},
		{"# st", ""},
	} {
		line, pos, ok := s.complete(tt.line, len(tt.line), '\t')
		require.Equal(t, tt.want, line, tt.line)
		require.Equal(t, tt.want != "", ok)
		require.Equal(t, len(tt.want), pos)
	}
	line, pos, ok := s.complete("kill l --data x", 6, '\t')
	require.True(t, ok)
	require.Equal(t, "kill leader  --data x", line)
	require.Equal(t, len("kill leader "), pos)
	_, _, ok = s.complete("del", 3, 'x')
	require.False(t, ok)
}

// ^C ends a shell that waits for input from an open pipe.
func TestShellOnAnOpenPipeEndsWithTheContext(t *testing.T) {
	s := stages["91-single"]
	in, typed := io.Pipe()
	defer typed.Close()
	b := startWith(t, s, in, "shell", "--endpoints", startSingle(t, s))
	_, err := io.WriteString(typed, "put x 1\n")
	require.NoError(t, err)
	b.shows("ok\n")
	require.Equal(t, exitInterrupted, b.stop())
	require.Contains(t, b.errors.String(), "error: interrupted")
}
