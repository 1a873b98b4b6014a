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

// logs is what a story has shown of the servers' logs.
type logs struct {
	// shown is the last table in the story.
	shown string

	// listened is true if the events have a receiver.
	listened bool

	// explained is true once the story has explained how to read a table.
	explained bool
}

// maxColumns is how many entries of a log a table shows.
const mostColumns = 6

// tellLogs shows the logs of all servers if they have changed and at least two
// of them differ.
func (r *run) tellLogs() {
	if !r.logs.listened {
		return
	}
	rows, differ := r.readLogs()
	if !differ && r.logs.shown == "" {
		return
	}
	text := table(rows)
	if text == r.logs.shown {
		return
	}
	r.logs.shown = text
	if !differ {
		// Show once more that they agree, then no longer.
		r.logs.shown = ""
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

// logOf returns a server to inspect. For a server that is down, it returns a
// new one that was started from the disk.
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

// tail returns the part of a log that is compared with other logs.
func tail(r row) []string { return r.entries[len(r.entries)-min(len(r.entries), mostColumns):] }

// entry formats an entry for a table.
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

// table formats logs as a table, one row per server, one column per index.
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
