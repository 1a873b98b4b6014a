package replica

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/trace"
)

// goldenFile has messages of this package, one per line. The gRPC transport reads it,
// too: it must be able to carry each of them.
const goldenFile = "../../shared/core/transport/grpc/testdata/forwards.jsonl"

var update = flag.Bool("update", false, "write "+goldenFile+" again")

// golden are messages in which each field is set at least once.
var golden = []message{
	{term: 4, session: 17, seq: 3},
	{term: 4, session: 17, seq: 3, command: `{"pay":30}`},
	{term: 4, session: 1 << 53, seq: 1<<64 - 1, command: "\xff"},
	{term: 4, reply: true, session: 17, seq: 3, index: 118},
	{term: 4, reply: true, session: 17, seq: 3, index: 118, result: `"done"`},
	{term: 4, reply: true, session: 17, seq: 3, index: 118, result: "\xff"},
	{term: 4, reply: true, session: 17, seq: 3, err: &api.Error{Code: api.Unknown, Message: "lost"}},
	{term: 4, reply: true, session: 17, seq: 3, err: &api.Error{Code: api.NotLeader, Message: "no", Leader: "h:1", Definite: true}},
}

func TestGoldenMessages(t *testing.T) {
	var file []byte
	for _, m := range golden {
		line := m.appendJSON(nil)
		require.True(t, isForward(line))
		got, err := decodeMessage(line)
		require.NoError(t, err)
		require.Equal(t, m, got)
		file = append(append(file, line...), '\n')
	}
	if *update {
		require.NoError(t, os.WriteFile(goldenFile, file, 0o600))
	}
	want, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	require.Equal(t, string(want), string(file))
}

func TestMessagesOfTheRules(t *testing.T) {
	for _, line := range []string{``, `{`, `{"term":`, `{"term":3}`, `{"term":3,"forwar`, `{"term":3,"timeoutNow":{}}`, `{"forward":{}}`} {
		require.False(t, isForward([]byte(line)), line)
	}
}

func TestInvalidMessages(t *testing.T) {
	for line, words := range map[string]string{
		`{"term":3,"forward":{}}`:                                                          "it does not say which command it is about",
		`{"term":3,"forward":{"session":1,"seq":1}`:                                        "want",
		`{"term":3,"forward":{"session":1,"seq":1,"index":1}}`:                             "unknown field",
		`{"term":3,"forward":{"session":1,"seq":1},"forwardReply":{"session":1}}`:          "a second body",
		`{"term":3,"forwardReply":{"session":1,"seq":1}}`:                                  "it needs either an index or a code",
		`{"term":3,"forwardReply":{"session":1,"seq":1,"index":2,"code":"busy"}}`:          "it needs either an index or a code",
		`{"term":3,"forward":{"session":1,"seq":1,"command":"a","command_b64":"/w=="}}`:    "leave one of them out",
		`{"term":3,"forward":{"session":1,"seq":1,"command":"` + "\xff" + `"}}`:            "not valid UTF-8",
		`{"term":3,"forward":{"session":1,"seq":1}} {"term":3}`:                            "something follows",
		`{"term":3,"forward":{"session":1,"seq":1},"timeoutNow":{}}`:                       "a second body",
		`{"term":99999999999999999999,"forward":{"session":1,"seq":1}}`:                    "term",
		`{"term":3,"forwardReply":{"session":1,"seq":1,"code":"busy","definite":"maybe"}}`: "want true or false",
	} {
		require.True(t, isForward([]byte(line)))
		_, err := decodeMessage([]byte(line))
		require.ErrorContains(t, err, words, line)
	}
}

func FuzzMessages(f *testing.F) {
	for _, m := range golden {
		f.Add(m.appendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeMessage(line)
		if err != nil {
			return
		}
		again, err := decodeMessage(m.appendJSON(nil))
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

// Each command is new once, in whatever order they come. One that is older than the
// window counts as known.
func TestFirst(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var r received
		known := make(map[uint64]bool)
		newest := uint64(0)
		for range 5000 {
			seq := newest + random.Uint64N(40)
			switch random.IntN(50) {
			case 0:
				seq = newest + random.Uint64N(3*window)
			case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
				seq = newest - min(newest, random.Uint64N(2*window))
			}
			want := seq > 0 && !known[seq] && seq+window > newest
			require.Equal(t, want, r.first(seq), "%d after %d", seq, newest)
			known[seq], newest = true, max(newest, seq)
		}
		require.False(t, r.first(newest))
		require.True(t, r.first(1<<63))
		require.False(t, r.first(newest))
	}
}

// A server ignores the commands that it may have proposed before: those of a term that
// is over, or in which it was started.
func TestWhatMayHaveBeenProposed(t *testing.T) {
	f := newForwards(node.World{ID: 1, Rand: rand.New(rand.NewPCG(1, 2))}, false, 5)
	command := func(term, session, seq uint64) message { return message{term: term, session: session, seq: seq} }
	require.False(t, f.first(2, command(5, 17, 1)), "it may have led term 5 before its restart")
	require.True(t, f.first(2, command(6, 17, 2)))
	require.False(t, f.first(2, command(6, 17, 2)))
	require.True(t, f.first(2, command(6, 17, 1)), "it was overtaken")
	require.True(t, f.first(3, command(6, 17, 1)), "another server has sent it")
	require.True(t, f.first(2, command(6, 18, 1)), "the sender was started again")
	require.True(t, f.first(2, command(7, 17, 3)))
	require.False(t, f.first(2, command(6, 17, 4)), "term 6 is over")
	require.True(t, f.first(2, command(7, 17, 4)))
	for session := uint64(1); session <= 2*maxSenders; session++ {
		f.first(4, command(7, session, 1))
	}
	require.Len(t, f.senders, maxSenders)
	require.False(t, f.first(4, command(7, 1, 1)))
	require.True(t, f.first(2, command(7, 17, 5)))
}

// A peer that sends nonsense does not fill the log.
func TestComplaints(t *testing.T) {
	var logged []trace.Event
	f := newForwards(node.World{ID: 1, Rand: rand.New(rand.NewPCG(1, 2)), Log: func(e trace.Event) { logged = append(logged, e) }}, false, 5)
	o := &observed{forwards: f}
	for range 3 {
		for range 100 {
			o.Receive(2, []byte(`{"term":3,"forward":{}}`))
		}
		for range complaint {
			f.tick(0, 0, 0)
		}
	}
	require.Len(t, logged, 3)
	require.Equal(t, trace.Event{Kind: trace.Drop, From: 2, To: 1, Text: "a forwarded command, or its reply: it does not say which command it is about"}, logged[0])
}
