package check

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/node"
)

// judged judges the answers of a history one after another, and returns the first
// error. An entry is committed when the request for it has begun, or with the entry
// after it.
func judged(h History, log []node.Entry, reads bool) error {
	h = slices.Clone(h)
	slices.SortStableFunc(h, func(a, b Operation) int { return cmp.Compare(a.Invoke, b.Invoke) })
	var order []int
	for i, o := range h {
		if o.Done {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(h[a].Return, h[b].Return) })
	began := make(map[uint64]time.Duration)
	for _, o := range h {
		began[o.Response.Index] = o.Invoke
	}
	j, c := judgeOf()
	j.reads = reads
	for _, i := range order {
		for k := len(c.committed) + 1; k <= len(log) && began[uint64(k)] <= h[i].Return; k++ {
			c.committed = append(c.committed, commitment{data: log[k-1].Data})
		}
		n := 0
		for n < len(h) && h[n].Invoke <= h[i].Return {
			n++
		}
		if err := j.Answered(h[:n], i); err != nil {
			return err
		}
	}
	return nil
}

// Every answer is judged when it comes: what is wrong later changes nothing.
func TestTheFirstWrongAnswerIsFound(t *testing.T) {
	j, _ := judgeOf(put("x", "1"), put("x", "2"))
	h := History{at(1, op(1, 2, kv.Put, "x", "1")), at(2, op(3, 4, kv.Put, "x", "2")), op(5, 6, kv.Get, "x", "1"), op(7, 8, kv.Get, "x", "0")}
	require.NoError(t, j.Answered(h[:1], 0))
	require.NoError(t, j.Answered(h[:2], 1))
	require.EqualError(t, j.Answered(h[:3], 2), "I23 (Reads) is broken: client 1 read x and was told 1 by n1; no index from 2 on has that, and entry 2, after which x is 2, was seen before that read began")
}

// judgeOf returns a judge who knows these entries.
func judgeOf(log ...string) (*Judge, *Invariants) {
	c := NewInvariants()
	c.counters.Looks = 1
	for _, e := range logOf(log...) {
		c.committed = append(c.committed, commitment{data: e.Data})
	}
	return NewJudge(c, true), c
}

func TestAWriteThatComesTooEarly(t *testing.T) {
	j, _ := judgeOf(put("y", "1"), put("x", "1"))
	h := History{at(2, op(1, 2, kv.Put, "x", "1")), at(1, op(3, 4, kv.Put, "y", "1"))}
	require.NoError(t, j.Answered(h[:1], 0))
	require.ErrorContains(t, j.Answered(h, 1), "is entry 1, and entry 2 was seen before that request began")
}

func TestARefusedWriteThatIsCommittedLater(t *testing.T) {
	j, c := judgeOf()
	h := History{failed(op(1, 2, kv.Put, "x", "1"), api.NotLeader, true), at(2, op(3, 4, kv.Put, "x", "2"))}
	require.NoError(t, j.Answered(h[:1], 0))
	for _, e := range logOf(put("x", "1"), put("x", "2")) {
		c.committed = append(c.committed, commitment{data: e.Data})
	}
	require.ErrorContains(t, j.Answered(h, 1), "did not and would not happen (not_leader), and it is entry 1")
}

// A server without a log, and one whose log is not known, is not judged.
func TestWithoutALogNothingIsJudged(t *testing.T) {
	require.NoError(t, NewJudge(NewInvariants(), true).Answered(History{op(1, 2, kv.Get, "x", "1")}, 0))
}

// Judging a long run takes time proportional to its length.
func TestManyAnswersAreJudgedQuickly(t *testing.T) {
	j, c := judgeOf()
	var h History
	for i := range 30_000 {
		value := string(rune('a' + i%26))
		c.committed = append(c.committed, commitment{data: []byte(put("x", value))})
		h = append(h, at(uint64(i+1), op(10*i, 10*i+3, kv.Put, "x", value)), op(10*i+4, 10*i+6, kv.Get, "x", value))
		require.NoError(t, j.Answered(h[:len(h)-1], len(h)-2))
		require.NoError(t, j.Answered(h, len(h)-1))
	}
}
