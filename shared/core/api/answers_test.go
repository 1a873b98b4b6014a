package api

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStatusJSON checks the JSON that each stage writes, byte by byte, and that
// it is read back as it was.
func TestStatusJSON(t *testing.T) {
	for text, want := range map[string]ServerStatus{
		`{}`: {},
		`{"id":3,"role":"follower","leader":1,"keys":0}`:                                                                               {ID: 3, Role: "follower", Leader: 1, Keys: new(0)},
		`{"id":3,"role":"candidate","term":4,"last":7,"commit":6,"applied":5,"keys":2}`:                                                {ID: 3, Role: "candidate", Term: 4, Last: 7, Commit: 6, Applied: 5, Keys: new(2)},
		`{"id":1,"role":"leader","term":2,"leader":1,"snapshot":9,"last":9,"commit":9,"applied":9,"ready":true,"keys":1,"sessions":0}`: {ID: 1, Role: "leader", Term: 2, Leader: 1, Snapshot: 9, Last: 9, Commit: 9, Applied: 9, Ready: new(true), Keys: new(1), Sessions: new(0)},
		`{"id":4,"role":"follower","ready":false,"unready":"n4 knows no leader","keys":0,"sessions":0,"phase":"stable","voters":[]}`:   {ID: 4, Role: "follower", Ready: new(false), Unready: "n4 knows no leader", Keys: new(0), Sessions: new(0), Phase: Stable, Voters: []uint64{}},
		`{"id":1,"role":"leader","phase":"learning","voters":[1,2],"next":[1,3],"removed":true,"learners":[{"id":3,"match":0}]}`:       {ID: 1, Role: "leader", Phase: Learning, Voters: []uint64{1, 2}, Next: []uint64{1, 3}, Removed: true, Learners: []Learner{{ID: 3}}},
		`{"id":1,"role":"leader","phase":"learning","voters":[1,2],"next":[1],"learners":[]}`:                                          {ID: 1, Role: "leader", Phase: Learning, Voters: []uint64{1, 2}, Next: []uint64{1}, Learners: []Learner{}},
	} {
		require.Equal(t, text, string(want.AppendJSON(nil)))
		got, err := DecodeStatus([]byte(text))
		require.NoError(t, err, "%s", text)
		require.Equal(t, want, got, "%s", text)
	}
}

func TestMembershipJSON(t *testing.T) {
	for text, want := range map[string]Membership{
		`{"id":4,"role":"follower","committed":true,"phase":"stable","members":[]}`: {ID: 4, Role: "follower", Committed: true, Phase: Stable},
		`{"id":1,"role":"leader","term":2,"leader":1,"last":9,"commit":8,"config":7,"phase":"joint","removed":true,"members":[{"id":1,"address":"127.0.0.1:7071","voter":true,"match":9},{"id":2,"address":"127.0.0.1:7072","next":true}]}`: {
			ID: 1, Role: "leader", Term: 2, Leader: 1, Last: 9, Commit: 8, Config: 7, Phase: Joint, Removed: true,
			Members: []MemberStatus{{Member: Member{1, "127.0.0.1:7071"}, Voter: true, Match: 9}, {Member: Member{2, "127.0.0.1:7072"}, Next: true}}},
	} {
		require.Equal(t, text, string(want.AppendJSON(nil)))
		got, err := DecodeMembership([]byte(text))
		require.NoError(t, err, "%s", text)
		require.Equal(t, want, got, "%s", text)
	}
}

// TestAnswersOfLaterVersions: fields that this program does not know are skipped,
// and everything else is still checked.
func TestAnswersOfLaterVersions(t *testing.T) {
	s, err := DecodeStatus([]byte(`{"id":1,"weather":{"rain":[1,null]},"term":2,"learners":[{"id":3,"speed":7}]}`))
	require.NoError(t, err)
	require.Equal(t, ServerStatus{ID: 1, Term: 2, Learners: []Learner{{ID: 3}}}, s)
	m, err := DecodeMembership([]byte(`{"id":1,"weather":"fine","members":[{"id":3,"zone":"a"}]}`))
	require.NoError(t, err)
	require.Equal(t, Membership{ID: 1, Members: []MemberStatus{{Member: Member{ID: 3}}}}, m)
	for _, text := range []string{``, `[]`, `null`, `{"id":"1"}`, `{"id":-1}`, `{"id":1,"id":1}`, `{"ready":1}`, `{"keys":18446744073709551615}`, `{"voters":[1,"x"]}`, `{} {}`} {
		_, err = DecodeStatus([]byte(text))
		require.ErrorContains(t, err, "a status: ", "%s", text)
	}
	for _, text := range []string{``, `[]`, `{"members":{}}`, `{"committed":"yes"}`, `{"members":[{"id":1,"id":1}]}`} {
		_, err = DecodeMembership([]byte(text))
		require.ErrorContains(t, err, "the members: ", "%s", text)
	}
}
