package steps

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"example.com/raftsteps/shared/book/linediff"
)

// Change is a file that differs between two stages.
type Change struct {
	// Path is the path of the file, relative to the stages' folders.
	Path string

	// Old and New are the file in the earlier and the later stage; nil if it
	// does not exist there.
	Old, New *File

	// Lines is the difference, or nil if one side is not text.
	Lines []linediff.Line
}

// Added reports whether the file is new.
func (c Change) Added() bool { return c.Old == nil }

// Removed reports whether the file was removed.
func (c Change) Removed() bool { return c.New == nil }

// file returns the side that exists, the later one if both do.
func (c Change) file() File {
	if c.New != nil {
		return *c.New
	}
	return *c.Old
}

// Count returns the numbers of added and removed lines.
func (c Change) Count() (added, removed int) {
	for _, l := range c.Lines {
		switch l.Op {
		case linediff.Insert:
			added++
		case linediff.Delete:
			removed++
		}
	}
	return added, removed
}

// Compare returns the files that differ between two stages, with the earlier
// one's import path replaced by the later one's. They are in reading order:
// from the inner ring outward, tests last.
func Compare(from, to Stage) ([]Change, error) {
	old, err := from.FilesAs(to)
	if err != nil {
		return nil, err
	}
	now, err := to.Files()
	if err != nil {
		return nil, err
	}
	paths := make(map[string]bool)
	for path := range old {
		paths[path] = true
	}
	for path := range now {
		paths[path] = true
	}
	var changes []Change
	for _, path := range slices.SortedFunc(maps.Keys(paths), byReading) {
		a, inOld := old[path]
		b, inNew := now[path]
		if inOld && inNew && bytes.Equal(a.Data, b.Data) {
			continue
		}
		c := Change{Path: path}
		if inOld {
			c.Old = &a
		}
		if inNew {
			c.New = &b
		}
		if !binary(a.Data) && !binary(b.Data) {
			c.Lines = linediff.Diff(lines(a.Data), lines(b.Data))
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// byReading orders paths from the rules outward, with tests after all code.
func byReading(a, b string) int {
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b))
}

func place(path string) int {
	f := File{Path: path}
	top, _, below := strings.Cut(path, "/")
	at := 5
	switch {
	case !below:
		at = 4
	case top == "naive":
		at = 0
	case top == "raft":
		at = 1
	case top == "server":
		at = 2
	case top == "client":
		at = 3
	}
	switch {
	case f.Testdata():
		return 30 + at
	case !strings.HasSuffix(path, ".go"):
		return 20 + at
	case f.Test():
		return 10 + at
	}
	return at
}

// binary reports whether data is not text.
func binary(data []byte) bool { return bytes.IndexByte(data, 0) >= 0 }

// noNewline is the mark of a unified diff for a last line without a newline.
const noNewline = "\n\\ No newline at end of file"

// lines splits a text into lines without their newlines. A last line without a
// newline gets a mark, so that it differs from one with a newline.
func lines(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	text, ended := strings.CutSuffix(string(data), "\n")
	out := strings.Split(text, "\n")
	if !ended {
		out[len(out)-1] += noNewline
	}
	return out
}

// printPlain prints the lines of two texts, with marks at those that differ.
func printPlain(w io.Writer, old, now []string) {
	for _, l := range linediff.Diff(old, now) {
		fmt.Fprintf(w, "%c %s\n", l.Op, l.Text)
	}
}
