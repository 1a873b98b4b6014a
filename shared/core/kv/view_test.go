package kv

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

func contents(each func(func(key, value string) bool)) map[string]string {
	m := make(map[string]string)
	each(func(k, v string) bool {
		m[k] = v
		return true
	})
	return m
}

// A store gives the same results and content whether or not views of it are
// created and closed in between, and a view does not change.
func TestAViewIsConsistentAndReadOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s, plain := NewStore(), NewStore()
	var view *View
	var then map[string]string
	for i := range 20_000 {
		c := Command{Op: []string{Put, Append, Cas, Delete}[rng.IntN(4)], Key: fmt.Sprint(rng.IntN(60)), Value: fmt.Sprint(rng.IntN(5)), Old: fmt.Sprint(rng.IntN(5))}
		require.Equal(t, plain.Apply(c), s.Apply(c))
		require.Equal(t, plain.Len(), s.Len())
		switch {
		case view == nil && i%97 == 0:
			view, then = s.Freeze(), contents(plain.Each)
		case view != nil && i%97 == 60:
			require.Equal(t, then, contents(view.Each))
			require.Equal(t, len(then), view.Len())
			view.Close()
			view = nil
		}
		if i%50 == 0 {
			require.Equal(t, contents(plain.Each), contents(s.Each))
		}
	}
}

func TestChangesMoveIntoTheMapOnceTheViewIsClosed(t *testing.T) {
	s := NewStore()
	for i := range 1000 {
		s.Apply(Command{Op: Put, Key: fmt.Sprint(i), Value: "old"})
	}
	view := s.Freeze()
	for i := range 1000 {
		s.Apply(Command{Op: Put, Key: fmt.Sprint(i), Value: "new"})
	}
	require.Len(t, s.changes, 1000)
	view.Close()
	for range 1000 {
		s.Apply(Command{Op: Put, Key: "x", Value: "1"})
	}
	require.Nil(t, s.changes)
	require.Equal(t, Result{Value: "new"}, s.Get("7"))
}

func TestAViewCanBeReadDuringWrites(t *testing.T) {
	s := NewStore()
	for i := range 1000 {
		s.Apply(Command{Op: Put, Key: fmt.Sprint(i), Value: "old"})
	}
	then := contents(s.Each)
	view := s.Freeze()
	var g errgroup.Group
	g.Go(func() error {
		defer view.Close()
		if !maps.Equal(then, contents(view.Each)) {
			return fmt.Errorf("the view has changed")
		}
		return nil
	})
	g.Go(func() error {
		for i := range 5000 {
			s.Apply(Command{Op: Append, Key: fmt.Sprint(i % 1500), Value: "x"})
		}
		return nil
	})
	require.NoError(t, g.Wait())
}

func TestTheHashDependsOnTheContentOnly(t *testing.T) {
	fill := func(keys ...string) *Store {
		s := NewStore()
		for _, key := range keys {
			s.Apply(Command{Op: Put, Key: key, Value: key + "!"})
		}
		return s
	}
	require.Equal(t, fill("a", "b", "c").Hash(), fill("c", "a", "b").Hash())
	require.NotEqual(t, fill("a", "b").Hash(), fill("a", "c").Hash())
	require.NotEqual(t, fill("a").Hash(), fill().Hash())

	frozen := fill("a", "b", "x")
	view := frozen.Freeze()
	frozen.Apply(Command{Op: Delete, Key: "x"})
	frozen.Apply(Command{Op: Put, Key: "c", Value: "c!"})
	require.Equal(t, fill("a", "b", "c").Hash(), frozen.Hash(), "the hash must include changes that are not in the map yet")
	view.Close()
}

func TestViewIsInOrder(t *testing.T) {
	s := NewStore()
	for i := range 100 {
		s.Apply(Command{Op: Put, Key: fmt.Sprint(i * 7919 % 100), Value: "v"})
	}
	view := s.Freeze()
	defer view.Close()
	var keys []string
	view.Each(func(key, _ string) bool {
		keys = append(keys, key)
		return true
	})
	require.True(t, slices.IsSorted(keys))
	require.Len(t, keys, 100)
}
