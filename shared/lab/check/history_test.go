package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
)

// op is an operation of client 1 between two moments, with a value as answer.
func op(from, to int, name, key, value string) Operation {
	q := api.Request{Op: name, Key: key}
	o := Operation{Client: 1, Server: 1, Invoke: time.Duration(from), Return: time.Duration(to), Done: true}
	if name == kv.Get {
		o.Response = api.Response{Value: value, HasValue: true}
	} else {
		q.Value = value
	}
	o.Request = q
	return o
}

func failed(o Operation, code api.Code, definite bool) Operation {
	o.Response = api.Failed(0, &api.Error{Code: code, Definite: definite})
	return o
}

func pending(o Operation) Operation {
	o.Done = false
	return o
}

func appended(from, to int, key, value, all string) Operation {
	o := op(from, to, kv.Append, key, value)
	o.Response = api.Response{Length: uint64(len(all)), HasLength: true}
	return o
}

func cas(from, to int, key, old, value string) Operation {
	o := op(from, to, kv.Cas, key, value)
	o.Request.Old = old
	return o
}

func TestLinearizable(t *testing.T) {
	for _, c := range []struct {
		claim string
		ok    bool
		h     History
	}{
		{"nothing happened", true, nil},
		{"a read sees the write before it", true, History{op(1, 2, kv.Put, "x", "1"), op(3, 4, kv.Get, "x", "1")}},
		{"a read misses the write before it", false, History{op(1, 2, kv.Put, "x", "1"), failed(op(3, 4, kv.Get, "x", ""), api.NotFound, true)}},
		{"a read concurrent with the write may miss it", true, History{op(1, 4, kv.Put, "x", "1"), failed(op(2, 3, kv.Get, "x", ""), api.NotFound, true)}},
		{"time runs back between two reads", false, History{op(1, 2, kv.Put, "x", "1"), op(3, 9, kv.Put, "x", "2"), op(4, 5, kv.Get, "x", "2"), op(6, 7, kv.Get, "x", "1")}},
		{"keys do not mix", true, History{op(1, 2, kv.Put, "x", "1"), failed(op(3, 4, kv.Get, "y", ""), api.NotFound, true)}},
		{"a value from nowhere", false, History{op(3, 4, kv.Get, "x", "1")}},
		{"an unknown write may show late", true, History{pending(op(1, 2, kv.Put, "x", "1")), failed(op(3, 4, kv.Get, "x", ""), api.NotFound, true), op(5, 6, kv.Get, "x", "1")}},
		{"an unknown write may never show", true, History{failed(op(1, 2, kv.Put, "x", "1"), api.Unknown, false), failed(op(3, 4, kv.Get, "x", ""), api.NotFound, true)}},
		{"an unknown write may not come and go", false, History{failed(op(1, 2, kv.Put, "x", "1"), api.Unknown, false), op(3, 4, kv.Get, "x", "1"), failed(op(5, 6, kv.Get, "x", ""), api.NotFound, true)}},
		{"a refused write must not show", false, History{failed(op(1, 2, kv.Put, "x", "1"), api.Unavailable, true), op(3, 4, kv.Get, "x", "1")}},
		{"a read without an answer says nothing", true, History{pending(op(1, 2, kv.Get, "x", "7"))}},
		{"status is no command", true, History{{Request: api.Request{Op: api.Status}, Done: true}}},
		{"appends add up", true, History{appended(1, 2, "x", "a", "a"), appended(3, 4, "x", "b", "ab")}},
		{"an append applied twice", false, History{appended(1, 2, "x", "a", "a"), op(3, 4, kv.Get, "x", "aa")}},
		{"cas finds what it expects", true, History{op(1, 2, kv.Put, "x", "1"), cas(3, 4, "x", "1", "2"), op(5, 6, kv.Get, "x", "2")}},
		{"two clients made the same key", false, History{op(1, 3, kv.Create, "x", "1"), op(2, 4, kv.Create, "x", "2")}},
		{"one of two clients made the key", true, History{op(1, 3, kv.Create, "x", "1"), failed(op(2, 4, kv.Create, "x", "2"), api.Exists, true), op(5, 6, kv.Get, "x", "1")}},
		{"a key that nobody made exists", false, History{failed(op(1, 2, kv.Create, "x", "1"), api.Exists, true)}},
		{"a cas that failed has read another value", false, History{op(1, 2, kv.Put, "x", "1"), failed(cas(3, 4, "x", "1", "2"), api.Mismatch, true)}},
		{"cas on nothing", true, History{failed(cas(3, 4, "x", "1", "2"), api.NotFound, true)}},
		{"a cas that succeeds on nothing", false, History{cas(3, 4, "x", "1", "2")}},
		{"two cas from the same value", false, History{op(1, 2, kv.Put, "x", "1"), cas(3, 6, "x", "1", "2"), cas(4, 7, "x", "1", "3")}},
		{"delete removes", true, History{op(1, 2, kv.Put, "x", "1"), op(3, 4, kv.Delete, "x", ""), failed(op(5, 6, kv.Delete, "x", ""), api.NotFound, true)}},
		{"deleted twice", false, History{op(1, 2, kv.Put, "x", "1"), op(3, 4, kv.Delete, "x", ""), op(5, 6, kv.Delete, "x", "")}},
		{"too large has read the value", false, History{failed(op(1, 2, kv.Append, "x", "a"), api.TooLarge, true)}},
	} {
		t.Run(c.claim, func(t *testing.T) {
			err := Linearizable(c.h, LinearLimit)
			if c.ok {
				require.NoError(t, err)
				return
			}
			var bad *NotLinearizable
			require.ErrorAs(t, err, &bad)
			require.False(t, bad.Undecided)
		})
	}
}

