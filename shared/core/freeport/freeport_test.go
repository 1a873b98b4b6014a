package freeport

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Blocks do not overlap while they are held, and all of their ports can be
// listened on.
func TestReserve(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		b, err := Reserve()
		require.NoError(t, err)
		t.Cleanup(func() { b.Close() })
		require.Equal(t, fmt.Sprintf("127.0.0.1:%d", b.First()), b.Address(0))
		for i := range Size {
			require.False(t, seen[b.Address(i)], b.Address(i))
			seen[b.Address(i)] = true
		}
		l, err := net.Listen("tcp", b.Address(Size-1))
		require.NoError(t, err)
		l.Close()
	}
	for a := range seen {
		host, port, err := net.SplitHostPort(a)
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1", host)
		require.Less(t, port, "32768") // where Linux begins to hand them out
	}
}

// A block that was closed can be reserved again.
func TestClose(t *testing.T) {
	b, err := Reserve()
	require.NoError(t, err)
	_, err = listen(b.First() + Size)
	require.Error(t, err)
	require.NoError(t, b.Close())
	l, err := listen(b.First() + Size)
	require.NoError(t, err)
	l.Close()
}

// A block with a port on which somebody listens is not free.
func TestFree(t *testing.T) {
	b, err := Reserve()
	require.NoError(t, err)
	defer b.Close()
	require.True(t, free(b.First(), b.First()+Size))
	l, err := net.Listen("tcp", b.Address(7))
	require.NoError(t, err)
	defer l.Close()
	require.False(t, free(b.First(), b.First()+Size))
}

func TestAddressOutsideOfTheBlock(t *testing.T) {
	b, err := Reserve()
	require.NoError(t, err)
	defer b.Close()
	require.Panics(t, func() { b.Address(Size) })
	require.Panics(t, func() { b.Address(-1) })
}
