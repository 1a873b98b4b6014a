package server

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// line is a message on its way.
type line struct {
	to   uint64
	text string
}

// start makes a server of a cluster of three and collects what it sends.
func start(t *testing.T, id uint64) (node.Server, *[]line, *[]trace.Event) {
	var sent []line
	var events []trace.Event
	s, err := New(node.World{
		ID: id,
		Config: node.Config{Leader: 1, Members: []node.Member{
			{ID: 1, Address: "a:1"}, {ID: 2, Address: "a:2"}, {ID: 3, Address: "a:3"},
		}},
		Send:  func(to uint64, b []byte) { sent = append(sent, line{to, string(b)}) },
		Trace: func(e trace.Event) { events = append(events, e) },
	})
	require.NoError(t, err)
	return s, &sent, &events
}

// ask sends a request and returns where its answers will be.
func ask(t *testing.T, s node.Server, text string) *[]string {
	r, err := Ops.Decode([]byte(text))
	require.NoError(t, err)
	var answers []string
	s.Request(r, func(a api.Response) { answers = append(answers, string(a.AppendJSON(nil))) })
	require.NoError(t, s.Flush())
	return &answers
}

func receive(t *testing.T, s node.Server, from uint64, text string) {
	s.Receive(from, []byte(text))
	require.NoError(t, s.Flush())
}

func TestWriteIsAnsweredWhenAMajorityHasIt(t *testing.T) {
	s, sent, _ := start(t, 1)
	put := ask(t, s, `{"id":7,"op":"put","key":"x","value":"1"}`)
	want := `{"replicate":{"seq":1,"command":{"op":"put","key":"x","value":"1"}}}`
	require.Equal(t, []line{{2, want}, {3, want}}, *sent)
	require.Empty(t, *put)
	require.Contains(t, (*ask(t, s, `{"op":"get","key":"x"}`))[0], "not_found")

	receive(t, s, 3, `{"replicateReply":{"seq":1}}`)
	require.Equal(t, []string{`{"id":7,"ok":true}`}, *put)
	require.Equal(t, []string{`{"ok":true,"value":"1"}`}, *ask(t, s, `{"op":"get","key":"x"}`))
}

func TestFollowerWritesAtOnceAndServesReads(t *testing.T) {
	s, sent, _ := start(t, 2)
	receive(t, s, 1, `{"replicate":{"seq":4,"command":{"op":"append","key":"x","value":"ab"}}}`)
	require.Equal(t, []line{{1, `{"replicateReply":{"seq":4}}`}}, *sent)
	require.Equal(t, []string{`{"ok":true,"value":"ab"}`}, *ask(t, s, `{"op":"get","key":"x"}`))
}

func TestAFollowerSaysWhoLeads(t *testing.T) {
	s, sent, _ := start(t, 2)
	got := *ask(t, s, `{"id":8,"op":"put","key":"x","value":"1"}`)
	require.Equal(t, []string{`{"id":8,"ok":false,"error":{"code":"not_leader",` +
		`"message":"n2 is a follower; n1 at a:1 leads and takes the writes","leader":"a:1","definite":true}}`}, got)
	require.Empty(t, *sent)
}

func TestWriteWithoutAMajorityIsNotDefinite(t *testing.T) {
	s, _, _ := start(t, 1)
	put := ask(t, s, `{"id":9,"op":"put","key":"x","value":"1"}`)
	for range node.Ticks(Patience) + 1 {
		require.Empty(t, *put)
		s.Tick()
		require.NoError(t, s.Flush())
	}
	require.Equal(t, []string{`{"id":9,"ok":false,"error":{"code":"unknown",` +
		`"message":"only 0 of 2 followers have written it within 1s, too few for a majority","definite":false}}`}, *put)
}

func TestStatus(t *testing.T) {
	s, _, _ := start(t, 3)
	require.Equal(t, []string{`{"id":1,"ok":true,"data":{"id":3,"role":"follower","leader":1,"keys":0}}`}, *ask(t, s, `{"id":1,"op":"status"}`))
}

func TestGarbageFromAPeerIsDroppedAndLogged(t *testing.T) {
	for _, text := range []string{
		``,
		`{}`,
		`[]`,
		`{"replicate":{}}`,
		`{"replicate":{"seq":1}}`,
		`{"replicate":{"seq":1,"command":{"op":"drop"}}}`,
		`{"replicate":{"seq":1,"command":{"op":"put","key":"","value":""}}}`,
		`{"replicate":{"seq":-1,"command":{"op":"delete","key":"x"}}}`,
		`{"replicate":{"seq":1,"command":{"op":"delete","key":"x"},"more":1}}`,
		`{"replicateReply":{"seq":1},"replicate":{"seq":1,"command":{"op":"delete","key":"x"}}}`,
		`{"appendEntries":{}}`,
	} {
		s, sent, events := start(t, 2)
		receive(t, s, 1, text)
		require.Empty(t, *sent, text)
		require.Len(t, *events, 1, text)
		require.Equal(t, trace.Drop, (*events)[0].Kind)
		require.NotEmpty(t, (*events)[0].Text)
	}
}

// The leader refuses a write for which the store has no room, before any server
// has it; a follower takes what the leader sends.
func TestAFullStore(t *testing.T) {
	s, sent, _ := start(t, 1)
	s.(*Server).quota.Limit = 100
	put := ask(t, s, `{"id":7,"op":"put","key":"x","value":"1"}`)
	receive(t, s, 3, `{"replicateReply":{"seq":1}}`)
	require.Equal(t, []string{`{"id":7,"ok":true}`}, *put)
	before := len(*sent)
	require.Equal(t, []string{`{"id":8,"ok":false,"error":{"code":"full","message":"the store holds 66 bytes and may hold 100; delete something first","definite":true}}`},
		*ask(t, s, `{"id":8,"op":"put","key":"y","value":"1"}`))
	require.Len(t, *sent, before)
	require.Empty(t, *ask(t, s, `{"id":9,"op":"delete","key":"x"}`), "it is on its way")

	f, _, _ := start(t, 2)
	f.(*Server).quota.Limit = 1
	require.Contains(t, (*ask(t, f, `{"id":8,"op":"put","key":"y","value":"1"}`))[0], "not_leader")
	receive(t, f, 1, `{"replicate":{"seq":1,"command":{"op":"put","key":"x","value":"1"}}}`)
	require.Equal(t, []string{`{"ok":true,"value":"1"}`}, *ask(t, f, `{"op":"get","key":"x"}`))
}
