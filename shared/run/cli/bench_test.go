//go:build unix

package cli

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/kv"
	"example.com/raftsteps/shared/core/wire"
)

// The first ^C ends the load of bench --verify, and the next ^C ends the reading
// that checks it.
func TestInterruptEndsTheReadingOfVerify(t *testing.T) {
	for duration, interrupts := range map[string]int{"500ms": 1, "1h": 2} {
		t.Run(duration, func(t *testing.T) {
			t.Parallel()
			address, read := forgetful(t)
			cmd, out := program(t, "91-single", t.TempDir(), "bench", "--verify", "--clients", "1", "--pause", "10ms", "--warmup", "0s", "--duration", duration, "--endpoints", address, "--timeout", "1h")
			if interrupts == 2 {
				require.Eventually(t, func() bool { return strings.Contains(out.String(), "  1 s  ") }, 20*time.Second, 2*time.Millisecond)
				require.NoError(t, cmd.Process.Signal(os.Interrupt))
			}
			<-read
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			cmd.Wait()
			require.Equal(t, 130, cmd.ProcessState.ExitCode(), out)
			require.Contains(t, out.String(), "were not checked\n")
			require.Regexp(t, `verify +interrupted: 0 of \d+ tokens were checked`, out.String())
		})
	}
}

// forgetful is a server that never answers a read of a token, and reports when it
// gets such a read.
func forgetful(t *testing.T) (address string, read <-chan struct{}) {
	t.Helper()
	asked := make(chan struct{}, 16)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	s := &wire.Server{Ops: commandsAndStatus(), Log: slog.New(slog.DiscardHandler), Handler: func(r api.Request, reply func(api.Response)) {
		if r.Op == kv.Get && strings.HasPrefix(r.Key, "verify-") {
			asked <- struct{}{}
			context.AfterFunc(ctx, func() { reply(api.Response{ID: r.ID}) })
			return
		}
		reply(api.Response{ID: r.ID, Length: uint64(len(r.Value)), HasLength: true})
	}}
	g.Go(func() error { return s.Serve(ctx, ln) })
	t.Cleanup(func() {
		cancel()
		require.NoError(t, g.Wait())
	})
	return ln.Addr().String(), asked
}
