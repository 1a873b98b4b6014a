package kv

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A list is what the keys of the store, sorted and filtered, give, whatever was done
// to the store before, also while a View reads it.
func TestListIsTheSortedStore(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s, model := NewStore(), make(map[string]string)
	var v *View
	for i := range 3000 {
		key := fmt.Sprintf("%c%d", 'a'+random.IntN(3), random.IntN(50))
		if random.IntN(3) == 0 {
			s.Apply(Command{Op: Delete, Key: key})
			delete(model, key)
		} else {
			s.Apply(Command{Op: Put, Key: key, Value: fmt.Sprint(i)})
			model[key] = fmt.Sprint(i)
		}
		switch {
		case i%100 == 20:
			v = s.Freeze()
		case i%100 == 80:
			v.Close()
		}
		r := Range{Prefix: []string{"", "a", "b1", "zz"}[random.IntN(4)], After: []string{"", "a", "b25", "c", "zz"}[random.IntN(5)],
			Limit: random.IntN(10), Bytes: random.IntN(40), KeysOnly: random.IntN(2) == 0}
		var want []Item
		more, bytes := false, 0
		for _, key := range slices.Sorted(maps.Keys(model)) {
			if !strings.HasPrefix(key, r.Prefix) || key <= r.After && r.After != "" {
				continue
			}
			if r.Limit > 0 && len(want) == r.Limit || r.Bytes > 0 && bytes >= r.Bytes {
				more = true
				break
			}
			item := Item{Key: key, Value: model[key]}
			if r.KeysOnly {
				item.Value = ""
			}
			bytes += len(item.Key) + len(item.Value)
			want = append(want, item)
		}
		items, left := s.List(r)
		require.Equal(t, want, items, "%+v", r)
		require.Equal(t, more, left, "%+v", r)
	}
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		s := NewStore()
		for i := range n {
			s.Apply(Command{Op: Put, Key: fmt.Sprintf("key%09d", i), Value: "v"})
		}
		b.Run(fmt.Sprintf("100 of %d keys", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.List(Range{Prefix: "key", After: "key000000500", Limit: 100})
			}
		})
	}
}
