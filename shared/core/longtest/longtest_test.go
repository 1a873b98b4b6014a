package longtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPick(t *testing.T) {
	for text, want := range map[string]string{"": "usual", "0": "usual", "false": "usual", "1": "long", "true": "long"} {
		t.Setenv(variable, text)
		require.Equal(t, want, Pick("usual", "long"), text)
	}
	t.Setenv(variable, "yes")
	require.PanicsWithValue(t, `RAFTSTEPS_LONG="yes": set it to 1 for long tests, or not at all`, func() { On() })
}
