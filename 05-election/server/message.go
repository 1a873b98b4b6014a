package server

import (
	"fmt"
	"strconv"

	"example.com/raftsteps/05-election/raft"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/strict"
)

// A message between servers is one line of JSON. An entry has the same format
// as in the journal, a field that is 0 or false is left out, and sender and
// receiver are those of the connection:
//
//	{"term":3,"appendEntries":{"prevLogIndex":4,"prevLogTerm":2,"leaderCommit":4,"entries":[{"index":5,"term":3,"command":{…}}]}}
//	{"term":3,"appendEntriesReply":{"success":true,"matchIndex":5}}

// part is one field of a message: its name, and the place of its value. Writing
// and reading share these lists, so that neither can forget a field.
type part struct {
	name    string
	number  *uint64
	flag    *bool
	entries *[]raft.Entry
}

// parts lists the fields of a message, given a pointer to it.
func parts(body any) []part {
	switch m := body.(type) {
	case *raft.AppendEntries:
		return []part{
			{name: "prevLogIndex", number: (*uint64)(&m.PrevLogIndex)},
			{name: "prevLogTerm", number: (*uint64)(&m.PrevLogTerm)},
			{name: "matched", flag: &m.Matched},
			{name: "leaderCommit", number: (*uint64)(&m.LeaderCommit)},
			{name: "round", number: &m.Round},
			{name: "entries", entries: &m.Entries},
		}
	case *raft.AppendEntriesReply:
		return []part{
			{name: "success", flag: &m.Success},
			{name: "matchIndex", number: (*uint64)(&m.MatchIndex)},
			{name: "refused", number: (*uint64)(&m.Refused)},
			{name: "conflictIndex", number: (*uint64)(&m.ConflictIndex)},
			{name: "conflictTerm", number: (*uint64)(&m.ConflictTerm)},
			{name: "round", number: &m.Round},
		}
	case *raft.RequestVote:
		return []part{
			{name: "lastLogIndex", number: (*uint64)(&m.LastLogIndex)},
			{name: "lastLogTerm", number: (*uint64)(&m.LastLogTerm)},
		}
	case *raft.RequestVoteReply:
		return []part{{name: "granted", flag: &m.Granted}}
	case *raft.ReadIndex:
		return []part{{name: "id", number: (*uint64)(&m.ID)}}
	case *raft.ReadIndexReply:
		return []part{
			{name: "id", number: (*uint64)(&m.ID)},
			{name: "index", number: (*uint64)(&m.Index)},
		}
	default:
		panic(fmt.Sprintf("server: %T is not a message", body))
	}
}

// appendMessage appends a message to b.
func appendMessage(b []byte, m raft.Message) []byte {
	b = append(b, `{"term":`...)
	b = strconv.AppendUint(b, uint64(m.Term), 10)
	switch body := m.Body.(type) {
	case raft.AppendEntries:
		b = appendBody(b, "appendEntries", parts(&body))
	case raft.AppendEntriesReply:
		b = appendBody(b, "appendEntriesReply", parts(&body))
	case raft.RequestVote:
		b = appendBody(b, "requestVote", parts(&body))
	case raft.RequestVoteReply:
		b = appendBody(b, "requestVoteReply", parts(&body))
	case raft.ReadIndex:
		b = appendBody(b, "readIndex", parts(&body))
	case raft.ReadIndexReply:
		b = appendBody(b, "readIndexReply", parts(&body))
	}
	return append(b, '}')
}

// decodeBody reads the body of that name, or returns nil if there is none.
func decodeBody(d *strict.Decoder, name []byte) raft.Body {
	switch string(name) {
	case "appendEntries":
		return decode[raft.AppendEntries](d)
	case "appendEntriesReply":
		return decode[raft.AppendEntriesReply](d)
	case "requestVote":
		return decode[raft.RequestVote](d)
	case "requestVoteReply":
		return decode[raft.RequestVoteReply](d)
	case "readIndex":
		return decode[raft.ReadIndex](d)
	case "readIndexReply":
		return decode[raft.ReadIndexReply](d)
	}
	d.Unknown()
	return nil
}

// decodeMessage reads what appendMessage wrote, and refuses what a correct
// server would not send: the rules rely on it.
func decodeMessage(line []byte) (raft.Message, error) {
	var m raft.Message
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch {
		case string(field) == "term":
			m.Term = raft.Term(decodeNumber(&d))
		case m.Body != nil:
			d.Fail("a second body")
		default:
			m.Body = decodeBody(&d, field)
		}
	})
	err := d.End()
	if err == nil {
		err = check(m)
	}
	if err != nil {
		return raft.Message{}, fmt.Errorf("a message: %w", err)
	}
	return m, nil
}

