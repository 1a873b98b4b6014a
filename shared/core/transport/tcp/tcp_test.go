package tcp

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/raftsteps/shared/core/node"
	"example.com/raftsteps/shared/core/wire"
)

// A peer that dials again has two connections for a moment. It has left when both
// have ended.
func TestPeerThatIsMetTwice(t *testing.T) {
	tr := New(wire.Identity{Cluster: "north", Secret: "s", ID: 1, Address: "127.0.0.1:1"}, wire.Limits{}, slog.New(slog.DiscardHandler), nil)
	tr.meet(4, "127.0.0.1:4")
	tr.meet(4, "127.0.0.1:5")
	require.Equal(t, "127.0.0.1:5", tr.links[4].address)
	tr.left(4)
	require.Equal(t, "127.0.0.1:5", tr.links[4].address)
	tr.left(4)
	require.Empty(t, tr.links)
	require.False(t, tr.Send(4, []byte("{}")))
}

// A peer whose address has changed is dialed at the address that it has proved,
// and also at the address that the cluster knows.
func TestPeerThatMoved(t *testing.T) {
	tr := New(wire.Identity{Cluster: "north", Secret: "s", ID: 1, Address: "127.0.0.1:1"}, wire.Limits{}, slog.New(slog.DiscardHandler), nil)
	tr.Connect([]node.Member{{ID: 2, Address: "127.0.0.1:2"}})
	where := func() [2]string { return [2]string{tr.links[2].address, tr.links[2].also} }
	tr.meet(2, "127.0.0.1:2")
	require.Equal(t, [2]string{"127.0.0.1:2", ""}, where())
	tr.left(2)
	tr.meet(2, "127.0.0.1:9")
	require.Equal(t, [2]string{"127.0.0.1:9", "127.0.0.1:2"}, where())
	tr.Connect([]node.Member{{ID: 2, Address: "127.0.0.1:9"}})
	require.Equal(t, [2]string{"127.0.0.1:9", ""}, where(), "the cluster knows it now")
	tr.left(2)
	require.Equal(t, [2]string{"127.0.0.1:9", ""}, where())
}

// A peer at another address is logged once, however often it connects.
func TestAMovedPeerIsReportedOnce(t *testing.T) {
	var log bytes.Buffer
	tr := New(wire.Identity{ID: 1}, wire.Limits{}, slog.New(slog.NewTextHandler(&log, nil)), nil)
	tr.Connect([]node.Member{{ID: 2, Address: "127.0.0.1:2"}})
	for range 3 {
		for _, address := range []string{"127.0.0.1:2", "127.0.0.1:3"} {
			tr.meet(2, address)
			tr.left(2)
		}
	}
	require.Equal(t, 1, strings.Count(log.String(), "a peer listens at another address"))
	tr.meet(2, "127.0.0.1:4")
	require.Equal(t, 2, strings.Count(log.String(), "a peer listens at another address"))
}

// Members come and go while the links are in use and the server stops.
func TestLinksChangeUnderLoad(t *testing.T) {
	tr := New(wire.Identity{Cluster: "north", Secret: "s", ID: 1, Address: "127.0.0.1:1"}, wire.Limits{}, slog.New(slog.DiscardHandler), nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx, nil) }()
	var tasks sync.WaitGroup
	for id := range uint64(4) {
		tasks.Go(func() {
			for i := range 200 {
				switch i % 4 {
				case 0:
					tr.Connect([]node.Member{{ID: id + 2, Address: "127.0.0.1:1"}})
				case 1:
					tr.meet(id+2, fmt.Sprintf("127.0.0.1:%d", i))
				case 2:
					tr.Send(id+2, []byte("{}"))
				default:
					tr.left(id + 2)
				}
				if id == 0 && i == 150 {
					stop()
				}
			}
		})
	}
	tasks.Wait()
	require.NoError(t, <-done)
	require.Empty(t, tr.met)
}
