package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/kv"
)

func TestQuota(t *testing.T) {
	s := kv.NewStore()
	q := Quota{Limit: 300}
	answered := 0
	reply := func(Response) { answered++ }
	value := strings.Repeat("v", 100)
	take := func(c kv.Command) (func(Response), *Error) {
		t.Helper()
		return q.Take(s, c, reply)
	}
	first, full := take(kv.Command{Op: kv.Put, Key: "a", Value: value})
	require.Nil(t, full)
	_, full = take(kv.Command{Op: kv.Put, Key: "b", Value: value})
	require.Equal(t, &Error{Code: Full, Definite: true, Message: "the store holds 0 bytes and may hold 300; delete something first"}, full,
		"commands that have not been applied yet must count")
	s.Apply(kv.Command{Op: kv.Put, Key: "a", Value: value})
	first(Response{})
	require.Equal(t, 1, answered)
	require.EqualValues(t, 165, s.Bytes())

	for _, c := range []kv.Command{
		{Op: kv.Put, Key: "b", Value: value},
		{Op: kv.Append, Key: "a", Value: value + value},
		{Op: kv.Cas, Key: "a", Old: value, Value: value + value + value},
	} {
		_, full := take(c)
		require.NotNil(t, full, c.Op)
	}
	for _, c := range []kv.Command{
		{Op: kv.Get, Key: "a"},
		{Op: kv.Delete, Key: "a"},
		{Op: kv.Put, Key: "a", Value: "short"},
		{Op: kv.Cas, Key: "a", Old: value, Value: "short"},
		{Op: kv.Cas, Key: "missing", Value: value + value + value},
		{Op: kv.Append, Key: "a", Value: "x"},
	} {
		reply, full := take(c)
		require.Nil(t, full, c.Op)
		reply(Response{})
	}
	require.Zero(t, q.growing.Load())
	require.EqualValues(t, 1<<30, kv.StoreBytes)
	_, full = new(Quota).Take(s, kv.Command{Op: kv.Put, Key: "b", Value: value}, reply)
	require.Nil(t, full)
}
