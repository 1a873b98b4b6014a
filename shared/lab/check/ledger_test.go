package check

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// logOf makes a log; "" is an entry that is no command.
func logOf(lines ...string) []node.Entry {
	var log []node.Entry
	for _, line := range lines {
		log = append(log, node.Entry{Term: 1, Data: []byte(line)})
	}
	return log
}

func put(key, value string) string {
	return string(kv.Command{Op: kv.Put, Key: key, Value: value}.AppendJSON(nil))
}

func inSession(session, seq int, value string) string {
	return fmt.Sprintf(`{"op":"append","key":"x","value":%q,"session":%d,"seq":%d,"ack":0}`, value, session, seq)
}

// at sets the index of an operation.
func at(k uint64, o Operation) Operation {
	o.Response.Index = k
	return o
}

func TestAgainstLog(t *testing.T) {
	none := failed(op(5, 6, kv.Get, "x", ""), api.NotFound, true)
	for _, c := range []struct {
		claim  string
		breaks string
		h      History
		log    []node.Entry
	}{
		{"nothing happened", "", nil, nil},
		{"writes and a read", "", History{at(2, op(1, 2, kv.Put, "x", "1")), op(3, 4, kv.Get, "x", "1")}, logOf("", put("x", "1"))},
		{"the index is not there", "I24", History{at(2, op(1, 2, kv.Put, "x", "1"))}, logOf(put("x", "1"))},
		{"the entry is another", "I24", History{at(1, op(1, 2, kv.Put, "x", "1"))}, logOf(put("x", "2"), put("x", "1"))},
		{"the entry is no command", "I24", History{at(1, op(1, 2, kv.Put, "x", "1"))}, logOf("", put("x", "1"))},
		{"the result is another", "I24", History{at(1, appended(1, 2, "x", "a", "ba"))}, logOf(`{"op":"append","key":"x","value":"a"}`)},
		{"two writes stand in the wrong order", "I24", History{at(2, op(1, 2, kv.Put, "x", "1")), at(1, op(3, 4, kv.Put, "y", "1"))}, logOf(put("y", "1"), put("x", "1"))},
		{"two writes at once stand in any order", "", History{at(2, op(1, 4, kv.Put, "x", "1")), at(1, op(2, 3, kv.Put, "y", "1"))}, logOf(put("y", "1"), put("x", "1"))},
		{"a refused write is in the log", "I24", History{failed(op(1, 2, kv.Put, "x", "1"), api.NotLeader, true)}, logOf(put("x", "1"))},
		{"a refused write is not in the log", "", History{failed(op(1, 2, kv.Put, "x", "1"), api.NotLeader, true)}, logOf(put("x", "2"))},
		{"an unknown write is in the log", "", History{failed(op(1, 2, kv.Put, "x", "1"), api.Unknown, false)}, logOf(put("x", "1"))},
		{"an unknown write is there twice", "I22", History{failed(op(1, 2, kv.Put, "x", "1"), api.Unknown, false)}, logOf(put("x", "1"), put("x", "1"))},
		{"a write that two clients asked for is there twice", "", History{op(1, 2, kv.Put, "x", "1"), op(1, 2, kv.Put, "x", "1")}, logOf(put("x", "1"), put("x", "1"))},
		{"a retry within a session counts once", "", History{at(1, appended(1, 2, "x", "a", "a")), op(3, 4, kv.Get, "x", "a")}, logOf(inSession(7, 1, "a"), inSession(7, 1, "a"))},
		{"two sessions count twice", "I22", History{at(1, appended(1, 2, "x", "a", "a"))}, logOf(inSession(7, 1, "a"), inSession(8, 1, "a"))},
		{"a read misses what was acknowledged", "I23", History{at(1, op(1, 2, kv.Put, "x", "1")), none}, logOf(put("x", "1"))},
		{"a read misses what was acknowledged on another key", "I23", History{at(2, op(1, 2, kv.Put, "y", "1")), none}, logOf(put("x", "1"), put("y", "1"))},
		{"a read concurrent with a write may miss it", "", History{at(1, op(1, 9, kv.Put, "x", "1")), none}, logOf(put("x", "1"))},
		{"a read of a value that was never written", "I23", History{at(1, op(1, 2, kv.Put, "x", "1")), op(3, 4, kv.Get, "x", "2")}, logOf(put("x", "1"))},
		{"a read sees a later write", "I23", History{op(1, 2, kv.Get, "x", "1"), at(1, op(3, 4, kv.Put, "x", "1"))}, logOf(put("x", "1"))},
		{"time runs back between two reads", "I23", History{at(1, op(1, 2, kv.Put, "x", "1")), at(2, op(3, 20, kv.Put, "x", "2")), op(4, 5, kv.Get, "x", "2"), op(6, 7, kv.Get, "x", "1")}, logOf(put("x", "1"), put("x", "2"))},
		{"time runs back between reads of two keys", "I23", History{at(1, op(1, 30, kv.Put, "x", "1")), at(2, op(2, 30, kv.Put, "y", "1")), op(3, 4, kv.Get, "y", "1"), none}, logOf(put("x", "1"), put("y", "1"))},
		{"a value comes back", "", History{at(1, op(1, 2, kv.Put, "x", "1")), at(2, op(3, 4, kv.Put, "x", "2")), at(3, op(5, 6, kv.Put, "x", "1")), op(7, 8, kv.Get, "x", "1")}, logOf(put("x", "1"), put("x", "2"), put("x", "1"))},
		{"deleted", "", History{at(1, op(1, 2, kv.Put, "x", "1")), at(2, op(3, 4, kv.Delete, "x", "")), none}, logOf(put("x", "1"), `{"op":"delete","key":"x"}`)},
	} {
		t.Run(c.claim, func(t *testing.T) {
			for name, against := range map[string]func(History, []node.Entry, bool) error{"at the end": AgainstLog, "at each answer": judged} {
				err := against(c.h, c.log, true)
				if c.breaks == "" {
					require.NoError(t, err, name)
					continue
				}
				var v *Violation
				require.ErrorAs(t, err, &v, name)
				require.Equal(t, c.breaks, v.Invariant, "%s: %v", name, v)
				if c.breaks == "I23" {
					require.NoError(t, against(c.h, c.log, false), "%s: only reads are at fault", name)
				}
			}
		})
	}
}

