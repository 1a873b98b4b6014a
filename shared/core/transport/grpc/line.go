package grpc

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"example.com/raftsteps/shared/core/disk"
	"example.com/raftsteps/shared/core/journal"
	"example.com/raftsteps/shared/core/strict"
	"example.com/raftsteps/shared/core/transport/grpc/raftpb"
)

// A server writes each message as one line of JSON, and the host puts the disks of
// the two servers before it:
//
//	005eed0fa11d15c5 7d0c6f1be2a95318 {"term":3,"appendEntriesReply":{"success":true,"matchIndex":5}}
//
// The names of the fields are the same in the line and in raft.proto, so they say
// the same. FromLine and AppendLine convert one into the other, without loss.

// FromLine returns the message that a line says. It refuses a line that AppendLine
// would not write exactly so: what the receiver gets is then never something else
// than what was sent. The message shares memory with line.
func FromLine(line []byte) (*raftpb.Message, error) {
	m := &raftpb.Message{}
	if err := fromLine(m, line); err != nil {
		return nil, fmt.Errorf("a message that raft.proto cannot express: %w", err)
	}
	again, err := AppendLine(make([]byte, 0, len(line)), m)
	if err == nil && !bytes.Equal(again, line) {
		err = errors.New("it is not written as a server writes it")
	}
	if err != nil {
		return nil, fmt.Errorf("a message that raft.proto cannot express: %w", err)
	}
	return m, nil
}

func fromLine(m *raftpb.Message, line []byte) error {
	if len(line) > 0 && line[0] != '{' {
		var err error
		if m.Disks, line, err = cutDisks(line); err != nil {
			return err
		}
	}
	d := strict.NewDecoder(line)
	d.Object(func(field []byte) {
		switch {
		case string(field) == "term":
			m.Term = d.Uint()
		case m.Body != nil:
			d.Fail("a second body")
		default:
			list := newBody(m, string(field))
			if list == nil {
				d.Unknown()
				return
			}
			list.decode(&d)
		}
	})
	return d.End()
}

// cutDisks reads the disks in front of a message.
func cutDisks(line []byte) (*raftpb.Disks, []byte, error) {
	var disks [2]uint64
	for i := range disks {
		text, rest, ok := bytes.Cut(line, []byte{' '})
		n, err := disk.ParseIncarnation(text)
		if err != nil || !ok {
			return nil, nil, errors.New("it does not begin with two disks")
		}
		disks[i], line = uint64(n), rest
	}
	return &raftpb.Disks{Own: disks[0], Known: disks[1]}, line, nil
}

// AppendLine appends the line that says what a message says. It refuses a message
// for which there is none.
func AppendLine(b []byte, m *raftpb.Message) ([]byte, error) {
	if unknown(m) || m.Disks != nil && unknown(m.Disks) {
		return nil, errNewer
	}
	if m.Disks != nil {
		b = fmt.Appendf(b, "%v %v ", disk.Incarnation(m.Disks.Own), disk.Incarnation(m.Disks.Known))
	}
	name, body, list := bodyOf(m)
	switch {
	case body == nil:
		return nil, errors.New("a message has no body")
	case unknown(body):
		return nil, errNewer
	}
	b = append(b, `{"term":`...)
	b = strconv.AppendUint(b, m.Term, 10)
	b = append(strict.AppendName(b, name), '{')
	b, err := list.append(b)
	return append(b, "}}"...), err
}

// errNewer says that a message has a field that is not in this program's raft.proto.
// It must not be ignored: the rules rely on all fields of a message.
var errNewer = errors.New("a message has an unknown field: its sender runs a newer program")

func unknown(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }

// part is one field of a body: its name in a line, and the place of its value. A text
// is always valid UTF-8; bytes that are not are in base64, under another name.
type part struct {
	name    string
	number  *uint64
	flag    *bool
	text    *[]byte
	bytes   *[]byte
	words   *string
	entries *[]*raftpb.Entry
}

// parts are the fields of a body, in the order in which a line has them.
type parts []part

