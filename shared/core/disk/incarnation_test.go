package disk

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIncarnation(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, i := range []Incarnation{1, 0xff, 0x0123456789abcdef, 1<<64 - 1, Draw(rng), Draw(rng)} {
		got, err := ParseIncarnation([]byte(i.String()))
		require.NoError(t, err)
		require.Equal(t, i, got)
	}
	require.Equal(t, "00000000000000ff", Incarnation(255).String())
	require.NotEqual(t, Draw(rng), Draw(rng))
	for _, text := range []string{"", "12", "00000000000000f", "00000000000000fff", "00000000000000fg", " 0000000000000ff"} {
		_, err := ParseIncarnation([]byte(text))
		require.Error(t, err, text)
	}
}
