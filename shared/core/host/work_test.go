package host

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/api"
	"example.com/raftsteps/shared/core/node"
)

// worker is a server that starts work alongside it when it is created.
type worker struct {
	recorder
	working, done, closed atomic.Bool

	// broken makes Flush fail.
	broken atomic.Bool

	// early is true if the server was closed while its work used what it has.
	early atomic.Bool
}

func (s *worker) Close() error {
	s.early.Store(s.working.Load())
	s.closed.Store(true)
	return nil
}

// A server that stops is closed only after the work alongside it has ended,
// because the work may use the files that Close closes. The server is not told
// that the work has ended.
func TestWorkEndsBeforeItsServer(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &worker{}
			s.flush = func() error {
				if s.broken.Load() {
					return errors.New("input/output error")
				}
				return nil
			}
			var w node.World
			h, err := New(Options{
				ID: 1, Config: node.Config{Cluster: "c", Members: []node.Member{{ID: 1, Address: "n1"}}}, Ops: api.Commands(),
				NoClients: true, Transport: (&memory{}).of(1), Log: slog.New(slog.DiscardHandler),
				New: func(world node.World) (node.Server, error) {
					w = world
					return s, nil
				},
			})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- h.Run(ctx) }()
			w.Work(func() error {
				s.working.Store(true)
				time.Sleep(time.Second)
				s.working.Store(false)
				return nil
			}, func(error) { s.done.Store(true) })
			synctest.Wait()
			require.True(t, s.working.Load())
			if fails {
				s.broken.Store(true)
			} else {
				stop()
			}
			err = <-ended
			require.Equal(t, fails, err != nil)
			require.True(t, s.closed.Load())
			require.False(t, s.early.Load(), "it was closed before its work had ended")
			require.False(t, s.working.Load())
			require.False(t, s.done.Load(), "a server that has stopped is told nothing")
		})
	}
}
