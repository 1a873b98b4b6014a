package wire_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// If a server reads nothing, the requests must not pile up in the client: the
// connection ends.
func TestAServerThatReadsNothingEndsTheConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := wire.Dial(ctx, ln.Addr().String(), wire.Limits{Write: 20 * time.Millisecond})
	require.NoError(t, err)
	defer c.Close()
	value := strings.Repeat("x", kv.MaxValue)
	sent := 0
	for !c.Broken() {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		_, err := c.Do(short, api.Request{Op: kv.Put, Key: "x", Value: value})
		cancel()
		require.Error(t, err)
		require.NoError(t, ctx.Err(), "the connection is still open after %d requests", sent)
		sent++
	}
	_, err = c.Do(ctx, api.Request{Op: kv.Put, Key: "x", Value: "1"})
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.Unavailable, e.Code)
	require.Contains(t, e.Message, ln.Addr().String())
}