// newBody gives m an empty body of that name, and returns the parts to fill in; nil
// if there is no such body.
func newBody(m *raftpb.Message, name string) parts {
	switch name {
	case "appendEntries":
		m.Body = &raftpb.Message_AppendEntries{AppendEntries: &raftpb.AppendEntries{}}
	case "appendEntriesReply":
		m.Body = &raftpb.Message_AppendEntriesReply{AppendEntriesReply: &raftpb.AppendEntriesReply{}}
	case "requestVote":
		m.Body = &raftpb.Message_RequestVote{RequestVote: &raftpb.RequestVote{}}
	case "requestVoteReply":
		m.Body = &raftpb.Message_RequestVoteReply{RequestVoteReply: &raftpb.RequestVoteReply{}}
	case "readIndex":
		m.Body = &raftpb.Message_ReadIndex{ReadIndex: &raftpb.ReadIndex{}}
	case "readIndexReply":
		m.Body = &raftpb.Message_ReadIndexReply{ReadIndexReply: &raftpb.ReadIndexReply{}}
	case "installSnapshot":
		m.Body = &raftpb.Message_InstallSnapshot{InstallSnapshot: &raftpb.InstallSnapshot{}}
	case "installSnapshotReply":
		m.Body = &raftpb.Message_InstallSnapshotReply{InstallSnapshotReply: &raftpb.InstallSnapshotReply{}}
	case "timeoutNow":
		m.Body = &raftpb.Message_TimeoutNow{TimeoutNow: &raftpb.TimeoutNow{}}
	case "forward":
		m.Body = &raftpb.Message_Forward{Forward: &raftpb.Forward{}}
	case "forwardReply":
		m.Body = &raftpb.Message_ForwardReply{ForwardReply: &raftpb.ForwardReply{}}
	default:
		return nil
	}
	_, _, list := bodyOf(m)
	return list
}

// bodyOf returns the body of m, its name in a line, and its parts. Of a message
// without a body it returns nil.
func bodyOf(m *raftpb.Message) (name string, body proto.Message, list parts) {
	switch b := m.Body.(type) {
	case *raftpb.Message_AppendEntries:
		m := b.AppendEntries
		return "appendEntries", m, parts{
			{name: "prevLogIndex", number: &m.PrevLogIndex},
			{name: "prevLogTerm", number: &m.PrevLogTerm},
			{name: "matched", flag: &m.Matched},
			{name: "leaderCommit", number: &m.LeaderCommit},
			{name: "round", number: &m.Round},
			{name: "entries", entries: &m.Entries},
		}
	case *raftpb.Message_AppendEntriesReply:
		m := b.AppendEntriesReply
		return "appendEntriesReply", m, parts{
			{name: "success", flag: &m.Success},
			{name: "matchIndex", number: &m.MatchIndex},
			{name: "refused", number: &m.Refused},
			{name: "conflictIndex", number: &m.ConflictIndex},
			{name: "conflictTerm", number: &m.ConflictTerm},
			{name: "round", number: &m.Round},
		}
	case *raftpb.Message_RequestVote:
		m := b.RequestVote
		return "requestVote", m, parts{
			{name: "lastLogIndex", number: &m.LastLogIndex},
			{name: "lastLogTerm", number: &m.LastLogTerm},
			{name: "preVote", flag: &m.PreVote},
			{name: "transfer", flag: &m.Transfer},
		}
	case *raftpb.Message_RequestVoteReply:
		m := b.RequestVoteReply
		return "requestVoteReply", m, parts{
			{name: "granted", flag: &m.Granted},
			{name: "preVote", flag: &m.PreVote},
			{name: "removed", flag: &m.Removed},
			{name: "lastIndex", number: &m.LastIndex},
			{name: "lastTerm", number: &m.LastTerm},
		}
	case *raftpb.Message_ReadIndex:
		m := b.ReadIndex
		return "readIndex", m, parts{{name: "id", number: &m.Id}}
	case *raftpb.Message_ReadIndexReply:
		m := b.ReadIndexReply
		return "readIndexReply", m, parts{{name: "id", number: &m.Id}, {name: "index", number: &m.Index}}
	case *raftpb.Message_InstallSnapshot:
		m := b.InstallSnapshot
		return "installSnapshot", m, parts{
			{name: "lastIndex", number: &m.LastIndex},
			{name: "lastTerm", number: &m.LastTerm},
			{name: "matchIndex", number: &m.MatchIndex},
			{name: "offset", number: &m.Offset},
			{name: "data", text: &m.Data},
			{name: "done", flag: &m.Done},
		}
	case *raftpb.Message_InstallSnapshotReply:
		m := b.InstallSnapshotReply
		return "installSnapshotReply", m, parts{
			{name: "lastIndex", number: &m.LastIndex},
			{name: "lastTerm", number: &m.LastTerm},
			{name: "offset", number: &m.Offset},
		}
	case *raftpb.Message_TimeoutNow:
		return "timeoutNow", b.TimeoutNow, parts{}
	case *raftpb.Message_Forward:
		m := b.Forward
		return "forward", m, parts{
			{name: "session", number: &m.Session},
			{name: "seq", number: &m.Seq},
			{name: "command", bytes: &m.Command},
		}
	case *raftpb.Message_ForwardReply:
		m := b.ForwardReply
		return "forwardReply", m, parts{
			{name: "session", number: &m.Session},
			{name: "seq", number: &m.Seq},
			{name: "index", number: &m.Index},
			{name: "result", bytes: &m.Result},
			{name: "code", words: &m.Code},
			{name: "message", words: &m.Message},
			{name: "leader", words: &m.Leader},
			{name: "definite", flag: &m.Definite},
		}
	}
	return "", nil, nil
}

