package rules

import (
	"fmt"
	"strings"
)

// The words of the trace: what the scripts show. An entry is its term@index and
// its command, as in "2@5 x".

// EntryWords shows an entry.
func EntryWords[E Entry[E]](e E) string {
	return strings.TrimSpace(fmt.Sprintf("%v %s%s", e.Place(), e.Payload(), e.KindWords()))
}

// EntriesWords shows entries.
func EntriesWords[E Entry[E]](entries []E) string {
	var words []string
	for _, e := range entries {
		words = append(words, EntryWords(e))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// words tells what a server does with an output, in the order in which it does
// it. After limit records of the save the power fails.
func (c *Cluster[R, E, M, S]) words(id ID, out Output[E, M], limit int) string {
	var does []string
	does = append(does, sendWords[E](out.Early)...)
	does = append(does, saveWords(out)...)
	switch {
	case limit == 0:
		does = append(does, "but the power fails, and nothing of that reaches the disk")
	case limit > 0:
		does = append(does, fmt.Sprintf("but the power fails, when the first %d of that are on the disk", limit))
	default:
		does = append(does, sendWords[E](out.Messages)...)
		if out.Committed != nil {
			does = append(does, "applies "+EntriesWords(out.Committed))
		}
		if c.stage.Words != nil {
			does = append(does, c.stage.Words(out)...)
		}
	}
	if len(does) == 0 {
		return ""
	}
	return fmt.Sprintf("%v %s", id, strings.Join(does, ", "))
}

func saveWords[E Entry[E], M any](out Output[E, M]) (does []string) {
	if out.State != nil {
		does = append(does, "saves "+out.State.String())
	}
	if out.Rewrite {
		return []string{"puts its log in place of the old one"}
	}
	if out.Truncate != 0 {
		does = append(does, fmt.Sprintf("removes entries from %d on", out.Truncate))
	}
	if len(out.Append) > 0 {
		does = append(does, "saves "+EntriesWords(out.Append))
	}
	return does
}

// sendWords puts messages of one kind into one phrase.
func sendWords[E any, M Message[E]](messages []M) (does []string) {
	last := ""
	for _, m := range messages {
		head := m.Head()
		if kind := head.Kind(); kind != last {
			does, last = append(does, fmt.Sprintf("sends %s to", kind)), kind
		}
		does[len(does)-1] += " " + head.To.String()
	}
	return does
}

// Kind returns the name of a message's type.
func (h Head) Kind() string { return strings.TrimPrefix(fmt.Sprintf("%T", h.Body), "raft.") }

// Describe shows a message.
func Describe[E any, M Message[E]](m M) string {
	h := m.Head()
	return fmt.Sprintf("%v → %v  %s, term %d: %s", h.From, h.To, h.Kind(), h.Term, m.BodyWords())
}

// AppendWords shows an AppendEntries.
func AppendWords[E Entry[E]](m Append[E]) string {
	entries := "no entries"
	if len(m.Entries) > 0 {
		entries = EntriesWords(m.Entries)
	}
	return fmt.Sprintf("%s after %v, commit %d", entries, m.Prev, m.Commit)
}

func (m AppendReply) String() string {
	switch {
	case m.Success:
		return fmt.Sprintf("I have your entries up to %d", m.MatchIndex)
	case m.Refused == 0:
		return "your term is over"
	case m.ConflictTerm == 0:
		return fmt.Sprintf("I do not have your entry %d, my log ends at %d", m.Refused, m.ConflictIndex-1)
	}
	return fmt.Sprintf("I do not have your entry %d, mine is of term %d, which begins at %d", m.Refused, m.ConflictTerm, m.ConflictIndex)
}
