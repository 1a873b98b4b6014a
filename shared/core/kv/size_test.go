package kv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Bytes is the sum over what Each finds, after any command and with or without an
// open view. No command makes the store larger by more than Growth returned.
func TestBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := NewStore()
	var view *View
	ops := []string{Put, Create, Append, Cas, Delete}
	for range 20_000 {
		c := Command{Op: ops[rng.IntN(len(ops))], Key: fmt.Sprint("k", rng.IntN(20)), Value: strings.Repeat("v", rng.IntN(100))}
		if c.Op == Cas && rng.IntN(2) == 0 {
			c.Old = s.Get(c.Key).Value
		}
		before, growth := s.Bytes(), s.Growth(c)
		s.Apply(c)
		require.LessOrEqual(t, s.Bytes(), before+growth)
		if c.Op == Put {
			require.Equal(t, max(s.Bytes(), before), before+growth)
		}
		switch rng.IntN(50) {
		case 0:
			if view == nil {
				view = s.Freeze()
			}
		case 1:
			if view != nil {
				view.Close()
				view = nil
			}
		}
		var sum int64
		s.Each(func(key, value string) bool {
			sum += int64(len(key) + len(value) + KeyBytes)
			return true
		})
		require.Equal(t, sum, s.Bytes())
	}
}
