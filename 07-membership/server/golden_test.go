package server

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/07-membership/raft"
)

// goldenFile has every kind of message as it is on the wire. The transport that
// sends messages in another form, over gRPC, must convert each of them there and
// back without loss.
const goldenFile = "../../shared/core/transport/grpc/testdata/messages.jsonl"

var updateGolden = flag.Bool("update", false, "write "+goldenFile+" again")

// goldenMessages are messages in which each kind of message occurs, and each of its
// fields is set at least once.
func goldenMessages() []raft.Message {
	five := raft.Position{Term: 3, Index: 5}
	addresses := map[raft.ID]string{1: "127.0.0.1:7071", 2: "127.0.0.1:7072", 10: "[::1]:7080"}
	bodies := []raft.Body{
		raft.AppendEntries{},
		raft.AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, Matched: true, LeaderCommit: 3, Round: 9, Entries: []raft.Entry{
			{Index: 5, Term: 2, Command: text(`{"op":"put","key":"k\"\\","value":"ä\n\u0001 ` + "\u2028" + `"}`)},
			{Index: 6, Term: 7, Command: text(`{ "op": "delete", "key": "x" }`)},
			{Index: 7, Term: 7, Kind: raft.NoOp},
			{Index: 8, Term: 7, Kind: raft.ConfigEntry, Config: &raft.Config{
				Index: 8, Voters: []raft.ID{1, 2}, Next: []raft.ID{1, 10}, Joint: true, Addresses: addresses}},
			{Index: 9, Term: 7},
			{Index: 10, Term: 7, Command: text(`7`)},
		}},
		raft.AppendEntriesReply{},
		raft.AppendEntriesReply{Success: true, MatchIndex: maxNumber, Round: maxNumber},
		raft.AppendEntriesReply{Refused: 9, ConflictIndex: 4, ConflictTerm: 3},
		raft.RequestVote{},
		raft.RequestVote{LastLogIndex: 5, LastLogTerm: 3},
		raft.RequestVote{LastLogIndex: 5, LastLogTerm: 3, PreVote: true},
		raft.RequestVote{LastLogIndex: 5, LastLogTerm: 3, Transfer: true},
		raft.RequestVoteReply{},
		raft.RequestVoteReply{Granted: true, PreVote: true},
		raft.RequestVoteReply{Removed: true, Committed: five},
		raft.ReadIndex{},
		raft.ReadIndex{ID: 1 << 62},
		raft.ReadIndexReply{ID: 1 << 62, Index: 8},
		raft.InstallSnapshot{LastIncluded: five},
		raft.InstallSnapshot{LastIncluded: five, MatchIndex: 2, Offset: 44, Data: []byte("{\"a\":\"ä\"}\n\t\x00"), Done: true},
		raft.InstallSnapshotReply{LastIncluded: five, Offset: 44},
		raft.TimeoutNow{},
	}
	var all []raft.Message
	for _, body := range bodies {
		all = append(all, raft.Message{Term: 7, Body: body})
	}
	return append(all, raft.Message{Body: raft.RequestVoteReply{}}, raft.Message{Term: maxNumber, Body: raft.TimeoutNow{}})
}

func TestGoldenMessages(t *testing.T) {
	var lines []byte
	for _, m := range goldenMessages() {
		line := appendMessage(nil, m)
		again, err := decodeMessage(line)
		require.NoError(t, err)
		require.Equal(t, string(line), string(appendMessage(nil, again)))
		lines = append(append(lines, line...), '\n')
	}
	if *updateGolden {
		require.NoError(t, os.WriteFile(goldenFile, lines, 0o644))
	}
	golden, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	require.Equal(t, string(golden), string(lines), "the messages have changed: run this test with -update, and change raft.proto and line.go there")
}

// No kind of message and no field is missing in the golden messages.
func TestGoldenMessagesAreComplete(t *testing.T) {
	set := make(map[string]bool)
	for _, m := range goldenMessages() {
		body := reflect.New(reflect.TypeOf(m.Body))
		body.Elem().Set(reflect.ValueOf(m.Body))
		kind := kindOf(appendMessage(nil, m))
		set[kind] = true
		for _, p := range parts(body.Interface()) {
			set[kind+"."+p.name] = set[kind+"."+p.name] || p.number != nil && *p.number > 0 || p.flag != nil && *p.flag ||
				p.text != nil && len(*p.text) > 0 || p.entries != nil && len(*p.entries) > 0
		}
	}
	for name, ok := range set {
		require.True(t, ok, "no golden message has %s", name)
	}
	source, err := os.ReadFile("message.go")
	require.NoError(t, err)
	names := regexp.MustCompile(`appendBody\(b, "(\w+)"`).FindAllSubmatch(source, -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.True(t, set[string(name[1])], "no golden message is of the kind %s", name[1])
	}
}

// kindOf returns the name of the body of a message.
func kindOf(line []byte) string {
	_, rest, _ := bytes.Cut(line, []byte(`,"`))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(name)
}
