package wire_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// A client that asks again whenever it is refused must not delay the end of a
// stopping server, and learns for each refused request that it was not begun.
func TestAnImpatientClientDoesNotDelayTheStop(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s := wire.Server{
		Ops:     api.Commands(),
		Handler: func(r api.Request, reply func(api.Response)) { reply(api.Response{}) },
		Limits:  wire.Limits{Drain: time.Hour},
	}
	var g errgroup.Group
	g.Go(func() error { return s.Serve(ctx, ln) })

	patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := wire.Dial(patient, ln.Addr().String(), wire.Limits{})
	require.NoError(t, err)
	defer c.Close()
	for n := 0; !c.Broken(); n++ {
		if n == 100 {
			stop()
		}
		_, err := c.Do(patient, api.Request{Op: kv.Put, Key: "x", Value: "1"})
		require.NoError(t, patient.Err(), "the server is still running after %d requests", n)
		var e *api.Error
		if errors.As(err, &e) {
			require.True(t, e.Definite, "%v", err)
		}
	}
	require.NoError(t, g.Wait())
}
