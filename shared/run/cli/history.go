package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of the shell's history.
const (
	// maxHistory is the number of lines that the arrow keys reach.
	maxHistory = 1000

	// maxHistoryLine is the longest line that is kept, in bytes.
	maxHistoryLine = 4 << 10

	// maxHistoryFile is the size of the file, in bytes, above which its oldest
	// lines are dropped.
	maxHistoryFile = 256 << 10
)

// history keeps the last lines, and saves them in a file for the next shell. It
// skips empty lines, repetitions, lines that begin with a blank, lines longer
// than maxHistoryLine, and lines with control characters or invalid UTF-8.
type history struct {
	// lines are the lines, the newest first.
	lines []string

	// path is the file, "" for none; size is its length.
	path string
	size int64
}

// historyPath returns the path of the history of all stages: a file in the
// user's state folder.
func historyPath() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	switch {
	case filepath.IsAbs(dir):
	case runtime.GOOS == "windows":
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", err
		}
	default:
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "raftsteps", "history"), nil
}

// openHistory reads the saved history. If it returns an error, the history works
// but is not saved.
func openHistory(path string) (*history, error) {
	h := &history{}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return h, err
	}
	text, err := readEnd(path, 2*maxHistoryFile)
	if err != nil {
		return h, err
	}
	h.path, h.size = path, int64(len(text))
	for line := range strings.Lines(text) {
		h.remember(strings.TrimSuffix(line, "\n"))
	}
	if err := h.shorten(); err != nil {
		h.path = ""
		return h, err
	}
	return h, nil
}

// readEnd returns the end of a file, of at most limit bytes; "" if the file does
// not exist.
func readEnd(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	b := make([]byte, min(info.Size(), limit))
	n, err := f.ReadAt(b, info.Size()-int64(len(b)))
	if n == len(b) {
		err = nil
	}
	return string(b[:n]), err
}

// Add adds a line, and saves it if the history has a file.
func (h *history) Add(line string) {
	if !h.remember(line) || h.path == "" {
		return
	}
	err := h.write(line)
	if err == nil {
		err = h.shorten()
	}
	if err != nil {
		h.path = "" // the history still works, but is not saved
	}
}

// remember adds a line and reports whether it was added.
func (h *history) remember(line string) bool {
	switch {
	case strings.TrimSpace(line) == "", strings.HasPrefix(line, " "), len(line) > maxHistoryLine:
		return false
	case len(h.lines) > 0 && h.lines[0] == line:
		return false
	case !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl):
		return false
	}
	h.lines = slices.Insert(h.lines, 0, line)
	h.lines = h.lines[:min(len(h.lines), maxHistory)]
	return true
}

// write appends a line to the file; several shells may do so at once.
func (h *history) write(line string) error {
	f, err := os.OpenFile(h.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	n, err := f.WriteString(line + "\n")
	h.size += int64(n)
	return errors.Join(err, f.Close())
}

// shorten rewrites a file that has become too long, with the newest lines up to
// half of the limit. A crash leaves the old or the new file.
func (h *history) shorten() error {
	if h.size <= maxHistoryFile {
		return nil
	}
	size, count := 0, 0
	for count < len(h.lines) && size+len(h.lines[count])+1 <= maxHistoryFile/2 {
		size += len(h.lines[count]) + 1
		count++
	}
	var b strings.Builder
	for _, line := range slices.Backward(h.lines[:count]) {
		b.WriteString(line + "\n")
	}
	temp, err := os.CreateTemp(filepath.Dir(h.path), "history.tmp")
	if err != nil {
		return err
	}
	_, err = temp.WriteString(b.String())
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), h.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	h.size = int64(size)
	return nil
}

// Len returns the number of lines.
func (h *history) Len() int { return len(h.lines) }

// At returns a line; 0 is the newest.
func (h *history) At(i int) string { return h.lines[i] }
