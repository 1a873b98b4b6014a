package scenario

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
	"example.com/raftsteps/shared/lab/check"
)

// logs is what a story has told of the servers' logs.
type logs struct {
	// told is the table that was told last.
	told string

	// listened says that somebody listens.
	listened bool

	// explained says that the story has said how to read a table.
	explained bool
}

// mostColumns is how many entries of a log a table shows.
const mostColumns = 6

// tellLogs shows the logs of all servers if they have changed and are worth a
// look: while no two of them differ, one line could say it all.
func (r *run) tellLogs() {
	if !r.logs.listened {
		return
	}
	rows, differ := r.readLogs()
	if !differ && r.logs.told == "" {
		return
	}
	text := table(rows)
	if text == r.logs.told {
		return
	}
	r.logs.told = text
	if !differ {
		// Tell that they agree once more, and then no longer.
		r.logs.told = ""
	}
	if !r.logs.explained {
		text = "the logs (term:command; what stands before a bar is committed, as far as the server knows)\n" + text
		r.logs.explained = true
	}
	r.w.Emit(trace.Event{Kind: trace.Logs, Text: text})
}

// row is the log of one server.
type row struct {
	id      uint64
	role    string
	first   uint64
	entries []string
	commit  uint64
}

// last is the index of the last entry.
func (r row) last() uint64 { return r.first + uint64(len(r.entries)) - 1 }

// readLogs returns the logs of the servers that keep one and
// whether two of them differ.
func (r *run) readLogs() (rows []row, differ bool) {
	for _, id := range r.w.InUse() {
		in, down, ok := r.logOf(id)
		if !ok {
			continue
		}
		var s node.State
		in.Inspect(&s)
		one := row{id: id, first: s.SnapIndex + 1, commit: s.Commit}
		switch {
		case down:
			one.role = "down"
		case s.Role == node.Leader:
			one.role = fmt.Sprintf("leads %d", s.Term)
		}
		for i := max(s.SnapIndex+1, s.Last+1-min(s.Last, 2*mostColumns)); i <= s.Last; i++ {
			if len(one.entries) == 0 {
				one.first = i
			}
			one.entries = append(one.entries, entry(in.Entry(i)))
		}
		rows = append(rows, one)
	}
	for _, one := range rows {
		differ = differ || one.last() != rows[0].last() || !slices.Equal(tail(one), tail(rows[0]))
	}
	return rows, differ
}

// logOf returns a server to look into. In the place of one that is down stands
// another, made of what is on its disk.
func (r *run) logOf(id uint64) (in node.Inspector, down, ok bool) {
	if s := r.w.Server(id); s != nil {
		in, ok = s.(node.Inspector)
		return in, false, ok
	}
	twin, err := r.disks.recover(id)
	if err != nil {
		return nil, true, false
	}
	in, ok = twin.(node.Inspector)
	return in, true, ok
}

// tail is what two logs of the same length are compared by.
func tail(r row) []string { return r.entries[len(r.entries)-min(len(r.entries), mostColumns):] }

// entry is an entry in a table.
func entry(e node.Entry) string {
	what := "noop"
	switch c, _, _, ok := check.DecodeCommand(e.Data); {
	case e.Config != nil:
		what = "members"
	case ok:
		what = strings.ReplaceAll(trace.Brief(string(c.AppendJSON(nil))), "put ", "")
	case len(e.Data) > 0:
		what = trace.Brief(string(e.Data))
	}
	if cells := []rune(what); len(cells) > 12 {
		what = string(cells[:11]) + "…"
	}
	return fmt.Sprintf("%d:%s", e.Term, what)
}

// table puts logs side by side, one server a row, one index a column.
func table(rows []row) string {
	var end uint64
	for _, r := range rows {
		end = max(end, r.last())
	}
	begin := end - min(end, mostColumns) + 1
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 1, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "n%d\t%s\t", r.id, r.role)
		before := " "
		if begin > 1 {
			before = "…"
		}
		fmt.Fprintf(w, "%s\t", before)
		if r.commit < begin {
			fmt.Fprint(w, "| ")
		}
		for i := begin; i <= end; i++ {
			cell := ""
			if i >= r.first && i <= r.last() {
				cell = r.entries[i-r.first]
			} else if i < r.first {
				cell = "(snapshot)"
			}
			if i == r.commit {
				cell += " |"
			}
			fmt.Fprintf(w, "%s\t", cell)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	var lines []string
	for _, line := range strings.Split(strings.TrimRight(b.String(), "\n"), "\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return strings.Join(lines, "\n")
}
