package kv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The hash that each change keeps up to date is the one of the content, with and
// without a view.
func TestHashFollowsTheContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	s := NewStore()
	var view *View
	for i := range 20_000 {
		s.Apply(Command{
			Op: []string{Put, Append, Cas, Delete, Create}[rng.IntN(5)], Key: fmt.Sprint(rng.IntN(60)),
			Value: strings.Repeat("v", rng.IntN(20)), Old: strings.Repeat("v", rng.IntN(20)),
		})
		switch {
		case view == nil && i%97 == 0:
			view = s.Freeze()
		case view != nil && i%97 == 60:
			view.Close()
			view = nil
		}
		if i%50 == 0 {
			var want uint64
			s.Each(func(key, value string) bool {
				want += hashPair(key, value)
				return true
			})
			require.Equal(t, want, s.Hash())
		}
	}
	for i := range 60 {
		s.Apply(Command{Op: Delete, Key: fmt.Sprint(i)})
	}
	require.Zero(t, s.Hash())
}

// A recount of several parts is right, whatever changes in between, and finds a value
// that was changed in memory.
func TestRecount(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	s := NewStore()
	change := func() {
		s.Apply(Command{Op: []string{Put, Append, Delete}[rng.IntN(3)], Key: fmt.Sprint(rng.IntN(60)), Value: "v"})
	}
	count := func() (calls int, right bool) {
		for done := false; !done; calls++ {
			done, right = s.Recount(calls == 0, 5*KeyBytes)
			for range rng.IntN(20) {
				if !done {
					change()
				}
			}
		}
		return calls, right
	}
	_, right := count()
	require.True(t, right, "an empty store")
	for i := range 500 {
		for range 30 {
			change()
		}
		var view *View
		if i%3 == 0 {
			view = s.Freeze()
		}
		calls, right := count()
		require.True(t, right)
		require.Greater(t, calls, 3)
		if view != nil {
			view.Close()
		}
	}
	s.Apply(Command{Op: Put, Key: "7", Value: "old"})
	for s.changes != nil {
		s.moveSome()
	}
	s.values["7"] = "odd"
	_, right = count()
	require.False(t, right)
	s.Apply(Command{Op: Put, Key: "7", Value: "new"})
	_, right = count()
	require.False(t, right, "it may have had consequences")
}

// Different texts have different hashes, and all machines have the same one: servers
// compare them.
func TestHashText(t *testing.T) {
	seen := make(map[uint64]string)
	add := func(key, value string) {
		h := hashPair(key, value)
		if other, found := seen[h]; found {
			require.Fail(t, "two pairs have the same hash", "%s, and %q = %q", other, key, value)
		}
		seen[h] = fmt.Sprintf("%q = %q", key, value)
	}
	for n := range 40 {
		add("", strings.Repeat("\x00", n))
		add(strings.Repeat("\x00", n+1), "")
		for bit := range 8 * n {
			text := []byte(strings.Repeat("x", n))
			text[bit/8] ^= 1 << (bit % 8)
			add("key", string(text))
		}
	}
	for i := range 100_000 {
		add(fmt.Sprint("key", i), "1")
		add("key", fmt.Sprint("value", i))
	}
	require.Equal(t, uint64(0xa38ee67265f22b5d), HashText(0, "raft"), "another hash than before")
}

func BenchmarkHashText(b *testing.B) {
	for _, n := range []int{8, 100, 4 << 10} {
		text := strings.Repeat("x", n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				HashText(0, text)
			}
		})
	}
}