func (list parts) decode(d *strict.Decoder) {
	d.Object(func(field []byte) {
		for _, p := range list {
			if string(field) == p.name {
				p.decode(d)
				return
			}
			if p.bytes != nil && string(field) == p.name+"_b64" {
				*p.bytes = []byte(d.Base64())
				return
			}
		}
		d.Unknown()
	})
}

func (p part) decode(d *strict.Decoder) {
	switch {
	case p.number != nil:
		*p.number = d.Uint()
	case p.flag != nil:
		*p.flag = d.Bool()
	case p.text != nil:
		*p.text = d.Bytes()
	case p.bytes != nil:
		*p.bytes = d.Bytes()
	case p.words != nil:
		*p.words = d.String()
	default:
		d.Array(func() { *p.entries = append(*p.entries, fromJournal(d, journal.DecodeEntry(d))) })
	}
}

func (list parts) append(b []byte) (_ []byte, err error) {
	for _, p := range list {
		switch {
		case p.number != nil:
			b = strict.AppendNumber(b, p.name, *p.number)
		case p.flag != nil:
			b = strict.AppendFlag(b, p.name, *p.flag)
		case p.text != nil && !utf8.Valid(*p.text):
			return nil, errors.New("a chunk of a snapshot is not valid UTF-8")
		case p.text != nil:
			b = strict.AppendText(b, p.name, *p.text)
		case p.words != nil:
			b = strict.AppendText(b, p.name, *p.words)
		case p.bytes != nil:
			if len(*p.bytes) > 0 {
				b = strict.AppendBytes(b, p.name, string(*p.bytes))
			}
		case len(*p.entries) > 0:
			if b, err = appendEntries(strict.AppendName(b, p.name), *p.entries); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// kinds are the kinds of entries, by their names in a line.
var kinds = map[string]raftpb.Kind{
	"":       raftpb.Kind_KIND_COMMAND,
	"noop":   raftpb.Kind_KIND_NOOP,
	"config": raftpb.Kind_KIND_CONFIG,
}

// kindNames is the inverse of kinds.
var kindNames = func() map[raftpb.Kind]string {
	names := make(map[raftpb.Kind]string)
	for name, kind := range kinds {
		names[kind] = name
	}
	return names
}()

func fromJournal(d *strict.Decoder, e journal.Entry) *raftpb.Entry {
	kind, ok := kinds[e.Kind]
	if !ok {
		d.Fail("entry %d is of the kind %q, which is not in raft.proto", e.Index, e.Kind)
	}
	return &raftpb.Entry{Index: e.Index, Term: e.Term, Kind: kind, Command: e.Command}
}

func appendEntries(b []byte, entries []*raftpb.Entry) ([]byte, error) {
	b = append(b, '[')
	for _, e := range entries {
		name, ok := kindNames[e.Kind]
		switch {
		case unknown(e):
			return nil, errNewer
		case e.Index == 0 || e.Term == 0:
			return nil, errors.New("an entry has no index or no term")
		case !ok:
			return nil, fmt.Errorf("entry %d is of kind %d, which this program does not know", e.Index, e.Kind)
		case len(e.Command) > 0 && !isValue(e.Command):
			return nil, fmt.Errorf("the command of entry %d is not JSON on one line", e.Index)
		}
		j := journal.Entry{Index: e.Index, Term: e.Term, Kind: name}
		if len(e.Command) > 0 {
			j.Command = e.Command
		}
		b = j.AppendJSON(strict.AppendComma(b))
	}
	return append(b, ']'), nil
}

// depth is how many objects and arrays of a line a command is inside of: the message,
// its body, the entries and the entry.
const depth = 4

// isValue reports whether text is one value, as an entry of a line may have it.
func isValue(text []byte) bool {
	d := strict.NewDecoder(text)
	d.Inside(depth)
	value := d.Raw()
	return d.End() == nil && len(value) == len(text) && bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\t') < 0
}
