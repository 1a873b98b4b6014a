package raft

import (
	"fmt"
	"strings"
)

// The words of the trace: what the scripts show. An entry is its term@index and
// its command, as in "2@5 x".

func entryWords(e Entry) string {
	return strings.TrimSpace(fmt.Sprintf("%v %s%s", place(e), e.Command, kindWords(e)))
}

func entriesWords(entries []Entry) string {
	var words []string
	for _, e := range entries {
		words = append(words, entryWords(e))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// words tells what a server does with an output, in the order in which it does
// it. After limit records of the save the power fails.
func words(id ID, out Output, limit int) string {
	var does []string
	does = append(does, sendWords(out.Early)...)
	does = append(does, saveWords(out)...)
	switch {
	case limit == 0:
		does = append(does, "but the power fails, and nothing of that reaches the disk")
	case limit > 0:
		does = append(does, fmt.Sprintf("but the power fails, when the first %d of that are on the disk", limit))
	default:
		does = append(does, sendWords(out.Messages)...)
		if out.Committed != nil {
			does = append(does, "applies "+entriesWords(out.Committed))
		}
		does = append(does, stageWords(out)...)
	}
	if len(does) == 0 {
		return ""
	}
	return fmt.Sprintf("%v %s", id, strings.Join(does, ", "))
}

func saveWords(out Output) (does []string) {
	if out.State != nil {
		does = append(does, "saves "+stateWords(*out.State))
	}
	if out.Truncate != 0 {
		does = append(does, fmt.Sprintf("removes entries from %d on", out.Truncate))
	}
	if len(out.Append) > 0 {
		does = append(does, "saves "+entriesWords(out.Append))
	}
	return does
}

// sendWords puts messages of one kind into one phrase.
func sendWords(messages []Message) (does []string) {
	last := ""
	for _, m := range messages {
		if kind := kindOf(m); kind != last {
			does, last = append(does, fmt.Sprintf("sends %s to", kind)), kind
		}
		does[len(does)-1] += " " + m.To.String()
	}
	return does
}

// kindOf returns the name of a message's type.
func kindOf(m Message) string { return strings.TrimPrefix(fmt.Sprintf("%T", m.Body), "raft.") }

func describe(m Message) string {
	return fmt.Sprintf("%v → %v  %s, term %d: %s", m.From, m.To, kindOf(m), m.Term, bodyWords(m.Body))
}

func appendWords(m AppendEntries) string {
	entries := "no entries"
	if len(m.Entries) > 0 {
		entries = entriesWords(m.Entries)
	}
	return fmt.Sprintf("%s after %d@%d, commit %d", entries, m.PrevLogTerm, m.PrevLogIndex, m.LeaderCommit)
}

func replyWords(m AppendEntriesReply) string {
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