// The specification and the store must agree: random commands, one at a time,
// give the same results.
func TestTheModelAgreesWithTheStore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	store, state := kv.NewStore(), register{}
	ops := []string{kv.Get, kv.Put, kv.Create, kv.Append, kv.Cas, kv.Delete}
	texts := []string{"", "a", "b", string(make([]byte, kv.MaxValue))}
	for range 5000 {
		c := kv.Command{Op: ops[r.IntN(len(ops))], Key: "k", Value: texts[r.IntN(len(texts))], Old: texts[r.IntN(len(texts))]}
		got := api.Result(0, c.Op, store.Apply(c))
		ok, next := step(state, &api.Request{Op: c.Op, Key: c.Key, Value: c.Value, Old: c.Old}, &seen{true, got})
		require.True(t, ok, "%s gave %+v from %d bytes", c.Op, got.Error, len(state.value))
		state = next.(register)
	}
}

func TestFailureShowsTheKeyAndTheAnswer(t *testing.T) {
	var h History
	for i := range 100 {
		h = append(h, op(10*i, 10*i+1, kv.Put, "calm", fmt.Sprint(i)), op(10*i+2, 10*i+3, kv.Put, "x", fmt.Sprint(i)))
	}
	h = append(h, op(2000, 2001, kv.Get, "x", "98"))
	for i := range 100 {
		h = append(h, op(3000+10*i, 3001+10*i, kv.Put, "x", "later"))
	}
	err := Linearizable(h, LinearLimit)
	var bad *NotLinearizable
	require.ErrorAs(t, err, &bad)
	require.Equal(t, "x", bad.Key)
	require.Len(t, bad.Operations, mostShown)
	culprit := bad.Operations[bad.Culprit]
	require.Equal(t, kv.Get, culprit.Request.Op)
	require.Equal(t, "98", culprit.Response.Value)
	require.Regexp(t, `(?m)^→   0\.000002s  0\.000002s  1       n1      get x      98$`, err.Error())
	require.NotContains(t, err.Error(), "later", "what came after has nothing to do with it")
}

// A search that ran out of time has proved nothing.
func TestAnUndecidedSearchIsAFailure(t *testing.T) {
	err := Linearizable(History{op(1, 2, kv.Put, "x", "1")}, 0)
	var bad *NotLinearizable
	require.ErrorAs(t, err, &bad)
	require.True(t, bad.Undecided)
	require.ErrorContains(t, err, "nothing is proved")

	// Many unknown appends at once have too many orders to search.
	r := rand.New(rand.NewPCG(1, 2))
	var h History
	for i := range 64 {
		h = append(h, pending(op(i, 0, kv.Append, "x", fmt.Sprintf("%d,", r.IntN(1000)))))
	}
	h = append(h, op(100, 200, kv.Get, "x", "never written"))
	require.ErrorAs(t, Linearizable(h, 50*time.Millisecond), &bad)
	require.True(t, bad.Undecided)
}

func TestOutcomes(t *testing.T) {
	put := op(1, 2, kv.Put, "x", "1")
	h := History{put, pending(put), failed(put, api.Unknown, false), failed(put, api.NotLeader, true), failed(put, api.Mismatch, true)}
	require.Equal(t, Counts{Happened: 2, Refused: 1, Unknown: 2}, h.Counts())
}

func TestAgree(t *testing.T) {
	hold := func(values ...string) []Replica {
		var all []Replica
		for i, v := range values {
			all = append(all, Replica{Server: uint64(i + 1), Found: v != "-", Value: v})
		}
		return all
	}
	require.NoError(t, Agree("x", nil))
	require.NoError(t, Agree("x", hold("1", "1", "1")))
	for _, c := range []struct {
		replicas []Replica
		want     string
		minority []uint64
	}{
		{hold("2", "2", "1", "2", "2"), "n3 holds x=1, the others x=2", []uint64{3}},
		{hold("2", "1", "1", "2", "2"), "n2 and n3 hold x=1, the others x=2", []uint64{2, 3}},
		{hold("2", "1", "-", "2"), "n2 holds x=1, n3 has no x, the others x=2", []uint64{2, 3}},
		{hold("-", "1", "-"), "n2 holds x=1, the others have no x", []uint64{2}},
		{hold("1", "-", "-", "1", "1"), "n2 and n3 have no x, the others x=1", []uint64{2, 3}},
		{hold("1", "2"), "n2 holds x=2, n1 holds x=1", []uint64{2}},
		{hold("1", ""), `n2 holds x="", n1 holds x=1`, []uint64{2}},
	} {
		err := Agree("x", c.replicas)
		require.EqualError(t, err, c.want)
		var d *Differ
		require.ErrorAs(t, err, &d)
		require.Equal(t, c.minority, d.Minority())
	}
	require.False(t, slices.Contains((&Differ{Key: "x", Replicas: hold("1", "1", "2")}).Minority(), 1))
}
