package transport

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRegistry(t *testing.T) {
	require.Equal(t, []string{TCP}, Names())
	var got Options
	Register("pigeons", func(o Options) (Transport, error) {
		got = o
		return nil, nil
	})
	defer delete(registry.factories, "pigeons")
	require.Equal(t, []string{TCP, "pigeons"}, Names())
	_, err := New("pigeons", Options{ID: 7})
	require.NoError(t, err)
	require.EqualValues(t, 7, got.ID)
	_, err = New("ravens", Options{})
	require.EqualError(t, err, `this program has no transport "ravens"; it has tcp, pigeons`)
	for _, name := range []string{"pigeons", TCP, ""} {
		require.Panics(t, func() { Register(name, nil) })
	}
}

func TestLimits(t *testing.T) {
	require.Equal(t, DefaultLimits(), Limits{}.Filled())
	l := Limits{Message: 1, Idle: time.Hour}.Filled()
	require.Equal(t, 1, l.Message)
	require.Equal(t, time.Hour, l.Idle)
	require.Equal(t, DefaultLimits().Dial, l.Dial)
}