// check says what is wrong with a message that is well formed JSON.
func check(m raft.Message) error {
	switch body := m.Body.(type) {
	case nil:
		return fmt.Errorf("it has no body")
	case raft.AppendEntries:
		return checkEntries(m.Term, body)
	case raft.AppendEntriesReply:
		return checkReply(m.Term, body)
	case raft.RequestVote:
		return checkPosition(m.Term, raft.Position{Index: body.LastLogIndex, Term: body.LastLogTerm})
	}
	return nil
}

// checkPosition checks the position of an entry that the sender has: terms begin
// with 1, and none is above the sender's own.
func checkPosition(term raft.Term, p raft.Position) error {
	if (p.Index == 0) != (p.Term == 0) || p.Term > term {
		return fmt.Errorf("there is no entry %v in term %d", p, term)
	}
	return nil
}

func checkEntries(term raft.Term, a raft.AppendEntries) error {
	if term == 0 {
		return fmt.Errorf("nobody leads term 0")
	}
	if err := checkPosition(term, raft.Position{Index: a.PrevLogIndex, Term: a.PrevLogTerm}); err != nil {
		return err
	}
	last := a.PrevLogTerm
	for i, e := range a.Entries {
		if want := a.PrevLogIndex + raft.Index(i) + 1; e.Index != want {
			return fmt.Errorf("entry %d is in the place of entry %d", e.Index, want)
		}
		if e.Term < last || e.Term > term || e.Term == 0 {
			return fmt.Errorf("entry %d of term %d cannot follow one of term %d in a message of term %d", e.Index, e.Term, last, term)
		}
		last = e.Term
	}
	return nil
}

func checkReply(term raft.Term, m raft.AppendEntriesReply) error {
	switch {
	case m.Success:
		return nil
	case m.Refused > 0 && m.ConflictIndex == 0:
		return fmt.Errorf("it refuses without a hint")
	case m.ConflictIndex > m.Refused || m.ConflictTerm > term:
		return fmt.Errorf("its hint is after the entry that it refuses")
	}
	return nil
}

func decode[T raft.Body](d *strict.Decoder) T {
	var m T
	list := parts(&m)
	d.Object(func(field []byte) {
		for _, p := range list {
			if string(field) == p.name {
				p.decode(d)
				return
			}
		}
		d.Unknown()
	})
	return m
}

func (p part) decode(d *strict.Decoder) {
	switch {
	case p.number != nil:
		*p.number = decodeNumber(d)
	case p.flag != nil:
		*p.flag = d.Bool()
	default:
		d.Array(func() {
			e, err := fromJournal(journal.DecodeEntry(d))
			if err != nil {
				d.Fail("%v", err)
			}
			*p.entries = append(*p.entries, e)
		})
	}
}

// maxNumber is the highest number in a message. So adding to one does not
// overflow.
const maxNumber = 1<<63 - 1

func decodeNumber(d *strict.Decoder) uint64 {
	v := d.Uint()
	if v > maxNumber {
		d.Fail("%d is out of range: at most %d is possible", v, uint64(maxNumber))
	}
	return v
}

func appendBody(b []byte, name string, list []part) []byte {
	b = append(strict.AppendName(b, name), '{')
	for _, p := range list {
		switch {
		case p.number != nil:
			b = strict.AppendNumber(b, p.name, *p.number)
		case p.flag != nil && *p.flag:
			b = strict.AppendFlag(b, p.name, true)
		case p.entries != nil && len(*p.entries) > 0:
			b = appendEntries(strict.AppendName(b, p.name), *p.entries)
		}
	}
	return append(b, '}')
}

func appendEntries(b []byte, entries []raft.Entry) []byte {
	b = append(b, '[')
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = toJournal(e).AppendJSON(b)
	}
	return append(b, ']')
}

func toState(s raft.State) journal.State {
	return journal.State{Term: uint64(s.CurrentTerm), Vote: uint64(s.VotedFor)}
}

func toJournal(e raft.Entry) journal.Entry {
	return journal.Entry{Index: uint64(e.Index), Term: uint64(e.Term), Kind: string(e.Kind), Command: e.Command}
}

func fromJournal(j journal.Entry) (raft.Entry, error) {
	e := raft.Entry{Index: raft.Index(j.Index), Term: raft.Term(j.Term), Kind: raft.Kind(j.Kind), Command: j.Command}
	switch e.Kind {
	case raft.Command:
		return e, nil
	case raft.NoOp:
		if e.Command != nil {
			return e, fmt.Errorf("entry %d: a %s with a command", e.Index, e.Kind)
		}
		return e, nil
	default:
		return e, fmt.Errorf("entry %d is of the kind %q, which this program does not know", e.Index, e.Kind)
	}
}