// It checks a hundred thousand operations quickly.
func TestAgainstALongLog(t *testing.T) {
	var h History
	var log []string
	for i := range 50_000 {
		key, value := fmt.Sprint("k", i%50), fmt.Sprint(i)
		log = append(log, put(key, value))
		now := 10 * i
		h = append(h, at(uint64(i+1), op(now, now+25, kv.Put, key, value)), op(now+26, now+29, kv.Get, key, value))
	}
	require.NoError(t, AgainstLog(h, logOf(log...), true))
	h[77_777].Response.Value = "0"
	require.ErrorContains(t, AgainstLog(h, logOf(log...), true), "I23")
}

func TestDecodeCommand(t *testing.T) {
	c, session, seq, ok := DecodeCommand([]byte(inSession(7, 2, "v")))
	require.True(t, ok)
	require.Equal(t, kv.Command{Op: kv.Append, Key: "x", Value: "v"}, c)
	require.Equal(t, [2]uint64{7, 2}, [2]uint64{session, seq})
	for _, text := range []string{"", "{}", `{"op":"open"}`, `{"voters":[1,2]}`, "not json"} {
		_, _, _, ok := DecodeCommand([]byte(text))
		require.False(t, ok, text)
	}
}

func TestCommittedEntriesAreKept(t *testing.T) {
	s := leaderOfThree(t)
	require.Equal(t, []node.Entry{entry(1, "a"), entry(1, "b")}, s.c.Committed())
}

func BenchmarkAgainstLog(b *testing.B) {
	var h History
	var log []string
	for i := range 10_000 {
		key, value := fmt.Sprint("k", i%50), fmt.Sprint(i)
		log = append(log, put(key, value))
		h = append(h, at(uint64(i+1), op(10*i, 10*i+5, kv.Put, key, value)))
	}
	entries := logOf(log...)
	for b.Loop() {
		if err := AgainstLog(h, entries, true); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed()/time.Duration(b.N*len(h))), "ns/operation")
}
