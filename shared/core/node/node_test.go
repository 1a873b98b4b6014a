package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A joiner has an address like a member.
func TestAddress(t *testing.T) {
	c := Config{
		Members: []Member{{ID: 1, Address: "127.0.0.1:7071"}, {ID: 2, Address: "127.0.0.1:7072"}},
		Joiners: []Member{{ID: 4, Address: "127.0.0.1:7074"}},
	}
	require.Equal(t, "127.0.0.1:7072", c.Address(2))
	require.Equal(t, "127.0.0.1:7074", c.Address(4))
	require.Empty(t, c.Address(3))
}
