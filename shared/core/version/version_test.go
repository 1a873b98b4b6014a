package version

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		own, their Range
		want       uint64
		wrong      string
	}{
		{Range{5, 5}, Range{5, 5}, 5, ""},
		{Range{5, 5}, Range{5, 6}, 5, ""},
		{Range{5, 6}, Range{5, 5}, 5, ""},
		{Range{5, 6}, Range{6, 7}, 6, ""},
		{Range{5, 7}, Range{6, 9}, 7, ""},
		{Range{5, 5}, Range{6, 7}, 0, "n2 uses versions 6 to 7 of the protocol, this server version 5: run programs on both that have a version in common; upgrade from one release to the next"},
		{Range{6, 7}, Range{5, 5}, 0, "n2 uses version 5 of the protocol, this server versions 6 to 7: run programs on both that have a version in common; upgrade from one release to the next"},
		{Range{5, 6}, Range{6, 5}, 0, "n2 uses versions 6 to 5 of the protocol, this server versions 5 to 6: run programs on both that have a version in common; upgrade from one release to the next"},
		{Range{0, 6}, Range{0, 0}, 0, "n2 uses version 0 of the protocol, this server versions 0 to 6: run programs on both that have a version in common; upgrade from one release to the next"},
	} {
		got, err := c.own.Agree(c.their, "n2", "the protocol")
		require.Equal(t, c.want, got, "%v and %v", c.own, c.their)
		if c.wrong == "" {
			require.NoError(t, err)
			require.True(t, c.own.Has(got) && c.their.Has(got))
		} else {
			require.EqualError(t, err, c.wrong)
		}
	}
}
