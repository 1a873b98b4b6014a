package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"example.com/raftsteps/06-compaction/raft"
)

func text(text string) []byte { return []byte(text) }

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, body := range []raft.Body{
		raft.AppendEntries{},
		raft.AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, LeaderCommit: 3, Entries: []raft.Entry{
			{Index: 5, Term: 2, Command: text(`{"op":"put","key":"k\"","value":"ä\n"}`)},
			{Index: 6, Term: 7, Command: text(`{"op":"delete","key":"x"}`)},
		}},
		raft.AppendEntriesReply{Success: true, MatchIndex: maxNumber},
		raft.AppendEntriesReply{Refused: 9, ConflictIndex: 4, ConflictTerm: 3},
		raft.AppendEntries{Round: 3, Entries: []raft.Entry{{Index: 1, Term: 1, Kind: raft.NoOp}}},
		raft.AppendEntriesReply{Success: true, Round: 3},
		raft.RequestVote{LastLogIndex: 3, LastLogTerm: 2},
		raft.RequestVoteReply{Granted: true},
		raft.RequestVoteReply{},
		raft.ReadIndex{ID: 1 << 62},
		raft.ReadIndexReply{ID: 1 << 62, Index: 8},
		raft.InstallSnapshot{LastIncluded: raft.Position{Term: 2, Index: 9}, Offset: 44, Data: []byte("{\"a\":1}\n"), Done: true},
		raft.InstallSnapshotReply{LastIncluded: raft.Position{Term: 2, Index: 9}, Offset: 44},
	} {
		m := raft.Message{Term: 7, Body: body}
		got, err := decodeMessage(appendMessage(nil, m))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(m, got))
	}
}

func TestMessagesMatchTheComment(t *testing.T) {
	m := raft.Message{Term: 3, Body: raft.AppendEntries{PrevLogIndex: 4, PrevLogTerm: 2, LeaderCommit: 4, Entries: []raft.Entry{
		{Index: 5, Term: 3, Command: text(`{"op":"put","key":"x","value":"1"}`)},
	}}}
	require.Equal(t, `{"term":3,"appendEntries":{"prevLogIndex":4,"prevLogTerm":2,"leaderCommit":4,`+
		`"entries":[{"index":5,"term":3,"command":{"op":"put","key":"x","value":"1"}}]}}`, string(appendMessage(nil, m)))
	require.Equal(t, `{"term":3,"appendEntriesReply":{"success":true,"matchIndex":5}}`,
		string(appendMessage(nil, raft.Message{Term: 3, Body: raft.AppendEntriesReply{Success: true, MatchIndex: 5}})))
}

// What a correct server does not send must not reach the rules.
func TestAnInvalidMessageIsRefused(t *testing.T) {
	for text, why := range map[string]string{
		``:           "object",
		`{}`:         "no body",
		`{"term":1}`: "no body",
		`{"term":1,"appendEntries":{},"appendEntriesReply":{}}`:                                                        "second body",
		`{"term":1,"appendEntries":{"entries":[{"index":2,"term":1}]}}`:                                                "in the place of entry 1",
		`{"term":1,"appendEntries":{"entries":[{"index":1,"term":2}]}}`:                                                "in a message of term 1",
		`{"term":9,"appendEntries":{"prevLogIndex":1,"prevLogTerm":5,"entries":[{"index":2,"term":4}]}}`:               "cannot follow",
		`{"term":1,"appendEntries":{"entries":[{"index":1,"term":1,"command":{}},{"index":1,"term":1,"command":{}}]}}`: "in the place of entry 2",
		`{"term":1,"appendEntries":{"leader":2}}`:                                                                      "unknown field",
		`{"term":1,"appendEntriesReply":{"refused":3}}`:                                                                "without a hint",
		`{"term":1,"appendEntriesReply":{"success":1}}`:                                                                "success",
		`{"term":1,"term":1,"appendEntries":{}}`:                                                                       "twice",
		`{"term":-1,"appendEntries":{}}`:                                                                               "term",
		`{"term":9223372036854775808,"appendEntriesReply":{}}`:                                                         "out of range",
		`{"term":1,"appendEntriesReply":{"success":true,"matchIndex":18446744073709551615}}`:                           "out of range",
		`{"term":1,"appendEntriesReply":{"refused":3,"conflictIndex":4}}`:                                              "after the entry that it refuses",
		`{"term":1,"appendEntriesReply":{"refused":3,"conflictIndex":2,"conflictTerm":2}}`:                             "after the entry that it refuses",
		`{"appendEntries":{}}`:                                                     "nobody leads term 0",
		`{"term":1,"appendEntries":{"prevLogIndex":3}}`:                            "no entry 0@3",
		`{"term":1,"appendEntries":{"prevLogIndex":3,"prevLogTerm":2}}`:            "no entry 2@3",
		`{"term":1,"appendEntries":{"entries":[{"index":1,"term":1,"kind":"x"}]}}`: "kind",
		`{"term":1,"launchMissiles":{}}`:                                           "launchMissiles",
	} {
		_, err := decodeMessage([]byte(text))
		require.ErrorContains(t, err, why, text)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"term":3,"appendEntries":{"prevLogIndex":4,"prevLogTerm":2,"entries":[{"index":5,"term":3,"command":{"op":"put","key":"x","value":"1"}}],"leaderCommit":4}}`))
	f.Add([]byte(`{"term":3,"appendEntriesReply":{"success":false,"refused":4,"conflictIndex":2,"conflictTerm":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeMessage(text)
		if err != nil {
			return
		}
		again, err := decodeMessage(appendMessage(nil, m))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(m, again))
	})
}
